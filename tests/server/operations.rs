//! Well-formed requests, and the values that each operation must refuse.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use virtiofsd::metrics::Metrics;
use virtiofsd::server::Server;
use virtiofsd::server::gate::Gate;
use virtiofsd::server::operation::Operation;
use virtiofsd::sys::errno::{Errno, Result};
use virtiofsd::wire::channel::Outcome;
use virtiofsd::wire::opcode::Opcode;

use crate::cases::{
    Args, Request, error_of, every_operation, init, mounted, out_header, replied, send,
};
use crate::double::{CONTENTS, FakeFs, TARGET, XATTR};

pub(crate) const ROOM: usize = 8192;

pub(crate) fn call_of(server: &Server<FakeFs>, request: &Request) -> String {
    assert_eq!(error_of(server, request, ROOM), 0);
    server.file_system().take_last_call()
}

pub(crate) fn payload_of(server: &Server<FakeFs>, request: &Request, room: usize) -> Vec<u8> {
    let (outcome, sink) = send(server, &request.bytes(), room);
    let header = out_header(&sink);
    assert_eq!((header.error, outcome), (0, Outcome::Replied(header.len)));
    sink.bytes[16..header.len as usize].to_vec()
}

#[test]
fn every_operation_leads_to_its_call_and_its_reply() {
    for case in every_operation() {
        let server = mounted();
        let (outcome, sink) = send(&server, &case.request.bytes(), ROOM);
        assert_eq!(server.file_system().take_last_call(), case.call);
        let expected = match case.payload_len {
            Some(len) => replied(len),
            None => Outcome::NoReply,
        };
        assert_eq!(outcome, expected, "{:?}", case.opcode);
        assert!(case.payload_len.is_none() || out_header(&sink).error == 0);
    }
}

#[test]
fn every_error_of_the_file_system_reaches_the_guest_as_a_header() {
    for case in every_operation() {
        let server = mounted();
        *server.file_system().fail.lock().expect("no panic") = Some(Errno::EXDEV);
        let (outcome, sink) = send(&server, &case.request.bytes(), ROOM);
        if case.payload_len.is_some() {
            assert_eq!(outcome, Outcome::Replied(16), "{:?}", case.opcode);
            assert_eq!(out_header(&sink).error, -libc::EXDEV);
        } else {
            assert_eq!(outcome, Outcome::NoReply, "{:?}", case.opcode);
        }
        assert_eq!(server.file_system().outstanding(), (0, 0));
    }
}

#[test]
fn operations_that_are_not_served_are_enosys() {
    let numbers = [37, 40, 41, 48, 49, 0, 7, 19, 54, 4096, 1_048_576];
    for number in numbers {
        let server = mounted();
        let mut request = Request::new(Opcode::Unknown(number), 1, &[0xff; 200]);
        request.opcode = number;
        assert_eq!(error_of(&server, &request, ROOM), libc::ENOSYS, "{number}");
    }
}

#[test]
fn names_that_are_not_one_component_are_refused_everywhere() {
    let long = [vec![b'n'; 256], vec![0]].concat();
    let longer = [vec![b'n'; 4096], vec![0]].concat();
    let longest = [vec![b'n'; 65_535], vec![0]].concat();
    let cases: [(&[u8], i32); 11] = [
        (b"\0", libc::EINVAL),
        (b".\0", libc::EINVAL),
        (b"..\0", libc::EINVAL),
        (b"/etc\0", libc::EINVAL),
        (b"a/b\0", libc::EINVAL),
        (b"a/\0", libc::EINVAL),
        (b"a\0b\0", libc::EINVAL),
        (b"a", libc::EINVAL),
        (&long, libc::ENAMETOOLONG),
        (&longer, libc::ENAMETOOLONG),
        (&longest, libc::ENAMETOOLONG),
    ];
    let a = Args::new;
    for (name, errno) in cases {
        let requests = [
            a().bytes(name).to(Opcode::Lookup, 1),
            a().bytes(name).to(Opcode::Unlink, 1),
            a().bytes(name).to(Opcode::Rmdir, 1),
            a().bytes(&[0; 16]).bytes(name).to(Opcode::Mknod, 1),
            a().bytes(&[0; 8]).bytes(name).to(Opcode::Mkdir, 1),
            a().bytes(&[0; 16]).bytes(name).to(Opcode::Create, 1),
            a().bytes(&[0; 8]).bytes(name).to(Opcode::Link, 1),
            a().bytes(&[0; 8])
                .bytes(b"ok\0")
                .bytes(name)
                .to(Opcode::Rename, 1),
            a().bytes(&[0; 16])
                .bytes(b"ok\0")
                .bytes(name)
                .to(Opcode::Rename2, 1),
        ];
        for request in requests {
            let server = mounted();
            let error = error_of(&server, &request, ROOM);
            assert_eq!(
                error,
                errno,
                "opcode {} name {}",
                request.opcode,
                name.len()
            );
            assert_eq!(server.file_system().take_last_call(), "");
        }
    }
}

