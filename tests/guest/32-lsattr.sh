# Inode flags: what lsattr and chattr say in the guest is what the host has.
: >file
mkdir dir
flags() { lsattr -d "$1" | cut -d ' ' -f 1; }
if ! flags file >/dev/null; then
    echo "skipped: the file system of the share has no inode flags"
    exit 0
fi
for name in file dir; do
    before=$(flags "$name")
    chattr +d "$name"
    [[ $(flags "$name") == *d* ]] || fail "$name has no flag d: $(flags "$name")"
    chattr -d "$name"
    same "$(flags "$name")" "$before" "flags of $name"
    chattr +A "$name"
done
# The guest's kernel refuses others, whatever the daemon would say.
chmod 777 .
refused "flags of another user's file" as_user 1000 chattr +d file
# Only with --allow-immutable; without, an attempt must leave the file as it is.
if chattr +i file 2>/dev/null; then
    refused "writing to an immutable file" bash -c 'echo x >>file'
    chattr -i file
fi
echo x >>file
same "$(lsattr -d file | grep -c -- i-)" 0 "immutable files"
