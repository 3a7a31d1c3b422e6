//! What: which owner of POSIX locks waits for which, to find out when they wait in a circle.
//!
//! In: an owner that is about to wait, and one that is in its way. Out: `EDEADLK` if that one
//! waits for it, directly or by others. The kernel does this for locks of processes but not for
//! those of open files, which is what ours are on the host.
//!
//! Limits, by design: only owners of this guest are seen, not the host's processes nor other
//! guests. An owner that waits several times at once (threads) is known by its latest wait, and
//! one that has several others in its way by one of them; the next is looked at when that one has
//! gone, so a circle that lasts is found in the end. A guest's own open-file locks look like
//! those of processes here, so a circle of them is refused, too, where Linux would let them hang.
//!
//! Lock: its own, taken last.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::fs::types::LockOwner;
use crate::sys::errno::{Errno, Result};

/// How far a chain of waits is followed. The kernel gives up after 10.
const CHAIN_LEN_MAX: usize = 128;

/// See the file head.
#[derive(Debug, Default)]
pub(super) struct WaitGraph {
    waits_for: Mutex<HashMap<LockOwner, LockOwner>>,
}

impl WaitGraph {
    /// Notes that `waiter` waits for `holder`.
    ///
    /// # Errors
    /// `EDEADLK` when `holder` waits for `waiter`; nothing is noted then.
    pub(super) fn add(&self, waiter: LockOwner, holder: LockOwner) -> Result<()> {
        let mut waits_for = self.lock();
        let mut link = Some(holder);
        for _ in 0..CHAIN_LEN_MAX {
            match link {
                Some(owner) if owner == waiter => return Err(Errno::EDEADLK),
                Some(owner) => link = waits_for.get(&owner).copied(),
                None => break,
            }
        }
        waits_for.insert(waiter, holder);
        Ok(())
    }

    /// Notes that `waiter` does not wait for `holder` any more.
    pub(super) fn remove(&self, waiter: LockOwner, holder: LockOwner) {
        let mut waits_for = self.lock();
        // Another wait of the same owner may have taken the place.
        if waits_for.get(&waiter) == Some(&holder) {
            waits_for.remove(&waiter);
        }
    }

    /// Forgets everybody.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LockOwner, LockOwner>> {
        self.waits_for
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// How many owners wait for another.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(raw: u64) -> LockOwner {
        LockOwner::new(raw)
    }

    #[test]
    fn circles_are_refused_and_leave_nothing_behind() {
        let graph = WaitGraph::default();
        graph.add(owner(1), owner(2)).expect("nobody else waits");
        graph.add(owner(2), owner(3)).expect("a chain is no circle");
        assert_eq!(graph.add(owner(3), owner(1)), Err(Errno::EDEADLK));
        assert_eq!(graph.len(), 2);
        graph.remove(owner(2), owner(3));
        graph.add(owner(3), owner(1)).expect("the chain is broken");
    }

    #[test]
    fn remove_of_an_older_wait_leaves_the_newer_one() {
        let graph = WaitGraph::default();
        graph.add(owner(1), owner(2)).expect("no circle");
        graph.add(owner(1), owner(3)).expect("no circle");
        graph.remove(owner(1), owner(2));
        assert_eq!(graph.add(owner(3), owner(1)), Err(Errno::EDEADLK));
    }

    #[test]
    fn circle_that_others_wait_for_does_not_hold_up_the_search() {
        let graph = WaitGraph::default();
        for number in 0..1000 {
            graph
                .add(owner(number), owner(number + 1))
                .expect("a chain");
        }
        assert_eq!(graph.add(owner(1000), owner(999)), Err(Errno::EDEADLK));
        graph
            .add(owner(1000), owner(0))
            .expect("too far to be seen");
        graph
            .add(owner(5000), owner(0))
            .expect("it waits for a circle, but is not in it");
    }
}
