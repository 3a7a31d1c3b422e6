//! What: the one loop that empties a queue.
//!
//! In: a queue that was kicked, or started. Out: all requests that are available are served and
//! returned, in batches with one signal each.
//!
//! The race at the end: the driver adds a request and decides whether to kick by reading what we
//! asked for (`avail_event`, or NO_NOTIFY in the flags). If it reads that before we ask again, it
//! does not kick; if we go to sleep then, the request waits for ever. So we first ask, then
//! fence, then look once more, and sleep only when the ring is still empty; the driver does the
//! same with its two steps the other way round (see ring.rs), and one of us sees the other.
//!
//! ```text
//!   suppress kicks -> pop, serve, ... -> empty -> notify -> look for a while (polling.rs) -> empty
//!        ^                                                        | a request            |
//!        +--------------------------------------------------------+                      v
//!        +------------------------------------ no --------- still empty? <-- ask for kicks
//!                                                                | yes
//!                                                                v  sleep
//! ```
//!
//! Batches: the driver can see each reply as soon as it is there, and one that is at work takes it
//! while we serve the next. It is woken for a batch of them: when the ring is empty, after
//! [`BATCH_REPLIES_MAX`] replies, before a request that will probably take long, and before any
//! that may when the one before has taken [`BATCH_AGE_MAX`]. So a driver that sleeps waits for a
//! slow request behind its reply once, not for each of a series. Requests without a reply (FORGET)
//! do not count, nobody waits for them; so a burst of them costs one signal.
//!
//! Does not: wait for kicks, see worker.rs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::wire::channel::Pace;
use crate::wire::opcode::Opcode;

use super::chain::{BrokenRing, Chain};
use super::completion::{self, Completion, Returned};
use super::copiers::{self, Copier};
use super::executor::{Executor, PoolJob, QueueContext};
use super::heads::Heads;
use super::memory::GuestRam;
use super::polling::Poller;
use super::ring::AvailRing;

/// Replies that may wait for the end of a batch. More would keep the first one waiting for
/// longer than a signal costs.
const BATCH_REPLIES_MAX: u16 = 16;

/// The driver is told of a batch that has taken longer than this before more is begun. A signal
/// costs some microseconds, on both sides, so less would cost more than it gains.
const BATCH_AGE_MAX: Duration = Duration::from_micros(20);

/// How long serving a request takes, as far as its opcode tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// It works on names and attributes that are usually cached.
    Brief,
    /// It does so most of the time, but may wait for a disk.
    Varied,
    /// It waits for a disk, or for somebody else.
    Long,
}

fn expected(opcode: Opcode) -> Expected {
    match opcode {
        Opcode::Lookup
        | Opcode::Forget
        | Opcode::Getattr
        | Opcode::Readlink
        | Opcode::Statfs
        | Opcode::Getxattr
        | Opcode::Listxattr
        | Opcode::Access
        | Opcode::Interrupt
        | Opcode::BatchForget
        | Opcode::Statx => Expected::Brief,
        Opcode::Setlkw | Opcode::Ioctl | Opcode::Init | Opcode::Destroy | Opcode::Unknown(_) => {
            Expected::Long
        }
        _ if opcode.has_no_bound() => Expected::Long,
        _ => Expected::Varied,
    }
}

/// What a queue's worker works with.
#[derive(Debug)]
pub(super) struct Drain {
    context: Arc<QueueContext>,
    requests: AvailRing,
    executor: Executor,
    poller: Poller,
    /// Entries of the queue, the most requests under way.
    size: u16,
    ram: Arc<GuestRam>,
    generation: u64,
    chain: Chain,
    unnotified: u16,
    unnotified_replies: u16,
    /// When the last request that might have taken long was begun.
    varied_begun: Option<Instant>,
}

impl Drain {
    /// A loop for this ring.
    pub(super) fn new(
        context: Arc<QueueContext>,
        requests: AvailRing,
        executor: Executor,
        poller: Poller,
        size: u16,
    ) -> Drain {
        let (generation, ram) = context.memory.current();
        Drain {
            context,
            requests,
            executor,
            poller,
            size,
            ram,
            generation,
            chain: Chain::default(),
            unnotified: 0,
            unnotified_replies: 0,
            varied_begun: None,
        }
    }

    /// Serves until the ring is empty and kicks are asked for, or `stop` is set.
    ///
    /// # Errors
    /// [`BrokenRing`]; the driver is told of what was done before all the same.
    pub(super) fn run(&mut self, stop: &AtomicBool) -> Result<(), BrokenRing> {
        let drained = self.serve_all(stop);
        self.notify();
        drained
    }

    /// A kick ended the worker's sleep.
    pub(super) fn woken(&mut self) {
        self.poller.woken();
    }

    /// Asks for kicks, so that whoever serves this ring next is woken.
    pub(super) fn leave_ring(&mut self) {
        // A ring that broke meanwhile is found out by the next one, too.
        let _ = self.requests.request_kicks();
    }

    /// The ring, to look at.
    pub(super) fn requests(&self) -> &AvailRing {
        &self.requests
    }

    fn serve_all(&mut self, stop: &AtomicBool) -> Result<(), BrokenRing> {
        loop {
            self.requests.suppress_kicks()?;
            // Relaxed: the eventfd that is written with it wakes us if we miss it here.
            while !stop.load(Ordering::Relaxed) {
                if !self.requests.has_request()? {
                    break;
                }
                self.serve_next()?;
            }
            self.notify();
            let requests = &mut self.requests;
            // A ring that is broken is something, too: the next step finds out.
            let there = || stop.load(Ordering::Relaxed) || requests.has_request() != Ok(false);
            let is_there = self.poller.look(there);
            if stop.load(Ordering::Relaxed) || !(is_there || self.requests.request_kicks()?) {
                return Ok(());
            }
        }
    }

