# Hard links and symbolic links.
echo content >file
ln file hard
same "$(stat -c %i file)" "$(stat -c %i hard)" "inode number of the hard link"
same "$(stat -c %h file)" 2 "link count"
echo more >>hard
same "$(cat file)" "$(printf 'content\nmore')" "content by the other name"
rm file
same "$(stat -c %h hard)" 1 "link count after unlink"
ln -s hard soft
same "$(cat soft)" "$(cat hard)" "content through the symlink"
long=$(printf '%04000d' 0)
ln -s "$long" long
same "$(readlink long)" "$long" "target of 4,000 bytes"
ln -s /etc/hostname absolute
same "$(readlink absolute)" /etc/hostname "absolute target"
ln -s soft chain
ln chain chain-hard
same "$(readlink chain-hard)" soft "hard link to a symlink"
mkdir sub
ln hard sub/deep
refused "a hard link to a directory" ln sub sub-link
refused "a link over an existing name" ln hard soft
for n in {1..100}; do ln hard "sub/$n"; done
same "$(stat -c %h hard)" 102 "link count after 100 links"
mkdir dirs
for n in 1 2 3; do mkdir "dirs/$n"; done
stat -c %h dirs >nlink-of-dirs
