//! What: from a name to an [`Entry`]; the only maker of [`LookupRef`]s.
//!
//! In: a directory's inode and one name, or a file that was just made. Out: an entry that grants
//! one lookup. Invariants: identity is read from a pinned descriptor, or matches that of a node
//! which is pinned, or has the handle that the name has; nothing is opened for more than `O_PATH`; links are never followed.
//!
//! ```text
//!   statx(name) -> known, pinned node? - yes -> done         1 system call
//!        |             no
//!        |         cold node, with the handle that the name has? - yes -> done       2
//!        |             no
//!      ENOENT      pin, statx(pinned) -> node                3, or 2 when it is known to be new
//! ```
//!
//! A node that is not pinned may be a file of the past whose inode number is used again, so the
//! file handle decides. One that is asked for again goes the long way, to be pinned: see
//! `store::admit`.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::PassthroughFs;
use super::store::admit::{Arrival, Held, Interest, Surroundings};
use super::store::guest_ino::Submounts;
use super::store::inode::{Identity, Inode};
use super::store::inodes::{ByStat, Granted};
use crate::fs::types::{Entry, FileName, LookupRef, NodeId};
use crate::sys::errno::Result;
use crate::sys::file_handle::FileHandle;
use crate::sys::meta::{self, FileStat};
use crate::sys::open;
use crate::sys::path_ops::PlaceAt;
use crate::wire::flags::SessionFlags;

/// Numbers of nodes are never used again, nor by another run of the daemon, so all of them are
/// of one generation. It has to be this one: a Linux guest gives it to the roots of its mounts
/// without asking, and takes a root that comes with another one for stale.
const GENERATION: u64 = 0;

/// A directory in which names are looked up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Directory<'a> {
    /// Its inode.
    pub(super) inode: &'a Inode,
    /// A descriptor for it, pinned or open.
    pub(super) fd: BorrowedFd<'a>,
}

impl PassthroughFs {
    /// Finds `name` in a directory.
    ///
    /// # Errors
    /// `ENOTDIR`, `ENOENT`, and what statx(2) and open(2) say.
    pub(super) fn lookup_in(&self, parent: &Inode, name: FileName<'_>) -> Result<Entry<'_>> {
        let reached = parent.reach()?;
        let directory = Directory {
            inode: parent,
            fd: reached.as_fd(),
        };
        match parent.news.are_likely() {
            true => self
                .pin(directory, name, Interest::Asked)
                .inspect_err(|_| parent.news.note_not_new()),
            false => self.find(directory, name, Interest::Asked),
        }
    }

    fn find(
        &self,
        directory: Directory<'_>,
        name: FileName<'_>,
        interest: Interest,
    ) -> Result<Entry<'_>> {
        let stat = meta::stat_at(directory.fd, name.as_c_str())?;
        let identity = Identity::of(&stat);
        match self.store.grant_by_stat(&identity, &stat, interest) {
            // No other file can have its identity: it is pinned, or has the same time of birth.
            ByStat::Granted(granted) => {
                directory.inode.news.note_not_new();
                return Ok(self.entry(granted, &stat));
            }
            // One that is asked for again is worth a descriptor.
            ByStat::Cold { was_used } if !was_used || interest == Interest::Listed => {
                // A handle never comes back. If the name has now that of the node, the node's
                // file has been there all the time, and nothing else had its inode number.
                let handle = FileHandle::of_name(directory.fd, name.as_c_str());
                let granted = handle.map(|handle| self.store.grant_named(&identity, &handle));
                if let Ok(Some((granted, inode))) = granted {
                    if interest == Interest::Asked {
                        inode.touch();
                    }
                    directory.inode.news.note_not_new();
                    return Ok(self.entry(granted, &stat));
                }
            }
            ByStat::Cold { .. } | ByStat::Unknown => {}
        }
        // The name may lead elsewhere by now: from here on only the descriptor counts.
        self.pin(directory, name, interest)
    }