#[test]
fn first_names_of_two_are_held_to_the_same_rules() {
    for (opcode, fixed_len) in [
        (Opcode::Rename, 8),
        (Opcode::Rename2, 16),
        (Opcode::Symlink, 0),
    ] {
        for name in [&b".."[..], b"", b"a/b", b"/"] {
            let body = [&vec![0; fixed_len], name, b"\0ok\0"].concat();
            let server = mounted();
            let request = Request::new(opcode, 1, &body);
            assert_eq!(
                error_of(&server, &request, ROOM),
                libc::EINVAL,
                "{opcode:?} {name:?}"
            );
        }
    }
}

#[test]
fn symlink_targets_are_one_to_4095_bytes() {
    let target = |len: usize| [b"new\0", &vec![b't'; len][..], b"\0"].concat();
    for (len, errno) in [
        (0, libc::ENOENT),
        (1, 0),
        (4095, 0),
        (4096, libc::ENAMETOOLONG),
        (1 << 20, libc::ENAMETOOLONG),
    ] {
        let server = mounted();
        let request = Request::new(Opcode::Symlink, 1, &target(len));
        assert_eq!(error_of(&server, &request, ROOM), errno, "{len}");
    }
}

#[test]
fn offsets_and_sizes_beyond_a_signed_offset_are_einval() {
    let a = Args::new;
    for bad in [1 << 63, u64::MAX] {
        let requests = [
            Args::read(bad, 10).to(Opcode::Read, 1),
            a().u64s(&[55, bad]).bytes(&[0; 24]).to(Opcode::Write, 1),
            a().u64s(&[55, bad]).u32s(&[3, 0]).to(Opcode::Lseek, 1),
            a().u64s(&[55, bad, 1, 0]).to(Opcode::Fallocate, 1),
            a().u64s(&[55, 1, bad, 0]).to(Opcode::Fallocate, 1),
            a().u64s(&[0, bad])
                .bytes(&[0; 40])
                .to(Opcode::CopyFileRange, 1),
            a().bytes(&[0; 32])
                .u64(bad)
                .bytes(&[0; 16])
                .to(Opcode::CopyFileRange64, 1),
            a().u32s(&[1 << 3, 0])
                .u64s(&[0, bad])
                .bytes(&[0; 64])
                .to(Opcode::Setattr, 1),
        ];
        for request in requests {
            let server = mounted();
            assert_eq!(
                error_of(&server, &request, ROOM),
                libc::EINVAL,
                "{}",
                request.opcode
            );
            assert_eq!(server.file_system().take_last_call(), "");
        }
    }
    let server = mounted();
    let cookie = Args::read(u64::MAX, 4096).to(Opcode::Readdir, 1);
    let call = format!("readdir 1 55 at {}", u64::MAX);
    assert_eq!(call_of(&server, &cookie), call, "cookies are opaque");
}

