//! What: what is measured: the requests of each test, and the same work by direct system calls.

use crate::common::request::{ENTRY_OUT, op};
use crate::common::u64_of;

use super::message::{Message, Reply};
use super::native::{self, Native};
use super::places::{FILE_LEN, FILES, TREE_DIRS, TREE_FILES, XATTR, file_name};
use super::script::{State, Step};

/// What a guest asks for in one READDIRPLUS.
pub(crate) const LISTING_ROOM: usize = 32 << 10;

const SETATTR_MODE: u32 = 1;
const ATTR_OUT: usize = 104;
/// `fuse_dirent` with the entry before it, without the name.
const DIRENT_PLUS: usize = ENTRY_OUT + 24;
const KIB: usize = 1024;

/// One test.
pub(crate) struct Test {
    pub(crate) name: &'static str,
    /// Whether it works on a file with contents, which is open for reading and writing.
    pub(crate) needs_open: bool,
    pub(crate) steps: &'static [Step],
    /// The same by direct system calls; `turn` counts up. Returns how many operations it did.
    pub(crate) native: fn(&mut Native, usize) -> u64,
}

const fn test(
    name: &'static str,
    steps: &'static [Step],
    native: fn(&mut Native, usize) -> u64,
) -> Test {
    Test {
        name,
        needs_open: false,
        steps,
        native,
    }
}

const fn on_open_file(test: Test) -> Test {
    Test {
        needs_open: true,
        ..test
    }
}

/// All of them.
pub(crate) static TESTS: &[Test] = &[
    test("getattr", &[GETATTR], native::getattr),
    test("lookup+forget", &[LOOKUP, FORGET], native::lookup),
    test("lookup-missing", &[LOOKUP_MISSING], native::lookup_missing),
    test("open+release", &[OPEN, RELEASE], native::open),
    test(
        "create+write+release+unlink",
        &[CREATE, WRITE_NEW, RELEASE_NEW, UNLINK, FORGET],
        native::create,
    ),
    test("mkdir+rmdir", &[MKDIR, RMDIR, FORGET], native::mkdir),
    on_open_file(test("read-4k", &[READ_4K], |it, turn| {
        it.read(turn, 4 * KIB)
    })),
    on_open_file(test("write-4k", &[WRITE_4K], |it, turn| {
        it.write(turn, 4 * KIB)
    })),
    on_open_file(test("read-128k", &[READ_128K], |it, turn| {
        it.read(turn, 128 * KIB)
    })),
    on_open_file(test("write-128k", &[WRITE_128K], |it, turn| {
        it.write(turn, 128 * KIB)
    })),
    on_open_file(test("read-1m", &[READ_1M], |it, turn| {
        it.read(turn, KIB * KIB)
    })),
    on_open_file(test("write-1m", &[WRITE_1M], |it, turn| {
        it.write(turn, KIB * KIB)
    })),
    test(
        "readdirplus-entry",
        &[OPENDIR_LONG, READDIRPLUS_LONG, RELEASEDIR_LONG],
        native::list_long,
    ),
    test(
        "readdirplus-small-dir",
        &[OPENDIR, READDIRPLUS, RELEASEDIR],
        native::list_small,
    ),
    test("statfs", &[STATFS], native::statfs),
    test("setattr-mode", &[SETATTR], native::chmod),
    test("rename", &[RENAME_AWAY, RENAME_BACK], native::rename),
    test("readlink", &[READLINK], native::readlink),
    test("getxattr", &[GETXATTR], native::getxattr),
    test(
        "git-status-file",
        &[OPENDIR, READDIRPLUS, RELEASEDIR, LOOKUP_TREE, GETATTR_TREE],
        native::git_status,
    ),
];

/// Where in a file of [`FILE_LEN`] bytes: the same places for every daemon.
pub(crate) fn offset(turn: usize, slot: usize, len: usize) -> usize {
    (turn.wrapping_mul(7919).wrapping_add(slot) % (FILE_LEN / len)) * len
}

fn by_turn(state: &State) -> u64 {
    state.place.files[state.turn % FILES]
}

fn small_dir(state: &State) -> u64 {
    state.place.tree[state.turn % TREE_DIRS]
}

fn found(state: &mut State, reply: &Reply<'_>) {
    state.node = reply.word(0);
    assert_ne!(state.node, 0, "a name was not found");
}

fn done(_: &mut State, reply: &Reply<'_>) {
    reply.done();
}

fn done_one(state: &mut State, reply: &Reply<'_>) {
    reply.done();
    state.done += 1;
}

fn getattr(message: &mut Message, node: u64) {
    message.ask(op::GETATTR, node, ATTR_OUT).zeros(16);
}

