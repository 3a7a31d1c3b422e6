//! The server on plain bytes: hostile requests here, well-formed ones in the modules.
//!
//! Every decoder is fed every truncation, rooms of every length and a seeded run of mutations.
//! After each request the accounts must balance: what the file system has granted and not taken
//! back is exactly what replies have told the guest.

#[path = "server/cases.rs"]
mod cases;
#[path = "server/double.rs"]
mod double;
#[path = "server/negotiated.rs"]
mod negotiated;
#[path = "server/operations.rs"]
mod operations;
#[path = "server/paces.rs"]
mod paces;
#[path = "server/read_only.rs"]
mod read_only;
#[path = "server/sessions.rs"]
mod sessions;
#[path = "server/slices.rs"]
mod slices;

use std::sync::atomic::Ordering;

use cases::{UNIQUE, error_of, every_operation, init, mounted, out_header, replied, send};
use double::FakeFs;
use slices::{PATTERN, SliceSink, SliceSource};
use virtiofsd::server::Server;
use virtiofsd::wire::channel::{Outcome, Pace, RequestHandler};
use virtiofsd::wire::header::InHeader;
use virtiofsd::wire::opcode::Opcode;
use virtiofsd::wire::pod::Plain;

/// Cases of the mutation run: some seconds in a debug build.
const MUTATION_COUNT: u32 = 200_000;

/// Room that is enough for every reply to a well-formed case.
const ROOM: usize = 8192;

/// Lookups and handles that a reply tells the guest about.
fn granted(opcode: u32, sink: &SliceSink, outcome: Outcome) -> (i64, i64) {
    let Outcome::Replied(len) = outcome else {
        return (0, 0);
    };
    if out_header(sink).error != 0 {
        return (0, 0);
    }
    match Opcode::from_raw(opcode) {
        Opcode::Lookup | Opcode::Symlink | Opcode::Mknod | Opcode::Mkdir | Opcode::Link => (1, 0),
        Opcode::Create | Opcode::Tmpfile => (1, 1),
        Opcode::Open | Opcode::Opendir => (0, 1),
        Opcode::Readdirplus => (nodes_listed(&sink.bytes[16..len as usize]), 0),
        _ => (0, 0),
    }
}

/// Entries with a node in a READDIRPLUS payload.
fn nodes_listed(mut records: &[u8]) -> i64 {
    let number = |bytes: &[u8], at: usize| {
        u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
    };
    let mut count = 0;
    while !records.is_empty() {
        count += i64::from(number(records, 0) != 0);
        let name_len = (number(records, 144) & 0xffff_ffff) as usize;
        records = &records[(152 + name_len).next_multiple_of(8)..];
    }
    count
}

/// Checks what holds for every request whatsoever.
fn check_manners(sink: &SliceSink, outcome: Outcome, what: &str) {
    let Outcome::Replied(len) = outcome else {
        assert!(sink.writes.is_empty(), "{what}: wrote without a reply");
        return;
    };
    let header = out_header(sink);
    assert_eq!((header.len, header.unique), (len, UNIQUE), "{what}");
    assert!(header.error <= 0 && header.error > -512, "{what}");
    assert!(
        header.error == 0 || len == 16,
        "{what}: an error is a header"
    );
    assert_eq!(sink.writes.last(), Some(&(0, 16)), "{what}: header last");
    let beyond = sink.bytes.iter().skip(len as usize);
    assert!(beyond.clone().all(|&byte| byte == PATTERN), "{what}: stray");
}

