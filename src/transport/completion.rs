//! What: how a request goes back to the guest.
//!
//! In: a chain and how its request ended. Out: exactly one used element for each chain, which
//! the driver can see at once, and a signal for each batch that it wants one for.
//!
//! Invariants: a [`Completion`] pushes its element once: when finished, with the length that the
//! handler gave; when dropped without that (a panic, a chain that must not be served), with an
//! EIO reply if the request can be answered and length 0 if not; never when the handler defers the
//! request, which then gets a completion of its own once more. Requests that have no reply get
//! none, not even an error. A request that was parked is none of its business any more, whatever
//! the handler says or does afterwards.
//!
//! Lock: [`ReturnPath`] has the only lock of the request path. It is held for one element or one
//! signal, never while a handler runs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::log_limit::guest_log;
use crate::sys::errno::Errno;
use crate::wire::channel::{Outcome, Pace, RequestHandler};
use crate::wire::header::{OUT_HEADER_LEN, OutHeader};
use crate::wire::pod::Plain;

use super::chain::{Chain, Peek};
use super::counters::Counters;
use super::executor::QueueContext;
use super::guest_io;
use super::heads::Heads;
use super::memory::GuestRam;
use super::notifier::Signal;
use super::reply_writer::ReplyWriter;
use super::request_reader::RequestReader;
use super::ring::UsedRing;

/// The used ring of a running queue and the signal that belongs to it.
#[derive(Debug)]
pub(super) struct ReturnPath {
    state: Mutex<ReturnState>,
    heads: Arc<Heads>,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct ReturnState {
    used: UsedRing,
    call: Option<Arc<Signal>>,
}

impl ReturnPath {
    /// A path into this ring. Without `call` the driver polls.
    pub(super) fn new(
        used: UsedRing,
        call: Option<Arc<Signal>>,
        heads: Arc<Heads>,
        counters: Arc<Counters>,
    ) -> ReturnPath {
        ReturnPath {
            state: Mutex::new(ReturnState { used, call }),
            heads,
            counters,
        }
    }

    /// The chains under way elsewhere.
    pub(super) fn heads(&self) -> &Heads {
        &self.heads
    }

    /// The connection's counters.
    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Counts a request that cannot be answered.
    pub(super) fn count_dropped(&self) {
        Counters::count(&self.counters.dropped_requests);
    }

    /// Where the next element goes.
    pub(super) fn next_used(&self) -> u16 {
        self.lock().used.next()
    }

    /// Returns one chain. A driver that is at work sees it now, one that sleeps is woken by
    /// [`ReturnPath::notify`]. Gives avail.idx as it was before, see [`UsedRing::push`].
    pub(super) fn push(&self, head: u16, len: u32) -> Option<u16> {
        // Before the driver can see that it is back, and make it available again.
        self.heads.leave(head);
        let mut state = self.lock();
        let available = state.used.push(head, len).ok();
        if available.is_none() {
            // The window was checked when the ring started, so this does not happen; if it did,
            // the request would be lost, and that must show somewhere.
            self.count_dropped();
        }
        available
    }

    /// Wakes the driver for what was pushed, if it wants that, with one signal at most.
    pub(super) fn notify(&self) {
        let mut state = self.lock();
        if state.used.is_unasked() && state.used.wants_signal() == Ok(true) {
            self.signal(&state);
        }
    }

    /// Takes another signal. Sends one at once: the driver may have been waiting for one that
    /// went to the old descriptor after the front end had stopped looking there. One too many
    /// does no harm.
    pub(super) fn set_call(&self, call: Option<Arc<Signal>>) {
        let mut state = self.lock();
        state.call = call;
        self.signal(&state);
    }

    fn signal(&self, state: &ReturnState) {
        if let Some(call) = &state.call
            && !call.send()
        {
            Counters::count(&self.counters.lost_signals);
        }
    }

