//! What: extended attributes over a real socket, with and without `--xattr`.

mod common;

use common::client::Client;
use common::request::{Bytes, ROOT, init, op};
use common::session::xattr_len;
use common::share::Share;
use common::sys;

const CREATE: u32 = 1;
const REPLACE: u32 = 2;

fn mounted(share: &Share) -> (Client, u64) {
    share.write("file", b"");
    let mut client = Client::with_args(share, &["--xattr"]);
    let node = client.node("file");
    (client, node)
}

#[test]
fn every_operation_answers_enosys_without_the_option() {
    let share = Share::new();
    share.write("file", b"");
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("file");
    assert_eq!(client.setxattr(node, "user.x", b"v", 0), Err(libc::ENOSYS));
    assert_eq!(client.getxattr(node, "user.x", 100), Err(libc::ENOSYS));
    assert_eq!(client.getxattr(node, "user.x", 0), Err(libc::ENOSYS));
    assert_eq!(client.listxattr(node, 100), Err(libc::ENOSYS));
    assert_eq!(client.removexattr(node, "user.x"), Err(libc::ENOSYS));
}

#[test]
fn set_get_list_and_remove_agree_with_the_host() {
    let share = Share::new();
    let (mut client, node) = mounted(&share);
    client.setxattr(node, "user.one", b"value", 0).unwrap();
    client.setxattr(node, "user.two", b"", 0).unwrap();
    let host = sys::get_xattr(&share.at("file"), c"user.one").unwrap();
    assert_eq!(host, b"value");
    assert_eq!(client.getxattr(node, "user.one", 100).unwrap(), b"value");
    assert_eq!(client.getxattr(node, "user.two", 100).unwrap(), b"");
    assert_eq!(xattr_len(&client.getxattr(node, "user.one", 0).unwrap()), 5);
    let list = client.listxattr(node, 4096).unwrap();
    let mut names: Vec<&[u8]> = list.split_inclusive(|byte| *byte == 0).collect();
    names.sort();
    assert_eq!(names, [b"user.one\0".as_slice(), b"user.two\0"]);
    assert_eq!(xattr_len(&client.listxattr(node, 0).unwrap()), 18);
    client.removexattr(node, "user.one").unwrap();
    assert_eq!(client.getxattr(node, "user.one", 100), Err(libc::ENODATA));
}

#[test]
fn setxattr_flags_create_and_replace_are_kept() {
    let share = Share::new();
    let (mut client, node) = mounted(&share);
    let missing = client.setxattr(node, "user.x", b"1", REPLACE);
    assert_eq!(missing, Err(libc::ENODATA));
    client.setxattr(node, "user.x", b"1", CREATE).unwrap();
    let there = client.setxattr(node, "user.x", b"2", CREATE);
    assert_eq!(there, Err(libc::EEXIST));
    client.setxattr(node, "user.x", b"3", REPLACE).unwrap();
    assert_eq!(client.getxattr(node, "user.x", 10).unwrap(), b"3");
    let unknown = client.setxattr(node, "user.x", b"4", 0xff00);
    assert_eq!(unknown, Err(libc::EINVAL));
}

#[test]
fn getxattr_into_too_little_room_returns_erange() {
    let share = Share::new();
    let (mut client, node) = mounted(&share);
    client.setxattr(node, "user.x", b"0123456789", 0).unwrap();
    assert_eq!(client.getxattr(node, "user.x", 9), Err(libc::ERANGE));
    assert_eq!(client.listxattr(node, 3), Err(libc::ERANGE));
}

#[test]
fn what_is_not_there_returns_enodata_and_unknown_nodes_ebadf() {
    let share = Share::new();
    let (mut client, node) = mounted(&share);
    assert_eq!(client.getxattr(node, "user.no", 10), Err(libc::ENODATA));
    assert_eq!(client.removexattr(node, "user.no"), Err(libc::ENODATA));
    assert_eq!(client.getxattr(4711, "user.x", 10), Err(libc::EBADF));
    assert_eq!(client.setxattr(4711, "user.x", b"", 0), Err(libc::EBADF));
    assert_eq!(client.listxattr(4711, 10), Err(libc::EBADF));
    assert_eq!(client.removexattr(4711, "user.x"), Err(libc::EBADF));
}

