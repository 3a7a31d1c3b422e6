//! What: what is measured: the requests of each test, and the same work by direct system calls.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::common::request::{Bytes, ENTRY_OUT, op, parse_dirents};
use crate::common::u64_of;

use super::script::{Ask, State, Step};

/// Files in the directory of each slot.
pub(crate) const FILES: usize = 64;
/// Bytes of each.
pub(crate) const FILE_LEN: usize = 4 << 20;
/// Files that have contents; the others are empty.
pub(crate) const FULL_FILES: usize = 2;
/// Entries of the long directory.
pub(crate) const LONG_ENTRIES: usize = 10_000;
/// Name of the long directory below the slot's.
pub(crate) const LONG: &str = "long";
/// What a guest asks for in one READDIRPLUS.
const LISTING_ROOM: usize = 32 << 10;

const SETATTR_MODE: u32 = 1;
const ATTR_OUT: usize = 104;
const KIB: usize = 1024;

/// What a test works on, beyond the slot's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    Nothing,
    /// A file with contents, open for reading and writing.
    OpenFile,
    /// The long directory.
    LongDirectory,
}

/// One test.
pub(crate) struct Test {
    pub(crate) name: &'static str,
    pub(crate) needs: Needs,
    pub(crate) steps: &'static [Step],
    /// One operation on files of the directory, by direct system calls; `turn` counts up.
    pub(crate) native: Option<fn(&Path, usize)>,
}

/// All of them.
pub(crate) static TESTS: &[Test] = &[
    Test {
        name: "getattr",
        needs: Needs::Nothing,
        steps: &[GETATTR],
        native: Some(|dir, turn| drop(fs::symlink_metadata(dir.join(name(turn))))),
    },
    Test {
        name: "lookup+forget",
        needs: Needs::Nothing,
        steps: &[LOOKUP, FORGET],
        native: Some(|dir, turn| drop(fs::symlink_metadata(dir.join(name(turn))))),
    },
    Test {
        name: "lookup-missing",
        needs: Needs::Nothing,
        steps: &[LOOKUP_MISSING],
        native: Some(|dir, _| assert!(fs::symlink_metadata(dir.join("missing")).is_err())),
    },
    Test {
        name: "open+release",
        needs: Needs::Nothing,
        steps: &[OPEN, RELEASE],
        native: Some(|dir, turn| drop(fs::File::open(dir.join(name(turn))))),
    },
    Test {
        name: "create+write+release+unlink",
        needs: Needs::Nothing,
        steps: &[CREATE, WRITE_NEW, RELEASE_NEW, FORGET, UNLINK],
        native: Some(|dir, _| {
            fs::write(dir.join("native"), [7; 4096]).expect("a file");
            fs::remove_file(dir.join("native")).expect("its end");
        }),
    },
    Test {
        name: "mkdir+rmdir",
        needs: Needs::Nothing,
        steps: &[MKDIR, FORGET, RMDIR],
        native: Some(|dir, _| {
            fs::create_dir(dir.join("native")).expect("a directory");
            fs::remove_dir(dir.join("native")).expect("its end");
        }),
    },
    Test {
        name: "read-4k",
        needs: Needs::OpenFile,
        steps: &[READ_4K],
        native: None,
    },
    Test {
        name: "write-4k",
        needs: Needs::OpenFile,
        steps: &[WRITE_4K],
        native: None,
    },
    Test {
        name: "read-128k",
        needs: Needs::OpenFile,
        steps: &[READ_128K],
        native: None,
    },
    Test {
        name: "write-128k",
        needs: Needs::OpenFile,
        steps: &[WRITE_128K],
        native: None,
    },
    Test {
        name: "read-1m",
        needs: Needs::OpenFile,
        steps: &[READ_1M],
        native: None,
    },
    Test {
        name: "write-1m",
        needs: Needs::OpenFile,
        steps: &[WRITE_1M],
        native: None,
    },
    Test {
        name: "readdirplus-entry",
        needs: Needs::LongDirectory,
        steps: &[OPENDIR, READDIRPLUS, RELEASEDIR],
        native: None,
    },
    Test {
        name: "statfs",
        needs: Needs::Nothing,
        steps: &[STATFS],
        native: Some(|dir, _| statfs(dir)),
    },
    Test {
        name: "setattr-mode",
        needs: Needs::Nothing,
        steps: &[SETATTR],
        native: None,
    },
    Test {
        name: "rename",
        needs: Needs::Nothing,
        steps: &[RENAME_AWAY, RENAME_BACK],
        native: Some(|dir, _| {
            fs::rename(dir.join("moving"), dir.join("moved")).expect("a rename");
            fs::rename(dir.join("moved"), dir.join("moving")).expect("a rename");
        }),
    },
    Test {
        name: "readlink",
        needs: Needs::Nothing,
        steps: &[LOOKUP_LINK, READLINK, FORGET],
        native: Some(|dir, _| drop(fs::read_link(dir.join("link")))),
    },
    Test {
        name: "getxattr",
        needs: Needs::Nothing,
        steps: &[GETXATTR],
        native: None,
    },
    Test {
        name: "git-status-file",
        needs: Needs::Nothing,
        steps: &[LOOKUP, GETATTR_FOUND, FORGET],
        native: Some(|dir, turn| drop(fs::symlink_metadata(dir.join(name(turn))))),
    },
];

