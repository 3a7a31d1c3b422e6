# O_APPEND with several writers, O_TRUNC and O_EXCL.
append() { for n in {1..200}; do printf '%s %04d\n' "$1" "$n" >>log; done; }
for who in a b c; do append "$who" & done
wait
same "$(wc -c <log)" $((3 * 200 * 7)) "size of the log"
for who in a b c; do
    same "$(grep "^$who" log)" "$(seq -f "$who %04.0f" 200)" "lines of writer $who, in order"
done
python3 - <<'PY'
import os
fd = os.open("log", os.O_WRONLY | os.O_APPEND)
os.lseek(fd, 0, os.SEEK_SET)
os.write(fd, b"end\n")
assert open("log", "rb").read().endswith(b"\nend\n")
os.close(fd)
os.open("log", os.O_WRONLY | os.O_TRUNC)
assert os.stat("log").st_size == 0
try:
    os.open("log", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
except FileExistsError:
    pass
else:
    raise AssertionError("O_EXCL opened an existing file")
for name, flags, error in (
    ("log", os.O_DIRECTORY, NotADirectoryError),
    (".", os.O_WRONLY, IsADirectoryError),
    ("none", os.O_RDONLY, FileNotFoundError),
    ("log/x", os.O_RDONLY, NotADirectoryError),
):
    try:
        os.open(name, flags)
    except error:
        pass
    else:
        raise AssertionError(f"open({name}, {flags}) succeeded")
PY
