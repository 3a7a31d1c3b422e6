# The host has holes where the guest left them.
same "$(stat -c %s sparse)" $((17 << 20)) "size on the host"
(($(stat -c '%b * %B' copy) < 2 << 20)) || fail "the copy is not sparse on the host"
