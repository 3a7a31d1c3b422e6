//! What: counters of what the daemon did, cheap enough to be always on.
//!
//! In: one call per request. Out: sums. Invariant: counting never waits and never orders
//! anything: every access is relaxed, and threads count in slots of their own so that workers do
//! not pull one cache line back and forth. Does not: decide anything or print anything.

use std::sync::atomic::{AtomicU64, Ordering};

/// Slots that threads spread over. More threads than slots share, which is slower, not wrong.
const SLOT_COUNT: usize = 16;

/// Numbers that are counted one by one; everything beyond counts as number 0, which no operation
/// has. FUSE 7.45 ends at 53.
const NUMBER_COUNT: usize = 64;

/// Counts of one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpcodeCount {
    /// Requests, answered or not.
    pub requests: u64,
    /// Requests that were answered with an error.
    pub errors: u64,
}

#[derive(Debug, Default)]
struct Counter {
    requests: AtomicU64,
    errors: AtomicU64,
}

/// Counters of one group of threads, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Slot {
    by_number: [Counter; NUMBER_COUNT],
    dropped: AtomicU64,
}

/// All counters.
#[derive(Debug)]
pub struct Metrics {
    slots: Box<[Slot]>,
}

impl Metrics {
    /// Counters at zero.
    pub fn new() -> Self {
        let slot = || Slot {
            by_number: std::array::from_fn(|_| Counter::default()),
            dropped: AtomicU64::new(0),
        };
        Metrics {
            slots: std::iter::repeat_with(slot).take(SLOT_COUNT).collect(),
        }
    }

    /// Counts a request for operation `number`. `thread` is any number that differs between
    /// threads.
    pub fn count_request(&self, thread: usize, number: u32) {
        if let Some(counter) = self.counter(thread, number) {
            counter.requests.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts an error reply to a request for operation `number`.
    pub fn count_error(&self, thread: usize, number: u32) {
        if let Some(counter) = self.counter(thread, number) {
            counter.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a request that could not be answered at all.
    pub fn count_dropped(&self, thread: usize) {
        if let Some(slot) = self.slots.get(thread % SLOT_COUNT) {
            slot.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The sums for operation `number`; 0 stands for all unknown ones.
    pub fn opcode(&self, number: u32) -> OpcodeCount {
        let mut sum = OpcodeCount::default();
        for thread in 0..SLOT_COUNT {
            if let Some(counter) = self.counter(thread, number) {
                sum.requests += counter.requests.load(Ordering::Relaxed);
                sum.errors += counter.errors.load(Ordering::Relaxed);
            }
        }
        sum
    }

    /// Requests that could not be answered at all.
    pub fn dropped(&self) -> u64 {
        let slots = self.slots.iter();
        slots.map(|slot| slot.dropped.load(Ordering::Relaxed)).sum()
    }

    fn counter(&self, thread: usize, number: u32) -> Option<&Counter> {
        let by_number = &self.slots.get(thread % SLOT_COUNT)?.by_number;
        let known = usize::try_from(number)
            .ok()
            .and_then(|number| by_number.get(number));
        known.or(by_number.first())
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_all_threads_add_up() {
        let metrics = Metrics::new();
        for thread in 0..100 {
            metrics.count_request(thread, 15);
        }
        metrics.count_error(7, 15);
        metrics.count_dropped(99);
        let expected = OpcodeCount {
            requests: 100,
            errors: 1,
        };
        assert_eq!(metrics.opcode(15), expected);
        assert_eq!(metrics.opcode(16), OpcodeCount::default());
        assert_eq!(metrics.dropped(), 1);
    }

    #[test]
    fn unknown_numbers_count_together() {
        let metrics = Metrics::new();
        metrics.count_request(0, 64);
        metrics.count_request(0, u32::MAX);
        assert_eq!(metrics.opcode(0).requests, 2);
    }
}
