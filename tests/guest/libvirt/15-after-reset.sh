# What the guest wrote before it was reset is there.
same "$(</mnt/t/libvirt/10-both-ways/dir/file)" "from the guest" "a file from before"
