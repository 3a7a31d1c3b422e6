# A share with cache, attributes, threads, a limit of descriptors, and a chroot.
# shellcheck source=/dev/null
. /run/payload/tests/libvirt/lib.sh
mount_tag options
printf 'from the guest\n' >file
setfattr -n user.colour -v green file
same "$(getfattr --only-values -n user.colour file)" green "an attribute"
chown 1000:1000 file
