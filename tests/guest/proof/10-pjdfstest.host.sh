# The same on the host, in the directory that was shared. What does not fail here
# must pass in the guest (remounts are tested only there), unless it is listed as
# an exception; and an exception that passes is none, and must go.
EXCEPTIONS=$REPO_DIR/tests/guest/proof/pjdfstest-exceptions
second=$(mktemp -d /dev/shm/pjdfstest.XXXXXX)
trap 'rm -rf "$second"' EXIT
mkdir on-host
NO_COLOR=1 "$TOOLS/pjdfstest" -c config -p on-host -s "$second" >report.host 2>&1 || true
grep -q '^Summary' report.host || fail "no summary on the host: $(tail -n 3 report.host)"

# verdicts REGEX REPORT...
verdicts() { sed -nE "s/^([a-z][a-z0-9_:]*) +($1)\$/\\1/p" "${@:2}" | sort; }
verdicts ok report report.remount >passed
verdicts FAILED report.host >failed.host
verdicts 'ok|FAILED|skipped' report.host >all
(($(wc -l <passed) > 380)) || fail "only $(wc -l <passed) tests passed on the mount: $(tail -n 3 report)"
comm -23 all failed.host | comm -23 - passed >failed
sed -nE "s/^(\??[a-z][a-z0-9_:]*) +(\*|[a-z,]*\b$MODE\b[a-z,]*) +[^ ].*/\\1/p" "$EXCEPTIONS" >listed
tr -d '?' <listed | sort >excepted
sed '/^?/d' listed | sort | comm -12 - passed | sed 's/^/an exception that passes: /' >wrong
comm -13 excepted failed | while read -r name; do
    printf 'does not fail on the host: '
    # Its verdict, and what it said.
    awk -v name="$name" '$1 == name { found = 1; print; next } !found { next } /^[\t ]/ { print; next } { exit }' \
        report.remount report
done >>wrong
[[ ! -s wrong ]] || { cat wrong; fail "$(grep -c '^[a-z].*: ' wrong) differences from the host's file system"; }
