same "$(stat -c %u:%g file other | xargs)" "1500:1500 100999:101000" "the owners on the host"
