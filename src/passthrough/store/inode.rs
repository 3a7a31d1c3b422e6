//! What: one file of the host that the guest knows by a node id.
//!
//! In: a descriptor that pins the file, and what statx(2) said of it. Out: the way to reach it.
//! Invariant: as long as an [`Inode`] is pinned its inode number cannot be given to another
//! file, nor its mount id to another mount, so [`Identity`] is exact. Does not: count lookups
//! for itself (see `inodes`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;

use super::contents::KnownContents;
use crate::fs::types::NodeId;
use crate::sys::errno::Result;
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

/// How to reach the file of a node. The only place that knows: today always a descriptor.
#[derive(Debug)]
pub(in crate::passthrough) enum Reach {
    /// By an `O_PATH` descriptor that is kept.
    Pinned(OwnedFd),
}

/// A descriptor for a node, for the length of one operation.
#[derive(Debug)]
pub(in crate::passthrough) enum NodeFd<'node> {
    /// The one that the node keeps.
    Kept(BorrowedFd<'node>),
}

impl AsFd for NodeFd<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            NodeFd::Kept(fd) => fd.as_fd(),
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
    /// A directory on another file system than its parent.
    pub(in crate::passthrough) is_mount_root: bool,
    /// What the guest has in its page cache.
    pub(in crate::passthrough) known_contents: KnownContents,
    /// How to reach it.
    reach: Reach,
    /// Lookups that the guest holds. Only `inodes` touches it.
    pub(super) lookups: AtomicU64,
}

impl Inode {
    /// An inode for which one lookup has been granted.
    pub(super) fn new(id: NodeId, found: Found) -> Self {
        Inode {
            id,
            identity: found.identity,
            file_type: found.file_type,
            is_mount_root: found.is_mount_root,
            known_contents: KnownContents::default(),
            reach: found.reach,
            lookups: AtomicU64::new(1),
        }
    }

    /// A descriptor for the file.
    ///
    /// # Errors
    /// None while every node is pinned. Nodes that are kept as file handles will have some, so
    /// callers pass them on already.
    pub(in crate::passthrough) fn reach(&self) -> Result<NodeFd<'_>> {
        match &self.reach {
            Reach::Pinned(fd) => Ok(NodeFd::Kept(fd.as_fd())),
        }
    }
}

/// A file that was found and is pinned, but is no node yet.
#[derive(Debug)]
pub(in crate::passthrough) struct Found {
    /// What tells it from other files, read from the pinned descriptor.
    pub(in crate::passthrough) identity: Identity,
    /// Its type.
    pub(in crate::passthrough) file_type: FileType,
    /// A directory on another file system than its parent.
    pub(in crate::passthrough) is_mount_root: bool,
    /// How to reach it.
    pub(in crate::passthrough) reach: Reach,
}
