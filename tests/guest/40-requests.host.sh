# Counts the requests of each part in the daemon's log, and compares them with
# what doc/caching.md says. The counts go to the file that COUNTS_TO names, if it
# does; the tables there are made of them.
[[ $DAEMON_TRACES == yes ]] || exit 0

# Lines "PART<TAB>OPCODE<TAB>COUNT". What the guest forgets comes on another queue,
# whenever it likes.
awk '
    FILENAME == "parts" { names[FNR] = $0; next }
    !/TRACE virtiofsd::server\]/ { next }
    {
        opcode = $0
        sub(/.*TRACE virtiofsd::server\] /, "", opcode)
        sub(/ .*/, "", opcode)
    }
    opcode == "FORGET" || opcode == "BATCH_FORGET" { next }
    opcode == "FSYNCDIR" { marks = 0; delete counts }
    opcode == "STATFS" { marks++; next }
    marks % 2 == 1 { counts[names[(marks + 1) / 2] "\t" opcode]++ }
    END { for (key in counts) print key "\t" counts[key] }
' parts "$DAEMON_LOG" | sort >counts
[[ -s counts ]] || fail "the daemon's log shows no requests"
[[ -z ${COUNTS_TO:-} ]] || cp counts "$COUNTS_TO"
echo "the requests were:"
sed 's/^/  /' counts

# want PART OPCODE TEST COUNT
want() {
    local count
    count=$(awk -F'\t' -v part="$1" -v opcode="$2" '$1 == part && $2 == opcode { print $3 }' counts)
    [ "${count:-0}" "$3" "$4" ] || fail "$1: ${count:-0} of $2 instead of $3 $4 ($DAEMON_OPTIONS)"
}
never() { local part=$1 opcode; shift; for opcode; do want "$part" "$opcode" -eq 0; done; }
once() { local part=$1 opcode; shift; for opcode; do want "$part" "$opcode" -eq 1; done; }

mode=auto opens=yes opens_directories=yes
[[ $DAEMON_OPTIONS =~ --cache[=\ ]([a-z]+) ]] && mode=${BASH_REMATCH[1]}
[[ $DAEMON_OPTIONS != *--no-open\ * && $DAEMON_OPTIONS != *--no-open ]] || opens=no
[[ $DAEMON_OPTIONS != *--no-opendir* ]] || opens_directories=no

# Names that are missing, links.
once "missing 1" LOOKUP
once "link 1" READLINK
case "$mode $DAEMON_OPTIONS" in
always* | metadata* | *--negative-timeout=[1-9]*) never "missing 2" LOOKUP ;;
*) once "missing 2" LOOKUP ;;
esac
case $mode in
never) once "link 2" READLINK ;;
*) never "link 2" READLINK ;;
esac

# Opening and closing.
once create CREATE
want create WRITE -ge 1
never create FLUSH
never update CREATE
case $opens in
yes)
    once create RELEASE
    for part in "young 1" "young 2" "old 1" "old 2"; do
        once "$part" OPEN RELEASE
        never "$part" FLUSH
    done
    case $mode in
    always) never update FLUSH ;;
    *) once update FLUSH ;;
    esac
    ;;
no)
    for part in create "young 1" "young 2" "old 1" "old 2" update; do
        never "$part" OPEN FLUSH RELEASE
    done
    ;;
esac

# Contents.
case $mode in
never | metadata)
    for part in "young 1" "young 2" "old 1" "old 2"; do want "$part" READ -ge 1; done
    ;;
always)
    never "young 2" READ
    never "old 1" READ
    never "old 2" READ
    ;;
auto)
    # With no OPEN to say otherwise, the guest keeps what has not changed.
    [[ $opens == no ]] || for part in "young 1" "young 2" "old 1"; do want "$part" READ -ge 1; done
    never "old 2" READ
    ;;
esac

# Directories.
for part in "list 1" "list 2"; do
    case $opens_directories in
    yes) once "$part" OPENDIR RELEASEDIR ;;
    no) never "$part" OPENDIR RELEASEDIR ;;
    esac
done
if [[ $mode == always || $mode == metadata || $opens_directories == no ]]; then
    never "list 2" READDIR READDIRPLUS
else
    want "list 2" READDIR -ge 1
fi
