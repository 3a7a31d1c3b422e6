//! What: where requests run: on the queue's own thread, in a pool that the queues share, or on the
//! one until the handler asks for the other.
//!
//! In: a chain that was taken from the ring. Out: the handler is called and the chain goes back.
//!
//! ```text
//!   Inline     worker: handler(Patient)
//!   Pool       worker: job -> pool: handler(Patient)
//!   Adaptive   worker: handler(Prompt) -- Deferred --> job -> pool: handler(Patient)
//!   ... a large READ that others wait behind: job -> pool: handler(Prompt), handler(Patient)
//! ```
//!
//! Invariants: a queue never has more requests under way than it has entries, however fast a
//! hostile driver makes new ones available, and parked ones count; every request handed to the
//! pool is counted until its used element is written or it is parked, so
//! [`InFlight::wait_for_none`] means that no thread serves this queue any more. A job that the
//! pool drops unserved answers EIO.
//!
//! Does not: pop, or decide when a queue stops.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::log_limit::guest_log;
use crate::wire::channel::{Pace, RequestHandler};

use super::Execution;
use super::chain::Chain;
use super::completion::{self, Completion, ReturnPath, Returned};
use super::copiers::{self, Copier};
use super::counters::Counters;
use super::error::TransportError;
use super::memory::{GuestRam, MemoryCell};
use super::notifier::Signal;
use super::parking::Lot;
use super::polling::Seats;
use super::pool::{Pool, Refused};

/// How long a thread that was made for deferred requests waits for the next one. A store that is
/// slow now and then finds them again, one that was slow once does not keep them.
const IDLE_THREAD_MAX: Duration = Duration::from_secs(10);

/// Where the requests of a queue run.
#[derive(Clone, Debug)]
pub(super) enum Executor {
    /// On the thread that popped them.
    Inline,
    /// In this pool.
    Pool(Arc<Pool>),
    /// On the thread that popped them; in this pool those that the handler defers, and some large
    /// copies.
    Adaptive(Arc<Pool>, Arc<Seats>),
}

impl Executor {
    /// Where the requests of a device run.
    ///
    /// # Errors
    /// [`TransportError::ThreadPool`] when the threads of a pool that shall always be there
    /// cannot be had.
    pub(super) fn new(execution: Execution) -> Result<Executor, TransportError> {
        let threads_max = execution.pool_threads_max();
        match execution {
            Execution::Inline => Ok(Executor::Inline),
            Execution::Pool(_) => {
                let pool = Pool::new(threads_max);
                pool.fill().map_err(TransportError::ThreadPool)?;
                Ok(Executor::Pool(Arc::new(pool)))
            }
            Execution::Adaptive => {
                let pool = Pool::shrinking(threads_max, IDLE_THREAD_MAX);
                Ok(Executor::Adaptive(Arc::new(pool), copiers::seats()))
            }
        }
    }
}

/// What the threads that work for one running queue share.
pub(super) struct QueueContext {
    pub(super) index: usize,
    pub(super) handler: Arc<dyn RequestHandler>,
    pub(super) memory: Arc<MemoryCell>,
    pub(super) returns: Arc<ReturnPath>,
    pub(super) lot: Arc<Lot>,
    pub(super) err: Mutex<Option<Arc<Signal>>>,
    spare: Mutex<Vec<Chain>>,
}

impl fmt::Debug for QueueContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueContext")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl QueueContext {
    /// A context with nothing under way.
    pub(super) fn new(
        index: usize,
        handler: Arc<dyn RequestHandler>,
        memory: Arc<MemoryCell>,
        returns: Arc<ReturnPath>,
        lot: Arc<Lot>,
    ) -> QueueContext {
        QueueContext {
            index,
            handler,
            memory,
            returns,
            lot,
            err: Mutex::new(None),
            spare: Mutex::new(Vec::new()),
        }
    }

    /// The connection's counters.
    pub(super) fn counters(&self) -> &Counters {
        self.returns.counters()
    }

    /// A chain to load; its vectors may already have room.
    pub(super) fn take_chain(&self) -> Chain {
        lock(&self.spare).pop().unwrap_or_default()
    }

    /// Keeps a chain for the next request. There are never more than requests under way.
    pub(super) fn keep_chain(&self, chain: Chain) {
        lock(&self.spare).push(chain);
    }
}

