//! What: a place for a descriptor that many threads use and one may take away.
//!
//! In: an owned descriptor. Out: the same, borrowed for as long as a [`FdLease`] lives, or owned
//! again when nobody borrows it. Invariants: the descriptor is closed by its owner only, who got
//! it from [`FdCell::take_idle`], or when the cell is dropped; neither happens while there is a
//! lease. No call waits, and none makes a system call.
//!
//! ```text
//!   63           32 31            0
//!   [ leases       | descriptor + 1 ]   0 when empty
//! ```
#![expect(unsafe_code, reason = "a descriptor that is borrowed from an atomic")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// One more lease.
const LEASE: u64 = 1 << 32;
/// No more leases beyond this: one that is leaked counts for ever, and the count must not run
/// over.
const LEASES_MAX: u64 = 1 << 31;

/// A place for one descriptor.
#[derive(Debug, Default)]
pub struct FdCell(AtomicU64);

/// A borrowed descriptor. It stays where it is while this lives.
#[derive(Debug)]
pub struct FdLease<'cell> {
    cell: &'cell FdCell,
    fd: RawFd,
}

impl FdCell {
    /// An empty place.
    pub fn new() -> Self {
        FdCell::default()
    }

    /// Whether there is a descriptor at this moment.
    pub fn is_full(&self) -> bool {
        // Acquire: partner of `put`.
        self.0.load(Ordering::Acquire) != 0
    }

    /// The descriptor, if there is one.
    pub fn lease(&self) -> Option<FdLease<'_>> {
        // Acquire: partner of `put`, and when there is none, of `take_idle`. What was done before
        // the descriptor came, or went, is seen here.
        let before = self
            .0
            .fetch_update(Ordering::Acquire, Ordering::Acquire, |state| {
                let may = state != 0 && state / LEASE < LEASES_MAX;
                may.then(|| state.wrapping_add(LEASE))
            });
        let fd = fd_in(before.ok()?)?;
        Some(FdLease { cell: self, fd })
    }

    /// Puts a descriptor into an empty place, and lends it to the caller.
    ///
    /// # Errors
    /// The descriptor, if there is another.
    pub fn put(&self, fd: OwnedFd) -> Result<FdLease<'_>, OwnedFd> {
        let Some(state) = state_of(&fd) else {
            return Err(fd);
        };
        // Release: partner of `lease`, `is_full` and `take_idle`.
        match self
            .0
            .compare_exchange(0, state | LEASE, Ordering::Release, Ordering::Relaxed)
        {
            // It belongs to the cell now.
            Ok(_) => Ok(FdLease {
                cell: self,
                fd: fd.into_raw_fd(),
            }),
            Err(_) => Err(fd),
        }
    }

    /// Takes the descriptor out, unless it is lent or there is none.
    pub fn take_idle(&self) -> Option<OwnedFd> {
        // Acquire: partner of the Release with which leases end; all use of the descriptor came
        // before this. Release: partner of a `lease` that comes too late, which is to find what
        // the caller has put in the descriptor's place.
        let before = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |state| {
                (state / LEASE == 0 && state != 0).then_some(0)
            });
        let fd = fd_in(before.ok()?)?;
        // SAFETY: `fd` is open and nobody else's: `put` gave its ownership to the cell, the
        // exchange has just taken it out, so no other call gets it, and no lease was left.
        Some(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

impl Drop for FdCell {
    fn drop(&mut self) {
        // Leases borrow the cell, so the only ones that are left are leaked, and are used by
        // nobody.
        if let Some(fd) = fd_in(*self.0.get_mut()) {
            // SAFETY: `fd` is open and belongs to the cell since `put`; nothing can ask the cell
            // for it any more.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
}

impl AsFd for FdLease<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: `fd` is not -1, and is open as long as this lease, which what is returned
        // borrows: the cell owns it, and gives or closes it only when no lease is left.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

impl Drop for FdLease<'_> {
    fn drop(&mut self) {
        // Release: partner of `take_idle`.
        self.cell.0.fetch_sub(LEASE, Ordering::Release);
    }
}

fn state_of(fd: &OwnedFd) -> Option<u64> {
    u64::try_from(fd.as_raw_fd()).ok()?.checked_add(1)
}

fn fd_in(state: u64) -> Option<RawFd> {
    RawFd::try_from((state % LEASE).checked_sub(1)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::thread;

    fn null() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn descriptor_is_lent_and_taken_back_when_idle() {
        let cell = FdCell::new();
        assert!(cell.lease().is_none() && cell.take_idle().is_none() && !cell.is_full());
        let fd = null();
        let raw = fd.as_raw_fd();
        drop(cell.put(fd).unwrap());
        assert!(cell.is_full());
        let (one, other) = (cell.lease().unwrap(), cell.lease().unwrap());
        assert_eq!(one.as_fd().as_raw_fd(), raw);
        assert!(cell.put(null()).is_err());
        assert!(cell.take_idle().is_none());
        drop(one);
        assert!(cell.take_idle().is_none());
        drop(other);
        assert_eq!(cell.take_idle().unwrap().as_raw_fd(), raw);
        assert!(!cell.is_full() && cell.take_idle().is_none());
        assert!(cell.put(null()).is_ok());
    }

    #[test]
    fn lease_is_refused_when_there_are_too_many() {
        let cell = FdCell::new();
        drop(cell.put(null()).unwrap());
        cell.0
            .fetch_add((LEASES_MAX - 1) * LEASE, Ordering::Relaxed);
        let last = cell.lease().unwrap();
        assert!(cell.lease().is_none());
        drop(last);
        assert!(cell.lease().is_some());
    }

    #[test]
    fn descriptor_is_never_taken_from_under_a_lease() {
        let cell = FdCell::new();
        drop(cell.put(null()).unwrap());
        let taken: usize = thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if let Some(lease) = cell.lease() {
                            // EBADF if it was closed.
                            lease.as_fd().try_clone_to_owned().unwrap();
                        }
                    }
                });
            }
            let taker = scope.spawn(|| {
                let mut taken = 0;
                while taken < 2_000 {
                    if let Some(fd) = cell.take_idle() {
                        drop(fd);
                        drop(cell.put(null()).unwrap());
                        taken += 1;
                    }
                }
                taken
            });
            taker.join().unwrap()
        });
        assert_eq!(taken, 2_000);
        assert!(cell.is_full());
    }
}
