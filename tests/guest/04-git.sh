# A git repository lives on the share.
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b GIT_CONFIG_NOSYSTEM=1
git init -q -b main repo
cd repo
for n in {1..60}; do
    mkdir -p "dir$((n % 6))"
    seq "$n" $((n + 200)) >"dir$((n % 6))/file$n"
done
git add .
git commit -q -m first
git switch -q -c side
git mv dir1 moved
sed -i s/100/hundred/ dir2/*
git commit -q -a -m second
git switch -q main
git merge -q --no-edit side
git switch -q main
same "$(git status --porcelain)" "" "git status"
git fsck --strict --full >"$SCRATCH/fsck" 2>&1 || fail "fsck: $(cat "$SCRATCH/fsck")"
git gc -q --prune=now
git fsck --strict --full >"$SCRATCH/fsck" 2>&1 || fail "fsck after gc: $(cat "$SCRATCH/fsck")"
same "$(git log --oneline | wc -l)" 2 "commits"
git clone -q . ../clone
same "$(git -C ../clone rev-parse HEAD)" "$(git rev-parse HEAD)" "head of the clone"
diff -r --exclude=.git . ../clone
