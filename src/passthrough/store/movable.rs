//! What: a file that is pinned by a descriptor while there are enough of them, and otherwise
//! remembered by its file handle.
//!
//! In: a pinned file of a mount that has handles. Out: a descriptor for the length of an
//! operation, always of the same file.
//!
//! ```text
//!            put_out (clock), unpin (forgotten)
//!   pinned -------------------------------------> cold
//!      ^                                            |  reach: opened by handle, for the length
//!      +--------------------------------------------+  of the operation, or kept if the budget
//!                    reach, repin                      has room or this was used before
//! ```
//!
//! Invariants: what is cold has its handle; a descriptor is closed when nobody is at work with
//! it; a file without a name is never put out, since the handle would lead nowhere as soon as
//! nobody has it open. What is pinned has spent a ticket of the budget, and is counted in the
//! clock once it is a node. No locks: see `sys::fd_cell`. Does not: own the mount: when that is
//! gone, so is every way to what is cold.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::SystemTime;

use super::admit::Interest;
use super::birth::Birth;
use super::clock::{Kind, RingIndex};
use super::fd_budget::{FdBudget, FdTicket, HeldFd};
use super::inode::NodeFd;
use super::mounts::Mount;
use crate::fs::types::NodeId;
use crate::sys::errno::{Errno, Result};
use crate::sys::fd_cell::{FdCell, FdLease};
use crate::sys::file_handle::FileHandle;
use crate::sys::meta::{self, FileStat};

/// A file that is reached by descriptor or by handle. See the module head.
#[derive(Debug)]
pub(in crate::passthrough) struct Movable {
    pinned: FdCell,
    budget: Arc<FdBudget>,
    mount: Weak<Mount>,
    /// Known once it was needed.
    handle: OnceLock<FileHandle>,
    kind: Kind,
    /// Where in the clock, once it is a node.
    ring: Option<RingIndex>,
    /// Whether its ring knows it, which alone touches this.
    pub(super) is_in_ring: AtomicBool,
    /// Used since the clock's hand came by, or since it became cold.
    used: AtomicBool,
    /// When its file was made, once that tells it from others.
    birth: Birth,
}

impl Movable {
    /// A file that is pinned.
    pub(super) fn pinned(mount: &Arc<Mount>, kind: Kind, fd: OwnedFd, ticket: FdTicket) -> Self {
        let node = Self::new(mount, kind);
        // It is empty, so nothing comes back.
        if node.pinned.put(fd).is_ok() {
            ticket.spend();
        }
        node
    }

    /// A file that is known by its handle only, and is open at this moment.
    pub(super) fn cold(
        mount: &Arc<Mount>,
        kind: Kind,
        handle: FileHandle,
        stat: &FileStat,
    ) -> Self {
        let node = Self::new(mount, kind);
        node.note_birth(mount, stat);
        // It is empty: nobody else has seen the node yet.
        let _ = node.handle.set(handle);
        node
    }

    fn new(mount: &Arc<Mount>, kind: Kind) -> Self {
        Movable {
            pinned: FdCell::new(),
            budget: Arc::clone(mount.budget()),
            mount: Arc::downgrade(mount),
            handle: OnceLock::new(),
            kind,
            ring: None,
            is_in_ring: AtomicBool::new(false),
            used: AtomicBool::new(false),
            birth: Birth::default(),
        }
    }

    fn note_birth(&self, mount: &Mount, stat: &FileStat) {
        if mount.dates_births() {
            self.birth.note(stat, SystemTime::now());
        }
    }

    /// Whether a file with its identity is surely its own, although it is cold.
    pub(super) fn is_surely(&self, stat: &FileStat) -> bool {
        self.birth.is_of(stat)
    }

    /// It becomes the node with this number. The clock counts it, and is told of it when the
    /// number leads to it (see [`Self::show_to_clock`]).
    pub(super) fn become_node(&mut self, number: NodeId) {
        let ring = RingIndex::of(number);
        self.ring = Some(ring);
        if self.is_pinned() {
            self.budget.clock.count_one_more(self.kind, ring);
        }
    }

    /// Lets the clock's hand come by, if it is pinned.
    pub(super) fn show_to_clock(&self, number: NodeId) {
        if let Some(ring) = self.ring
            && self.is_pinned()
        {
            self.budget.clock.add(self.kind, ring, number, self);
        }
    }

    /// Leaves what the clock remembers of it to be cleared away. The caller holds no lock.
    pub(super) fn leave_clock(&self, number: NodeId) {
        self.budget.clock.some_are_gone(self.kind, number);
    }

