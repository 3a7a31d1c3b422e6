//! What: locks of the guest that the host and other guests see: fcntl(2) and flock(2).
//!
//! In: GETLK, SETLK, SETLKW, and what ends a lock: FLUSH, RELEASE, FORGET, the end of the session.
//! Out: locks of open file descriptions, one for each owner, file and family, and answers for
//! those who wait.
//!
//! ```text
//!   operations -> Locks -> Site (a file) -> FileLocks: owners, waiters
//!                   |                          |          |
//!                   |                     Owner: open     +-> WaitGraph: who waits for whom
//!                   |                     file, mirror    +-> Retrier: the clock
//! ```
//!
//! What ends a lock or a wait, and what the one who waits is told:
//!
//! | event | locks | waiters |
//! |---|---|---|
//! | FLUSH: a process has closed a descriptor | all POSIX locks of that owner on the file (POSIX says so) | of that owner, through that open file: `EBADF`, which fcntl(2) gives to who waits while another thread closes the descriptor; through another: they wait on, as on a local file system |
//! | RELEASE: the last descriptor of an open file is closed | the BSD lock of the owner that it names; POSIX locks that were last taken through it (the guest's own open-file locks, which no FLUSH ends) | through that open file: `EBADF` |
//! | FORGET of the node | all | `EBADF` |
//! | INTERRUPT | - | `EINTR`: the guest has a signal for them. Linux never sends one over virtio-fs, so there a task that is killed stays until it gets its lock |
//! | DESTROY, INIT, reset, disconnect | all | what the transport does with a late answer that is dropped |
//!
//! A guest that gives a lock up, or shares it, lets others of its own in at once; what is held
//! outside is tried again by the clock. A request that cannot wait (a queue may not be filled by
//! waiters, and there are bounds) is `ENOLCK`: `EAGAIN` is for those who did not want to wait.
//!
//! Locks, in order: a site's, then the map of sites, the wait graph's, the retrier's, the list of
//! interrupts and the transport's, each alone. Calls that lock or open are made under the site's,
//! so that the mirror and the kernel agree; they wait for the host's file system at most.

mod file_locks;
mod owner;
mod ranges;
mod retry;
mod wait_graph;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::file_locks::{Answers, Blocker, FileLocks, Tried, Which};
pub(super) use self::owner::Limits;
use self::owner::Wish;
use self::retry::{Progress, Retrier};
use self::wait_graph::WaitGraph;
use super::PassthroughFs;
use super::store::inode::Inode;
use crate::fs::filesystem::{FlushRequest, LockRequest, OpenNode, ReleaseRequest};
use crate::fs::late::{RequestId, Waited, WaitingRoom};
use crate::fs::types::{HeldLock, LockKind, LockType, NodeId};
use crate::log_limit::guest_log;
use crate::sys::errno::{Errno, Result};
use crate::sys::lock::{self, Access};
use crate::sys::proc_fd::ProcFd;
use crate::wire::flags::SessionFlags;

/// Most requests that wait, more than there are entries in 63 queues of 1024.
const WAITERS_MAX: usize = 65_536;

/// Interrupts that are remembered because nobody waited under their number: their request may
/// come later, by another queue.
const INTERRUPTS_KEPT: usize = 16;

/// The locks of a guest. See the file head.
#[derive(Debug)]
pub(super) struct Locks {
    shared: Arc<Shared>,
}

/// What the operations and the retrier's thread share.
#[derive(Debug)]
struct Shared {
    sites: Mutex<HashMap<NodeId, Arc<Site>>>,
    limits: Arc<Limits>,
    waiting: AtomicUsize,
    graph: WaitGraph,
    retrier: Retrier,
    interrupts: Mutex<VecDeque<RequestId>>,
    proc_fd: Arc<ProcFd>,
}

/// A file with locks. It is made for the first and goes away with the last; nothing means that
/// this one is gone, and another may have taken its place in the map.
#[derive(Debug)]
struct Site {
    node: NodeId,
    state: Mutex<Option<FileLocks>>,
}

impl Site {
    fn lock(&self) -> MutexGuard<'_, Option<FileLocks>> {
        lock(&self.state)
    }
}

