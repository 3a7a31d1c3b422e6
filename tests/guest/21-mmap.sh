# Shared mappings: written through one, seen by another, by read, by the host.
python3 - <<'PY'
import mmap, os

SIZE = 1 << 20
fd = os.open("mapped", os.O_RDWR | os.O_CREAT, 0o600)
os.ftruncate(fd, SIZE)
with mmap.mmap(fd, SIZE, mmap.MAP_SHARED) as first, mmap.mmap(fd, SIZE, mmap.MAP_SHARED) as second:
    for offset in range(0, SIZE, 4096):
        first[offset:offset + 8] = b"%08d" % offset
    assert second[8192:8200] == b"00008192"
    assert os.pread(fd, 8, 40960) == b"00040960"
    os.pwrite(fd, b"by-write", 4096)
    assert first[4096:4104] == b"by-write"
    pid = os.fork()
    if pid == 0:
        second[12288:12296] = b"by-child"
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert first[12288:12296] == b"by-child"
    first.flush()
os.close(fd)
with open("private", "wb") as private:
    private.write(b"a" * 8192)
with open("private", "r+b") as private, mmap.mmap(private.fileno(), 0, mmap.MAP_PRIVATE) as mapping:
    mapping[0:1] = b"z"
    assert os.pread(private.fileno(), 1, 0) == b"a"
PY
cp /bin/true ./program
./program
