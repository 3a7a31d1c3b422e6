//! What: random bytes on the socket, in the rings and as requests, for as long as
//! `VIRTIOFSD_HOSTILE_SECONDS` says (each; without it a second), then the oracle.
//!
//! Each run has another seed, which is said; `VIRTIOFSD_HOSTILE_SEED` repeats one. In the sandbox
//! and pool mode of `VIRTIOFSD_TEST_SANDBOX` and `VIRTIOFSD_TEST_POOL`, see tests/common/daemon.rs.

mod common;

use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use common::client::Client;
use common::daemon::Daemon;
use common::frontend::Setup;
use common::memory::Span;
use common::mutate::{mutate, opcode_of, tame, wild_names};
use common::oracle::Oracle;
use common::queue::Queue;
use common::raw::{RawFrontend, VERSION};
use common::request::{OUT_HEADER, ROOT, op};
use common::ring::{Descriptor, INDIRECT, NEXT, NotifyMode, WRITE};
use common::share::Share;
use common::templates::{open_things, templates};
use common::{Rng, sys, u32_of, u64_of, usize_of64};

/// When to stop.
fn deadline() -> Instant {
    let seconds = std::env::var("VIRTIOFSD_HOSTILE_SECONDS").map_or(1, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("VIRTIOFSD_HOSTILE_SECONDS={text}"))
    });
    Instant::now() + Duration::from_secs(seconds)
}

fn seeded(test: &str) -> (u64, Rng) {
    let seed = std::env::var("VIRTIOFSD_HOSTILE_SEED").map_or_else(
        |_| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(1, |now| u64::from(now.subsec_nanos()) ^ now.as_secs())
        },
        |text| {
            text.parse()
                .unwrap_or_else(|_| panic!("VIRTIOFSD_HOSTILE_SEED={text}"))
        },
    );
    eprintln!("{test}: VIRTIOFSD_HOSTILE_SEED={seed}");
    (seed, Rng::new(seed))
}

/// A message that may make sense, with descriptors that may belong.
fn send_something(raw: &mut RawFrontend, rng: &mut Rng, fd: RawFd) -> bool {
    let mut bytes = vec![0; 12 + rng.below(120)];
    rng.fill(&mut bytes);
    if rng.below(8) != 0 {
        let request = u32_of(rng.below(46));
        let flags = VERSION | if rng.below(2) == 0 { 8 } else { 0 };
        let size = u32_of(bytes.len() - 12);
        bytes[..12].copy_from_slice(&RawFrontend::header(request, flags, size));
        // Small numbers: indices, sizes and counts that are nearly right.
        for byte in bytes[12..].iter_mut().filter(|_| rng.below(3) != 0) {
            *byte = 0;
        }
    }
    let fds = vec![fd; [0, 0, 1, 2, 40][rng.below(5)]];
    raw.send_bytes(&bytes, &fds)
}

#[test]
fn random_bytes_on_the_socket_end_in_order() {
    let (seed, mut rng) = seeded("random_bytes_on_the_socket_end_in_order");
    let end = deadline();
    let share = Share::new();
    let file = sys::memfd(1 << 20);
    while Instant::now() < end {
        let mut daemon = Daemon::spawn(&share.path(), &[]);
        let mut raw = RawFrontend::new(daemon.connect());
        if rng.below(3) != 0 {
            raw.greet();
        }
        for _ in 0..1 + rng.below(60) {
            if !send_something(&mut raw, &mut rng, file.as_raw_fd()) {
                break;
            }
        }
        drop(raw);
        let status = daemon.wait_exit();
        let log = daemon.log.describe();
        assert!(
            matches!(status.code(), Some(0 | 1)),
            "seed {seed}: {status}\n{log}"
        );
        assert!(!log.contains("panicked"), "seed {seed}: {log}");
        assert!(log.lines().count() < 40, "seed {seed}: {log}");
    }
    share.assert_outside_unchanged();
}

/// The region that a queue with random bytes has for itself.
const GPA: u64 = 0x40_0000_0000;
const LEN: u64 = 1 << 20;