#[test]
fn truncation_at_every_byte_is_refused_without_a_call() {
    for case in every_operation() {
        let server = mounted();
        let whole = case.request.bytes();
        for len in 0..whole.len() {
            let mut cut = whole[..len].to_vec();
            for len_is_honest in [false, true] {
                if len_is_honest && len >= 40 {
                    cut[..4].copy_from_slice(&u32::try_from(len).expect("small").to_ne_bytes());
                }
                let (outcome, sink) = send(&server, &cut, ROOM);
                let what = format!("{:?} cut at {len}", case.opcode);
                let expected = match (len < 40, case.payload_len.is_some()) {
                    (true, _) => Outcome::Dropped,
                    (false, true) => Outcome::Replied(16),
                    (false, false) => Outcome::NoReply,
                };
                // Entries of a BATCH_FORGET that are there count.
                let counts = case.opcode == Opcode::BatchForget && len_is_honest;
                assert_eq!(outcome, expected, "{what}");
                check_manners(&sink, outcome, &what);
                if outcome == Outcome::Replied(16) {
                    assert_eq!(out_header(&sink).error, -libc::EINVAL, "{what}");
                }
                let called = !server.file_system().take_last_call().is_empty();
                assert!(!called || counts, "{what}: called");
            }
        }
    }
}

#[test]
fn arguments_out_of_reach_are_eio_and_headers_are_dropped() {
    for case in every_operation() {
        let server = mounted();
        let bytes = case.request.bytes();
        for reachable in [0, 39, 40, bytes.len().saturating_sub(1)] {
            let mut source = SliceSource::new(&bytes);
            let reachable = reachable.min(bytes.len() - 1);
            source.reachable = reachable;
            let mut sink = SliceSink::new(ROOM);
            let outcome = server.handle(&mut source, &mut sink, Pace::Patient);
            let what = format!("{:?} reachable to {reachable}", case.opcode);
            check_manners(&sink, outcome, &what);
            if reachable < 40 {
                assert_eq!(outcome, Outcome::Dropped, "{what}");
            } else if case.payload_len.is_some() && case.opcode != Opcode::Write {
                assert_eq!(out_header(&sink).error, -libc::EIO, "{what}");
            }
        }
    }
}

#[test]
fn reply_room_of_every_length_keeps_the_accounts() {
    for case in every_operation() {
        let server = mounted();
        let fs = server.file_system();
        let bytes = case.request.bytes();
        let full = 16 + case.payload_len.unwrap_or(0);
        let mut expected = (0, 0);
        for room in 0..=full + 8 {
            let what = format!("{:?} with room {room}", case.opcode);
            let (outcome, sink) = send(&server, &bytes, room);
            check_manners(&sink, outcome, &what);
            let (lookups, handles) = granted(case.request.opcode, &sink, outcome);
            expected = (expected.0 + lookups, expected.1 + handles);
            assert_eq!(fs.outstanding(), expected, "{what}");
            if case.payload_len.is_none() {
                assert_eq!(outcome, Outcome::NoReply, "{what}");
            } else if room < 16 {
                assert_eq!(outcome, Outcome::Dropped, "{what}");
                assert_eq!(fs.take_last_call(), "", "{what}");
            } else if room >= full && !matches!(case.opcode, Opcode::Getxattr | Opcode::Listxattr) {
                assert_eq!(outcome, replied(full - 16), "{what}");
            } else if full <= room {
                // GETXATTR and LISTXATTR ask for the room that the guest says it has.
                let refused = out_header(&sink).error == -libc::ERANGE;
                assert!(refused || outcome == replied(full - 16), "{what}");
            } else if outcome == Outcome::Replied(16) {
                let error = -out_header(&sink).error;
                assert!(
                    [libc::EINVAL, libc::ERANGE].contains(&error),
                    "{what}: {error}"
                );
            }
        }
    }
}

#[test]
fn replies_of_fixed_length_that_do_not_fit_have_no_effect() {
    let variable = [
        Opcode::Read,
        Opcode::Readlink,
        Opcode::Readdir,
        Opcode::Readdirplus,
    ];
    for case in every_operation() {
        let payload_len = case.payload_len.unwrap_or(0);
        if payload_len == 0 || variable.contains(&case.opcode) {
            continue;
        }
        let server = mounted();
        for room in 16..16 + payload_len {
            let error = error_of(&server, &case.request, room);
            assert!(
                [libc::EINVAL, libc::ERANGE].contains(&error),
                "{:?}",
                case.opcode
            );
        }
        assert_eq!(
            server.file_system().take_last_call(),
            "",
            "{:?}",
            case.opcode
        );
    }
}

