//! What: all that is locked on one file, and who waits there.
//!
//! In: wishes of owners; what they give back. Out: locks, and answers for those who waited.
//!
//! ```text
//!                 free                             free, at a retry
//!   wish --try----------------> held    waiting ---------------------> held, answered
//!          |                             ^   |
//!          | somebody in the way,        |   | retried in the order in which they came:
//!          | and it may wait             |   |   blocked by this guest: when it frees something
//!          +-----------------------------+   |   blocked from outside: by the clock (retry.rs)
//!                                            |
//!                                            +-- INTERRUPT: EINTR.  Its open file or the node
//!                                            |   goes away: EBADF.  A circle: EDEADLK
//!                                            +-- end of the session: dropped
//! ```
//!
//! Invariants: an owner is here as long as it holds something, so one that only waits takes no
//! descriptor; a waiter leaves its place in the wait graph when it leaves. As on a local file
//! system, whoever comes while others wait gets what is free: the order holds among those who
//! wait.
//!
//! Lock: the state's, held over the calls that take locks (which never wait) and while a request
//! is parked; answers are given after it is released. Taken before the wait graph's and the
//! retrier's.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::Shared;
use super::owner::{Owner, OwnerKey, Taken, Wish};
use super::ranges::Freed;
use crate::fs::filesystem::LockRequest;
use crate::fs::late::{LateAnswer, RequestId};
use crate::fs::types::{HandleId, HeldLock, LockKind, LockOwner, LockRange, LockType};
use crate::passthrough::store::inode::Inode;
use crate::sys::errno::{Errno, Result};

/// Who is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blocker {
    /// Another owner of this guest.
    Guest(LockOwner),
    /// A process of the host, or another guest.
    Outside,
}

/// What came of trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tried {
    /// It is done.
    Done,
    /// Somebody is in the way.
    Blocked(Blocker),
}

/// Answers to give once no lock is held.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Answers(Vec<(Box<dyn LateAnswer>, Result<()>)>);

impl Answers {
    /// Gives them.
    pub(super) fn give(self) {
        for (answer, result) in self.0 {
            answer.answer(result);
        }
    }

    /// Gives these, too, and after them.
    pub(super) fn append(&mut self, mut others: Answers) {
        self.0.append(&mut others.0);
    }

    fn add(&mut self, answer: Box<dyn LateAnswer>, result: Result<()>) {
        self.0.push((answer, result));
    }
}

/// Somebody who waits.
#[derive(Debug)]
struct Waiter {
    wish: Wish,
    blocker: Blocker,
    answer: Box<dyn LateAnswer>,
}

/// Which waiters to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// All of them.
    All,
    /// Those whom this guest itself does not block.
    Outside,
}

/// See the file head.
#[derive(Debug)]
pub(super) struct FileLocks {
    inode: Arc<Inode>,
    owners: HashMap<OwnerKey, Owner>,
    waiters: VecDeque<Waiter>,
    freed: Freed,
}

impl FileLocks {
    /// A file on which nothing is locked.
    pub(super) fn new(inode: Arc<Inode>) -> FileLocks {
        FileLocks {
            inode,
            owners: HashMap::new(),
            waiters: VecDeque::new(),
            freed: Freed::No,
        }
    }

    /// Whether nothing is locked and nobody waits.
    pub(super) fn is_idle(&self) -> bool {
        self.owners.is_empty() && self.waiters.is_empty()
    }

    /// Whether somebody waits whom only the clock can help.
    pub(super) fn waits_for_outside(&self) -> bool {
        let is_outside = |waiter: &Waiter| waiter.blocker == Blocker::Outside;
        self.waiters.iter().any(is_outside)
    }

    /// The first lock that stands in the way of a wish.
    ///
    /// # Errors
    /// As `Owner::new` and `Owner::holder`.
    pub(super) fn holder(&self, shared: &Shared, wish: &Wish) -> Result<Option<HeldLock>> {
        let request = &wish.request;
        let found = match self.owners.get(&wish.key()) {
            Some(owner) => owner.holder(request)?,
            None => {
                let asking = Owner::new(&shared.limits, &shared.proc_fd, &self.inode, wish)?;
                asking.holder(request)?
            }
        };
        // The kernel does not say whose open file it is; if it is one of ours we know.
        let process_of = |found: HeldLock| {
            self.others(request)
                .filter_map(|(_, owner)| owner.conflict(found.range, LockType::Write))
                .find(|held| (held.range, held.lock_type) == (found.range, found.lock_type))
                .map_or(0, |held| held.pid)
        };
        Ok(found.map(|found| HeldLock {
            pid: process_of(found),
            ..found
        }))
    }

