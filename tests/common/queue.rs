//! What: one virtqueue as a strict driver uses it: buffers, chains, completions.
//!
//! In: request bytes and the room for a reply. Out: completions, each checked.
//!
//! Invariants (a violation panics): every chain comes back exactly once; `used.len` is never
//! more than the room; readable buffers come back as they were; no byte around a buffer changes.
//! How a request is cut into descriptors is the test's choice ([`Cut`]).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::EventFd;

use super::daemon::DaemonLog;
use super::memory::{GuestMemory, Span};
use super::ring::{Descriptor, INDIRECT, NEXT, Ring, WRITE};
use super::{Rng, TIMEOUT, sys, u32_of, u64_of, usize_of, usize_of64};

/// What unused guest memory around buffers holds, and reply buffers before the reply.
pub(crate) const CANARY: u8 = 0xa5;
/// Untouchable bytes before, between and after the pieces of a buffer.
const GAP: usize = 5;

/// How many bytes each descriptor gets.
#[derive(Clone, Debug)]
pub(crate) enum Cut {
    /// One descriptor for each direction.
    Whole,
    /// As Linux does: the header, then pages.
    Linux,
    /// Pieces of this many bytes.
    Every(usize),
    /// Pieces of 1 byte up to an eighth of the buffer.
    Random(Rng),
}

impl Cut {
    fn pieces(&mut self, len: usize, header: usize) -> Vec<usize> {
        let mut pieces = Vec::new();
        let mut left = len;
        while left > 0 {
            let piece = match self {
                Cut::Whole => left,
                Cut::Linux if left == len => header,
                Cut::Linux => 4096,
                Cut::Every(size) => *size,
                Cut::Random(rng) => 1 + rng.below(len / 8 + 1),
            };
            pieces.push(piece.min(left));
            left -= piece.min(left);
        }
        pieces
    }
}

/// Guest memory for buffers, first fit.
#[derive(Debug)]
pub(crate) struct Arena(Vec<(u64, u64)>);

impl Arena {
    /// Adjacent spans become one, so that buffers can cross from region to region.
    pub(crate) fn new(spans: &[Span]) -> Self {
        let mut arena = Arena(Vec::new());
        for span in spans {
            arena.free(span.gpa, span.len);
        }
        arena
    }

    fn alloc(&mut self, len: usize) -> u64 {
        let len = u64_of(len).next_multiple_of(16);
        let fit = self.0.iter_mut().find(|(_, room)| *room >= len);
        let (gpa, room) = fit.unwrap_or_else(|| panic!("no guest memory left for {len} bytes"));
        let start = *gpa;
        *gpa += len;
        *room -= len;
        start
    }

    fn free(&mut self, gpa: u64, len: u64) {
        let len = len.next_multiple_of(16);
        let at = self.0.partition_point(|(start, _)| *start < gpa);
        self.0.insert(at, (gpa, len));
        if at + 1 < self.0.len() && gpa + len == self.0[at + 1].0 {
            self.0[at].1 += self.0.remove(at + 1).1;
        }
        if at > 0 && self.0[at - 1].0 + self.0[at - 1].1 == gpa {
            self.0[at - 1].1 += self.0.remove(at).1;
        }
    }
}

/// A buffer in pieces with canaries around them.
#[derive(Debug)]
struct Buffer {
    gpa: u64,
    len: usize,
    /// Offset and length of each piece.
    pieces: Vec<(usize, usize)>,
}

impl Buffer {
    fn image(&self, contents: &[u8]) -> Vec<u8> {
        let mut image = vec![CANARY; self.len];
        let mut done = 0;
        for (offset, len) in &self.pieces {
            let part = contents.get(done..done + len);
            if let Some(part) = part {
                image[*offset..offset + len].copy_from_slice(part);
            }
            done += len;
        }
        image
    }
}

#[derive(Debug, Default)]
struct InFlight {
    descriptors: Vec<u16>,
    readable: Option<(Buffer, Vec<u8>)>,
    writable: Option<Buffer>,
    table: Option<(u64, usize)>,
    /// Raw chains: the test looks at its buffers itself.
    raw: bool,
}

/// A chain that came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    pub(crate) head: u16,
    pub(crate) used_len: usize,
    /// The first `used_len` bytes of the reply room.
    pub(crate) reply: Vec<u8>,
    /// The rest of the reply room.
    pub(crate) rest: Vec<u8>,
}

/// What a queue needs from its virtual machine.
#[derive(Debug)]
pub(crate) struct QueueParts {
    pub(crate) index: usize,
    pub(crate) ring: Ring,
    pub(crate) memory: Arc<GuestMemory>,
    pub(crate) arena: Arc<Mutex<Arena>>,
    pub(crate) log: Arc<DaemonLog>,
    pub(crate) indirect: bool,
}

