//! INIT and DESTROY: versions, flags, and what requests meet outside a session.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use virtiofsd::fs::types::Dependency;
use virtiofsd::server::Server;
use virtiofsd::server::gate::Gate;
use virtiofsd::server::operation::Operation;
use virtiofsd::sys::errno::Result;
use virtiofsd::wire::channel::{Outcome, Pace, RequestHandler};
use virtiofsd::wire::flags::SessionFlags;
use virtiofsd::wire::opcode::Opcode;
use virtiofsd::wire::pod::Plain;
use virtiofsd::wire::request::InitIn;
use virtiofsd::wire::response::InitOut;

use crate::cases::{
    ALL_BITS, Args, Request, error_of, every_operation, init, mounted, out_header, send,
};
use crate::double::FakeFs;
use crate::slices::{SliceSink, SliceSource};

fn sessions_of(server: &Server<FakeFs>) -> (u64, u64) {
    let fs = server.file_system();
    (
        fs.starts.load(Ordering::Relaxed),
        fs.ends.load(Ordering::Relaxed),
    )
}

fn init_out(server: &Server<FakeFs>, request: &Request) -> InitOut {
    let (outcome, sink) = send(server, &request.bytes(), 80);
    assert_eq!(
        (outcome, out_header(&sink).error),
        (Outcome::Replied(80), 0)
    );
    InitOut::split_from(&sink.bytes[16..]).expect("64 bytes").0
}

fn init_with(flags: u32, flags2: u32) -> Request {
    let mut request = init(7, 45);
    request.body[12..16].copy_from_slice(&flags.to_ne_bytes());
    request.body[16..20].copy_from_slice(&flags2.to_ne_bytes());
    request
}

fn wishing(wanted: SessionFlags, required: SessionFlags) -> Server<FakeFs> {
    let mut fs = FakeFs::new();
    fs.wishes.wanted = wanted;
    fs.wishes.required = required;
    Server::new(fs)
}

fn getattr() -> Request {
    Args::new().bytes(&[0; 16]).to(Opcode::Getattr, 1)
}

fn destroy() -> Request {
    Args::new().to(Opcode::Destroy, 0)
}

#[test]
fn init_reply_is_golden() {
    let server = wishing(
        SessionFlags::ASYNC_READ | SessionFlags::PARALLEL_DIROPS | SessionFlags::ALLOW_IDMAP,
        SessionFlags::empty(),
    );
    let (outcome, sink) = send(&server, &init(7, 31).bytes(), 80);
    assert_eq!(outcome, Outcome::Replied(80));
    let expected = Args::new()
        .u32s(&[80, 0])
        .u64(crate::cases::UNIQUE)
        .u32s(&[7, 45, 0x20000])
        // ASYNC_READ, BIG_WRITES, PARALLEL_DIROPS, MAX_PAGES, SETXATTR_EXT, INIT_EXT.
        .u32(1 | 1 << 5 | 1 << 18 | 1 << 22 | 1 << 29 | 1 << 30)
        .bytes(&65_535_u16.to_ne_bytes())
        .bytes(&49_149_u16.to_ne_bytes())
        .u32s(&[4 << 20, 1])
        .bytes(&1024_u16.to_ne_bytes())
        .bytes(&[0; 2])
        // ALLOW_IDMAP.
        .u32(1 << 8)
        .bytes(&[0; 28]);
    assert_eq!(sink.bytes, expected.to(Opcode::Init, 0).body);
    assert_eq!(sessions_of(&server), (1, 0));
}

