# fio writes and reads at random with two jobs, and verifies all it wrote.
common=(--directory=. --bs=4k-64k --ioengine=psync --rw=randrw --rwmixread=50 --size=6m
    --verify=crc32c --verify_fatal=1 --numjobs=2 --group_reporting --fallocate=none
    --output="$SCRATCH/fio.log")
fio --name=mixed "${common[@]}" || fail "fio: $(tail -n 5 "$SCRATCH/fio.log")"
# Once more through shared mappings of the same files.
fio --name=mapped "${common[@]}" --ioengine=mmap --bs=4k --size=1m || fail "fio, mmap: $(tail -n 5 "$SCRATCH/fio.log")"
