# shellcheck shell=bash
# A Debian system with libvirt and QEMU in it, to be entered by a process tree of its
# own. Nothing of libvirt gets onto this machine, no service of it is started here,
# and the release is chosen: what libvirt can ask of a daemon depends on its version.
#
# It is kept in the cache as an archive and unpacked into memory for each run, in
# private mount and process namespaces. With their first process everything in
# them ends, what was mounted and unpacked included.
#
# Out: LIBVIRT_TREE, the archive.

LIBVIRT_TREE=

# Change this list and the archive is made anew.
readonly LIBVIRT_PACKAGES="bash coreutils libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients
    qemu-system-x86 libcap-ng0 libseccomp2 uidmap util-linux mount procps attr"
# Which only later releases have as a package of its own.
readonly LIBVIRT_LATER_PACKAGES="libvirt-daemon-log"

# fetch_libvirt_tree SUITE: fails, with the reason in SKIP_REASON, when it is not to be had.
fetch_libvirt_tree() {
    local suite=$1 packages=$LIBVIRT_PACKAGES recipe path
    [[ $suite == bookworm ]] || packages+=" $LIBVIRT_LATER_PACKAGES"
    recipe=$(printf '%s' "$packages $ROOTFS_LEFT_OUT" | sha256sum | cut -c 1-12)
    LIBVIRT_TREE=$CACHE_DIR/libvirt/$suite-$recipe.tar
    [[ ! -r $LIBVIRT_TREE ]] || return 0
    need_rootfs_tools
    cache_lock
    say "making a Debian system with libvirt, $suite (a minute or two)"
    mkdir -p "$CACHE_DIR/libvirt"
    if ! write_suite_source "$suite" "$RUN_DIR/libvirt-sources.list" ||
        ! make_tarball "$RUN_DIR/libvirt.tar" "$RUN_DIR/libvirt-sources.list" "$packages"; then
        cache_unlock
        SKIP_REASON="Debian's $suite with libvirt in it could not be fetched"
        return 1
    fi
    for path in "$CACHE_DIR/libvirt/$suite"-*.tar; do
        rm -f "$path"
    done
    # The caller asks for the status, so errors do not end the script here by themselves.
    if ! cp "$RUN_DIR/libvirt.tar" "$LIBVIRT_TREE.part" || ! mv "$LIBVIRT_TREE.part" "$LIBVIRT_TREE"; then
        die "could not keep $LIBVIRT_TREE"
    fi
    rm "$RUN_DIR/libvirt.tar"
    cache_unlock
}

# From the server that this machine has its own Debian from.
write_suite_source() {
    local suite=$1 keyring=/usr/share/keyrings/debian-archive-keyring.gpg uri
    # shellcheck disable=SC2016 # apt expands it
    uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' |
        head -n 1)
    [[ -n $uri ]] || { note "apt knows no source of origin Debian"; return 1; }
    printf 'deb [signed-by=%s] %s %s main\n' "$(readlink -f "$keyring")" "$uri" "$suite" >"$2"
}

# enter_libvirt_tree COMMAND...: runs scripts/libvirt/enter in new namespaces, and
# COMMAND in the tree.
enter_libvirt_tree() {
    run_long env "ACCEL=$ACCEL" unshare --mount --pid --fork --kill-child \
        "$REPO_DIR/scripts/libvirt/enter" "$LIBVIRT_TREE" "$RUN_DIR/root" "$@"
}
