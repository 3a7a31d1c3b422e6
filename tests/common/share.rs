//! What: a directory to serve, beside a canary that nobody may touch.
//!
//! In: nothing. Out: `share/` and `outside/` in one temporary directory, removed when dropped.
//! The canary is compared by names, types, contents, owners, modes, modification and change times.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory that goes away with the value.
#[derive(Debug)]
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new(purpose: &str) -> Self {
        // Relaxed: only uniqueness counts.
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("virtiofsd-test-{}-{number}-{purpose}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("mkdir {path:?}: {error}"));
        TempDir(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What cannot be removed stays in the temporary directory; the test's result stands.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What an object looks like. Any change to it, extended attributes included, moves `changed`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Look {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    changed: (i64, i64),
    links: u64,
    contents: Vec<u8>,
}

/// The state of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TreeState(BTreeMap<PathBuf, Look>);

/// The state of the tree below `root`, itself included.
pub(crate) fn tree_state(root: &Path) -> TreeState {
    let mut looks = BTreeMap::new();
    let mut stack = vec![root.to_path_buf()];
    while let Some(path) = stack.pop() {
        let meta = fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let contents = if meta.is_file() {
            fs::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
        } else if meta.is_symlink() {
            let target = fs::read_link(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            target.into_os_string().into_encoded_bytes()
        } else {
            Vec::new()
        };
        if meta.is_dir() {
            let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            stack.extend(entries.flatten().map(|entry| entry.path()));
        }
        let look = Look {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            links: meta.nlink(),
            contents,
        };
        looks.insert(path, look);
    }
    TreeState(looks)
}

/// A directory to serve and the canary beside it.
#[derive(Debug)]
pub(crate) struct Share {
    base: TempDir,
    outside: TreeState,
}

impl Share {
    pub(crate) fn new() -> Self {
        let base = TempDir::new("share");
        let outside = base.path().join("outside");
        let make = |path: PathBuf, contents: &str| {
            fs::write(&path, contents).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        };
        fs::create_dir(base.path().join("share")).expect("a fresh directory");
        fs::create_dir_all(outside.join("deep/er")).expect("a fresh directory");
        make(outside.join("victim"), "do not touch\n");
        make(outside.join("deep/secret"), "do not read\n");
        std::os::unix::fs::symlink("victim", outside.join("link")).expect("a fresh directory");
        let state = tree_state(&outside);
        Share {
            base,
            outside: state,
        }
    }

    /// The directory that is served.
    pub(crate) fn path(&self) -> PathBuf {
        self.base.path().join("share")
    }

    /// A path in the share.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// The directory that holds the share and the canary.
    pub(crate) fn base(&self) -> &Path {
        self.base.path()
    }

    /// The canary.
    pub(crate) fn outside(&self) -> PathBuf {
        self.base.path().join("outside")
    }

    /// Puts a file into the share from the host's side.
    pub(crate) fn write(&self, name: &str, contents: &[u8]) -> PathBuf {
        let path = self.at(name);
        fs::write(&path, contents).unwrap_or_else(|error| panic!("write {path:?}: {error}"));
        path
    }

    pub(crate) fn mkdir(&self, name: &str) -> PathBuf {
        let path = self.at(name);
        fs::create_dir(&path).unwrap_or_else(|error| panic!("mkdir {path:?}: {error}"));
        path
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        let path = self.at(name);
        fs::read(&path).unwrap_or_else(|error| panic!("read {path:?}: {error}"))
    }

    /// Removes everything in the share.
    pub(crate) fn clear(&self) {
        for name in self
            .path()
            .read_dir()
            .expect("the share is there")
            .flatten()
        {
            let path = name.path();
            let is_dir = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir());
            let removed = if is_dir {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.unwrap_or_else(|error| panic!("remove {path:?}: {error}"));
        }
    }

    /// What the host sees at `name`, without following links.
    pub(crate) fn stat(&self, name: &str) -> fs::Metadata {
        let path = self.at(name);
        fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("stat {path:?}: {error}"))
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        fs::symlink_metadata(self.at(name)).is_ok()
    }

    /// Names in a directory of the share, sorted.
    pub(crate) fn names(&self, directory: &str) -> Vec<String> {
        let path = self.at(directory);
        let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let mut names: Vec<String> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Panics when anything outside the share has changed.
    pub(crate) fn assert_outside_unchanged(&self) {
        let now = tree_state(&self.outside());
        assert_eq!(now, self.outside, "something outside the share has changed");
        let mut beside: Vec<_> = fs::read_dir(self.base())
            .expect("the base directory is there")
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        beside.sort();
        assert_eq!(
            beside,
            ["outside", "share"],
            "something new beside the share"
        );
    }
}