#[test]
fn read_is_cut_to_the_room_and_to_the_end_of_the_file() {
    let server = mounted();
    let all = Args::read(0, u32::MAX).to(Opcode::Read, 42);
    assert_eq!(payload_of(&server, &all, 4096), CONTENTS);
    assert_eq!(
        server.file_system().take_last_call(),
        "read 42 55 at 0 4080"
    );
    assert_eq!(payload_of(&server, &all, 16 + 5), CONTENTS[..5]);
    let end = Args::read(16, 100).to(Opcode::Read, 42);
    assert_eq!(payload_of(&server, &end, 4096), b"");
    let nothing = Args::read(0, 0).to(Opcode::Read, 42);
    assert_eq!(payload_of(&server, &nothing, 16), b"");
    assert_eq!(
        error_of(&server, &all, 16),
        libc::EINVAL,
        "not the end of the file"
    );
}

#[test]
fn write_takes_exactly_size_bytes() {
    let write = |size: u32, contents: &[u8]| {
        let args = Args::new()
            .u64s(&[55, 100])
            .u32s(&[size, 0])
            .u64(0)
            .u32s(&[0, 0]);
        args.bytes(contents).to(Opcode::Write, 42)
    };
    let server = mounted();
    assert_eq!(
        payload_of(&server, &write(3, b"abcdef"), 24),
        [3, 0, 0, 0, 0, 0, 0, 0]
    );
    let mut found = [0; 8];
    let len = server
        .file_system()
        .file
        .read_at(&mut found, 100)
        .expect("readable");
    assert_eq!(&found[..len], b"abc");
    assert_eq!(payload_of(&server, &write(0, b""), 24), [0; 8]);
    assert_eq!(error_of(&server, &write(7, b"abcdef"), 24), libc::EINVAL);
    assert_eq!(
        error_of(&server, &write(u32::MAX, b"abcdef"), 24),
        libc::EINVAL
    );
    let max = vec![b'm'; 4 << 20];
    assert_eq!(error_of(&server, &write(4 << 20, &max), 24), 0);
    let more = vec![b'm'; (4 << 20) + 1];
    assert_eq!(
        error_of(&server, &write((4 << 20) + 1, &more), 24),
        libc::EINVAL
    );
}

fn setattr(valid: u32, nanos: u32, id: u32) -> Request {
    let args = Args::new().u32s(&[valid, 0]).u64s(&[55, 4096, 0]);
    let args = args.u64s(&[u64::MAX, 22, 33]).u32s(&[nanos, nanos, nanos]);
    args.u32s(&[0o104_755, 0, id, id, 0])
        .to(Opcode::Setattr, 42)
}

#[test]
fn setattr_maps_every_bit() {
    let cases = [
        (0, "None", ""),
        (1, "None", "mode: Some(2541)"),
        (2, "None", "uid: Some(GuestUid(7))"),
        (4, "None", "gid: Some(GuestGid(7))"),
        (8, "None", "size_bytes: Some(4096)"),
        (
            16,
            "None",
            "atime: Some(To(Timestamp { secs: -1, nanos: 9 }))",
        ),
        (
            32,
            "None",
            "mtime: Some(To(Timestamp { secs: 22, nanos: 9 }))",
        ),
        (64, "Some(55)", ""),
        (128, "None", "atime: Some(Now)"),
        (16 + 128, "None", "atime: Some(Now)"),
        (256, "None", "mtime: Some(Now)"),
        (1024, "None", ""),
        (2048, "None", "kill_suid_sgid: true"),
        (0xffff_f000, "None", ""),
    ];
    let none = [
        "mode: None",
        "uid: None",
        "gid: None",
        "size_bytes: None",
        "atime: None",
        "mtime: None",
        "kill_suid_sgid: false",
    ];
    for (valid, handle, change) in cases {
        let server = mounted();
        let field = change.split(':').next().expect("a field");
        let fields = none.map(
            |unset| match !field.is_empty() && unset.starts_with(field) {
                true => change,
                false => unset,
            },
        );
        let expected = format!(
            "setattr 42 {handle} AttrChanges {{ {} }}",
            fields.join(", ")
        );
        assert_eq!(
            call_of(&server, &setattr(valid, 9, 7)),
            expected,
            "{valid:#x}"
        );
    }
    let server = mounted();
    for (valid, nanos, id) in [(2, 0, u32::MAX), (4, 0, u32::MAX), (16, 1_000_000_000, 0)] {
        let request = setattr(valid, nanos, id);
        assert_eq!(error_of(&server, &request, ROOM), libc::EINVAL, "{valid}");
    }
    // What no bit asks for is not looked at.
    assert_eq!(error_of(&server, &setattr(1, u32::MAX, u32::MAX), ROOM), 0);
}

