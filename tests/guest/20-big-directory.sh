# 5,000 entries: each is listed once, also after rewinding and seeking.
python3 - <<'PY'
import ctypes, os

COUNT = 5000
os.mkdir("big")
for n in range(COUNT):
    os.close(os.open(f"big/entry-{n:05}-{'x' * (n % 60)}", os.O_CREAT | os.O_WRONLY, 0o600))
want = {f"entry-{n:05}-{'x' * (n % 60)}" for n in range(COUNT)}
assert set(os.listdir("big")) == want
# With the attributes of each, as ls -l does it.
with os.scandir("big") as entries:
    assert sum(entry.stat().st_size == 0 for entry in entries) == COUNT

libc = ctypes.CDLL(None, use_errno=True)
libc.opendir.restype = ctypes.c_void_p
libc.readdir.restype = ctypes.c_void_p
libc.telldir.restype = ctypes.c_long
for name in ("readdir", "telldir", "rewinddir", "closedir"):
    getattr(libc, name).argtypes = [ctypes.c_void_p]
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
stream = libc.opendir(b"big")
NAME_OFFSET = 19  # of d_name in struct dirent

def step():
    entry = libc.readdir(stream)
    return ctypes.string_at(entry + NAME_OFFSET).decode() if entry else None

def rest():
    names = []
    while (name := step()) is not None:
        names.append(name)
    return names

first = rest()
assert len(first) == COUNT + 2 and set(first) == want | {".", ".."}
libc.rewinddir(stream)
assert rest() == first, "another order after rewinding"
# From each of some places, the same entries follow.
libc.rewinddir(stream)
places = {}
for index in range(len(first)):
    if index % 500 == 7:
        places[index] = libc.telldir(stream)
    step()
for index in sorted(places, reverse=True):
    libc.seekdir(stream, places[index])
    assert step() == first[index], f"other entry after seeking to {index}"
# Entries removed meanwhile do not make others vanish.
libc.rewinddir(stream)
seen = [step() for _ in range(1000)]
for name in seen[10:500]:
    if name not in (".", ".."):
        os.unlink(f"big/{name}")
after = rest()
assert set(seen) | set(after) == set(first), "entries were skipped"
assert len(seen) + len(after) == len(first), "entries came twice"
libc.closedir(stream)
PY
rm -r big
[[ ! -e big ]] || fail "the directory is still there"