fn address(rng: &mut Rng) -> u64 {
    match rng.below(12) {
        0 => rng.next() | 1 << 62,
        1 => u64::MAX - u64_of(rng.below(5000)),
        2 => GPA + LEN - u64_of(rng.below(200)),
        _ => GPA + u64_of(rng.below(usize_of64(LEN))),
    }
}

fn random_descriptor(rng: &mut Rng, size: u16) -> Descriptor {
    let mut flags = [0, NEXT, NEXT, WRITE, WRITE, NEXT | WRITE, INDIRECT][rng.below(7)];
    if rng.below(40) == 0 {
        flags = u16::from_le_bytes([rng.byte(), rng.byte()]);
    }
    let near = rng.below(usize::from(size));
    let next = if rng.below(60) == 0 {
        u16::MAX
    } else {
        u16::try_from(near).expect("below a u16")
    };
    let len = match rng.below(10) {
        0 => u32::MAX - u32_of(rng.below(100)),
        1 => 0,
        2 => 16 * u32_of(rng.below(20)),
        _ => u32_of(rng.below(300)),
    };
    Descriptor {
        addr: address(rng),
        len,
        flags,
        next,
    }
}

/// A well-formed read-only request somewhere, so that some chains get far.
fn scatter_requests(client: &mut Client, rng: &mut Rng) {
    for opcode in [op::GETATTR, op::LOOKUP, op::STATFS, op::OPENDIR, op::FORGET] {
        let mut body = vec![0; 16 + rng.below(20)];
        if opcode == op::LOOKUP {
            body = b"file\0".to_vec();
        }
        let (message, _) = client.message(opcode, ROOT, &body);
        let at = GPA + 0x1_0000 + u64_of(rng.below(1000)) * 512;
        client.vm.memory.write(at, &message);
    }
}

fn throw_at(queue: &mut Queue, rng: &mut Rng) {
    let size = queue.ring.size;
    for _ in 0..1 + rng.below(40) {
        let index = u16::try_from(rng.below(usize::from(size))).expect("below a u16");
        queue
            .ring
            .write_descriptor(index, random_descriptor(rng, size));
    }
    // Few at once: a head that comes twice breaks the queue, and nothing else is seen of it then.
    for _ in 0..rng.below(4) {
        let head = match rng.below(100) {
            0 => u16::MAX,
            _ => u16::try_from(rng.below(usize::from(size))).expect("below a u16"),
        };
        queue.ring.push_avail(head);
    }
    queue.ring.publish();
    if rng.below(50) == 0 {
        queue
            .ring
            .publish_wild_index(u16::from_le_bytes([rng.byte(), rng.byte()]));
    }
    for _ in 0..rng.below(3) {
        queue.kick_now();
    }
}

#[test]
fn random_bytes_in_a_ring_harm_only_that_queue() {
    let (seed, mut rng) = seeded("random_bytes_in_a_ring_harm_only_that_queue");
    let end = deadline();
    let (mut returned, mut broken) = (0_u64, 0_u64);
    for notify in [NotifyMode::EventIdx, NotifyMode::Flags]
        .into_iter()
        .cycle()
    {
        let share = Share::new();
        share.write("file", b"data");
        let setup = Setup::default().queues(2).notify(notify);
        let mut client = Client::mount(&setup, &share);
        let mut canary = client.session_on(2);
        client.vm.add_memory(Span { gpa: GPA, len: LEN });
        let mut queue = client.vm.extra_queue(3, GPA, 64);
        client.vm.start_queue(&queue, 0);
        let oracle = Oracle::new(&mut client.vm, &mut canary);
        for round in 0..200 {
            scatter_requests(&mut client, &mut rng);
            for _ in 0..1 + rng.below(20) {
                throw_at(&mut queue, &mut rng);
            }
            let is_broken = queue.error_signalled(Duration::from_millis(1));
            if is_broken || round % 20 == 19 {
                client.vm.stop(3);
                broken += u64::from(is_broken);
                returned += u64::from(queue.ring.used_index());
                queue.reset();
                client.vm.start_queue(&queue, 0);
            }
            if Instant::now() >= end {
                break;
            }
        }
        client.vm.stop(3);
        queue.reset();
        client.init();
        client.vm.start_queue(&queue, 0);
        // More than one case, and so more lines than one may cause; the limiter's bound holds.
        let lines = client.vm.daemon.log.text().lines().count();
        assert!(
            lines < 100,
            "seed {seed}: {}",
            client.vm.daemon.log.describe()
        );
        oracle.excuse_lines(&client.vm);
        let case = format!("seed {seed}");
        oracle.check(&mut client.vm, &mut canary, &case);
        client.canary();
        share.assert_outside_unchanged();
        if Instant::now() >= end {
            break;
        }
    }
    eprintln!("{returned} chains came back, {broken} rings were broken");
    assert!(returned > 0 && broken > 0, "seed {seed} reaches nothing");
}

