# Files belong to the guest user who makes them, on both sides.
chmod 777 .
as_user 1000 bash -c 'umask 022; echo x >file; mkdir dir; ln -s file soft; mkfifo fifo; : >dir/inner'
same "$(stat -c '%u:%g' file dir soft fifo dir/inner | sort -u)" 1000:1000 "owner of what a user makes"
setpriv --reuid 1000 --regid 1000 --groups 1000,5000 chgrp 5000 file
same "$(stat -c '%u:%g' file)" 1000:5000 "owner after chgrp to a supplementary group"
refused "chgrp to a foreign group" as_user 1000 chgrp 6000 file
refused "chown by a user" as_user 1000 chown 1001 file
: >by-root
chown 2000:3000 by-root
same "$(stat -c '%u:%g' by-root)" 2000:3000 "owner after chown"
ln -s by-root link
chown -h 7:8 link
same "$(stat -c '%u:%g' link by-root | tr '\n' ' ')" "7:8 2000:3000 " "owner of a symlink and its target"
mkdir -m 700 private
echo secret >private/file
refused "a look into a private directory" as_user 1000 cat private/file
# Group permission by a supplementary group only.
mkdir group
chgrp 5000 group
chmod 770 group
setpriv --reuid 1000 --regid 1000 --groups 5000 touch group/by-member
same "$(stat -c '%u:%g' group/by-member)" 1000:1000 "owner of a member's file"
