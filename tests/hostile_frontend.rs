//! What: front ends without manners (security.md 2.11): the daemon refuses (NAK) or closes the
//! connection (CONN) and ends cleanly; it never crashes, hangs or leaks.

mod common;

use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use common::client::Client;
use common::daemon::Daemon;
use common::frontend::Setup;
use common::raw::{Answer, RawFrontend, VERSION, msg};
use common::request::Bytes;
use common::share::Share;
use common::{Rng, sys, u32_of};

/// A daemon with a greeted front end.
fn greeted(share: &Share) -> (Daemon, RawFrontend) {
    let mut daemon = Daemon::spawn(&share.path(), &[]);
    let mut raw = RawFrontend::new(daemon.connect());
    raw.greet();
    (daemon, raw)
}

/// After a refusal: either the connection serves on, or the daemon has ended by itself.
fn assert_sound(mut daemon: Daemon, mut raw: RawFrontend, answer: &Answer, case: &str) {
    assert_ne!(*answer, Answer::Silence, "{case}: no answer");
    if *answer != Answer::Closed {
        // A refusal may end the connection, but not leave it in between.
        let next = raw.ask(msg::GET_QUEUE_NUM, &[], &[]);
        assert!(
            next == Answer::Closed || next.status().is_some_and(|queues| queues > 0),
            "{case}: then {next:?}"
        );
    }
    drop(raw);
    let status = daemon.wait_exit();
    assert!(
        matches!(status.code(), Some(0 | 1)),
        "{case}: {status}\n{}",
        daemon.log.describe()
    );
    let words = daemon.log.text();
    assert!(!words.contains("panicked"), "{case}: {words}");
}

/// Sends one message to a greeted daemon, which must refuse it.
fn expect_refusal(request: u32, body: &[u8], fds: &[RawFd], case: &str) {
    let share = Share::new();
    let (daemon, mut raw) = greeted(&share);
    let answer = raw.ask(request, body, fds);
    assert!(answer.is_refusal(), "{case}: {answer:?}");
    assert_sound(daemon, raw, &answer, case);
}

fn vring_state(index: u32, number: u32) -> Vec<u8> {
    Bytes::new().u32(index).u32(number).done()
}

fn region(gpa: u64, len: u64, offset: u64) -> Vec<u8> {
    let user = gpa.wrapping_add(1 << 40);
    Bytes::new().u64(gpa).u64(len).u64(user).u64(offset).done()
}

#[test]
fn garbage_headers_close_the_connection() {
    let cases = [
        (
            "size 0xffffffff",
            RawFrontend::header(msg::SET_OWNER, VERSION, u32::MAX),
        ),
        (
            "size 4097",
            RawFrontend::header(msg::SET_OWNER, VERSION, 4097),
        ),
        ("version 0", RawFrontend::header(msg::GET_FEATURES, 0, 0)),
        ("version 2", RawFrontend::header(msg::GET_FEATURES, 2, 0)),
        (
            "reserved bits",
            RawFrontend::header(msg::GET_FEATURES, VERSION | 0xfff0, 0),
        ),
        (
            "a reply",
            RawFrontend::header(msg::GET_FEATURES, VERSION | 4, 0),
        ),
        ("request 0", RawFrontend::header(0, VERSION, 0)),
        ("request 1000", RawFrontend::header(1000, VERSION, 0)),
        ("all ones", vec![0xff; 12]),
    ];
    for (case, bytes) in cases {
        let share = Share::new();
        let mut daemon = Daemon::spawn(&share.path(), &[]);
        let mut raw = RawFrontend::new(daemon.connect());
        raw.send_bytes(&bytes, &[]);
        let answer = raw.receive(Duration::from_secs(10));
        assert_eq!(answer, Answer::Closed, "{case}");
        assert_sound(daemon, raw, &answer, case);
    }
}

#[test]
fn random_bytes_never_crash_the_daemon() {
    let mut rng = Rng::new(11);
    for round in 0..20 {
        let share = Share::new();
        let mut daemon = Daemon::spawn(&share.path(), &[]);
        let mut raw = RawFrontend::new(daemon.connect());
        for _ in 0..20 {
            let mut bytes = vec![0; 12 + rng.below(100)];
            rng.fill(&mut bytes);
            if rng.below(2) == 0 {
                // A header that makes sense, so that some bodies are parsed.
                let request = u32_of(rng.below(45));
                let size = u32_of(bytes.len() - 12);
                bytes[..12].copy_from_slice(&RawFrontend::header(request, VERSION, size));
            }
            if !raw.send_bytes(&bytes, &[]) {
                break;
            }
        }
        drop(raw);
        let status = daemon.wait_exit();
        assert!(status.code().is_some(), "round {round}: {status}");
        assert!(
            !daemon.log.text().contains("panicked"),
            "{}",
            daemon.log.text()
        );
    }
}

