//! What: a well-formed request of every operation, for tests that damage them.
//!
//! In: a file and a directory in use. Out: opcode, node and body of each operation, in an order
//! in which they succeed one after the other.

use super::client::Client;
use super::request::{Bytes, ROOT, SetAttr, init, op};
use super::session_data::{At, CopyRange, read_body, write_body};

/// Replies to these would answer nobody.
pub(crate) const WITHOUT_REPLY: [u32; 3] = [op::FORGET, op::INTERRUPT, op::BATCH_FORGET];
const REG: u32 = libc::S_IFREG;

/// Opcode, node and body.
pub(crate) type Template = (u32, u64, Vec<u8>);

/// What requests refer to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Things {
    pub(crate) file: u64,
    pub(crate) fh: u64,
    pub(crate) dir_fh: u64,
    pub(crate) link: u64,
}

/// Makes `file`, opens it and the root, and looks `link` up, which must be there.
pub(crate) fn open_things(client: &mut Client) -> Things {
    let (file, fh) = client.make_file(ROOT, "file", &[7; 4096]);
    let dir_fh = client.opendir(ROOT).expect("OPENDIR of the root").fh;
    let link = client.node("link");
    Things {
        file,
        fh,
        dir_fh,
        link,
    }
}

/// A well-formed body of every operation that has one; `flags` is what INIT settled.
pub(crate) fn templates(things: Things, flags: u64) -> Vec<Template> {
    let mut all = on_names(things);
    all.extend(on_open_files(things));
    all.extend(on_the_rest(things, flags));
    all
}

fn new_file(name: &[u8]) -> Vec<u8> {
    let bytes = Bytes::new().i32(libc::O_RDWR).u32(REG | 0o600).u64(0);
    bytes.name(name).done()
}

fn on_names(things: Things) -> Vec<Template> {
    let new = Bytes::new;
    let mknod = new().u32(REG | 0o600).raw(&[0; 12]).name(b"nod");
    let mkdir = new().u32(0o755).u32(0).name(b"dir");
    let rename = new().u64(ROOT).name(b"sym").name(b"sym2");
    let rename2 = new().u64(ROOT).u64(0).name(b"sym2").name(b"sym");
    vec![
        (op::LOOKUP, ROOT, new().name(b"file").done()),
        (op::SYMLINK, ROOT, new().name(b"sym").name(b"to").done()),
        (op::MKNOD, ROOT, mknod.done()),
        (op::MKDIR, ROOT, mkdir.done()),
        (op::UNLINK, ROOT, new().name(b"nod").done()),
        (op::RMDIR, ROOT, new().name(b"dir").done()),
        (op::RENAME, ROOT, rename.done()),
        (op::RENAME2, ROOT, rename2.done()),
        (op::LINK, ROOT, new().u64(things.file).name(b"hard").done()),
        (op::CREATE, ROOT, new_file(b"created")),
        (op::TMPFILE, ROOT, new_file(b"/")),
    ]
}

fn on_open_files(things: Things) -> Vec<Template> {
    let Things { file, fh, .. } = things;
    let at = At {
        node: file,
        fh,
        offset: 0,
    };
    let copy = CopyRange {
        from: at,
        to: At { offset: 8192, ..at },
        len: 100,
        flags: 0,
    };
    let fallocate = Bytes::new().u64(fh).u64(0).u64(8192).u64(0);
    let lseek = Bytes::new().u64(fh).u64(0).i32(libc::SEEK_HOLE).u32(0);
    vec![
        (op::GETATTR, file, Bytes::new().u64(1).u64(fh).done()),
        (op::OPEN, file, Bytes::new().i32(libc::O_RDWR).u32(0).done()),
        (op::READ, file, read_body(at, 100, 0)),
        (op::WRITE, file, write_body(at, b"written", 0, 0)),
        (op::RELEASE, file, handle(4711)),
        (op::FSYNC, file, Bytes::new().u64(fh).u64(1).done()),
        (op::FLUSH, file, handle(fh)),
        (op::FALLOCATE, file, fallocate.done()),
        (op::LSEEK, file, lseek.done()),
        (op::COPY_FILE_RANGE, file, copy.body()),
        (op::COPY_FILE_RANGE_64, file, copy.body()),
    ]
}

fn handle(fh: u64) -> Vec<u8> {
    Bytes::new().u64(fh).raw(&[0; 16]).done()
}

fn on_the_rest(things: Things, flags: u64) -> Vec<Template> {
    let Things { file, dir_fh, .. } = things;
    let dir_at = At {
        node: ROOT,
        fh: dir_fh,
        offset: 0,
    };
    let mut setxattr = Bytes::new().u32(5).u32(0);
    if flags & init::SETXATTR_EXT != 0 {
        setxattr = setxattr.u64(0);
    }
    let setxattr = setxattr.name(b"user.x").raw(b"value");
    let setattr = SetAttr {
        valid: 1 << 3,
        size: 5000,
        ..SetAttr::default()
    };
    let batch = Bytes::new().u64(2).u64(4711).u64(1).u64(4712).u64(1);
    let statx = Bytes::new().raw(&[0; 16]).u32(0).u32(0xfff);
    vec![
        (op::FORGET, 4711, Bytes::new().u64(1).done()),
        (op::SETATTR, file, setattr.body()),
        (op::SETXATTR, file, setxattr.done()),
        (
            op::GETXATTR,
            file,
            Bytes::new().u64(100).name(b"user.x").done(),
        ),
        (op::LISTXATTR, file, Bytes::new().u64(100).done()),
        (op::REMOVEXATTR, file, Bytes::new().name(b"user.x").done()),
        (op::OPENDIR, ROOT, Bytes::new().u64(0).done()),
        (op::READDIR, ROOT, read_body(dir_at, 500, 0)),
        (op::READDIRPLUS, ROOT, read_body(dir_at, 500, 0)),
        (op::RELEASEDIR, ROOT, handle(4711)),
        (op::FSYNCDIR, ROOT, Bytes::new().u64(dir_fh).u64(1).done()),
        (op::ACCESS, file, Bytes::new().u64(4).done()),
        (op::INTERRUPT, 0, Bytes::new().u64(77).done()),
        (op::BATCH_FORGET, 0, batch.done()),
        (op::STATX, file, statx.done()),
    ]
}
