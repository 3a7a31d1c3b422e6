//! What: requests that a handler has set aside, to be answered later and by any thread.
//!
//! In: a chain that was popped and whose handler called `park`. Out: its one used element, when
//! the [`LateReply`] is finished or dropped. A parked request needs no thread and no chain of
//! ours: it is a head, a unique number, and guest-physical addresses of the room for its reply.
//!
//! Each queue has one [`Lot`], which outlives the times that the queue is started:
//!
//! ```text
//!     handler parks                 finish, drop
//!   ---------------> [parked] ----------------------> used element, signal      lot running
//!                       |  ^  \
//!            lot paused |  |   \ finish, drop
//!                       v  |    v
//!                    [parked]  [held] --- resumed where it was paused --------> used element, signal
//!                       |         |
//!                       +---------+-- resumed elsewhere, reset, disconnect ---> forgotten
//!
//!   lot:   paused --resume--> running --pause--> paused      (forget: from any, to paused)
//! ```
//!
//! "Where it was paused" is a [`Place`]: addresses, size, features, base, and the used index. A
//! virtual machine that was paused goes on in the same place; a driver that starts anew does not:
//! its indices are equal, while those of a ring with a request parked differ.
//!
//! Invariants: one used element for each parked request that is not forgotten, none for one that
//! is; no byte of guest memory changes while the lot is paused; what keeps guest memory mapped is
//! dropped with the pause; parked requests never fill their queue (see [`parked_count_max`]).
//! The reply's room is translated when the reply goes out, by the table then in force; where
//! there is none any more the chain goes back with length 0.
//!
//! Locks: a lot's state, then the used ring's, the memory table's or the count of requests under
//! way, each alone. A handler may hold locks of its own while it parks or finishes; the lot calls
//! nobody.
//!
//! Does not: know why a request waits.
//!
//! Migration: a parked request is popped, so the base that GET_VRING_BASE gives lies behind it,
//! and a destination that starts there would never answer it. Whoever moves a guest has to take
//! along, in the device state, the head of each parked request in a lot (and for a held one, its
//! reply), which means a list of them here beside the count; the destination reads the
//! descriptors of these heads anew, serves the requests once more (a lock that waits is asked for
//! again), and counts them as parked or done before its queue starts at that base. The place
//! needs no comparison then: the base and the used index come from the source. Alternatively all
//! are answered before the queue stops, with an error that the caller takes for "try again".

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::sys::errno::Errno;
use crate::wire::channel::{LATE_REPLY_LEN_MAX, LateReply};
use crate::wire::header::{OUT_HEADER_LEN, OutHeader};
use crate::wire::pod::Plain;

use super::chain::Chain;
use super::completion::ReturnPath;
use super::executor::InFlight;
use super::guest_io;
use super::heads::Heads;
use super::memory::{GuestRam, MemoryCell, Segment};
use super::ring::{RingAddresses, RingFeatures};

/// How many entries of a queue may be parked. Some always stay free: the request that others wait
/// for (an unlock) may have to come by the same queue.
fn parked_count_max(size: u16) -> usize {
    let free = (size / 64).max(1);
    usize::from(size.saturating_sub(free))
}

/// Which ring this is, and how far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) addresses: RingAddresses,
    pub(super) size: u16,
    pub(super) features: RingFeatures,
    /// Index of the first request not taken.
    pub(super) base: u16,
    /// Index of the next used element.
    pub(super) used: u16,
}

/// What a reply goes out by.
#[derive(Debug)]
pub(super) struct Exit {
    pub(super) returns: Arc<ReturnPath>,
    pub(super) memory: Arc<MemoryCell>,
}

/// The parked requests of one queue.
#[derive(Debug, Default)]
pub(super) struct Lot {
    pub(super) in_flight: InFlight,
    /// Chains under way elsewhere, parked ones included.
    pub(super) heads: Arc<Heads>,
    state: Mutex<LotState>,
}

#[derive(Debug, Default)]
struct LotState {
    running: Option<Running>,
    paused_at: Option<Place>,
    /// Counts what was forgotten; a request of another era is none any more.
    era: u64,
    held: Vec<Held>,
}

#[derive(Debug)]
struct Running {
    exit: Exit,
    /// As it was at the start.
    place: Place,
}

#[derive(Debug)]
struct Held {
    request: ParkedRequest,
    /// None: EIO.
    reply: Option<Vec<u8>>,
}

impl Lot {
    /// The queue starts at `place`: what was held goes out if it was paused there, else it and
    /// all that is parked is forgotten.
    pub(super) fn resume(&self, exit: Exit, place: Place) {
        let mut state = self.lock();
        if state.paused_at.take() != Some(place) {
            self.forget_all(&mut state);
        }
        for held in std::mem::take(&mut state.held) {
            exit.send(&held.request, held.reply.as_deref());
            self.in_flight.unpark(1);
        }
        exit.returns.notify();
        state.running = Some(Running { exit, place });
    }

    /// The queue has stopped, with `base` the first request not taken. When this returns, nobody
    /// writes to guest memory for a parked request.
    pub(super) fn pause(&self, base: u16) {
        let mut state = self.lock();
        state.paused_at = state.running.take().map(|running| Place {
            base,
            used: running.exit.returns.next_used(),
            ..running.place
        });
    }

