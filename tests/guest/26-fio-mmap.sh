# fio writes and reads at random through shared mappings, and verifies all it wrote.
fio --name=mapped --directory=. --bs=4k --ioengine=mmap --rw=randrw --rwmixread=50 --size=1m \
    --verify=crc32c --verify_fatal=1 --numjobs=2 --group_reporting --fallocate=none \
    --output="$SCRATCH/fio.log" || fail "fio, mmap: $(tail -n 5 "$SCRATCH/fio.log")"