    /// Finds `name` in a directory, for a file that is probably no node yet: pins it at once.
    ///
    /// # Errors
    /// As `lookup_in`.
    pub(super) fn pin_in(&self, parent: &Inode, name: FileName<'_>) -> Result<Entry<'_>> {
        let reached = parent.reach()?;
        let directory = Directory {
            inode: parent,
            fd: reached.as_fd(),
        };
        self.pin(directory, name, Interest::Asked)
    }

    fn pin(
        &self,
        directory: Directory<'_>,
        name: FileName<'_>,
        interest: Interest,
    ) -> Result<Entry<'_>> {
        self.relieved(|| self.try_pin(directory, name, interest))
    }

    fn try_pin(
        &self,
        directory: Directory<'_>,
        name: FileName<'_>,
        interest: Interest,
    ) -> Result<Entry<'_>> {
        let budget = self.store.budget();
        let pinned = budget.with_room(|| open::pin_beneath(directory.fd, name.as_c_str()))?;
        let stat = meta::stat_fd(pinned.as_fd())?;
        match self.store.holds(&Identity::of(&stat)) {
            true => directory.inode.news.note_not_new(),
            false => directory.inode.news.note_new(),
        }
        self.entry_of_arrival(
            &Surroundings::inside(directory.inode),
            Arrival {
                held: Held::Pinned(pinned),
                stat: &stat,
                interest,
            },
        )
    }

    /// Finds `name`, of which a directory has just told the inode number. The number says which
    /// way is shorter, and nothing else: it is stale the moment it is read.
    ///
    /// # Errors
    /// As `lookup_in`.
    pub(super) fn lookup_listed(
        &self,
        directory: Directory<'_>,
        name: FileName<'_>,
        ino: u64,
    ) -> Result<Entry<'_>> {
        let likely = Identity {
            place: directory.inode.identity.place,
            ino,
        };
        if self.store.holds(&likely) {
            self.find(directory, name, Interest::Listed)
        } else {
            self.pin(directory, name, Interest::Listed)
        }
    }

    /// The entry of a file that was just made and opened. What has its name by now does not
    /// matter.
    pub(super) fn entry_of_new(
        &self,
        parent: &Inode,
        opened: BorrowedFd<'_>,
        place: Option<PlaceAt<'_>>,
    ) -> Result<Entry<'_>> {
        let stat = meta::stat_fd(opened)?;
        self.entry_of_arrival(
            &Surroundings::inside(parent),
            Arrival {
                held: Held::Open(opened, place),
                stat: &stat,
                interest: Interest::Asked,
            },
        )
    }

    /// The entry of a node under one more name.
    ///
    /// # Errors
    /// What statx(2) says; `ESTALE` when the guest has forgotten the node in between, which no
    /// sane one does.
    pub(super) fn entry_of_known(&self, inode: &Arc<Inode>) -> Result<Entry<'_>> {
        let reached = inode.reach()?;
        let stat = meta::stat_fd(reached.as_fd())?;
        let granted = self.store.grant_again(inode)?;
        Ok(self.entry(granted, &stat))
    }

    /// The entry of a file that is held by a descriptor.
    pub(super) fn entry_of_arrival(
        &self,
        around: &Surroundings<'_>,
        arrival: Arrival<'_>,
    ) -> Result<Entry<'_>> {
        let stat = arrival.stat;
        let granted = self.store.admit(&self.proc_fd, around, arrival)?;
        Ok(self.entry(granted, stat))
    }

    fn entry(&self, granted: Granted, stat: &FileStat) -> Entry<'_> {
        Entry {
            lookup: LookupRef::new(self, granted.node),
            generation: GENERATION,
            attr: self.attr_of(stat, granted.whereabouts),
            attr_valid: self.settings.attr_valid,
            entry_valid: self.settings.entry_valid,
        }
    }

    /// What the guest sees of mounts below the root, in this session.
    pub(super) fn submounts(&self) -> Submounts {
        let can = self.negotiated().contains(SessionFlags::SUBMOUNTS);
        match self.settings.announce_submounts && can {
            true => Submounts::Announced,
            false => Submounts::Hidden,
        }
    }

    /// The inode of a node that an entry names. The entry's lookup keeps it there.
    pub(super) fn inode_of(&self, entry: &Entry<'_>) -> Result<Arc<Inode>> {
        let node: NodeId = entry.lookup.node();
        self.store.get(node)
    }
}
