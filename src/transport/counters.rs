//! What: numbers that tell how a connection went.
//!
//! In: events that a guest or a front end can cause. Out: relaxed counters. Does not: decide or log
//! anything.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one connection, for people to read. Relaxed throughout: nothing is ordered by them.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests returned with length 0 although a reply was due.
    pub(super) dropped_requests: AtomicU64,
    /// Signals that could not be delivered.
    pub(super) lost_signals: AtomicU64,
    /// Times that a queue stopped for a ring that was wrong.
    pub(super) broken_queues: AtomicU64,
    /// Requests that cost a panic.
    pub(super) handler_panics: AtomicU64,
    /// Messages of the front end that were refused.
    pub(super) refused_messages: AtomicU64,
    /// Requests that waited on their queue's thread for want of another.
    pub(super) refused_threads: AtomicU64,
}

impl Counters {
    /// Counts one event.
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that there was no thread for; true the first time.
    pub(super) fn note_refused_thread(&self) -> bool {
        self.refused_threads.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// Whether anything is worth a line at the end.
    pub(super) fn is_clean(&self) -> bool {
        self.list()
            .iter()
            .all(|(_, counter)| counter.load(Ordering::Relaxed) == 0)
    }

    fn list(&self) -> [(&'static str, &AtomicU64); 6] {
        [
            ("dropped requests", &self.dropped_requests),
            ("lost signals", &self.lost_signals),
            ("broken queues", &self.broken_queues),
            ("panics", &self.handler_panics),
            ("refused messages", &self.refused_messages),
            ("refused threads", &self.refused_threads),
        ]
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, counter) in self.list() {
            write!(f, "{separator}{name} {}", counter.load(Ordering::Relaxed))?;
            separator = ", ";
        }
        Ok(())
    }
}
