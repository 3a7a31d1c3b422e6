# shellcheck shell=bash
# Test programs that Debian does not have, built with cargo and kept in the cache.
#
# They are linked with this machine's own C library. That is also the guest's:
# its Debian image is made from this machine's package sources.
#
# Out: TOOLS_DIR, a directory with pjdfstest and fsx.

TOOLS_DIR=

# Name and version; with --locked, what they depend on is pinned, too.
readonly TOOL_CRATES="pjdfstest@0.2.2 fsx@0.3.2"

fetch_tools() {
    local crate name root
    need_build_tools
    mkdir -p "$CACHE_DIR"
    cache_lock
    for crate in $TOOL_CRATES; do
        name=${crate%@*}
        root=$CACHE_DIR/tools/$name-${crate#*@}
        if [[ ! -x $root/bin/$name ]]; then
            say "building $name ${crate#*@} (a minute)"
            # Not in the target directory of the project, whatever it is set to.
            run_long env -u CARGO_TARGET_DIR cargo install --quiet --locked --root "$root.part" "$crate" >&2 ||
                die "could not build $crate"
            rm -rf "$root"
            mv "$root.part" "$root"
        fi
    done
    TOOLS_DIR=$CACHE_DIR/tools/bin
    mkdir -p "$TOOLS_DIR"
    for crate in $TOOL_CRATES; do
        ln -sf "../${crate/@/-}/bin/${crate%@*}" "$TOOLS_DIR/${crate%@*}"
    done
    cache_unlock
}
