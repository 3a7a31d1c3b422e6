# shellcheck shell=bash
# The guest's kernel and busybox, from Debian's packages, kept in the cache.
#
# The newest cloud kernel on offer is taken once and then kept, so that the
# scripts work offline and a test run does not change its kernel overnight.
# Remove the cache directory to get a newer one. GUEST_KERNEL_PACKAGE names
# another package on purpose (an older kernel, for comparison).
#
# Out: KERNEL_IMAGE, KERNEL_MODULES (directory lib/modules/VERSION), BUSYBOX.

KERNEL_IMAGE=
KERNEL_MODULES=
BUSYBOX=

# Lists the signed cloud kernels by version, newest last. The name of a meta
# package has only a series ("6.12") and would unpack to nothing.
list_cloud_kernels() {
    local series=$1
    apt-cache search --names-only "^linux-image-$series.*-cloud-amd64\$" 2>/dev/null |
        sed 's/ .*//' | grep -E '^linux-image-[0-9]+\.[0-9]+\.[0-9]+' | sort -V || true
}

newest_cloud_kernel() {
    local found
    # Series 6 first: it is what the guest tests were written against.
    found=$(list_cloud_kernels '6\.' | tail -n 1)
    [[ -n $found ]] || found=$(list_cloud_kernels '[0-9]' | tail -n 1)
    printf '%s' "$found"
}

fetch_guest_kernel() {
    [[ $(uname -m) == x86_64 ]] || die "the guest is an x86-64 one; this machine is $(uname -m)"
    mkdir -p "$CACHE_DIR"
    cache_lock
    fetch_kernel_locked
    fetch_busybox_locked
    cache_unlock
}

fetch_kernel_locked() {
    local package=${GUEST_KERNEL_PACKAGE:-}
    if [[ -z $package && -r $CACHE_DIR/kernel-in-use ]]; then
        package=$(<"$CACHE_DIR/kernel-in-use")
    fi
    if [[ -z $package ]]; then
        package=$(newest_cloud_kernel)
        [[ -n $package ]] || { refresh_lists && package=$(newest_cloud_kernel); }
        [[ -n $package ]] || die "no cloud kernel on offer: apt-cache knows no linux-image-*-cloud-amd64"
    fi
    if [[ ! -d $CACHE_DIR/kernel/$package ]]; then
        say "downloading the guest kernel: $package"
        if ! fetch_package "$package" "$CACHE_DIR/kernel/$package"; then
            # The lists were older than the archive; the name may be gone too.
            refresh_lists
            [[ -n ${GUEST_KERNEL_PACKAGE:-} ]] || package=$(newest_cloud_kernel)
            fetch_package "$package" "$CACHE_DIR/kernel/$package" || die "could not download $package"
        fi
    fi
    [[ -n ${GUEST_KERNEL_PACKAGE:-} ]] || printf '%s\n' "$package" >"$CACHE_DIR/kernel-in-use"

    local image
    image=("$CACHE_DIR/kernel/$package"/boot/vmlinuz-*)
    [[ -r ${image[0]} ]] || die "$package holds no kernel: remove $CACHE_DIR/kernel/$package"
    KERNEL_IMAGE=${image[0]}
    KERNEL_MODULES=$(find "$CACHE_DIR/kernel/$package" -path '*/lib/modules/*' -name modules.builtin -printf '%h\n')
}

fetch_busybox_locked() {
    local found
    if ! found=$(find_busybox); then
        say "downloading busybox-static for the guest"
        fetch_package busybox-static "$CACHE_DIR/busybox" || {
            refresh_lists
            fetch_package busybox-static "$CACHE_DIR/busybox" || die "could not download busybox-static"
        }
        found=$(find_busybox) || die "busybox-static holds no busybox"
    fi
    BUSYBOX=$found
}

# Its place moved from /bin to /usr/bin between Debian releases.
find_busybox() {
    local path
    for path in "$CACHE_DIR"/busybox/{usr/bin,bin}/busybox; do
        [[ -x $path ]] && printf '%s' "$path" && return 0
    done
    return 1
}
