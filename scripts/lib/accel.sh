# shellcheck shell=bash
# Chooses between KVM and software emulation.
#
# A usable-looking /dev/kvm proves nothing: inside some virtual machines it is
# there, accepts every call, and the guest never gets anywhere. So KVM is
# believed only after a guest has booted with it. The verdict is kept per boot
# of this machine and per version of QEMU.
#
# Out: ACCEL_ARGS, and ACCEL=kvm or tcg.

ACCEL=
ACCEL_ARGS=()

# A guest boots with real KVM in about a second.
readonly PROBE_LIMIT_S=8

choose_accel() {
    judge_kvm
    if [[ $KVM_VERDICT == works ]]; then
        ACCEL=kvm
        ACCEL_ARGS=(-accel kvm -cpu host)
    else
        ACCEL=tcg
        # QEMU's default of 1 GiB of translated code is never flushed in a short
        # run, and after a machine reset every write to a page that once held
        # code goes the slow way: the next boot took minutes (QEMU 7.2).
        ACCEL_ARGS=(-accel "tcg,thread=multi,tb-size=128" -cpu max)
        say "software emulation instead of KVM: $KVM_VERDICT"
    fi
}

# Sets KVM_VERDICT to "works", or to the reason why not. (A variable, because a
# probe in a subshell would be out of reach for the clean-up.)
judge_kvm() {
    if [[ ! -e /dev/kvm ]]; then
        KVM_VERDICT="there is no /dev/kvm"
        return
    fi
    if [[ ! -r /dev/kvm || ! -w /dev/kvm ]]; then
        KVM_VERDICT="no permission for /dev/kvm (is $(id -un) in the group kvm?)"
        return
    fi
    local cached
    cached=$CACHE_DIR/kvm/$(probe_key)
    if [[ ! -r $cached ]]; then
        say "trying whether KVM can boot a guest here (at most $PROBE_LIMIT_S seconds)"
        KVM_VERDICT="/dev/kvm is there, but no guest boots with it"
        if probe_kvm; then KVM_VERDICT=works; fi
        mkdir -p "$CACHE_DIR/kvm"
        rm -f "$CACHE_DIR"/kvm/*
        printf '%s\n' "$KVM_VERDICT" >"$cached"
        # The guest tests go on as root with a user's cache.
        chown -R --reference="$CACHE_DIR" "$CACHE_DIR/kvm"
    fi
    KVM_VERDICT=$(<"$cached")
}

probe_key() {
    {
        cat /proc/sys/kernel/random/boot_id /etc/machine-id 2>/dev/null || true
        qemu-system-x86_64 --version
    } | sha256sum | cut -c 1-32
}

probe_kvm() {
    local tree=$RUN_DIR/probe-tree log=$RUN_DIR/probe.log
    new_initramfs "$tree"
    pack_initramfs "$tree" "$RUN_DIR/probe.cpio"
    : >"$log"
    timeout -k 1 "$PROBE_LIMIT_S" qemu-system-x86_64 \
        -nodefaults -no-user-config -no-reboot -display none -m 256 \
        -accel kvm -cpu host \
        -kernel "$KERNEL_IMAGE" -initrd "$RUN_DIR/probe.cpio" \
        -append "console=ttyS0 panic=-1 quiet try.mode=probe" \
        -serial "file:$log" </dev/null >/dev/null 2>&1 &
    local probe=$!
    own_process "$probe"
    # QEMU may well abort; the shell need not announce it.
    disown "$probe"
    # The marker decides, not the end of QEMU: a boot is proof enough.
    while is_running "$probe" && ! grep -q guest-is-up "$log"; do sleep 0.1; done
    stop_process "$probe"
    grep -q guest-is-up "$log"
}
