//! What: a queue driven at a fixed depth, with as little work of its own as possible.
//!
//! In: a ring that was started, and for each slot an [`Actor`] that makes one request after the
//! other out of the replies. Out: how many operations were done, how long each took, and for how
//! long the queue ran. A slot has buffers of its own, and its requests are laid out as Linux does
//! it: an indirect table with header, arguments and the payload on pages of its own, which are one
//! large folio, or cut into single pages.
//!
//! Invariants: a slot has at most one request under way; its actor checks every reply; nothing is
//! allocated between the first request and the last, and no payload is copied on this side: it
//! would be the same work for every daemon, and hide their differences.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::memory::{Region, Span};
use crate::common::queue::Queue;
use crate::common::request::{IN_HEADER, OUT_HEADER};
use crate::common::ring::{Descriptor, INDIRECT, NEXT, WRITE};
use crate::common::{sys, u32_of, u64_of, usize_of, usize_of64};

use super::message::{Message, Reply};
use super::options::Habits;

/// Longest wait for a reply: something hangs then.
const PATIENCE: Duration = Duration::from_secs(20);

/// Makes requests for one slot.
pub(crate) trait Actor: Send {
    /// Puts the next request into `message`, given the reply to the one before (none at first).
    /// Returns how many operations that one completed.
    fn next(&mut self, reply: Option<&Reply<'_>>, message: &mut Message) -> u64;

    /// Whether the request under way is the last. When `is_over`, the next one that leaves nothing
    /// behind has to be.
    fn is_last(&self, is_over: bool) -> bool;
}

/// What a run of a queue gave.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) operations: u64,
    /// From the first request of an operation to its last reply, in nanoseconds.
    pub(crate) latencies: Vec<u64>,
    /// From the first request to the last reply.
    pub(crate) wall: Duration,
}

/// Guest memory of one slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotBuffers {
    table_at: u64,
    request_at: u64,
    reply_at: u64,
}

/// What pages have.
const PAGE: usize = 4096;
/// Bytes of payload behind a page for header and arguments.
pub(crate) const PAYLOAD_LEN: usize = 1 << 20;
/// Bytes of a descriptor.
const DESCRIPTOR_LEN: usize = 16;
/// Descriptors of a request: two headers, arguments, and single pages at most.
const DESCRIPTORS_MAX: usize = 3 + PAYLOAD_LEN / PAGE;

/// Guest memory of one slot in bytes.
const SLOT_LEN: usize = 2 * (PAGE + PAYLOAD_LEN) + 4 * PAGE;

/// Where [`Slots`] lie in each guest: beyond the rings.
const SLOTS_AT: u64 = 1 << 32;

/// Guest memory of slots, which all daemons have in common. Where the host of a machine puts memory
/// makes copies to it up to 40 % faster or slower, for as long as it lives; so each daemon is to
/// have the same.
#[derive(Clone, Debug)]
pub(crate) struct Slots(pub(crate) Arc<Region>);

impl Slots {
    pub(crate) fn new(count: usize) -> Self {
        let len = u64_of(count * SLOT_LEN);
        let region = Region::new(Span { gpa: SLOTS_AT, len });
        for slot in 0..count {
            // Its pages exist from now on.
            region.write(slot * SLOT_LEN, &vec![7; SLOT_LEN]);
        }
        Slots(Arc::new(region))
    }

    pub(crate) fn buffers(&self, slot: usize) -> SlotBuffers {
        let at = SLOTS_AT + u64_of(slot * SLOT_LEN);
        let half = u64_of(PAGE + PAYLOAD_LEN);
        SlotBuffers {
            request_at: at,
            reply_at: at + half,
            table_at: at + 2 * half,
        }
    }

    /// The payload of a slot's reply, for system calls.
    pub(crate) fn payload(&self, slot: usize) -> *mut u8 {
        let at = slot * SLOT_LEN + PAGE + PAYLOAD_LEN + PAGE;
        self.0.raw(at, PAYLOAD_LEN)
    }
}

struct Slot {
    actor: Box<dyn Actor>,
    buffers: SlotBuffers,
    begun: Instant,
    /// Most bytes of reply that the actor looks at.
    looks_at: usize,
    has_reply: bool,
}

/// A queue and the actors that keep it busy.
pub(crate) struct Driver<'queue> {
    queue: &'queue mut Queue,
    region: Arc<Region>,
    slots: Vec<Slot>,
    message: Message,
    table: Vec<u8>,
    reply: Vec<u8>,
    /// Most bytes of payload in one descriptor.
    folio: usize,
    /// How long it looks for a reply before it sleeps.
    halt_poll: Duration,
    tally: Tally,
}

impl<'queue> Driver<'queue> {
    /// One slot for each actor, with buffers in `region`. The queue must have nothing under way.
    /// With `habits.pages` the payload is cut into single pages.
    pub(crate) fn new(
        queue: &'queue mut Queue,
        actors: Vec<(Box<dyn Actor>, SlotBuffers)>,
        region: Arc<Region>,
        habits: Habits,
    ) -> Self {
        let begun = Instant::now();
        let slots: Vec<Slot> = actors
            .into_iter()
            .map(|(actor, buffers)| Slot {
                actor,
                buffers,
                begun,
                looks_at: 0,
                has_reply: false,
            })
            .collect();
        assert!(slots.len() <= usize::from(queue.ring.size), "too deep");
        Driver {
            queue,
            region,
            slots,
            message: Message::default(),
            table: Vec::with_capacity(DESCRIPTORS_MAX * DESCRIPTOR_LEN),
            reply: vec![0; PAGE + PAYLOAD_LEN],
            halt_poll: habits.halt_poll,
            folio: if habits.pages { PAGE } else { PAYLOAD_LEN },
            tally: Tally {
                latencies: Vec::with_capacity(1 << 18),
                ..Tally::default()
            },
        }
    }

