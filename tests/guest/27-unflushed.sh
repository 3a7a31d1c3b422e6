# What one process has written, but neither closed nor flushed, is there for all
# others in the guest.
python3 - <<'PY'
import os

text = os.urandom(1_000_000)
# Started before the file is open: a process started later closes a copy of the
# descriptor, which flushes the file.
go, went = os.pipe()
copier = os.fork()
if copier == 0:
    os.close(went)
    os.read(go, 1)
    if os.spawnlp(os.P_WAIT, "cp", "cp", "fresh", "copy") == 0:
        os.execlp("cp", "cp", "--sparse=always", "fresh", "sparse")
    os._exit(1)

fd = os.open("fresh", os.O_RDWR | os.O_CREAT, 0o600)
os.pwrite(fd, text, 0)
os.close(went)
assert os.waitpid(copier, 0)[1] == 0
for name in ("copy", "sparse"):
    assert open(name, "rb").read() == text, name + " is not what was written"

os.ftruncate(fd, 0)
os.pwrite(fd, b"x" * 100_000, 0)
assert os.lseek(fd, 0, os.SEEK_DATA) == 0
# Whole blocks, where a file system does not know better.
assert 100_000 <= os.lseek(fd, 0, os.SEEK_HOLE) <= 102_400
os.ftruncate(fd, 1 << 20)
os.pwrite(fd, b"y" * 100, 500_000)
assert os.lseek(fd, 490_000, os.SEEK_DATA) <= 500_000
assert os.lseek(fd, 0, os.SEEK_END) == 1 << 20
PY
