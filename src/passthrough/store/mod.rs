//! What the guest holds: nodes and handles, by number.
//!
//! ```text
//!   admit        from a file that was found to a node
//!   inodes       nodes by number and identity, and their lookup counts
//!     identities   nodes by identity, in shards
//!     lookup_count how many lookups of a node the guest holds
//!     inode        one node, and how to reach it
//!     movable        by a descriptor, or by a file handle when there are too few
//!     mounts         where files can be opened by handle
//!     retired        nodes that the guest has forgotten but may ask for again
//!     trim           memory of forgotten nodes, given back to the system
//!     guest_ino      inode numbers that do not meet in the guest
//!     contents       what the guest has in its page cache
//!   handles      open files and directories by number
//!   table        what nodes and handles are kept in: objects by number, read without a lock
//!   unopened_files  files that the guest uses without opening them
//!   fd_budget    how many descriptors all of them may hold
//!     clock        whose is taken when there are no more
//! ```

pub(super) mod admit;
mod birth;
mod clock;
pub(super) mod contents;
pub(super) mod fd_budget;
pub(super) mod guest_ino;
pub(super) mod handles;
mod hints;
mod identities;
pub(super) mod idle_readers;
pub(super) mod inode;
pub(super) mod inodes;
mod lookup_count;
mod mounts;
mod movable;
pub(super) mod retired;
mod shards;
mod table;
mod table_sync;
mod trim;
pub(super) mod unopened_files;

use std::os::fd::OwnedFd;

use self::fd_budget::FdBudget;
use self::guest_ino::Whereabouts;
use self::inode::{FixedFd, Found, Identity, Reach};
use self::inodes::InodeStore;
use self::mounts::MountTable;
use super::settings::HandlePolicy;
use super::setup::HandleProblem;
use crate::sys::meta::FileStat;
use crate::sys::random;

/// The largest number that nodes may start at: no daemon lives to give out 2^62 more.
const FIRST_NUMBER_MAX: u64 = (1 << 62) - 1;

/// The root of a share, as setup has found it.
#[derive(Debug)]
pub(super) struct Root {
    /// Pinned.
    pub(super) pinned: OwnedFd,
    /// Open for reading.
    pub(super) readable: OwnedFd,
    /// What statx(2) says of it.
    pub(super) stat: FileStat,
}

impl InodeStore {
    /// A store that holds only the root of a share.
    ///
    /// # Errors
    /// Why file handles cannot be used, if they are mandatory.
    pub(super) fn new(
        root: Root,
        policy: HandlePolicy,
        guest_fds_max: usize,
    ) -> Result<Self, HandleProblem> {
        let identity = Identity::of(&root.stat);
        let budget = FdBudget::new(guest_fds_max);
        let (mounts, mount) = MountTable::new(policy, &budget, identity.place, root.readable)?;
        // Without random numbers an NFS client of the guest might mistake an old file for a new
        // one after a restart of the daemon; everything else is as good.
        let first_number = random::random_u64().unwrap_or(0) & FIRST_NUMBER_MAX;
        let root = Found {
            identity,
            file_type: root.stat.file_type(),
            whereabouts: Whereabouts::ROOT,
            reach: Reach::Fixed(FixedFd::new(root.pinned, None)),
            mount,
        };
        Ok(InodeStore::with_root(root, mounts, budget, first_number))
    }
}
