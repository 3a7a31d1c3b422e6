# Locks of one guest hold in the other (--posix-lock, --flock).
# shellcheck source=/dev/null
. /run/payload/tests/twin/lib.sh

[[ $DAEMON_OPTIONS == *--posix-lock* && $DAEMON_OPTIONS == *--flock* ]] || { echo "skipped: no remote locks"; exit 0; }
: >>posix
: >>bsd
meet

# Whoever has the lock makes a name that must not be there, and removes it. One may
# be with the second lock already, so each lock has a name of its own.
python3 - <<'PY'
import fcntl, os, time

for name, lock in (("posix", fcntl.lockf), ("bsd", fcntl.flock)):
    fd = os.open(name, os.O_RDWR)
    for n in range(40):
        lock(fd, fcntl.LOCK_EX)
        held = os.open("held." + name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        os.close(held)
        os.write(fd, b".")
        time.sleep(0.005)
        os.unlink("held." + name)
        lock(fd, fcntl.LOCK_UN)
    os.close(fd)
PY
meet

# A lock that is held is refused to the other, ranges beside it are not; it ends with
# its process; and one who waits for it gets it then.
cat >"$SCRATCH/holder" <<'PY'
import fcntl, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
lock = fcntl.flock if sys.argv[1] == "bsd" else lambda fd, how: fcntl.lockf(fd, how, 10, 100)
lock(fd, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
PY
cat >"$SCRATCH/asker" <<'PY'
import fcntl, os, sys
name, wait = sys.argv[1:]
fd = os.open(name, os.O_RDWR)
how = fcntl.LOCK_EX | (0 if wait == "wait" else fcntl.LOCK_NB)
try:
    if name == "bsd":
        fcntl.flock(fd, how)
    else:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 110)
        fcntl.lockf(fd, how, 10, 105)
except BlockingIOError:
    print("refused")
else:
    print("granted")
PY
for name in posix bsd; do
    if is_a; then
        # A file for each: what the last holder said would be taken for what this one says.
        python3 "$SCRATCH/holder" "$name" >"$SCRATCH/said.$name" &
        holder=$!
        for _ in {1..600}; do [[ -s $SCRATCH/said.$name ]] && break; sleep 0.1; done
        same "$(cat "$SCRATCH/said.$name")" held "the holder of $name"
    fi
    meet
    if ! is_a; then
        same "$(python3 "$SCRATCH/asker" "$name" now)" refused "asking for $name at once"
        python3 "$SCRATCH/asker" "$name" wait >"waited.$name" &
        waiter=$!
    fi
    meet
    sleep 1
    if is_a; then
        [[ ! -s waited.$name ]] || fail "$name was granted while it was held"
        kill -KILL "$holder"
        wait "$holder" || true
    else
        wait "$waiter"
        same "$(cat "waited.$name")" granted "waiting for $name"
    fi
    meet
done
