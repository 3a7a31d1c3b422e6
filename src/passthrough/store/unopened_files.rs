//! What: descriptors of files that the guest uses without having opened them (`--no-open`).
//!
//! In: nodes, and descriptors that were opened for them. Out: the same descriptors, for as long
//! as they are used often enough. Invariants: one descriptor for a node; never more than
//! `FILES_MAX`. Locks: one shard at a time, never across a system call; descriptors are closed
//! after it is released. Does not: open anything.
//!
//! When a shard is full, one that was not used since the last time round goes (the clock
//! algorithm): a look-up only sets a mark, so readers do not stand in each other's way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use super::fd_budget::HeldFd;
use super::handles::{Handle, Open};
use super::shards::{NumberMap, SHARD_COUNT, remove, shard_of};
use crate::fs::types::NodeId;

/// Most descriptors that are kept in one shard.
const SHARD_FILES_MAX: usize = 16;

/// Most descriptors that are kept. A file that has lost its own costs open(2) and close(2) when
/// it is used again, so it is of no use to keep many more than a guest works with at a time.
#[cfg(test)]
const FILES_MAX: usize = SHARD_FILES_MAX * SHARD_COUNT;

/// What an operation does with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::passthrough) enum Purpose {
    /// It only looks.
    Look,
    /// It changes the contents, and so needs a descriptor for writing.
    Change,
}

#[derive(Debug)]
struct Kept {
    file: Arc<Handle>,
    purpose: Purpose,
    is_used: AtomicBool,
}

impl Kept {
    fn serves(&self, purpose: Purpose) -> bool {
        self.purpose == Purpose::Change || purpose == Purpose::Look
    }
}

type Shard = NumberMap<Kept>;

/// Descriptors by node.
#[derive(Debug)]
pub(in crate::passthrough) struct UnopenedFiles {
    by_node: [RwLock<Shard>; SHARD_COUNT],
}

impl UnopenedFiles {
    /// None.
    pub(in crate::passthrough) fn new() -> Self {
        UnopenedFiles {
            by_node: std::array::from_fn(|_| RwLock::default()),
        }
    }

    /// A descriptor of a node that does for `purpose`, if one is kept.
    pub(in crate::passthrough) fn get(
        &self,
        node: NodeId,
        purpose: Purpose,
    ) -> Option<Arc<Handle>> {
        let shard = shard_of(&self.by_node, node.raw());
        let map = shard.read().unwrap_or_else(PoisonError::into_inner);
        let kept = map.get(&node.raw()).filter(|kept| kept.serves(purpose))?;
        // Relaxed: a mark that is seen late costs an open(2) at worst.
        kept.is_used.store(true, Ordering::Relaxed);
        Some(Arc::clone(&kept.file))
    }

    /// Keeps a descriptor that was opened for `purpose`, instead of one that does for less.
    pub(in crate::passthrough) fn put(
        &self,
        node: NodeId,
        file: HeldFd,
        purpose: Purpose,
    ) -> Arc<Handle> {
        let file = Arc::new(Handle::of_node(node, Open::File(file)));
        let mut map = self.write(node);
        if map
            .get(&node.raw())
            .is_some_and(|kept| kept.serves(purpose))
        {
            // Another thread was faster. This one is used once.
            return file;
        }
        let evicted = match map.len() >= SHARD_FILES_MAX && !map.contains_key(&node.raw()) {
            true => evict(&mut map),
            false => None,
        };
        let kept = Kept {
            file: Arc::clone(&file),
            purpose,
            is_used: AtomicBool::new(false),
        };
        let replaced = map.insert(node.raw(), kept);
        drop(map);
        drop((evicted, replaced));
        file
    }

    /// Keeps nothing of a node any more.
    pub(in crate::passthrough) fn remove(&self, node: NodeId) {
        let mut map = self.write(node);
        let removed = remove(&mut map, &node.raw());
        drop(map);
        drop(removed);
    }

    /// Keeps nothing any more. Gives how many there were.
    pub(in crate::passthrough) fn clear(&self) -> usize {
        let mut count: usize = 0;
        for shard in &self.by_node {
            let removed =
                std::mem::take(&mut *shard.write().unwrap_or_else(PoisonError::into_inner));
            count = count.saturating_add(removed.len());
        }
        count
    }

    fn write(&self, node: NodeId) -> RwLockWriteGuard<'_, Shard> {
        shard_of(&self.by_node, node.raw())
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes out a descriptor that was not used since the last time, or any if all were.
fn evict(map: &mut Shard) -> Option<Kept> {
    let mut idle = None;
    for (number, kept) in map.iter() {
        if !kept.is_used.swap(false, Ordering::Relaxed) {
            idle = Some(*number);
        }
    }
    let number = idle.or_else(|| map.keys().next().copied())?;
    map.remove(&number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passthrough::store::fd_budget::FdBudget;
    use std::fs::File;

    fn descriptor() -> HeldFd {
        let ticket = FdBudget::new(1).take().unwrap();
        HeldFd::new(File::open("/dev/null").unwrap().into(), ticket)
    }

    fn len(files: &UnopenedFiles) -> usize {
        let lens = files
            .by_node
            .iter()
            .map(|shard| shard.read().unwrap().len());
        lens.sum()
    }

    #[test]
    fn get_gives_what_does_for_the_purpose() {
        let files = UnopenedFiles::new();
        let node = NodeId::new(7);
        assert!(files.get(node, Purpose::Look).is_none());
        let looking = files.put(node, descriptor(), Purpose::Look);
        assert!(Arc::ptr_eq(
            &files.get(node, Purpose::Look).unwrap(),
            &looking
        ));
        assert!(files.get(node, Purpose::Change).is_none());
        let changing = files.put(node, descriptor(), Purpose::Change);
        for purpose in [Purpose::Look, Purpose::Change] {
            assert!(Arc::ptr_eq(&files.get(node, purpose).unwrap(), &changing));
        }
        let slower = files.put(node, descriptor(), Purpose::Look);
        assert!(!Arc::ptr_eq(
            &files.get(node, Purpose::Look).unwrap(),
            &slower
        ));
        assert_eq!(len(&files), 1);
        files.remove(node);
        assert!(files.get(node, Purpose::Look).is_none());
    }

    #[test]
    fn put_keeps_no_more_than_the_limit_and_those_that_are_used() {
        let files = UnopenedFiles::new();
        let used = NodeId::new(1);
        files.put(used, descriptor(), Purpose::Look);
        for number in 2..3_000 {
            files.put(NodeId::new(number), descriptor(), Purpose::Look);
            assert!(files.get(used, Purpose::Look).is_some(), "{number}");
        }
        assert_eq!(len(&files), FILES_MAX);
        files.clear();
        assert_eq!(len(&files), 0);
    }
}
