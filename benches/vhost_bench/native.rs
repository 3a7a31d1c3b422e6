//! What: the work of each test by direct system calls: the floor.
//!
//! In: a filled share. Out: for each test a function that does one operation, with descriptors of
//! the directories and names that were made before, as a daemon has them. Files and buffers are as
//! many as the slots of the run, so that caches hold as much of them as they do for a daemon.

use std::ffi::{CStr, CString};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use crate::common::u64_of;

use super::driver::Slots;
use super::host::{self, Payload};
use super::places::{FILES, FULL, LONG, TREE_DIRS, TREE_FILES, XATTR, file_name};
use super::tests::{LISTING_ROOM, offset};

/// What one slot has.
#[derive(Debug)]
struct Slot {
    dir: File,
    full: File,
    files: Vec<File>,
    buffer: Payload,
}

/// See the module head.
#[derive(Debug)]
pub(crate) struct Native {
    slots: Vec<Slot>,
    share: File,
    names: Vec<CString>,
    tree_names: Vec<CString>,
    long: CString,
    xattr: CString,
    listing: Vec<u8>,
}

fn c_string(text: &str) -> CString {
    CString::new(text).expect("no NUL in a name")
}

impl Native {
    /// Works with the first of `memory`'s slots, as many as given.
    pub(crate) fn new(share: &Path, slots: usize, memory: &Slots) -> Self {
        let open = |path: &Path| File::open(path).expect("the share was filled");
        let slot = |number: usize| {
            let path = share.join(format!("slot-{number}"));
            let full = OpenOptions::new()
                .read(true)
                .write(true)
                .open(path.join(FULL));
            Slot {
                dir: open(&path),
                full: full.expect("the share was filled"),
                files: (0..FILES)
                    .map(|number| open(&path.join(file_name(number))))
                    .collect(),
                buffer: Payload::new(memory, number),
            }
        };
        Native {
            slots: (0..slots).map(slot).collect(),
            share: open(share),
            names: (0..FILES)
                .map(|number| c_string(file_name(number)))
                .collect(),
            tree_names: (0..TREE_DIRS)
                .map(|number| c_string(&format!("tree-{number}")))
                .collect(),
            long: c_string(LONG),
            xattr: c_string(XATTR),
            listing: vec![0; LISTING_ROOM],
        }
    }

    fn slot(&self, turn: usize) -> &Slot {
        &self.slots[turn % self.slots.len()]
    }

    fn dir(&self, turn: usize) -> BorrowedFd<'_> {
        self.slot(turn).dir.as_fd()
    }

    /// Which file a turn is about, as each slot counts for itself.
    fn round(&self, turn: usize) -> usize {
        turn / self.slots.len()
    }

    fn name(&self, turn: usize) -> &CStr {
        &self.names[self.round(turn) % FILES]
    }

    fn file(&self, turn: usize) -> BorrowedFd<'_> {
        self.slot(turn).files[self.round(turn) % FILES].as_fd()
    }

    /// One cached read at a place that depends on `turn`.
    pub(crate) fn read(&mut self, turn: usize, len: usize) -> u64 {
        let (slot, round) = (turn % self.slots.len(), self.round(turn));
        let Slot { full, buffer, .. } = &self.slots[slot];
        host::pread(full.as_fd(), buffer, len, offset(round, slot, len));
        1
    }

    /// One write, the same way.
    pub(crate) fn write(&mut self, turn: usize, len: usize) -> u64 {
        let (slot, round) = (turn % self.slots.len(), self.round(turn));
        let Slot { full, buffer, .. } = &self.slots[slot];
        host::pwrite(full.as_fd(), buffer, len, offset(round, slot, len));
        1
    }

    /// Lists a directory with the attributes of all entries; returns how many there were.
    fn list(&mut self, turn: usize, name: &CStr, is_long: bool) -> u64 {
        let parent = if is_long {
            self.share.as_fd()
        } else {
            self.slots[turn % self.slots.len()].dir.as_fd()
        };
        let dir = host::open_at(parent, name, libc::O_RDONLY | libc::O_DIRECTORY);
        let mut count = 0;
        loop {
            let len = host::getdents(dir.as_fd(), &mut self.listing);
            if len == 0 {
                return count;
            }
            let mut rest = &self.listing[..len];
            while let Some(head) = rest.get(16..18) {
                let len = usize::from(u16::from_le_bytes([head[0], head[1]]));
                let name = CStr::from_bytes_until_nul(&rest[19..len]).expect("a name ends");
                // The daemon does not look at these two either.
                if name != c"." && name != c".." {
                    host::stat_at(dir.as_fd(), name);
                }
                rest = &rest[len..];
                count += 1;
            }
        }
    }
}

