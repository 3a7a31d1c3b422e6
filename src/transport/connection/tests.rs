//! A front end that sends raw bytes, right and wrong.

use std::fs::File;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::wire::channel::{Outcome, Pace, ReplySink, RequestHandler, RequestSource};

use super::super::test_guest::{memory_file, spec};
use super::super::{DeviceSettings, Ended, Execution, Polling, serve};
use super::*;

const PROTOCOL_FEATURES: u64 = 1 << 30;
const REPLY_ACK: u64 = 1 << 3;
const MEM_SLOTS: u64 = 1 << 15;
const CONFIG: u64 = 1 << 9;

#[derive(Default)]
struct Idle {
    resets: AtomicU32,
}

impl RequestHandler for Idle {
    fn handle(&self, _: &mut dyn RequestSource, _: &mut dyn ReplySink, _: Pace) -> Outcome {
        Outcome::Dropped
    }

    fn reset(&self) {
        self.resets.fetch_add(1, Ordering::Relaxed);
    }
}

/// A front end that can send anything.
struct Front {
    socket: UnixStream,
    daemon: JoinHandle<Result<Ended>>,
    handler: Arc<Idle>,
}

impl Front {
    fn connect(tag: Option<&str>) -> Front {
        let (socket, theirs) = UnixStream::pair().expect("a socket pair");
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("setsockopt");
        let settings = DeviceSettings {
            tag: tag.map(str::to_owned),
            execution: Execution::Inline,
            polling: Polling::Adaptive,
            num_request_queues_in_config: 3,
        };
        let handler = Arc::new(Idle::default());
        let theirs_handler = Arc::clone(&handler);
        let daemon =
            thread::spawn(move || serve(theirs, &settings, theirs_handler, &Arc::default()));
        Front {
            socket,
            daemon,
            handler,
        }
    }

    /// Connected, with REPLY_ACK and memory slots accepted.
    fn agreed(tag: Option<&str>) -> Front {
        let front = Front::connect(tag);
        let config = if tag.is_some() { CONFIG } else { 0 };
        let body = (REPLY_ACK | MEM_SLOTS | config).to_ne_bytes();
        assert_ne!(front.ask(1, &[]), 0);
        front.send(16, VERSION, &body, &[]);
        assert_eq!(front.ack(2, &PROTOCOL_FEATURES.to_ne_bytes(), &[]), 0);
        front
    }

    fn send(&self, code: u32, flags: u32, body: &[u8], descriptors: &[RawFd]) {
        let size = u32::try_from(body.len()).expect("small");
        let mut bytes = Vec::new();
        for word in [code, flags, size] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes.extend_from_slice(body);
        self.socket
            .send_with_fds(&[bytes.as_slice()], descriptors)
            .expect("room in the socket");
    }

    fn answer(&self, code: u32) -> Vec<u8> {
        let mut header = [0; HEADER_SIZE];
        (&self.socket).read_exact(&mut header).expect("an answer");
        assert_eq!(word(&header, 0), code);
        assert_eq!(word(&header, 4), VERSION | FLAG_REPLY);
        let size = usize::try_from(word(&header, 8)).expect("small");
        let mut body = vec![0; size];
        (&self.socket).read_exact(&mut body).expect("its body");
        body
    }

    fn u64_answer(&self, code: u32) -> u64 {
        u64::from_ne_bytes(self.answer(code).try_into().expect("eight bytes"))
    }

    /// A message that has an answer of one number.
    fn ask(&self, code: u32, body: &[u8]) -> u64 {
        self.send(code, VERSION, body, &[]);
        self.u64_answer(code)
    }

    /// A message that is acknowledged with zero, or refused with another number.
    fn ack(&self, code: u32, body: &[u8], descriptors: &[RawFd]) -> u64 {
        self.send(code, VERSION | FLAG_NEED_REPLY, body, descriptors);
        self.u64_answer(code)
    }

    /// The connection still works.
    fn assert_alive(&self) {
        assert_eq!(self.ask(1, &[]), 0x1_7000_0000);
    }

