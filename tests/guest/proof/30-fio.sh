# fio writes at random, with several block sizes, and reads all of it again to
# verify its check sums: buffered, direct, mapped, and several jobs in one file.
# verify NAME OPTION...
verify() {
    local name=$1
    shift
    fio --name="$name" --directory=. --size=8m --verify=crc32c --verify_fatal=1 --verify_backlog=512 \
        --randseed=7 --group_reporting --fallocate=none --output="$SCRATCH/$name.log" "$@" ||
        fail "fio, $name: $(grep -m 3 -E 'verify|error|err=' "$SCRATCH/$name.log")"
}

verify buffered --ioengine=psync --rw=randwrite --bsrange=512-96k --bs_unaligned=1 --numjobs=2
verify synced --ioengine=psync --rw=randrw --bs=4k-64k --fsync=32 --size=4m
verify vectored --ioengine=pvsync --rw=randwrite --bs=16k
verify direct --ioengine=psync --rw=randwrite --bs=4k-128k --direct=1 --numjobs=2
verify direct-deep --ioengine=libaio --iodepth=16 --rw=randrw --bs=4k-64k --direct=1
# Direct and buffered on one file, each job with a part of its own.
verify shared --ioengine=psync --rw=randwrite --bs=4k --filename=one-file --numjobs=4 --size=2m --offset_increment=2m
[[ $DAEMON_OPTIONS == *--no-allow-mmap* ]] || verify mapped --ioengine=mmap --rw=randwrite --bs=4k --numjobs=2 --size=2m