pub(crate) fn getattr(it: &mut Native, turn: usize) -> u64 {
    host::stat_at(it.file(turn), c"");
    1
}

pub(crate) fn lookup(it: &mut Native, turn: usize) -> u64 {
    host::stat_at(it.dir(turn), it.name(turn));
    1
}

pub(crate) fn lookup_missing(it: &mut Native, turn: usize) -> u64 {
    host::stat_missing_at(it.dir(turn), c"missing");
    1
}

pub(crate) fn open(it: &mut Native, turn: usize) -> u64 {
    drop(host::open_at(it.dir(turn), it.name(turn), libc::O_RDONLY));
    1
}

pub(crate) fn create(it: &mut Native, turn: usize) -> u64 {
    let slot = it.slot(turn);
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
    let file = host::open_at(slot.dir.as_fd(), c"native", flags);
    host::pwrite(file.as_fd(), &slot.buffer, 4096, 0);
    drop(file);
    host::unlink_at(slot.dir.as_fd(), c"native", 0);
    1
}

pub(crate) fn mkdir(it: &mut Native, turn: usize) -> u64 {
    host::mkdir_at(it.dir(turn), c"native");
    host::unlink_at(it.dir(turn), c"native", libc::AT_REMOVEDIR);
    1
}

pub(crate) fn list_long(it: &mut Native, turn: usize) -> u64 {
    let name = it.long.clone();
    it.list(turn, &name, true)
}

fn small_dir(it: &Native, turn: usize) -> CString {
    it.tree_names[it.round(turn) % TREE_DIRS].clone()
}

pub(crate) fn list_small(it: &mut Native, turn: usize) -> u64 {
    let name = small_dir(it, turn);
    it.list(turn, &name, false);
    1
}

pub(crate) fn statfs(it: &mut Native, turn: usize) -> u64 {
    host::statfs(it.dir(turn));
    1
}

pub(crate) fn chmod(it: &mut Native, turn: usize) -> u64 {
    let mode = if (it.round(turn) / FILES).is_multiple_of(2) {
        0o644
    } else {
        0o600
    };
    host::chmod_at(it.dir(turn), it.name(turn), mode);
    1
}

pub(crate) fn rename(it: &mut Native, turn: usize) -> u64 {
    host::rename_at(it.dir(turn), c"moving", c"moved");
    host::rename_at(it.dir(turn), c"moved", c"moving");
    2
}

pub(crate) fn readlink(it: &mut Native, turn: usize) -> u64 {
    host::readlink_at(it.dir(turn), c"link");
    1
}

pub(crate) fn getxattr(it: &mut Native, turn: usize) -> u64 {
    host::getxattr(it.file(turn), &it.xattr);
    1
}

/// A small directory is listed, then each file of it looked at once.
pub(crate) fn git_status(it: &mut Native, turn: usize) -> u64 {
    let name = small_dir(it, turn);
    it.list(turn, &name, false);
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let dir = host::open_at(it.dir(turn), &name, flags);
    for name in &it.names[..TREE_FILES] {
        host::stat_at(dir.as_fd(), name);
    }
    u64_of(TREE_FILES)
}
