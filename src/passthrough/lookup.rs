//! What: from a name to an [`Entry`]; the only maker of [`LookupRef`]s.
//!
//! In: a directory's inode and one name, or a file that was just made. Out: an entry that grants
//! one lookup. Invariants: identity is read from a pinned descriptor, or matches that of a node
//! which is pinned; nothing is opened for more than `O_PATH`; links are never followed.
//!
//! ```text
//!   statx(name) -> known node? ---- yes -> done             1 system call
//!        |             no
//!      ENOENT      pin, statx(pinned) -> node               3, or 2 when it is known to be new
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::PassthroughFs;
use super::store::inode::{FileSystemPlace, Found, Identity, Inode, Reach};
use super::store::inodes::Granted;
use crate::fs::types::{Entry, FileName, LookupRef, NodeId};
use crate::sys::errno::Result;
use crate::sys::meta::{self, FileStat, FileType};
use crate::sys::open;

/// Numbers of nodes are never used again, so all of them are of the first generation.
const GENERATION: u64 = 0;

impl PassthroughFs {
    /// Finds `name` in a directory.
    ///
    /// # Errors
    /// `ENOTDIR`, `ENOENT`, and what statx(2) and open(2) say.
    pub(super) fn lookup_in(&self, parent: &Inode, name: FileName<'_>) -> Result<Entry<'_>> {
        let directory = parent.reach()?;
        let stat = meta::stat_at(directory.as_fd(), name.as_c_str())?;
        // The node of a hit is pinned, so no other file can have its identity.
        if let Some(granted) = self.store.grant(&Identity::of(&stat)) {
            return Ok(self.entry(granted, &stat));
        }
        // The name may lead elsewhere by now: from here on only the descriptor counts.
        self.pin_in(parent, name)
    }

    /// Finds `name` in a directory, for a file that is probably no node yet: pins it at once.
    ///
    /// # Errors
    /// As `lookup_in`.
    pub(super) fn pin_in(&self, parent: &Inode, name: FileName<'_>) -> Result<Entry<'_>> {
        let directory = parent.reach()?;
        let pinned = open::pin_beneath(directory.as_fd(), name.as_c_str())?;
        let stat = meta::stat_fd(pinned.as_fd())?;
        Ok(self.entry_of_found(found_in(parent.identity.place, pinned, &stat), &stat))
    }

    /// Finds `name`, of which a directory has just told the inode number. The number says which
    /// way is shorter, and nothing else: it is stale the moment it is read.
    ///
    /// # Errors
    /// As `lookup_in`.
    pub(super) fn lookup_listed(
        &self,
        parent: &Inode,
        name: FileName<'_>,
        ino: u64,
    ) -> Result<Entry<'_>> {
        let likely = Identity {
            place: parent.identity.place,
            ino,
        };
        if self.store.holds(&likely) {
            self.lookup_in(parent, name)
        } else {
            self.pin_in(parent, name)
        }
    }

    /// The entry of a file that was just made and opened: no name is looked up for it.
    pub(super) fn entry_of_new(&self, parent: &Inode, opened: BorrowedFd<'_>) -> Result<Entry<'_>> {
        let stat = meta::stat_fd(opened)?;
        let pinned = open::pin_again(&self.proc_fd, opened)?;
        Ok(self.entry_of_found(found_in(parent.identity.place, pinned, &stat), &stat))
    }

    /// The entry of a node under one more name.
    ///
    /// # Errors
    /// What statx(2) says.
    pub(super) fn entry_of_known(&self, inode: &Inode) -> Result<Entry<'_>> {
        let pinned = inode.reach()?;
        let stat = meta::stat_fd(pinned.as_fd())?;
        if let Some(granted) = self.store.grant(&inode.identity) {
            return Ok(self.entry(granted, &stat));
        }
        // Forgotten in between, which no sane guest does: it becomes a new node.
        let pinned = open::pin_again(&self.proc_fd, pinned.as_fd())?;
        Ok(self.entry_of_found(found_in(inode.identity.place, pinned, &stat), &stat))
    }

    fn entry_of_found(&self, found: Found, stat: &FileStat) -> Entry<'_> {
        let granted = self.store.grant_or_insert(found);
        self.entry(granted, stat)
    }

    fn entry(&self, granted: Granted, stat: &FileStat) -> Entry<'_> {
        Entry {
            lookup: LookupRef::new(self, granted.node),
            generation: GENERATION,
            attr: self.attr_of(stat, granted.is_mount_root),
            attr_valid: self.settings.attr_valid,
            entry_valid: self.settings.entry_valid,
        }
    }

    /// The inode of a node that an entry names. The entry's lookup keeps it there.
    pub(super) fn inode_of(&self, entry: &Entry<'_>) -> Result<std::sync::Arc<Inode>> {
        let node: NodeId = entry.lookup.node();
        self.store.get(node)
    }
}

fn found_in(parent: FileSystemPlace, pinned: OwnedFd, stat: &FileStat) -> Found {
    let identity = Identity::of(stat);
    let file_type = stat.file_type();
    Found {
        identity,
        file_type,
        // Files can be mounts of their own too, but guests know only directories as submounts.
        is_mount_root: file_type == FileType::Directory && identity.place != parent,
        reach: Reach::Pinned(pinned),
    }
}
