# The host has the same kinds of files.
same "$(stat -c '%F %a' fifo)" "fifo 640" "FIFO on the host"
same "$(stat -c '%F %t:%T' null)" "character special file 1:3" "device on the host"
same "$(stat -c '%F %t:%T' block)" "block special file 7:12c" "block device on the host"
same "$(stat -c '%F' socket)" socket "socket on the host"
