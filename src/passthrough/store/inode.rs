//! What: one file of the host that the guest knows by a node id.
//!
//! In: a pinned descriptor or a file handle, and what statx(2) said of the file. Out: the way to
//! reach it. Invariant: as long as an [`Inode`] is pinned its inode number cannot be given to
//! another file, nor its mount id to another mount, so [`Identity`] is exact. One that is cold
//! (see `movable`) may share its identity with a later file; `admit` tells them apart by their
//! handles. Does not: count lookups for itself (see `inodes`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::contents::KnownContents;
use super::fd_budget::FdTicket;
use super::guest_ino::Whereabouts;
use super::lookup_count::LookupCount;
use super::mounts::Mount;
use super::movable::Movable;
use super::retired::QueueMark;
use crate::fs::types::NodeId;
use crate::sys::errno::{Errno, Result};
use crate::sys::fd_cell::FdLease;
use crate::sys::file_handle::FileHandle;
use crate::sys::meta::{DeviceNumber, FileStat, FileType};

/// What tells files apart. The mount belongs to it: one file under two mounts may be writable
/// through one only, and file systems without stable numbers at least differ in their mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::passthrough) struct Identity {
    /// The file system, through one of its mounts.
    pub(in crate::passthrough) place: FileSystemPlace,
    /// Inode number there.
    pub(in crate::passthrough) ino: u64,
}

/// A file system as seen through one mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::passthrough) struct FileSystemPlace {
    /// Mount id.
    pub(in crate::passthrough) mount_id: u64,
    /// Device.
    pub(in crate::passthrough) dev: DeviceNumber,
}

impl Identity {
    /// The identity of the file that `stat` tells of.
    pub(in crate::passthrough) fn of(stat: &FileStat) -> Self {
        Identity {
            place: FileSystemPlace {
                mount_id: stat.mount_id,
                dev: stat.dev,
            },
            ino: stat.ino,
        }
    }
}

/// Whether names that a guest looks up in a directory lead to files that are no nodes yet: then to
/// pin them at once saves asking first what they are. A guess, from the last few.
#[derive(Debug, Default)]
pub(in crate::passthrough) struct News(AtomicU8);

impl News {
    /// New files in a row that make the next one likely to be new, too.
    const LIKELY: u8 = 2;

    /// Whether the next file is probably new.
    pub(in crate::passthrough) fn are_likely(&self) -> bool {
        // Relaxed here and below: it is a guess.
        self.0.load(Ordering::Relaxed) >= Self::LIKELY
    }

    /// A file was new. Written only if that changes something, like the next: queues that look up
    /// names in one directory shall not fight for it.
    pub(in crate::passthrough) fn note_new(&self) {
        let before = self.0.load(Ordering::Relaxed);
        if before < Self::LIKELY {
            self.0.store(before.saturating_add(1), Ordering::Relaxed);
        }
    }

    /// A file was a node already, or there was none: to find that out by open(2) takes longer.
    pub(in crate::passthrough) fn note_not_new(&self) {
        if self.0.load(Ordering::Relaxed) != 0 {
            self.0.store(0, Ordering::Relaxed);
        }
    }
}

/// How to reach the file of a node. The only place that knows.
#[derive(Debug)]
pub(in crate::passthrough) enum Reach {
    /// By a descriptor that is kept as long as the node.
    Fixed(FixedFd),
    /// By a descriptor or a handle.
    Movable(Movable),
}

/// A descriptor that is kept as long as the node: the root's, which needs no ticket, and those of
/// files without handles. Fields are dropped in this order.
#[derive(Debug)]
pub(in crate::passthrough) struct FixedFd {
    fd: OwnedFd,
    _ticket: Option<FdTicket>,
}

impl FixedFd {
    pub(super) fn new(fd: OwnedFd, ticket: Option<FdTicket>) -> Self {
        FixedFd {
            fd,
            _ticket: ticket,
        }
    }
}

/// A descriptor for a node, for the length of one operation.
#[derive(Debug)]
pub(in crate::passthrough) enum NodeFd<'node> {
    /// The one that the node keeps for good.
    Kept(BorrowedFd<'node>),
    /// The one that the node keeps for now.
    Shared(FdLease<'node>),
    /// One of its own.
    Opened(OwnedFd),
}

impl AsFd for NodeFd<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            NodeFd::Kept(fd) => fd.as_fd(),
            NodeFd::Shared(lease) => lease.as_fd(),
            NodeFd::Opened(fd) => fd.as_fd(),
        }
    }
}

