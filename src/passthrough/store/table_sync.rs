//! What: what `table` and `lookup_count` are made of that a model of them replaces (see `model/`).
//!
//! In: nothing. Out: atomics, locks, a cell for a shared object, and the sizes of a table. Does
//! not: contain anything that could be tried out; that is all in those two.

use std::sync::atomic::AtomicUsize;

pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
pub(super) use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwapOption;

/// Slots of the first chunk, as a power of two.
pub(super) const FIRST_CHUNK_BITS: u32 = 10;
/// Lists of free slots, so that two threads seldom meet in one.
pub(super) const FREE_LIST_COUNT: usize = 8;
/// Objects that a slot may have had before it is used no more.
pub(super) const GENERATIONS: u32 = u32::MAX;

/// A place for a shared object. Reading it takes no lock and no write to memory that another
/// thread reads, apart from the object's own reference count.
#[derive(Debug)]
pub(super) struct Cell<T>(ArcSwapOption<T>);

impl<T> Cell<T> {
    /// An empty place.
    pub(super) fn new() -> Self {
        Cell(ArcSwapOption::const_empty())
    }

    /// What is there, if it is what the caller looks for.
    pub(super) fn get_if(&self, is_right: impl FnOnce(&T) -> bool) -> Option<Arc<T>> {
        let present = self.0.load();
        present.as_ref().filter(|object| is_right(object)).cloned()
    }

    /// Puts an object, or nothing, there. Costs some 30 ns for each thread of the process.
    pub(super) fn replace(&self, object: Option<Arc<T>>) -> Option<Arc<T>> {
        self.0.swap(object)
    }
}

/// The list of free slots that this thread should use first.
pub(super) fn own_list() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        // Relaxed: threads only have to differ.
        static LIST: usize = THREADS.fetch_add(1, Ordering::Relaxed) % FREE_LIST_COUNT;
    }
    LIST.with(|list| *list)
}
