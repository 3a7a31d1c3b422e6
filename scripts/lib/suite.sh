# shellcheck shell=bash
# Tests in one guest: daemon, boot, tests, what the caller adds, power-off.
#
# The guest's agent (scripts/guest/agent) obeys one command at a time; every
# wait for it has a limit, so a request that never comes back costs one failure
# and the rest of this guest, not the whole run.
#
# In: the control line of lib/vm.sh; SUITE_SETTINGS, SUITE_TOOLS.
# Out: GUEST, SHARE; PASSED (a count), FAILED (names, each with what the guest was).

PASSED=0
FAILED=()
TESTS=()

# What the tests need of the daemon, whatever else is asked of it.
readonly SUITE_OPTIONS=(--xattr)
# Lines NAME=VALUE that the tests shall find in their environment, in the guest
# and on the host.
SUITE_SETTINGS=()
# The directory that is shared.
SHARE=
# Programs for the guest; the tests find them in PATH.
SUITE_TOOLS=()

# Under emulation the slowest test takes 40 s and a boot 10 s on a quiet machine,
# and several times as long on a busy one.
readonly TEST_LIMIT_S=300
readonly BOOT_LIMIT_S=300
readonly RESETS=3

# select_tests DIR [PREFIX...]: all tests of tests/guest/DIR, or those that begin
# so. With "." for DIR, those of tests/guest itself.
select_tests() {
    local dir=$1 path name prefix
    shift
    for path in "$REPO_DIR/tests/guest/$dir"/[0-9]*.sh; do
        name=$(basename "$path" .sh)
        [[ $name != *.host ]] || continue
        (($#)) || TESTS+=("$dir/$name")
        for prefix in "$@"; do
            [[ $name != "$prefix"* ]] || TESTS+=("$dir/$name")
        done
    done
    TESTS=("${TESTS[@]#./}")
    ((${#TESTS[@]})) || die "no test begins with: $*"
}

# verdict STATUS NAME SECONDS
verdict() {
    local label="$2 ($SUITE_LABEL)"
    if (($1 == 0)); then
        PASSED=$((PASSED + 1))
        printf 'ok    %s, %s s\n' "$label" "$3"
    else
        FAILED+=("$label")
        printf 'FAIL  %s, %s s\n' "$label" "$3"
    fi
}

# ask LIMIT_S COMMAND...: sends a command to the guest and waits until it is
# done. Prints its output when it fails.
ask() {
    tell "${@:2}" && hear "$1"
}

tell() {
    [[ $GUEST == up ]] || return 1
    printf '%s\n' "$*" >&"$CONTROL_IN"
}

# hear LIMIT_S: waits for the end of what the guest was told to do.
hear() {
    local limit_s=$1 end output=()
    [[ $GUEST == up ]] || return 1
    end=$((SECONDS + limit_s))
    while ((SECONDS < end)); do
        if ! control_line 2; then
            # Without its daemon the guest would be silent until the limit.
            is_running "$QEMU_PID" && is_running "$DAEMON_PID" && continue
            break
        fi
        case $CONTROL_LINE in
        "| "*) output+=("${CONTROL_LINE#| }") ;;
        "done 0") return 0 ;;
        "done "*) show_output "${output[@]}"; return 1 ;;
        ready) show_output "${output[@]}"; lose_guest "it booted again by itself"; return 1 ;;
        esac
    done
    show_output "${output[@]}"
    if ! is_running "$QEMU_PID"; then
        lose_guest "QEMU ended"
    elif ! is_running "$DAEMON_PID"; then
        lose_guest "the daemon ended"
    else
        lose_guest "no answer for $limit_s s"
    fi
    return 1
}

show_output() {
    (($#)) || return 0
    printf '      %s\n' "$@" | tail -n 25
}

# After this, all questions to this guest fail at once.
lose_guest() {
    GUEST=lost
    printf '      the guest is lost: %s\n' "$1"
    tail -n 12 "$CONSOLE" | tr -d '\r' | sed 's/^/      console: /'
    show_daemon_log
    show_qemu_log
}

wait_ready() {
    local end=$((SECONDS + BOOT_LIMIT_S))
    while ((SECONDS < end)) && control_line $((end - SECONDS)); do
        if [[ $CONTROL_LINE == ready ]]; then
            GUEST=up
            return 0
        fi
        [[ $CONTROL_LINE != failed* ]] || break
    done
    lose_guest "it did not boot: ${CONTROL_LINE:-nothing heard}"
    return 1
}

# suite_up LABEL QUEUES [DAEMON-OPTION...]: a daemon on the directory SHARE, or on a
# fresh one if there is none, and a guest that has it mounted.
suite_up() {
    suite_boot "$@"
    timed boot boot_and_mount
}

# The same without waiting until the guest is there.
suite_boot() {
    local label=$1 queues=$2
    shift 2
    : "${VM_DIR:=$RUN_DIR}"
    [[ -n $SHARE ]] || make_share
    rm -f "$VM_DIR/fs.sock"
    start_daemon "$SHARE" "${SUITE_OPTIONS[@]}" "$@"
    suite_boot_guest "$label" "$queues"
}

# The same with a daemon that was started.
suite_boot_guest() {
    local label=$1 queues=$2
    SUITE_LABEL=$label
    SUITE_QUEUES=$queues
    GUEST=off
    CONSOLE=$VM_DIR/console.log
    : >"$CONSOLE"
    make_suite_initramfs "$VM_DIR/suite.cpio"
    say "booting the test guest, $label ($ACCEL)"
    start_qemu "$CONSOLE" "$VM_DIR/suite.cpio" "try.mode=agent" "$queues" 1024 \
        -drive "file=$ROOTFS_IMAGE,format=raw,if=none,id=root,readonly=on" -device virtio-blk-pci,drive=root
}

make_suite_initramfs() {
    local file=$1 tree=$RUN_DIR/suite-tree
    new_initramfs "$tree"
    fill_payload "$tree/payload"
    pack_initramfs "$tree" "$file"
    rm -rf "$tree"
}

fill_payload() {
    local payload=$1
    cp -r "$REPO_DIR/tests/guest" "$payload/tests"
    install -m 755 "$REPO_DIR/scripts/guest/agent" "$payload/agent"
    install -m 755 "$BUSYBOX" "$payload/busybox"
    mkdir "$payload/tools"
    ((${#SUITE_TOOLS[@]} == 0)) || install -m 755 "${SUITE_TOOLS[@]}" "$payload/tools"
    local setting
    for setting in "QUEUES=$SUITE_QUEUES" "${SUITE_SETTINGS[@]}"; do
        printf '%s=%q\n' "${setting%%=*}" "${setting#*=}"
    done >"$payload/settings"
}

# The end of what suite_up began.
suite_down() {
    timed daemon-is-the-same daemon_is_alive
    timed power-off power_off
    timed daemon-exits-0 daemon_exits_0

    stop_process "$QEMU_PID"
    stop_process "$DAEMON_PID"
    close_channels
}

# On a disk: some of what is tested is not to be had on a tmpfs.
make_share() {
    SHARE=$(mktemp -d /var/tmp/virtiofsd-share.XXXXXX)
    chmod 755 "$SHARE"
    at_end remove_share
}

remove_share() {
    [[ -z $SHARE ]] || rm -rf "$SHARE"
    SHARE=
}

# timed NAME COMMAND...: runs one check and books its verdict.
timed() {
    local name=$1 begin=$SECONDS status=0
    shift
    "$@" || status=$?
    verdict "$status" "$name" $((SECONDS - begin))
}

boot_and_mount() { wait_ready && ask 60 mount; }

run_tests() {
    local name
    for name in "${TESTS[@]}"; do
        timed "$name" run_test "$name"
    done
}

run_test() {
    local name=$1 host=$REPO_DIR/tests/guest/$1.host.sh
    ask $((TEST_LIMIT_S + 20)) test "$name" "$TEST_LIMIT_S" || return 1
    [[ -r $host ]] || return 0
    # shellcheck disable=SC2016 # the inner shell expands it
    if ! (cd "$SHARE/t/$name" && env "REPO_DIR=$REPO_DIR" "DAEMON_LOG=$DAEMON_LOG" "${SUITE_SETTINGS[@]}" bash -euo pipefail -c '. "$0"; . "$1"' \
        "$REPO_DIR/tests/guest/lib.sh" "$host") >"$RUN_DIR/host.log" 2>&1; then
        printf '      on the host:\n'
        sed 's/^/      /' "$RUN_DIR/host.log" | tail -n 20
        return 1
    fi
}

# All that the tests left behind looks the same from both sides. With writeback
# the guest owns the times of files: Linux 6.12 does not bring each of them to the
# host, with any daemon, so they are left out then.
compare_trees() {
    local hide='s/^$//'
    [[ ${VIRTIOFSD_ARGS:-} != *--writeback* ]] || hide='s/ [0-9]+\.[0-9]{10} / /'
    ask 120 list || return 1
    (cd "$SHARE/t" && bash "$REPO_DIR/tests/guest/tree-list") >"$RUN_DIR/host-list" || return 1
    sed -E -i "$hide" "$SHARE/guest-list" "$RUN_DIR/host-list"
    if ! diff "$SHARE/guest-list" "$RUN_DIR/host-list" >"$RUN_DIR/list.diff"; then
        head -n 10 "$RUN_DIR/list.diff" | sed 's/^/      /'
        return 1
    fi
}

# The machine is reset while processes write; the same daemon serves the next
# boot, and what was written is still there.
reset_under_load() {
    local round
    [[ $GUEST == up ]] || return 1
    qmp qmp_capabilities
    for ((round = 1; round <= RESETS; round++)); do
        ask 60 scribble "round-$round" || return 1
        GUEST=off
        qmp system_reset
        wait_ready && ask 60 mount || return 1
        grep -q "^round-$round " "$SHARE/scribble.1" || { printf '      what round %d wrote is gone\n' "$round"; return 1; }
    done
    ask $((TEST_LIMIT_S + 20)) test 01-mount "$TEST_LIMIT_S"
}

daemon_is_alive() { is_running "$DAEMON_PID"; }

power_off() {
    [[ $GUEST == up ]] || return 1
    printf 'power-off\n' >&"$CONTROL_IN"
    wait_gone "$QEMU_PID" 60 && GUEST=powered-off
}

daemon_exits_0() {
    local status=0
    # Status 0 counts only after a whole life with a guest.
    [[ $GUEST == powered-off ]] || return 1
    wait_gone "$DAEMON_PID" 10 || { printf '      it is still running\n'; return 1; }
    wait "$DAEMON_PID" || status=$?
    ((status == 0)) && return 0
    printf '      its status is %d\n' "$status"
    show_daemon_log
    return 1
}

# The last lines of a script that ran suites, and its status.
report_suites() {
    printf 'guest: %d passed, %d failed\n' "$PASSED" "${#FAILED[@]}"
    ((${#FAILED[@]})) || return 0
    printf 'guest: failed: %s\n' "${FAILED[@]}"
    return 1
}