#[test]
fn init_acknowledges_only_what_is_offered_wanted_and_possible() {
    let server = wishing(SessionFlags::all(), SessionFlags::empty());
    let out = init_out(&server, &init_with(ALL_BITS, ALL_BITS));
    // No splice, abort, DAX; nor the reserved bit.
    assert_eq!(
        out.flags,
        0b0111_1011_1101_1111_1111_1100_0111_1111 & !(1 << 26)
    );
    // SECURITY_CTX, CREATE_SUPP_GROUP, DIRECT_IO_ALLOW_MMAP, NO_EXPORT_SUPPORT, ALLOW_IDMAP.
    assert_eq!(out.flags2, 1 | 1 << 2 | 1 << 4 | 1 << 6 | 1 << 8);
    let out = init_out(&server, &init_with(0, ALL_BITS));
    assert_eq!(
        (out.flags, out.flags2, out.max_pages),
        (0, 0, 0),
        "no INIT_EXT"
    );
    let out = init_out(&server, &init_with(1 << 30 | 1 << 18, 1 << 8));
    assert_eq!((out.flags, out.flags2), (1 << 30 | 1 << 18, 1 << 8));
    let nothing = wishing(SessionFlags::empty(), SessionFlags::empty());
    let out = init_out(&nothing, &init_with(ALL_BITS, ALL_BITS));
    assert_eq!(
        (out.flags, out.flags2),
        (1 << 5 | 1 << 22 | 1 << 29 | 1 << 30, 0)
    );
}

#[test]
fn init_agrees_on_what_goes_together_or_on_none_of_it() {
    const LISTS: SessionFlags = SessionFlags::POSIX_ACL.union(SessionFlags::DONT_MASK);
    let mut fs = FakeFs::new();
    fs.wishes.wanted = LISTS;
    fs.wishes.dependencies = &[
        Dependency {
            capability: SessionFlags::POSIX_ACL,
            needs: LISTS,
        },
        Dependency {
            capability: SessionFlags::DONT_MASK,
            needs: SessionFlags::POSIX_ACL,
        },
    ];
    let server = Server::new(fs);
    for (offered, agreed) in [
        (1 << 20 | 1 << 6, 1 << 20 | 1 << 6),
        (1 << 20, 0),
        (1 << 6, 0),
        (0, 0),
    ] {
        let out = init_out(&server, &init_with(offered, 0));
        assert_eq!(out.flags, agreed, "{offered:#x}");
    }
}

#[test]
fn init_versions_are_judged_as_the_protocol_says() {
    for (major, minor, errno) in [
        (6, 45, libc::EPROTO),
        (0, 0, libc::EPROTO),
        (7, 0, libc::EPROTO),
        (7, 26, libc::EPROTO),
        (7, 27, 0),
        (7, 45, 0),
        (7, 46, 0),
        (7, u32::MAX, 0),
    ] {
        let server = Server::new(FakeFs::new());
        assert_eq!(
            error_of(&server, &init(major, minor), 80),
            errno,
            "{major}.{minor}"
        );
        let expected = if errno == 0 { 0 } else { libc::EIO };
        assert_eq!(
            error_of(&server, &getattr(), 200),
            expected,
            "{major}.{minor}"
        );
    }
}

#[test]
fn newer_major_version_learns_ours_and_asks_again() {
    let server = Server::new(FakeFs::new());
    let out = init_out(&server, &init(8, 3));
    let expected = InitOut {
        major: 7,
        minor: 45,
        ..InitOut::zero()
    };
    assert_eq!(out, expected);
    assert_eq!(error_of(&server, &getattr(), 200), libc::EIO);
    assert_eq!(sessions_of(&server), (0, 0));
    assert_eq!(error_of(&server, &init(7, 45), 80), 0);
    assert_eq!(error_of(&server, &getattr(), 200), 0);
}

#[test]
fn short_init_of_old_guests_is_understood() {
    let server = Server::new(FakeFs::new());
    let mut request = init(7, 27);
    for (len, errno) in [(15, libc::EINVAL), (16, 0), (20, 0), (63, 0), (64, 0)] {
        request.body.truncate(0);
        request.body.extend_from_slice(&init(7, 27).body[..len]);
        assert_eq!(error_of(&server, &request, 80), errno, "{len}");
    }
    request.body.truncate(16);
    assert_eq!(init_out(&server, &request).flags2, 0);
    request.body = [init(7, 45).body, vec![0xff; 100]].concat();
    assert_eq!(error_of(&server, &request, 80), 0, "a longer form");
}

