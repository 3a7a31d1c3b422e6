//! What: `table_sync.rs` of the daemon for loom, and a table small enough to try everything.
//!
//! In and out: as there.

pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
pub(super) use loom::sync::{Arc, Mutex};
pub(super) use std::sync::{OnceLock, PoisonError};

/// Every second slot or so needs another chunk.
pub(super) const FIRST_CHUNK_BITS: u32 = 0;
/// More lists would only keep threads apart.
pub(super) const FREE_LIST_COUNT: usize = 1;
/// Few enough to use up.
pub(super) const GENERATIONS: u32 = 2;

/// A place for a shared object.
#[derive(Debug)]
pub(super) struct Cell<T>(Mutex<Option<Arc<T>>>);

impl<T> Cell<T> {
    pub(super) fn new() -> Self {
        Cell(Mutex::new(None))
    }

    pub(super) fn get_if(&self, is_right: impl FnOnce(&T) -> bool) -> Option<Arc<T>> {
        let present = self.0.lock().unwrap();
        present.as_ref().filter(|object| is_right(object)).cloned()
    }

    pub(super) fn replace(&self, object: Option<Arc<T>>) -> Option<Arc<T>> {
        std::mem::replace(&mut *self.0.lock().unwrap(), object)
    }
}

pub(super) fn own_list() -> usize {
    0
}
