# The host has the same times.
export TZ=UTC
same "$(stat -c %y link)" "2002-02-02 00:00:00.000000000 +0000" "time of the symlink on the host"
