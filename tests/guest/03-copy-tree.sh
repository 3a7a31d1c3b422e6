# A tree of 2,000 files goes in and comes out again unchanged.
mkdir "$SCRATCH/tree"
(
    cd "$SCRATCH/tree"
    for dir in {00..39}; do
        mkdir -p "$dir/sub"
        for file in {00..48}; do
            printf '%s/%s %0*d\n' "$dir" "$file" $((10#$file * 40 + 1)) 7 >"$dir/sub/$file"
        done
        ln -s "sub/00" "$dir/link"
        : >"$dir/empty"
    done
    chmod 640 00/sub/*
    chmod 4755 01/sub/*
    touch -d '2001-02-03 04:05:06.789012345 UTC' 02/sub/*
)
same "$(find "$SCRATCH/tree" -type f | wc -l)" 2000 "files in the tree"
cp -a "$SCRATCH/tree" in
sync -f .
cp -a in "$SCRATCH/out"
diff -r --no-dereference "$SCRATCH/tree" "$SCRATCH/out"
for tree in tree out; do
    (cd "$SCRATCH/$tree" && find . -printf '%p %y %m %s %l ' -type f -printf '%T@\n' -o -printf '\n' | sort >"../$tree.list")
done
cmp "$SCRATCH/tree.list" "$SCRATCH/out.list"
(cd "$SCRATCH/tree" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum) >sums
