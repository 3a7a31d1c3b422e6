# Files of the host are read, and the other way round.
same "$(</mnt/from-host)" "from the host" "a file of the host"
printf 'from the guest\n' >file
mkdir dir
mv file dir/
dd if=/dev/urandom of=big bs=64k count=64 status=none
sha256sum big >sum