#[test]
fn setxattr_has_the_layout_that_was_negotiated() {
    let server = Server::new(FakeFs::new());
    assert_eq!(error_of(&server, &init_with(0, 0), 80), 0);
    let short = Args::new()
        .u32s(&[3, 1])
        .bytes(b"user.x\0val")
        .to(Opcode::Setxattr, 42);
    assert_eq!(error_of(&server, &short, 16), 0);
    let call = server.file_system().take_last_call();
    assert_eq!(call, "setxattr 42 \"user.x\" 3 1 false");
}

#[test]
fn extensions_that_were_not_negotiated_are_einval() {
    let server = Server::new(FakeFs::new());
    assert_eq!(error_of(&server, &init(7, 37), 80), 0);
    let group = Args::new()
        .u32s(&[16, 32, 1, 1234])
        .to(Opcode::Mkdir, 0)
        .body;
    let mkdir = Args::new()
        .u32s(&[0o755, 0])
        .bytes(b"new\0")
        .to(Opcode::Mkdir, 42);
    assert_eq!(
        error_of(&server, &mkdir.clone().with_extensions(&group), 200),
        libc::EINVAL
    );
    assert_eq!(error_of(&server, &init(7, 38), 80), 0);
    assert_eq!(error_of(&server, &mkdir.with_extensions(&group), 200), 0);
}

/// A record with one context of `len` bytes, as Linux lays it out, to a multiple of 8.
fn context_record(name: &[u8], len: usize) -> Vec<u8> {
    let mut context = Args::new()
        .u32s(&[u32::try_from(len).expect("small"), 0])
        .bytes(name)
        .bytes(&vec![b'v'; len])
        .to(Opcode::Mkdir, 0)
        .body;
    context.resize(context.len().next_multiple_of(8), 0);
    let size = u32::try_from(8 + context.len()).expect("small");
    let header = Args::new().u32s(&[size, 1]).to(Opcode::Mkdir, 0).body;
    [header, context].concat()
}

#[test]
fn contexts_of_older_guests_stand_behind_the_last_name() {
    let server = Server::new(FakeFs::new());
    let record = context_record(b"security.selinux\0", 23);
    let label = " label \"security.selinux\" of 23";
    let args = Args::new;
    let requests = |behind: &[u8]| {
        [
            args()
                .u32s(&[0o755, 0])
                .bytes(b"n\0")
                .bytes(behind)
                .to(Opcode::Mkdir, 42),
            args()
                .u32s(&[0o10644, 0, 0, 0])
                .bytes(b"n\0")
                .bytes(behind)
                .to(Opcode::Mknod, 42),
            args()
                .bytes(b"n\0target\0")
                .bytes(behind)
                .to(Opcode::Symlink, 42),
            args()
                .u32s(&[2, 0o644, 0, 0])
                .bytes(b"n\0")
                .bytes(behind)
                .to(Opcode::Create, 42),
        ]
    };
    for minor in [36, 37] {
        assert_eq!(error_of(&server, &init(7, minor), 80), 0);
        for request in requests(&record) {
            assert_eq!(error_of(&server, &request, 200), 0, "{request:?}");
            let call = server.file_system().take_last_call();
            assert!(call.contains(label), "{call}");
        }
        // No module in the guest: a record without contexts, or none at all.
        let none = args().u32s(&[8, 0]).to(Opcode::Mkdir, 0).body;
        for behind in [&none[..], b""] {
            for request in requests(behind) {
                assert_eq!(error_of(&server, &request, 200), 0, "{request:?}");
                let call = server.file_system().take_last_call();
                assert!(!call.contains("label"), "{call}");
            }
        }
        let groups = args().u32s(&[16, 32, 1, 1234]).to(Opcode::Mkdir, 0).body;
        let twice = [&record[..], &record].concat();
        let cut = (1..record.len()).map(|len| &record[..len]);
        for behind in cut.chain([&groups[..], &twice]) {
            for request in requests(behind) {
                assert_eq!(error_of(&server, &request, 200), libc::EINVAL, "{behind:?}");
            }
        }
        // What later versions count in the header was padding then.
        for request in requests(b"") {
            let counted = request.with_extensions(&record);
            assert_eq!(error_of(&server, &counted, 200), libc::EINVAL);
        }
    }
    for (minor, errno) in [(35, libc::EINVAL), (38, libc::EINVAL)] {
        assert_eq!(error_of(&server, &init(7, minor), 80), 0);
        for request in requests(&record) {
            assert_eq!(error_of(&server, &request, 200), errno, "7.{minor}");
        }
    }
    for request in requests(b"") {
        let counted = request.with_extensions(&record);
        assert_eq!(error_of(&server, &counted, 200), 0);
        let call = server.file_system().take_last_call();
        assert!(call.contains(label), "{call}");
    }
}