#[test]
fn replies_that_cannot_be_written_grant_nothing() {
    for case in every_operation() {
        if case.payload_len.is_none() {
            continue;
        }
        let server = mounted();
        let bytes = case.request.bytes();
        let run = |write_count_max, reachable| {
            let mut sink = SliceSink::new(ROOM);
            sink.write_count_max = write_count_max;
            sink.reachable = reachable;
            let outcome = server.handle(&mut SliceSource::new(&bytes), &mut sink, Pace::Patient);
            let grants = granted(case.request.opcode, &sink, outcome);
            (outcome, grants, sink)
        };
        // No memory at all, and memory that goes away after the payload.
        assert_eq!(run(0, ROOM).0, Outcome::Dropped, "{:?}", case.opcode);
        assert_eq!(run(usize::MAX, 0).0, Outcome::Dropped, "{:?}", case.opcode);
        let expects_payload = case.payload_len != Some(0) && case.opcode != Opcode::Read;
        if expects_payload {
            assert_eq!(run(1, ROOM).0, Outcome::Dropped, "{:?}", case.opcode);
            // Memory for the header only: the error still reaches the guest.
            let (outcome, _, sink) = run(usize::MAX, 16);
            assert_eq!(outcome, Outcome::Replied(16), "{:?}", case.opcode);
            assert_eq!(out_header(&sink).error, -libc::EIO, "{:?}", case.opcode);
        }
        assert_eq!(
            server.file_system().outstanding(),
            (0, 0),
            "{:?}",
            case.opcode
        );
    }
}

#[test]
fn lengths_in_the_header_that_lie_are_einval() {
    for case in every_operation() {
        let server = mounted();
        let honest = case.request.header();
        for len in [0, 1, 39, honest.len + 1, 0x7fff_ffff, u32::MAX] {
            let header = InHeader { len, ..honest };
            let (outcome, sink) = send(&server, &case.request.bytes_with(&header), ROOM);
            check_manners(&sink, outcome, "a length that lies");
            if case.payload_len.is_some() {
                assert_eq!(
                    out_header(&sink).error,
                    -libc::EINVAL,
                    "{:?} {len}",
                    case.opcode
                );
            }
            assert_eq!(
                server.file_system().take_last_call(),
                "",
                "{:?} {len}",
                case.opcode
            );
        }
    }
}

#[test]
fn bytes_beyond_the_length_in_the_header_are_ignored() {
    for case in every_operation() {
        let server = mounted();
        let mut bytes = case.request.bytes();
        bytes.extend_from_slice(&[0xab; 100]);
        let (outcome, sink) = send(&server, &bytes, ROOM);
        check_manners(&sink, outcome, "bytes behind the request");
        assert_eq!(server.file_system().take_last_call(), case.call);
    }
}

#[test]
fn bytes_behind_a_last_name_are_einval() {
    let named = every_operation().into_iter().filter(|case| {
        let body = &case.request.body;
        body.last() == Some(&0) && body.len() % 8 != 0 && case.opcode != Opcode::Readlink
    });
    for mut case in named {
        let server = mounted();
        case.request.body.push(b'x');
        assert_eq!(
            error_of(&server, &case.request, ROOM),
            libc::EINVAL,
            "{:?}",
            case.opcode
        );
        assert_eq!(server.file_system().take_last_call(), "");
    }
}

#[test]
fn extensions_where_none_belong_are_einval() {
    let takers = [
        Opcode::Symlink,
        Opcode::Mknod,
        Opcode::Mkdir,
        Opcode::Create,
        Opcode::Tmpfile,
    ];
    for case in every_operation() {
        let server = mounted();
        if case.payload_len.is_none() || takers.contains(&case.opcode) {
            continue;
        }
        let request = case.request.with_extensions(&[0; 16]);
        assert_eq!(
            error_of(&server, &request, ROOM),
            libc::EINVAL,
            "{:?}",
            case.opcode
        );
    }
}

