//! What: nodes by number alone: LOOKUP of `.` and `..`, for guests that export the mount by NFS.
//!
//! In: a node id, which the guest may have forgotten; an NFS client of it has not. Out: an entry
//! for the same node, or for the directory above it. Invariant: what is above the share's root
//! is never named: a parent is accepted only when climbing on from it leads to the root. Does
//! not: keep forgotten nodes (see `store::retired`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::PassthroughFs;
use super::store::admit::{Arrival, Held, Interest, Surroundings};
use super::store::inode::{FileSystemPlace, Identity};
use crate::fs::types::{Entry, NodeId};
use crate::sys::errno::{Errno, Result};
use crate::sys::meta::{self, FileStat, FileType};
use crate::sys::open;

/// How far below the share's root a directory may be for its parent to be found. A path of
/// `PATH_MAX` bytes has no more components.
const DEPTH_MAX: usize = if cfg!(test) { 100 } else { 2048 };

impl PassthroughFs {
    /// Finds a node again.
    ///
    /// # Errors
    /// `ESTALE` when the number is unknown, or the file gone.
    pub(super) fn find_again(&self, node: NodeId) -> Result<Entry<'_>> {
        let inode = self.store.get_or_retired(node).ok_or(Errno::ESTALE)?;
        self.entry_of_known(&inode)
    }

    /// Finds the directory that a directory is in. That of the root is the root.
    ///
    /// # Errors
    /// `ESTALE` when the number is unknown, or the directory no longer inside the share;
    /// `ENOTDIR`.
    pub(super) fn find_parent(&self, node: NodeId) -> Result<Entry<'_>> {
        let root = self.store.root();
        let inode = self.store.get(node).map_err(|_| Errno::ESTALE)?;
        if inode.file_type != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        if node == NodeId::ROOT {
            return self.entry_of_known(root);
        }
        let (parent, stat) = climb(inode.reach()?.as_fd())?;
        let identity = Identity::of(&stat);
        if identity == root.identity {
            return self.entry_of_known(root);
        }
        let grandparent = place_above(parent.as_fd(), &identity, &root.identity)?;
        self.entry_of_arrival(
            &Surroundings {
                parent: grandparent,
                near: &inode,
            },
            Arrival {
                held: Held::Pinned(parent),
                stat: &stat,
                interest: Interest::Asked,
            },
        )
    }
}

/// Climbs from a directory to the share's root, and gives the place of the first directory on
/// the way.
///
/// # Errors
/// `ESTALE` when the way does not lead there.
fn place_above(
    directory: BorrowedFd<'_>,
    identity: &Identity,
    root: &Identity,
) -> Result<FileSystemPlace> {
    let (mut above, stat) = climb(directory)?;
    let place = Identity::of(&stat).place;
    let (mut below, mut here) = (*identity, Identity::of(&stat));
    for _ in 0..DEPTH_MAX {
        if here == *root {
            return Ok(place);
        }
        // The top of everything is its own parent.
        if here == below {
            break;
        }
        let (next, stat) = climb(above.as_fd())?;
        (above, below, here) = (next, here, Identity::of(&stat));
    }
    Err(Errno::ESTALE)
}

/// The directory above.
fn climb(directory: BorrowedFd<'_>) -> Result<(OwnedFd, FileStat)> {
    let above = match open::pin_parent(directory) {
        Err(errno @ (Errno::EMFILE | Errno::ENFILE)) => return Err(errno),
        // Hidden by a mount, out of reach, removed: for the guest it is not there any more.
        pinned => pinned.map_err(|_| Errno::ESTALE)?,
    };
    let stat = meta::stat_fd(above.as_fd())?;
    Ok((above, stat))
}
