//! What: from a file that was found to a node, however many descriptors there are left.
//!
//! In: a pinned or open file, what statx(2) says of it, and the directory it was found in. Out:
//! one lookup granted, of its node or of a new one. This is where the store makes system calls,
//! so nothing here holds one of its locks.
//!
//! ```text
//!   identity known?  pinned ------------------------------> that node
//!        |      \--- cold: same handle? -- yes -----------> that node, pinned again if there is
//!        no                    no: it was another file      a ticket left, or it is asked for
//!        |                     |                            a second time
//!   mount has handles? -- no --+--> pinned for good; ENFILE if there is no ticket
//!        yes
//!   a ticket left, or worth putting another out? - yes ---> pinned
//!        no ----------------------------------------------> cold
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::clock::Kind;
use super::fd_budget::{FdBudget, FdTicket};
use super::guest_ino::Whereabouts;
use super::inode::{FileSystemPlace, FixedFd, Found, Identity, Inode, Reach};
use super::inodes::{Granted, InodeStore, Inserted, Known};
use super::mounts::{Mount, Object};
use super::movable::Movable;
use crate::sys::errno::Result;
use crate::sys::file_handle::FileHandle;
use crate::sys::meta::{self, FileStat, FileType};
use crate::sys::open;
use crate::sys::path_ops::PlaceAt;
use crate::sys::proc_fd::ProcFd;

/// How the caller holds the file.
#[derive(Debug)]
pub(in crate::passthrough) enum Held<'a> {
    /// By a pinned descriptor that the node may keep.
    Pinned(OwnedFd),
    /// By an open one that somebody else needs, and where it was a moment ago, if it has a name.
    Open(BorrowedFd<'a>, Option<PlaceAt<'a>>),
}

impl Held<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Held::Pinned(fd) => fd.as_fd(),
            Held::Open(fd, _) => fd.as_fd(),
        }
    }

    fn into_pinned(
        self,
        proc_fd: &ProcFd,
        budget: &FdBudget,
        identity: &Identity,
    ) -> Result<OwnedFd> {
        let (fd, place) = match self {
            Held::Pinned(fd) => return Ok(fd),
            Held::Open(fd, place) => (fd, place),
        };
        // To find it by its name, and see that it is the one, takes half the time of the way
        // through proc. While it is open no other file can have its identity.
        let named = place.and_then(|at| open::pin_beneath(at.directory, at.name).ok());
        let same = named.filter(|named| {
            let stat = meta::stat_fd(named.as_fd());
            stat.is_ok_and(|stat| Identity::of(&stat) == *identity)
        });
        match same {
            Some(named) => Ok(named),
            None => budget.with_room(|| open::pin_again(proc_fd, fd)),
        }
    }
}

/// Whether the guest will probably use the file soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::passthrough) enum Interest {
    /// It asked for it.
    Asked,
    /// It is one of many in a directory.
    Listed,
}

/// A file that was found.
#[derive(Debug)]
pub(in crate::passthrough) struct Arrival<'a> {
    /// How it is held. What is known of it was read from this descriptor.
    pub(in crate::passthrough) held: Held<'a>,
    /// What statx(2) says.
    pub(in crate::passthrough) stat: &'a FileStat,
    /// Whether it is worth putting another node out.
    pub(in crate::passthrough) interest: Interest,
}

/// Where a file was found.
#[derive(Clone, Copy, Debug)]
pub(in crate::passthrough) struct Surroundings<'a> {
    /// The place of its parent directory.
    pub(in crate::passthrough) parent: FileSystemPlace,
    /// A node that is probably on the same mount.
    pub(in crate::passthrough) near: &'a Inode,
}

impl<'a> Surroundings<'a> {
    /// Those of an entry of a directory.
    pub(in crate::passthrough) fn inside(directory: &'a Inode) -> Self {
        Surroundings {
            parent: directory.identity.place,
            near: directory,
        }
    }
}

