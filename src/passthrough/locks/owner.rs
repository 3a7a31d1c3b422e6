//! What: one owner's locks of one family on one file, and the open file that holds them.
//!
//! In: wishes. Out: locks of an open file description that no other owner shares, so that owners
//! conflict with each other, with other daemons and with processes of the host as processes do.
//! Invariants: what the mirror says is what the kernel holds; when an [`Owner`] is dropped the
//! file is closed, and with it go all locks. How many there may be is bounded by [`Limits`].
//!
//! The file is opened for what the guest's own open file allows, no more: one that is locked for
//! reading can still be executed on the host (`ETXTBSY`).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::ranges::{Freed, RangeSet};
use crate::fs::filesystem::LockRequest;
use crate::fs::types::{HandleId, HeldLock, LockKind, LockOwner, LockRange, LockType};
use crate::passthrough::store::fd_budget::FdTicket;
use crate::passthrough::store::inode::Inode;
use crate::sys::errno::{Errno, Result};
use crate::sys::lock::{self, Access, ByteRange, LockMode};
use crate::sys::meta::FileType;
use crate::sys::open::{self, HostOpenFlags};
use crate::sys::proc_fd::ProcFd;

/// Most owners with a lock, and so descriptors, of a guest.
const OWNERS_MAX: usize = 16_384;

/// Most ranges that a guest can have locked: about 24 MB here and in the kernel.
const RANGES_MAX: usize = 100_000;

/// Ranges that taking one lock can add: itself, and the second part of one that it splits.
const RANGES_PER_LOCK: usize = 2;

/// What all owners of a guest have together, and may have. Relaxed throughout: nothing is ordered
/// by these counts.
#[derive(Debug)]
pub(in crate::passthrough) struct Limits {
    owners: AtomicUsize,
    ranges: AtomicUsize,
    owners_max: usize,
    ranges_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits::new(OWNERS_MAX, RANGES_MAX)
    }
}

impl Limits {
    /// Limits of this height, with nothing used.
    pub(in crate::passthrough) const fn new(owners_max: usize, ranges_max: usize) -> Self {
        Limits {
            owners: AtomicUsize::new(0),
            ranges: AtomicUsize::new(0),
            owners_max,
            ranges_max,
        }
    }

    fn check_ranges(&self, more: usize) -> Result<()> {
        let ranges = self.ranges.load(Ordering::Relaxed).saturating_add(more);
        if ranges > self.ranges_max {
            return Err(Errno::ENOLCK);
        }
        Ok(())
    }

    /// Owners and ranges.
    #[cfg(test)]
    pub(super) fn used(&self) -> (usize, usize) {
        (
            self.owners.load(Ordering::Relaxed),
            self.ranges.load(Ordering::Relaxed),
        )
    }
}

/// Who, and in which family.
pub(super) type OwnerKey = (LockKind, LockOwner);

/// What somebody wants, and what their open file is open for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) request: LockRequest,
    pub(super) access: Access,
}

impl Wish {
    /// Whose it is.
    pub(super) fn key(&self) -> OwnerKey {
        (self.request.kind, self.request.owner)
    }
}

/// What came of trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is held now.
    Yes(Freed),
    /// Somebody is in the way. A lock of flock(2) that was to be changed is lost then.
    No(Freed),
}

/// See the file head.
#[derive(Debug)]
pub(super) struct Owner {
    file: OwnedFd,
    /// Given back after `file` is closed.
    _ticket: FdTicket,
    access: Access,
    ranges: RangeSet,
    /// The guest's open file that the latest lock came through.
    handle: HandleId,
    limits: Arc<Limits>,
}

impl Owner {
    /// Opens a file for whom a wish is from.
    ///
    /// # Errors
    /// `ENOLCK` too many owners, or no descriptor left; `EBADF` for what cannot be locked; what
    /// open(2) says.
    pub(super) fn new(
        limits: &Arc<Limits>,
        proc_fd: &ProcFd,
        inode: &Inode,
        wish: &Wish,
    ) -> Result<Owner> {
        let ticket = inode.ticket().map_err(|_| Errno::ENOLCK)?;
        let (file, access) = open_for(proc_fd, inode, wish.access)?;
        let owners = limits.owners.fetch_add(1, Ordering::Relaxed);
        let owner = Owner {
            file,
            _ticket: ticket,
            access,
            ranges: RangeSet::default(),
            handle: wish.request.handle,
            limits: Arc::clone(limits),
        };
        if owners >= owner.limits.owners_max {
            // Dropping it counts it out again.
            return Err(Errno::ENOLCK);
        }
        Ok(owner)
    }

