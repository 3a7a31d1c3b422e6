# O_TMPFILE makes a file without a name, linkat gives it one.
python3 - <<'PY'
import os

def link_by_descriptor(fd, name):
    # Python follows the link in /proc only when a directory is given, even
    # though an absolute path has no use for it.
    os.link(f"/proc/self/fd/{fd}", name, src_dir_fd=fd, follow_symlinks=True)

fd = os.open(".", os.O_RDWR | os.O_TMPFILE, 0o640)
os.write(fd, b"no name yet")
assert os.fstat(fd).st_nlink == 0
assert os.listdir(".") == []
link_by_descriptor(fd, "named")
assert os.fstat(fd).st_nlink == 1
assert open("named", "rb").read() == b"no name yet"
assert os.stat("named").st_mode & 0o777 == 0o640
assert os.stat("named").st_ino == os.fstat(fd).st_ino
os.write(fd, b", and on")
os.close(fd)
assert open("named", "rb").read() == b"no name yet, and on"

# With O_EXCL nobody can ever name it.
fd = os.open(".", os.O_RDWR | os.O_TMPFILE | os.O_EXCL, 0o600)
try:
    link_by_descriptor(fd, "never")
except FileNotFoundError:
    pass
else:
    raise AssertionError("an O_EXCL temporary file was linked")
os.close(fd)
assert os.listdir(".") == ["named"]
PY
