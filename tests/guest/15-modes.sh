# umask, setgid directories, and the bits that a change of content takes away.
(umask 027 && : >file.027 && mkdir dir.027)
(umask 000 && : >file.000 && mkdir dir.000)
same "$(stat -c %a file.027 dir.027 file.000 dir.000 | tr '\n' ' ')" "640 750 666 777 " "modes under umask"

mkdir shared
chgrp 4000 shared
chmod 2775 shared
: >shared/file
mkdir shared/sub
same "$(stat -c '%g' shared/file)" 4000 "group of a file in a setgid directory"
same "$(stat -c '%g %A' shared/sub)" "4000 drwxr-sr-x" "a directory in a setgid directory"
chmod 2777 shared
as_user 1000 bash -c 'umask 022; : >shared/by-user; mkdir shared/dir-by-user'
same "$(stat -c '%u %g' shared/by-user)" "1000 4000" "owner of a user's file there"
same "$(stat -c '%u %g %A' shared/dir-by-user)" "1000 4000 drwxr-sr-x" "a user's directory there"

# Writing takes setuid and setgid away, unless root writes.
: >suid
chown 1000:1000 suid
chmod 6777 suid
as_user 1000 bash -c 'echo x >suid'
same "$(stat -c %a suid)" 777 "mode after a user wrote"
chmod 6777 suid
chown 1001 suid
same "$(stat -c %a suid)" 777 "mode after chown"
chmod 0 file.000
refused "reading without permission" as_user 1000 cat file.000
refused "chmod of another user's file" as_user 1000 chmod 777 file.027
mkdir -m 1777 sticky
as_user 1000 touch sticky/mine
refused "removing another user's file from a sticky directory" as_user 1001 rm -f sticky/mine
as_user 1000 rm sticky/mine
