# A share whose ids are mapped to those from 100000 on.
# shellcheck source=/dev/null
. /run/payload/tests/libvirt/lib.sh
mount_tag idmap
same "$(stat -c %u:%g from-host)" 0:0 "the owner of a file of user 100000"
printf 'from the guest\n' >file
: >other
chown 1000:1001 other
same "$(stat -c %u:%g file other | xargs)" "0:0 1000:1001" "the owners in the guest"
