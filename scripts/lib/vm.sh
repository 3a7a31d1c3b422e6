# shellcheck shell=bash
# One daemon and one QEMU that belong together.
#
# The guest has two serial ports: the first is its console, the second a
# control line of its own, so that nothing has to be written into the shared
# directory. QEMU's "pipe" channel gives it, and QEMU's own monitor, as a pair of
# FIFOs NAME.in and NAME.out; they are held open here for reading and writing,
# which keeps either side from blocking or seeing an end of file.
#
# In: VM_DIR (a directory for sockets and logs; RUN_DIR unless set), KERNEL_IMAGE,
# ACCEL_ARGS.
# Out: DAEMON, DAEMON_PID, DAEMON_LOG, QEMU_PID, CONTROL_LINE.
#
# All of it is about one pair. A script that wants several gives each a name, and
# says with use_vm which of them is meant from then on.

DAEMON_PID=
QEMU_PID=
DAEMON_LOG=
VM_DIR=

readonly VM_VARIABLES="VM_DIR DAEMON_PID DAEMON_LOG QEMU_PID CONTROL_IN QMP_IN CONTROL_LOG
    CONTROL_LINE CONTROL_PART CHANNEL_PIDS GUEST CONSOLE SUITE_LABEL"
VM_NAME=
declare -A VM_SAVED

# use_vm NAME
use_vm() {
    local variable
    for variable in $VM_VARIABLES; do
        VM_SAVED[$VM_NAME.$variable]=${!variable:-}
        printf -v "$variable" '%s' "${VM_SAVED[$1.$variable]:-}"
    done
    VM_NAME=$1
    VM_DIR=$RUN_DIR/vm-$1
    mkdir -p "$VM_DIR"
}

need_qemu() { need_packages qemu-system-x86 cpio xz-utils; }

# find_daemon: sets DAEMON to the binary under test, built if need be.
find_daemon() {
    if [[ -n ${VIRTIOFSD:-} ]]; then
        [[ -x $VIRTIOFSD ]] || die "VIRTIOFSD=$VIRTIOFSD is not an executable file"
        DAEMON=$VIRTIOFSD
        return
    fi
    need_build_tools
    say "building virtiofsd (cargo build --release)"
    run_long cargo build --release --quiet --manifest-path "$REPO_DIR/Cargo.toml" >&2 || die "the build failed"
    DAEMON=${CARGO_TARGET_DIR:-$REPO_DIR/target}/release/virtiofsd
    [[ -x $DAEMON ]] || die "the build left no $DAEMON"
}

# start_daemon DIR [OPTION...]: returns when the socket is there.
start_daemon() {
    local dir=$1 extra
    shift
    : "${VM_DIR:=$RUN_DIR}"
    # Split at blanks on purpose: it holds several options.
    read -r -a extra <<<"${VIRTIOFSD_ARGS:-}"
    start_daemon_by "$DAEMON" --socket-path "$VM_DIR/fs.sock" --shared-dir "$dir" "$@" "${extra[@]}"
}

# start_daemon_by COMMAND...: the same for a daemon that has other options. It has
# to listen on $VM_DIR/fs.sock.
start_daemon_by() {
    local tries
    DAEMON_LOG=$VM_DIR/daemon.log
    with_leash "$@" </dev/null >"$DAEMON_LOG" 2>&1 &
    DAEMON_PID=$!
    own_process "$DAEMON_PID"
    for ((tries = 0; tries < 100; tries++)); do
        [[ -S $VM_DIR/fs.sock ]] && return 0
        is_running "$DAEMON_PID" || break
        sleep 0.1
    done
    show_daemon_log
    die "the daemon did not open its socket"
}

show_daemon_log() {
    [[ -s $DAEMON_LOG ]] || return 0
    note "the daemon said:"
    tail -n 20 "$DAEMON_LOG" | sed 's/^/      /' >&2
}