/// Nothing panics while holding one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Locks {
    /// No locks.
    pub(super) fn new(proc_fd: Arc<ProcFd>) -> Locks {
        Self::within(Limits::default(), proc_fd)
    }

    /// No locks, and not too many.
    pub(super) fn within(limits: Limits, proc_fd: Arc<ProcFd>) -> Locks {
        Locks {
            shared: Arc::new(Shared {
                sites: Mutex::default(),
                limits: Arc::new(limits),
                waiting: AtomicUsize::new(0),
                graph: WaitGraph::default(),
                retrier: Retrier::default(),
                interrupts: Mutex::default(),
                proc_fd,
            }),
        }
    }

    /// Releases everything and drops those who wait.
    pub(super) fn clear(&self) {
        let shared = &self.shared;
        let sites = std::mem::take(&mut *lock(&shared.sites));
        for site in sites.into_values() {
            let locks = site.lock().take();
            shared.leave(locks.as_ref().map_or(0, FileLocks::waiter_count));
            drop(locks);
        }
        shared.graph.clear();
        shared.retrier.clear();
        lock(&shared.interrupts).clear();
    }

    /// The guest has given up its last lookup of a node, if `is_forgotten` still says so.
    pub(super) fn forget(&self, node: NodeId, is_forgotten: impl FnOnce() -> bool) {
        let site = lock(&self.shared.sites).get(&node).cloned();
        if let Some(site) = site
            && is_forgotten()
        {
            self.shared.close(&site);
        }
    }

    /// See [`crate::fs::filesystem::FileSystem::interrupt`].
    pub(super) fn interrupt(&self, request: RequestId) {
        let shared = &self.shared;
        {
            let mut interrupts = lock(&shared.interrupts);
            if interrupts.len() >= INTERRUPTS_KEPT {
                interrupts.pop_front();
            }
            interrupts.push_back(request);
        }
        let sites: Vec<_> = lock(&shared.sites).values().cloned().collect();
        for site in sites {
            shared.refuse(&site, Errno::EINTR, |_, waiting| waiting == request);
        }
    }

    fn flushed(&self, request: &FlushRequest) {
        let FlushRequest { open, owner } = *request;
        let is_meant = move |waiting: &LockRequest, _: RequestId| {
            waiting.kind == LockKind::Posix
                && waiting.owner == owner
                && waiting.handle == open.handle
        };
        if let Some(site) = self.shared.site(open.node) {
            self.shared.refuse(&site, Errno::EBADF, is_meant);
            let key = (LockKind::Posix, owner);
            self.shared.change(&site, |locks| locks.drop_owner(key));
        }
    }

    fn released(&self, request: &ReleaseRequest) {
        let OpenNode { node, handle } = request.open;
        if let Some(site) = self.shared.site(node) {
            let is_meant = move |waiting: &LockRequest, _: RequestId| waiting.handle == handle;
            self.shared.refuse(&site, Errno::EBADF, is_meant);
            // Not by the owner's number: a guest gives that of a closed file to the next one, whose
            // first lock may come by another queue before this.
            self.shared
                .change(&site, |locks| locks.drop_owners_through(handle));
        }
    }
}

#[cfg(test)]
impl Locks {
    /// Files with locks or waiters, owners, ranges, waiters, and edges of the wait graph.
    pub(super) fn counts(&self) -> [usize; 5] {
        let shared = &self.shared;
        let (owners, ranges) = shared.limits.used();
        let waiting = shared.waiting.load(Ordering::Relaxed);
        let sites = lock(&shared.sites).len();
        [sites, owners, ranges, waiting, shared.graph.len()]
    }
}

impl Drop for Locks {
    fn drop(&mut self) {
        // The retrier's thread would live on otherwise.
        self.clear();
    }
}

impl Shared {
    /// Works on the locks of a file, which may have none yet.
    fn at<T>(self: &Arc<Self>, inode: &Arc<Inode>, work: impl FnOnce(&mut FileLocks) -> T) -> T {
        loop {
            let site = self.site_of(inode);
            let mut state = site.lock();
            if let Some(locks) = state.as_mut() {
                let result = work(locks);
                self.settle(&site, state);
                return result;
            }
        }
    }

    /// Works on the locks of a file, if there are any.
    fn change(self: &Arc<Self>, site: &Arc<Site>, work: impl FnOnce(&mut FileLocks)) {
        let mut state = site.lock();
        if let Some(locks) = state.as_mut() {
            work(locks);
            self.settle(site, state);
        }
    }

