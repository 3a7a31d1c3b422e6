//! What: one queue as the front end sets it up.
//!
//! In: the SET_VRING_* messages for one index. Out: a worker while the queue is started.
//!
//! ```text
//!            kick, size, addresses, enabled: all there
//!   stopped -------------------------------------------> started (a Worker exists)
//!      ^                                                     |
//!      +--- GET_VRING_BASE, ENABLE 0, new kick, reset, ------+
//!           disconnect, memory taken away: drained first
//! ```
//!
//! What is parked stays so while the queue is stopped and is answered when it is started where it
//! was stopped; a reset forgets it.
//!
//! Invariants: size, addresses and base change only while stopped; next_avail survives stopping
//! and starting; call and err may change at any time. Does not: know other queues.

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::log_limit::guest_log;
use crate::wire::channel::RequestHandler;

use super::chain::BrokenRing;
use super::completion::ReturnPath;
use super::counters::Counters;
use super::drain::Drain;
use super::executor::{Executor, QueueContext};
use super::memory::MemoryCell;
use super::notifier::{Kick, Signal};
use super::parking::{Exit, Lot, Place};
use super::polling::{Poller, Polling, Seats};
use super::ring::{self, Ring, RingAddresses, RingError, RingFeatures};
use super::worker::Worker;

/// Why a message about a queue was refused.
#[derive(Debug)]
pub(super) enum QueueError {
    /// The setting cannot change while the queue is started.
    Started(&'static str),
    /// A base that is no ring index.
    Base(u32),
    /// Size or addresses are wrong.
    Ring(RingError),
    /// The ring cannot be read.
    Broken(BrokenRing),
    /// The kick descriptor cannot be used.
    Kick(io::Error),
    /// The front end wants the queue polled.
    NoKick,
    /// No thread for it.
    Thread(io::Error),
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QueueError::Started(what) => write!(f, "its {what} cannot change while it is started"),
            QueueError::Base(base) => write!(f, "base {base} is no ring index"),
            QueueError::Ring(error) => error.fmt(f),
            QueueError::Broken(error) => error.fmt(f),
            QueueError::Kick(error) => write!(f, "its kick descriptor cannot be used: {error}"),
            QueueError::NoKick => {
                f.write_str("polling a queue that has no kick descriptor is not supported")
            }
            QueueError::Thread(error) => write!(f, "its thread cannot be started: {error}"),
        }
    }
}

/// What a queue needs from its device to start.
pub(super) struct Surroundings {
    pub(super) handler: Arc<dyn RequestHandler>,
    pub(super) memory: Arc<MemoryCell>,
    pub(super) counters: Arc<Counters>,
    pub(super) executor: Executor,
    pub(super) features: RingFeatures,
    pub(super) polling: Polling,
    pub(super) seats: Arc<Seats>,
}

/// See the file head.
#[derive(Debug)]
pub(super) struct Queue {
    index: usize,
    size: Option<u16>,
    addresses: Option<RingAddresses>,
    next_avail: u16,
    kick: Option<Arc<Kick>>,
    call: Option<Arc<Signal>>,
    err: Option<Arc<Signal>>,
    enabled: bool,
    started: Option<Started>,
    lot: Arc<Lot>,
}

#[derive(Debug)]
struct Started {
    worker: Worker,
    context: Arc<QueueContext>,
}

impl Queue {
    /// A queue that nothing is known of.
    pub(super) fn new(index: usize) -> Queue {
        Queue {
            index,
            size: None,
            addresses: None,
            next_avail: 0,
            kick: None,
            call: None,
            err: None,
            enabled: false,
            started: None,
            lot: Arc::new(Lot::default()),
        }
    }

    /// Whether a worker exists.
    pub(super) fn is_started(&self) -> bool {
        self.started.is_some()
    }

    /// SET_VRING_NUM.
    pub(super) fn set_size(&mut self, size: u32) -> Result<(), QueueError> {
        let size = ring::check_size(size).map_err(QueueError::Ring)?;
        if self.is_started() && self.size != Some(size) {
            return Err(QueueError::Started("size"));
        }
        self.size = Some(size);
        Ok(())
    }

    /// SET_VRING_ADDR. The same addresses again are no change: front ends repeat them to turn
    /// dirty logging on and off.
    pub(super) fn set_addresses(
        &mut self,
        addresses: RingAddresses,
        surroundings: &Surroundings,
    ) -> Result<(), QueueError> {
        if self.is_started() {
            if self.addresses == Some(addresses) {
                return Ok(());
            }
            return Err(QueueError::Started("address"));
        }
        // Without a size the smallest ring shows whether the addresses can be right at all.
        let size = self.size.unwrap_or(1);
        let (_, ram) = surroundings.memory.current();
        Ring::translate(&ram, size, addresses, surroundings.features).map_err(QueueError::Ring)?;
        self.addresses = Some(addresses);
        Ok(())
    }

    /// SET_VRING_BASE.
    pub(super) fn set_base(&mut self, base: u32) -> Result<(), QueueError> {
        let base = u16::try_from(base).map_err(|_| QueueError::Base(base))?;
        if self.is_started() {
            return Err(QueueError::Started("base"));
        }
        self.next_avail = base;
        Ok(())
    }