/// One queue.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) index: usize,
    pub(crate) ring: Ring,
    pub(crate) cut: Cut,
    pub(crate) indirect: bool,
    pub(crate) kick: EventFd,
    pub(crate) call: EventFd,
    pub(crate) err: EventFd,
    pub(crate) memory: Arc<GuestMemory>,
    arena: Arc<Mutex<Arena>>,
    log: Arc<DaemonLog>,
    free: Vec<u16>,
    in_flight: HashMap<u16, InFlight>,
    /// Came back, not handed out yet. Their descriptors are free only when they are, so that a
    /// head says which chain is meant.
    done: VecDeque<(Completion, Vec<u16>)>,
    kicks: u64,
}

fn event() -> EventFd {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)
        .unwrap_or_else(|error| panic!("eventfd: {error}"))
}

impl Queue {
    pub(crate) fn new(parts: QueueParts) -> Self {
        let free = (0..parts.ring.size).rev().collect();
        Queue {
            index: parts.index,
            ring: parts.ring,
            cut: Cut::Linux,
            indirect: parts.indirect,
            kick: event(),
            call: event(),
            err: event(),
            memory: parts.memory,
            arena: parts.arena,
            log: parts.log,
            free,
            in_flight: HashMap::new(),
            done: VecDeque::new(),
            kicks: 0,
        }
    }

    /// Forgets everything in flight, as after a device reset. The ring starts empty.
    pub(crate) fn reset(&mut self) {
        self.ring.reset();
        self.free = (0..self.ring.size).rev().collect();
        self.in_flight.clear();
        self.done.clear();
    }

    fn alloc(&self, len: usize) -> u64 {
        self.arena.lock().expect("no panic in the arena").alloc(len)
    }

    fn release(&self, gpa: u64, len: usize) {
        let mut arena = self.arena.lock().expect("no panic in the arena");
        arena.free(gpa, u64_of(len));
    }

    /// Guest memory for a test's own use: filled with canaries, never given back.
    pub(crate) fn scratch(&self, len: usize) -> u64 {
        let gpa = self.alloc(len);
        self.memory.write(gpa, &vec![CANARY; len]);
        gpa
    }

    /// Gives scratch memory back.
    pub(crate) fn free_scratch(&self, gpa: u64, len: usize) {
        self.release(gpa, len);
    }

    fn buffer(&mut self, len: usize, header: usize) -> Buffer {
        let mut offset = GAP;
        let mut pieces = Vec::new();
        for piece in self.cut.pieces(len, header) {
            pieces.push((offset, piece));
            offset += piece + GAP;
        }
        Buffer {
            gpa: self.alloc(offset),
            len: offset,
            pieces,
        }
    }

    /// Puts a request in line. The device sees it after [`Self::publish`].
    pub(crate) fn add(&mut self, request: &[u8], room: usize) -> u16 {
        let mut flight = InFlight::default();
        let mut segments = Vec::new();
        let mut place = |buffer: &Buffer, flags: u16| {
            segments.extend(buffer.pieces.iter().map(|(offset, len)| Descriptor {
                addr: buffer.gpa + u64_of(*offset),
                len: u32_of(*len),
                flags,
                next: 0,
            }));
        };
        if !request.is_empty() {
            let buffer = self.buffer(request.len(), 40);
            let image = buffer.image(request);
            self.memory.write(buffer.gpa, &image);
            place(&buffer, 0);
            flight.readable = Some((buffer, image));
        }
        if room > 0 {
            let buffer = self.buffer(room, 16);
            self.memory.write(buffer.gpa, &buffer.image(&[]));
            place(&buffer, WRITE);
            flight.writable = Some(buffer);
        }
        if self.indirect && segments.len() > 1 {
            let table = self.write_table(&segments);
            flight.table = Some(table);
            segments = vec![Descriptor {
                addr: table.0,
                len: u32_of(table.1),
                flags: INDIRECT,
                next: 0,
            }];
        }
        self.chain(&segments, flight)
    }

    fn write_table(&self, segments: &[Descriptor]) -> (u64, usize) {
        let mut bytes = Vec::with_capacity(16 * segments.len());
        for (index, segment) in segments.iter().enumerate() {
            bytes.extend(link(*segment, index + 1, segments.len()).to_bytes());
        }
        let gpa = self.alloc(bytes.len());
        self.memory.write(gpa, &bytes);
        (gpa, bytes.len())
    }