/// How many requests of a queue are under way: in the pool, and parked. One that is served on
/// the queue's own thread is not counted; it fits, because parked ones never fill the queue.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    counts: Mutex<Counts>,
    fewer: Condvar,
}

#[derive(Debug, Default)]
struct Counts {
    in_pool: usize,
    parked: usize,
}

impl InFlight {
    /// Counts one more in the pool; waits while there are `max`. A driver that follows the rules
    /// never makes us wait for long: it cannot reuse an entry before we have returned it. Nor
    /// does one that does not: parked ones alone are always fewer, and the others are served.
    pub(super) fn enter(&self, max: usize) {
        let mut counts = lock(&self.counts);
        while counts.in_pool.saturating_add(counts.parked) >= max {
            counts = self
                .fewer
                .wait(counts)
                .unwrap_or_else(PoisonError::into_inner);
        }
        counts.in_pool = counts.in_pool.saturating_add(1);
    }

    /// Counts one less in the pool.
    pub(super) fn leave(&self) {
        let mut counts = lock(&self.counts);
        counts.in_pool = counts.in_pool.saturating_sub(1);
        self.fewer.notify_all();
    }

    /// Counts one more parked; false, and not counted, when there are `max`. One in the pool
    /// counts twice until it leaves, which only makes the others wait a moment longer.
    pub(super) fn park(&self, max: usize) -> bool {
        let mut counts = lock(&self.counts);
        let fits = counts.parked < max;
        if fits {
            counts.parked = counts.parked.saturating_add(1);
        }
        fits
    }

    /// Counts so many less parked.
    pub(super) fn unpark(&self, count: usize) {
        let mut counts = lock(&self.counts);
        counts.parked = counts.parked.saturating_sub(count);
        self.fewer.notify_all();
    }

    /// Waits until nothing is in the pool.
    pub(super) fn wait_for_none(&self) {
        let mut counts = lock(&self.counts);
        while counts.in_pool > 0 {
            counts = self
                .fewer
                .wait(counts)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Nothing panics while holding one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request in the pool, counted in [`InFlight`] from before it was made until it is dropped.
#[derive(Debug)]
pub(super) struct PoolJob {
    context: Arc<QueueContext>,
    ram: Arc<GuestRam>,
    chain: Chain,
    /// With it the job was handed over because it copies a lot, not because it was deferred.
    copier: Option<Copier>,
    served: bool,
}

impl PoolJob {
    /// A job for a chain that was entered in the context's count.
    pub(super) fn new(
        context: Arc<QueueContext>,
        ram: Arc<GuestRam>,
        chain: Chain,
        copier: Option<Copier>,
    ) -> Self {
        PoolJob {
            context,
            ram,
            chain,
            copier,
            served: false,
        }
    }

    /// Hands the job to a thread of the pool; without one it is done here.
    pub(super) fn hand_to(self, pool: &Pool) {
        if let Err(refused) = pool.run(self) {
            let Refused { job, error } = *refused;
            if job.context.counters().note_refused_thread() {
                guest_log!(
                    log::Level::Warn,
                    "no thread for requests that wait for a disk ({error}): they make others \
                     wait; raise the limit of threads (ulimit -u, TasksMax=) or set \
                     --thread-pool-size 0"
                );
            }
            job.run();
        }
    }

    /// Serves the request, whatever that takes.
    pub(super) fn run(mut self) {
        self.served = true;
        if self.copier.is_some() {
            // The handler may find that it would have to wait, and keeps account of that.
            let returned = self.serve(Pace::Prompt { others_wait: true });
            self.copier = None;
            if returned != Returned::Deferred {
                return;
            }
        }
        self.serve(Pace::Patient);
    }

    fn serve(&self, pace: Pace) -> Returned {
        let completion = Completion::new(&self.context, &self.ram, &self.chain);
        completion::serve(self.context.handler.as_ref(), completion, pace)
    }
}

impl Drop for PoolJob {
    fn drop(&mut self) {
        if !self.served {
            drop(Completion::new(&self.context, &self.ram, &self.chain));
        }
        self.context.returns.notify();
        self.context.keep_chain(std::mem::take(&mut self.chain));
        // Last: whoever waits for none may answer GET_VRING_BASE at once.
        self.context.lot.in_flight.leave();
    }
}
