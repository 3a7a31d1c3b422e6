//! What: counters of what the daemon did, cheap enough to be always on.
//!
//! In: one [`Meter::begin`] and one [`Meter::end`] per request. Out: sums, and a table for people
//! and programs ([`Metrics::report`]).
//!
//! ```text
//!   thread --- Meter ---> Slot --+
//!   thread --- Meter ---> Slot --+--> summed up when somebody asks
//!   (ended) ------------> Slot --+    (its counts stay; the next thread that starts goes on there)
//! ```
//!
//! Invariants: a slot is written by one thread at a time, the one that owns its [`Meter`]; so a
//! count is a load and a store (0.6 ns), exact, without a lock prefix (2.5 ns), and on cache lines
//! that no other thread writes (an addition takes 13 to 26 ns on a line that two threads share).
//! No count is ever lost. Counting never waits and never orders anything: every access is relaxed.
//! The lock is taken when a thread gets or gives back its slot, and by whoever reads.
//!
//! Reading the clock twice costs more than all the rest, so of what a thread does often only one
//! request in [`TIMED_EVERY`] is timed, and stands for as many.
//!
//! Does not: decide anything, log anything, or know what the numbers mean.

mod report;
mod times;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub use times::TimeCounts;
use times::Times;

/// So many requests of a thread for an operation are timed one by one, and then one in so many. A
/// prime number, so that guests with a rhythm of their own (look two names up, one of which is
/// missing) do not always have the same kind of request timed.
pub const TIMED_EVERY: u64 = 31;

/// Numbers that are counted one by one; everything beyond counts as number 0, which no operation
/// has. FUSE 7.45 ends at 53.
const NUMBER_COUNT: usize = 64;

/// Counts of one operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperationCount {
    /// Requests that were begun, whether they have ended or not.
    pub requests: u64,
    /// Requests that were answered with an error.
    pub errors: u64,
    /// Bytes of contents that went through the requests without an error.
    pub bytes: u64,
    /// How long they took, as far as those that were timed tell.
    pub times: TimeCounts,
}

/// The counters of one operation, on a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Counter {
    requests: AtomicU64,
    errors: AtomicU64,
    bytes: AtomicU64,
    /// Made when the first request is timed: most threads see few operations.
    times: OnceLock<Box<Times>>,
}

/// The counters of one thread, on cache lines of their own (two, as some processors fetch pairs).
#[derive(Debug)]
#[repr(align(128))]
struct Slot {
    by_number: [Counter; NUMBER_COUNT],
    dropped: AtomicU64,
}

impl Slot {
    fn new() -> Self {
        Slot {
            by_number: std::array::from_fn(|_| Counter::default()),
            dropped: AtomicU64::new(0),
        }
    }

    fn counter(&self, number: u32) -> &Counter {
        entry(&self.by_number, number)
    }
}

/// What belongs to `number`, or to 0 if it is not one of those counted one by one.
fn entry<T>(by_number: &[T; NUMBER_COUNT], number: u32) -> &T {
    let [unknown, ..] = by_number;
    let index = usize::try_from(number).unwrap_or(0);
    by_number.get(index).unwrap_or(unknown)
}

/// Adds to a counter that only this thread writes.
fn add(counter: &AtomicU64, count: u64) {
    let sum = counter.load(Ordering::Relaxed).wrapping_add(count);
    counter.store(sum, Ordering::Relaxed);
}

/// All slots, and those that no thread owns.
#[derive(Debug, Default)]
struct Slots {
    all: Vec<Arc<Slot>>,
    free: Vec<Arc<Slot>>,
}

/// All counters.
#[derive(Debug)]
pub struct Metrics {
    slots: Mutex<Slots>,
    /// Errors that came after the thread had gone on, from any thread. Rare, so shared.
    late_errors: [AtomicU64; NUMBER_COUNT],
}