pub(crate) fn name(turn: usize) -> String {
    format!("file-{}", turn % FILES)
}

fn statfs(dir: &Path) {
    let path = CString::new(dir.as_os_str().as_bytes()).expect("no NUL in a path");
    super::host::statfs(&path);
}

fn expect(reply: Result<&[u8], i32>) -> &[u8] {
    reply.unwrap_or_else(|errno| panic!("a request failed with errno {errno}"))
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let word = bytes[at..].first_chunk().expect("a reply as long as that");
    u64::from_le_bytes(*word)
}

fn ask(opcode: u32, node: u64, body: Bytes, room: usize) -> Ask {
    Ask {
        opcode,
        node,
        body: body.done(),
        room: Some(room),
    }
}

fn by_turn(state: &State) -> u64 {
    state.files[state.turn % FILES]
}

fn found(state: &mut State, reply: Result<&[u8], i32>) {
    state.node = word(expect(reply), 0);
    assert_ne!(state.node, 0, "a name was not found");
}

fn done(_: &mut State, reply: Result<&[u8], i32>) {
    expect(reply);
}

const GETATTR: Step = Step {
    ask: |state| {
        ask(
            op::GETATTR,
            by_turn(state),
            Bytes::new().u64(0).u64(0),
            ATTR_OUT,
        )
    },
    take: done,
};
const GETATTR_FOUND: Step = Step {
    ask: |state| {
        ask(
            op::GETATTR,
            state.node,
            Bytes::new().u64(0).u64(0),
            ATTR_OUT,
        )
    },
    take: done,
};
const LOOKUP: Step = Step {
    ask: |state| {
        let name = name(state.turn);
        ask(
            op::LOOKUP,
            state.dir,
            Bytes::new().name(name.as_bytes()),
            ENTRY_OUT,
        )
    },
    take: found,
};
const LOOKUP_LINK: Step = Step {
    ask: |state| ask(op::LOOKUP, state.dir, Bytes::new().name(b"link"), ENTRY_OUT),
    take: found,
};
const LOOKUP_MISSING: Step = Step {
    ask: |state| {
        ask(
            op::LOOKUP,
            state.dir,
            Bytes::new().name(b"missing"),
            ENTRY_OUT,
        )
    },
    take: |_, reply| match reply {
        Ok(entry) => assert_eq!(word(entry, 0), 0, "a missing name was found"),
        Err(errno) => assert_eq!(errno, libc::ENOENT),
    },
};
const FORGET: Step = Step {
    ask: |state| Ask {
        opcode: op::FORGET,
        node: state.node,
        body: Bytes::new().u64(1).done(),
        room: None,
    },
    take: |_, _| {},
};
const OPEN: Step = Step {
    ask: |state| {
        ask(
            op::OPEN,
            by_turn(state),
            Bytes::new().i32(libc::O_RDONLY).u32(0),
            16,
        )
    },
    take: |state, reply| state.opened = word(expect(reply), 0),
};

fn release(opcode: u32, node: u64, fh: u64) -> Ask {
    let body = Bytes::new().u64(fh).i32(libc::O_RDONLY).u32(0).u64(0);
    ask(opcode, node, body, 0)
}

const RELEASE: Step = Step {
    ask: |state| release(op::RELEASE, by_turn(state), state.opened),
    take: done,
};
const RELEASE_NEW: Step = Step {
    ask: |state| release(op::RELEASE, state.node, state.opened),
    take: done,
};
const CREATE: Step = Step {
    ask: |state| {
        let body = Bytes::new()
            .i32(libc::O_RDWR | libc::O_CREAT | libc::O_EXCL)
            .u32(0o100_644)
            .u32(0o022)
            .u32(0)
            .name(format!("new-{}", state.slot).as_bytes());
        ask(op::CREATE, state.dir, body, ENTRY_OUT + 16)
    },
    take: |state, reply| {
        let reply = expect(reply);
        (state.node, state.opened) = (word(reply, 0), word(reply, ENTRY_OUT));
    },
};

fn write(node: u64, fh: u64, offset: usize, len: usize) -> Ask {
    let body = Bytes::new()
        .u64(fh)
        .u64(u64_of(offset))
        .u32(u32::try_from(len).expect("a request"))
        .u32(0)
        .u64(0)
        .i32(libc::O_RDWR)
        .u32(0)
        .raw(&vec![7; len]);
    ask(op::WRITE, node, body, 8)
}

fn read(node: u64, fh: u64, offset: usize, len: usize) -> Ask {
    let size = u32::try_from(len).expect("a request");
    let body = Bytes::new().u64(fh).u64(u64_of(offset)).u32(size).u32(0);
    ask(op::READ, node, body.u64(0).i32(libc::O_RDWR).u32(0), len)
}

