# fio writes and reads at random with two jobs, and verifies all it wrote.
fio --name=mixed --directory=. --bs=4k-64k --ioengine=psync --rw=randrw --rwmixread=50 --size=6m \
    --verify=crc32c --verify_fatal=1 --numjobs=2 --group_reporting --fallocate=none \
    --output="$SCRATCH/fio.log" || fail "fio: $(tail -n 5 "$SCRATCH/fio.log")"