    /// Whether nothing is held, and the file can be closed.
    pub(super) fn is_idle(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The guest's open file that the latest lock came through.
    pub(super) fn handle(&self) -> HandleId {
        self.handle
    }

    /// What is in the way of somebody else's wish.
    pub(super) fn conflict(&self, range: LockRange, lock_type: LockType) -> Option<HeldLock> {
        self.ranges.conflict(range, lock_type)
    }

    /// Tries to take a lock.
    ///
    /// # Errors
    /// `ENOLCK`; `EBADF` the file is not open for what the lock needs; what fcntl(2) and flock(2)
    /// say.
    pub(super) fn take(&mut self, proc_fd: &ProcFd, inode: &Inode, wish: &Wish) -> Result<Taken> {
        self.limits.check_ranges(RANGES_PER_LOCK)?;
        let request = &wish.request;
        let is_exclusive = request.kind == LockKind::Posix && request.lock_type == LockType::Write;
        if is_exclusive && wish.access.writes && !self.access.writes {
            self.widen(proc_fd, inode, wish.access)?;
        }
        match set(&self.file, request.kind, request.range, request.lock_type) {
            Ok(()) => {
                self.handle = request.handle;
                Ok(Taken::Yes(self.mirror(held(request))))
            }
            Err(Errno::EAGAIN) if request.kind == LockKind::Flock => {
                Ok(Taken::No(self.mirror(unlocked(LockRange::WHOLE_FILE))))
            }
            Err(Errno::EAGAIN) => Ok(Taken::No(Freed::No)),
            Err(errno) => Err(errno),
        }
    }

    /// Gives a range back.
    ///
    /// # Errors
    /// `ENOLCK` when that would make more ranges than there may be; what fcntl(2) says.
    pub(super) fn give_back(&mut self, kind: LockKind, range: LockRange) -> Result<Freed> {
        if self.ranges.is_split_by(range) {
            self.limits.check_ranges(1)?;
        }
        set(&self.file, kind, range, LockType::Unlock)?;
        Ok(self.mirror(unlocked(range)))
    }

    /// What is in the way of this owner.
    ///
    /// # Errors
    /// What fcntl(2) says.
    pub(super) fn holder(&self, request: &LockRequest) -> Result<Option<HeldLock>> {
        let range = bytes(request.range);
        let found = lock::range_holder(self.file.as_fd(), range, mode(request.lock_type))?;
        let Some((range, mode)) = found else {
            return Ok(None);
        };
        let lock_type = match mode {
            LockMode::Shared => LockType::Read,
            LockMode::Exclusive => LockType::Write,
            LockMode::Unlocked => return Ok(None),
        };
        Ok(Some(HeldLock {
            range: LockRange::new(range.start, range.end).map_err(|_| Errno::EIO)?,
            lock_type,
            pid: 0,
        }))
    }

    /// Opens the file for writing as well. The new one locks for reading what the old one does
    /// before that is closed, so nobody can come in between; one that cannot write holds nothing
    /// else.
    fn widen(&mut self, proc_fd: &ProcFd, inode: &Inode, access: Access) -> Result<()> {
        let both = Access {
            reads: true,
            ..access
        };
        let (file, access) = open_for(proc_fd, inode, both)?;
        for held in self.ranges.iter() {
            set(&file, LockKind::Posix, held.range, held.lock_type)?;
        }
        self.file = file;
        self.access = access;
        Ok(())
    }

    fn mirror(&mut self, lock: HeldLock) -> Freed {
        let before = self.ranges.len();
        let freed = self.ranges.apply(lock);
        let ranges = &self.limits.ranges;
        ranges.fetch_add(self.ranges.len(), Ordering::Relaxed);
        ranges.fetch_sub(before, Ordering::Relaxed);
        freed
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let limits = &self.limits;
        limits.owners.fetch_sub(1, Ordering::Relaxed);
        limits
            .ranges
            .fetch_sub(self.ranges.len(), Ordering::Relaxed);
    }
}

/// Opens the file of a node to hold locks. For writing means for reading as well where that is
/// allowed, since an owner may want both kinds in turn.
fn open_for(proc_fd: &ProcFd, inode: &Inode, access: Access) -> Result<(OwnedFd, Access)> {
    let pinned = inode.reach()?;
    let opened = |flags, access| Ok((open::reopen(proc_fd, pinned.as_fd(), flags)?, access));
    let reads = Access {
        reads: true,
        writes: false,
    };
    let result = match inode.file_type {
        FileType::Regular if access.writes => {
            let both = Access {
                reads: true,
                writes: true,
            };
            match opened(HostOpenFlags::RDWR, both) {
                Err(Errno::EACCES) if !access.reads => opened(HostOpenFlags::WRONLY, access),
                done => done,
            }
        }
        FileType::Regular => opened(HostOpenFlags::empty(), reads),
        FileType::Directory => {
            let none = HostOpenFlags::empty();
            open::reopen_directory(proc_fd, pinned.as_fd(), none).map(|file| (file, reads))
        }
        FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharDevice
        | FileType::BlockDevice
        | FileType::Unknown => Err(Errno::EBADF),
    };
    // fcntl(2) and flock(2) know no shortage of descriptors.
    result.map_err(|errno| match errno {
        Errno::EMFILE | Errno::ENFILE => Errno::ENOLCK,
        other => other,
    })
}

fn set(file: &OwnedFd, kind: LockKind, range: LockRange, lock_type: LockType) -> Result<()> {
    match kind {
        LockKind::Posix => lock::set_range(file.as_fd(), bytes(range), mode(lock_type)),
        LockKind::Flock => lock::set_whole(file.as_fd(), mode(lock_type)),
    }
}

fn held(request: &LockRequest) -> HeldLock {
    HeldLock {
        range: request.range,
        lock_type: request.lock_type,
        pid: request.pid,
    }
}

fn unlocked(range: LockRange) -> HeldLock {
    HeldLock {
        range,
        lock_type: LockType::Unlock,
        pid: 0,
    }
}

fn bytes(range: LockRange) -> ByteRange {
    ByteRange {
        start: range.start(),
        end: range.end(),
    }
}

fn mode(lock_type: LockType) -> LockMode {
    match lock_type {
        LockType::Read => LockMode::Shared,
        LockType::Write => LockMode::Exclusive,
        LockType::Unlock => LockMode::Unlocked,
    }
}
