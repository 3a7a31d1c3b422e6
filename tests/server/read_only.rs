//! The gate of a read-only share before a file system that counts its calls.

use virtiofsd::server::Server;
use virtiofsd::server::gate_read_only::ReadOnlyGate;
use virtiofsd::sys::errno::Errno;
use virtiofsd::wire::channel::Outcome;
use virtiofsd::wire::opcode::Opcode;

use crate::cases::{Args, Request, error_of, every_operation, init, send};
use crate::double::FakeFs;
use crate::operations::{ROOM, call_of};

/// Refused whatever their arguments are.
const CHANGING: [Opcode; 16] = [
    Opcode::Setattr,
    Opcode::Symlink,
    Opcode::Mknod,
    Opcode::Mkdir,
    Opcode::Unlink,
    Opcode::Rmdir,
    Opcode::Rename,
    Opcode::Rename2,
    Opcode::Link,
    Opcode::Tmpfile,
    Opcode::Write,
    Opcode::Fallocate,
    Opcode::CopyFileRange,
    Opcode::CopyFileRange64,
    Opcode::Setxattr,
    Opcode::Removexattr,
];

fn mounted_read_only() -> Server<FakeFs> {
    let server = Server::new(FakeFs::new()).with_gate(Box::new(ReadOnlyGate));
    assert_eq!(error_of(&server, &init(7, 45), 80), 0);
    server
}

fn open(flags: u32) -> Request {
    Args::new().u32s(&[flags, 1]).to(Opcode::Open, 42)
}

fn create(flags: u32) -> Request {
    let args = Args::new().u32s(&[flags, 0o100_644, 0o22, 1]);
    args.bytes(b"new\0").to(Opcode::Create, 42)
}

#[test]
fn every_operation_is_refused_before_the_file_system_or_reaches_it_unchanged() {
    let server = mounted_read_only();
    let mut refused = 0;
    for case in every_operation() {
        let opcode = case.opcode;
        if [Opcode::Open, Opcode::Create, Opcode::Ioctl].contains(&opcode) {
            continue;
        }
        let (outcome, _) = send(&server, &case.request.bytes(), ROOM);
        let call = server.file_system().take_last_call();
        if CHANGING.contains(&opcode) {
            refused += 1;
            assert_eq!(error_of(&server, &case.request, ROOM), libc::EROFS);
            assert_eq!((outcome, &*call), (Outcome::Replied(16), ""), "{opcode:?}");
        } else {
            assert_eq!(call, case.call, "{opcode:?}");
        }
    }
    assert!(refused >= CHANGING.len(), "an operation has no case");
}

#[test]
fn open_reaches_the_file_system_for_reading_only() {
    let server = mounted_read_only();
    for flags in [1, 2, 3, 0o1000, 0o1002] {
        assert_eq!(error_of(&server, &open(flags), ROOM), libc::EROFS);
        assert_eq!(server.file_system().take_last_call(), "", "{flags:#o}");
    }
    assert_eq!(call_of(&server, &open(0o2000)), "open 42 0o2000 false");
}

#[test]
fn create_of_a_missing_name_is_a_read_only_file_system() {
    let server = mounted_read_only();
    let call = call_of(&server, &create(0o100));
    assert!(call.ends_with("100644 0o100 false"), "{call}");
    for (failure, errno) in [
        (Errno::ENOENT, libc::EROFS),
        (Errno::EEXIST, libc::EEXIST),
        (Errno::EACCES, libc::EACCES),
    ] {
        *server.file_system().fail.lock().expect("no panic") = Some(failure);
        for flags in [0o100, 0o300, 0o301, 0o1302] {
            assert_eq!(error_of(&server, &create(flags), ROOM), errno);
            let call = server.file_system().take_last_call();
            let passed = format!("{:#o} false", flags & 0o300);
            assert!(call.ends_with(&passed), "{flags:#o}: {call}");
        }
        for flags in [0o101, 0o102, 0o1100] {
            assert_eq!(error_of(&server, &create(flags), ROOM), libc::EROFS);
            assert_eq!(server.file_system().take_last_call(), "", "{flags:#o}");
        }
    }
}

#[test]
fn create_of_a_missing_name_stays_enoent_without_the_gate() {
    let server = crate::cases::mounted();
    *server.file_system().fail.lock().expect("no panic") = Some(Errno::ENOENT);
    assert_eq!(error_of(&server, &create(0o100), ROOM), libc::ENOENT);
}

#[test]
fn ioctls_that_only_ask_reach_the_file_system() {
    let server = mounted_read_only();
    let ioctl = |command| {
        let fixed = Args::new().u64(55).u32s(&[0, command]).u64(0);
        fixed.u32s(&[0, 100]).to(Opcode::Ioctl, 42)
    };
    assert!(call_of(&server, &ioctl(0x8008_6601)).starts_with("ioctl"));
    for (command, errno) in [(0x4008_6602, libc::EROFS), (0x5401, libc::ENOTTY)] {
        assert_eq!(error_of(&server, &ioctl(command), ROOM), errno);
        assert_eq!(server.file_system().take_last_call(), "", "{command:#x}");
    }
}
