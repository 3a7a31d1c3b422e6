# shellcheck shell=bash
# Debian packages, in two ways that must not be mixed up:
#
#   need_packages   installs what this machine lacks (compiler, QEMU, ...),
#                   with sudo when not root, and says so first;
#   fetch_package   only downloads and unpacks into a directory. The guest is
#                   made of such packages, so the machine's own /boot and
#                   /bin/busybox are never touched.

as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "need root for: $* (not root, and no sudo here)"
    fi
}

# Like run_long. No leash: the kernel takes it off when a process becomes root.
# Only used when not root, and for a process that signals have to reach: so the
# child is sudo itself, which hands them on.
run_long_as_root() {
    command -v sudo >/dev/null || die "need root for: $* (not root, and no sudo here)"
    sudo "$@" </dev/null &
    own_process $!
    wait $!
}

package_installed() {
    [[ $(dpkg-query -W -f='${Status}' "$1" 2>/dev/null) == "install ok installed" ]]
}

need_packages() {
    local package missing=()
    command -v apt-get >/dev/null || die "this needs a Debian machine: no apt-get. Packages wanted: $*"
    for package in "$@"; do
        package_installed "$package" || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    say "installing: ${missing[*]}"
    # A fresh machine may have no package lists, an old one lists that name
    # packages which are gone: one refresh cures both.
    install_packages "${missing[@]}" || {
        refresh_lists
        install_packages "${missing[@]}" || die "could not install: ${missing[*]}"
    }
}

install_packages() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" \
        </dev/null >"$RUN_DIR/apt.log" 2>&1 || {
        note "apt-get install failed: $(tail -n 1 "$RUN_DIR/apt.log")"
        return 1
    }
}

refresh_lists() {
    say "refreshing the package lists (apt-get update)"
    as_root apt-get update -q </dev/null >"$RUN_DIR/apt.log" 2>&1 ||
        note "apt-get update failed: $(tail -n 1 "$RUN_DIR/apt.log")"
}

# fetch_package NAME TARGET: unpacks the newest NAME into TARGET. TARGET appears
# only when it is complete, so a broken download is not mistaken for a cache.
fetch_package() {
    local name=$1 target=$2 work
    work=$(mktemp -d "$CACHE_DIR/fetch.XXXXXX")
    # The sandbox user of apt could not write into a private directory.
    (cd "$work" && apt-get -q -o APT::Sandbox::User=root download "$name") >"$RUN_DIR/apt.log" 2>&1 || {
        rm -rf "$work"
        note "download of $name failed: $(tail -n 1 "$RUN_DIR/apt.log")"
        return 1
    }
    mkdir "$work/tree"
    dpkg-deb -x "$work"/*.deb "$work/tree"
    rm -rf "$target"
    mkdir -p "$(dirname "$target")"
    mv "$work/tree" "$target"
    rm -rf "$work"
}

# What the crate needs from Debian to be compiled.
need_build_tools() {
    [[ -d ${CARGO_HOME:-${HOME:-/root}/.cargo}/bin ]] && PATH=$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin
    command -v cargo >/dev/null || die "no Rust toolchain: cargo is not in PATH"
    need_packages gcc libc6-dev libcap-ng-dev libseccomp-dev
}
