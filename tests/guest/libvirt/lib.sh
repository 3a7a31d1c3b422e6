# shellcheck shell=bash
# What the tests of scripts/libvirt-tests have in common. Theirs alone are
#   $SHARES   (on the host) the directory that has all shared directories
# The share at /mnt is one of several; the others have a tag each.

# mount_tag TAG: mounts it and makes it the current directory.
mount_tag() {
    mkdir -p /tmp/"$1"
    mount -t virtiofs "$1" /tmp/"$1"
    cd /tmp/"$1"
    same "$(<from-host)" "from the host" "a file of the host"
}
