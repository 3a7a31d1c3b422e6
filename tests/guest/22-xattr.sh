# Extended attributes (the daemon runs with --xattr).
: >file
mkdir dir
for name in file dir; do
    setfattr -n user.one -v first "$name"
    setfattr -n user.two -v 0x00ff00 "$name"
    setfattr -n user.empty "$name"
    same "$(getfattr --only-values -n user.one "$name")" first "value"
    same "$(getfattr -e hex -n user.two "$name" | grep two)" "user.two=0x00ff00" "binary value"
    same "$(getfattr "$name" | grep -c '^user\.')" 3 "names in the list"
    setfattr -n user.one -v changed "$name"
    setfattr -x user.two "$name"
    same "$(getfattr --only-values -n user.one "$name")" changed "changed value"
    refused "reading a removed attribute" getfattr -n user.two "$name"
done
python3 - <<'PY'
import os, errno
os.setxattr("file", "user.made", b"1", os.XATTR_CREATE)
for flag, name, code in ((os.XATTR_CREATE, "user.made", errno.EEXIST), (os.XATTR_REPLACE, "user.none", errno.ENODATA)):
    try:
        os.setxattr("file", name, b"2", flag)
    except OSError as error:
        assert error.errno == code, error
    else:
        raise AssertionError(name)
value = bytes(range(256)) * 8
os.setxattr("file", "user.big", value)
assert os.getxattr("file", "user.big") == value
os.removexattr("file", "user.big")
fd = os.open("file", os.O_RDWR)
os.setxattr(fd, "user.fd", b"by descriptor")
assert os.getxattr("file", "user.fd") == b"by descriptor"
PY
