# A share that the domain says is read-only.
# shellcheck source=/dev/null
. /run/payload/tests/libvirt/lib.sh
mount_tag readonly
refused "writing" touch file
refused "removing" rm from-host
