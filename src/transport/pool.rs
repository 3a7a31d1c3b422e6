//! What: the threads that the request queues of a device share.
//!
//! In: jobs. Out: each is run by one of the threads, in the order they came. A thread is started
//! for a job that none is free for, up to a bound, so a device that never has such a job never
//! has a thread.
//!
//! Invariants: never more threads than the bound; a job that was accepted is run, or dropped
//! unserved when its thread dies, which answers it (see [`PoolJob`]). The threads end when the
//! last owner of the pool is gone and all jobs are done.
//!
//! Does not: decide which requests come here; wait for anybody.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::executor::PoolJob;

/// See the file head.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads_max: usize,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<PoolJob>,
    threads: usize,
    /// Threads that wait for a job, those included that were woken and have not taken one yet.
    idle: usize,
    started: u64,
    closed: bool,
}

impl Pool {
    /// A pool of at most so many threads, none of which is there yet.
    pub(super) fn new(threads_max: usize) -> Pool {
        Pool {
            shared: Arc::default(),
            threads_max,
        }
    }

    /// Starts all threads now, for whoever wants to know at once that they can be had.
    ///
    /// # Errors
    /// As clone(2): `EAGAIN` at a limit of threads, `ENOMEM`.
    pub(super) fn fill(&self) -> io::Result<()> {
        let mut state = self.shared.lock();
        while state.threads < self.threads_max {
            self.grow(&mut state)?;
        }
        Ok(())
    }

    /// Hands a job to a thread.
    ///
    /// # Errors
    /// The job, when there is no thread and none can be had.
    pub(super) fn run(&self, job: PoolJob) -> Result<(), Box<Refused>> {
        let mut state = self.shared.lock();
        if state.jobs.len() >= state.idle
            && let Err(error) = self.grow(&mut state)
            && state.threads == 0
        {
            return Err(Box::new(Refused { job, error }));
        }
        // Else those that are there do it, now or later.
        state.jobs.push_back(job);
        drop(state);
        self.shared.work.notify_one();
        Ok(())
    }

    /// Threads that there are.
    #[cfg(test)]
    pub(super) fn threads(&self) -> usize {
        self.shared.lock().threads
    }

    /// Gone when all threads have ended.
    #[cfg(test)]
    pub(super) fn watch(&self) -> std::sync::Weak<impl Sized + use<>> {
        Arc::downgrade(&self.shared)
    }

    /// One thread more.
    fn grow(&self, state: &mut State) -> io::Result<()> {
        if state.threads >= self.threads_max {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let shared = Arc::clone(&self.shared);
        thread::Builder::new()
            .name(format!("virtiofsd-pool-{}", state.started))
            .spawn(move || Member(shared).serve())?;
        state.started = state.started.saturating_add(1);
        state.threads = state.threads.saturating_add(1);
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_all();
    }
}

/// A job that the pool cannot do.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) job: PoolJob,
    pub(super) error: io::Error,
}

impl Shared {
    /// Nothing panics while holding it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job; none when the pool is closed and all are done.
    fn next(&self) -> Option<PoolJob> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state.idle = state.idle.saturating_add(1);
            state = self
                .work
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.idle = state.idle.saturating_sub(1);
        }
    }
}

/// A thread of the pool, counted until it ends, however it does.
struct Member(Arc<Shared>);

impl Member {
    fn serve(&self) {
        while let Some(job) = self.0.next() {
            job.run();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.threads = state.threads.saturating_sub(1);
    }
}