    /// After a change: lets in whom it helps, sees to it that the others are tried again, and
    /// takes a site away where nothing is left.
    fn settle(self: &Arc<Self>, site: &Arc<Site>, mut state: MutexGuard<'_, Option<FileLocks>>) {
        let Some(locks) = state.as_mut() else { return };
        let before = locks.waiter_count();
        let mut answers = locks.retry_if_freed(self);
        if locks.waits_for_outside()
            && let Err(error) = Retrier::watch(self, site)
        {
            guest_log!(
                log::Level::Error,
                "no thread to wait for locks of others: {error}"
            );
            answers.append(locks.refuse(self, Errno::ENOLCK, |_, _| true));
        }
        self.leave(before.saturating_sub(locks.waiter_count()));
        if locks.is_idle() {
            self.remove(site);
            *state = None;
        }
        drop(state);
        answers.give();
    }

    /// Answers the waiters of a file that `is_meant` picks with an error.
    fn refuse(
        self: &Arc<Self>,
        site: &Arc<Site>,
        errno: Errno,
        is_meant: impl Fn(&LockRequest, RequestId) -> bool,
    ) {
        let mut answers = Answers::default();
        self.change(site, |locks| {
            let before = locks.waiter_count();
            answers = locks.refuse(self, errno, is_meant);
            self.leave(before.saturating_sub(locks.waiter_count()));
        });
        answers.give();
    }

    /// Releases everything on a file; who waits there is told `EBADF`.
    fn close(&self, site: &Arc<Site>) {
        let mut state = site.lock();
        self.remove(site);
        let locks = state.take();
        drop(state);
        if let Some(mut locks) = locks {
            self.leave(locks.waiter_count());
            locks.refuse(self, Errno::EBADF, |_, _| true).give();
        }
    }

    /// Tries those again who wait for somebody outside.
    fn retry_outside(&self, site: &Arc<Site>) -> Progress {
        let mut state = site.lock();
        let Some(locks) = state.as_mut() else {
            return Progress::Done;
        };
        let before = locks.waiter_count();
        let answers = locks.retry(self, Which::Outside);
        let after = locks.waiter_count();
        self.leave(before.saturating_sub(after));
        let progress = match locks.waits_for_outside() {
            false => Progress::Done,
            true if after < before => Progress::Some,
            true => Progress::None,
        };
        if locks.is_idle() {
            self.remove(site);
            *state = None;
        }
        drop(state);
        answers.give();
        progress
    }

    fn leave(&self, count: usize) {
        // Relaxed: a count, nothing is ordered by it.
        self.waiting.fetch_sub(count, Ordering::Relaxed);
    }

    fn site(&self, node: NodeId) -> Option<Arc<Site>> {
        lock(&self.sites).get(&node).cloned()
    }

    fn site_of(&self, inode: &Arc<Inode>) -> Arc<Site> {
        let mut sites = lock(&self.sites);
        let site = sites.entry(inode.id).or_insert_with(|| {
            Arc::new(Site {
                node: inode.id,
                state: Mutex::new(Some(FileLocks::new(Arc::clone(inode)))),
            })
        });
        Arc::clone(site)
    }

    fn remove(&self, site: &Arc<Site>) {
        let mut sites = lock(&self.sites);
        if sites
            .get(&site.node)
            .is_some_and(|known| Arc::ptr_eq(known, site))
        {
            sites.remove(&site.node);
        }
    }

    /// Tries, and sets the request aside where somebody is in the way.
    fn take_or_wait(
        self: &Arc<Self>,
        locks: &mut FileLocks,
        wish: &Wish,
        room: &mut dyn WaitingRoom,
    ) -> Result<(Waited, Answers)> {
        let blocker = match locks.attempt(self, wish)? {
            Tried::Done => return Ok((Waited::Settled, Answers::default())),
            Tried::Blocked(blocker) => blocker,
        };
        // Relaxed: a few too many do no harm.
        if self.waiting.load(Ordering::Relaxed) >= WAITERS_MAX {
            return Err(Errno::ENOLCK);
        }
        FileLocks::enter_graph(self, wish, blocker)?;
        let Some(answer) = room.park() else {
            FileLocks::leave_graph(self, wish, blocker);
            return Err(Errno::ENOLCK);
        };
        let request = answer.request();
        locks.wait(*wish, blocker, answer);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let mut answers = Answers::default();
        // After `wait`: an interrupt is either found here or finds the waiter.
        if lock(&self.interrupts).contains(&request) {
            answers = locks.refuse(self, Errno::EINTR, |_, waiting| waiting == request);
            self.leave(1);
        }
        Ok((Waited::Parked, answers))
    }
}

