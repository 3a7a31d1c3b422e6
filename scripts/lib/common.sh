# shellcheck shell=bash
# Ground for every script here: messages, the cache directory, and the promise
# that nothing is left behind.
#
# A script that sources this file must call `common_begin NAME` once. From then
# on RUN_DIR is a private directory that is removed at the end, and every
# process registered with `own_process` is gone when the script is, whether it
# ended by itself, failed, or was sent SIGINT, SIGTERM or SIGHUP. A SIGKILL
# cannot be trapped; for that case children are started through `with_leash`,
# which asks the kernel to end them together with their parent.

# Status for "the test bed failed", as opposed to "what ran in it failed".
readonly STATUS_BED=125

REPO_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
CACHE_DIR=${VIRTIOFSD_GUEST_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/virtiofsd-guest}
readonly CACHE_DIR

RUN_DIR=
OWNED_PIDS=()
END_HOOKS=()

# All messages go to stderr: stdout belongs to what runs in the guest.
say() { printf '==> %s\n' "$*" >&2; }
note() { printf '    %s\n' "$*" >&2; }
# refuse WHY: the command line is wrong. The script has a `usage`.
refuse() {
    printf 'error: %s\n' "$*" >&2
    usage >&2
    exit 2
}
die() {
    printf 'error: %s\n' "$*" >&2
    exit "$STATUS_BED"
}

common_begin() {
    local name=$1
    # Some start us with no stdin at all; the next file opened would become it.
    { true <&0; } 2>/dev/null || exec </dev/null
    # UNIX socket paths end at 107 bytes; a long TMPDIR would eat them up.
    local base=${TMPDIR:-/tmp}
    ((${#base} <= 60)) || base=/tmp
    RUN_DIR=$(mktemp -d "$base/$name.XXXXXX")
    trap common_end EXIT
    # Each signal becomes an ordinary exit, so that there is one way out.
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

common_end() {
    local status=$?
    trap '' HUP INT TERM
    set +e
    local pid hook
    for pid in "${OWNED_PIDS[@]}"; do
        stop_process "$pid"
    done
    for hook in "${END_HOOKS[@]}"; do
        "$hook"
    done
    [[ -z $RUN_DIR ]] || rm -rf "$RUN_DIR"
    exit "$status"
}

# Names a function to be run when all processes are gone.
at_end() { END_HOOKS+=("$1"); }

own_process() { OWNED_PIDS+=("$1"); }

# Not kill -0 alone: that also succeeds for a child that ended and has not been
# waited for.
is_running() {
    local state
    state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null) || return 1
    [[ -n $state && $state != Z ]]
}

# Ends a child: politely, then for good after five seconds (a script of ours has
# children of its own to see to).
# Waits for it in any case, or the shell would announce how it died.
stop_process() {
    local pid=$1 tries
    is_running "$pid" || { wait "$pid" 2>/dev/null || true; return 0; }
    send_signal TERM "$pid" || true
    for ((tries = 0; tries < 50; tries++)); do
        is_running "$pid" || break
        sleep 0.1
    done
    ! is_running "$pid" || send_signal KILL "$pid" || true
    wait "$pid" 2>/dev/null || true
}

# A child that has become root is out of an ordinary user's reach.
send_signal() {
    kill -"$1" "$2" 2>/dev/null || ((EUID == 0)) || sudo -n kill -"$1" "$2" 2>/dev/null
}

# Waits for a child to end by itself. Fails when it does not in time.
wait_gone() {
    local pid=$1 limit_s=$2 tries
    for ((tries = 0; tries < limit_s * 10; tries++)); do
        is_running "$pid" || return 0
        sleep 0.1
    done
    return 1
}

# Runs a long command in a way that a signal to this script ends it at once: a
# shell does not run its traps while it waits for a foreground command.
run_long() {
    local pid
    with_leash "$@" </dev/null &
    pid=$!
    own_process "$pid"
    wait "$pid"
}

# Runs a command that dies with this shell, even if the shell is SIGKILLed.
with_leash() { exec setpriv --pdeathsig KILL -- "$@"; }

# One filler of the cache at a time; the lock is dropped by cache_unlock.
cache_lock() {
    mkdir -p "$CACHE_DIR"
    exec {CACHE_LOCK}>"$CACHE_DIR/lock"
    if ! flock -n "$CACHE_LOCK"; then
        say "waiting for another script that is filling $CACHE_DIR"
        flock "$CACHE_LOCK"
    fi
}
cache_unlock() { exec {CACHE_LOCK}>&-; }
