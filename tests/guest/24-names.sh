# Names: any byte but / and NUL, up to 255 bytes; a deep tree; odd lookups.
python3 - <<'PY'
import errno, os

names = [b"a b", b"tab\there", b"new\nline", b"\xff\xfe not utf-8", "\u00e4\u4e2d".encode(), b"-rf", b"*", b"..a", b"...", b"n" * 255]
for name in names:
    with open(name, "wb") as file:
        file.write(name)
assert sorted(os.listdir(b".")) == sorted(names)
for name in names:
    assert open(name, "rb").read() == name
for name, code in ((b"n" * 256, errno.ENAMETOOLONG), (b"", errno.ENOENT)):
    try:
        os.stat(name)
    except OSError as error:
        assert error.errno == code, error
    else:
        raise AssertionError(name)
top = os.getcwd()
for depth in range(60):
    os.mkdir(f"level-{depth}")
    os.chdir(f"level-{depth}")
with open("bottom", "w") as file:
    file.write("deep")
assert os.getcwd().count("level-") == 60
os.chdir(top)
PY
same "$(cat "$(find . -name bottom)")" deep "content at the bottom"
ls /mnt/.. >/dev/null
same "$(stat -c %i /mnt/t/..)" "$(stat -c %i /mnt)" "the way up again"
