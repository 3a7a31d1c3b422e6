# shellcheck shell=bash
# What scripts/guest-bench measures with: the share, the daemon's CPU time, its
# counters, and the table.
#
# In: SHARE, DAEMON_PID, DAEMON_LOG, VM_DIR; the guest of lib/suite.sh.
# Out: $RUN_DIR/results, lines "SIDE CPUS:QUEUES TASK SECONDS CPU_MS REQUESTS".

# Long enough for the slowest task of an emulated guest on a busy machine.
readonly TASK_LIMIT_S=300

# bench_command ARRAY COMMAND: its words, with the paths put in.
bench_command() {
    local -n words_out=$1
    local command=$2
    [[ $command == *'{socket}'* || $command == *'{share}'* ]] ||
        command+=" --socket-path={socket} --shared-dir={share}"
    command=${command//'{socket}'/$VM_DIR/fs.sock}
    read -r -a words_out <<<"${command//'{share}'/$SHARE}"
}

# bench_share BASE: 20,000 files in a git repository, older than its index, so that
# git believes the index; and an archive of a tenth of them.
bench_share() {
    local dir file number=0 text
    say "making the share below $1 (20,000 files)"
    SHARE=$(mktemp -d "$1/virtiofsd-bench.XXXXXX")
    chmod 755 "$SHARE"
    at_end remove_share
    mkdir "$SHARE/repo"
    printf -v text '%05000d' 0
    for ((dir = 0; dir < 200; dir++)); do
        mkdir "$SHARE/repo/dir-$dir"
        for ((file = 0; file < 100; file++)); do
            number=$((number + 1))
            printf 'file %d %s\n' "$number" "${text::number * 37 % 4000}" >"$SHARE/repo/dir-$dir/file-$file.c"
        done
    done
    find "$SHARE/repo" -exec touch -h -d '2 hours ago' {} +
    bench_git init -q -b main
    bench_git add .
    bench_git -c user.name=bench -c user.email=bench@example.org commit -q -m files
    bench_git gc -q
    bench_git status --porcelain
    tar -C "$SHARE/repo" -cf "$SHARE/tree.tar" dir-{0..19}
}

bench_git() {
    env -u GIT_DIR GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 git -C "$SHARE/repo" -c gc.auto=0 -c maintenance.auto=false "$@"
}

# CPU time of the daemon and all its children so far, in microseconds, in steps of 10,000: nothing
# finer has the time of threads that have ended.
daemon_cpu_us() {
    local sum=0 pid path stat rest pids=("$DAEMON_PID")
    while ((${#pids[@]})); do
        pid=${pids[0]}
        pids=("${pids[@]:1}")
        # Behind the name, which may hold anything: fields 3 and on of proc_pid_stat(5).
        stat=$(<"/proc/$pid/stat") || continue
        read -r -a rest <<<"${stat##*)}"
        sum=$((sum + (rest[11] + rest[12]) * 10000))
        for path in "/proc/$pid/task"/*; do
            read -r -a rest <"$path/children" || true
            pids+=("${rest[@]}")
        done
    done 2>/dev/null
    printf '%d' "$sum"
}

# Whether SIGUSR1 would be a question and not the end.
daemon_counts() {
    local masks
    masks=$(sed -n 's/^Sig\(Cgt\|Blk\):[[:space:]]*//p' "/proc/$DAEMON_PID/status")
    local mask
    for mask in $masks; do
        ((0x$mask & 1 << 9)) && return 0
    done
    return 1
}

# Requests so far by operation, lines "OPERATION COUNT"; nothing from a daemon that
# does not count. FORGET is left out: it comes whenever the guest likes.
daemon_requests() {
    local before size tries
    daemon_counts || return 0
    before=$(stat -c %s "$DAEMON_LOG")
    kill -USR1 "$DAEMON_PID"
    # The answer is complete when it has begun and nothing more comes.
    for ((tries = 0; tries < 50; tries++)); do
        size=$(stat -c %s "$DAEMON_LOG")
        sleep 0.1
        ((size == before || size != $(stat -c %s "$DAEMON_LOG"))) || break
    done
    tail -c +$((before + 1)) "$DAEMON_LOG" | awk '
        !/counters: / { next }
        { sub(/^.*counters: /, "") }
        /^operation requests errors bytes/ { table = 1; next }
        table && /^[A-Z0-9_]+ [0-9]+ [0-9]+ [0-9]+ / && $1 !~ /FORGET/ { print $1, $2 }'
}

# bench_task KEY TASK: prepares and does it, and books what it took.
bench_task() {
    local key=$1 task=$2 before after line seconds='' count
    ask "$TASK_LIMIT_S" bench "prepare_$task" "$TASK_LIMIT_S" || return 1
    daemon_requests >"$RUN_DIR/requests.before"
    before=$(daemon_cpu_us)
    tell bench "task_$task" "$TASK_LIMIT_S" || return 1
    while control_line "$TASK_LIMIT_S"; do
        line=$CONTROL_LINE
        case $line in
        "| seconds "*) seconds=${line##* } ;;
        "| "*) note "${line#| }" ;;
        "done 0") break ;;
        *) return 1 ;;
        esac
    done
    [[ -n $seconds ]] || return 1
    after=$(daemon_cpu_us)
    daemon_requests >"$RUN_DIR/requests.after"
    awk 'NR == FNR { before[$1] = $2; next } $2 > before[$1] { print $2 - before[$1], $1 }' \
        "$RUN_DIR/requests.before" "$RUN_DIR/requests.after" | sort -rn >"$RUN_DIR/requests"
    count=$(awk '{ sum += $1 } END { print NR ? sum : "-" }' "$RUN_DIR/requests")
    printf '%s %s %d %s\n' "$key" "$seconds" $(((after - before) / 1000)) "$count" | tee -a "$RUN_DIR/results" >&2
    [[ ! -s $RUN_DIR/requests ]] || note "$(awk '{ printf "%s%s %s", separator, $2, $1; separator = ", " }' "$RUN_DIR/requests")"
}

# bench_report GUESTS TASK...: medians and ratios. Ratios above 1 speak for a.
bench_report() {
    local guests=$1 guest task
    shift
    printf '%-8s %-18s %9s %9s %9s %9s %9s %9s %8s %8s\n' guest task "a s" "a cpu ms" "a reqs" "b s" "b cpu ms" "b reqs" \
        "s b/a" "cpu b/a"
    for guest in $guests; do
        for task; do
            awk -v guest="$guest" -v task="$task" '
                $2 == guest && $3 == task {
                    n[$1]++
                    for (i = 0; i < 3; i++) all[$1, i, n[$1]] = $(4 + i)
                }
                function median(side, what,    i, j, v, t, m) {
                    m = n[side]
                    if (!m || all[side, what, 1] == "-") return "-"
                    for (i = 1; i <= m; i++) v[i] = all[side, what, i] + 0
                    for (i = 2; i <= m; i++) for (j = i; j > 1 && v[j - 1] > v[j]; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
                    return m % 2 ? v[(m + 1) / 2] : (v[m / 2] + v[m / 2 + 1]) / 2
                }
                function number(x, digits) { return x == "-" ? x : sprintf("%." digits "f", x) }
                function ratio(x, y) { return x == "-" || y == "-" || y == 0 ? "-" : sprintf("%.2f", x / y) }
                END {
                    for (i = 0; i < 3; i++) { a[i] = median("a", i); b[i] = median("b", i) }
                    printf "%-8s %-18s %9s %9s %9s %9s %9s %9s %8s %8s\n", guest, task,
                        number(a[0], 3), number(a[1], 0), number(a[2], 0),
                        number(b[0], 3), number(b[1], 0), number(b[2], 0),
                        ratio(b[0], a[0]), ratio(b[1], a[1])
                }' "$RUN_DIR/results"
        done
    done
}