#[test]
fn names_that_are_too_long_are_so_with_contexts_behind_them_too() {
    let server = Server::new(FakeFs::new());
    assert_eq!(error_of(&server, &init(7, 37), 80), 0);
    let record = context_record(b"security.selinux\0", 60_000);
    for (name_len, errno) in [
        (255, 0),
        (256, libc::ENAMETOOLONG),
        (5000, libc::ENAMETOOLONG),
    ] {
        let request = Args::new()
            .u32s(&[0o755, 0])
            .bytes(&vec![b'n'; name_len])
            .bytes(b"\0")
            .bytes(&record)
            .to(Opcode::Mkdir, 42);
        assert_eq!(error_of(&server, &request, 200), errno, "{name_len}");
    }
    let too_much = context_record(b"security.selinux\0", 70_000);
    let request = Args::new()
        .u32s(&[0o755, 0])
        .bytes(b"n\0")
        .bytes(&too_much)
        .to(Opcode::Mkdir, 42);
    assert_ne!(error_of(&server, &request, 200), 0);
}

#[test]
fn requests_outside_a_session_are_eio_and_leave_no_trace() {
    let required = SessionFlags::HANDLE_KILLPRIV_V2;
    let never = Server::new(FakeFs::new());
    let destroyed = mounted();
    assert_eq!(
        send(&destroyed, &destroy().bytes(), 16).0,
        Outcome::Replied(16)
    );
    let refused = wishing(SessionFlags::all(), required);
    assert_eq!(error_of(&refused, &init_with(1, 0), 80), libc::EPROTO);
    let reset = mounted();
    reset.reset();
    assert_eq!(
        (sessions_of(&destroyed), sessions_of(&reset)),
        ((1, 1), (1, 1))
    );
    for server in [never, destroyed, refused, reset] {
        for case in every_operation() {
            let (outcome, sink) = send(&server, &case.request.bytes(), 8192);
            if case.payload_len.is_some() {
                assert_eq!(outcome, Outcome::Replied(16), "{:?}", case.opcode);
                assert_eq!(out_header(&sink).error, -libc::EIO);
            } else {
                assert_eq!(outcome, Outcome::NoReply, "{:?}", case.opcode);
            }
            assert_eq!(server.file_system().take_last_call(), "");
        }
        assert_eq!(error_of(&server, &destroy(), 16), libc::EIO);
        let ends = sessions_of(&server).1;
        server.reset();
        assert_eq!(sessions_of(&server).1, ends, "nothing to end");
    }
}

#[test]
fn refused_init_ends_the_session_that_was() {
    let server = wishing(SessionFlags::all(), SessionFlags::HANDLE_KILLPRIV_V2);
    assert_eq!(error_of(&server, &init(7, 45), 80), 0);
    assert_eq!(error_of(&server, &init_with(1, 0), 80), libc::EPROTO);
    assert_eq!(error_of(&server, &getattr(), 200), libc::EIO);
    assert_eq!(sessions_of(&server), (1, 1));
}

#[test]
fn second_init_starts_afresh() {
    let server = mounted();
    assert_eq!(error_of(&server, &init(7, 45), 80), 0);
    assert_eq!(sessions_of(&server), (2, 1));
    assert_eq!(error_of(&server, &getattr(), 200), 0);
}

