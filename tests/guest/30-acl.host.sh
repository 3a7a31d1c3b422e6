# The host has the same lists, where it has a tool to look.
command -v getfacl >/dev/null || exit 0
[[ -d dir ]] || exit 0
same "$(getfacl -pcnd dir | grep '^user:1000')" "user:1000:rwx" "default list on the host"
same "$(stat -c %a dir/file)" 660 "mode on the host"
