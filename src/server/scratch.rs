//! What: private memory of a thread that serves requests.
//!
//! In: a request begins. Out: buffers that were used before, so that no request allocates once a
//! thread is warm. Invariants: a buffer only grows, up to the largest length that its users ask
//! for (arguments: `body`'s limits; replies: `DIR_SIZE_MAX`); what an earlier request left in it
//! is never sent, because users send only what they have just written. Does not: know the guest.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::metrics::{Meter, Metrics};

/// Bytes that keep their place from one request to the next.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
}

impl Buffer {
    /// The first `len` bytes, with anything in them.
    pub(super) fn room(&mut self, len: usize) -> &mut [u8] {
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
        self.bytes.split_at_mut(len).0
    }

    /// The first `len` bytes, or fewer if there are not so many.
    pub(super) fn filled(&self, len: usize) -> &[u8] {
        self.bytes.get(..len).unwrap_or(&self.bytes)
    }
}

/// Everything that a thread keeps between requests.
#[derive(Debug)]
pub(super) struct Scratch {
    /// A number of this thread, for spreading locks.
    pub(super) thread: usize,
    meter: Option<Meter>,
    /// Counts requests, for measuring some of them.
    pub(super) tick: u8,
    /// The copy of a request's arguments and extensions.
    pub(super) args: Buffer,
    /// A payload under construction.
    pub(super) reply: Buffer,
}

impl Scratch {
    fn new() -> Box<Self> {
        // Relaxed: the number is only a hint for spreading.
        static NEXT_THREAD: AtomicUsize = AtomicUsize::new(0);
        Box::new(Scratch {
            thread: NEXT_THREAD.fetch_add(1, Ordering::Relaxed),
            meter: None,
            tick: 0,
            args: Buffer::default(),
            reply: Buffer::default(),
        })
    }

    /// The thread's own counters among those of `metrics`.
    pub(super) fn meter(&mut self, metrics: &Arc<Metrics>) -> &mut Meter {
        let is_known = self
            .meter
            .as_ref()
            .is_some_and(|meter| meter.is_of(metrics));
        if !is_known {
            // It is new, or another server has been served by this thread before.
            self.meter = None;
        }
        self.meter.get_or_insert_with(|| metrics.meter())
    }
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Lends the thread's scratch to `serve`. Should `serve` panic, the next call gets a new one.
pub(super) fn with_scratch<R>(serve: impl FnOnce(&mut Scratch) -> R) -> R {
    let mut scratch = SCRATCH.take().unwrap_or_else(Scratch::new);
    let result = serve(&mut scratch);
    SCRATCH.set(Some(scratch));
    result
}