    /// Keeps all slots busy for `period`, then until each has come to an end.
    pub(crate) fn run(mut self, period: Duration) -> Tally {
        let begin = Instant::now();
        let end = begin + period;
        for index in 0..self.slots.len() {
            self.slots[index].begun = Instant::now();
            self.slots[index].actor.next(None, &mut self.message);
            self.submit(index);
        }
        self.publish();
        let mut busy = self.slots.len();
        while busy > 0 {
            self.wait();
            let is_over = Instant::now() >= end;
            while let Some((id, len)) = self.queue.ring.pop_used() {
                let index = usize_of(id);
                let ends = self.slots[index].actor.is_last(is_over);
                self.take(index, usize_of(len));
                if ends {
                    busy -= 1;
                } else {
                    self.submit(index);
                }
            }
            self.publish();
        }
        self.tally.wall = begin.elapsed();
        self.tally
    }

    /// Shows the actor its reply, which makes the next request.
    fn take(&mut self, index: usize, len: usize) {
        let slot = &mut self.slots[index];
        let looks_at = len.min(slot.looks_at);
        let from = self.offset(self.slots[index].buffers.reply_at);
        // The reply's head has a descriptor of its own, which the payload follows.
        let head = looks_at.min(OUT_HEADER);
        self.region.read(from, &mut self.reply[..head]);
        if looks_at > head {
            let payload = &mut self.reply[head..looks_at];
            self.region.read(from + PAGE, payload);
        }
        let slot = &mut self.slots[index];
        let reply = Reply::new(&self.reply[..looks_at], len, slot.has_reply);
        let completes = slot.actor.next(Some(&reply), &mut self.message);
        if completes > 0 {
            let now = Instant::now();
            let time = u64::try_from((now - slot.begun).as_nanos()).expect("less than years");
            self.tally.operations += completes;
            self.tally.latencies.push(time);
            slot.begun = now;
        }
    }

    fn offset(&self, gpa: u64) -> usize {
        usize_of64(gpa - self.region.span.gpa)
    }

    fn submit(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let (payload, room) = (self.message.payload(), self.message.room());
        slot.looks_at = self.message.looks_at();
        slot.has_reply = room.is_some();
        let buffers = slot.buffers;
        let bytes = self.message.bytes();
        let arguments_len = bytes.len() - IN_HEADER;
        self.region.write(self.offset(buffers.request_at), bytes);
        self.table.clear();
        let arguments = buffers.request_at + u64_of(IN_HEADER);
        self.add(buffers.request_at, IN_HEADER, 0);
        self.add(arguments, arguments_len, 0);
        self.add(buffers.request_at + u64_of(PAGE), payload, 0);
        if let Some(room) = room {
            self.add(buffers.reply_at, OUT_HEADER, WRITE);
            self.add(buffers.reply_at + u64_of(PAGE), room, WRITE);
        }
        self.end_table();
        self.region
            .write(self.offset(buffers.table_at), &self.table);
        let head = u16::try_from(index).expect("fewer slots than descriptors");
        self.queue.ring.write_descriptor(
            head,
            Descriptor {
                addr: buffers.table_at,
                len: u32_of(self.table.len()),
                flags: INDIRECT,
                next: 0,
            },
        );
        self.queue.ring.push_avail(head);
    }

    /// Adds what lies at `addr` to the table, cut as wished.
    fn add(&mut self, addr: u64, len: usize, flags: u16) {
        let mut done = 0;
        while done < len {
            let part = (len - done).min(self.folio);
            let next = self.table.len() / DESCRIPTOR_LEN + 1;
            let descriptor = Descriptor {
                addr: addr + u64_of(done),
                len: u32_of(part),
                flags: flags | NEXT,
                next: u16::try_from(next).expect("a short table"),
            };
            self.table.extend_from_slice(&descriptor.to_bytes());
            done += part;
        }
    }

    /// Takes the link off the last descriptor.
    fn end_table(&mut self) {
        let last = self.table.len() - DESCRIPTOR_LEN;
        let flags = u16::from_le_bytes([self.table[last + 12], self.table[last + 13]]) & !NEXT;
        self.table[last + 12..last + 14].copy_from_slice(&flags.to_le_bytes());
        self.table[last + 14..].fill(0);
    }

    fn publish(&mut self) {
        if self.queue.ring.publish() {
            let kicked = self.queue.kick.write(1);
            kicked.expect("an eventfd takes one more");
        }
    }

    /// Waits for a reply as a guest does under KVM: interrupts are on, but the host looks for one
    /// for a while before it puts the processor to sleep.
    fn wait(&mut self) {
        while !self.queue.ring.has_used() {
            if self.queue.ring.enable_interrupts() && !self.sees_a_reply() {
                assert!(
                    sys::wait_readable(&self.queue.call, PATIENCE),
                    "no reply in {PATIENCE:?}"
                );
                // Somebody has signalled, which is all that counts.
                let _ = self.queue.call.read();
            }
            self.queue.ring.disable_interrupts();
        }
    }

    /// Whether a reply comes while it looks.
    fn sees_a_reply(&self) -> bool {
        let end = Instant::now() + self.halt_poll;
        while Instant::now() < end {
            for _ in 0..16 {
                if self.queue.ring.has_used() {
                    return true;
                }
                std::hint::spin_loop();
            }
        }
        false
    }
}
