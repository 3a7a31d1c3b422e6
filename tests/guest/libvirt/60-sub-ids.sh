# Root of the guest is the user of the session; all others are his subordinate ids.
same "$(stat -c %u:%g /mnt/from-host)" 0:0 "the owner of a file of user 1500"
: >file
: >other
chown 1000:1001 other
same "$(stat -c %u:%g file other | xargs)" "0:0 1000:1001" "the owners in the guest"
