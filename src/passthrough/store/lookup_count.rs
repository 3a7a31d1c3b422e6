//! What: how many lookups of a node the guest holds.
//!
//! In: lookups granted and given back. Out: whether any is left. Invariants: the count never goes
//! below 0; it leaves 0 only under the lock of the node's identity shard, under which `inodes`
//! looks at it again before it takes a node away. Does not: know what becomes of the node.

use super::table_sync::{AtomicU64, Ordering};

/// A number of lookups.
#[derive(Debug)]
pub(super) struct LookupCount(AtomicU64);

impl LookupCount {
    /// The count of a node for which the first was granted.
    pub(super) fn one() -> Self {
        LookupCount(AtomicU64::new(1))
    }

    /// Whether there is any at this moment.
    pub(super) fn is_held(&self) -> bool {
        // Acquire: partner of the changes below.
        self.0.load(Ordering::Acquire) != 0
    }

    /// One more. Only under the lock.
    pub(super) fn add(&self) {
        // AcqRel here and in `take` order the counts of one node; whether a node may go is
        // decided under the lock.
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    /// One more, unless there is none. Needs no lock.
    pub(super) fn add_if_held(&self) -> bool {
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |lookups| {
                (lookups != 0).then(|| lookups.saturating_add(1))
            })
            .is_ok()
    }

    /// So many less, but not below 0. True if none is left.
    pub(super) fn take(&self, count: u64) -> bool {
        let before = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |lookups| {
                Some(lookups.saturating_sub(count))
            });
        before.unwrap_or(0) <= count
    }
}
