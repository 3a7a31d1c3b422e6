//! What: what lies on a share, and where each slot finds its part of it.
//!
//! In: an empty directory. Out: for each slot a directory with files, a link, a file that is
//! renamed, and a small tree; one long directory for all. A [`Place`] has the node numbers of a
//! slot's part, which were looked up once and are never forgotten.

use std::fs;
use std::path::Path;

use crate::common::client::Client;
use crate::common::sys;

/// Empty files in the directory of each slot.
pub(crate) const FILES: usize = 64;
/// Bytes of the file of each slot that has contents.
pub(crate) const FILE_LEN: usize = 4 << 20;
/// Its name.
pub(crate) const FULL: &str = "full";
/// Entries of the long directory.
pub(crate) const LONG_ENTRIES: usize = 10_000;
/// Its name.
pub(crate) const LONG: &str = "long";
/// Small directories in the tree of each slot.
pub(crate) const TREE_DIRS: usize = 8;
/// Files in each.
pub(crate) const TREE_FILES: usize = 16;
/// The file that is renamed back and forth.
pub(crate) const MOVING: &str = "moving";
/// What each file of a slot has.
pub(crate) const XATTR: &str = "user.bench";

/// Where one slot works.
#[derive(Debug)]
pub(crate) struct Place {
    /// Number of the slot, over all queues.
    pub(crate) slot: usize,
    pub(crate) dir: u64,
    pub(crate) files: Vec<u64>,
    pub(crate) full: u64,
    pub(crate) link: u64,
    pub(crate) long: u64,
    pub(crate) tree: Vec<u64>,
}

/// `file-N`, for both kinds of directories.
pub(crate) fn file_name(number: usize) -> &'static str {
    static NAMES: std::sync::LazyLock<Vec<String>> =
        std::sync::LazyLock::new(|| (0..FILES).map(|number| format!("file-{number}")).collect());
    &NAMES[number % FILES]
}

impl Place {
    pub(crate) fn find(client: &mut Client, slot: usize) -> Self {
        let dir = client.node(&format!("slot-{slot}"));
        let mut find = |parent: u64, name: &str| {
            let found = client.lookup(parent, name);
            found.expect("the share was filled").node
        };
        // A guest knows what it renames, and some daemons count on that.
        find(dir, MOVING);
        Place {
            slot,
            dir,
            files: (0..FILES)
                .map(|number| find(dir, file_name(number)))
                .collect(),
            full: find(dir, FULL),
            link: find(dir, "link"),
            long: find(1, LONG),
            tree: (0..TREE_DIRS)
                .map(|number| find(dir, &format!("tree-{number}")))
                .collect(),
        }
    }
}

/// Makes the long directory and the parts of `slots` slots.
pub(crate) fn fill(share: &Path, slots: usize) {
    let touch = |path: &Path| fs::write(path, "").expect("an empty file");
    fs::create_dir_all(share.join(LONG)).expect("a directory");
    for number in 0..LONG_ENTRIES {
        touch(&share.join(LONG).join(format!("entry-{number}")));
    }
    let contents = vec![7; FILE_LEN];
    for slot in 0..slots {
        let dir = share.join(format!("slot-{slot}"));
        fs::create_dir_all(&dir).expect("a directory");
        for number in 0..FILES {
            let path = dir.join(file_name(number));
            touch(&path);
            sys::set_xattr(&path, c"user.bench", b"some value").expect("an attribute");
        }
        fs::write(dir.join(FULL), &contents).expect("a file");
        touch(&dir.join(MOVING));
        std::os::unix::fs::symlink("target", dir.join("link")).expect("a link");
        for number in 0..TREE_DIRS {
            let small = dir.join(format!("tree-{number}"));
            fs::create_dir(&small).expect("a directory");
            for number in 0..TREE_FILES {
                touch(&small.join(file_name(number)));
            }
        }
    }
}
