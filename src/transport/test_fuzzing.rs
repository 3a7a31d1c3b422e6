//! What: the way in for fuzz targets (`fuzz/`), which see only what is public. Compiled with
//! `--cfg fuzzing` and in tests, never into the daemon.
//!
//! In: bytes that a fuzzer made. Out: nothing, or a panic when a promise of this room is broken.
//! Does not: know FUSE; the handler of a [`ScriptedRing`] does.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::wire::channel::RequestHandler;

use super::chain::{Chain, DescriptorTable};
use super::completion::ReturnPath;
use super::counters::Counters;
use super::drain::Drain;
use super::executor::{Executor, QueueContext};
use super::guest_io;
use super::memory::{GuestRam, MemoryCell};
use super::parking::{Exit, Lot, Place};
use super::polling::{Poller, Polling, Seats};
use super::ring::{Ring, RingFeatures};
use super::test_guest::{Driver, NEXT, TestMemory, USER_BASE, WRITE};

/// Memory of the chain target: two regions that touch, and one behind a hole.
const CHAIN_MEMORY: [(u64, u64); 3] = [(0, 0x8000), (0x8000, 0x8000), (0x2_0000, 0x1000)];

thread_local! {
    // Mapping anew for each input would take far longer than the input itself.
    static CHAIN_GUEST: (TestMemory, GuestRam) = {
        let memory = TestMemory::new(&CHAIN_MEMORY);
        let ram = memory.share();
        (memory, ram)
    };
}

/// Writes `bytes` to guest memory from `start` on.
fn put(ram: &GuestRam, start: u64, bytes: &[u8]) {
    let mut segments = Vec::new();
    let len = u64::try_from(bytes.len()).expect("64 bits");
    assert!(
        ram.translate(start, len, &mut segments) && guest_io::copy_in(ram, &segments, 0, bytes)
    );
}

/// Reads `len` bytes of guest memory from `start` on.
fn get(ram: &GuestRam, start: u64, len: usize) -> Vec<u8> {
    let mut segments = Vec::new();
    let mut bytes = vec![0; len];
    let wide = u64::try_from(len).expect("64 bits");
    assert!(ram.translate(start, wide, &mut segments));
    assert!(guest_io::copy_out(ram, &segments, &mut bytes));
    bytes
}

/// Parses one descriptor chain. The first byte is the queue's size (as a power of two) and whether
/// indirect tables were agreed on, the second the head; the rest is guest memory from address 0,
/// where the descriptor table is.
pub fn chain(input: &[u8]) {
    let [first, head, contents @ ..] = input else {
        return;
    };
    let size = 2_u16 << (first % 8);
    CHAIN_GUEST.with(|(_, ram)| {
        let mut image = vec![0; 0x1_0000];
        let len = contents.len().min(image.len());
        image[..len].copy_from_slice(&contents[..len]);
        put(ram, 0, &image);
        let table = DescriptorTable {
            window: ram
                .user_window(USER_BASE, usize::from(size) * 16)
                .expect("inside the first region"),
            size,
            indirect: first & 0x80 != 0,
        };
        let mut chain = Chain::default();
        // Twice, as a chain is used again and again: nothing of the first time may stay.
        for _ in 0..2 {
            if chain.load_from(u16::from(*head), &table, ram).is_err() {
                return;
            }
            check(&chain, ram, u16::from(*head));
        }
    });
}

fn check(chain: &Chain, ram: &GuestRam, head: u16) {
    assert_eq!(chain.head(), head);
    for (segments, bytes) in [
        (chain.readable(), chain.readable_bytes()),
        (chain.writable(), chain.writable_bytes()),
    ] {
        let sum: usize = segments.iter().map(super::memory::Segment::len).sum();
        assert_eq!(sum, bytes);
        assert!(sum <= 1 << 32);
        for segment in segments {
            assert_ne!(segment.len(), 0);
            assert!(ram.piece(segment, 0, segment.len()).is_some());
            assert!(ram.piece(segment, 1, segment.len()).is_none());
        }
    }
    chain.peek();
    let mut copy = vec![0; chain.readable_bytes().min(0x2_0000)];
    assert!(guest_io::copy_out(ram, chain.readable(), &mut copy));
    let reply = vec![7; chain.writable_bytes().min(0x2_0000)];
    assert!(guest_io::copy_in(ram, chain.writable(), 0, &reply));
}

const RING_ENTRIES: u16 = 64;
const RING_MEMORY: u64 = 0x4_0000;
/// Where requests and replies lie, away from the ring.
const REQUEST_AT: u64 = 0x2_0000;
const REPLY_AT: u64 = 0x3_0000;
/// Most bytes of a request or reply of a [`ScriptedRing`].
pub const MESSAGE_MAX: usize = 0x8000;
/// What a reply's room holds before.
const PATTERN: u8 = 0xa5;

/// A queue without threads: requests are served as they are sent.
#[derive(Debug)]
pub struct ScriptedRing {
    driver: Driver,
    ram: GuestRam,
    drain: Drain,
    // The rings are mapped by it.
    _memory: TestMemory,
}