    fn leave(self) -> (Result<Ended>, u32) {
        drop(self.socket);
        let ended = self.daemon.join().expect("no panic");
        (ended, self.handler.resets.load(Ordering::Relaxed))
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}

fn mem_table(regions: &[[u64; 4]]) -> Vec<u8> {
    let mut body = words(&[u32::try_from(regions.len()).expect("few"), 0]);
    body.extend(regions.iter().flat_map(|region| longs(region)));
    body
}

#[test]
fn serve_ends_when_the_front_end_leaves_and_resets_the_handler() {
    let (ended, resets) = Front::connect(None).leave();
    assert!(matches!(ended, Ok(Ended::Disconnected)));
    assert_eq!(resets, 1);
}

#[test]
fn features_offered_are_as_documented() {
    for (tag, protocol) in [(None, 0xa429), (Some("share"), 0xa629)] {
        let front = Front::connect(tag);
        assert_eq!(front.ask(1, &[]), 0x1_7000_0000);
        assert_eq!(front.ask(15, &[]), protocol, "{tag:?}");
        front.send(16, VERSION, &1_u64.to_ne_bytes(), &[]);
        assert_eq!(front.ask(17, &[]), 64);
    }
}

#[test]
fn wrong_ring_messages_are_refused_and_the_connection_stays() {
    let front = Front::agreed(None);
    for size in [0, 1 << 16, 3, 32769, 65535] {
        assert_ne!(front.ack(8, &words(&[1, size]), &[]), 0, "size {size}");
    }
    for index in [64, 255, u32::MAX] {
        assert_ne!(front.ack(8, &words(&[index, 128]), &[]), 0, "{index}");
        assert_ne!(front.ack(10, &words(&[index, 0]), &[]), 0, "{index}");
        assert_ne!(front.ack(18, &words(&[index, 1]), &[]), 0, "{index}");
        front.send(11, VERSION, &words(&[index, 0]), &[]);
        assert_eq!(front.answer(11), words(&[index, 0]));
    }
    assert_ne!(front.ack(18, &words(&[1, 2]), &[]), 0, "enable 2");
    assert_ne!(front.ack(10, &words(&[1, 1 << 16]), &[]), 0, "base");
    let misaligned = [&words(&[1, 0])[..], &longs(&[8, 0, 0, 0])].concat();
    assert_ne!(front.ack(9, &misaligned, &[]), 0, "misaligned");
    let nowhere = [&words(&[1, 0])[..], &longs(&[16, 32, 64, 0])].concat();
    assert_ne!(front.ack(9, &nowhere, &[]), 0, "no memory");
    assert_ne!(
        front.ack(12, &longs(&[0x101]), &[]),
        0,
        "no kick descriptor"
    );
    assert_ne!(front.ack(12, &longs(&[1]), &[]), 0, "kick missing");
    assert_eq!(front.ack(8, &words(&[1, 128]), &[]), 0);
    front.assert_alive();
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let front = Front::agreed(None);
    assert_ne!(front.ack(2, &longs(&[1 << 34]), &[]), 0);
    assert_ne!(front.ack(16, &longs(&[REPLY_ACK | 1 << 14]), &[]), 0);
    assert_eq!(front.ack(2, &longs(&[PROTOCOL_FEATURES]), &[]), 0);
    front.assert_alive();
}

#[test]
fn memory_tables_that_are_wrong_are_refused_and_the_old_one_stays() {
    let front = Front::agreed(None);
    let file = memory_file(8192);
    let fd = file.as_raw_fd();
    let region = |start: u64, size: u64| {
        let spec = spec(start, size);
        [spec.guest_start, spec.size, spec.user_start, 0]
    };
    assert_eq!(front.ack(5, &mem_table(&[region(0, 4096)]), &[fd]), 0);
    let many = vec![region(0, 4096); 33];
    let cases: [(&str, Vec<u8>, Vec<RawFd>); 8] = [
        ("none", mem_table(&[]), vec![]),
        ("33", mem_table(&many), vec![fd; 33]),
        ("size 0", mem_table(&[region(0, 0)]), vec![fd]),
        (
            "overflow",
            mem_table(&[[u64::MAX - 1, 4096, 0, 0]]),
            vec![fd],
        ),
        (
            "overlap",
            mem_table(&[region(0, 4096), region(2048, 4096)]),
            vec![fd, fd],
        ),
        (
            "fewer descriptors",
            mem_table(&[region(0, 4096), region(4096, 4096)]),
            vec![fd],
        ),
        (
            "more descriptors",
            mem_table(&[region(0, 4096)]),
            vec![fd, fd],
        ),
        ("beyond the file", mem_table(&[region(0, 8193)]), vec![fd]),
    ];
    for (name, body, descriptors) in cases {
        assert_ne!(front.ack(5, &body, &descriptors), 0, "{name}");
    }
    let add = |start, size| {
        let mut body = longs(&[0]);
        body.extend(longs(&region(start, size)));
        body
    };
    assert_ne!(front.ack(37, &add(0, 4096), &[fd]), 0, "old table is there");
    assert_ne!(front.ack(37, &add(4096, 4096), &[]), 0, "no descriptor");
    assert_eq!(front.ack(37, &add(4096, 4096), &[fd]), 0);
    assert_eq!(front.ack(38, &add(4096, 4096), &[]), 0);
    assert_ne!(front.ack(38, &add(4096, 4096), &[]), 0, "gone already");
    assert_eq!(front.ask(36, &[]), 509);
    front.assert_alive();
}

#[test]
fn descriptors_that_do_not_belong_are_closed_and_the_connection_stays() {
    let front = Front::agreed(None);
    let (mut ours, theirs) = UnixStream::pair().expect("a socket pair");
    ours.set_read_timeout(Some(Duration::from_secs(10)))
        .expect("setsockopt");
    let fd = theirs.as_raw_fd();
    for count in [2, 32, 33, 253] {
        let many = vec![fd; count];
        assert_ne!(front.ack(8, &words(&[1, 128]), &many), 0, "{count}");
        assert_ne!(front.ack(12, &longs(&[1]), &many), 0, "{count}");
        assert_ne!(front.ack(13, &longs(&[1]), &many), 0, "{count}");
        assert_ne!(front.ack(3, &[], &many), 0, "{count}");
        assert_ne!(front.ack(5, &mem_table(&[[0; 4]]), &many), 0, "{count}");
        front.assert_alive();
    }
    drop(theirs);
    // The end of the stream comes only when the last copy is closed.
    assert_eq!(ours.read(&mut [0; 1]).expect("the end"), 0);
}

#[test]
fn messages_we_do_not_support_are_refused_and_the_connection_stays() {
    let front = Front::agreed(None);
    let null = File::open("/dev/null").expect("/dev/null");
    assert_ne!(front.ack(6, &longs(&[4096, 0]), &[null.as_raw_fd()]), 0);
    assert_ne!(front.ack(7, &[], &[null.as_raw_fd()]), 0);
    assert_ne!(front.ack(35, &words(&[1, 0]), &[]), 0);
    assert_ne!(front.ack(39, &longs(&[1]), &[]), 0);
    // Not asked for an answer, so there must be none.
    front.send(39, VERSION, &longs(&[1]), &[]);
    front.assert_alive();
}

#[test]
fn message_with_no_possible_refusal_ends_the_connection() {
    let front = Front::agreed(None);
    front.send(40, VERSION, &[], &[]);
    let (ended, resets) = front.leave();
    assert!(matches!(ended, Err(TransportError::Unanswerable(_))));
    assert_eq!(resets, 1);
}

#[test]
fn broken_framing_ends_the_connection_with_a_reason() {
    let cases = [
        ("version 0", words(&[1, 0, 0])),
        ("version 2", words(&[1, 2, 0])),
        ("reserved bit", words(&[1, VERSION | 16, 0])),
        ("an answer", words(&[1, VERSION | FLAG_REPLY, 0])),
        ("no such message", words(&[77, VERSION, 0])),
        ("message 0", words(&[0, VERSION, 0])),
        ("huge", words(&[1, VERSION, u32::MAX])),
        ("a bit too long", words(&[1, VERSION, 4097])),
        ("half a header", words(&[1, VERSION])),
        ("half a body", words(&[8, VERSION, 8, 1])),
    ];
    for (name, bytes) in cases {
        let front = Front::connect(None);
        (&front.socket).write_all(&bytes).expect("room");
        let (ended, resets) = front.leave();
        assert!(matches!(ended, Err(TransportError::Framing(_))), "{name}");
        assert_eq!(resets, 1, "{name}");
    }
}

#[test]
fn message_in_single_bytes_is_understood() {
    let front = Front::agreed(None);
    let mut bytes = words(&[8, VERSION | FLAG_NEED_REPLY, 8]);
    bytes.extend(words(&[1, 128]));
    for byte in bytes {
        (&front.socket).write_all(&[byte]).expect("room");
    }
    assert_eq!(front.u64_answer(8), 0);
}

#[test]
fn config_is_given_with_a_tag_and_refused_without() {
    let mut body = words(&[0, 44, 0]);
    body.extend([0; 44]);
    let front = Front::agreed(Some("share"));
    front.send(24, VERSION, &body, &[]);
    let answer = front.answer(24);
    assert_eq!(&answer[12..18], b"share\0");
    assert_eq!(&answer[48..52], &[3, 0, 0, 0]);
    assert_ne!(front.ack(25, &body, &[]), 0, "read-only");

    let front = Front::agreed(None);
    front.send(24, VERSION, &body, &[]);
    assert_eq!(front.answer(24).len(), 12);
    front.assert_alive();
}

#[test]
fn device_with_an_impossible_tag_is_refused() {
    let (ended, resets) = Front::connect(Some("")).leave();
    assert!(matches!(ended, Err(TransportError::Tag(_))));
    assert_eq!(resets, 0);
}