    /// Whoever waits for a parked request of this queue is not there any more.
    pub(super) fn forget(&self) {
        let mut state = self.lock();
        state.running = None;
        state.paused_at = None;
        self.forget_all(&mut state);
    }

    /// Sets a request aside; none when it needs no answer, has no room for one, or when too many
    /// are set aside.
    pub(super) fn park(
        self: &Arc<Self>,
        ram: &GuestRam,
        chain: &Chain,
    ) -> Option<Box<dyn LateReply>> {
        let peek = chain.peek().filter(|peek| peek.opcode.has_reply())?;
        if chain.writable_bytes() < OUT_HEADER_LEN {
            return None;
        }
        let room = reply_room(ram, chain.writable())?;
        let state = self.lock();
        let running = state.running.as_ref()?;
        if !self.in_flight.park(parked_count_max(running.place.size)) {
            return None;
        }
        self.heads.enter(chain.head());
        Some(Box::new(LotReply {
            lot: Arc::clone(self),
            request: Some(ParkedRequest {
                era: state.era,
                head: chain.head(),
                unique: peek.header.unique,
                room,
            }),
        }))
    }

    fn answer(&self, request: ParkedRequest, reply: Option<&[u8]>) {
        let mut state = self.lock();
        if request.era != state.era {
            return;
        }
        match &state.running {
            Some(running) => {
                running.exit.send(&request, reply);
                self.in_flight.unpark(1);
                running.exit.returns.notify();
            }
            None => {
                let reply = reply.map(<[u8]>::to_vec);
                state.held.push(Held { request, reply });
            }
        }
    }

    fn forget_all(&self, state: &mut LotState) {
        state.era = state.era.wrapping_add(1);
        state.held.clear();
        self.in_flight.unpark(usize::MAX);
        // A queue that forgets is stopped, so nothing else is under way.
        self.heads.forget_all();
    }

    fn lock(&self) -> MutexGuard<'_, LotState> {
        // Nothing panics while holding it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exit {
    /// Writes the reply and the used element, without waking the driver.
    fn send(&self, request: &ParkedRequest, reply: Option<&[u8]>) {
        let failure = OutHeader::failure(request.unique, Errno::EIO.raw());
        let reply = reply
            .filter(|reply| request.takes(reply.len()))
            .unwrap_or(failure.as_wire());
        let (_, ram) = self.memory.current();
        let len = match request.write(&ram, reply) {
            Some(len) => len,
            None => {
                self.returns.count_dropped();
                0
            }
        };
        self.returns.push(request.head, len);
    }
}

/// A piece of guest memory in terms that every table understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct GuestRange {
    start: u64,
    len: u64,
}

/// The first bytes of the room, as many as a late reply may need.
fn reply_room(ram: &GuestRam, segments: &[Segment]) -> Option<Vec<GuestRange>> {
    let mut room = Vec::new();
    let mut left = LATE_REPLY_LEN_MAX;
    for segment in segments {
        let len = segment.len().min(left);
        room.push(GuestRange {
            start: ram.guest_start(segment)?,
            len: u64::try_from(len).ok()?,
        });
        left = left.saturating_sub(len);
        if left == 0 {
            break;
        }
    }
    Some(room)
}

/// All that is left of a request.
#[derive(Debug)]
struct ParkedRequest {
    era: u64,
    head: u16,
    unique: u64,
    room: Vec<GuestRange>,
}

impl ParkedRequest {
    fn takes(&self, reply_len: usize) -> bool {
        let room: u64 = self.room.iter().map(|range| range.len).sum();
        reply_len >= OUT_HEADER_LEN && u64::try_from(reply_len).is_ok_and(|len| len <= room)
    }

    /// Writes the reply, its header last, and gives its length; nothing when the room is not in
    /// this memory.
    fn write(&self, ram: &GuestRam, reply: &[u8]) -> Option<u32> {
        let mut segments = Vec::new();
        for range in &self.room {
            if !ram.translate(range.start, range.len, &mut segments) {
                return None;
            }
        }
        let (header, payload) = reply.split_at_checked(OUT_HEADER_LEN)?;
        let written = guest_io::copy_in(ram, &segments, OUT_HEADER_LEN, payload)
            && guest_io::copy_in(ram, &segments, 0, header);
        written.then(|| u32::try_from(reply.len()).ok()).flatten()
    }
}

/// What a handler keeps of a request that it has parked.
#[derive(Debug)]
struct LotReply {
    lot: Arc<Lot>,
    /// Taken by the answer.
    request: Option<ParkedRequest>,
}

impl LateReply for LotReply {
    fn finish(mut self: Box<Self>, reply: &[u8]) {
        if let Some(request) = self.request.take() {
            self.lot.answer(request, Some(reply));
        }
    }
}

impl Drop for LotReply {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            self.lot.answer(request, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parked_count_max_leaves_entries_free_in_every_queue() {
        let cases = [(2, 1), (4, 3), (64, 63), (128, 126), (1024, 1008)];
        for (size, parked) in cases {
            assert_eq!(parked_count_max(size), parked, "{size}");
        }
        assert_eq!(parked_count_max(32768), 32256);
    }
}