#[test]
fn directories_have_attributes_too() {
    let share = Share::new();
    let (mut client, _) = mounted(&share);
    client.setxattr(ROOT, "user.root", b"yes", 0).unwrap();
    assert_eq!(client.getxattr(ROOT, "user.root", 10).unwrap(), b"yes");
    let host = sys::get_xattr(&share.path(), c"user.root").unwrap();
    assert_eq!(host, b"yes");
}

#[test]
fn trusted_attributes_of_links_and_fifos_do_not_touch_other_files() {
    if !common::is_root_or_skip("trusted_attributes_of_links_and_fifos") {
        return;
    }
    let share = Share::new();
    std::os::unix::fs::symlink("../outside/victim", share.at("link")).unwrap();
    sys::mknod(&share.at("fifo"), libc::S_IFIFO | 0o644, 0).unwrap();
    let (mut client, _) = mounted(&share);
    for name in ["link", "fifo"] {
        let node = client.node(name);
        if client.setxattr(node, "trusted.x", b"v", 0) == Err(libc::EPERM) {
            eprintln!("skipped trusted_attributes: the daemon runs without CAP_SYS_ADMIN");
            return;
        }
        assert_eq!(client.getxattr(node, "trusted.x", 10).unwrap(), b"v");
        let host = sys::get_xattr(&share.at(name), c"trusted.x").unwrap();
        assert_eq!(host, b"v", "{name}");
        client.removexattr(node, "trusted.x").unwrap();
    }
    assert!(sys::get_xattr(&share.outside().join("victim"), c"trusted.x").is_err());
}

#[test]
fn values_of_64_kib_pass_and_larger_ones_do_not() {
    let share = Share::new();
    let (mut client, node) = mounted(&share);
    // ext4 takes far less than the 64 KiB of the kernel's own limit: either answer is the host's.
    let result = client.setxattr(node, "user.big", &vec![7; 65_536], 0);
    assert!(
        matches!(result, Ok(()) | Err(libc::ENOSPC | libc::E2BIG)),
        "{result:?}"
    );
    let result = client.setxattr(node, "user.big", &vec![7; 65_537], 0);
    assert!(
        matches!(result, Err(libc::E2BIG | libc::EINVAL)),
        "{result:?}"
    );
}

#[test]
fn sizes_that_disagree_with_the_message_are_refused() {
    let share = Share::new();
    let (mut client, node) = mounted(&share);
    let oracle = client.oracle();
    let ext = client.flags & init::SETXATTR_EXT != 0;
    for size in [6_u32, 1 << 16, 1 << 31, u32::MAX] {
        let mut body = Bytes::new().u32(size).u32(0);
        if ext {
            body = body.u64(0);
        }
        let body = body.name(b"user.x").raw(b"value").done();
        let result = client.plain(op::SETXATTR, node, &body);
        assert!(
            matches!(result, Err(libc::EINVAL | libc::E2BIG | libc::ERANGE)),
            "size {size}: {result:?}"
        );
        for opcode in [op::GETXATTR, op::LISTXATTR] {
            let mut body = Bytes::new().u32(size).u32(0);
            if opcode == op::GETXATTR {
                body = body.name(b"user.x");
            }
            let result = client.call(opcode, node, &body.done(), 4);
            assert!(result.is_err(), "opcode {opcode} size {size}: {result:?}");
        }
    }
    client.assert_sound(&oracle, "wrong xattr sizes");
}

#[test]
fn names_that_are_none_are_refused() {
    let share = Share::new();
    let (mut client, node) = mounted(&share);
    for name in ["", "nodot", &"user.".repeat(60)] {
        let result = client.setxattr(node, name, b"v", 0);
        assert!(result.is_err(), "{name}: {result:?}");
        let result = client.getxattr(node, name, 10);
        assert!(result.is_err(), "{name}: {result:?}");
    }
}
