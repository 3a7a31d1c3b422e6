# shellcheck shell=bash
# Builds the initramfs: busybox, our init, the modules that this kernel lacks,
# and what the caller adds (a script, the guest tests). It is made anew for each
# run; that takes a moment, and saves all questions of what is stale. It is not
# compressed: unpacking costs more in an emulated guest than reading.

# Everything the guest may touch. What the kernel has built in is skipped.
readonly GUEST_MODULES="virtio_pci virtio_blk ext4 fuse virtiofs"

# new_initramfs TREE: makes the directory TREE with the fixed part.
new_initramfs() {
    local tree=$1
    mkdir -p "$tree"/{bin,dev,proc,sys,mnt,tmp,run,etc,root,modules,payload}
    cp "$BUSYBOX" "$tree/bin/busybox"
    ln -s busybox "$tree/bin/sh"
    install -m 755 "$REPO_DIR/scripts/guest/init" "$tree/init"
    # A user name for "ls -l", and none of the host's.
    printf 'root:x:0:0:root:/root:/bin/sh\n' >"$tree/etc/passwd"
    printf 'root:x:0:\n' >"$tree/etc/group"
    add_modules "$tree"
}

# pack_initramfs TREE FILE
pack_initramfs() {
    (cd "$1" && find . -print0 | LC_ALL=C sort -z | cpio --quiet -0 -o -H newc --owner=+0:+0) >"$2"
}

# Copies the modules with their dependencies, and writes down the order in
# which init has to load them. Which module needs which is asked from the
# module files themselves: the package ships no modules.dep.
add_modules() {
    local tree=$1 name
    : >"$tree/modules/order"
    for name in $GUEST_MODULES; do
        add_module "$tree" "$name"
    done
}

add_module() {
    local tree=$1 name=${2//-/_} file needed
    if grep -q "/${name//_/[-_]}\.ko\$" "$KERNEL_MODULES/modules.builtin"; then return 0; fi
    if grep -qx "$name.ko" "$tree/modules/order"; then return 0; fi
    file=$(find "$KERNEL_MODULES" -name "${name//_/[-_]}.ko*" -print -quit)
    # A kernel without the driver says so at mount time, in better words.
    [[ -n $file ]] || return 0
    unpack_module "$file" "$tree/modules/$name.ko"
    for needed in $(module_dependencies "$tree/modules/$name.ko"); do
        add_module "$tree" "$needed"
    done
    printf '%s.ko\n' "$name" >>"$tree/modules/order"
}

unpack_module() {
    case $1 in
    *.ko) cp "$1" "$2" ;;
    *.ko.xz) xz -dc "$1" >"$2" ;;
    *.ko.zst) zstd -qdc "$1" >"$2" ;;
    *.ko.gz) gzip -dc "$1" >"$2" ;;
    *) die "module in an unknown format: $1" ;;
    esac
}

# The .modinfo section holds NUL-separated NAME=VALUE strings.
module_dependencies() {
    LC_ALL=C tr '\0' '\n' <"$1" | LC_ALL=C sed -n '/^depends=[A-Za-z0-9_,-]*$/{s/^depends=//;s/,/ /g;p}' | head -n 1
}
