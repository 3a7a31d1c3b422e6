# pjdfstest on the mount. Which of its tests have to pass is said by the second
# part, on the host, where they run on the directory itself.
write_config() {
    # Users that every Debian has, each with a group of its own.
    cat <<TOML
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.02
allow_remount = $1
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
TOML
}

# With writeback, some times of a file are the guest's and some the host's, and
# the tests compare them: the guest's clock, which began with a whole second, is
# set by the time that the host gives a new file. By one process, since starting
# another takes its time under emulation.
python3 - <<'PY'
import os, time
open("new", "w").close()
time.clock_settime_ns(time.CLOCK_REALTIME, os.stat("new").st_mtime_ns)
PY

mkdir "$SCRATCH/second" on-mount
write_config false >"$SCRATCH/config"
write_config true >"$SCRATCH/config.remount"
# The status is that of the tests; the report ends with a summary in any case.
run() { NO_COLOR=1 pjdfstest -c "$SCRATCH/$1" -p on-mount -s "$SCRATCH/second" "${@:2}" 2>&1 || true; }
# Some tests leave files open that they have removed, which forbids a remount:
# those that remount run in a process of their own.
run config >"$SCRATCH/report"
run config.remount erofs >"$SCRATCH/report.remount"
cp "$SCRATCH"/{config,report,report.remount} .
for report in report report.remount; do
    grep -q '^Summary' "$report" || fail "no summary: $(tail -n 3 "$report")"
done
