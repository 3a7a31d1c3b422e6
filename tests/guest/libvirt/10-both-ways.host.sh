same "$(<dir/file)" "from the guest" "a file of the guest"
sha256sum --quiet -c sum
