//! What: the proof that no wake-up is lost: many requests on several queues, with random depth in
//! flight, each side sleeping whenever it may. A lost kick or interrupt is a time-out.
//!
//! `VIRTIOFSD_STRESS_REQUESTS` sets the number of requests of each run (default: some seconds of
//! work for a debug build; `scripts/check` runs millions against the release build).

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use common::client::Client;
use common::frontend::Setup;
use common::memory::MemoryLayout;
use common::queue::Cut;
use common::request::{Bytes, OUT_HEADER, ROOT, op, out_header};
use common::ring::NotifyMode;
use common::session::Session;
use common::session_data::{At, read_body, write_body};
use common::share::Share;
use common::{Rng, u64_of, usize_of64};

const QUEUES: usize = 4;
const BLOCK: usize = 512;

fn requests_per_run() -> u64 {
    std::env::var("VIRTIOFSD_STRESS_REQUESTS")
        .ok()
        .map_or(50_000, |number| {
            number
                .parse()
                .unwrap_or_else(|error| panic!("VIRTIOFSD_STRESS_REQUESTS={number}: {error}"))
        })
}

/// Takes one request from the budget; false when there is none left.
fn take_one(budget: &AtomicU64) -> bool {
    // Relaxed: only the number counts.
    let left = budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
        left.checked_sub(1)
    });
    left.is_ok()
}

/// What one thread sends.
struct Load {
    session: Session,
    node: u64,
    fh: u64,
    rng: Rng,
}

impl Load {
    /// A random request; returns its expected length in the used ring.
    fn add(&mut self) -> (u16, u64, usize) {
        let at = At {
            node: self.node,
            fh: self.fh,
            offset: u64_of(BLOCK * self.session.queue.index),
        };
        let (opcode, node, body, payload) = match self.rng.below(8) {
            0..=3 => (op::GETATTR, ROOT, vec![0; 16], 104),
            4 => (op::LOOKUP, ROOT, Bytes::new().name(b"nothing").done(), 128),
            5 => (op::STATFS, ROOT, Vec::new(), 80),
            6 => {
                let size = u32::try_from(BLOCK).expect("a small block");
                (op::READ, self.node, read_body(at, size, 0), BLOCK)
            }
            _ => {
                let data = vec![self.rng.byte(); BLOCK];
                (op::WRITE, self.node, write_body(at, &data, 0, 0), 8)
            }
        };
        let (message, unique) = self.session.message(opcode, node, &body);
        let head = self.session.queue.add(&message, OUT_HEADER + payload);
        let expected = if opcode == op::LOOKUP { 0 } else { payload };
        (head, unique, OUT_HEADER + expected)
    }

    /// Sends until `budget` is used up, never more than a random number in flight.
    fn run(mut self, budget: &AtomicU64) -> u64 {
        let mut waiting = Vec::new();
        let mut done = 0;
        loop {
            let depth = 1 + self.rng.below(32);
            let mut exhausted = false;
            while waiting.len() < depth {
                if !take_one(budget) {
                    exhausted = true;
                    break;
                }
                waiting.push(self.add());
                // Several per publication, and sometimes one by one.
                if self.rng.below(3) == 0 {
                    self.session.queue.publish();
                }
            }
            self.session.queue.publish();
            if waiting.is_empty() && exhausted {
                return done;
            }
            let completion = self.session.queue.next();
            let position = waiting
                .iter()
                .position(|(head, ..)| *head == completion.head);
            let position = position.expect("a chain of this thread");
            let (_, unique, len) = waiting.swap_remove(position);
            let (out_len, error, answered) = out_header(&completion.reply);
            assert_eq!((out_len, answered), (completion.used_len, unique));
            let lookup_miss = error == -libc::ENOENT || error == 0;
            assert!(lookup_miss, "error {error}");
            // A negative entry (node 0) is an answer to LOOKUP too.
            let is_expected = out_len == len || (len == OUT_HEADER && out_len == len + 128);
            assert!(is_expected, "{out_len} bytes instead of {len}");
            done += 1;
        }
    }
}

fn run(notify: NotifyMode, args: &[&str], indirect: bool) {
    let share = Share::new();
    let setup = Setup {
        notify,
        indirect,
        ..Setup::default()
    };
    let setup = setup
        .args(args)
        .queues(QUEUES)
        .queue_size(256)
        .memory(MemoryLayout::one(32 << 20));
    let mut client = Client::mount(&setup, &share);
    let oracle = client.oracle();
    let (node, fh) = client.make_file(ROOT, "file", &[0; (QUEUES + 1) * BLOCK]);
    let budget = Arc::new(AtomicU64::new(requests_per_run()));
    let threads: Vec<_> = (2..=QUEUES)
        .map(|index| {
            let mut session = client.session_on(index);
            session.queue.cut = Cut::Linux;
            let load = Load {
                session,
                node,
                fh,
                rng: Rng::new(u64_of(index)),
            };
            let budget = Arc::clone(&budget);
            thread::spawn(move || load.run(&budget))
        })
        .collect();
    let mut done = 0;
    // The first queue works too, one request at a time, so that it sleeps between any two.
    // It takes its share of the budget, so that this ends even when a thread has failed.
    while take_one(&budget) {
        client.canary();
        done += 1;
    }
    for thread in threads {
        done += thread.join().expect("a load thread has failed");
    }
    assert!(usize_of64(done) > 0);
    client.release(node, fh).expect("RELEASE");
    client.forget(node, 1);
    client.assert_sound(&oracle, "stress");
    assert!(client.shut_down().success());
}

#[test]
fn no_wake_up_is_lost_with_event_idx() {
    run(NotifyMode::EventIdx, &["--thread-pool-size", "0"], true);
}

#[test]
fn no_wake_up_is_lost_with_flags() {
    run(NotifyMode::Flags, &["--thread-pool-size", "0"], true);
}

#[test]
fn no_wake_up_is_lost_with_event_idx_by_default() {
    run(
        NotifyMode::EventIdx,
        &["--thread-pool-size", "adaptive"],
        true,
    );
}

#[test]
fn no_wake_up_is_lost_with_event_idx_and_a_pool() {
    run(NotifyMode::EventIdx, &["--thread-pool-size", "4"], true);
}

#[test]
fn no_wake_up_is_lost_with_flags_and_a_pool() {
    run(NotifyMode::Flags, &["--thread-pool-size", "4"], false);
}

#[test]
fn no_wake_up_is_lost_without_polling() {
    run(NotifyMode::EventIdx, &["--poll-us", "0"], true);
}

#[test]
fn no_wake_up_is_lost_with_flags_while_polling() {
    run(NotifyMode::Flags, &["--poll-us", "50"], true);
}
