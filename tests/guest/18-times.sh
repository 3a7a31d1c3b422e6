# Times: set to the nanosecond, to now, left alone, and moved by changes.
export TZ=UTC
: >file
touch -a -d '2001-02-03 04:05:06.123456789' file
touch -m -d '1969-12-31 23:59:59.5' file
same "$(stat -c %x file)" "2001-02-03 04:05:06.123456789 +0000" "access time"
same "$(stat -c %y file)" "1969-12-31 23:59:59.500000000 +0000" "time before 1970"
ln -s file link
touch -h -d '2002-02-02' link
same "$(stat -c %y link)" "2002-02-02 00:00:00.000000000 +0000" "time of a symlink"
same "$(stat -c %y file)" "1969-12-31 23:59:59.500000000 +0000" "time of its target"
touch -d '2038-01-20' late
same "$(stat -c %Y late)" 2147558400 "time after 2038"
touch file
now=$(date +%s)
(($(stat -c %Y file) >= now - 5 && $(stat -c %Y file) <= now + 5)) || fail "touch did not set the time to now"

touch -d '2001-01-01' file
change=$(stat -c %Z file)
sleep 1.1
echo x >>file
(($(stat -c %Y file) > 978307200)) || fail "writing did not move the time of modification"
(($(stat -c %Z file) > change)) || fail "writing did not move the time of change"
mkdir dir
touch -d '2001-01-01' dir
: >dir/new
(($(stat -c %Y dir) > 978307200)) || fail "a new entry did not move the directory's time"
# Anybody who may write may set to now, only the owner to another time.
chmod 666 late
as_user 1000 touch late
refused "setting another user's times" as_user 1000 touch -d '2001-01-01' late
