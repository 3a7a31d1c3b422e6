# Nothing but the linked file is left on the host.
same "$(ls -A)" named "files on the host"
same "$(cat named)" "no name yet, and on" "content on the host"
