# A share whose daemon was started with one list of options, -o, with locks.
# shellcheck source=/dev/null
. /run/payload/tests/libvirt/lib.sh
mount_tag old
printf 'from the guest\n' >file
setfattr -n user.colour -v green file
flock -n file true
