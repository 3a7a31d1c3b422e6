# The host sees the same owners.
same "$(stat -c '%u:%g' dir soft fifo dir/inner group/by-member | sort -u)" 1000:1000 "owner on the host"
same "$(stat -c '%u:%g' file by-root link | tr '\n' ' ')" "1000:5000 2000:3000 7:8 " "changed owners on the host"
