# Block sizes, total blocks, total inodes and the longest name are the same.
same "$(cat numbers)" "$(stat -f -c '%s %S %b %c %l' .)" "statfs"
