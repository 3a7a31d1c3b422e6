# statx gives the birth time. The host compares the values written down here.
: >file
mkdir dir
ln -s file link
sleep 0.1
touch -d '2001-01-01 UTC' file dir
for name in file dir link; do
    birth=$(stat -c %W "$name")
    [[ $birth =~ ^[0-9]+$ && $birth != 0 ]] || fail "no birth time for $name: '$birth'"
    printf '%s %s\n' "$name" "$(stat -c %w "$name")"
done >"$SCRATCH/births"
cat "$SCRATCH/births" >births
