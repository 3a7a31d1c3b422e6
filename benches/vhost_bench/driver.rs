//! What: a queue driven at a fixed depth, with as little work of its own as possible.
//!
//! In: a ring that was started, and for each slot an [`Actor`] that makes one request after the
//! other out of the replies. Out: how many operations were done, and how long each took. One slot
//! has one request and one reply buffer, and two descriptors that are written once.
//!
//! Invariant: a slot has at most one request under way. Replies are checked by their actor.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::EventFd;

use crate::common::memory::GuestMemory;
use crate::common::queue::Queue;
use crate::common::request::OUT_HEADER;
use crate::common::ring::{Descriptor, NEXT, WRITE};
use crate::common::{sys, u32_of, u64_of, usize_of};

/// Longest wait for a reply: something hangs then.
const PATIENCE: Duration = Duration::from_secs(20);

/// What an actor wants next.
#[derive(Debug)]
pub(crate) struct Request {
    /// The message, header included.
    pub(crate) message: Vec<u8>,
    /// Room for the reply, header included; 0 for a request without one.
    pub(crate) room: usize,
    /// The request before this one completed an operation.
    pub(crate) completes: u64,
}

/// Makes requests for one slot.
pub(crate) trait Actor: Send {
    /// The next request, given the reply to the one before (empty at first).
    fn next(&mut self, reply: &[u8]) -> Request;

    /// Whether the actor can stop here: nothing it made is left over.
    fn may_stop(&self) -> bool {
        true
    }
}

/// What a run of a queue gave.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) operations: u64,
    /// From the first request of an operation to its last reply.
    pub(crate) latencies: Vec<Duration>,
}

struct Slot {
    actor: Box<dyn Actor>,
    request_at: u64,
    reply_at: u64,
    head: u16,
    begun: Instant,
    is_done: bool,
}

/// Bytes of each buffer: a message with its payload.
const BUFFER_LEN: usize = (1 << 20) + 4096;

/// A queue and the actors that keep it busy.
pub(crate) struct Driver<'queue> {
    queue: &'queue mut Queue,
    memory: Arc<GuestMemory>,
    slots: Vec<Slot>,
    reply: Vec<u8>,
}

impl<'queue> Driver<'queue> {
    /// One slot for each actor. The queue must have nothing under way.
    pub(crate) fn new(queue: &'queue mut Queue, actors: Vec<Box<dyn Actor>>) -> Self {
        let memory = Arc::clone(&queue.memory);
        let begun = Instant::now();
        let slots = actors.into_iter().enumerate().map(|(index, actor)| Slot {
            actor,
            request_at: queue.scratch(BUFFER_LEN),
            reply_at: queue.scratch(BUFFER_LEN),
            head: u16::try_from(2 * index).expect("a depth fits into a queue"),
            begun,
            is_done: false,
        });
        let slots: Vec<Slot> = slots.collect();
        assert!(2 * slots.len() <= usize::from(queue.ring.size), "too deep");
        Driver {
            queue,
            memory,
            slots,
            reply: vec![0; BUFFER_LEN],
        }
    }

    /// Keeps all slots busy for `period`, then until each has come to an end.
    pub(crate) fn run(&mut self, period: Duration) -> Tally {
        let mut tally = Tally::default();
        let end = Instant::now() + period;
        for index in 0..self.slots.len() {
            self.submit(index, 0, &mut tally);
        }
        self.publish();
        let mut busy = self.slots.len();
        while busy > 0 {
            self.wait();
            let is_over = Instant::now() >= end;
            while let Some((id, len)) = self.queue.ring.pop_used() {
                let index = usize_of(id) / 2;
                if is_over && self.finish(index, usize_of(len), &mut tally) {
                    busy -= 1;
                } else {
                    self.submit(index, usize_of(len), &mut tally);
                }
            }
            self.publish();
        }
        tally
    }

    /// Takes the last reply of an actor that can stop; false when it cannot.
    fn finish(&mut self, index: usize, len: usize, tally: &mut Tally) -> bool {
        if !self.slots[index].actor.may_stop() {
            return false;
        }
        self.take_reply(index, len);
        let slot = &mut self.slots[index];
        let request = slot.actor.next(&self.reply[..len]);
        note(slot, request.completes, tally);
        slot.is_done = true;
        true
    }

    fn take_reply(&mut self, index: usize, len: usize) {
        let at = self.slots[index].reply_at;
        self.memory.read(at, &mut self.reply[..len]);
    }

    fn submit(&mut self, index: usize, len: usize, tally: &mut Tally) {
        self.take_reply(index, len);
        let slot = &mut self.slots[index];
        let request = slot.actor.next(&self.reply[..len]);
        note(slot, request.completes, tally);
        self.memory.write(slot.request_at, &request.message);
        let (head, tail) = (slot.head, slot.head + 1);
        let (request_at, reply_at) = (slot.request_at, slot.reply_at);
        let flags = if request.room > 0 { NEXT } else { 0 };
        self.queue.ring.write_descriptor(
            head,
            Descriptor {
                addr: request_at,
                len: u32_of(request.message.len()),
                flags,
                next: tail,
            },
        );
        self.queue.ring.write_descriptor(
            tail,
            Descriptor {
                addr: reply_at,
                len: u32_of(request.room),
                flags: WRITE,
                next: 0,
            },
        );
        self.queue.ring.push_avail(head);
    }

    fn publish(&mut self) {
        if self.queue.ring.publish() {
            kick(&self.queue.kick);
        }
    }

    /// Sleeps on the interrupt, as a guest does, unless something is there.
    fn wait(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.queue.ring.has_used() {
            if self.queue.ring.enable_interrupts() {
                let left = deadline.saturating_duration_since(Instant::now());
                assert!(
                    sys::wait_readable(&self.queue.call, left),
                    "no reply in {PATIENCE:?}"
                );
                // Somebody has signalled, which is all that counts.
                let _ = self.queue.call.read();
            }
            self.queue.ring.disable_interrupts();
        }
    }
}

impl Drop for Driver<'_> {
    fn drop(&mut self) {
        for slot in &self.slots {
            self.queue.free_scratch(slot.request_at, BUFFER_LEN);
            self.queue.free_scratch(slot.reply_at, BUFFER_LEN);
        }
    }
}

fn note(slot: &mut Slot, completes: u64, tally: &mut Tally) {
    if completes > 0 {
        let now = Instant::now();
        tally.operations += completes;
        tally.latencies.push(now - slot.begun);
        slot.begun = now;
    }
}

fn kick(kick: &EventFd) {
    kick.write(1).expect("an eventfd takes one more");
}

/// The errno of a reply, positive, or its payload.
pub(crate) fn payload(reply: &[u8]) -> Result<&[u8], i32> {
    let error = reply.get(4..8).and_then(|word| word.first_chunk());
    match error.map(|word| i32::from_le_bytes(*word)) {
        Some(0) => Ok(&reply[OUT_HEADER..]),
        Some(error) => Err(-error),
        None => panic!("a reply of {} bytes", u64_of(reply.len())),
    }
}
