# An open file stays usable when its name is renamed, replaced or removed.
python3 - <<'PY'
import os

def both_ways(fd, text):
    """What is written by the descriptor is read back by it."""
    os.pwrite(fd, text, 0)
    assert os.pread(fd, 100, 0) == text

fd = os.open("removed", os.O_RDWR | os.O_CREAT, 0o600)
both_ways(fd, b"before")
os.unlink("removed")
both_ways(fd, b"after!")
assert os.fstat(fd).st_nlink == 0
assert os.fstat(fd).st_size == 6
os.ftruncate(fd, 3)
os.fchmod(fd, 0o640)
assert os.fstat(fd).st_mode & 0o777 == 0o640
os.close(fd)

fd = os.open("old", os.O_RDWR | os.O_CREAT, 0o600)
both_ways(fd, b"one")
os.mkdir("dir")
os.rename("old", "dir/new")
both_ways(fd, b"two")
os.rename("dir", "moved")
both_ways(fd, b"three")
assert open("moved/new", "rb").read() == b"three"

# Another file takes its name.
with open("other", "wb") as other:
    other.write(b"other")
os.rename("other", "moved/new")
both_ways(fd, b"mine!")
assert open("moved/new", "rb").read() == b"other"
assert os.fstat(fd).st_nlink == 0
os.close(fd)

# A name made anew is another file.
fd = os.open("again", os.O_RDWR | os.O_CREAT, 0o600)
both_ways(fd, b"first")
os.unlink("again")
with open("again", "xb") as second:
    second.write(b"second")
assert os.pread(fd, 100, 0) == b"first"
assert os.fstat(fd).st_ino != os.stat("again").st_ino
os.close(fd)

# A directory that is open and gone lists as empty.
os.mkdir("gone")
fd = os.open("gone", os.O_RDONLY | os.O_DIRECTORY)
os.rmdir("gone")
assert os.listdir(fd) == []
try:
    os.open("file", os.O_CREAT | os.O_RDWR, dir_fd=fd)
except FileNotFoundError:
    pass
else:
    raise AssertionError("created a file in a removed directory")
os.close(fd)
PY
[[ -z $(find . -name '.fuse_hidden*') ]] || fail "silly renames were left behind"