impl Metrics {
    /// Counters at zero.
    pub fn new() -> Self {
        Metrics {
            slots: Mutex::default(),
            late_errors: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// A slot for the calling thread, or for one thread at a time.
    pub fn meter(self: &Arc<Self>) -> Meter {
        let mut slots = self.lock();
        let slot = slots.free.pop().unwrap_or_else(|| {
            let slot = Arc::new(Slot::new());
            slots.all.push(Arc::clone(&slot));
            slot
        });
        Meter {
            metrics: Arc::clone(self),
            slot,
        }
    }

    /// Counts an error reply to a request for operation `number` that was set aside.
    pub fn count_late_error(&self, number: u32) {
        entry(&self.late_errors, number).fetch_add(1, Ordering::Relaxed);
    }

    /// The sums for operation `number`; 0 stands for all unknown ones.
    pub fn opcode(&self, number: u32) -> OperationCount {
        let slots = self.lock().all.clone();
        let mut sum = OperationCount::default();
        for slot in &slots {
            let counter = slot.counter(number);
            sum.requests += counter.requests.load(Ordering::Relaxed);
            sum.errors += counter.errors.load(Ordering::Relaxed);
            sum.bytes += counter.bytes.load(Ordering::Relaxed);
            if let Some(times) = counter.times.get() {
                sum.times.add(times);
            }
        }
        sum.errors += entry(&self.late_errors, number).load(Ordering::Relaxed);
        sum
    }

    /// Requests that could not be answered at all.
    pub fn dropped(&self) -> u64 {
        let slots = self.lock().all.clone();
        let slots = slots.iter();
        slots.map(|slot| slot.dropped.load(Ordering::Relaxed)).sum()
    }

    /// A table in lines: the names of the columns, then one line for each operation that was asked
    /// for, the most frequent first. The columns, with a blank between two: what `name` says for
    /// the operation's number (0: unknown), requests, errors, bytes, then how long half of those
    /// that were timed, 99 in 100, and the slowest took at most, in microseconds (`-` if none was).
    pub fn report(&self, name: fn(u32) -> &'static str) -> Vec<String> {
        let numbers = (0_u32..).take(NUMBER_COUNT);
        report::lines(numbers.map(|number| (name(number), self.opcode(number))))
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        // Nothing panics while holding it, but for want of memory, which leaves the lists whole.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The right to count in one slot, given back when it is dropped. The counts stay.
#[derive(Debug)]
pub struct Meter {
    metrics: Arc<Metrics>,
    slot: Arc<Slot>,
}

/// A request under way.
#[derive(Debug)]
#[must_use]
pub struct Begun {
    number: u32,
    timer: Option<Timer>,
}

/// A request that is timed.
#[derive(Debug)]
struct Timer {
    since: Instant,
    /// For how many requests it stands.
    weight: u64,
}

impl Timer {
    /// A timer if the request with this index, from 0, is to be timed.
    fn start(index: u64) -> Option<Self> {
        let weight = match index {
            ..TIMED_EVERY => 1,
            _ if index.is_multiple_of(TIMED_EVERY) => TIMED_EVERY,
            _ => return None,
        };
        Some(Timer {
            since: Instant::now(),
            weight,
        })
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Without an error, and so many bytes of contents went through it.
    Done {
        /// Bytes of contents.
        bytes: usize,
    },
    /// Answered with an error.
    Failed,
    /// Not at all so far: it will be begun again, perhaps by another thread, and counts then.
    Postponed,
}

impl Meter {
    /// Whether it counts for `metrics`.
    pub fn is_of(&self, metrics: &Arc<Metrics>) -> bool {
        Arc::ptr_eq(&self.metrics, metrics)
    }

    /// Counts a request for operation `number`.
    pub fn begin(&mut self, number: u32) -> Begun {
        let requests = &self.slot.counter(number).requests;
        let before = requests.load(Ordering::Relaxed);
        requests.store(before.wrapping_add(1), Ordering::Relaxed);
        Begun {
            number,
            timer: Timer::start(before),
        }
    }

    /// Counts how a request ended, and gives the time that it took if it was timed.
    pub fn end(&mut self, begun: Begun, ending: Ending) -> Option<Duration> {
        let counter = self.slot.counter(begun.number);
        match ending {
            Ending::Done { bytes: 0 } => (),
            Ending::Done { bytes } => add(&counter.bytes, u64::try_from(bytes).unwrap_or(0)),
            Ending::Failed => add(&counter.errors, 1),
            Ending::Postponed => {
                let requests = counter.requests.load(Ordering::Relaxed);
                let requests = requests.wrapping_sub(1);
                counter.requests.store(requests, Ordering::Relaxed);
                return None;
            }
        }
        let Timer { since, weight } = begun.timer?;
        let elapsed = since.elapsed();
        let times = counter.times.get_or_init(Box::default);
        times.note(elapsed, weight);
        Some(elapsed)
    }

    /// Counts a request that could not be answered at all.
    pub fn count_dropped(&mut self) {
        add(&self.slot.dropped, 1);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        // The lock orders what this thread has counted before what the next owner counts.
        self.metrics.lock().free.push(Arc::clone(&self.slot));
    }
}

#[cfg(test)]
mod tests;