    fn lock(&self) -> MutexGuard<'_, ReturnState> {
        // Nothing panics while holding it, and the state is valid between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of a request, as far as batching is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Returned {
    /// Somebody in the guest waits for it. Here and below: what [`ReturnPath::push`] gave.
    WithReply(Option<u16>),
    /// Only the driver wants its descriptors back.
    Silent(Option<u16>),
    /// It was parked, and is not returned yet as far as this thread knows.
    Later,
    /// It was not served: the caller has the chain again, and sees to it.
    Deferred,
}

/// One accepted request on its way back.
#[derive(Debug)]
pub(super) struct Completion<'a> {
    context: &'a QueueContext,
    ram: &'a GuestRam,
    chain: &'a Chain,
    open: bool,
}

impl<'a> Completion<'a> {
    /// Takes responsibility for the chain.
    pub(super) fn new(
        context: &'a QueueContext,
        ram: &'a GuestRam,
        chain: &'a Chain,
    ) -> Completion<'a> {
        Completion {
            context,
            ram,
            chain,
            open: true,
        }
    }

    /// Returns the chain as the handler said.
    fn finish(&mut self, outcome: Outcome) -> Returned {
        match outcome {
            Outcome::Replied(len) => Returned::WithReply(self.put(len)),
            Outcome::NoReply => Returned::Silent(self.put(0)),
            Outcome::Dropped => {
                self.context.returns.count_dropped();
                Returned::WithReply(self.put(0))
            }
            // It says so and did not do it, or says so to who cannot defer: nobody else will
            // answer.
            Outcome::Parked | Outcome::Deferred => self.fail(),
        }
    }

    /// Returns the chain with an EIO reply, if there can be one.
    fn fail(&mut self) -> Returned {
        let len = self.write_eio();
        let peek = self.chain.peek();
        let silent = peek.is_some_and(|peek| !peek.opcode.has_reply());
        if len == 0 && !silent {
            self.context.returns.count_dropped();
        }
        Returned::WithReply(self.put(len))
    }

    fn put(&mut self, len: u32) -> Option<u16> {
        self.open = false;
        self.context.returns.push(self.chain.head(), len)
    }

    /// Leaves the chain to whoever holds the late reply.
    fn hand_over(&mut self) -> Returned {
        self.open = false;
        Returned::Later
    }

    /// Leaves the chain to the caller.
    fn give_up(&mut self) -> Returned {
        self.open = false;
        Returned::Deferred
    }

    /// Writes an EIO reply and gives its length; 0 when there can be none.
    fn write_eio(&self) -> u32 {
        let Some(peek) = self.chain.peek() else {
            return 0;
        };
        if !peek.opcode.has_reply() || self.chain.writable_bytes() < OUT_HEADER_LEN {
            return 0;
        }
        let header = OutHeader::failure(peek.header.unique, Errno::EIO.raw());
        if guest_io::copy_in(self.ram, self.chain.writable(), 0, header.as_wire()) {
            header.len
        } else {
            0
        }
    }
}

impl Drop for Completion<'_> {
    fn drop(&mut self) {
        if self.open {
            self.fail();
        }
    }
}

/// Serves one request, whatever the handler does. [`Returned::Deferred`] only for a prompt one.
pub(super) fn serve(
    handler: &dyn RequestHandler,
    mut completion: Completion<'_>,
    pace: Pace,
) -> Returned {
    let (context, ram, chain) = (completion.context, completion.ram, completion.chain);
    if chain.defect().is_some() {
        return completion.fail();
    }
    let mut source = RequestReader::new(ram, chain);
    let mut sink = ReplyWriter::new(ram, chain, &context.lot);
    // Unwind safe: reader and writer are not used afterwards, and a handler that leaves its own
    // state half-changed by a panic has to poison it itself, as it has to for its other threads.
    let served = catch_unwind(AssertUnwindSafe(|| {
        handler.handle(&mut source, &mut sink, pace)
    }));
    if served.is_err() {
        note_panic(context.counters(), chain.peek());
    }
    if sink.is_parked() {
        return completion.hand_over();
    }
    match served {
        Ok(Outcome::Deferred) if pace != Pace::Patient => completion.give_up(),
        Ok(outcome) => completion.finish(outcome),
        Err(_) => completion.fail(),
    }
}

fn note_panic(counters: &Counters, peek: Option<&Peek>) {
    Counters::count(&counters.handler_panics);
    guest_log!(
        log::Level::Error,
        "a request with opcode {:?} met a bug in this program and failed with EIO",
        peek.map(|peek| peek.opcode)
    );
}
