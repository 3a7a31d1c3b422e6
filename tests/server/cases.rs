//! A well-formed request for every operation, with the call and the reply that it must lead to.

use virtiofsd::fs::filesystem::FileSystem;
use virtiofsd::server::Server;
use virtiofsd::wire::channel::{Outcome, Pace, RequestHandler};
use virtiofsd::wire::header::{InHeader, OutHeader};
use virtiofsd::wire::opcode::Opcode;
use virtiofsd::wire::pod::Plain;
use virtiofsd::wire::request::InitIn;

use crate::double::FakeFs;
use crate::slices::{SliceSink, SliceSource};

/// `unique` of every request.
pub(crate) const UNIQUE: u64 = 0x0123_4567_89ab_cdef;

/// Every bit of INIT's flags.
pub(crate) const ALL_BITS: u32 = u32::MAX;

/// A request: the parts of its header that matter, and what follows.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) opcode: u32,
    pub(crate) node: u64,
    pub(crate) uid: u32,
    pub(crate) body: Vec<u8>,
    pub(crate) extensions: Vec<u8>,
}

impl Request {
    pub(crate) fn new(opcode: Opcode, node: u64, body: &[u8]) -> Self {
        Request {
            opcode: opcode.raw(),
            node,
            uid: 1000,
            body: body.to_vec(),
            extensions: Vec::new(),
        }
    }

    pub(crate) fn with_extensions(mut self, extensions: &[u8]) -> Self {
        self.extensions = extensions.to_vec();
        self
    }

    pub(crate) fn header(&self) -> InHeader {
        let len = 40 + self.body.len() + self.extensions.len();
        InHeader {
            len: u32::try_from(len).expect("a small request"),
            opcode: self.opcode,
            unique: UNIQUE,
            nodeid: self.node,
            uid: self.uid,
            gid: 1001,
            pid: 77,
            total_extlen: u16::try_from(self.extensions.len() / 8).expect("few extensions"),
            padding: 0,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes_with(&self.header())
    }

    pub(crate) fn bytes_with(&self, header: &InHeader) -> Vec<u8> {
        [header.as_wire(), &self.body, &self.extensions].concat()
    }
}

/// INIT of a guest with this version that offers everything.
pub(crate) fn init(major: u32, minor: u32) -> Request {
    let args = InitIn {
        major,
        minor,
        max_readahead: 0x20000,
        flags: ALL_BITS,
        flags2: ALL_BITS,
        unused: [0; 11],
    };
    Request::new(Opcode::Init, 0, args.as_wire())
}

/// A server with a session.
pub(crate) fn mounted() -> Server<FakeFs> {
    let server = Server::new(FakeFs::new());
    let (outcome, _) = send(&server, &init(7, 45).bytes(), 80);
    assert_eq!(outcome, Outcome::Replied(80));
    server
}

/// Sends `bytes` with room for a reply of `room` bytes.
pub(crate) fn send<F: FileSystem>(
    server: &Server<F>,
    bytes: &[u8],
    room: usize,
) -> (Outcome, SliceSink) {
    let mut sink = SliceSink::new(room);
    let outcome = server.handle(&mut SliceSource::new(bytes), &mut sink, Pace::Patient);
    (outcome, sink)
}

/// A reply with a payload of this length.
pub(crate) fn replied(payload_len: usize) -> Outcome {
    Outcome::Replied(u32::try_from(16 + payload_len).expect("a small reply"))
}

/// The header at the front of a reply.
pub(crate) fn out_header(sink: &SliceSink) -> OutHeader {
    OutHeader::split_from(&sink.bytes)
        .expect("room for a header")
        .0
}

/// The error number of a reply that failed, 0 of one that did not.
pub(crate) fn error_of<F: FileSystem>(server: &Server<F>, request: &Request, room: usize) -> i32 {
    let (outcome, sink) = send(server, &request.bytes(), room);
    let header = out_header(&sink);
    assert_eq!(outcome, Outcome::Replied(header.len));
    assert_eq!(header.unique, UNIQUE);
    -header.error
}

/// One operation.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) opcode: Opcode,
    pub(crate) request: Request,
    /// What the file system is asked.
    pub(crate) call: &'static str,
    /// Length of the payload of the reply; `None` for no reply.
    pub(crate) payload_len: Option<usize>,
}

/// Numbers one behind the other, as the wire has them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Args(Vec<u8>);

impl Args {
    pub(crate) fn new() -> Self {
        Args::default()
    }

    pub(crate) fn u32(mut self, number: u32) -> Self {
        self.0.extend_from_slice(&number.to_ne_bytes());
        self
    }

    pub(crate) fn u64(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_ne_bytes());
        self
    }

    pub(crate) fn u32s(self, numbers: &[u32]) -> Self {
        numbers.iter().fold(self, |args, &number| args.u32(number))
    }

    pub(crate) fn u64s(self, numbers: &[u64]) -> Self {
        numbers.iter().fold(self, |args, &number| args.u64(number))
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn to(self, opcode: Opcode, node: u64) -> Request {
        Request::new(opcode, node, &self.0)
    }

    pub(crate) fn read(offset: u64, size: u32) -> Self {
        Args::new()
            .u64s(&[55, offset])
            .u32s(&[size, 0])
            .u64(0)
            .u32s(&[0, 0])
    }
}

