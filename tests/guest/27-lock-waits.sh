# Waiting for locks. Where locks stay in the guest its kernel does all of this;
# with --posix-lock and --flock the daemon must do the same.
python3 - <<'PY'
import errno, fcntl, os, struct, time

def opened(name):
    return os.open(name, os.O_RDWR | os.O_CREAT, 0o600)

def child(work):
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
        os._exit(0)
    except BaseException as error:
        print("child:", repr(error), flush=True)
        os._exit(1)

def done(*pids):
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0

def getlk(fd, start, length):
    question = struct.pack("hhqqixxxx", fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    answer = fcntl.fcntl(fd, fcntl.F_GETLK, question)
    kind, _, start, length, pid = struct.unpack("hhqqixxxx", answer)
    return kind, start, length, pid

# A hundred waiters for ranges and for the file, while the file is read.
fd = opened("file")
os.pwrite(fd, b"x" * 4096, 0)
fcntl.lockf(fd, fcntl.LOCK_EX)
fcntl.flock(fd, fcntl.LOCK_EX)
ready, tell = os.pipe()

def wait_for_both(number):
    own = opened("file")
    os.write(tell, b"r")
    fcntl.lockf(own, fcntl.LOCK_EX, 8, number * 8)
    os.pwrite(own, b"%08d" % number, number * 8)
    fcntl.flock(own, fcntl.LOCK_EX)
    count = int(open("count").read())
    open("count", "w").write(str(count + 1))

open("count", "w").write("0")
waiters = [child(lambda: wait_for_both(number)) for number in range(50)]
for _ in waiters:
    os.read(ready, 1)
time.sleep(0.3)
for _ in range(200):
    assert os.pread(fd, 4096, 0) == b"x" * 4096, "a lock was passed over"
reader, writer = os.pipe()

def ask():
    os.write(writer, repr(getlk(opened("file"), 5, 1)).encode())

done(child(ask))
assert os.read(reader, 100).decode() == repr((fcntl.F_WRLCK, 0, 0, os.getpid()))
fcntl.lockf(fd, fcntl.LOCK_UN)
fcntl.flock(fd, fcntl.LOCK_UN)
done(*waiters)
assert open("count").read() == "50"
assert os.pread(fd, 400, 0) == b"".join(b"%08d" % number for number in range(50))

# Closing any descriptor of the file ends a process's POSIX locks, and lets a waiter in.
fcntl.lockf(fd, fcntl.LOCK_EX)
waiter = child(lambda: fcntl.lockf(opened("file"), fcntl.LOCK_EX))
time.sleep(0.1)
assert os.waitpid(waiter, os.WNOHANG) == (0, 0)
os.close(opened("file"))
done(waiter)

# The end of a process does the same.
go, start_it = os.pipe()

def hold():
    fcntl.lockf(opened("file"), fcntl.LOCK_EX)
    os.write(tell, b"r")
    os.read(go, 1)

holder = child(hold)
os.read(ready, 1)
waiter = child(lambda: fcntl.lockf(opened("file"), fcntl.LOCK_SH))
time.sleep(0.1)
assert os.waitpid(waiter, os.WNOHANG) == (0, 0)
os.write(start_it, b"g")
done(holder, waiter)

# A circle of two.
def cross():
    own = opened("file")
    fcntl.lockf(own, fcntl.LOCK_EX, 1, 1)
    os.write(tell, b"r")
    fcntl.lockf(own, fcntl.LOCK_EX, 1, 0)

fcntl.lockf(fd, fcntl.LOCK_EX, 1, 0)
other = child(cross)
os.read(ready, 1)
time.sleep(0.2)
try:
    fcntl.lockf(fd, fcntl.LOCK_EX, 1, 1)
    raise AssertionError("a deadlock was not found")
except OSError as error:
    assert error.errno == errno.EDEADLK, error
fcntl.lockf(fd, fcntl.LOCK_UN)
done(other)

# Locks of an open file end with its last descriptor, not before.
def ofd(fd, kind, command=fcntl.F_OFD_SETLK):
    fcntl.fcntl(fd, command, struct.pack("hhqqixxxx", kind, os.SEEK_SET, 0, 0, 0))

one, two = opened("file"), opened("file")
ofd(one, fcntl.F_WRLCK)
os.close(opened("file"))
try:
    ofd(two, fcntl.F_RDLCK)
    raise AssertionError("a held lock was granted")
except BlockingIOError:
    pass
copy = os.dup(one)
os.close(one)
waiter = child(lambda: (os.close(copy), ofd(two, fcntl.F_WRLCK, fcntl.F_OFD_SETLKW)))
time.sleep(0.1)
assert os.waitpid(waiter, os.WNOHANG) == (0, 0)
os.close(copy)
done(waiter)
PY
