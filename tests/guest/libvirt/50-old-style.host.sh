cd "$SHARES/old,style"
same "$(<file)" "from the guest" "a file of the guest"
same "$(getfattr --only-values -n user.colour file)" green "an attribute on the host"