#[test]
fn half_a_header_and_silence_then_the_end_is_survived() {
    let share = Share::new();
    let mut daemon = Daemon::spawn(&share.path(), &[]);
    let mut stream = daemon.connect();
    stream.write_all(&[1, 0, 0, 0, 1, 0]).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(daemon.is_alive());
    drop(stream);
    assert!(matches!(daemon.wait_exit().code(), Some(0 | 1)));
}

#[test]
fn protocol_features_that_were_not_offered_are_refused() {
    for bits in [1 << 14, 1 << 17, 1 << 63, u64::MAX] {
        // With REPLY_ACK, so that the refusal can be seen.
        let bits = bits | 1 << 3;
        let body = Bytes::new().u64(bits).done();
        expect_refusal(msg::SET_PROTOCOL_FEATURES, &body, &[], &format!("{bits:x}"));
    }
}

#[test]
fn features_that_were_not_offered_are_refused() {
    for bits in [1 << 34, 1 << 33, 1 << 63, u64::MAX] {
        let body = Bytes::new().u64(bits).done();
        expect_refusal(msg::SET_FEATURES, &body, &[], &format!("{bits:x}"));
    }
}

#[test]
fn memory_tables_that_lie_are_refused() {
    let file = sys::memfd(1 << 20);
    let fd = file.as_raw_fd();
    let table = |count: u32, regions: &[Vec<u8>]| {
        let body = Bytes::new().u32(count).u32(0);
        body.raw(&regions.concat()).done()
    };
    let good = region(0, 1 << 20, 0);
    let cases = [
        ("0 regions", table(0, &[]), vec![]),
        (
            "33 regions",
            table(33, &vec![good.clone(); 33]),
            vec![fd; 32],
        ),
        ("size 0", table(1, &[region(0, 0, 0)]), vec![fd]),
        (
            "overflow",
            table(1, &[region(u64::MAX - 4095, 1 << 20, 0)]),
            vec![fd],
        ),
        (
            "offset overflow",
            table(1, &[region(0, 1 << 20, u64::MAX - 4095)]),
            vec![fd],
        ),
        (
            "overlap",
            table(2, &[good.clone(), region(4096, 1 << 20, 0)]),
            vec![fd, fd],
        ),
        (
            "fewer fds",
            table(2, &[good.clone(), region(1 << 20, 4096, 0)]),
            vec![fd],
        ),
        (
            "more fds",
            table(1, std::slice::from_ref(&good)),
            vec![fd, fd],
        ),
        ("no fds", table(1, std::slice::from_ref(&good)), vec![]),
        ("short body", table(2, &[good]), vec![fd, fd]),
    ];
    for (case, body, fds) in cases {
        expect_refusal(msg::SET_MEM_TABLE, &body, &fds, case);
    }
}

#[test]
fn memory_that_is_no_file_is_refused() {
    let share = Share::new();
    let (daemon, mut raw) = greeted(&share);
    let directory = std::fs::File::open(share.path()).unwrap();
    let body = Bytes::new().u64(1).raw(&region(0, 1 << 20, 0)).done();
    let answer = raw.ask(msg::SET_MEM_TABLE, &body, &[directory.as_raw_fd()]);
    assert!(answer.is_refusal(), "{answer:?}");
    assert_sound(daemon, raw, &answer, "a directory as memory");
}

#[test]
fn memory_larger_than_its_file_is_refused() {
    let file = sys::memfd(1 << 20);
    for (len, offset) in [((1 << 20) + 4096, 0), (1 << 20, 4096), (1 << 40, 0)] {
        let body = Bytes::new().u64(1).raw(&region(0, len, offset)).done();
        let fds = [file.as_raw_fd()];
        expect_refusal(msg::SET_MEM_TABLE, &body, &fds, "SET_MEM_TABLE");
        let body = Bytes::new().u64(0).raw(&region(0, len, offset)).done();
        expect_refusal(msg::ADD_MEM_REG, &body, &fds, "ADD_MEM_REG");
    }
}

#[test]
fn queue_of_one_descriptor_is_refused() {
    expect_refusal(msg::SET_VRING_NUM, &vring_state(1, 1), &[], "size 1");
}

#[test]
fn queue_sizes_that_are_none_are_refused() {
    for size in [0, 3, 100, 32_769, 65_535, 65_536, u32::MAX] {
        let body = vring_state(1, size);
        expect_refusal(msg::SET_VRING_NUM, &body, &[], &format!("size {size}"));
    }
}

#[test]
fn queue_indices_out_of_range_are_refused() {
    for index in [64, 65, 255, 256, u32::MAX] {
        let case = format!("queue {index}");
        expect_refusal(msg::SET_VRING_NUM, &vring_state(index, 128), &[], &case);
        expect_refusal(msg::SET_VRING_BASE, &vring_state(index, 0), &[], &case);
        expect_refusal(msg::SET_VRING_ENABLE, &vring_state(index, 1), &[], &case);
        let share = Share::new();
        let (daemon, mut raw) = greeted(&share);
        let answer = raw.ask(msg::GET_VRING_BASE, &vring_state(index, 0), &[]);
        assert_sound(daemon, raw, &answer, &case);
    }
}