#[test]
fn xattr_sizes_and_names_are_bounded() {
    let a = Args::new;
    let server = mounted();
    let name = b"user.x\0";
    let get = |size: u32| a().u32s(&[size, 0]).bytes(name).to(Opcode::Getxattr, 42);
    assert_eq!(payload_of(&server, &get(64), ROOM), XATTR);
    assert_eq!(payload_of(&server, &get(0), ROOM), [7, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(error_of(&server, &get(6), ROOM), libc::ERANGE);
    assert_eq!(
        error_of(&server, &get(u32::MAX), ROOM),
        libc::ERANGE,
        "room is smaller"
    );
    assert_eq!(error_of(&server, &get(u32::MAX), 16 + 65_536), 0);
    let call = server.file_system().take_last_call();
    assert_eq!(call, "getxattr 42 \"user.x\" 65536");
    let list = a().u32s(&[u32::MAX, 0]).to(Opcode::Listxattr, 42);
    assert_eq!(error_of(&server, &list, ROOM), libc::ERANGE);
    let long = [vec![b'n'; 256], vec![0]].concat();
    for bad in [&b"\0"[..], &long] {
        let request = a().bytes(bad).to(Opcode::Removexattr, 42);
        assert_eq!(error_of(&server, &request, ROOM), libc::ERANGE);
    }
    let set = |size: u32, value: &[u8]| {
        let args = a().u32s(&[size, 0, 0, 0]).bytes(name).bytes(value);
        args.to(Opcode::Setxattr, 42)
    };
    assert_eq!(error_of(&server, &set(65_536, &vec![1; 65_536]), ROOM), 0);
    assert_eq!(
        error_of(&server, &set(65_537, &vec![1; 65_537]), ROOM),
        libc::E2BIG
    );
    assert_eq!(
        error_of(&server, &set(65_536, &vec![1; 1 << 20]), ROOM),
        libc::E2BIG
    );
    assert_eq!(error_of(&server, &set(4, b"abc"), ROOM), libc::EINVAL);
    assert_eq!(error_of(&server, &set(2, b"abc"), ROOM), libc::EINVAL);
    assert_eq!(
        call_of(&server, &set(0, b"")),
        "setxattr 42 \"user.x\" 0 0 false"
    );
}

#[test]
fn access_lseek_and_readlink_check_their_arguments() {
    let a = Args::new;
    let server = mounted();
    let access = |mask: u32| a().u32s(&[mask, 0]).to(Opcode::Access, 42);
    assert_eq!(error_of(&server, &access(7), ROOM), 0);
    assert_eq!(error_of(&server, &access(8), ROOM), libc::EINVAL);
    let lseek = |whence: u32| a().u64s(&[55, 0]).u32s(&[whence, 0]).to(Opcode::Lseek, 42);
    let errors: Vec<i32> = (0..6).map(|w| error_of(&server, &lseek(w), ROOM)).collect();
    assert_eq!(errors, [22, 22, 22, 0, 0, 22]);
    let readlink = a().to(Opcode::Readlink, 42);
    assert_eq!(payload_of(&server, &readlink, 16 + TARGET.len()), TARGET);
    assert_eq!(
        error_of(&server, &readlink, 15 + TARGET.len()),
        libc::ERANGE
    );
}

#[test]
fn creators_carry_their_ids_and_their_extra_group() {
    let server = mounted();
    let mkdir = Args::new().u32s(&[0o755, 0]).bytes(b"new\0");
    let group = Args::new().u32s(&[16, 32, 1, 1234]);
    let group = group.to(Opcode::Mkdir, 0).body;
    let mut request = mkdir.to(Opcode::Mkdir, 42).with_extensions(&group);
    let call = "mkdir 42 \"new\" umask 0 by Some(1000) Some(1001) Some(1234) 755";
    assert_eq!(call_of(&server, &request), call);
    request.uid = u32::MAX;
    let call = "mkdir 42 \"new\" umask 0 by None Some(1001) Some(1234) 755";
    assert_eq!(call_of(&server, &request), call);
    for bad in [
        [&group[..], &group].concat(),
        vec![0; 8],
        vec![0xff; 64],
        vec![0; 65_544],
    ] {
        let request = request.clone().with_extensions(&bad);
        assert_eq!(error_of(&server, &request, ROOM), libc::EINVAL);
    }
}

#[test]
fn batch_forget_counts_the_entries_that_are_there() {
    let server = mounted();
    for (claimed, present, counted) in [(0, 3, 0), (2, 3, 2), (u32::MAX, 3, 3), (3, 0, 0)] {
        let mut args = Args::new().u32s(&[claimed, 0]);
        for _ in 0..present {
            args = args.u64s(&[70, 1]);
        }
        let before = server
            .file_system()
            .call_count
            .load(std::sync::atomic::Ordering::Relaxed);
        let (outcome, _) = send(&server, &args.to(Opcode::BatchForget, 0).bytes(), 16);
        let after = server
            .file_system()
            .call_count
            .load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!((outcome, after - before), (Outcome::NoReply, counted));
    }
}

#[test]
fn readdir_gives_whole_entries_up_to_size_and_room() {
    let server = mounted();
    for (opcode, fixed_len) in [(Opcode::Readdir, 24), (Opcode::Readdirplus, 152)] {
        let request =
            |size: usize| Args::read(0, u32::try_from(size).expect("small")).to(opcode, 42);
        let record = |name_len: usize| (fixed_len + name_len).next_multiple_of(8_usize);
        let (small, large) = (record(1), record(11));
        let whole = 4 * small + large;
        for (size, expected) in [
            (small, small),
            (2 * small - 1, small),
            (2 * small, 2 * small),
            (whole - 1, whole - large),
            (whole, whole),
            (whole + 1, whole),
        ] {
            assert_eq!(payload_of(&server, &request(size), ROOM).len(), expected);
            assert_eq!(
                payload_of(&server, &request(ROOM), 16 + size).len(),
                expected
            );
        }
        let too_small = request(small - 1);
        assert_eq!(error_of(&server, &too_small, ROOM), libc::EINVAL);
        let end = Args::read(5, 4096).to(opcode, 42);
        assert_eq!(payload_of(&server, &end, ROOM), b"");
    }
}

#[test]
fn entries_and_attributes_are_laid_out_as_fuse_h_says() {
    let server = mounted();
    let lookup = Args::new().bytes(b"name\0").to(Opcode::Lookup, 42);
    let attr = Args::new().u64s(&[0x1112, 0x2122, 0x3132, u64::MAX, 2, 3]);
    let attr = attr.u32s(&[41, 42, 43, 0o100_644, 5, 0, 0]);
    let attr = attr.u32s(&[0x0801, 4096, 1]).to(Opcode::Lookup, 0).body;
    let entry = Args::new()
        .u64s(&[100, 9, 7, 6])
        .u32s(&[77, 66])
        .bytes(&attr);
    let expected = entry.to(Opcode::Lookup, 0).body;
    assert_eq!(payload_of(&server, &lookup, ROOM), expected);
    let getattr = Args::new().bytes(&[0; 16]).to(Opcode::Getattr, 42);
    let expected = Args::new()
        .u64(6)
        .u32s(&[66, 0])
        .bytes(&attr)
        .to(Opcode::Lookup, 0)
        .body;
    assert_eq!(payload_of(&server, &getattr, ROOM), expected);
    let open = Args::new().u32s(&[0, 0]).to(Opcode::Open, 42);
    let expected = Args::new()
        .u64(101)
        .u32s(&[2, 0])
        .to(Opcode::Lookup, 0)
        .body;
    assert_eq!(payload_of(&server, &open, ROOM), expected);
}

#[test]
fn statx_says_honestly_whether_it_knows_the_birth_time() {
    let server = mounted();
    let statx = Args::new().bytes(&[0; 24]).to(Opcode::Statx, 42);
    let payload = payload_of(&server, &statx, ROOM);
    let number = |at: usize| u32::from_ne_bytes(payload[at..at + 4].try_into().expect("four"));
    assert_eq!(number(32), 0x7ff | 0x800, "mask with STATX_BTIME");
    assert_eq!((number(32 + 80), number(32 + 88)), (4, 44), "birth time");
    let device = [
        number(32 + 128),
        number(32 + 132),
        number(32 + 136),
        number(32 + 140),
    ];
    assert_eq!(device, [8, 1, 8, 2]);
    assert!(payload[32 + 144..].iter().all(|&byte| byte == 0), "spare");
}

#[derive(Debug)]
struct NoMkdir;

impl Gate for NoMkdir {
    fn admit<'a>(&self, operation: Operation<'a>) -> Result<Operation<'a>> {
        match operation {
            Operation::Mkdir { .. } => Err(Errno::EROFS),
            Operation::Forget { .. } => panic!("silent operations pass no gate"),
            other => Ok(other),
        }
    }
}