    fn serve_next(&mut self) -> Result<(), BrokenRing> {
        if !self.context.memory.is_current(self.generation) {
            (self.generation, self.ram) = self.context.memory.current();
        }
        match &self.executor {
            Executor::Inline => self.serve_here(Pace::Patient),
            Executor::Adaptive(..) => {
                // The one that is served now is still among them.
                let others_wait = self.requests.has_two_requests();
                self.serve_here(Pace::Prompt { others_wait })
            }
            Executor::Pool(pool) => {
                let in_flight = &self.context.lot.in_flight;
                in_flight.enter(usize::from(self.size));
                let mut chain = self.context.take_chain();
                let heads = self.context.returns.heads();
                match take(&mut self.requests, heads, &mut chain, &self.ram) {
                    Ok(true) => {
                        heads.enter(chain.head());
                        let context = Arc::clone(&self.context);
                        PoolJob::new(context, Arc::clone(&self.ram), chain, None).hand_to(pool);
                        Ok(())
                    }
                    none_or_broken => {
                        self.context.keep_chain(chain);
                        in_flight.leave();
                        none_or_broken.map(|_| ())
                    }
                }
            }
        }
    }

    /// Takes the next request, and serves it on this thread, unless the handler defers it.
    fn serve_here(&mut self, pace: Pace) -> Result<(), BrokenRing> {
        let heads = self.context.returns.heads();
        if !take(&mut self.requests, heads, &mut self.chain, &self.ram)? {
            return Ok(());
        }
        if pace == (Pace::Prompt { others_wait: true })
            && copiers::is_large_copy(&self.chain)
            && let Executor::Adaptive(_, copiers) = &self.executor
            && let Some(copier) = Copier::take(Arc::clone(copiers))
        {
            self.hand_over(Some(copier));
            return Ok(());
        }
        let peek = self.chain.peek();
        self.notify_before(peek.map_or(Expected::Long, |peek| expected(peek.opcode)));
        let completion = Completion::new(&self.context, &self.ram, &self.chain);
        match completion::serve(self.context.handler.as_ref(), completion, pace) {
            Returned::WithReply(available) => {
                self.unnotified_replies = self.unnotified_replies.saturating_add(1);
                self.note_return(available);
            }
            Returned::Silent(available) => self.note_return(available),
            Returned::Later => {}
            Returned::Deferred => self.hand_over(None),
        }
        // The second bound holds for a driver that makes entries available that we have not
        // returned yet.
        if self.unnotified_replies >= BATCH_REPLIES_MAX || self.unnotified >= self.size {
            self.notify();
        }
        Ok(())
    }

    fn note_return(&mut self, available: Option<u16>) {
        self.unnotified = self.unnotified.saturating_add(1);
        if let Some(available) = available {
            self.requests.note_return(self.chain.head(), available);
        }
    }

    /// Tells the driver what is done, unless it need not wait for the next request.
    fn notify_before(&mut self, next: Expected) {
        match next {
            Expected::Brief => {}
            Expected::Long => self.notify(),
            Expected::Varied => {
                let now = Instant::now();
                let begun = self.varied_begun.replace(now);
                if begun.is_some_and(|begun| now.duration_since(begun) > BATCH_AGE_MAX) {
                    self.notify();
                }
            }
        }
    }

    /// Hands the request in `self.chain` to the pool.
    fn hand_over(&mut self, copier: Option<Copier>) {
        // What is finished does not wait with us for a place among those under way, or a thread.
        self.notify();
        self.context.lot.in_flight.enter(usize::from(self.size));
        let chain = std::mem::replace(&mut self.chain, self.context.take_chain());
        self.context.returns.heads().enter(chain.head());
        let context = Arc::clone(&self.context);
        let job = PoolJob::new(context, Arc::clone(&self.ram), chain, copier);
        match &self.executor {
            Executor::Adaptive(pool, _) | Executor::Pool(pool) => job.hand_to(pool),
            Executor::Inline => job.run(),
        }
    }

    fn notify(&mut self) {
        if self.unnotified > 0 {
            self.context.returns.notify();
            self.unnotified = 0;
            self.unnotified_replies = 0;
            self.varied_begun = None;
        }
    }
}

/// Takes the next request into `chain`, unless that is under way already.
fn take(
    requests: &mut AvailRing,
    heads: &Heads,
    chain: &mut Chain,
    ram: &GuestRam,
) -> Result<bool, BrokenRing> {
    if !requests.pop(chain, ram)? {
        return Ok(false);
    }
    if heads.has(chain.head()) {
        requests.put_back();
        return Err(BrokenRing::InFlight(chain.head()));
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expected_is_brief_for_names_and_long_for_what_waits() {
        for opcode in [1, 2, 3, 17, 22, 42] {
            assert_eq!(
                expected(Opcode::from_raw(opcode)),
                Expected::Brief,
                "{opcode}"
            );
        }
        for opcode in [14, 15, 16, 28, 35, 44] {
            assert_eq!(
                expected(Opcode::from_raw(opcode)),
                Expected::Varied,
                "{opcode}"
            );
        }
        for opcode in [20, 26, 30, 33, 39, 43, 47, 50, 99] {
            assert_eq!(
                expected(Opcode::from_raw(opcode)),
                Expected::Long,
                "{opcode}"
            );
        }
    }
}
