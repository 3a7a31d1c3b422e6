# Both append to one file: nothing is lost, and without a cache nothing torn.
# shellcheck source=/dev/null
. /run/payload/tests/twin/lib.sh

: >>log
meet
for n in {1..300}; do echo "$TWIN line $n of those that nothing may tear apart"; done >lines."$TWIN"
# One write for each line.
while IFS= read -r line; do printf '%s\n' "$line"; done <lines."$TWIN" >>log
meet
same "$(wc -l <log)" 600 "lines"
same "$(wc -c <log)" "$(cat lines.a lines.b | wc -c)" "bytes"
# Through its page cache, Linux sends a write that reaches into a second page as
# two, and the other guest may come between them.
if [[ $CACHE == never ]]; then
    for who in a b; do
        grep "^$who " log >"$SCRATCH/lines"
        cmp "$SCRATCH/lines" "lines.$who" || {
            diff "$SCRATCH/lines" "lines.$who" | head -n 8
            fail "the lines of $who are not what it wrote"
        }
    done
fi
meet
