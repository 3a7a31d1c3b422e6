# What a guest sends for what its programs do: the host counts (see
# doc/caching.md). Each part stands between two STATFS requests in the daemon's
# log, and the first of them comes after the only FSYNCDIR.
if [[ $DAEMON_TRACES != yes ]]; then
    echo "skipped: the daemon's log shows no requests (run this test by its name)"
    exit 0
fi
python3 - <<'PY'
import os, time

names = []
here = os.open(".", os.O_RDONLY)
def part(name, step):
    names.append(name)
    os.fstatvfs(here)
    step()
    os.fstatvfs(here)
def write(name, flags=os.O_WRONLY | os.O_CREAT | os.O_EXCL):
    fd = os.open(name, flags, 0o644)
    assert os.pwrite(fd, b"x" * 5000, 0) == 5000
    os.close(fd)
def read(name):
    fd = os.open(name, os.O_RDONLY)
    assert len(os.read(fd, 10000)) == 5000
    os.close(fd)
def missing():
    assert not os.path.exists("missing")
def readlink():
    assert os.readlink("link") == "nowhere"
def entries():
    assert len(os.listdir("dir")) == 100
def entries_and_attributes():
    with os.scandir("dir") as found:
        assert sum(entry.stat(follow_symlinks=False).st_size for entry in found) == 0

write("old")
born = time.monotonic()
os.symlink("nowhere", "link")
os.mkdir("dir")
for number in range(100):
    os.close(os.open(f"dir/{number}", os.O_WRONLY | os.O_CREAT))
# A guest that opens nothing learns so from its first try.
read("old")
entries()
os.mkdir("empty")

os.fsync(here)
part("missing 1", missing)
part("missing 2", missing)
part("link 1", readlink)
part("link 2", readlink)
part("create", lambda: write("young"))
part("young 1", lambda: read("young"))
part("young 2", lambda: read("young"))
part("update", lambda: write("young", os.O_RDWR))
part("list 1", entries)
part("list 2", entries)
time.sleep(2)
part("list and stat 1", entries_and_attributes)
time.sleep(2)
part("list and stat 2", entries_and_attributes)
# Until the file has been left alone for long enough to prove something.
time.sleep(max(0, born + 63 - time.monotonic()))
part("old 1", lambda: read("old"))
part("old 2", lambda: read("old"))
with open("parts", "w") as file:
    file.write("".join(name + "\n" for name in names))
PY
