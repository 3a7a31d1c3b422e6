//! Operations that exist only for guests that agreed on them: negative entries, locks, ioctls, and
//! look-ups of `.` and `..`.

use virtiofsd::server::Server;
use virtiofsd::sys::errno::Errno;
use virtiofsd::wire::channel::{Outcome, Pace, RequestHandler};
use virtiofsd::wire::flags::SessionFlags;
use virtiofsd::wire::header::OutHeader;
use virtiofsd::wire::opcode::Opcode;
use virtiofsd::wire::pod::Plain;

use crate::cases::{Args, UNIQUE, error_of, init, mounted, send};
use crate::double::{FakeFs, IOCTL_OUTPUT, WANTED};
use crate::operations::{ROOM, call_of, payload_of};
use crate::slices::{ParkingSink, SliceSource};

#[test]
fn dots_are_names_only_for_a_guest_that_may_export_the_mount() {
    let a = Args::new;
    let mut fs = FakeFs::new();
    fs.wishes.wanted = WANTED | SessionFlags::EXPORT_SUPPORT;
    let exporting = Server::new(fs);
    let (outcome, _) = send(&exporting, &init(7, 45).bytes(), 80);
    assert_eq!(outcome, Outcome::Replied(80));
    for (name, call) in [
        (&b".\0"[..], "lookup_self 9"),
        (b"..\0", "lookup_parent 9"),
        (b"...\0", "lookup 9 \"...\""),
    ] {
        let request = a().bytes(name).to(Opcode::Lookup, 9);
        assert_eq!(call_of(&exporting, &request), call);
    }
    let unlink = a().bytes(b"..\0").to(Opcode::Unlink, 9);
    assert_eq!(error_of(&exporting, &unlink, ROOM), libc::EINVAL);
}

#[test]
fn a_missing_name_that_may_be_cached_is_an_entry_without_a_node() {
    let request = Args::new().bytes(b"missing\0").to(Opcode::Lookup, 1);
    let payload = payload_of(&mounted(), &request, ROOM);
    let mut expected = vec![0; 128];
    // entry_valid and entry_valid_nsec.
    expected[16] = 8;
    expected[32] = 88;
    assert_eq!(payload, expected);
}

#[test]
fn locks_are_checked_and_conflicts_are_reported() {
    let server = mounted();
    let lock = |opcode, start, end, type_| {
        let fixed = Args::new().u64s(&[55, 9, start, end]);
        fixed.u32s(&[type_, 77, 0, 0]).to(opcode, 42)
    };
    for (start, end, type_) in [(2, 1, 0), (1 << 63, u64::MAX, 0), (0, 1, 3)] {
        let request = lock(Opcode::Setlk, start, end, type_);
        assert_eq!(error_of(&server, &request, ROOM), libc::EINVAL);
        assert_eq!(server.file_system().take_last_call(), "");
    }
    let held = payload_of(&server, &lock(Opcode::Getlk, 1, 2, 0), ROOM);
    let expected: Vec<u8> = [
        &0_u64.to_ne_bytes()[..],
        &i64::MAX.to_ne_bytes(),
        &1_u32.to_ne_bytes(),
        &99_u32.to_ne_bytes(),
    ]
    .concat();
    assert_eq!(held, expected);
    let free = payload_of(&server, &lock(Opcode::Getlk, 0, u64::MAX, 1), ROOM);
    assert_eq!(free[16..20], 2_u32.to_ne_bytes());
}

#[test]
fn lock_that_has_to_wait_is_answered_later_and_once() {
    for (result, error) in [(Ok(()), 0), (Err(Errno::EDEADLK), -libc::EDEADLK)] {
        let server = mounted();
        let fixed = Args::new().u64s(&[55, 9, 1, 2]).u32s(&[1, 77, 0, 0]);
        let request = fixed.to(Opcode::Setlkw, 42).bytes();
        let mut sink = ParkingSink::new(ROOM);
        let outcome = server.handle(&mut SliceSource::new(&request), &mut sink, Pace::Patient);
        assert_eq!(outcome, Outcome::Parked);
        assert_eq!(sink.now.writes, []);
        let parked = server.file_system().late.lock().expect("no panic").pop();
        let parked = parked.expect("one was set aside");
        assert_eq!(parked.request().raw(), UNIQUE);
        parked.answer(result);
        let header = OutHeader {
            len: 16,
            error,
            unique: UNIQUE,
        };
        let later = sink.later.lock().expect("no panic");
        assert_eq!(*later, [header.as_wire()]);
        let count = server.metrics().opcode(Opcode::Setlkw.raw());
        assert_eq!(count.requests, 1);
        assert_eq!(count.errors, u64::from(result.is_err()), "late ones, too");
    }
}

#[test]
fn ioctls_answer_within_their_room_and_take_no_addresses() {
    let server = mounted();
    let ioctl = |flags, in_size: u32, out_size: u32| {
        let fixed = Args::new().u64(55).u32s(&[flags, 7]).u64(0);
        fixed
            .u32s(&[in_size, out_size])
            .bytes(b"abc")
            .to(Opcode::Ioctl, 42)
    };
    let payload = payload_of(&server, &ioctl(0, 3, 100), ROOM);
    assert_eq!(payload, [&[0; 16], IOCTL_OUTPUT].concat());
    for (flags, in_size, out_size, errno) in [
        (2, 3, 8, libc::ENOTTY),
        (0, 4, 8, libc::EINVAL),
        (0, 3, 8192, libc::EINVAL),
        (0, 3, 7, libc::ERANGE),
    ] {
        let request = ioctl(flags, in_size, out_size);
        assert_eq!(error_of(&server, &request, ROOM), errno, "{request:?}");
    }
}
