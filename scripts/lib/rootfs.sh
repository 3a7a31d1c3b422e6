# shellcheck shell=bash
# The Debian system that the guest tests run in: a read-only ext4 image, made by
# mmdebstrap from this machine's own Debian sources and kept in the cache. It
# holds nothing of ours; the tests travel in the initramfs, so the image has to
# be made again only when the recipe below changes.
#
# Out: ROOTFS_IMAGE.

ROOTFS_IMAGE=

# Change this list and the image is made anew.
readonly ROOTFS_PACKAGES="bash coreutils git sqlite3 tar gcc make libc6-dev fio attr acl
    util-linux mount python3-minimal perl-base procps e2fsprogs stress-ng"
readonly ROOTFS_LEFT_OUT="usr/share/doc usr/share/man usr/share/locale usr/share/info
    var/cache/apt var/lib/apt"

need_rootfs_tools() { need_packages mmdebstrap e2fsprogs fakeroot uidmap debian-archive-keyring; }

fetch_rootfs() {
    local recipe path
    recipe=$(printf '%s' "$ROOTFS_PACKAGES $ROOTFS_LEFT_OUT" | sha256sum | cut -c 1-12)
    ROOTFS_IMAGE=$CACHE_DIR/rootfs/$recipe.ext4
    [[ ! -r $ROOTFS_IMAGE ]] || return 0
    cache_lock
    # Another script may have made it while this one waited.
    if [[ ! -r $ROOTFS_IMAGE ]]; then
        need_rootfs_tools
        say "making the guest's Debian system (a minute or two)"
        mkdir -p "$CACHE_DIR/rootfs"
        write_debian_sources "$RUN_DIR/sources.list"
        make_tarball "$RUN_DIR/rootfs.tar" "$RUN_DIR/sources.list" "$ROOTFS_PACKAGES" || die "mmdebstrap failed"
        say "packing it into a disk image"
        make_image "$RUN_DIR/rootfs.tar" "$ROOTFS_IMAGE"
        rm -f "$RUN_DIR/rootfs.tar"
        for path in "$CACHE_DIR"/rootfs/*.ext4; do
            [[ $path == "$ROOTFS_IMAGE" ]] || rm -f "$path"
        done
    fi
    cache_unlock
}

# Only what Debian itself signs: other vendors' sources on this machine are none
# of the guest's business. apt knows the origin once it has fetched the lists.
write_debian_sources() {
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    list_debian_sources "$keyring" >"$1"
    if [[ ! -s $1 ]]; then
        refresh_lists
        list_debian_sources "$keyring" >"$1"
    fi
    [[ -s $1 ]] || die "apt knows no source of origin Debian"
}

list_debian_sources() {
    local keyring
    keyring=$(readlink -f "$1")
    # shellcheck disable=SC2016 # apt expands it
    apt-get indextargets --format "deb [signed-by=$keyring] "'$(REPO_URI) $(RELEASE) $(COMPONENT)' \
        'Created-By: Packages' 'Origin: Debian' | sort -u
}

# make_tarball TARBALL SOURCES PACKAGES: a Debian system, as a user without root if
# that is to be had. Fails when it cannot be made, with the reason on stderr.
make_tarball() {
    local tarball=$1 sources=$2 include path options=()
    read -r -d '' -a include <<<"$3" || true
    for path in $ROOTFS_LEFT_OUT; do
        [[ $path == usr/share/* ]] && options+=(--dpkgopt="path-exclude=/$path/*")
    done
    options+=(--variant=essential --include="$(IFS=,; printf '%s' "${include[*]}")")
    if run_long mmdebstrap "${options[@]}" '' "$tarball" "$sources" >"$RUN_DIR/mmdebstrap.log" 2>&1; then
        return 0
    fi
    # Without root it needs user namespaces and subordinate ids, which a machine
    # may not give.
    if ((EUID != 0)) && as_root mmdebstrap "${options[@]}" '' - "$sources" \
        >"$tarball" 2>"$RUN_DIR/mmdebstrap.log"; then
        return 0
    fi
    tail -n 15 "$RUN_DIR/mmdebstrap.log" >&2
    return 1
}

# fakeroot lets an ordinary user keep the owners of the files; mke2fs takes them
# from there, so nothing has to be mounted.
make_image() {
    local tarball=$1 image=$2 tree=$RUN_DIR/rootfs path excludes=()
    for path in dev $ROOTFS_LEFT_OUT; do
        excludes+=(--exclude="./$path/*")
    done
    mkdir "$tree"
    # shellcheck disable=SC2016 # the inner shell expands it
    run_long fakeroot -- bash -euc '
        tree=$1 tarball=$2 image=$3
        shift 3
        tar -C "$tree" -x -f "$tarball" -p --numeric-owner "$@"
        mkdir -p "$tree/root-image"
        size_kib=$(du -sk --apparent-size "$tree" | cut -f 1)
        PATH=$PATH:/usr/sbin:/sbin
        mke2fs -q -t ext4 -O ^has_journal -m 0 -L guest -d "$tree" "$image" "$((size_kib * 5 / 4 + 65536))k" >/dev/null
    ' fakeroot-mke2fs "$tree" "$tarball" "$image.part" "${excludes[@]}" || die "could not make $image"
    chmod -R u+w "$tree"
    rm -rf "$tree"
    mv "$image.part" "$image"
}
