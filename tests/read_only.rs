//! What: a share that is served with `--readonly`, over a real socket.
//!
//! Whatever the guest sends, the host's tree is the same before and after, down to change times;
//! and what is refused grants nothing: no node and no handle stays behind.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

use common::client::Client;
use common::oracle::Oracle;
use common::request::{Bytes, ROOT, SetAttr, op};
use common::session::xattr_len;
use common::session_data::At;
use common::share::{Share, TreeState, tree_state};
use common::sys;
use common::templates::{Things, WITHOUT_REPLY, templates};

const REG: u32 = libc::S_IFREG;

/// Room for the reply to anything.
const ROOM: usize = 4096;

/// Refused whatever their arguments are.
const CHANGING: [u32; 16] = [
    op::SETATTR,
    op::SYMLINK,
    op::MKNOD,
    op::MKDIR,
    op::UNLINK,
    op::RMDIR,
    op::RENAME,
    op::RENAME2,
    op::LINK,
    op::TMPFILE,
    op::WRITE,
    op::FALLOCATE,
    op::COPY_FILE_RANGE,
    op::COPY_FILE_RANGE_64,
    op::SETXATTR,
    op::REMOVEXATTR,
];

/// A share with something of every type, and what it looks like.
fn furnished() -> (Share, TreeState) {
    let share = Share::new();
    let file = share.write("file", &[7; 4096]);
    share.write("other", b"other");
    share.mkdir("dir");
    share.write("dir/inner", b"inner");
    symlink("file", share.at("link")).expect("a fresh directory");
    sys::mknod(&share.at("fifo"), libc::S_IFIFO | 0o666, 0).expect("a fresh directory");
    let xattr = sys::set_xattr(&file, c"user.x", b"value");
    xattr.expect("the host's file system has extended attributes");
    let before = tree_state(&share.path());
    (share, before)
}

fn read_only(share: &Share) -> Client {
    Client::with_args(share, &["--readonly", "--xattr"])
}

fn unchanged(share: &Share, before: &TreeState, case: &str) {
    assert_eq!(&tree_state(&share.path()), before, "{case}");
    share.assert_outside_unchanged();
}

#[test]
fn every_operation_leaves_the_host_as_it_was() {
    let (share, before) = furnished();
    let mut client = read_only(&share);
    let file = client.node("file");
    let things = Things {
        file,
        fh: client.open(file, libc::O_RDONLY).unwrap().fh,
        dir_fh: client.opendir(ROOT).unwrap().fh,
        link: client.node("link"),
    };
    let mut sent = Vec::new();
    let mut all = templates(things, client.flags);
    let lock = |kind: u32, lock_type: u32| {
        let range = Bytes::new().u64(things.fh).u64(9).u64(0).u64(10);
        range.u32(lock_type).u32(77).u32(kind).u32(0).done()
    };
    let ioctl = |command: u32| {
        let fixed = Bytes::new().u64(things.fh).u32(0).u32(command).u64(0);
        fixed.u32(8).u32(8).u64(0x10).done()
    };
    all.extend([
        (op::STATFS, ROOT, Vec::new()),
        (op::SYNCFS, ROOT, vec![0; 8]),
        (op::READLINK, things.link, Vec::new()),
        (op::GETLK, file, lock(0, 1)),
        (op::SETLK, file, lock(0, 0)),
        (op::SETLK, file, lock(0, 2)),
        (op::SETLKW, file, lock(1, 1)),
        (op::SETLKW, file, lock(1, 2)),
        (op::IOCTL, file, ioctl(0x8008_6601)),
        (op::IOCTL, file, ioctl(0x4008_6602)),
        (op::IOCTL, file, ioctl(0x5401)),
        (op::BMAP, file, vec![0; 16]),
        (op::POLL, file, vec![0; 24]),
    ]);
    for (opcode, node, body) in all {
        sent.push(opcode);
        let case = format!("opcode {opcode}");
        let (message, unique) = client.message(opcode, node, &body);
        if WITHOUT_REPLY.contains(&opcode) {
            assert_eq!(client.send_raw(&message, 0).used_len, 0, "{case}");
        } else {
            let completion = client.send_raw(&message, ROOM);
            let reply = client.decode(opcode, unique, &completion);
            // OPEN comes with O_RDWR, CREATE with O_RDWR too.
            let refused = CHANGING.contains(&opcode) || [op::OPEN, op::CREATE].contains(&opcode);
            let is_erofs = reply == Err(libc::EROFS);
            if opcode != op::IOCTL {
                assert_eq!(is_erofs, refused, "{case}: {reply:?}");
            }
        }
        unchanged(&share, &before, &case);
    }
    let missing = CHANGING.iter().find(|opcode| !sent.contains(opcode));
    assert_eq!(missing, None, "an operation was not tried");
    assert!(client.shut_down().success());
}

