# The host reads what was written through the mapping.
same "$(dd if=mapped bs=1 skip=4096 count=8 status=none)" by-write "bytes on the host"
same "$(dd if=mapped bs=1 skip=12288 count=8 status=none)" by-child "bytes on the host"
same "$(dd if=mapped bs=1 skip=1044480 count=8 status=none)" 01044480 "last page on the host"
same "$(head -c 1 private)" a "private mapping on the host"