impl ScriptedRing {
    /// A running queue in front of `handler`.
    pub fn new(handler: Arc<dyn RequestHandler>) -> ScriptedRing {
        let features = RingFeatures {
            event_idx: true,
            indirect: true,
        };
        let memory = TestMemory::new(&[(0, RING_MEMORY)]);
        let driver = Driver::new(&memory, 0, RING_ENTRIES, features, 0);
        let (ram, addresses) = (memory.share(), driver.addresses());
        let ring = Ring::translate(&ram, RING_ENTRIES, addresses, features).expect("a good ring");
        let (requests, used) = ring.split(0).expect("a good ring");
        let place = Place {
            addresses,
            size: RING_ENTRIES,
            features,
            base: 0,
            used: used.next(),
        };
        let cell = Arc::new(MemoryCell::default());
        cell.replace(memory.share());
        let lot = Arc::new(Lot::default());
        let counters = Arc::new(Counters::default());
        let heads = Arc::clone(&lot.heads);
        let returns = Arc::new(ReturnPath::new(used, None, heads, counters));
        let exit = Exit {
            returns: Arc::clone(&returns),
            memory: Arc::clone(&cell),
        };
        lot.resume(exit, place);
        let context = Arc::new(QueueContext::new(1, handler, cell, returns, lot));
        let poller = Poller::new(Polling::Fixed(Duration::ZERO), Seats::for_this_machine());
        let drain = Drain::new(context, requests, Executor::Inline, poller, RING_ENTRIES);
        ScriptedRing {
            driver,
            ram,
            drain,
            _memory: memory,
        }
    }

    /// Sends a request in pieces of at most `piece` bytes, with `room` bytes for the reply, and
    /// gives the used length and the room. Nothing when it was set aside, or there is no entry
    /// left because others were.
    pub fn request(&mut self, message: &[u8], room: usize, piece: usize) -> Option<(u32, Vec<u8>)> {
        let message = message.get(..MESSAGE_MAX).unwrap_or(message);
        let room = room.min(MESSAGE_MAX);
        // As many pieces as there are entries, but for the reply's.
        let piece = piece.max(message.len().div_ceil(40)).max(1);
        put(&self.ram, REQUEST_AT, message);
        put(&self.ram, REPLY_AT, &vec![PATTERN; room + 1]);
        let mut at = REQUEST_AT;
        let mut index = 0;
        for part in message.chunks(piece) {
            let len = u32::try_from(part.len()).expect("short");
            self.driver.describe(index, (at, len, NEXT, index + 1));
            at += u64::from(len);
            index += 1;
        }
        let len = u32::try_from(room).expect("short");
        self.driver.describe(index, (REPLY_AT, len, WRITE, 0));
        self.driver.offer(0);
        self.driver.publish();
        let served = self.drain.run(&AtomicBool::new(false));
        let Some((head, used_len)) = self.driver.collect() else {
            // Set aside; the next one by the same head would be refused, and is not sent.
            return None;
        };
        assert_eq!((head, served), (0, Ok(())), "one request at a time");
        assert!(self.driver.collect().is_none(), "answered twice");
        let reply = get(&self.ram, REPLY_AT, room + 1);
        assert_eq!(reply.last(), Some(&PATTERN), "a byte behind the room");
        Some((used_len, reply))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::test_guest::{INDIRECT, descriptor, in_header};
    use crate::wire::channel::{Outcome, Pace, ReplySink, RequestSource};

    #[test]
    fn chain_of_any_bytes_is_parsed_or_refused() {
        let loops = descriptor(0x9000, 16, NEXT, 0);
        let straddles = descriptor(0x7ff0, 0x100, 0, 0);
        let wraps = descriptor(u64::MAX - 3, 16, WRITE, 0);
        let table = descriptor(0, 16, INDIRECT, 0);
        for contents in [&[][..], &loops, &straddles, &wraps, &table, &[0xff; 200]] {
            for first in [0, 3, 0x80, 0x87] {
                for head in [0, 1, 255] {
                    chain(&[&[first, head], contents].concat());
                }
            }
        }
        chain(&[]);
        chain(&[1]);
    }

    #[derive(Debug)]
    struct Echo;

    impl RequestHandler for Echo {
        fn handle(
            &self,
            source: &mut dyn RequestSource,
            sink: &mut dyn ReplySink,
            _: Pace,
        ) -> Outcome {
            let mut bytes = vec![0; source.remaining().min(sink.capacity())];
            source.read_exact(&mut bytes).expect("they are there");
            sink.write_at(0, &bytes).expect("it fits");
            Outcome::Replied(u32::try_from(bytes.len()).expect("short"))
        }

        fn reset(&self) {}
    }

    #[test]
    fn scripted_ring_serves_requests_in_any_pieces() {
        let mut ring = ScriptedRing::new(Arc::new(Echo));
        let message = [&in_header(100, 1000, 7)[..], &[9; 60]].concat();
        for piece in [1, 3, 40, 1000] {
            let (len, reply) = ring.request(&message, 500, piece).expect("served");
            assert_eq!(len, 100);
            assert_eq!(reply[..100], message);
        }
        assert_eq!(ring.request(&message, 0, 40).expect("served").0, 0);
        assert_eq!(ring.request(&[], 10, 40).expect("served").0, 0);
    }
}