    /// A descriptor for the file, which is the node `number`. Costs no system call while it is
    /// pinned.
    ///
    /// # Errors
    /// `ESTALE` when it is cold and gone; what open_by_handle_at(2) says.
    pub(super) fn reach(&self, number: NodeId) -> Result<NodeFd<'_>> {
        if let Some(lease) = self.pinned.lease() {
            self.touch();
            return Ok(NodeFd::Shared(lease));
        }
        let mount = self.mount.upgrade().ok_or(Errno::ESTALE)?;
        let handle = self.handle.get().ok_or(Errno::ESTALE)?;
        let budget = mount.budget();
        let fd = budget.with_room(|| mount.pin(handle))?;
        // Relaxed here and below: the bit is a hint.
        let was_used = self.used.swap(true, Ordering::Relaxed);
        let ticket = match budget.try_take() {
            None if was_used => budget.clock.put_idle_one_out(),
            taken => taken,
        };
        Ok(match ticket {
            Some(ticket) => self.pin(number, fd, ticket),
            None => NodeFd::Opened(fd),
        })
    }

    /// Keeps `fd`, which is known to hold this file, the node `number`, if it is cold and there is
    /// a ticket left; or if it is asked for a second time, and one that is idle can be put out
    /// for it. Otherwise each look-up of a name that is in use would go the long way.
    pub(super) fn repin(&self, number: NodeId, fd: OwnedFd, interest: Interest) {
        let was_used = self.used.swap(true, Ordering::Relaxed);
        if self.is_pinned() || self.mount.strong_count() == 0 {
            return;
        }
        let ticket = match self.budget.try_take() {
            None if was_used && interest == Interest::Asked => self.budget.clock.put_idle_one_out(),
            taken => taken,
        };
        match ticket {
            Some(ticket) => drop(self.pin(number, fd, ticket)),
            // Not worth another try soon.
            None => self.used.store(false, Ordering::Relaxed),
        }
    }

    /// Whether the guest has shown interest since the clock's hand came by, or since it became
    /// cold.
    pub(super) fn was_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    fn pin(&self, number: NodeId, fd: OwnedFd, ticket: FdTicket) -> NodeFd<'_> {
        let ring = RingIndex::of(number);
        // Counted before anybody can put it out and count it off.
        self.budget.clock.count_one_more(self.kind, ring);
        match self.pinned.put(fd) {
            Ok(lease) => {
                ticket.spend();
                self.budget.clock.add(self.kind, ring, number, self);
                NodeFd::Shared(lease)
            }
            // Somebody was faster.
            Err(fd) => {
                self.budget.clock.count_one_less(self.kind, ring);
                self.pinned
                    .lease()
                    .map_or(NodeFd::Opened(fd), NodeFd::Shared)
            }
        }
    }

    /// Whether a descriptor is kept at this moment.
    pub(super) fn is_pinned(&self) -> bool {
        self.pinned.is_full()
    }

    /// The guest has just shown interest.
    pub(super) fn touch(&self) {
        // Looked at first, so that threads that share a node do not fight for its cache line.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was used since this was asked last.
    pub(super) fn take_second_chance(&self) -> bool {
        self.used.load(Ordering::Relaxed) && self.used.swap(false, Ordering::Relaxed)
    }

    /// Whether this is the file with that handle. Only what was cold once can say so.
    pub(super) fn is_named(&self, handle: &FileHandle) -> bool {
        self.handle.get() == Some(handle)
    }

    /// Its handle, found out if need be; nothing if that cannot be done.
    pub(super) fn name(&self) -> Option<FileHandle> {
        if let Some(lease) = self.pinned.lease() {
            self.find_name(&lease);
        }
        self.handle.get().cloned()
    }

    /// Its mount, if anything else still needs that.
    pub(super) fn mount(&self) -> Option<Arc<Mount>> {
        self.mount.upgrade()
    }

    /// Closes the descriptor and gives its ticket, unless an operation is at work with it, or
    /// there would be no way back.
    pub(super) fn put_out(&self) -> Option<FdTicket> {
        let lease = self.pinned.lease()?;
        if !self.has_way_back(&lease) {
            self.touch();
            return None;
        }
        drop(lease);
        let put_out = self.unpin()?;
        self.used.store(false, Ordering::Relaxed);
        Some(put_out.close())
    }

    /// Whether it could be reached again without its descriptor. Finds the handle out.
    pub(super) fn could_be_cold(&self) -> bool {
        match self.pinned.lease() {
            Some(lease) => self.has_way_back(&lease),
            None => true,
        }
    }

    fn has_way_back(&self, lease: &FdLease<'_>) -> bool {
        // In this order: most that are let go have just been removed, and need no name any more.
        let stat = meta::stat_fd(lease.as_fd());
        let Some(stat) = stat.ok().filter(|stat| stat.nlink != 0) else {
            return false;
        };
        if let Some(mount) = self.mount.upgrade() {
            self.note_birth(&mount, &stat);
        }
        self.find_name(lease);
        self.handle.get().is_some()
    }

    fn find_name(&self, lease: &FdLease<'_>) {
        if self.handle.get().is_none()
            && let Ok(handle) = FileHandle::of_fd(lease.as_fd())
        {
            // Whoever was faster has found the same.
            let _ = self.handle.set(handle);
        }
    }

    /// Takes the descriptor away, unless an operation is at work with it; the caller drops it
    /// when it holds no lock. Only after [`Self::could_be_cold`], or at the end.
    pub(super) fn unpin(&self) -> Option<HeldFd> {
        let fd = self.pinned.take_idle()?;
        if let Some(ring) = self.ring {
            self.budget.clock.count_one_less(self.kind, ring);
        }
        Some(HeldFd::new(fd, self.budget.taken_back()))
    }
}

impl Drop for Movable {
    fn drop(&mut self) {
        drop(self.unpin());
    }
}