/// Marsaglia's xorshift64: enough for mutations, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.pick(&[0, 1, 0x7f, 0x80, 0xff, b'/', b'.']),
            2 => {
                let number = random.pick(&[0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX, 0xffff]);
                let end = bytes.len().min(at + 4);
                bytes[at..end].copy_from_slice(&number.to_ne_bytes()[..end - at]);
            }
            3 => bytes.truncate(at.max(1)),
            4 => bytes.extend(std::iter::repeat_n(b'x', random.below(600))),
            _ => bytes.insert(at, 0),
        }
    }
    // Most mutants shall get past the length check.
    if bytes.len() >= 4 && random.below(4) > 0 {
        let len = u32::try_from(bytes.len()).expect("small");
        bytes[..4].copy_from_slice(&len.to_ne_bytes());
    }
}

/// A bug in the file system costs its request: the next ones are served, and the session, which
/// every request holds while it is served, can end and begin anew.
#[test]
fn panics_in_the_file_system_leave_a_server_that_goes_on() {
    let server = mounted();
    for case in every_operation() {
        let (what, request) = (format!("{:?}", case.opcode), case.request.bytes());
        server
            .file_system()
            .panic_next
            .store(true, Ordering::Relaxed);
        let mut sink = SliceSink::new(4096);
        let served = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            server.handle(&mut SliceSource::new(&request), &mut sink, Pace::Patient)
        }));
        let was_called = !server
            .file_system()
            .panic_next
            .swap(false, Ordering::Relaxed);
        assert_eq!(served.is_err(), was_called, "{what}");
        let mut sink = SliceSink::new(4096);
        let outcome = server.handle(&mut SliceSource::new(&request), &mut sink, Pace::Patient);
        check_manners(&sink, outcome, &what);
    }
    server.reset();
    let ended = server.file_system().ends.load(Ordering::Relaxed);
    assert!(ended > 0);
}

#[test]
fn mutations_never_panic_and_keep_the_accounts() {
    let server = Server::new(FakeFs::new());
    let fs = server.file_system();
    let originals: Vec<Vec<u8>> = every_operation()
        .iter()
        .map(|case| case.request.bytes())
        .chain([init(7, 45).bytes()])
        .collect();
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut expected = (0, 0);
    let mut session_number = 0;
    for round in 0..MUTATION_COUNT {
        if round % 64 == 0 {
            // A mutant may have ended the session.
            let _ = send(&server, &init(7, 45).bytes(), 80);
        }
        let mut bytes = originals[random.below(originals.len())].clone();
        mutate(&mut random, &mut bytes);
        let room = random.pick(&[0, 15, 16, 17, 24, 80, 120, 144, 160, 200, 400, ROOM]);
        let mut source = SliceSource::new(&bytes);
        let mut sink = SliceSink::new(room);
        if random.below(8) == 0 {
            source.reachable = random.below(bytes.len());
            sink.write_count_max = random.below(3);
        }
        let outcome = server.handle(&mut source, &mut sink, Pace::Patient);
        let what = format!("round {round}");
        let header = InHeader::split_from(&bytes).map(|(header, _)| header);
        let opcode = header.map_or(0, |header| header.opcode);
        let sessions = (
            fs.starts.load(Ordering::Relaxed),
            fs.ends.load(Ordering::Relaxed),
        );
        if session_number != sessions.0 + sessions.1 {
            session_number = sessions.0 + sessions.1;
            expected = (0, 0);
        }
        if let Outcome::Replied(len) = outcome {
            let unique = header.map(|header| header.unique);
            assert_eq!(Some(out_header(&sink).unique), unique, "{what}");
            assert_eq!(out_header(&sink).len, len, "{what}");
            assert!(len as usize <= room, "{what}");
        }
        let (lookups, handles) = granted(opcode, &sink, outcome);
        expected = (expected.0 + lookups, expected.1 + handles);
        assert_eq!(fs.outstanding(), expected, "{what}: opcode {opcode}");
    }
    // The run is worth something only if many mutants reach the file system.
    let calls = fs.call_count.load(Ordering::Relaxed);
    assert!(calls > u64::from(MUTATION_COUNT) / 10, "{calls} calls");
}