    /// SET_VRING_KICK: another descriptor restarts the worker.
    pub(super) fn set_kick(
        &mut self,
        file: Option<File>,
        surroundings: &Surroundings,
    ) -> Result<(), QueueError> {
        let file = file.ok_or(QueueError::NoKick)?;
        let kick = Kick::new(file).map_err(QueueError::Kick)?;
        self.stop();
        self.kick = Some(Arc::new(kick));
        self.start_if_ready(surroundings)
    }

    /// SET_VRING_CALL; without a descriptor the driver polls.
    pub(super) fn set_call(&mut self, file: Option<File>) {
        self.call = file.map(|file| Arc::new(Signal::new(file)));
        if let Some(started) = &self.started {
            started.context.returns.set_call(self.call.clone());
        }
    }

    /// SET_VRING_ERR.
    pub(super) fn set_err(&mut self, file: Option<File>) {
        self.err = file.map(|file| Arc::new(Signal::new(file)));
        if let Some(Started { context, .. }) = &self.started {
            *context.err.lock().unwrap_or_else(PoisonError::into_inner) = self.err.clone();
        }
    }

    /// SET_VRING_ENABLE.
    pub(super) fn set_enabled(
        &mut self,
        enabled: bool,
        surroundings: &Surroundings,
    ) -> Result<(), QueueError> {
        self.enabled = enabled;
        if enabled {
            self.start_if_ready(surroundings)
        } else {
            self.stop();
            Ok(())
        }
    }

    /// GET_VRING_BASE: stops, drained, and gives the first request not taken. The front end sends
    /// a kick descriptor again when it wants the queue started again.
    pub(super) fn take_base(&mut self) -> u16 {
        self.stop();
        self.kick = None;
        self.next_avail
    }

    /// Back to nothing, drained. The signals stay: they are of the front end, not of the driver,
    /// and QEMU does not repeat them.
    pub(super) fn reset(&mut self) {
        self.stop();
        self.lot.forget();
        self.size = None;
        self.addresses = None;
        self.next_avail = 0;
        self.kick = None;
        self.enabled = false;
    }

    /// Stops the worker and waits until nothing is under way but what is parked.
    pub(super) fn stop(&mut self) {
        let Some(started) = self.started.take() else {
            return;
        };
        match started.worker.stop() {
            Some(next_avail) => {
                self.next_avail = next_avail;
                self.lot.pause(next_avail);
            }
            None => {
                // How far it came is not known, and so not what is parked either.
                self.lot.forget();
                guest_log!(
                    log::Level::Error,
                    "queue {}: its thread died of a bug in this program; requests may be lost",
                    self.index
                );
            }
        }
    }

    /// Starts the worker once all that it needs is there.
    pub(super) fn start_if_ready(&mut self, surroundings: &Surroundings) -> Result<(), QueueError> {
        let (Some(size), Some(addresses), Some(kick)) = (self.size, self.addresses, &self.kick)
        else {
            return Ok(());
        };
        if !self.enabled || self.started.is_some() {
            return Ok(());
        }
        let (_, ram) = surroundings.memory.current();
        let ring = Ring::translate(&ram, size, addresses, surroundings.features)
            .map_err(QueueError::Ring)?;
        let (requests, used) = ring.split(self.next_avail).map_err(QueueError::Broken)?;
        let place = Place {
            addresses,
            size,
            features: surroundings.features,
            base: self.next_avail,
            used: used.next(),
        };
        let counters = Arc::clone(&surroundings.counters);
        let returns = Arc::new(ReturnPath::new(
            used,
            self.call.clone(),
            Arc::clone(&self.lot.heads),
            counters,
        ));
        let exit = Exit {
            returns: Arc::clone(&returns),
            memory: Arc::clone(&surroundings.memory),
        };
        let context = Arc::new(QueueContext::new(
            self.index,
            Arc::clone(&surroundings.handler),
            Arc::clone(&surroundings.memory),
            returns,
            Arc::clone(&self.lot),
        ));
        // The high-priority queue never waits for a place in the pool.
        let executor = match self.index {
            0 => Executor::Inline,
            _ => surroundings.executor.clone(),
        };
        // What comes by it is not waited for, but for INTERRUPT, which is rare.
        let polling = match self.index {
            0 => Polling::Fixed(Duration::ZERO),
            _ => surroundings.polling,
        };
        let poller = Poller::new(polling, Arc::clone(&surroundings.seats));
        let drain = Drain::new(Arc::clone(&context), requests, executor, poller, size);
        let kick = Arc::clone(kick);
        // Before the worker, which may need it at once.
        *context.err.lock().unwrap_or_else(PoisonError::into_inner) = self.err.clone();
        // Before the worker, too, whose first request may be one to park.
        self.lot.resume(exit, place);
        let worker = Worker::start(Arc::clone(&context), drain, kick).map_err(|error| {
            self.lot.pause(self.next_avail);
            QueueError::Thread(error)
        })?;
        guest_log!(
            log::Level::Debug,
            "queue {} started with {size} entries",
            self.index
        );
        self.started = Some(Started { worker, context });
        Ok(())
    }
}
