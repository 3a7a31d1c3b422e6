//! What: the thread of a started queue.
//!
//! In: a drain loop, a kick descriptor, a wish to stop. Out: the index of the first request not
//! taken, when it has stopped.
//!
//! ```text
//!   start -> drain -> sleep on kick and stop -> drain -> ...
//!              |               |
//!              | broken ring   | stop asked
//!              v               v
//!           report      wait until nothing is under way -> notify, ask for kicks -> end
//!              |               ^
//!              +---------------+
//! ```
//!
//! Invariants: the thread ends only when no request of its queue is being served, so after
//! [`Worker::stop`] nobody writes to guest memory for this queue, except for what is parked; see
//! parking.rs. A descriptor that is always
//! ready does not keep it busy. Does not: decide when a queue starts, see queue.rs.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::log_limit::guest_log;
use crate::sys::poll;

use super::chain::BrokenRing;
use super::counters::Counters;
use super::drain::Drain;
use super::executor::QueueContext;
use super::notifier::{Kick, Kicked};

/// Kicks without any request after which we suspect that we do not see the guest's memory. One
/// says nothing: QEMU kicks each queue when it starts it. More would wait too long: a guest whose
/// INIT is not seen kicks once and hangs.
const EMPTY_KICKS_BEFORE_WARNING: u32 = 2;

/// Wake-ups in a row without any request after which we rest after each. A driver that follows the
/// rules kicks for a request, and now and then we have served it already; but an eventfd that
/// counts like a semaphore gives 2^64 kicks for one write.
const IDLE_WAKE_UPS_MAX: u32 = 64;

/// That rest: one wake-up in a millisecond is next to nothing.
const IDLE_REST: Duration = Duration::from_millis(1);

/// Rest after a poll(2) that failed, so that an error that stays does not take a CPU.
const POLL_ERROR_REST: Duration = Duration::from_millis(50);

/// A started queue's thread, as its owner sees it.
#[derive(Debug)]
pub(super) struct Worker {
    thread: JoinHandle<u16>,
    stop: Arc<AtomicBool>,
    /// An eventfd that wakes the thread.
    wake: Arc<File>,
}

impl Worker {
    /// Starts the thread; it looks into the ring at once, for kicks may have come before.
    ///
    /// # Errors
    /// No descriptor or no thread left.
    pub(super) fn start(
        context: Arc<QueueContext>,
        drain: Drain,
        kick: Arc<Kick>,
    ) -> io::Result<Worker> {
        let stop = Arc::new(AtomicBool::new(false));
        let wake = Arc::new(poll::eventfd()?);
        let body = Body {
            context,
            drain,
            kick: Some(kick),
            stop: Arc::clone(&stop),
            woken: Arc::clone(&wake),
            empty_kicks: 0,
            idle_wake_ups: 0,
        };
        let thread = thread::Builder::new()
            .name(format!("virtiofsd-q{}", body.context.index))
            .spawn(move || body.run())?;
        Ok(Worker { thread, stop, wake })
    }

    /// Lets it finish what it has taken, and waits for that. Gives the index of the first
    /// request not taken, or nothing when the thread has died of a bug.
    pub(super) fn stop(self) -> Option<u16> {
        // Relaxed: the thread also sees the eventfd, and join orders everything else.
        self.stop.store(true, Ordering::Relaxed);
        // Cannot block or fail: this is the only write to a counter of 64 bits.
        let _ = (&*self.wake).write(&1_u64.to_ne_bytes());
        self.thread.join().ok()
    }
}

/// The thread's own view.
#[derive(Debug)]
struct Body {
    context: Arc<QueueContext>,
    drain: Drain,
    kick: Option<Arc<Kick>>,
    stop: Arc<AtomicBool>,
    woken: Arc<File>,
    empty_kicks: u32,
    idle_wake_ups: u32,
}

impl Body {
    fn run(mut self) -> u16 {
        let served = self.serve_until_stopped();
        // Before what is under way is done: the front end need not wait for that to hear of it.
        if let Err(broken) = served {
            self.report(broken);
        }
        self.context.lot.in_flight.wait_for_none();
        if served.is_ok() {
            self.drain.leave_ring();
        }
        self.drain.requests().next()
    }

    fn serve_until_stopped(&mut self) -> Result<(), BrokenRing> {
        loop {
            let before = self.drain.requests().next();
            self.drain.run(&self.stop)?;
            self.rest_if_idle(before);
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.sleep();
        }
    }

    /// Rests when wake-ups come without end and nothing with them.
    fn rest_if_idle(&mut self, before: u16) {
        if self.drain.requests().next() != before {
            self.idle_wake_ups = 0;
            return;
        }
        self.idle_wake_ups = self.idle_wake_ups.saturating_add(1);
        if self.idle_wake_ups > IDLE_WAKE_UPS_MAX {
            thread::sleep(IDLE_REST);
        }
    }

    fn sleep(&mut self) {
        let kick = self.kick.as_ref().map(|kick| kick.as_fd());
        let ready = match poll::wait_readable([kick, Some(self.woken.as_fd())]) {
            Ok([kick, _]) => kick,
            Err(error) => {
                guest_log!(
                    log::Level::Debug,
                    "queue {}: poll failed: {error}",
                    self.context.index
                );
                thread::sleep(POLL_ERROR_REST);
                return;
            }
        };
        let taken = match &self.kick {
            Some(kick) if ready.readable => kick.take(),
            Some(_) if ready.hung_up => Kicked::Never,
            _ => return,
        };
        match taken {
            Kicked::Yes => {
                self.drain.woken();
                self.note_kick();
            }
            Kicked::No => {}
            Kicked::Never => {
                self.kick = None;
                guest_log!(
                    log::Level::Warn,
                    "queue {}: its kick descriptor was closed, no more requests will be seen",
                    self.context.index
                );
            }
        }
    }

    /// Tells the operator once when the guest kicks and its memory stays empty.
    fn note_kick(&mut self) {
        if self.empty_kicks > EMPTY_KICKS_BEFORE_WARNING {
            return;
        }
        if !self.drain.requests().looks_untouched() {
            self.empty_kicks = EMPTY_KICKS_BEFORE_WARNING.saturating_add(1);
            return;
        }
        self.empty_kicks = self.empty_kicks.saturating_add(1);
        if self.empty_kicks == EMPTY_KICKS_BEFORE_WARNING {
            guest_log!(
                log::Level::Warn,
                "queue {}: the guest announces requests but its memory stays empty here; it is \
                 probably not shared with this program: add share=on to the memory backend",
                self.context.index
            );
        }
    }

    fn report(&self, broken: BrokenRing) {
        let counters = self.context.counters();
        Counters::count(&counters.broken_queues);
        guest_log!(
            log::Level::Warn,
            "queue {} stops until it is set up anew: {broken}",
            self.context.index
        );
        let err = self
            .context
            .err
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(err) = err.as_ref()
            && !err.send()
        {
            Counters::count(&counters.lost_signals);
        }
    }
}
