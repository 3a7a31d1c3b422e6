# All request queues that were asked for are there, and each of them works.
driver_queues=$(grep -c 'virtio[0-9]*-requests\.' /proc/interrupts || true)
same "$driver_queues" "$QUEUES" "request queues in /proc/interrupts"
# Linux 6.12 shows which processor uses which queue; number 0 is the high-priority
# queue.
for mqs in /sys/fs/virtiofs/*/mqs; do
    [[ -d $mqs ]] || continue
    same "$(find "$mqs" -mindepth 1 -maxdepth 1 -type d | wc -l)" $((QUEUES + 1)) "queues in sysfs"
done

requests() { awk -v queue="requests.$1\$" '$NF ~ queue { for (i = 2; i <= NF && $i ~ /^[0-9]+$/; i++) n += $i } END { print n + 0 }' /proc/interrupts; }
declare -a before
for ((queue = 0; queue < QUEUES; queue++)); do before[queue]=$(requests "$queue"); done
for ((cpu = 0; cpu < $(nproc); cpu++)); do
    # Enough for an interrupt, whatever is suppressed meanwhile.
    # shellcheck disable=SC2016 # the inner shell expands it
    taskset -c "$cpu" bash -c 'for n in {1..50}; do echo "$0 $n" >"file.$0.$n"; done; sync -f .' "$cpu"
done
for ((queue = 0; queue < QUEUES; queue++)); do
    (($(requests "$queue") > before[queue])) || fail "request queue $queue was not used"
done
for ((cpu = 0; cpu < $(nproc); cpu++)); do
    same "$(cat file."$cpu".50)" "$cpu 50" "content written by processor $cpu"
done
