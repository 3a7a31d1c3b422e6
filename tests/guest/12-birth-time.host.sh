# The guest saw the host's own birth times, to the nanosecond.
export TZ=UTC
for name in file dir link; do printf '%s %s\n' "$name" "$(stat -c %w "$name")"; done | diff - births
