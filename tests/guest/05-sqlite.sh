# SQLite in WAL mode: two writers, a reader, and a sound data base at the end.
sqlite3 db >"$SCRATCH/out" <<'SQL'
PRAGMA journal_mode=WAL;
CREATE TABLE t(id INTEGER PRIMARY KEY, who TEXT, n INTEGER);
SQL
same "$(cat "$SCRATCH/out")" wal "journal mode"

writer() {
    local n
    for n in {1..15}; do
        printf 'INSERT INTO t(who, n) VALUES("%s", %d);\n' "$1" "$n"
    done | sqlite3 -cmd '.timeout 60000' db
}
# A connection that stays open, so that the others find a WAL and shared memory.
exec 5> >(sqlite3 -cmd '.timeout 60000' db >"$SCRATCH/reader")
echo 'SELECT count(*) FROM t;' >&5
writer a &
first=$!
writer b &
second=$!
wait "$first"
wait "$second"
[[ -s db-wal ]] || fail "no write-ahead log beside the data base"
echo 'SELECT count(*) FROM t;' >&5
exec 5>&-
wait
same "$(tail -n 1 "$SCRATCH/reader")" 30 "rows seen by the open connection"
same "$(sqlite3 db 'PRAGMA integrity_check;')" ok "integrity check"
same "$(sqlite3 db 'SELECT count(*), sum(n) FROM t;')" "30|240" "rows"
sqlite3 db 'PRAGMA wal_checkpoint(TRUNCATE); VACUUM;' >/dev/null
same "$(sqlite3 db 'SELECT count(*) FROM t WHERE who = "b";')" 15 "rows after vacuum"
