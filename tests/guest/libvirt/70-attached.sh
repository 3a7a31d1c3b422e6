# A share that came while the guest ran; it is given up again.
# shellcheck source=/dev/null
. /run/payload/tests/libvirt/lib.sh
mount_tag hot
printf 'from the guest\n' >file
cd /
umount /tmp/hot