impl InodeStore {
    /// Grants a lookup of a file that was found.
    ///
    /// # Errors
    /// `ENFILE` when it would need a descriptor and there is none; `EIO` on a file system
    /// without handles where they are mandatory; what the host says.
    pub(in crate::passthrough) fn admit(
        &self,
        proc_fd: &ProcFd,
        around: &Surroundings<'_>,
        arrival: Arrival<'_>,
    ) -> Result<Granted> {
        let identity = Identity::of(arrival.stat);
        let handle = match self.recognize(&identity) {
            Known::Granted(granted) => return Ok(granted),
            Known::No => None,
            Known::Perhaps => Some(FileHandle::of_fd(arrival.held.as_fd())?),
        };
        if let Some(handle) = handle {
            if let Some((granted, inode)) = self.grant_named(&identity, &handle) {
                if let Some(movable) = inode.movable() {
                    match arrival.held {
                        Held::Pinned(fd) => movable.repin(inode.id, fd, arrival.interest),
                        Held::Open(..) => movable.touch(),
                    }
                }
                return Ok(granted);
            }
            let found = self.found(proc_fd, around, arrival, Some(handle.clone()))?;
            return self.insert_named(found, Some(&handle));
        }
        let found = self.found(proc_fd, around, arrival, None)?;
        match self.insert(found)? {
            Inserted::Granted(granted) => Ok(granted),
            // Somebody was faster, and the node is cold already.
            Inserted::NotYet(found) => {
                let handle = found.name();
                self.insert_named(found, handle.as_ref())
            }
        }
    }

    /// A ticket for a file that is about to be made in a directory and opened, when there is
    /// enough for its node, too: once it is made, it is too late to refuse.
    ///
    /// # Errors
    /// `ENFILE`.
    pub(in crate::passthrough) fn ticket_for_new(&self, directory: &Inode) -> Result<FdTicket> {
        let ticket = self.budget().take()?;
        self.check_room_for_new(directory)?;
        Ok(ticket)
    }

    /// Whether what is about to be made in a directory can be a node. Somebody else may take the
    /// last ticket until then; a guest that lives so close to the limit has been warned.
    ///
    /// # Errors
    /// `ENFILE`.
    pub(in crate::passthrough) fn check_room_for_new(&self, directory: &Inode) -> Result<()> {
        match directory.mount() {
            Some(mount) if mount.has_handles() => Ok(()),
            _ => self.budget().take().map(drop),
        }
    }

    fn found(
        &self,
        proc_fd: &ProcFd,
        around: &Surroundings<'_>,
        arrival: Arrival<'_>,
        handle: Option<FileHandle>,
    ) -> Result<Found> {
        let identity = Identity::of(arrival.stat);
        let file_type = arrival.stat.file_type();
        let object = Object {
            fd: arrival.held.as_fd(),
            place: identity.place,
            file_type,
        };
        let mount = self.mount_of(proc_fd, around.near, &object)?;
        let whereabouts = Whereabouts::new(
            self.places.of(identity.place),
            identity.place != around.parent,
            file_type == FileType::Directory,
        );
        let reach = if mount.has_handles() {
            Reach::Movable(self.movable(proc_fd, &mount, arrival, handle)?)
        } else {
            let ticket = self.budget().take()?;
            let pinned = arrival
                .held
                .into_pinned(proc_fd, self.budget(), &identity)?;
            Reach::Fixed(FixedFd::new(pinned, Some(ticket)))
        };
        Ok(Found {
            identity,
            file_type,
            whereabouts,
            reach,
            mount,
        })
    }

    /// A file on a mount with handles. It needs a descriptor only if it has no name any more.
    fn movable(
        &self,
        proc_fd: &ProcFd,
        mount: &Arc<Mount>,
        arrival: Arrival<'_>,
        handle: Option<FileHandle>,
    ) -> Result<Movable> {
        let budget = self.budget();
        let kind = match arrival.stat.file_type() {
            FileType::Directory => Kind::Directory,
            _ => Kind::Leaf,
        };
        let is_worth_it = arrival.interest == Interest::Asked || arrival.stat.nlink == 0;
        let ticket = match is_worth_it {
            true => budget.take_or_put_out(),
            false => budget.try_take(),
        };
        let ticket = match ticket {
            Some(ticket) => ticket,
            None => {
                let handle = handle.map_or_else(|| FileHandle::of_fd(arrival.held.as_fd()), Ok);
                match handle {
                    Ok(handle) => return Ok(Movable::cold(mount, kind, handle, arrival.stat)),
                    Err(_) => budget.take()?,
                }
            }
        };
        let stat = arrival.stat;
        let pinned = arrival
            .held
            .into_pinned(proc_fd, budget, &Identity::of(stat))?;
        Ok(Movable::pinned(mount, kind, pinned, ticket))
    }

    fn mount_of(&self, proc_fd: &ProcFd, near: &Inode, object: &Object<'_>) -> Result<Arc<Mount>> {
        let place = near.identity.place;
        // Without mount numbers (before Linux 5.8) the device has to do.
        let is_same = place.mount_id == object.place.mount_id
            && (place.mount_id != 0 || place.dev == object.place.dev);
        match near.mount().filter(|_| is_same) {
            Some(mount) => Ok(mount),
            None => self.mounts.of(proc_fd, object),
        }
    }
}