    /// Puts a chain of a test's own making in line; NEXT flags and links are added to `segments`.
    pub(crate) fn add_raw(&mut self, segments: &[Descriptor]) -> u16 {
        let flight = InFlight {
            raw: true,
            ..InFlight::default()
        };
        self.chain(segments, flight)
    }

    fn chain(&mut self, segments: &[Descriptor], mut flight: InFlight) -> u16 {
        assert!(
            segments.len() <= self.free.len(),
            "{} descriptors wanted, {} free",
            segments.len(),
            self.free.len()
        );
        let indices = self.free.split_off(self.free.len() - segments.len());
        for (position, (index, segment)) in indices.iter().zip(segments).enumerate() {
            let next = indices.get(position + 1).copied();
            let descriptor = Descriptor {
                flags: segment.flags | if next.is_some() { NEXT } else { 0 },
                next: next.unwrap_or(0),
                ..*segment
            };
            self.ring.write_descriptor(*index, descriptor);
        }
        let head = *indices.first().expect("a chain has a descriptor");
        flight.descriptors = indices;
        self.in_flight.insert(head, flight);
        self.ring.push_avail(head);
        head
    }

    /// Puts `head` in line whatever descriptors it leads to, and publishes it.
    pub(crate) fn push_raw_head(&mut self, head: u16) {
        let flight = InFlight {
            raw: true,
            ..InFlight::default()
        };
        self.in_flight.insert(head, flight);
        self.ring.push_avail(head);
        self.publish();
    }

    /// Takes a descriptor out of circulation, for hand-made chains.
    pub(crate) fn take_descriptor(&mut self) -> u16 {
        self.free.pop().expect("a free descriptor")
    }

    /// Shows the device what is in line, and kicks it if it asked for that.
    pub(crate) fn publish(&mut self) {
        if self.ring.publish() {
            self.kick_now();
        }
    }

    /// Kicks whether or not the device wants it.
    pub(crate) fn kick_now(&mut self) {
        self.kicks += 1;
        self.kick
            .write(1)
            .unwrap_or_else(|error| panic!("kick of queue {}: {error}", self.index));
    }

    pub(crate) fn submit(&mut self, request: &[u8], room: usize) -> u16 {
        let head = self.add(request, room);
        self.publish();
        head
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub(crate) fn free_descriptors(&self) -> usize {
        self.free.len()
    }

    /// Takes everything that came back, without waiting.
    fn collect(&mut self) {
        let pending = usize::from(self.ring.used_pending());
        assert!(
            pending <= self.in_flight.len(),
            "queue {}: {pending} used entries for {} chains in flight\n{}",
            self.index,
            self.in_flight.len(),
            self.log.describe()
        );
        while let Some((id, used_len)) = self.ring.pop_used() {
            let head = u16::try_from(id)
                .ok()
                .and_then(|head| Some((head, self.in_flight.remove(&head)?)));
            let Some((head, flight)) = head else {
                panic!(
                    "queue {}: used entry for descriptor {id}, which is not the head of a chain \
                     in flight\n{}",
                    self.index,
                    self.log.describe()
                );
            };
            let descriptors = flight.descriptors.clone();
            let completion = self.complete(head, flight, usize_of(used_len));
            self.done.push_back((completion, descriptors));
        }
    }

    fn complete(&mut self, head: u16, flight: InFlight, used_len: usize) -> Completion {
        if let Some((buffer, image)) = flight.readable {
            let now = self.memory.read_vec(buffer.gpa, buffer.len);
            assert!(now == image, "the device wrote to a readable buffer");
            self.release(buffer.gpa, buffer.len);
        }
        if let Some((gpa, len)) = flight.table {
            self.release(gpa, len);
        }
        let mut reply = Vec::new();
        if let Some(buffer) = flight.writable {
            let now = self.memory.read_vec(buffer.gpa, buffer.len);
            let mut end = 0;
            for (offset, len) in &buffer.pieces {
                assert_canary(&now[end..*offset]);
                end = offset + len;
                reply.extend_from_slice(&now[*offset..end]);
            }
            assert_canary(&now[end..]);
            self.release(buffer.gpa, buffer.len);
        }
        assert!(
            flight.raw || used_len <= reply.len(),
            "used.len {used_len} is more than the room of {} bytes",
            reply.len()
        );
        let rest = reply.split_off(used_len.min(reply.len()));
        Completion {
            head,
            used_len,
            reply,
            rest,
        }
    }

    fn hand_out(&mut self, position: usize) -> Option<Completion> {
        let (completion, descriptors) = self.done.remove(position)?;
        self.free.extend(descriptors);
        Some(completion)
    }

    /// A completion that is there already.
    pub(crate) fn try_next(&mut self) -> Option<Completion> {
        if self.done.is_empty() {
            self.collect();
        }
        self.hand_out(0)
    }

    /// Waits until more came back than before, sleeping on the interrupt alone. False when
    /// `deadline` passes first.
    fn wait_for_more(&mut self, deadline: Instant) -> bool {
        let before = self.done.len();
        loop {
            self.collect();
            if self.done.len() > before {
                return true;
            }
            if self.ring.enable_interrupts() {
                if !self.interrupted_by(deadline) {
                    assert!(
                        !self.ring.has_used(),
                        "queue {}: a used entry without its interrupt (lost wake-up of the \
                         driver); {}\n{}",
                        self.index,
                        self.ring.describe(),
                        self.log.describe()
                    );
                    return false;
                }
                // Another reader cannot exist, so the counter is there; an error would show as a
                // time-out above.
                let _ = self.call.read();
            }
            self.ring.disable_interrupts();
        }
    }

    /// The next completion; `None` after `timeout`.
    pub(crate) fn next_within(&mut self, timeout: Duration) -> Option<Completion> {
        if self.done.is_empty() && !self.wait_for_more(Instant::now() + timeout) {
            return None;
        }
        self.hand_out(0)
    }

    /// Sleeps until the device interrupts or `deadline` passes; a dead daemon ends the test.
    fn interrupted_by(&self, deadline: Instant) -> bool {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if sys::wait_readable(&self.call, left.min(Duration::from_millis(100))) {
                return true;
            }
            if left.is_zero() {
                return false;
            }
            assert!(
                self.log.is_running() || self.ring.has_used(),
                "queue {}: the daemon has ended with {} chains in flight\n{}",
                self.index,
                self.in_flight.len(),
                self.log.describe()
            );
        }
    }