#[test]
fn what_only_reads_works_as_ever() {
    let (share, before) = furnished();
    let mut client = read_only(&share);
    let file = client.node("file");
    let fh = client.open(file, libc::O_RDONLY).unwrap().fh;
    let at = At {
        node: file,
        fh,
        offset: 4090,
    };
    assert_eq!(client.read(at, 100).unwrap(), [7; 6]);
    client.flush(file, fh).unwrap();
    client.fsync(file, fh).unwrap();
    client.release(file, fh).unwrap();
    assert_eq!(client.getattr(file, None).unwrap().attr.size, 4096);
    let link = client.node("link");
    assert_eq!(client.readlink(link, 100).unwrap(), b"file");
    assert_eq!(client.getxattr(file, "user.x", 100).unwrap(), b"value");
    let len = client.getxattr(file, "user.x", 0).unwrap();
    assert_eq!(xattr_len(&len), 5);
    assert!(
        client
            .listxattr(file, 100)
            .unwrap()
            .starts_with(b"user.x\0")
    );
    for mask in [0, 1, 4, 5] {
        let root = client.access(ROOT, mask);
        assert_eq!(root, Ok(()), "{mask}");
    }
    let fh = client.opendir(ROOT).unwrap().fh;
    let directory = At {
        node: ROOT,
        fh,
        offset: 0,
    };
    let listed = client.readdir_once(directory, 4096, true).unwrap();
    assert_eq!(listed.len(), 7);
    client.releasedir(ROOT, fh).unwrap();
    client.syncfs(ROOT).unwrap();
    client.statfs(ROOT).unwrap();
    unchanged(&share, &before, "reading");
}

#[test]
fn open_for_writing_or_emptying_is_erofs_and_leaves_nothing_open() {
    let (share, before) = furnished();
    let mut client = read_only(&share);
    let file = client.node("file");
    let oracle = client.oracle();
    for flags in [
        libc::O_WRONLY,
        libc::O_RDWR,
        3,
        libc::O_RDWR | libc::O_APPEND,
        libc::O_TRUNC,
        libc::O_RDWR | libc::O_TRUNC,
    ] {
        assert_eq!(client.open(file, flags), Err(libc::EROFS), "{flags:#o}");
    }
    client.assert_sound(&oracle, "refused opens");
    for flags in [libc::O_RDONLY, libc::O_APPEND, libc::O_CREAT | libc::O_EXCL] {
        let fh = client.open(file, flags).unwrap().fh;
        let at = At {
            node: file,
            fh,
            offset: 0,
        };
        assert_eq!(client.write(at, b"no"), Err(libc::EROFS), "{flags:#o}");
        client.release(file, fh).unwrap();
    }
    // Set-id bits are not cleared either, whatever goes along with the request.
    let opened = client.open_with(file, libc::O_RDONLY, 1).unwrap();
    client.release(file, opened.fh).unwrap();
    client.assert_sound(&oracle, "opens");
    unchanged(&share, &before, "opens");
}

/// CREATE of a name that the guest has not looked up: what it says, and that a refusal leaves no
/// node behind, whose descriptor would be seen.
fn create(client: &mut Client, oracle: &Oracle, name: &str, flags: i32) -> Result<Vec<u8>, i32> {
    let case = format!("CREATE {name} {flags:#o}");
    let reply = client.create(ROOT, name, REG | 0o644, flags | libc::O_CREAT);
    let read = reply.map(|(entry, opened)| {
        let at = At {
            node: entry.node,
            fh: opened.fh,
            offset: 0,
        };
        let contents = client.read(at, 10).expect("READ of an open file");
        assert_eq!(client.write(at, b"no"), Err(libc::EROFS), "{case}");
        let released = client.release(entry.node, opened.fh);
        released.expect("RELEASE of an open file");
        client.forget(entry.node, 1);
        contents
    });
    client.assert_sound(oracle, &case);
    read
}

