//! What: the wake-ups of a queue under every order of steps of driver and device.
//!
//! In: `ring.rs` of the daemon, as it is, and a driver that does what Linux does
//! (drivers/virtio/virtio_ring.c). Out: nothing, or a panic for an order in which a wake-up is
//! lost, or an element is seen before it is written.
//!
//! Guest memory is words that loom watches ([`memory`]); chains have no contents ([`chain`]).

mod chain;
mod memory;
#[path = "../../src/transport/ring.rs"]
// Not all of it is tried out.
#[allow(dead_code)]
mod ring;
mod ring_sync;

use loom::sync::atomic::{Ordering, fence};
use loom::thread;

use memory::GuestRam;
use ring::{AvailRing, Ring, RingAddresses, RingFeatures, UsedRing};

/// Entries of the ring.
const SIZE: u16 = 2;
/// Requests that came and went before: so the event words that nobody has written yet are of the
/// past, and lead to no wake-up.
const BEFORE: u16 = 1;
const FLAG_OFF: u16 = 1;
const FLAGS: usize = 0;
const IDX: usize = 2;
const HEAD: u16 = 1;
const LEN: u32 = 7;

/// How the two sides tell each other that they want to be woken.
#[derive(Clone, Copy)]
enum Mode {
    EventIdx,
    Flags,
}

/// Whether `event` was passed on the way from `old` to `new`: `vring_need_event` of Linux.
fn needs_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// A ring that one request has gone through.
fn used_ring(mode: Mode) -> (GuestRam, AvailRing, UsedRing) {
    let ram = GuestRam::new(SIZE);
    ram.avail.put(IDX, BEFORE, Ordering::Relaxed);
    let features = RingFeatures {
        event_idx: matches!(mode, Mode::EventIdx),
        indirect: false,
    };
    let addresses = RingAddresses {
        descriptors: memory::DESCRIPTORS,
        avail: memory::AVAIL,
        used: memory::USED,
    };
    let ring = Ring::translate(&ram, SIZE, addresses, features).expect("a good ring");
    let (requests, mut returns) = ring.split(BEFORE).expect("its memory is there");
    returns.push(0, 0).expect("its memory is there");
    returns.wants_signal().expect("its memory is there");
    (ram, requests, returns)
}

/// A driver that makes a request available while the device goes to sleep.
fn kick(mode: Mode) {
    let (ram, mut requests, _returns) = used_ring(mode);
    requests.suppress_kicks().expect("its memory is there");
    let driver = thread::spawn(move || {
        ram.avail.put(IDX, BEFORE + 1, Ordering::Release);
        fence(Ordering::SeqCst);
        match mode {
            Mode::EventIdx => {
                let event = ram.used.get(memory::event_word(SIZE, 8), Ordering::Relaxed);
                needs_event(event, BEFORE + 1, BEFORE)
            }
            Mode::Flags => ram.used.get(FLAGS, Ordering::Relaxed) & FLAG_OFF == 0,
        }
    });
    // As drain.rs does it.
    let is_seen = requests.has_request().expect("a good ring")
        || requests.request_kicks().expect("a good ring");
    let is_kicked = driver.join().expect("the driver ends");
    assert!(is_seen || is_kicked, "the request waits for ever");
}

/// A driver that goes to sleep while the device returns a request.
fn signal(mode: Mode) {
    let (ram, _requests, mut returns) = used_ring(mode);
    if matches!(mode, Mode::Flags) {
        ram.avail.put(FLAGS, FLAG_OFF, Ordering::Relaxed);
    }
    let driver = thread::spawn(move || {
        match mode {
            Mode::EventIdx => {
                let event_word = memory::event_word(SIZE, 2);
                ram.avail.put(event_word, BEFORE, Ordering::Relaxed);
            }
            Mode::Flags => ram.avail.put(FLAGS, 0, Ordering::Relaxed),
        }
        fence(Ordering::SeqCst);
        let is_seen = ram.used.get(IDX, Ordering::Acquire) != BEFORE;
        if is_seen {
            let element = 4 + 8 * usize::from(BEFORE);
            assert_eq!(ram.used.get(element, Ordering::Relaxed), HEAD);
            let len = ram.used.get(element + 4, Ordering::Relaxed);
            assert_eq!(u32::from(len), LEN);
        }
        is_seen
    });
    returns.push(HEAD, LEN).expect("its memory is there");
    let is_signalled = returns.wants_signal().expect("its memory is there");
    let is_seen = driver.join().expect("the driver ends");
    assert!(is_seen || is_signalled, "the driver sleeps for ever");
}

/// All scenarios, with what they show.
pub(crate) fn scenarios() -> [(&'static str, fn()); 4] {
    [
        ("no kick is lost with event indices", || {
            kick(Mode::EventIdx)
        }),
        ("no kick is lost with flags", || kick(Mode::Flags)),
        ("no signal is lost with event indices", || {
            signal(Mode::EventIdx)
        }),
        ("no signal is lost with flags", || signal(Mode::Flags)),
    ]
}
