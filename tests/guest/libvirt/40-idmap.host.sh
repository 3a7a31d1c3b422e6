cd "$SHARES/idmap"
same "$(<file)" "from the guest" "a file of the guest"
same "$(stat -c %u:%g file other | xargs)" "100000:100000 101000:101001" "the owners on the host"
rm file other
