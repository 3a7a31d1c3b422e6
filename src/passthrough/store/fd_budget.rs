//! What: how many descriptors are held for the guest, and what happens when there are no more.
//!
//! In: the most that may be. Out: [`FdTicket`]s, one for each descriptor that stays open after
//! the request that opened it: pinned nodes, open files and directories, mounts. Invariants: no
//! more tickets than the budget exist; a ticket is given back when it is dropped, and its owner
//! closes the descriptor first. When all are taken a node that has not been used for long is
//! put out (see `clock`) and its ticket passes on; only when that cannot be done does the guest
//! see `ENFILE`. Giving back (RELEASE, FORGET, FLUSH) never takes a ticket. Does not: count
//! descriptors that live as long as one request; `settings::guest_fds_for_limit` leaves room for
//! them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::clock::Clock;
use crate::log_limit::guest_log;
use crate::sys::errno::{Errno, Result};

/// The guest can run into the limit as often as it likes; the log says so once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Nodes that are put out when the kernel's own limit is hit, so that not every request hits it.
const PUT_OUT_AT_ONCE: usize = 16;

/// The descriptors that may be held for the guest.
#[derive(Debug)]
pub(in crate::passthrough) struct FdBudget {
    max: usize,
    used: AtomicUsize,
    /// The pinned nodes that could be put out.
    pub(super) clock: Clock,
    created: Instant,
    /// Milliseconds after `created` until which the log stays silent.
    silent_until_ms: AtomicU64,
}

/// The right to hold one descriptor. Close the descriptor before dropping it.
#[derive(Debug)]
pub(in crate::passthrough) struct FdTicket {
    /// Nothing once it was spent.
    budget: Option<Arc<FdBudget>>,
}

impl FdTicket {
    /// Stays taken from the budget without a ticket, until [`FdBudget::taken_back`]. For pinned
    /// nodes, of which there may be a million: they know their budget anyhow.
    pub(super) fn spend(mut self) {
        self.budget = None;
    }
}

/// A descriptor that is held for the guest. Fields are dropped in this order.
#[derive(Debug)]
pub(in crate::passthrough) struct HeldFd {
    fd: OwnedFd,
    ticket: FdTicket,
}

impl HeldFd {
    /// A descriptor, and the ticket that was taken before it was opened: what has been opened,
    /// or even made, is never refused afterwards.
    pub(in crate::passthrough) fn new(fd: OwnedFd, ticket: FdTicket) -> Self {
        HeldFd { fd, ticket }
    }

    /// Closes it, and passes its ticket on.
    pub(super) fn close(self) -> FdTicket {
        drop(self.fd);
        self.ticket
    }
}

impl AsFd for HeldFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl FdBudget {
    /// A budget of `max` descriptors, none of them taken.
    pub(in crate::passthrough) fn new(max: usize) -> Arc<Self> {
        Arc::new(FdBudget {
            max,
            used: AtomicUsize::new(0),
            clock: Clock::new(),
            created: Instant::now(),
            silent_until_ms: AtomicU64::new(0),
        })
    }

    /// A ticket, if there is one left. Puts nothing out.
    pub(in crate::passthrough) fn try_take(self: &Arc<Self>) -> Option<FdTicket> {
        // Relaxed: the number of tickets is all that counts; nothing is published with it.
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                (used < self.max).then(|| used.saturating_add(1))
            })
            .ok()?;
        Some(self.taken_back())
    }

    /// The ticket that was spent on what is no longer held.
    pub(super) fn taken_back(self: &Arc<Self>) -> FdTicket {
        FdTicket {
            budget: Some(Arc::clone(self)),
        }
    }

    /// A ticket, for which a node is put out if there is none left.
    pub(super) fn take_or_put_out(self: &Arc<Self>) -> Option<FdTicket> {
        self.try_take().or_else(|| self.clock.put_one_out())
    }

    /// A ticket for what cannot be had without a descriptor.
    ///
    /// # Errors
    /// `ENFILE` when all are taken and nothing can be put out.
    pub(in crate::passthrough) fn take(self: &Arc<Self>) -> Result<FdTicket> {
        self.take_or_put_out().ok_or_else(|| {
            self.complain();
            Errno::ENFILE
        })
    }

    /// Runs a step that opens something. When the kernel has no descriptor left, though the
    /// budget has, puts nodes out and runs it once more.
    ///
    /// # Errors
    /// What `step` says.
    pub(in crate::passthrough) fn with_room<T>(
        &self,
        mut step: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        match step() {
            Err(Errno::EMFILE | Errno::ENFILE) if self.make_room() => step(),
            done => done,
        }
    }

    fn make_room(&self) -> bool {
        let put_out = (0..PUT_OUT_AT_ONCE).map_while(|_| self.clock.put_one_out());
        put_out.count() > 0
    }

    fn complain(&self) {
        let now = u64::try_from(self.created.elapsed().as_millis()).unwrap_or(u64::MAX);
        let silent_until = self.silent_until_ms.load(Ordering::Relaxed);
        if now < silent_until {
            return;
        }
        let interval = u64::try_from(LOG_INTERVAL.as_millis()).unwrap_or(u64::MAX);
        let next = now.saturating_add(interval).max(1);
        let mine = self.silent_until_ms.compare_exchange(
            silent_until,
            next,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if mine.is_ok() {
            guest_log!(
                log::Level::Warn,
                "the guest uses all of its {} descriptors and gets ENFILE; raise --rlimit-nofile, \
                 and let the daemon use file handles (--inode-file-handles) if it does not",
                self.max
            );
        }
    }

    /// How much the clock remembers.
    #[cfg(test)]
    pub(in crate::passthrough) fn clock_len(&self) -> usize {
        self.clock.len()
    }

    /// How many tickets are out.
    #[cfg(test)]
    pub(in crate::passthrough) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Drop for FdTicket {
    fn drop(&mut self) {
        if let Some(budget) = &self.budget {
            budget.used.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn take_gives_as_many_tickets_as_there_are() {
        for max in [0, 1, 7] {
            let budget = FdBudget::new(max);
            let tickets: Vec<_> = (0..max).map(|_| budget.take().unwrap()).collect();
            assert_eq!(budget.take().unwrap_err(), Errno::ENFILE, "{max}");
            assert_eq!(budget.used(), max);
            drop(tickets);
            assert_eq!(budget.used(), 0);
            assert_eq!(budget.try_take().is_some(), max > 0);
        }
    }

    #[test]
    fn take_by_many_threads_never_exceeds_the_budget() {
        let budget = FdBudget::new(3);
        let excess: usize = thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..10_000)
                            .filter(|_| {
                                let _ticket = budget.try_take();
                                budget.used() > 3
                            })
                            .count()
                    })
                })
                .collect();
            workers.into_iter().map(|w| w.join().unwrap()).sum()
        });
        assert_eq!((excess, budget.used()), (0, 0));
    }

    #[test]
    fn with_room_passes_on_what_cannot_be_helped() {
        let budget = FdBudget::new(9);
        let mut runs = 0;
        let failed: Result<()> = budget.with_room(|| {
            runs += 1;
            Err(Errno::EMFILE)
        });
        assert_eq!((failed, runs), (Err(Errno::EMFILE), 1));
    }
}
