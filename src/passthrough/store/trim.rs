//! What: the moment to give memory back to the system.
//!
//! In: how many nodes were forgotten. Out: nothing, but a thread for a few seconds, when they
//! were so many that it is worth the while and no more are. Invariants: at most one such thread;
//! requests only count. Does not: free anything that is in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::sys::heap;

/// Nodes that have to be forgotten first: a few megabytes.
const NODES_MIN: usize = 16_384;
/// What is forgotten comes in rows; the row has ended when none came for so long.
const PAUSE: Duration = Duration::from_secs(1);
/// Pauses that are waited for, if the row does not end.
const PAUSES_MAX: usize = 30;

/// Counts what was forgotten.
#[derive(Debug, Default)]
pub(super) struct Trim {
    forgotten: AtomicUsize,
    is_waiting: AtomicBool,
}

impl Trim {
    /// So many nodes are gone.
    pub(super) fn note(self: &Arc<Self>, count: usize) {
        // Relaxed here and below: a hint, by which nothing else is read.
        let before = self.forgotten.fetch_add(count, Ordering::Relaxed);
        if before.saturating_add(count) < NODES_MIN || self.is_waiting.load(Ordering::Relaxed) {
            return;
        }
        if self.is_waiting.swap(true, Ordering::Relaxed) {
            return;
        }
        let trim = Arc::clone(self);
        let started = thread::Builder::new()
            .name("virtiofsd-trim".to_owned())
            .spawn(move || trim.wait_and_trim());
        if started.is_err() {
            // Memory stays for another time; the next row asks again.
            self.forgotten.store(0, Ordering::Relaxed);
            self.is_waiting.store(false, Ordering::Relaxed);
        }
    }

    fn wait_and_trim(&self) {
        let mut seen = self.forgotten.load(Ordering::Relaxed);
        for _ in 0..PAUSES_MAX {
            thread::sleep(PAUSE);
            let now = self.forgotten.load(Ordering::Relaxed);
            if now == seen {
                break;
            }
            seen = now;
        }
        self.forgotten.store(0, Ordering::Relaxed);
        heap::give_back_free_pages();
        self.is_waiting.store(false, Ordering::Relaxed);
    }
}