fn case(opcode: Opcode, args: Args, call: &'static str, payload_len: usize) -> Case {
    Case {
        opcode,
        request: args.to(opcode, 42),
        call,
        payload_len: Some(payload_len),
    }
}

fn silent(opcode: Opcode, args: Args, call: &'static str) -> Case {
    Case {
        payload_len: None,
        ..case(opcode, args, call, 0)
    }
}

/// Every operation that is served, INIT and DESTROY excepted.
pub(crate) fn every_operation() -> Vec<Case> {
    [
        attributes(),
        names(),
        open_files(),
        contents(),
        locks_and_ioctls(),
        directories(),
        xattrs(),
    ]
    .concat()
}

fn attributes() -> Vec<Case> {
    let a = Args::new;
    let setattr = a()
        .u32s(&[1 << 3 | 1 << 6, 0])
        .u64s(&[55, 4096])
        .bytes(&[0; 64]);
    vec![
        case(
            Opcode::Getattr,
            a().u32s(&[0, 0]).u64(55),
            "getattr 42 None",
            104,
        ),
        case(
            Opcode::Getattr,
            a().u32s(&[1, 0]).u64(55),
            "getattr 42 Some(55)",
            104,
        ),
        case(
            Opcode::Statx,
            a().u32s(&[1, 0]).u64(55).u32s(&[0, 0xfff]),
            "statx 42 Some(55) 0xfff",
            288,
        ),
        case(
            Opcode::Setattr,
            setattr,
            "setattr 42 Some(55) AttrChanges { mode: None, uid: None, gid: None, size_bytes: \
             Some(4096), atime: None, mtime: None, kill_suid_sgid: false }",
            104,
        ),
        case(
            Opcode::Access,
            a().u32s(&[5, 0]),
            "access 42 5 by Some(1000) Some(1001) None",
            0,
        ),
        case(Opcode::Statfs, a(), "statfs 42", 80),
        case(Opcode::Syncfs, a().u64(0), "syncfs 42", 0),
        case(Opcode::Readlink, a(), "readlink 42", 13),
    ]
}

fn names() -> Vec<Case> {
    let a = Args::new;
    vec![
        case(
            Opcode::Lookup,
            a().bytes(b"name\0"),
            "lookup 42 \"name\"",
            128,
        ),
        silent(Opcode::Forget, a().u64(3), "forget 42 3"),
        silent(
            Opcode::BatchForget,
            a().u32s(&[2, 0]).u64s(&[70, 1, 71, 2]),
            "forget 71 2",
        ),
        silent(Opcode::Interrupt, a().u64(99), "interrupt 99"),
        case(
            Opcode::Symlink,
            a().bytes(b"new\0../to\0"),
            "symlink 42 \"new\" umask 0 by Some(1000) Some(1001) None \"../to\"",
            128,
        ),
        case(
            Opcode::Mknod,
            a().u32s(&[0o60660, 0x801, 0o22, 0]).bytes(b"new\0"),
            "mknod 42 \"new\" umask 22 by Some(1000) Some(1001) None 60660 2049",
            128,
        ),
        case(
            Opcode::Mkdir,
            a().u32s(&[0o40755, 0o22]).bytes(b"new\0"),
            "mkdir 42 \"new\" umask 22 by Some(1000) Some(1001) None 755",
            128,
        ),
        case(Opcode::Unlink, a().bytes(b"old\0"), "unlink 42 \"old\"", 0),
        case(Opcode::Rmdir, a().bytes(b"old\0"), "rmdir 42 \"old\"", 0),
        case(
            Opcode::Rename,
            a().u64(43).bytes(b"old\0new\0"),
            "rename (42, \"old\") (43, \"new\") 0",
            0,
        ),
        case(
            Opcode::Rename2,
            a().u64(43).u32s(&[2, 0]).bytes(b"old\0new\0"),
            "rename (42, \"old\") (43, \"new\") 2",
            0,
        ),
        case(
            Opcode::Link,
            a().u64(41).bytes(b"new\0"),
            "link 41 42 \"new\"",
            128,
        ),
    ]
}

fn open_files() -> Vec<Case> {
    let a = Args::new;
    vec![
        case(
            Opcode::Open,
            a().u32s(&[0o1001, 1]),
            "open 42 0o1001 true",
            16,
        ),
        case(
            Opcode::Create,
            a().u32s(&[0o102, 0o100_644, 0o22, 1]).bytes(b"new\0"),
            "create 42 \"new\" umask 22 by Some(1000) Some(1001) None 100644 0o102 true",
            144,
        ),
        case(
            Opcode::Tmpfile,
            a().u32s(&[0o2, 0o100_600, 0o22, 0]).bytes(b"/\0"),
            "tmpfile 42 umask 22 by Some(1000) Some(1001) None 100600 0o2",
            144,
        ),
    ]
}

