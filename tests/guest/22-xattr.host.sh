# The host sees the attributes, where it has a tool to look.
command -v getfattr >/dev/null || exit 0
same "$(getfattr --only-values -n user.one file)" changed "value on the host"
same "$(getfattr --only-values -n user.fd file)" "by descriptor" "value on the host"
