# shellcheck shell=bash
# Tasks of scripts/guest-bench: for each a function that is timed, and one that
# makes ready what it needs. The host has put there:
#   /mnt/repo      a git repository with 20,000 files in 200 directories
#   /mnt/tree.tar  a tenth of them
# Each task prints "seconds N"; the host counts requests and CPU time meanwhile.
export GIT_CONFIG_NOSYSTEM=1 GIT_OPTIONAL_LOCKS=0

# What the guest knows of the share, it forgets.
forget_all() {
    sync
    echo 3 >/proc/sys/vm/drop_caches
}

# seconds COMMAND...
seconds() {
    local begin=$EPOCHREALTIME micros
    "$@" >/tmp/bench.log 2>&1 || { cat /tmp/bench.log; return 1; }
    micros=$((${EPOCHREALTIME/./} - ${begin/./}))
    printf 'seconds %d.%06d\n' $((micros / 1000000)) $((micros % 1000000))
}

git_status() {
    git -C /mnt/repo -c safe.directory='*' status --porcelain >/tmp/status || return 1
    [[ ! -s /tmp/status ]] || { head -n 5 /tmp/status; return 1; }
}
# A tenth of the files.
read_all() { find /mnt/repo/dir-{0..19} -type f -print0 | xargs -0 cat | wc -c; }

prepare_git_status() { forget_all; }
task_git_status() { seconds git_status; }

# Names and attributes are known, but old.
prepare_git_status_again() { git_status && sleep 2; }
task_git_status_again() { seconds git_status; }

prepare_untar() {
    rm -rf /mnt/tree
    mkdir /mnt/tree
    cp /mnt/tree.tar /tmp/tree.tar
}
task_untar() { seconds tar -C /mnt/tree -xf /tmp/tree.tar; }

prepare_read_small() { forget_all; }
task_read_small() { seconds read_all; }

prepare_rm_rf() {
    [[ -d /mnt/tree/dir-1 ]] || { prepare_untar && tar -C /mnt/tree -xf /tmp/tree.tar; }
    forget_all
}
task_rm_rf() { seconds rm -rf /mnt/tree; }

# fio DIRECTION BLOCK MIB: past the guest's page cache, by each processor. Its own
# clock counts: it takes long to start.
fio_run() {
    local jobs terse
    jobs=$(nproc)
    # shellcheck disable=SC2016 # fio expands it
    terse=$(fio --name=bench --directory=/mnt/fio --filename_format='file.$jobnum' --rw="$1" --bs="$2" \
        --size=32m --io_size="$(($3 / jobs))m" --numjobs="$jobs" --group_reporting --direct=1 \
        --ioengine=psync --fallocate=none --output-format=terse --terse-version=3 2>/tmp/bench.log) ||
        { cat /tmp/bench.log; return 1; }
    # Milliseconds of reading and of writing.
    awk -F';' '/^3;/ { printf "seconds %.3f\n", ($9 + $50) / 1000; found = 1 } END { exit !found }' <<<"$terse"
}
prepare_fio() {
    local job
    mkdir -p /mnt/fio
    for ((job = 0; job < $(nproc); job++)); do
        [[ -s /mnt/fio/file.$job ]] || head -c 32M /dev/zero >"/mnt/fio/file.$job"
    done
    forget_all
}
prepare_rand_read_4k() { prepare_fio; }
task_rand_read_4k() { fio_run randread 4k 64; }
prepare_rand_write_4k() { prepare_fio; }
task_rand_write_4k() { fio_run randwrite 4k 64; }
prepare_read_1m() { prepare_fio; }
task_read_1m() { fio_run read 1m 2048; }
prepare_write_1m() { prepare_fio; }
task_write_1m() { fio_run write 1m 2048; }