    /// The next completion.
    pub(crate) fn next(&mut self) -> Completion {
        self.next_within(TIMEOUT)
            .unwrap_or_else(|| self.panic_with_state())
    }

    fn panic_with_state(&self) -> ! {
        panic!(
            "queue {}: no completion in {TIMEOUT:?} with {} in flight; {}\n{}",
            self.index,
            self.in_flight.len(),
            self.ring.describe(),
            self.log.describe()
        )
    }

    /// The completion of the chain at `head`; others stay for later.
    pub(crate) fn wait_for(&mut self, head: u16) -> Completion {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let position = self
                .done
                .iter()
                .position(|(completion, _)| completion.head == head);
            if let Some(completion) = position.and_then(|position| self.hand_out(position)) {
                return completion;
            }
            if !self.wait_for_more(deadline) {
                self.panic_with_state();
            }
        }
    }

    /// Sends one request and waits for it.
    pub(crate) fn round_trip(&mut self, request: &[u8], room: usize) -> Completion {
        let head = self.submit(request, room);
        self.wait_for(head)
    }

    /// Waits until nothing is in flight.
    pub(crate) fn drain(&mut self) -> Vec<Completion> {
        let mut all = Vec::new();
        while !self.in_flight.is_empty() || !self.done.is_empty() {
            all.push(self.next());
        }
        all
    }

    /// Whether the device signals the error event within `timeout`.
    pub(crate) fn error_signalled(&self, timeout: Duration) -> bool {
        sys::wait_readable(&self.err, timeout) && self.err.read().is_ok()
    }

    /// Address `offset` bytes into guest memory that no region holds.
    pub(crate) fn unmapped(&self, offset: u64) -> u64 {
        let regions = self.memory.regions();
        let end = regions
            .iter()
            .map(|region| region.span.gpa + region.span.len)
            .max();
        end.unwrap_or(0) + offset
    }

    /// First bytes of a scratch buffer.
    pub(crate) fn peek(&self, gpa: u64, len: usize) -> Vec<u8> {
        self.memory.read_vec(gpa, usize_of64(u64_of(len)))
    }
}

/// `descriptor` with its link to `next` unless it is the last of `count`.
pub(crate) fn link(descriptor: Descriptor, next: usize, count: usize) -> Descriptor {
    let has_next = next < count;
    Descriptor {
        flags: descriptor.flags | if has_next { NEXT } else { 0 },
        next: if has_next {
            u16::try_from(next).expect("tables in tests are short")
        } else {
            0
        },
        ..descriptor
    }
}

/// Panics unless nobody wrote here.
pub(crate) fn assert_canary(bytes: &[u8]) {
    assert!(
        bytes.iter().all(|byte| *byte == CANARY),
        "the device wrote outside the buffers it was given: {bytes:02x?}"
    );
}
