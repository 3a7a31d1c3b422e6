# The host has the same 2,000 files.
(cd in && sha256sum --quiet -c ../sums)
same "$(find in -type f | wc -l)" 2000 "files on the host"
same "$(stat -c '%a' in/01/sub/00)" 4755 "mode on the host"
same "$(TZ=UTC stat -c '%y' in/02/sub/00)" "2001-02-03 04:05:06.789012345 +0000" "time on the host"
