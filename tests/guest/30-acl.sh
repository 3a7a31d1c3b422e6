# Access control lists (only with --posix-acl): who gets in, what new files get,
# and that the mode follows.
: >probe
if ! setfacl -m u:1000:r probe 2>/dev/null; then
    echo "skipped: the daemon runs without --posix-acl, or the share keeps no lists"
    exit 0
fi
chmod 755 .

echo secret >file
chmod 600 file
refused "reading without a list" as_user 1000 cat file
setfacl -m u:1000:r file
same "$(as_user 1000 cat file)" secret "what user 1000 reads"
refused "writing with a list for reading" as_user 1000 bash -c 'echo x >file'
refused "reading as user 1001" as_user 1001 cat file
same "$(stat -c %a file)" 640 "mode with the list's mask"
chmod g= file
refused "reading with an empty mask" as_user 1000 cat file
setfacl -b file
same "$(getfacl -pc file | grep -c user:)" 1 "entries for users after all were removed"

# A default list is inherited, and counts instead of the umask.
mkdir dir
setfacl -d -m u:1000:rwx,g::rx,o::- dir
(
    umask 077
    : >dir/file
    mkdir dir/sub
    mkdir plain
    : >plain/file
)
same "$(stat -c %a dir/file)" 660 "mode of a file under a default list"
same "$(stat -c %a dir/sub)" 770 "mode of a directory under a default list"
same "$(stat -c %a plain/file)" 600 "mode of a file under the umask"
same "$(getfacl -pcd dir/sub)" "$(getfacl -pcd dir)" "inherited default list"
same "$(as_user 1000 bash -c 'echo mine >dir/file && cat dir/file')" mine "what user 1000 wrote"
chmod 777 dir/sub
as_user 1000 bash -c 'umask 077; : >dir/sub/of-1000'
same "$(stat -c '%u %a' dir/sub/of-1000)" "1000 660" "owner and mode of another user's file"

# Set-group-id does not outlive a list from outside the group.
: >tool
chown 1000:2000 tool
chmod 2755 tool
as_user 1000 setfacl -m u:1001:rx tool
[[ ! -g tool ]] || fail "set-group-id outlived the list"

# git and tar carry lists and modes through.
tar --acls -cf "$SCRATCH/dir.tar" dir
mkdir copy
tar --acls -xf "$SCRATCH/dir.tar" -C copy
same "$(getfacl -pc copy/dir/file)" "$(getfacl -pc dir/file)" "list after tar"
