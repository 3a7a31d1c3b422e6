# shellcheck shell=bash
# What the guest tests have in common; read before each of them, on both sides.
#
# NN-name.sh runs in the guest as root, in a fresh directory of the share:
#   $WORK     that directory (also the current one)
#   $SCRATCH  a directory of the guest's own, outside the share
#   $QUEUES   the number of request queues
#   $DAEMON_OPTIONS  the options that the daemon was started with
#   $DAEMON_TRACES   "yes" if the daemon's log shows each request
#   $DAEMON_LOG      (on the host) that log
# NN-name.host.sh, where there is one, runs on the host when the first part has
# passed, in the same directory of the share. Both run with "set -euo pipefail";
# a test has failed when its status is not 0.
#
# The tests in proof/ belong to scripts/fs-proof, and also have
#   $MODE     its name for how the share is served
#   $TOOLS    (on the host) the directory of the programs that the guest has in PATH
# Those in twin/ belong to scripts/two-guests; twin/lib.sh says what they have.

fail() {
    printf 'fail: %s\n' "$*" >&2
    exit 1
}

# same ACTUAL EXPECTED WHAT
same() {
    [[ $1 == "$2" ]] || fail "$3: is '$1', should be '$2'"
}

# refused WHAT COMMAND...: the command has to fail.
refused() {
    local what=$1
    shift
    if "$@" >/dev/null 2>&1; then fail "$what was allowed"; fi
}

as_user() {
    local uid=$1
    shift
    setpriv --reuid "$uid" --regid "$uid" --clear-groups "$@"
}