#[test]
fn gates_refuse_and_metrics_count() {
    let metrics = Arc::new(Metrics::new());
    let server = Server::new(FakeFs::new())
        .with_gate(Box::new(NoMkdir))
        .with_metrics(Arc::clone(&metrics));
    assert_eq!(error_of(&server, &init(7, 45), 80), 0);
    let mkdir = Args::new()
        .u32s(&[0o755, 0])
        .bytes(b"new\0")
        .to(Opcode::Mkdir, 42);
    assert_eq!(error_of(&server, &mkdir, ROOM), libc::EROFS);
    assert_eq!(server.file_system().take_last_call(), "");
    let forget = Args::new().u64(1).to(Opcode::Forget, 42);
    assert_eq!(send(&server, &forget.bytes(), 0).0, Outcome::NoReply);
    assert_eq!(server.file_system().take_last_call(), "forget 42 1");
    let _ = send(&server, &[1, 2, 3], 0);
    let count = metrics.opcode(Opcode::Mkdir.raw());
    assert_eq!((count.requests, count.errors), (1, 1));
    assert_eq!(metrics.dropped(), 1);
}

#[test]
fn metrics_count_the_bytes_of_contents_that_reached_the_guest() {
    let server = mounted();
    let read = Args::read(0, 5).to(Opcode::Read, 42);
    assert_eq!(payload_of(&server, &read, ROOM).len(), 5);
    // No room, and a failure of the file system: nothing was read.
    assert_eq!(error_of(&server, &read, 16), libc::EINVAL);
    *server.file_system().fail.lock().expect("no panic") = Some(Errno::EIO);
    assert_eq!(error_of(&server, &read, ROOM), libc::EIO);
    *server.file_system().fail.lock().expect("no panic") = None;
    let readdir = Args::read(0, 4096).to(Opcode::Readdir, 42);
    let listing_len = payload_of(&server, &readdir, ROOM).len();
    let getattr = Args::new().u64s(&[0, 0]).to(Opcode::Getattr, 42);
    assert_eq!(payload_of(&server, &getattr, ROOM).len(), 104);

    let count = |opcode: Opcode| server.metrics().opcode(opcode.raw());
    let of_reads = count(Opcode::Read);
    assert_eq!(
        (of_reads.requests, of_reads.errors, of_reads.bytes),
        (3, 2, 5)
    );
    assert_eq!(of_reads.times.count(), 3);
    assert_eq!(count(Opcode::Readdir).bytes, listing_len as u64);
    assert!(listing_len > 0);
    assert_eq!(count(Opcode::Getattr).bytes, 0, "of a fixed length");
    assert_eq!(count(Opcode::Init).requests, 1);
}
