# An archive with all kinds of entries is unpacked and packed again.
mkdir -p "$SCRATCH/src"/{a/b/c,empty}
(
    cd "$SCRATCH/src"
    for n in {1..300}; do printf 'file %d\n' "$n" >"a/b/c/$n"; done
    head -c 3000000 /dev/urandom >a/big
    ln a/big a/hard
    ln -s ../big a/b/soft
    ln -s /nowhere/at/all dangling
    mkfifo pipe
    chown 12:34 a/b/c/1
    chmod 2751 a/b
    chmod 400 a/b/c/2
    touch -d '1999-12-31 23:59:59 UTC' a/b/c/3 empty
)
tar -C "$SCRATCH/src" --numeric-owner -cf "$SCRATCH/first.tar" .
tar --numeric-owner -xpf "$SCRATCH/first.tar"
tar --numeric-owner --sort=name -C "$SCRATCH/src" -cf "$SCRATCH/want.tar" .
tar --numeric-owner --sort=name -cf "$SCRATCH/have.tar" .
# The directory itself was there before; its own entry is the first block.
tar -df "$SCRATCH/first.tar" --numeric-owner
tar -tvf "$SCRATCH/want.tar" --numeric-owner | tail -n +2 >"$SCRATCH/want"
tar -tvf "$SCRATCH/have.tar" --numeric-owner | tail -n +2 >"$SCRATCH/have"
diff "$SCRATCH/want" "$SCRATCH/have"
same "$(stat -c %h a/hard)" 2 "links"
