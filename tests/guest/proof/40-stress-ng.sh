# The stressors of stress-ng that work on files, each for a moment in two
# processes, with all the checks that they have.
SECONDS_EACH=1
# Left out: those of other files than ours (/proc, /sys, /dev, binderfs), those
# that only measure, and those of what FUSE does not have (FIEMAP).
STRESSORS="access aio aiol chattr chmod chown copy-file dentry dir dirdeep dirmany fallocate fcntl
    file-ioctl filename flock fpunch fstat getdent hdd inotify iomix lease locka lockf lockofd mknod
    open readahead rename seek sendfile sync-file touch utime xattr"
# These make 8,192 names in one go, which takes a minute where nothing is cached.
[[ $MODE == never || $MODE == metadata ]] || STRESSORS+=" link symlink"
# It kills a child that waits for a lock of its parent, which waits for the child's
# end before it gives the lock up. With remote locks a Linux guest cannot end a
# task that waits (doc/locks.md), so that never ends.
[[ $DAEMON_OPTIONS != *--posix-lock* ]] || STRESSORS=${STRESSORS/ lockf / }
[[ $DAEMON_OPTIONS == *--no-allow-mmap* ]] || STRESSORS+=" msync"
# Less than by default: a long preparation, or most of the time spent removing
# things, is no test.
declare -A LESS=(
    [dentry]="--dentry-ops 2000" [dir]="--dir-ops 2000" [dirdeep]="--dirdeep-ops 500"
    [hdd]="--hdd-bytes 16m" [readahead]="--readahead-bytes 4m" [msync]="--msync-bytes 4m"
)

known=" $(stress-ng --stressors) "
for stressor in $STRESSORS; do
    [[ $known == *" $stressor "* ]] || fail "not in this stress-ng: $stressor"
    # Seen only when the test fails, or is not done in time.
    echo "$stressor, after $SECONDS s"
    mkdir "$stressor"
    status=0
    # shellcheck disable=SC2086 # a list of words
    stress-ng --verify --temp-path "$stressor" --timeout "$SECONDS_EACH" --"$stressor" 2 \
        ${LESS[$stressor]:-} >"$SCRATCH/log" 2>&1 || status=$?
    if ((status)) || grep -qE ' (fail|error):|skipp|expired during' "$SCRATCH/log"; then
        tail -n 15 "$SCRATCH/log"
        fail "stress-ng, $stressor: status $status"
    fi
    rmdir "$stressor" || fail "stress-ng, $stressor left something behind: $(find "$stressor" | head -n 3)"
done