fn furnish(share: &Share) {
    share.clear();
    std::os::unix::fs::symlink("target", share.at("link")).expect("an empty share");
    std::os::unix::fs::symlink("../outside", share.at("up")).expect("an empty share");
    std::fs::create_dir(share.at("dir")).expect("an empty share");
}

/// One message: noise, a damaged template, or names that lead elsewhere.
fn something(
    client: &mut Client,
    rng: &mut Rng,
    all: &[(u32, u64, Vec<u8>)],
    nodes: &[u64],
) -> Vec<u8> {
    let mut message = match rng.below(10) {
        0 => {
            let mut noise = vec![0; 1 + rng.below(400)];
            rng.fill(&mut noise);
            noise
        }
        1..=4 => {
            let (opcode, node, body) = wild_names(rng, nodes);
            client.message(opcode, node, &body).0
        }
        _ => {
            let (opcode, node, body) = rng.pick(all).clone();
            let mut message = client.message(opcode, node, &body).0;
            mutate(rng, &mut message);
            message
        }
    };
    let opcode = opcode_of(&message);
    // These would end the session, or flush the whole host, rather than test it.
    if [op::INIT, op::DESTROY, op::SYNCFS].contains(&opcode) {
        message[4..8].copy_from_slice(&op::GETATTR.to_le_bytes());
    }
    tame(opcode_of(&message), &mut message);
    message
}

#[test]
fn random_requests_are_answered_and_lead_nowhere() {
    let (seed, mut rng) = seeded("random_requests_are_answered_and_lead_nowhere");
    let end = deadline();
    let share = Share::new();
    furnish(&share);
    let args = ["--xattr", "--posix-lock", "--flock"];
    let mut client = Client::mount(&Setup::default().queues(2).args(&args), &share);
    let oracle = client.oracle();
    let (mut answered, mut done) = (0_u64, 0_u64);
    while Instant::now() < end {
        let things = open_things(&mut client);
        let mut nodes = vec![ROOT, things.file, things.link, 4711];
        nodes.extend(["dir", "up"].map(|name| client.node(name)));
        let all = templates(things, client.flags);
        for _ in 0..100 {
            for _ in 0..16 {
                let message = something(&mut client, &mut rng, &all, &nodes);
                let room = [0, 1, 16, 17, 144, 160, 1000][rng.below(7)];
                client.queue.add(&message, room);
            }
            client.queue.publish();
            while client.queue.in_flight() > 0 {
                // A lock that waits for another is answered when the session ends.
                let Some(completion) = client.queue.next_within(Duration::from_millis(300)) else {
                    break;
                };
                let len = completion.used_len;
                assert!(len == 0 || len >= OUT_HEADER, "seed {seed}: {completion:?}");
                answered += u64::from(len > 0);
                done += u64::from(len > OUT_HEADER);
            }
            if client.queue.in_flight() > 60 {
                break;
            }
        }
        client.init();
        client.queue.drain();
        let case = format!("seed {seed}");
        oracle.excuse_lines(&client.vm);
        client.assert_sound(&oracle, &case);
        furnish(&share);
    }
    eprintln!("{answered} requests were answered, {done} with more than an error");
    assert!(done > 0, "seed {seed} reaches nothing");
    let lines = client.vm.daemon.log.text().lines().count();
    assert!(
        lines < 1000,
        "seed {seed}: {}",
        client.vm.daemon.log.describe()
    );
    share.assert_outside_unchanged();
}
