# Mounts and unmounts twice; what was written before is there afterwards.
cd /
umount /mnt
for round in 1 2; do
    [[ ! -e /mnt/t ]] || fail "still mounted"
    mount -t virtiofs share /mnt
    grep -q ' /mnt virtiofs ' /proc/mounts || fail "not a virtiofs mount"
    if ((round > 1)); then
        same "$(cat "$WORK/kept")" "round $((round - 1))" "content after mounting again"
    fi
    echo "round $round" >"$WORK/kept"
    umount /mnt
done
mount -t virtiofs share /mnt

# The same share a second time, at another place.
mkdir "$SCRATCH/other"
mount -t virtiofs share "$SCRATCH/other"
same "$(cat "$SCRATCH/other/t/01-mount/kept")" "round 2" "content by the second mount"
umount "$SCRATCH/other"
refused "a tag that nobody has" mount -t virtiofs no-such-tag "$SCRATCH/other"
