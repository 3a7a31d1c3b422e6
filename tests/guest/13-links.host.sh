# Links on the host are as the guest made them.
same "$(stat -c %h hard)" 102 "link count on the host"
same "$(readlink absolute)" /etc/hostname "absolute target on the host"
same "$(readlink chain-hard)" soft "symlink on the host"
same "$(stat -c %h dirs)" "$(cat nlink-of-dirs)" "link count of a directory"