#[test]
fn enable_values_that_are_none_are_refused() {
    expect_refusal(msg::SET_VRING_ENABLE, &vring_state(1, 2), &[], "enable 2");
}

#[test]
fn ring_addresses_outside_memory_are_refused_or_break_only_the_queue() {
    let share = Share::new();
    for user in [0, 1, u64::MAX, u64::MAX - 15, 1 << 62] {
        let (daemon, mut raw) = greeted(&share);
        let body = Bytes::new()
            .u32(1)
            .u32(0)
            .u64(user)
            .u64(user)
            .u64(user)
            .u64(0);
        let answer = raw.ask(msg::SET_VRING_ADDR, &body.done(), &[]);
        assert!(answer.is_refusal(), "{user:x}: {answer:?}");
        assert_sound(daemon, raw, &answer, "ring address");
    }
}

#[test]
fn logging_that_was_not_offered_is_refused() {
    let file = sys::memfd(4096);
    let body = Bytes::new().u64(1 << 63).u64(7).done();
    expect_refusal(
        msg::SET_LOG_BASE,
        &body,
        &[file.as_raw_fd()],
        "SET_LOG_BASE",
    );
    expect_refusal(msg::SET_LOG_FD, &[], &[file.as_raw_fd()], "SET_LOG_FD");
}

#[test]
fn descriptors_on_every_message_are_closed() {
    let share = Share::new();
    let file = sys::memfd(4096);
    for count in [1, 2, 32, 253] {
        let (mut daemon, mut raw) = greeted(&share);
        raw.ask_u64(msg::GET_QUEUE_NUM);
        let before = daemon.fd_count();
        let fds = vec![file.as_raw_fd(); count];
        let mut open = true;
        for request in [msg::GET_FEATURES, msg::SET_OWNER, msg::GET_QUEUE_NUM] {
            if open {
                let answer = raw.ask(request, &[], &fds);
                assert_ne!(answer, Answer::Silence, "{count} fds on message {request}");
                open = answer != Answer::Closed;
            }
        }
        if open {
            assert_eq!(daemon.fd_count(), before, "{count} descriptors per message");
        }
        drop(raw);
        assert!(matches!(daemon.wait_exit().code(), Some(0 | 1)));
    }
}

#[test]
fn messages_cut_off_by_the_end_of_the_connection_are_survived() {
    let share = Share::new();
    for len in [1, 11, 12, 13, 19] {
        let (mut daemon, mut raw) = greeted(&share);
        let mut bytes = RawFrontend::header(msg::SET_VRING_NUM, VERSION, 8);
        bytes.extend_from_slice(&vring_state(1, 128));
        raw.send_bytes(&bytes[..len], &[]);
        drop(raw);
        let status = daemon.wait_exit();
        assert!(
            matches!(status.code(), Some(0 | 1)),
            "{len} bytes: {status}"
        );
    }
}

#[test]
fn call_descriptors_that_cannot_be_written_lose_only_the_signal() {
    let share = Share::new();
    share.write("file", b"data");
    let mut client = Client::mount(&Setup::default(), &share);
    let oracle = client.oracle();
    // A full eventfd: the write would block.
    client.queue.call.write(u64::MAX - 1).unwrap();
    client.canary();
    for _ in 0..100 {
        client.getattr(1, None).unwrap();
    }
    client.assert_sound(&oracle, "full call eventfd");
}

#[test]
fn enable_flapping_under_load_loses_nothing() {
    let share = Share::new();
    let mut client = Client::mount(&Setup::default(), &share);
    let mut served = 0;
    for round in 0..500 {
        for _ in 0..16 {
            let (message, _) = client.message(3, 1, &[0; 16]);
            client.queue.submit(&message, 120);
        }
        for enable in [false, true] {
            client.vm.must("SET_VRING_ENABLE", |frontend| {
                use vhost::vhost_user::VhostUserFrontend;
                frontend.set_vring_enable(1, enable)
            });
        }
        served += client.queue.drain().len();
        assert_eq!(served, 16 * (round + 1));
    }
}

#[test]
fn many_connections_in_turn_are_bounded() {
    let share = Share::new();
    let mut client = Client::mount(&Setup::default(), &share);
    let before = client.vm.daemon.fd_count();
    for _ in 0..200 {
        drop(std::os::unix::net::UnixStream::connect(
            &client.vm.daemon.socket,
        ));
    }
    client.canary();
    assert!(client.vm.daemon.fd_count() <= before + 2);
    assert_eq!(client.shut_down().code(), Some(0));
}
