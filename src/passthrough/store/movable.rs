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
//! Invariants: what is cold has its handle; a descriptor is closed when the last operation with
//! it ends; a file without a name is never put out, since the handle would lead nowhere as soon
//! as nobody has it open. Locks: `state`, a leaf, never held across a system call. Does not: own
//! the mount: when that is gone, so is every way to what is cold.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};

use super::clock::{Kind, Membership};
use super::fd_budget::{FdBudget, FdTicket};
use super::inode::NodeFd;
use super::mounts::Mount;
use crate::sys::errno::{Errno, Result};
use crate::sys::file_handle::FileHandle;
use crate::sys::meta;

/// A descriptor that a node keeps. Fields are dropped in this order: a ticket is given back
/// when its descriptor is closed.
#[derive(Debug)]
pub(in crate::passthrough) struct PinnedFd {
    fd: OwnedFd,
    node: Weak<Movable>,
    membership: Membership,
    ticket: FdTicket,
}

impl PinnedFd {
    /// The node, unless it is just going away.
    pub(super) fn node(&self) -> Option<Arc<Movable>> {
        self.node.upgrade()
    }

    fn close(self) -> FdTicket {
        drop(self.fd);
        drop(self.membership);
        self.ticket
    }
}

impl AsFd for PinnedFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A file that is reached by descriptor or by handle. See the module head.
#[derive(Debug)]
pub(in crate::passthrough) struct Movable {
    mount: Weak<Mount>,
    kind: Kind,
    /// Known once it was needed.
    handle: OnceLock<FileHandle>,
    state: RwLock<Option<Arc<PinnedFd>>>,
    /// Used since the clock's hand came by, or since it became cold.
    used: AtomicBool,
}

impl Movable {
    /// A file that is pinned.
    pub(super) fn pinned(
        mount: &Arc<Mount>,
        kind: Kind,
        fd: OwnedFd,
        ticket: FdTicket,
    ) -> Arc<Self> {
        let node = Arc::new(Self::new(mount, kind));
        node.pin(fd, ticket, mount.budget());
        node
    }

    /// A file that is known by its handle only.
    pub(super) fn cold(mount: &Arc<Mount>, kind: Kind, handle: FileHandle) -> Arc<Self> {
        let node = Self::new(mount, kind);
        // It is empty: nobody else has seen the node yet.
        let _ = node.handle.set(handle);
        Arc::new(node)
    }

    fn new(mount: &Arc<Mount>, kind: Kind) -> Self {
        Movable {
            mount: Arc::downgrade(mount),
            kind,
            handle: OnceLock::new(),
            state: RwLock::new(None),
            used: AtomicBool::new(false),
        }
    }

    /// A descriptor for the file. Costs no system call while it is pinned.
    ///
    /// # Errors
    /// `ESTALE` when it is cold and gone; what open_by_handle_at(2) says.
    pub(super) fn reach(self: &Arc<Self>) -> Result<NodeFd<'static>> {
        if let Some(pinned) = self.present() {
            self.touch();
            return Ok(NodeFd::Shared(pinned));
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
            Some(ticket) => NodeFd::Shared(self.pin(fd, ticket, budget)),
            None => NodeFd::Opened(fd),
        })
    }

    /// Keeps `fd`, which is known to hold this file, if there is a ticket left and it is cold.
    pub(super) fn repin(self: &Arc<Self>, fd: OwnedFd) {
        let Some(mount) = self.mount.upgrade() else {
            return;
        };
        if self.is_pinned() {
            return;
        }
        if let Some(ticket) = mount.budget().try_take() {
            self.pin(fd, ticket, mount.budget());
        }
    }

    fn pin(
        self: &Arc<Self>,
        fd: OwnedFd,
        ticket: FdTicket,
        budget: &Arc<FdBudget>,
    ) -> Arc<PinnedFd> {
        let fresh = Arc::new(PinnedFd {
            fd,
            node: Arc::downgrade(self),
            membership: Membership::new(budget, self.kind),
            ticket,
        });
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(present) = &*state {
            // Somebody was faster. `fresh` is closed after the lock is released.
            let present = Arc::clone(present);
            drop(state);
            return present;
        }
        *state = Some(Arc::clone(&fresh));
        drop(state);
        budget.clock.add(&fresh.membership, &fresh);
        fresh
    }

    fn present(&self) -> Option<Arc<PinnedFd>> {
        self.state
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether a descriptor is kept at this moment.
    pub(super) fn is_pinned(&self) -> bool {
        self.state
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
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
        if let Some(pinned) = self.present() {
            self.find_name(&pinned);
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
        let pinned = self.present()?;
        if !self.has_way_back(&pinned) {
            self.touch();
            return None;
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        // One reference is the state's and one ours. New ones come only from the state.
        let is_idle = state.as_ref().is_some_and(|present| {
            Arc::ptr_eq(present, &pinned) && Arc::strong_count(present) == 2
        });
        if !is_idle {
            return None;
        }
        *state = None;
        drop(state);
        self.used.store(false, Ordering::Relaxed);
        // Nothing when the clock has looked at it in between: the ticket is given back then.
        Arc::into_inner(pinned).map(PinnedFd::close)
    }

    /// Whether it could be reached again without its descriptor. Finds the handle out.
    pub(super) fn could_be_cold(&self) -> bool {
        match self.present() {
            Some(pinned) => self.has_way_back(&pinned),
            None => true,
        }
    }

    fn has_way_back(&self, pinned: &PinnedFd) -> bool {
        self.find_name(pinned);
        self.handle.get().is_some()
            && meta::stat_fd(pinned.as_fd()).is_ok_and(|stat| stat.nlink != 0)
    }

    fn find_name(&self, pinned: &PinnedFd) {
        if self.handle.get().is_none()
            && let Ok(handle) = FileHandle::of_fd(pinned.as_fd())
        {
            // Whoever was faster has found the same.
            let _ = self.handle.set(handle);
        }
    }

    /// Takes the descriptor away; the caller drops it when it holds no lock. Only after
    /// [`Self::could_be_cold`].
    pub(super) fn unpin(&self) -> Option<Arc<PinnedFd>> {
        self.state
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}
