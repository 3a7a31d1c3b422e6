# fsx: random operations on one file, each read compared with what was written.
# The seeds are fixed, so that what fails once fails again.
OPERATIONS=2000

# Shared mappings are to be had in all modes, unless somebody asked for none.
mappings=10
[[ $DAEMON_OPTIONS != *--no-allow-mmap* ]] || mappings=0

# config MAPPINGS ALIGN
config() {
    local fallocate=2
    # Rounded down, some of its lengths would be 0, which posix_fallocate(3) refuses.
    (($2 == 1)) || fallocate=0
    cat <<TOML
flen = 1048576
[opsize]
max = 131072
align = $2
[weights]
read = 10
write = 10
mapread = $1
mapwrite = $1
invalidate = $(($1 / 10))
truncate = 5
close_open = 3
fsync = 1
fdatasync = 1
posix_fallocate = $fallocate
punch_hole = 3
sendfile = 2
posix_fadvise = 2
copy_file_range = 3
TOML
}

# exercise NAME SEED MAPPINGS ALIGN
exercise() {
    config "$3" "$4" >"$SCRATCH/$1.toml"
    if ! fsx -N "$OPERATIONS" -S "$2" -f "$SCRATCH/$1.toml" -P "$SCRATCH" "$1" >"$SCRATCH/$1.log" 2>&1; then
        head -n 3 "$SCRATCH/$1.log"
        tail -n 12 "$SCRATCH/$1.log"
        fail "fsx, $1, seed $2"
    fi
}

for seed in 1 2; do
    exercise "plain-$seed" "$seed" 0 1
done
exercise aligned 4 0 4096
if ((mappings)); then
    for seed in 5 6; do
        exercise "mapped-$seed" "$seed" "$mappings" 1
    done
fi