const GETATTR: Step = Step {
    ask: |state, message| getattr(message, by_turn(state)),
    take: done,
};
const GETATTR_TREE: Step = Step {
    ask: |state, message| getattr(message, state.node),
    take: |state, reply| {
        done_one(state, reply);
        state.file = (state.file + 1) % TREE_FILES;
        state.back = if state.file > 0 { 2 } else { 0 };
    },
};

fn lookup(message: &mut Message, parent: u64, name: &str) {
    let entry = message.ask(op::LOOKUP, parent, ENTRY_OUT);
    entry.name(name.as_bytes());
}

const LOOKUP: Step = Step {
    ask: |state, message| lookup(message, state.place.dir, file_name(state.turn)),
    take: found,
};
const LOOKUP_TREE: Step = Step {
    ask: |state, message| lookup(message, small_dir(state), file_name(state.file)),
    take: found,
};
const LOOKUP_MISSING: Step = Step {
    ask: |state, message| lookup(message, state.place.dir, "missing"),
    take: |_, reply| match reply.errno {
        0 => assert_eq!(reply.word(0), 0, "a missing name was found"),
        errno => assert_eq!(errno, libc::ENOENT),
    },
};
const FORGET: Step = Step {
    ask: |state, message| {
        message.tell(op::FORGET, state.node).u64(1);
    },
    take: |_, _| {},
};

fn open(message: &mut Message, opcode: u32, node: u64) {
    message.ask(opcode, node, 16).i32(libc::O_RDONLY).u32(0);
}

fn opened(state: &mut State, reply: &Reply<'_>) {
    (state.opened, state.offset) = (reply.word(0), 0);
}

fn release(message: &mut Message, opcode: u32, node: u64, fh: u64) {
    let message = message.ask(opcode, node, 0).u64(fh);
    message.i32(libc::O_RDONLY).u32(0).u64(0);
}

const OPEN: Step = Step {
    ask: |state, message| open(message, op::OPEN, by_turn(state)),
    take: opened,
};
const RELEASE: Step = Step {
    ask: |state, message| release(message, op::RELEASE, by_turn(state), state.opened),
    take: done,
};
const RELEASE_NEW: Step = Step {
    ask: |state, message| release(message, op::RELEASE, state.node, state.opened),
    take: done,
};
const CREATE: Step = Step {
    ask: |state, message| {
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
        let message = message.ask(op::CREATE, state.place.dir, ENTRY_OUT + 16);
        let message = message.i32(flags).u32(0o100_644).u32(0o022).u32(0);
        message.name(b"new");
    },
    take: |state, reply| {
        found(state, reply);
        state.opened = reply.word(ENTRY_OUT);
    },
};

fn write(message: &mut Message, node: u64, fh: u64, offset: usize, len: usize) {
    let message = message.ask(op::WRITE, node, 8).u64(fh).u64(u64_of(offset));
    let size = u32::try_from(len).expect("a request");
    let message = message.u32(size).u32(0).u64(0).i32(libc::O_RDWR).u32(0);
    message.with_payload(len);
}

fn read_full(state: &State, message: &mut Message, len: usize) {
    let offset = offset(state.turn, state.place.slot, len);
    let size = u32::try_from(len).expect("a request");
    let message = message.ask(op::READ, state.place.full, len).u64(state.fh);
    let message = message.u64(u64_of(offset)).u32(size).u32(0).u64(0);
    message.i32(libc::O_RDWR).u32(0).look_at(0);
}

fn write_full(state: &State, message: &mut Message, len: usize) {
    let offset = offset(state.turn, state.place.slot, len);
    write(message, state.place.full, state.fh, offset, len);
}

fn filled(reply: &Reply<'_>, len: usize) {
    assert_eq!(reply.payload_len(), len, "a short read");
}

fn written(reply: &Reply<'_>, len: usize) {
    assert_eq!(reply.word(0) & 0xffff_ffff, u64_of(len), "a short write");
}

