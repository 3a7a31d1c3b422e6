//! What: the threads that the request queues of a device share.
//!
//! In: jobs. Out: each is run by one of the threads, in the order they came. A thread is started
//! for a job that none is free for, up to a bound, so a device that never has such a job never
//! has a thread; where that is wished, one ends that has had nothing to do for a while, and what
//! it had of memory goes with it.
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
use std::time::Duration;

use super::executor::PoolJob;

/// See the file head.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads_max: usize,
    /// How long a thread waits for a job; for ever without.
    patience: Option<Duration>,
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
            patience: None,
        }
    }

    /// The same, but a thread ends when it has waited for a job this long.
    pub(super) fn shrinking(threads_max: usize, patience: Duration) -> Pool {
        let mut pool = Pool::new(threads_max);
        pool.patience = Some(patience);
        pool
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
        let (shared, patience) = (Arc::clone(&self.shared), self.patience);
        thread::Builder::new()
            .name(format!("virtiofsd-pool-{}", state.started))
            .spawn(move || Member(shared).serve(patience))?;
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

    /// The next job; none when all are done and the pool is closed, or after this long.
    fn next(&self, patience: Option<Duration>) -> Option<PoolJob> {
        let mut state = self.lock();
        let mut is_over = false;
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.closed || is_over {
                return None;
            }
            state.idle = state.idle.saturating_add(1);
            (state, is_over) = match patience {
                None => (
                    self.work
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner),
                    false,
                ),
                Some(patience) => {
                    let waited = self.work.wait_timeout(state, patience);
                    let (state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
                    (state, waited.timed_out())
                }
            };
            state.idle = state.idle.saturating_sub(1);
        }
    }
}

/// A thread of the pool, counted until it ends, however it does.
struct Member(Arc<Shared>);

impl Member {
    fn serve(&self, patience: Option<Duration>) {
        while let Some(job) = self.0.next(patience) {
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
