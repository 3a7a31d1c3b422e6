cd "$SHARES/options"
same "$(<file)" "from the guest" "a file of the guest"
same "$(getfattr --only-values -n user.colour file)" green "an attribute on the host"
same "$(stat -c %u:%g file)" 1000:1000 "its owner"