fn contents() -> Vec<Case> {
    let a = Args::new;
    let write = a()
        .u64s(&[55, 4])
        .u32s(&[3, 5])
        .u64(0)
        .u32s(&[0, 0])
        .bytes(b"xyz");
    let copy = a().u64s(&[55, 1, 43, 56, 2, u64::MAX, 0]);
    vec![
        case(Opcode::Read, Args::read(2, 10), "read 42 55 at 2 10", 10),
        case(
            Opcode::Write,
            write,
            "write 42 55 at 4 3 cache true kill true",
            8,
        ),
        case(
            Opcode::Flush,
            a().u64s(&[55, 0, 9]),
            "flush 42 55 owner 9",
            0,
        ),
        case(
            Opcode::Release,
            a().u64(55).u32s(&[0, 2]).u64(9),
            "release 42 55 flock Some(9)",
            0,
        ),
        case(
            Opcode::Fsync,
            a().u64(55).u32s(&[1, 0]),
            "fsync 42 55 ContentsOnly",
            0,
        ),
        case(
            Opcode::Lseek,
            a().u64s(&[55, 8]).u32s(&[4, 0]),
            "lseek 42 55 8 4",
            8,
        ),
        case(
            Opcode::Fallocate,
            a().u64s(&[55, 1, 2]).u32s(&[3, 0]),
            "fallocate 42 55 3 at 1 2",
            0,
        ),
        case(
            Opcode::CopyFileRange,
            copy.clone(),
            "copy (42, 55, 1) (43, 56, 2) 0xfffff000 0",
            8,
        ),
        case(
            Opcode::CopyFileRange64,
            copy,
            "copy (42, 55, 1) (43, 56, 2) 0xffffffffffffffff 0",
            8,
        ),
    ]
}

fn locks_and_ioctls() -> Vec<Case> {
    let lock = |start, end, type_, flags| {
        let fixed = Args::new().u64s(&[55, 9, start, end]);
        fixed.u32s(&[type_, 77, flags, 0])
    };
    vec![
        case(
            Opcode::Getlk,
            lock(1, 2, 0, 0),
            "getlk 42 55 owner 9 Posix Read 1 2 by 77",
            24,
        ),
        case(
            Opcode::Setlk,
            lock(1, u64::MAX, 1, 0),
            "setlk 42 55 owner 9 Posix Write 1 9223372036854775807 by 77",
            0,
        ),
        case(
            Opcode::Setlkw,
            lock(5, 2, 2, 1),
            "setlkw 42 55 owner 9 Flock Unlock 0 9223372036854775807 by 77",
            0,
        ),
        case(
            Opcode::Ioctl,
            Args::new()
                .u64(55)
                .u32s(&[0x18, 0x8008_6601])
                .u64(0)
                .u32s(&[3, 8])
                .bytes(b"abc"),
            "ioctl 42 55 0x80086601 32 bit true by Some(1000) Some(1001) None [97, 98, 99] 8",
            16 + 8,
        ),
    ]
}

fn directories() -> Vec<Case> {
    let a = Args::new;
    let readdir_len = 32 + 32 + 32 + 32 + 40;
    let readdirplus_len = readdir_len + 5 * 128;
    vec![
        case(
            Opcode::Opendir,
            a().u32s(&[0o200_000, 0]),
            "opendir 42 0o200000",
            16,
        ),
        case(
            Opcode::Readdir,
            Args::read(0, 4096),
            "readdir 42 55 at 0",
            readdir_len,
        ),
        case(
            Opcode::Readdirplus,
            Args::read(0, 4096),
            "readdirplus 42 55 at 0",
            readdirplus_len,
        ),
        case(
            Opcode::Releasedir,
            a().u64s(&[55, 0, 0]),
            "releasedir 42 55 flock None",
            0,
        ),
        case(
            Opcode::Fsyncdir,
            a().u64(55).u32s(&[0, 0]),
            "fsyncdir 42 55 Everything",
            0,
        ),
    ]
}

fn xattrs() -> Vec<Case> {
    let a = Args::new;
    let setxattr = a().u32s(&[3, 1, 1, 0]).bytes(b"user.x\0val");
    vec![
        case(
            Opcode::Setxattr,
            setxattr,
            "setxattr 42 \"user.x\" 3 1 true",
            0,
        ),
        case(
            Opcode::Getxattr,
            a().u32s(&[64, 0]).bytes(b"user.x\0"),
            "getxattr 42 \"user.x\" 64",
            7,
        ),
        case(
            Opcode::Getxattr,
            a().u32s(&[0, 0]).bytes(b"user.x\0"),
            "getxattr 42 \"user.x\" 0",
            8,
        ),
        case(Opcode::Listxattr, a().u32s(&[64, 0]), "listxattr 42 64", 7),
        case(Opcode::Listxattr, a().u32s(&[0, 0]), "listxattr 42 0", 8),
        case(
            Opcode::Removexattr,
            a().bytes(b"user.x\0"),
            "removexattr 42 \"user.x\"",
            0,
        ),
    ]
}