# Makes the FIFOs: CONTROL_IN and QMP_IN are for writing, CONTROL_LOG is what the
# guest said.
make_channels() {
    local log=$VM_DIR/control.log
    rm -f "$VM_DIR"/{control,qmp}.{in,out}
    mkfifo "$VM_DIR"/{control,qmp}.{in,out}
    exec {CONTROL_IN}<>"$VM_DIR/control.in" {QMP_IN}<>"$VM_DIR/qmp.in"
    : >"$log"
    exec {CONTROL_LOG}<"$log"
    # Opened for writing too: cat is not to wait for QEMU, nor to end before it.
    with_leash cat <>"$VM_DIR/control.out" >>"$log" &
    CHANNEL_PIDS=$!
    own_process $!
    with_leash cat <>"$VM_DIR/qmp.out" >"$VM_DIR/qmp.log" &
    CHANNEL_PIDS+=" $!"
    own_process $!
    CONTROL_LINE='' CONTROL_PART=''
}

close_channels() {
    local pid
    for pid in $CHANNEL_PIDS; do
        stop_process "$pid"
    done
    exec {CONTROL_IN}>&- {QMP_IN}>&- {CONTROL_LOG}<&-
}

# start_qemu KIND INITRAMFS APPEND QUEUES SIZE_MIB [QEMU-OPTION...]
#   KIND is the console: "terminal" (this one, with QEMU's Ctrl-A keys),
#   "stdout" (output only), or a file to write to. GUEST_CPUS: processors (2).
start_qemu() {
    local kind=$1 initramfs=$2 append=$3 queues=$4 size_mib=$5
    shift 5
    local console stdin=/dev/null cpus=${GUEST_CPUS:-2}
    case $kind in
    terminal)
        console=(-chardev "stdio,id=console,mux=on,signal=off" -mon "chardev=console,mode=readline")
        stdin=/dev/stdin
        ;;
    stdout) console=(-chardev "stdio,id=console,signal=on") ;;
    *) console=(-chardev "file,id=console,path=$kind,append=on") ;;
    esac
    # Linux uses no more request queues than it has processors.
    ((queues <= cpus)) || cpus=$queues
    make_channels
    with_leash qemu-system-x86_64 \
        -nodefaults -no-user-config -display none -name virtiofsd-guest \
        "${ACCEL_ARGS[@]}" -smp "$cpus" -m "$size_mib" \
        -object "memory-backend-memfd,id=mem,size=${size_mib}M,share=on" -numa node,memdev=mem \
        -chardev "socket,id=char0,path=$VM_DIR/fs.sock" \
        -device "vhost-user-fs-pci,chardev=char0,tag=share,queue-size=1024,num-request-queues=$queues" \
        -kernel "$KERNEL_IMAGE" -initrd "$initramfs" \
        -append "console=ttyS0 quiet loglevel=3 panic=-1 $append" \
        "${console[@]}" -serial chardev:console \
        -chardev "pipe,id=control,path=$VM_DIR/control" -serial chardev:control \
        -chardev "pipe,id=qmp,path=$VM_DIR/qmp" -mon chardev=qmp,mode=control \
        "$@" <"$stdin" 2>"$VM_DIR/qemu.log" &
    QEMU_PID=$!
    own_process "$QEMU_PID"
}

show_qemu_log() {
    [[ -s $VM_DIR/qemu.log ]] || return 0
    note "QEMU said:"
    tail -n 10 "$VM_DIR/qemu.log" | sed 's/^/      /' >&2
}

# qmp COMMAND...: sent without waiting for the answers (they are in qmp.log);
# what a command did is seen in the guest.
qmp() {
    local command
    for command in "$@"; do
        printf '{"execute":"%s"}\n' "$command" >&"$QMP_IN"
    done
}

# control_line LIMIT_S: reads the guest's next line into CONTROL_LINE. Fails at
# once when QEMU is gone, else when the time is over.
#
# A process copies what the guest says into a file, and the file is read here
# again and again. "read -t" on the FIFO would be shorter, but bash 5.2 crashes
# when a trap exits out of it.
CONTROL_LINE=
CONTROL_PART=
control_line() {
    local limit_s=$1 end
    end=$((SECONDS + limit_s))
    while ((SECONDS < end)); do
        read_control_log && return 0
        if ! is_running "$QEMU_PID"; then
            # Its last words may still be on the way.
            sleep 0.2
            read_control_log
            return
        fi
        sleep 0.05
    done
    return 1
}

# Fails at the end of the file, and then keeps the beginning of a line.
read_control_log() {
    local part
    if IFS= read -r -u "$CONTROL_LOG" part; then
        CONTROL_LINE=$CONTROL_PART$part
        CONTROL_PART=
        return 0
    fi
    CONTROL_PART+=$part
    return 1
}
