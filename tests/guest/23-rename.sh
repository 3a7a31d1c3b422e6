# rename in all its forms.
python3 - <<'PY'
import ctypes, errno, os

NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
libc = ctypes.CDLL(None, use_errno=True)
def renameat2(old, new, flags):
    """0, or the errno."""
    return 0 if libc.renameat2(-100, old.encode(), -100, new.encode(), flags) == 0 else ctypes.get_errno()
def write(name, text):
    with open(name, "w") as file:
        file.write(text)
def read(name):
    with open(name) as file:
        return file.read()

write("a", "a")
write("b", "b")
assert renameat2("a", "b", NOREPLACE) == errno.EEXIST
assert renameat2("a", "b", EXCHANGE) == 0
assert (read("a"), read("b")) == ("b", "a")
assert renameat2("a", "none", EXCHANGE) == errno.ENOENT
assert renameat2("a", "c", NOREPLACE) == 0
assert sorted(os.listdir(".")) == ["b", "c"]
os.rename("b", "c")
assert read("c") == "a" and os.listdir(".") == ["c"]
os.mkdir("dir")
os.mkdir("dir/sub")
write("dir/sub/file", "deep")
os.rename("dir", "other")
assert read("other/sub/file") == "deep"
assert renameat2("c", "other", EXCHANGE) == 0
assert read("other") == "a" and read("c/sub/file") == "deep"
os.mkdir("empty")
os.rename("c/sub", "empty")
assert os.listdir("empty") == ["file"] and os.listdir("c") == []
for old, new, code in (
    ("empty", "empty/inside", errno.EINVAL),
    ("c", "empty", errno.ENOTEMPTY),
    ("other", "c", errno.EISDIR),
    ("c", "other", errno.ENOTDIR),
    ("none", "x", errno.ENOENT),
):
    try:
        os.rename(old, new)
    except OSError as error:
        assert error.errno == code, (old, new, error)
    else:
        raise AssertionError((old, new))
# A whiteout is what overlayfs leaves behind: a character device 0:0.
write("w", "w")
assert renameat2("w", "moved", WHITEOUT) == 0
assert read("moved") == "w"
assert os.stat("w").st_rdev == 0 and os.stat("w").st_mode & 0o170000 == 0o020000
# Two names of one file: nothing happens.
os.link("moved", "twin")
os.rename("moved", "twin")
assert os.path.exists("moved") and os.path.exists("twin")
PY
