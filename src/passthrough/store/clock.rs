//! What: which pinned nodes could do without their descriptor, in the order of a clock.
//!
//! In: nodes as they are pinned. Out: the ticket of one that has been put out. A hand goes over
//! the pinned nodes, passes by those that were used since it came last (second chance) and puts
//! out the first that was not.
//!
//! Invariants: the clock keeps neither node nor descriptor alive; what it remembers of those that
//! are gone is never more than of those that are there. The work of one call is bounded, and so
//! is its patience: after a while it puts out what was used lately, too.
//!
//! ```text
//!   leaves:       hand -> n n n n    files, links, ...: these give first
//!   directories:  hand -> n n        every lookup goes through them: they give when they are
//!                                    more than DIRECTORIES_PER_LEAF times as many
//! ```
//!
//! Locks: one ring at a time, nothing else under it, and none to leave the clock. Does not: pin
//! anything.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::fd_budget::{FdBudget, FdTicket};
use super::movable::PinnedFd;

/// Rings of a kind: pinning on several queues shall seldom meet in one.
const RING_COUNT: usize = 8;
/// Directories are spared as long as there are not that many times as many as leaves.
const DIRECTORIES_PER_LEAF: usize = 4;
/// Nodes that get their second chance in one call; the next is put out though it was used.
const SPARED_MAX: usize = 128;
/// Nodes that one call looks at. Those that cannot be put out (unlinked, in use at this moment)
/// are passed by; a guest may hold many of them.
const VISITS_MAX: usize = 1024;
/// The same for a call that can do without.
const IDLE_VISITS_MAX: usize = 16;
/// What a ring may remember of nodes that are gone, whatever there is of others.
const GONE_KEPT: usize = 64;

/// What the clock tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Anything but a directory.
    Leaf,
    /// A directory.
    Directory,
}

/// All pinned nodes that can be put out.
#[derive(Debug)]
pub(super) struct Clock {
    leaves: Rings,
    directories: Rings,
}

#[derive(Debug)]
struct Rings {
    rings: [Ring; RING_COUNT],
    /// Pinned nodes in all rings.
    count: AtomicUsize,
    /// The ring whose turn it is, to pin and to be looked at.
    turn: AtomicUsize,
}

#[derive(Debug, Default)]
struct Ring {
    nodes: Mutex<VecDeque<Weak<PinnedFd>>>,
    /// Pinned nodes among them.
    count: AtomicUsize,
}

/// The place of a pinned node in the clock. Dropping it leaves the clock.
#[derive(Debug)]
pub(super) struct Membership {
    budget: Arc<FdBudget>,
    kind: Kind,
    ring: usize,
}

impl Clock {
    pub(super) fn new() -> Self {
        Clock {
            leaves: Rings::new(),
            directories: Rings::new(),
        }
    }

    /// Puts one node out and gives its ticket, or nothing if none can be.
    pub(super) fn put_one_out(&self) -> Option<FdTicket> {
        let mut spared: usize = 0;
        for _ in 0..VISITS_MAX {
            let Some(node) = self.next()?.node() else {
                continue;
            };
            if spared < SPARED_MAX && node.take_second_chance() {
                spared = spared.saturating_add(1);
            } else if let Some(ticket) = node.put_out() {
                return Some(ticket);
            }
        }
        None
    }

    /// The same, but only if it takes few steps to one that was not used lately.
    pub(super) fn put_idle_one_out(&self) -> Option<FdTicket> {
        for _ in 0..IDLE_VISITS_MAX {
            let Some(node) = self.next()?.node() else {
                continue;
            };
            if node.take_second_chance() {
                continue;
            }
            if let Some(ticket) = node.put_out() {
                return Some(ticket);
            }
        }
        None
    }

    /// Moves the hand over the kind that has to give.
    fn next(&self) -> Option<Arc<PinnedFd>> {
        // Relaxed here and below: the counts choose, nothing more.
        let leaves = self.leaves.count.load(Ordering::Relaxed);
        let directories = self.directories.count.load(Ordering::Relaxed);
        if leaves >= directories / DIRECTORIES_PER_LEAF {
            self.leaves.next().or_else(|| self.directories.next())
        } else {
            self.directories.next().or_else(|| self.leaves.next())
        }
    }

    /// How many nodes are remembered, gone ones included.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let rings = self.leaves.rings.iter().chain(&self.directories.rings);
        rings
            .map(|ring| {
                ring.nodes
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .len()
            })
            .sum()
    }

    fn rings(&self, kind: Kind) -> &Rings {
        match kind {
            Kind::Leaf => &self.leaves,
            Kind::Directory => &self.directories,
        }
    }

    /// Shows the clock what was pinned. It must hold the membership.
    pub(super) fn add(&self, membership: &Membership, pinned: &Arc<PinnedFd>) {
        if let Some(ring) = self.rings(membership.kind).rings.get(membership.ring) {
            ring.add(Arc::downgrade(pinned));
        }
    }
}

impl Rings {
    fn new() -> Self {
        Rings {
            rings: std::array::from_fn(|_| Ring::default()),
            count: AtomicUsize::new(0),
            turn: AtomicUsize::new(0),
        }
    }

    fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed) % RING_COUNT
    }

    fn next(&self) -> Option<Arc<PinnedFd>> {
        let (before, after) = self.rings.split_at(self.next_turn());
        after.iter().chain(before).find_map(Ring::next)
    }
}

impl Ring {
    fn add(&self, pinned: Weak<PinnedFd>) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.push_back(pinned);
        let count = self.count.load(Ordering::Relaxed);
        if nodes.len() > count.saturating_mul(2).saturating_add(GONE_KEPT) {
            nodes.retain(|pinned| pinned.strong_count() != 0);
            nodes.shrink_to(count.saturating_mul(2));
        }
    }

    /// What is under the hand, which moves on. The caller may be the last to hold it, so it is
    /// looked at and dropped without the lock.
    fn next(&self) -> Option<Arc<PinnedFd>> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(pinned) = nodes.pop_front() {
            if let Some(present) = pinned.upgrade() {
                nodes.push_back(pinned);
                return Some(present);
            }
        }
        None
    }
}

impl Membership {
    /// A place for what is about to be pinned.
    pub(super) fn new(budget: &Arc<FdBudget>, kind: Kind) -> Self {
        let rings = budget.clock.rings(kind);
        let ring = rings.next_turn();
        rings.count.fetch_add(1, Ordering::Relaxed);
        if let Some(ring) = rings.rings.get(ring) {
            ring.count.fetch_add(1, Ordering::Relaxed);
        }
        Membership {
            budget: Arc::clone(budget),
            kind,
            ring,
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let rings = self.budget.clock.rings(self.kind);
        rings.count.fetch_sub(1, Ordering::Relaxed);
        if let Some(ring) = rings.rings.get(self.ring) {
            ring.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
