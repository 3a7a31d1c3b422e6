//! What: how many large copies go on beside those on the queues' own threads.
//!
//! In: the wish of a queue's thread to hand a large READ over, because more requests wait behind
//! it. Out: a [`Copier`], the right to do so, until it is dropped. One processor copies a few
//! gigabytes in a second; a guest that has several such requests under way gets more with two.
//!
//! Invariants: at most half of the processors copy aside for one device, and none if there is one
//! processor only. Only READs: copies into one file wait for each other in the host's kernel, and
//! there two threads are slower than one. Does not: copy.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::wire::opcode::Opcode;

use super::chain::Chain;

/// Room for a reply from which on a READ is large. To wake a thread takes as long as copying some
/// 100 KiB: at depth 8, READs of 1 MiB are 1.2 to 1.5 times as fast with another thread, those of
/// 128 KiB between 0.84 and 1.2 times.
const LARGE_COPY: usize = 256 * 1024;

/// Whether the request of this chain may copy a lot, and beside others.
pub(super) fn is_large_copy(chain: &Chain) -> bool {
    chain.writable_bytes() >= LARGE_COPY
        && chain.peek().is_some_and(|peek| peek.opcode == Opcode::Read)
}

/// The places of one device.
#[derive(Debug)]
pub(super) struct Copiers {
    count: usize,
    taken: AtomicUsize,
}

impl Copiers {
    /// Places for half of the processors that this process may use.
    pub(super) fn for_this_machine() -> Arc<Self> {
        Self::new(thread::available_parallelism().map_or(1, usize::from) / 2)
    }

    /// So many places.
    pub(super) fn new(count: usize) -> Arc<Self> {
        let taken = AtomicUsize::new(0);
        Arc::new(Copiers { count, taken })
    }

    /// A place, if one is free.
    pub(super) fn take(self: &Arc<Self>) -> Option<Copier> {
        // Relaxed here and below: the number is all that counts.
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        let copier = Copier(Arc::clone(self));
        (before < self.count).then_some(copier)
    }
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Copier(Arc<Copiers>);

impl Drop for Copier {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_out_until_none_is_left_and_come_back() {
        let copiers = Copiers::new(2);
        let first = copiers.take().expect("one of two");
        let second = copiers.take().expect("two of two");
        assert!(copiers.take().is_none());
        drop(first);
        let third = copiers.take().expect("one came back");
        drop((second, third));
        assert_eq!(copiers.taken.load(Ordering::Relaxed), 0);
        assert!(Copiers::new(0).take().is_none());
    }
}
