# Holes: SEEK_DATA and SEEK_HOLE, punching, allocation, and copying with holes.
# A guest that holds back writes gets to see no holes (27-unflushed shows why).
python3 - <<'PY'
import ctypes, errno, os

MIB = 1 << 20
SHOWN = "--writeback" not in os.environ["DAEMON_OPTIONS"]
fd = os.open("sparse", os.O_RDWR | os.O_CREAT, 0o600)
os.ftruncate(fd, 16 * MIB)
os.pwrite(fd, b"x" * 65536, 4 * MIB)
os.pwrite(fd, b"y" * 65536, 8 * MIB)
os.fsync(fd)

def no_data_from(offset):
    try:
        os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        assert error.errno == errno.ENXIO, error
    else:
        raise AssertionError("found data after the last data")

if SHOWN:
    assert os.lseek(fd, 0, os.SEEK_DATA) == 4 * MIB, os.lseek(fd, 0, os.SEEK_DATA)
    assert os.lseek(fd, 4 * MIB, os.SEEK_HOLE) == 4 * MIB + 65536
    assert os.lseek(fd, 4 * MIB + 65536, os.SEEK_DATA) == 8 * MIB
    assert os.lseek(fd, 9 * MIB, os.SEEK_HOLE) == 9 * MIB
    no_data_from(9 * MIB)
no_data_from(16 * MIB)
assert os.fstat(fd).st_blocks * 512 < 2 * MIB

libc = ctypes.CDLL(None, use_errno=True)
KEEP_SIZE, PUNCH_HOLE = 1, 2
def fallocate(mode, offset, length):
    result = libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length))
    assert result == 0, os.strerror(ctypes.get_errno())

fallocate(KEEP_SIZE | PUNCH_HOLE, 8 * MIB, 65536)
assert os.pread(fd, 65536, 8 * MIB) == bytes(65536)
if SHOWN:
    no_data_from(5 * MIB)
fallocate(KEEP_SIZE, 16 * MIB, MIB)
assert os.fstat(fd).st_size == 16 * MIB
fallocate(0, 16 * MIB, MIB)
assert os.fstat(fd).st_size == 17 * MIB
os.close(fd)

# copy_file_range, which the server does by itself.
source = os.open("sparse", os.O_RDONLY)
target = os.open("ranged", os.O_RDWR | os.O_CREAT, 0o600)
copied = os.copy_file_range(source, target, 65536, 4 * MIB, 100)
assert copied == 65536, copied
assert os.pread(target, 65536, 100) == b"x" * 65536
assert os.fstat(target).st_size == 65636
PY
cp --sparse=always sparse copy
cmp sparse copy
