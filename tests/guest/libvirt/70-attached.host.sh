same "$(<"$SHARES/hot/file")" "from the guest" "a file of the guest"
