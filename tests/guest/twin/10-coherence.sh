# What one guest does, the other sees, at once or when its cache has expired.
# shellcheck source=/dev/null
. /run/payload/tests/twin/lib.sh

if is_a; then
    echo one >file
    mkdir dir
    ln -s target link
    echo old >replaced
fi
meet
same "$(cat file)" one "a new file"
same "$(readlink link)" target "a new link"
same "$(cat replaced)" old "a file to be replaced"
[[ -d dir ]] || fail "a new directory is missing"
exec 5<replaced
meet
if ! is_a; then
    echo two >>file
    chmod 600 file
    chown 12:34 file
    rmdir dir
    echo new >other
    mv other replaced
    rm link
fi
meet
same "$(cat file)" $'one\ntwo' "a file that was appended to"
same "$(stat -c '%a %u %g %s' file)" "600 12 34 8" "attributes"
[[ ! -e dir ]] || fail "a removed directory is still there"
[[ ! -L link ]] || fail "a removed link is still there"
same "$(cat replaced)" new "a replaced file"
# All but those of the meetings.
same "$(printf '%s ' [!ab]*)" "file replaced " "names"
# What is open stays what it was.
if is_a; then same "$(cat <&5)" old "the open file"; fi
meet
if is_a; then : >file; fi
meet
same "$(stat -c %s file)" 0 "size after truncation"
same "$(cat file)" "" "content after truncation"
meet

# Both make the same names; exactly one of them succeeds with each.
mine=0
for n in {1..50}; do
    if mkdir "dir.$n" 2>/dev/null; then mine=$((mine + 1)); fi
    if (set -C && : >"excl.$n") 2>/dev/null; then mine=$((mine + 1)); fi
done
echo "$mine" >"mine.$TWIN"
meet
same "$(($(cat mine.a) + $(cat mine.b)))" 100 "names made by either"
meet