/// Anywhere in the file, as `turn` and the slot say: the same places for every daemon.
fn place(state: &State, len: usize) -> usize {
    let places = FILE_LEN / len;
    (state.turn.wrapping_mul(7919).wrapping_add(state.slot) % places) * len
}

fn filled(len: usize) -> impl Fn(Result<&[u8], i32>) {
    move |reply| assert_eq!(expect(reply).len(), len, "a short read")
}

const WRITE_NEW: Step = Step {
    ask: |state| write(state.node, state.opened, 0, 4 * KIB),
    take: done,
};
const READ_4K: Step = Step {
    ask: |state| read(state.files[0], state.fh, place(state, 4 * KIB), 4 * KIB),
    take: |_, reply| filled(4 * KIB)(reply),
};
const WRITE_4K: Step = Step {
    ask: |state| write(state.files[0], state.fh, place(state, 4 * KIB), 4 * KIB),
    take: done,
};
const READ_128K: Step = Step {
    ask: |state| read(state.files[0], state.fh, place(state, 128 * KIB), 128 * KIB),
    take: |_, reply| filled(128 * KIB)(reply),
};
const WRITE_128K: Step = Step {
    ask: |state| write(state.files[0], state.fh, place(state, 128 * KIB), 128 * KIB),
    take: done,
};
const READ_1M: Step = Step {
    ask: |state| read(state.files[0], state.fh, place(state, KIB * KIB), KIB * KIB),
    take: |_, reply| filled(KIB * KIB)(reply),
};
const WRITE_1M: Step = Step {
    ask: |state| write(state.files[0], state.fh, place(state, KIB * KIB), KIB * KIB),
    take: done,
};
const UNLINK: Step = Step {
    ask: |state| {
        let name = format!("new-{}", state.slot);
        ask(op::UNLINK, state.dir, Bytes::new().name(name.as_bytes()), 0)
    },
    take: done,
};
const MKDIR: Step = Step {
    ask: |state| {
        let name = format!("dir-{}", state.slot);
        let body = Bytes::new().u32(0o755).u32(0o022).name(name.as_bytes());
        ask(op::MKDIR, state.dir, body, ENTRY_OUT)
    },
    take: found,
};
const RMDIR: Step = Step {
    ask: |state| {
        let name = format!("dir-{}", state.slot);
        ask(op::RMDIR, state.dir, Bytes::new().name(name.as_bytes()), 0)
    },
    take: done,
};
const OPENDIR: Step = Step {
    ask: |state| ask(op::OPENDIR, state.node, Bytes::new().i32(0).u32(0), 16),
    take: |state, reply| (state.opened, state.offset) = (word(expect(reply), 0), 0),
};
const READDIRPLUS: Step = Step {
    ask: |state| {
        let size = u32::try_from(LISTING_ROOM).expect("a request");
        let body = Bytes::new().u64(state.opened).u64(state.offset).u32(size);
        let body = body.u32(0).u64(0).i32(0).u32(0);
        ask(op::READDIRPLUS, state.node, body, LISTING_ROOM)
    },
    take: |state, reply| {
        let entries = parse_dirents(expect(reply), true);
        state.done += u64_of(entries.len());
        if let Some(last) = entries.last() {
            (state.offset, state.again) = (last.offset, true);
        }
    },
};
const RELEASEDIR: Step = Step {
    ask: |state| release(op::RELEASEDIR, state.node, state.opened),
    take: done,
};
const STATFS: Step = Step {
    ask: |state| ask(op::STATFS, state.dir, Bytes::new(), 80),
    take: done,
};
const SETATTR: Step = Step {
    ask: |state| {
        let mode = 0o100_600 + u32::from(state.turn.is_multiple_of(2)) * 0o44;
        let body = Bytes::new().u32(SETATTR_MODE).u32(0).raw(&[0; 56]);
        let body = body.u32(0).u32(mode).raw(&[0; 16]);
        ask(op::SETATTR, by_turn(state), body, ATTR_OUT)
    },
    take: done,
};

fn rename(state: &State, from: &str, to: &str) -> Ask {
    let names = Bytes::new().u64(state.dir).u32(0).u32(0);
    let body = names.name(from.as_bytes()).name(to.as_bytes());
    ask(op::RENAME2, state.dir, body, 0)
}

const RENAME_AWAY: Step = Step {
    ask: |state| rename(state, "moving", "moved"),
    take: |state, reply| {
        expect(reply);
        state.done += 1;
    },
};
const RENAME_BACK: Step = Step {
    ask: |state| rename(state, "moved", "moving"),
    take: |state, reply| {
        expect(reply);
        state.done += 1;
    },
};
const READLINK: Step = Step {
    ask: |state| ask(op::READLINK, state.node, Bytes::new(), 4096),
    take: done,
};
const GETXATTR: Step = Step {
    ask: |state| {
        let body = Bytes::new().u32(256).u32(0).name(b"user.bench");
        ask(op::GETXATTR, by_turn(state), body, 256)
    },
    take: done,
};
