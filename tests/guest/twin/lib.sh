# shellcheck shell=bash
# What two guests need that run one test in one directory; read by each test.
# $TWIN is "a" in one of them and "b" in the other, $CACHE the --cache of both.

OTHER=b
[[ $TWIN == a ]] || OTHER=a
MEETINGS=0

# Longer than names and attributes may be cached.
expire() { [[ $CACHE == never ]] || sleep 1.5; }

# await FILE: that the other has made.
await() {
    local tries
    for ((tries = 0; tries < 1200; tries++)); do
        [[ ! -e $1 ]] || return 0
        sleep 0.1
    done
    fail "$1 did not appear"
}

# Both get here before either goes on.
meet() {
    MEETINGS=$((MEETINGS + 1))
    : >"$TWIN.was-here.$MEETINGS"
    await "$OTHER.was-here.$MEETINGS"
    expire
}

# Lines of what follows are done by one of them only.
is_a() { [[ $TWIN == a ]]; }