#[test]
fn init_without_room_for_its_reply_changes_nothing() {
    let server = mounted();
    assert_eq!(send(&server, &init(7, 45).bytes(), 15).0, Outcome::Dropped);
    for room in 16..80 {
        assert_eq!(error_of(&server, &init(7, 45), room), libc::EINVAL);
    }
    assert_eq!(sessions_of(&server), (1, 0));
    assert_eq!(error_of(&server, &getattr(), 200), 0);
}

#[test]
fn init_whose_reply_cannot_be_written_leaves_no_session() {
    let server = Server::new(FakeFs::new());
    let mut sink = SliceSink::new(80);
    sink.reachable = 16;
    let bytes = init(7, 45).bytes();
    let outcome = server.handle(&mut SliceSource::new(&bytes), &mut sink, Pace::Patient);
    assert_eq!(
        (outcome, out_header(&sink).error),
        (Outcome::Replied(16), -libc::EIO)
    );
    assert_eq!(sessions_of(&server), (1, 1));
    assert_eq!(error_of(&server, &getattr(), 200), libc::EIO);
}

#[test]
fn init_of_the_other_byte_order_is_enosys() {
    let server = Server::new(FakeFs::new());
    let args = InitIn::zero();
    for opcode in [26_u32.swap_bytes(), 4096, 1_048_576] {
        let mut request = Request::new(Opcode::Init, 0, args.as_wire());
        request.opcode = opcode;
        assert_eq!(error_of(&server, &request, 80), libc::ENOSYS);
    }
}

#[test]
fn init_on_all_workers_at_once_leaves_one_session() {
    let server = Arc::new(Server::new(FakeFs::new()));
    let bytes = init(7, 45).bytes();
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let workers: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| send(&server, &bytes, 80).0))
            .collect();
        let join = |worker: thread::ScopedJoinHandle<'_, Outcome>| worker.join().expect("no panic");
        workers.into_iter().map(join).collect()
    });
    let won = outcomes
        .iter()
        .filter(|&&outcome| outcome == Outcome::Replied(80));
    let won_count = won.count() as u64;
    let refused = outcomes
        .iter()
        .filter(|&&outcome| outcome == Outcome::Replied(16));
    assert_eq!(won_count + refused.count() as u64, 8);
    // Those that did not overlap came one after the other, each ending the one before.
    assert_eq!(sessions_of(&server), (won_count, won_count - 1));
    assert_eq!(error_of(&server, &getattr(), 200), 0);
}

/// Holds requests until it is told to let them go.
#[derive(Debug)]
struct Turnstile {
    arrived: SyncSender<()>,
    go: Mutex<Receiver<()>>,
}

impl Gate for Turnstile {
    fn admit<'a>(&self, operation: Operation<'a>) -> Result<Operation<'a>> {
        self.arrived.send(()).expect("the test waits");
        self.go
            .lock()
            .expect("no panic")
            .recv()
            .expect("the test tells");
        Ok(operation)
    }
}

#[test]
fn destroy_waits_for_requests_under_way() {
    let (arrived, has_arrived) = sync_channel(1);
    let (let_go, go) = sync_channel(1);
    let turnstile = Turnstile {
        arrived,
        go: Mutex::new(go),
    };
    let server = Server::new(FakeFs::new()).with_gate(Box::new(turnstile));
    assert_eq!(error_of(&server, &init(7, 45), 80), 0);
    thread::scope(|scope| {
        let request = scope.spawn(|| error_of(&server, &getattr(), 200));
        has_arrived.recv().expect("the request is under way");
        let destroying = scope.spawn(|| error_of(&server, &destroy(), 16));
        // Time enough for a DESTROY that does not wait to be caught.
        thread::sleep(Duration::from_millis(50));
        assert_eq!(sessions_of(&server), (1, 0));
        let_go.send(()).expect("the request waits");
        assert_eq!(request.join().expect("no panic"), 0);
        assert_eq!(destroying.join().expect("no panic"), 0);
    });
    assert_eq!(sessions_of(&server), (1, 1));
}