impl PassthroughFs {
    /// GETLK.
    ///
    /// # Errors
    /// `ENOSYS` not negotiated; `EINVAL` for an unlock, and for flock(2), which has no such
    /// question; `EBADF`, `ENOLCK`, and what fcntl(2) says.
    pub(super) fn lock_holder(&self, request: &LockRequest) -> Result<Option<HeldLock>> {
        self.check_lock_kind(request.kind)?;
        if request.kind == LockKind::Flock || request.lock_type == LockType::Unlock {
            return Err(Errno::EINVAL);
        }
        let inode = self.store.get(request.node)?;
        let wish = self.wish(request)?;
        let shared = &self.locks.shared;
        shared.at(&inode, |locks| locks.holder(shared, &wish))
    }

    /// SETLK.
    ///
    /// # Errors
    /// As `lock_holder`; `EAGAIN` somebody is in the way; `EBADF` the guest's file is not open
    /// for what the lock needs.
    pub(super) fn take_lock(&self, request: &LockRequest) -> Result<()> {
        self.with_lock(request, |shared, locks, wish| {
            match locks.attempt(shared, wish)? {
                Tried::Done => Ok(((), Answers::default())),
                Tried::Blocked(Blocker::Guest(_) | Blocker::Outside) => Err(Errno::EAGAIN),
            }
        })
    }

    /// SETLKW.
    ///
    /// # Errors
    /// As `take_lock` but for `EAGAIN`; `EDEADLK` a circle of owners of this guest; `ENOLCK` the
    /// request cannot wait.
    pub(super) fn take_lock_or_wait(
        &self,
        request: &LockRequest,
        room: &mut dyn WaitingRoom,
    ) -> Result<Waited> {
        self.with_lock(request, |shared, locks, wish| {
            shared.take_or_wait(locks, wish, room)
        })
    }

    fn with_lock<T>(
        &self,
        request: &LockRequest,
        work: impl FnOnce(&Arc<Shared>, &mut FileLocks, &Wish) -> Result<(T, Answers)>,
    ) -> Result<T> {
        self.check_lock_kind(request.kind)?;
        let inode = self.store.get(request.node)?;
        let wish = self.wish(request)?;
        let shared = &self.locks.shared;
        let (result, answers) = shared.at(&inode, |locks| work(shared, locks, &wish))?;
        answers.give();
        // A guest that forgets the node meanwhile must leave no lock behind.
        self.locks
            .forget(request.node, || self.store.get(request.node).is_err());
        Ok(result)
    }

    /// What a request wants, with what its open file allows, as fcntl(2) checks it.
    fn wish(&self, request: &LockRequest) -> Result<Wish> {
        let open = OpenNode {
            node: request.node,
            handle: request.handle,
        };
        let access = match self.handles.get(open) {
            Ok(handle) => lock::access(handle.any())?,
            // To give back needs nothing; and files may be locked without being open.
            Err(_) if request.lock_type == LockType::Unlock || self.settings.no_open => Access {
                reads: true,
                writes: true,
            },
            Err(errno) => return Err(errno),
        };
        let is_allowed = match (request.kind, request.lock_type) {
            (LockKind::Posix, LockType::Read) => access.reads,
            (LockKind::Posix, LockType::Write) => access.writes,
            (LockKind::Posix, LockType::Unlock) | (LockKind::Flock, _) => true,
        };
        if !is_allowed {
            return Err(Errno::EBADF);
        }
        Ok(Wish {
            request: *request,
            access,
        })
    }

    fn check_lock_kind(&self, kind: LockKind) -> Result<()> {
        let needed = match kind {
            LockKind::Posix => SessionFlags::POSIX_LOCKS,
            LockKind::Flock => SessionFlags::FLOCK_LOCKS,
        };
        match self.negotiated().contains(needed) {
            true => Ok(()),
            false => Err(Errno::ENOSYS),
        }
    }

    /// Whether the guest leaves its locks to us.
    pub(super) fn has_remote_locks(&self) -> bool {
        self.negotiated()
            .intersects(SessionFlags::POSIX_LOCKS | SessionFlags::FLOCK_LOCKS)
    }

    /// FLUSH, after the file system of the host has had its say.
    pub(super) fn unlock_flushed(&self, request: &FlushRequest) {
        if self.has_remote_locks() {
            self.locks.flushed(request);
        }
    }

    /// RELEASE and RELEASEDIR.
    pub(super) fn unlock_released(&self, request: &ReleaseRequest) {
        if self.has_remote_locks() {
            self.locks.released(request);
        }
    }

    /// FORGET.
    pub(super) fn unlock_forgotten(&self, node: NodeId) {
        if self.has_remote_locks() {
            self.locks.forget(node, || self.store.get(node).is_err());
        }
    }
}
