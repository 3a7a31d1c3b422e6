# Locks between processes of the guest.
python3 - <<'PY'
import fcntl, os

fd = os.open("file", os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(fd, fcntl.LOCK_EX)
fcntl.lockf(fd, fcntl.LOCK_EX, 10, 0)
pid = os.fork()
if pid == 0:
    other = os.open("file", os.O_RDWR)
    refusals = 0
    for lock in (lambda: fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB),
                 lambda: fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)):
        try:
            lock()
        except BlockingIOError:
            refusals += 1
    fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 10)
    os._exit(0 if refusals == 2 else 1)
assert os.waitpid(pid, 0)[1] == 0, "a held lock was granted"
PY
counter() {
    local _
    for _ in {1..20}; do
        # shellcheck disable=SC2016 # the inner shell expands it
        flock lock bash -c 'echo $(($(cat count) + 1)) >count.new && mv count.new count'
    done
}
echo 0 >count
counter &
counter &
wait
same "$(cat count)" 40 "counter kept under a lock"