const WRITE_NEW: Step = Step {
    ask: |state, message| write(message, state.node, state.opened, 0, 4 * KIB),
    take: |_, reply| written(reply, 4 * KIB),
};
const READ_4K: Step = Step {
    ask: |state, message| read_full(state, message, 4 * KIB),
    take: |_, reply| filled(reply, 4 * KIB),
};
const WRITE_4K: Step = Step {
    ask: |state, message| write_full(state, message, 4 * KIB),
    take: |_, reply| written(reply, 4 * KIB),
};
const READ_128K: Step = Step {
    ask: |state, message| read_full(state, message, 128 * KIB),
    take: |_, reply| filled(reply, 128 * KIB),
};
const WRITE_128K: Step = Step {
    ask: |state, message| write_full(state, message, 128 * KIB),
    take: |_, reply| written(reply, 128 * KIB),
};
const READ_1M: Step = Step {
    ask: |state, message| read_full(state, message, KIB * KIB),
    take: |_, reply| filled(reply, KIB * KIB),
};
const WRITE_1M: Step = Step {
    ask: |state, message| write_full(state, message, KIB * KIB),
    take: |_, reply| written(reply, KIB * KIB),
};
const UNLINK: Step = Step {
    ask: |state, message| {
        message.ask(op::UNLINK, state.place.dir, 0).name(b"new");
    },
    take: done,
};
const MKDIR: Step = Step {
    ask: |state, message| {
        let message = message.ask(op::MKDIR, state.place.dir, ENTRY_OUT);
        message.u32(0o755).u32(0o022).name(b"new");
    },
    take: found,
};
const RMDIR: Step = Step {
    ask: |state, message| {
        message.ask(op::RMDIR, state.place.dir, 0).name(b"new");
    },
    take: done,
};

fn list(state: &State, message: &mut Message, node: u64) {
    let size = u32::try_from(LISTING_ROOM).expect("a request");
    let message = message.ask(op::READDIRPLUS, node, LISTING_ROOM);
    let message = message.u64(state.opened).u64(state.offset).u32(size);
    let message = message.u32(0).u64(0).i32(0).u32(0);
    message.look_at(LISTING_ROOM);
}

/// Goes on until a listing is empty; returns how many entries there were, `.` and `..` included.
fn listed(state: &mut State, reply: &Reply<'_>) -> u64 {
    let mut rest = reply.payload();
    let mut count = 0;
    while rest.len() >= DIRENT_PLUS {
        let field = |at: usize| rest[at..].first_chunk().expect("a whole entry");
        state.offset = u64::from_le_bytes(*rest[ENTRY_OUT + 8..].first_chunk().expect("an offset"));
        let name_len = u32::from_le_bytes(*field(ENTRY_OUT + 16));
        let len = DIRENT_PLUS + usize::try_from(name_len).expect("a name");
        rest = &rest[len.next_multiple_of(8).min(rest.len())..];
        count += 1;
    }
    state.back = usize::from(count > 0);
    count
}

const OPENDIR_LONG: Step = Step {
    ask: |state, message| open(message, op::OPENDIR, state.place.long),
    take: opened,
};
const READDIRPLUS_LONG: Step = Step {
    ask: |state, message| list(state, message, state.place.long),
    take: |state, reply| state.done += listed(state, reply),
};
const RELEASEDIR_LONG: Step = Step {
    ask: |state, message| release(message, op::RELEASEDIR, state.place.long, state.opened),
    take: done,
};
const OPENDIR: Step = Step {
    ask: |state, message| open(message, op::OPENDIR, small_dir(state)),
    take: opened,
};
const READDIRPLUS: Step = Step {
    ask: |state, message| list(state, message, small_dir(state)),
    take: |state, reply| {
        listed(state, reply);
    },
};
const RELEASEDIR: Step = Step {
    ask: |state, message| release(message, op::RELEASEDIR, small_dir(state), state.opened),
    take: done,
};
const STATFS: Step = Step {
    ask: |state, message| {
        message.ask(op::STATFS, state.place.dir, 80);
    },
    take: done,
};
const SETATTR: Step = Step {
    ask: |state, message| {
        // Another mode in each round of the files: a change, not a repetition.
        let mode = if (state.turn / FILES).is_multiple_of(2) {
            0o100_644
        } else {
            0o100_600
        };
        let message = message.ask(op::SETATTR, by_turn(state), ATTR_OUT);
        message.u32(SETATTR_MODE).zeros(64).u32(mode).zeros(16);
    },
    take: done,
};

fn rename(state: &State, message: &mut Message, from: &str, to: &str) {
    let message = message.ask(op::RENAME2, state.place.dir, 0);
    let message = message.u64(state.place.dir).u32(0).u32(0);
    message.name(from.as_bytes()).name(to.as_bytes());
}

const RENAME_AWAY: Step = Step {
    ask: |state, message| rename(state, message, "moving", "moved"),
    take: done_one,
};
const RENAME_BACK: Step = Step {
    ask: |state, message| rename(state, message, "moved", "moving"),
    take: done_one,
};
const READLINK: Step = Step {
    ask: |state, message| {
        message.ask(op::READLINK, state.place.link, 4096);
    },
    take: |_, reply| assert_eq!(reply.payload(), b"target"),
};
const GETXATTR: Step = Step {
    ask: |state, message| {
        let message = message.ask(op::GETXATTR, by_turn(state), 256);
        message.u32(256).u32(0).name(XATTR.as_bytes());
    },
    take: |_, reply| assert_eq!(reply.payload(), b"some value"),
};
