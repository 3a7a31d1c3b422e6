//! What: files that the guest has not open, still open for reading.
//!
//! In: what RELEASE would close, if it was opened for reading and nothing else, and files that
//! were opened to read attributes. Out: the same, for the next OPEN of that node or the next of
//! its attributes. Opening takes three system calls' time and closing one, of which a guest that
//! goes over the same files (headers, scripts, libraries) is spared both.
//!
//! Invariants: a descriptor belongs to one open file of the guest at a time, so what a descriptor
//! has of its own (readahead, errors not told yet) is never shared. It is used again for an OPEN
//! only if nothing about its file has changed since it was opened, its mode and owner included:
//! whoever may not open the file any more would notice otherwise. Each is counted in the budget,
//! and all are the first to go when that is used up; one goes when its node does. Locks: one slot
//! at a time, and nothing else under it. Does not: look at files, see `open` and `reuse`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::contents::ContentsStamp;
use super::fd_budget::HeldFd;
use crate::fs::types::NodeId;

/// The most files that are kept.
const SLOT_COUNT: usize = 4096;

/// Of the descriptors for the guest, one of so many may be kept for nothing.
const BUDGET_SHARE: usize = 8;

/// A file that is open for reading, and the state it was opened in.
#[derive(Debug)]
pub(in crate::passthrough) struct IdleReader {
    /// The file.
    pub(in crate::passthrough) file: HeldFd,
    /// Its state then; none for a file that no OPEN shall get.
    pub(in crate::passthrough) state: Option<ContentsStamp>,
}

/// Nobody has this number.
const NO_NODE: u64 = 0;

#[derive(Debug, Default)]
struct Slot {
    /// Whose file it holds, to look at without the lock. Only a hint.
    node: AtomicU64,
    /// Whose attributes were asked for last, without a file to read them by.
    asked: AtomicU64,
    held: Mutex<Option<(NodeId, IdleReader)>>,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<(NodeId, IdleReader)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exchange(&self, new: Option<(NodeId, IdleReader)>) -> Option<IdleReader> {
        let node = new.as_ref().map_or(NO_NODE, |(node, _)| node.raw());
        let mut held = self.lock();
        // Relaxed here and below: see the field.
        self.node.store(node, Ordering::Relaxed);
        std::mem::replace(&mut *held, new).map(|(_, reader)| reader)
    }
}

/// The files. A node has one place, which it shares with others.
#[derive(Debug)]
pub(in crate::passthrough) struct IdleReaders {
    slots: Box<[Slot]>,
}

impl IdleReaders {
    /// None yet, and few enough for a budget of `budget_max` descriptors.
    pub(in crate::passthrough) fn new(budget_max: usize) -> Self {
        let count = (budget_max / BUDGET_SHARE).min(SLOT_COUNT);
        let slots = std::iter::repeat_with(Slot::default).take(count);
        IdleReaders {
            slots: slots.collect(),
        }
    }

    /// Whether there is probably a file of this node.
    pub(in crate::passthrough) fn may_hold(&self, node: NodeId) -> bool {
        let slot = self.slot(node);
        slot.is_some_and(|slot| slot.node.load(Ordering::Relaxed) == node.raw())
    }

    /// Takes the file of a node out.
    pub(in crate::passthrough) fn take(&self, node: NodeId) -> Option<IdleReader> {
        if !self.may_hold(node) {
            return None;
        }
        let slot = self.slot(node)?;
        let mut held = slot.lock();
        let (_, reader) = held.take_if(|(holder, _)| *holder == node)?;
        slot.node.store(NO_NODE, Ordering::Relaxed);
        Some(reader)
    }

    /// Whether the attributes of a node were asked for before, and nothing else since that has the
    /// same place. Then the next time is a first time again.
    pub(in crate::passthrough) fn is_asked_again(&self, node: NodeId) -> bool {
        let Some(slot) = self.slot(node) else {
            return false;
        };
        // Relaxed: a guess.
        let again = slot.asked.load(Ordering::Relaxed) == node.raw();
        let next = if again { NO_NODE } else { node.raw() };
        slot.asked.store(next, Ordering::Relaxed);
        again
    }

    /// Keeps the file of a node, in the place of another one.
    pub(in crate::passthrough) fn put(&self, node: NodeId, reader: IdleReader) {
        if let Some(slot) = self.slot(node) {
            // What comes out is closed without the lock.
            drop(slot.exchange(Some((node, reader))));
        }
    }

    /// Closes all, and gives their number; one that is put meanwhile may stay. Cheap when there are
    /// none: a guest without descriptors to spare makes us ask each time.
    pub(in crate::passthrough) fn clear(&self) -> usize {
        let slots = self.slots.iter();
        let held = slots.filter(|slot| slot.node.load(Ordering::Relaxed) != NO_NODE);
        held.filter_map(|slot| slot.exchange(None)).count()
    }

    fn slot(&self, node: NodeId) -> Option<&Slot> {
        // Node ids are numbered one after the other, and so are the files that a guest goes over.
        let count = u64::try_from(self.slots.len()).ok()?;
        let index = node.raw().checked_rem(count)?;
        self.slots.get(usize::try_from(index).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fd_budget::FdBudget;
    use super::*;
    use std::fs::File;
    use std::sync::Arc;

    fn reader(budget: &Arc<FdBudget>) -> IdleReader {
        let file = File::open("/dev/null").unwrap().into();
        IdleReader {
            file: HeldFd::new(file, budget.take().unwrap()),
            state: ContentsStamp::of_nanos(7),
        }
    }

    #[test]
    fn take_gives_what_was_put_for_the_same_node_once() {
        let budget = FdBudget::new(64);
        let readers = IdleReaders::new(64);
        let (node, neighbour) = (NodeId::new(100), NodeId::new(101));
        readers.put(node, reader(&budget));
        assert!(readers.take(neighbour).is_none());
        assert!(readers.take(node).is_some());
        assert!(readers.take(node).is_none());
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn put_closes_what_had_the_place() {
        let budget = FdBudget::new(64);
        let readers = IdleReaders::new(64);
        let (node, other) = (NodeId::new(100), NodeId::new(108));
        readers.put(node, reader(&budget));
        readers.put(other, reader(&budget));
        assert_eq!(budget.used(), 1);
        assert!(readers.take(node).is_none());
        assert_eq!(readers.clear(), 1);
        assert_eq!(readers.clear(), 0);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn every_second_time_is_asked_again() {
        let readers = IdleReaders::new(64);
        let (node, same_place) = (NodeId::new(100), NodeId::new(108));
        let asked = [node, node, node, same_place, node, node].map(|it| readers.is_asked_again(it));
        assert_eq!(asked, [false, true, false, false, false, true]);
        assert!(!IdleReaders::new(0).is_asked_again(node));
    }

    #[test]
    fn small_budget_keeps_nothing_open() {
        let budget = FdBudget::new(4);
        let readers = IdleReaders::new(4);
        readers.put(NodeId::new(100), reader(&budget));
        assert!(readers.take(NodeId::new(100)).is_none());
        assert_eq!(budget.used(), 0);
    }
}