    /// Takes or gives back a lock if that can be done at once.
    ///
    /// # Errors
    /// As `Owner::new`, `Owner::take` and `Owner::give_back`.
    pub(super) fn attempt(&mut self, shared: &Shared, wish: &Wish) -> Result<Tried> {
        let request = &wish.request;
        if request.lock_type == LockType::Unlock {
            self.give_back(wish.key(), request.range)?;
            return Ok(Tried::Done);
        }
        if let Some(owner) = self.guest_blocker(request) {
            if request.kind == LockKind::Flock {
                // flock(2) gives up what it has before it tries to change it.
                self.drop_owner(wish.key());
            }
            return Ok(Tried::Blocked(Blocker::Guest(owner)));
        }
        let owner = match self.owners.entry(wish.key()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Owner::new(
                &shared.limits,
                &shared.proc_fd,
                &self.inode,
                wish,
            )?),
        };
        let taken = owner.take(&shared.proc_fd, &self.inode, wish);
        if owner.is_idle() {
            self.owners.remove(&wish.key());
        }
        let (tried, freed) = match taken? {
            Taken::Yes(freed) => (Tried::Done, freed),
            Taken::No(freed) => (Tried::Blocked(Blocker::Outside), freed),
        };
        self.note(freed);
        Ok(tried)
    }

    /// Lets somebody wait whose wish was blocked.
    ///
    /// # Errors
    /// `EDEADLK` whoever is in the way waits for them.
    pub(super) fn enter_graph(shared: &Shared, wish: &Wish, blocker: Blocker) -> Result<()> {
        match blocker {
            Blocker::Guest(holder) if wish.request.kind == LockKind::Posix => {
                shared.graph.add(wish.request.owner, holder)
            }
            Blocker::Guest(_) | Blocker::Outside => Ok(()),
        }
    }

    /// Takes back what `enter_graph` did.
    pub(super) fn leave_graph(shared: &Shared, wish: &Wish, blocker: Blocker) {
        if let Blocker::Guest(holder) = blocker
            && wish.request.kind == LockKind::Posix
        {
            shared.graph.remove(wish.request.owner, holder);
        }
    }

    /// Puts somebody at the end of the line who has entered the graph.
    pub(super) fn wait(&mut self, wish: Wish, blocker: Blocker, answer: Box<dyn LateAnswer>) {
        self.waiters.push_back(Waiter {
            wish,
            blocker,
            answer,
        });
    }

    /// Tries waiters in their order, and again all of them for as long as that frees something.
    pub(super) fn retry(&mut self, shared: &Shared, which: Which) -> Answers {
        let mut answers = Answers::default();
        let mut which = which;
        loop {
            self.freed = Freed::No;
            for waiter in std::mem::take(&mut self.waiters) {
                if which == Which::All || waiter.blocker == Blocker::Outside {
                    self.retry_one(shared, waiter, &mut answers);
                } else {
                    self.waiters.push_back(waiter);
                }
            }
            if self.freed == Freed::No {
                return answers;
            }
            which = Which::All;
        }
    }

    /// The same, if something was freed since the last time.
    pub(super) fn retry_if_freed(&mut self, shared: &Shared) -> Answers {
        match self.freed {
            Freed::Yes => self.retry(shared, Which::All),
            Freed::No => Answers::default(),
        }
    }

    fn retry_one(&mut self, shared: &Shared, mut waiter: Waiter, answers: &mut Answers) {
        Self::leave_graph(shared, &waiter.wish, waiter.blocker);
        let tried = self.attempt(shared, &waiter.wish).and_then(|tried| {
            if let Tried::Blocked(blocker) = tried {
                Self::enter_graph(shared, &waiter.wish, blocker)?;
            }
            Ok(tried)
        });
        match tried {
            Ok(Tried::Done) => answers.add(waiter.answer, Ok(())),
            Ok(Tried::Blocked(blocker)) => {
                waiter.blocker = blocker;
                self.waiters.push_back(waiter);
            }
            Err(errno) => answers.add(waiter.answer, Err(errno)),
        }
    }

    /// Gives a range back.
    ///
    /// # Errors
    /// As `Owner::give_back`.
    fn give_back(&mut self, key: OwnerKey, range: LockRange) -> Result<()> {
        if range == LockRange::WHOLE_FILE {
            // Closing the file does the same and cannot fail.
            self.drop_owner(key);
            return Ok(());
        }
        let Some(owner) = self.owners.get_mut(&key) else {
            return Ok(());
        };
        let freed = owner.give_back(key.0, range)?;
        if owner.is_idle() {
            self.owners.remove(&key);
        }
        self.note(freed);
        Ok(())
    }

    /// An owner gives back everything.
    pub(super) fn drop_owner(&mut self, key: OwnerKey) {
        let removed = self.owners.remove(&key);
        self.note(Freed::when(removed.is_some()));
    }

    /// The owners whose latest lock came through this open file give back everything.
    pub(super) fn drop_owners_through(&mut self, handle: HandleId) {
        let before = self.owners.len();
        self.owners.retain(|_, owner| owner.handle() != handle);
        self.note(Freed::when(self.owners.len() < before));
    }

    /// Answers the waiters that `is_meant` picks with an error.
    pub(super) fn refuse(
        &mut self,
        shared: &Shared,
        errno: Errno,
        is_meant: impl Fn(&LockRequest, RequestId) -> bool,
    ) -> Answers {
        let mut answers = Answers::default();
        for waiter in std::mem::take(&mut self.waiters) {
            if is_meant(&waiter.wish.request, waiter.answer.request()) {
                Self::leave_graph(shared, &waiter.wish, waiter.blocker);
                answers.add(waiter.answer, Err(errno));
            } else {
                self.waiters.push_back(waiter);
            }
        }
        answers
    }

    /// How many wait.
    pub(super) fn waiter_count(&self) -> usize {
        self.waiters.len()
    }

    /// Another owner of this guest that is in the way.
    fn guest_blocker(&self, request: &LockRequest) -> Option<LockOwner> {
        self.others(request)
            .find(|(_, owner)| owner.conflict(request.range, request.lock_type).is_some())
            .map(|((_, owner), _)| *owner)
    }

    /// The owners of the same family other than the one who asks.
    fn others(&self, request: &LockRequest) -> impl Iterator<Item = (&OwnerKey, &Owner)> {
        let (kind, asking) = (request.kind, request.owner);
        self.owners
            .iter()
            .filter(move |((of, owner), _)| *of == kind && *owner != asking)
    }

    fn note(&mut self, freed: Freed) {
        if freed == Freed::Yes {
            self.freed = Freed::Yes;
        }
    }
}