/// One file of the host that the guest knows.
#[derive(Debug)]
pub(in crate::passthrough) struct Inode {
    /// Its number for the guest.
    pub(in crate::passthrough) id: NodeId,
    /// What tells it from other files.
    pub(in crate::passthrough) identity: Identity,
    /// Its type, which no file ever changes.
    pub(in crate::passthrough) file_type: FileType,
    /// Where it is, for its number in the guest.
    pub(in crate::passthrough) whereabouts: Whereabouts,
    /// Of a directory, whether what is looked up in it is mostly new.
    pub(in crate::passthrough) news: News,
    /// What the guest has in its page cache.
    pub(in crate::passthrough) known_contents: KnownContents,
    /// How to reach it.
    reach: Reach,
    /// Keeps its mount open while the guest holds lookups. Only `inodes` changes it.
    mount: Mutex<Option<Arc<Mount>>>,
    /// Lookups that the guest holds. Only `inodes` touches it.
    pub(super) lookups: LookupCount,
    /// Its place in the queue of `retired`, which alone touches it.
    pub(super) queue_mark: QueueMark,
}

impl Inode {
    /// An inode for which one lookup has been granted.
    pub(super) fn new(id: NodeId, mut found: Found) -> Self {
        if let Reach::Movable(movable) = &mut found.reach {
            movable.become_node(id);
        }
        Inode {
            id,
            identity: found.identity,
            file_type: found.file_type,
            whereabouts: found.whereabouts,
            news: News::default(),
            known_contents: KnownContents::default(),
            reach: found.reach,
            mount: Mutex::new(Some(found.mount)),
            lookups: LookupCount::one(),
            queue_mark: QueueMark::default(),
        }
    }

    /// A descriptor for the file. Costs no system call while it is pinned. Not to be called
    /// while acting as somebody else: opening by handle takes the daemon's own capabilities.
    ///
    /// # Errors
    /// `ESTALE` when the file was removed while only its handle was kept; what
    /// open_by_handle_at(2) says.
    pub(in crate::passthrough) fn reach(&self) -> Result<NodeFd<'_>> {
        match &self.reach {
            Reach::Fixed(fixed) => Ok(NodeFd::Kept(fixed.fd.as_fd())),
            Reach::Movable(movable) => movable.reach(self.id),
        }
    }

    /// The guest has just shown interest.
    pub(in crate::passthrough) fn touch(&self) {
        if let Some(movable) = self.movable() {
            movable.touch();
        }
    }

    /// Whether the guest holds it at this moment.
    pub(super) fn is_held(&self) -> bool {
        self.lookups.is_held()
    }

    /// Whether a descriptor keeps its identity its own at this moment.
    pub(in crate::passthrough) fn is_pinned(&self) -> bool {
        match &self.reach {
            Reach::Fixed(_) => true,
            Reach::Movable(movable) => movable.is_pinned(),
        }
    }

    /// Whether a file with its identity is surely its own, although no descriptor is kept.
    pub(super) fn is_surely(&self, stat: &FileStat) -> bool {
        self.movable()
            .is_some_and(|movable| movable.is_surely(stat))
    }

    /// Whether it is the file with that handle, as far as that is known.
    pub(super) fn is_named(&self, handle: &FileHandle) -> bool {
        match &self.reach {
            Reach::Fixed(_) => false,
            Reach::Movable(movable) => movable.is_named(handle),
        }
    }

    /// What can be cold, if it can be.
    pub(super) fn movable(&self) -> Option<&Movable> {
        match &self.reach {
            Reach::Fixed(_) => None,
            Reach::Movable(movable) => Some(movable),
        }
    }

    /// Its mount, unless the guest has forgotten it.
    pub(super) fn mount(&self) -> Option<Arc<Mount>> {
        self.lock_mount().clone()
    }

    /// A ticket for one more descriptor of it that the guest shall hold.
    ///
    /// # Errors
    /// `ENFILE` when there is none left; `EBADF` when the guest has forgotten it.
    pub(in crate::passthrough) fn ticket(&self) -> Result<FdTicket> {
        self.mount().ok_or(Errno::EBADF)?.budget().take()
    }

    /// Lets go of its mount; the caller drops it without a lock.
    pub(super) fn leave_mount(&self) -> Option<Arc<Mount>> {
        self.lock_mount().take()
    }

    /// Takes hold of its mount again. False if that has been closed for good.
    pub(super) fn rejoin_mount(&self) -> bool {
        let mut mount = self.lock_mount();
        if mount.is_none() {
            *mount = self.movable().and_then(|movable| movable.mount());
        }
        mount.is_some()
    }

    fn lock_mount(&self) -> std::sync::MutexGuard<'_, Option<Arc<Mount>>> {
        self.mount.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that was found, but is no node yet.
#[derive(Debug)]
pub(super) struct Found {
    /// What tells it from other files, read from a pinned descriptor.
    pub(super) identity: Identity,
    /// Its type.
    pub(super) file_type: FileType,
    /// Where it is.
    pub(super) whereabouts: Whereabouts,
    /// How to reach it.
    pub(super) reach: Reach,
    /// Its mount.
    pub(super) mount: Arc<Mount>,
}

impl Found {
    /// Its handle, if it has one.
    pub(super) fn name(&self) -> Option<FileHandle> {
        match &self.reach {
            Reach::Fixed(fixed) => FileHandle::of_fd(fixed.fd.as_fd()).ok(),
            Reach::Movable(movable) => movable.name(),
        }
    }
}
