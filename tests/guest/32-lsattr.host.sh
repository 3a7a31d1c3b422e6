# The flag that the guest has set is there.
for name in file dir; do
    if flags=$(lsattr -d "$name" 2>/dev/null); then
        [[ ${flags%% *} == *A* ]] || fail "$name has no flag A on the host: $flags"
    fi
done
