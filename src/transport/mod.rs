//! What: the vhost-user device: queues, guest memory, and the threads that serve them.
//!
//! In: a connected socket and a [`RequestHandler`]. Out: every request of the guest goes to the
//! handler once and comes back once. One call of [`serve`] is one front end.
//!
//! ```text
//!   front end's socket -> connection (airlock) -> device -> queue 0..63 -> worker thread
//!                                                                            |
//!      used ring <- completion <- handler <- reader/writer <- chain <- drain-+
//! ```
//!
//! Threads: the caller's, which answers messages; one for each started queue, named
//! `virtiofsd-qN`; and a pool that the request queues share, if there is one ([`Execution`]). Queue
//! 0 has high priority and never uses the pool.
//!
//! Who owns a chain: the driver, until the worker pops it; then one `Completion`
//! (inside a pool job, if there is a pool and the request goes there) until its used element is
//! written, until the handler parks it, or until it defers it, and then one of a pool job; of a
//! parked one, the late reply that the handler got for it. Nothing else can give it back, and
//! it cannot be forgotten: dropping it is an answer.
//!
//! Drained means: the worker has stopped popping, every chain it popped is back in the used
//! ring or parked, the driver has been signalled, and no thread has an address of guest memory in
//! use. A queue is drained before the answer to GET_VRING_BASE and SET_VRING_ENABLE 0, before a
//! reset reaches the handler, and before memory is taken away.
//!
//! ```text
//!              pop                 handler returns, panics, or is never called
//!   available -----> accepted ------------------------------------------------> used
//!      |  ^             |  |                                                     ^
//!      |  | stopped:    |  +--- handler parks ---> parked -- finished, dropped --+
//!      |  | stays       |                            stopped: kept, not waited for
//!                       | stopped: still served, and waited for
//! ```
//!
//! Outcomes: a wrong buffer costs its request (EIO, or length 0 where there is no room for
//! it); a wrong ring costs its queue until it is set up anew; a wrong message costs that message;
//! broken framing costs the connection. Nothing costs the process.
//!
//! Locks: the device (one thread only); a queue's lot of parked requests; a queue's used ring, for
//! one element at a time; a queue's count of requests under way; the memory table. In this order:
//! under the device's any may be taken, under a lot's one of the last three, under these none.
//!
//! Does not: know FUSE beyond the opcode and the unique number of a request header; listen on or
//! accept from a socket; migrate.

mod chain;
mod completion;
mod config_space;
mod connection;
mod copiers;
mod counters;
mod device;
mod drain;
mod error;
mod executor;
mod guest_io;
mod heads;
mod memory;
mod notifier;
mod parking;
mod polling;
mod pool;
mod queue;
mod reply_writer;
mod request_reader;
mod ring;
mod ring_sync;
mod worker;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod test_fuzzing;
#[cfg(any(test, fuzzing))]
mod test_guest;
#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use crate::wire::channel::RequestHandler;

use connection::Connection;
use device::Device;

pub use counters::Counters;
pub use error::TransportError;
pub use polling::Polling;

/// Most threads of the pool that [`Execution::Adaptive`] makes when it is needed. What runs there
/// sleeps, mostly, so it is not the number of CPUs that counts, but how much a disk or a server
/// likes to have under way: the queue of a SATA disk is 32 deep, and a guest's queue that is served
/// by 32 at once has its latency hidden. More of them only wait for each other in the kernel.
const ADAPTIVE_THREADS_MAX: usize = 32;

/// Where requests are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Execution {
    /// On each queue's own thread, and in a pool those that would make others wait.
    Adaptive,
    /// On each queue's own thread.
    Inline,
    /// In a pool of so many threads, all but those of the high-priority queue.
    Pool(NonZeroUsize),
}

impl Execution {
    /// Most threads besides those of the queues.
    pub fn pool_threads_max(self) -> usize {
        match self {
            Execution::Adaptive => ADAPTIVE_THREADS_MAX,
            Execution::Inline => 0,
            Execution::Pool(threads) => threads.get(),
        }
    }
}

/// What a device is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSettings {
    /// The name that the guest mounts by, 1 to 36 bytes. Without one the configuration space is
    /// not offered, and the front end answers for it.
    pub tag: Option<String>,
    /// Where requests are served.
    pub execution: Execution,
    /// How long the worker of a request queue looks at its ring before it sleeps.
    pub polling: Polling,
    /// Number of request queues to announce in the configuration space. As many as the front end
    /// starts are served, up to 63, whatever this says.
    pub num_request_queues_in_config: u32,
}

/// How a connection ended when nothing was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The front end closed it.
    Disconnected,
}

/// Serves one front end until it closes the connection. When this returns, all its requests
/// have been answered, its memory is unmapped, and [`RequestHandler::reset`] was called. What goes
/// wrong on the way is counted in `counters`.
///
/// # Errors
/// The settings cannot be used, or the connection had to be given up; see [`TransportError`].
pub fn serve(
    stream: UnixStream,
    settings: &DeviceSettings,
    handler: Arc<dyn RequestHandler>,
    counters: &Arc<Counters>,
) -> Result<Ended, TransportError> {
    let device = Device::new(settings, handler, Arc::clone(counters))?;
    let device = Arc::new(Mutex::new(device));
    let served = Connection::new(stream, Arc::clone(&device), Arc::clone(counters))
        .and_then(|mut connection| connection.run());
    device
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .shut_down();
    if !counters.is_clean() {
        log::info!("the connection ends with {counters}");
    }
    crate::log_limit::GUEST.settle();
    served.map(|()| Ended::Disconnected)
}