#[test]
fn create_opens_what_is_there_for_reading_and_makes_nothing() {
    let (share, before) = furnished();
    let mut client = read_only(&share);
    let oracle = client.oracle();
    let excl = libc::O_EXCL;
    let cases = [
        ("other", 0, Ok(b"other".to_vec())),
        ("other", libc::O_NONBLOCK, Ok(b"other".to_vec())),
        ("missing", 0, Err(libc::EROFS)),
        ("missing", excl, Err(libc::EROFS)),
        ("dir", 0, Err(libc::EISDIR)),
        ("link", 0, Err(libc::ELOOP)),
        ("fifo", 0, Err(libc::ENXIO)),
    ];
    for (name, flags, expected) in cases {
        assert_eq!(
            create(&mut client, &oracle, name, flags),
            expected,
            "{name}"
        );
    }
    for access in [libc::O_WRONLY, libc::O_RDWR, libc::O_TRUNC, 3] {
        for name in ["other", "missing", "dir"] {
            let plain = create(&mut client, &oracle, name, access);
            assert_eq!(plain, Err(libc::EROFS), "{name} {access:#o}");
            let expected = match name {
                "missing" => libc::EROFS,
                _ => libc::EEXIST,
            };
            let exclusive = create(&mut client, &oracle, name, access | excl);
            assert_eq!(exclusive, Err(expected), "{name} {access:#o}");
        }
    }
    for name in ["other", "link", "fifo"] {
        let exclusive = create(&mut client, &oracle, name, excl);
        assert_eq!(exclusive, Err(libc::EEXIST), "{name}");
    }
    unchanged(&share, &before, "creates");
}

#[test]
fn create_for_a_caller_without_the_right_to_read_is_eacces() {
    if !common::is_root_or_skip("create_for_a_caller_without_the_right_to_read_is_eacces") {
        return;
    }
    let (share, _) = furnished();
    fs::set_permissions(share.at("other"), Permissions::from_mode(0o600)).unwrap();
    let before = tree_state(&share.path());
    let mut client = read_only(&share);
    let oracle = client.oracle();
    client.uid = 1000;
    client.gid = 1000;
    let refused = create(&mut client, &oracle, "other", 0);
    assert_eq!(refused, Err(libc::EACCES));
    unchanged(&share, &before, "creates");
}

#[test]
fn access_for_writing_is_erofs() {
    let (share, _) = furnished();
    let mut client = read_only(&share);
    let file = client.node("file");
    for mask in [2, 3, 6, 7] {
        assert_eq!(client.access(file, mask), Err(libc::EROFS), "{mask}");
    }
    assert_eq!(client.access(file, 4), Ok(()));
}

#[test]
fn every_change_of_attributes_is_erofs() {
    let (share, before) = furnished();
    let mut client = read_only(&share);
    let file = client.node("file");
    for bit in 0..12 {
        let changes = SetAttr {
            valid: 1 << bit,
            size: 4096,
            mode: REG | 0o644,
            ..SetAttr::default()
        };
        assert_eq!(client.setattr(file, &changes), Err(libc::EROFS), "{bit}");
    }
    let nothing = client.setattr(file, &SetAttr::default());
    assert_eq!(nothing, Err(libc::EROFS));
    unchanged(&share, &before, "SETATTR");
}

#[test]
fn a_new_mount_is_read_only_as_well() {
    let (share, before) = furnished();
    let mut client = read_only(&share);
    client.destroy().unwrap();
    client.init();
    assert_eq!(client.mkdir(ROOT, "new", 0o755), Err(libc::EROFS));
    client.init();
    assert_eq!(client.unlink(ROOT, "file"), Err(libc::EROFS));
    unchanged(&share, &before, "a second and third INIT");
}
