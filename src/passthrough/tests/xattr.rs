//! SETXATTR, GETXATTR, LISTXATTR, REMOVEXATTR.

use std::ffi::CStr;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;

use super::share::{Guest, NO_NODE, NOTHING_LEFT, ROOT, is_root_or_says_why_not, released};
use crate::fs::filesystem::{FileSystem, SetXattrRequest};
use crate::fs::types::NodeId;
use crate::passthrough::settings::{CachePolicy, Settings};
use crate::sys::errno::Errno;
use crate::sys::thread::FsThread;
use crate::wire::flags::SessionFlags;
use crate::xattr_map::XattrMap;

fn guest_with_xattr() -> Guest {
    Guest::with(Settings {
        xattr: true,
        ..Settings::new(CachePolicy::Auto)
    })
}

fn set(guest: &Guest, node: NodeId, name: &CStr, value: &[u8], flags: u32) -> Result<(), Errno> {
    guest.fs.setxattr(&SetXattrRequest {
        node,
        name,
        value,
        flags,
        kill_sgid: false,
    })
}

#[test]
fn xattr_operations_are_unknown_while_switched_off() {
    let guest = Guest::new();
    let mut buf = [0; 8];
    assert_eq!(set(&guest, ROOT, c"user.a", b"1", 0), Err(Errno::ENOSYS));
    assert_eq!(
        guest.fs.getxattr(ROOT, c"user.a", &mut buf),
        Err(Errno::ENOSYS)
    );
    assert_eq!(guest.fs.listxattr(ROOT, &mut buf), Err(Errno::ENOSYS));
    assert_eq!(guest.fs.removexattr(ROOT, c"user.a"), Err(Errno::ENOSYS));
}

#[test]
fn xattr_of_a_file_that_is_open_is_that_of_its_node() {
    let guest = guest_with_xattr();
    let names = [c"file", c"other"];
    for name in names {
        guest.share.write(name.to_str().unwrap(), b"");
    }
    let nodes = names.map(|name| guest.lookup(ROOT, name));
    for (node, name) in nodes.iter().zip(names) {
        if set(&guest, *node, c"user.a", name.to_bytes(), 0) == Err(Errno::EOPNOTSUPP) {
            println!("skipped: no user xattrs on the file system of the temporary directory");
            return;
        }
    }
    let value_of = |node| {
        let mut buf = [0; 32];
        let len = guest.fs.getxattr(node, c"user.a", &mut buf)?;
        assert_eq!(guest.fs.listxattr(node, &mut []), Ok(7));
        Ok(buf[..len].to_vec())
    };
    for flags in [0, 1, 2] {
        let open = nodes.map(|node| guest.open(node, flags));
        fs::rename(guest.share.join("file"), guest.share.join("moved")).unwrap();
        for (node, name) in nodes.iter().zip(names) {
            assert_eq!(value_of(*node), Ok(name.to_bytes().to_vec()), "{flags}");
        }
        // One handle after the other goes, and what was open last may be open no more.
        let again = guest.open(nodes[0], flags);
        for open in [again, open[0]] {
            guest.fs.release(&released(open)).unwrap();
            assert_eq!(value_of(nodes[0]), Ok(b"file".to_vec()), "{flags}");
        }
        guest.fs.release(&released(open[1])).unwrap();
        fs::rename(guest.share.join("moved"), guest.share.join("file")).unwrap();
    }
    let open = guest.open(nodes[1], 0);
    guest.forget(nodes[1]);
    assert_eq!(
        value_of(nodes[1]),
        Err(Errno::EBADF),
        "the node is forgotten"
    );
    guest.fs.release(&released(open)).unwrap();
    guest.forget(nodes[0]);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn xattr_goes_round_on_files_and_directories() {
    let guest = guest_with_xattr();
    guest.share.write("file", b"");
    let file = guest.lookup(ROOT, c"file");
    if set(&guest, file, c"user.a", b"", 0) == Err(Errno::EOPNOTSUPP) {
        println!("skipped: no user xattrs on the file system of the temporary directory");
        return;
    }
    for node in [file, ROOT] {
        let mut buf = [0; 32];
        assert_eq!(set(&guest, node, c"user.a", b"value", 0), Ok(()));
        assert_eq!(guest.fs.getxattr(node, c"user.a", &mut buf), Ok(5));
        assert_eq!(&buf[..5], b"value");
        assert_eq!(guest.fs.getxattr(node, c"user.a", &mut []), Ok(5));
        let cut = guest.fs.getxattr(node, c"user.a", &mut buf[..4]);
        assert_eq!(cut, Err(Errno::ERANGE));
        assert_eq!(guest.fs.listxattr(node, &mut []), Ok(7));
        assert_eq!(guest.fs.listxattr(node, &mut buf), Ok(7));
        assert_eq!(&buf[..7], b"user.a\0");
        assert_eq!(guest.fs.listxattr(node, &mut buf[..6]), Err(Errno::ERANGE));
        assert_eq!(set(&guest, node, c"user.a", b"x", 1), Err(Errno::EEXIST));
        assert_eq!(set(&guest, node, c"user.b", b"x", 2), Err(Errno::ENODATA));
        assert_eq!(guest.fs.removexattr(node, c"user.a"), Ok(()));
        assert_eq!(guest.fs.removexattr(node, c"user.a"), Err(Errno::ENODATA));
        let gone = guest.fs.getxattr(node, c"user.a", &mut buf);
        assert_eq!(gone, Err(Errno::ENODATA));
    }
    guest.forget(file);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn xattr_limits_and_strangers_are_refused() {
    let guest = guest_with_xattr();
    let long_name = std::ffi::CString::new(format!("user.{}", "n".repeat(300))).unwrap();
    let huge = vec![0; 65_537];
    assert_eq!(set(&guest, ROOT, c"user.a", &huge, 0), Err(Errno::E2BIG));
    assert_eq!(set(&guest, ROOT, c"user.a", b"", 4), Err(Errno::EINVAL));
    assert_eq!(set(&guest, ROOT, &long_name, b"", 0), Err(Errno::ERANGE));
    assert_eq!(set(&guest, ROOT, c"", b"", 0), Err(Errno::ERANGE));
    assert_eq!(
        set(&guest, ROOT, c"nonsense", b"", 0),
        Err(Errno::EOPNOTSUPP)
    );
    assert_eq!(set(&guest, NO_NODE, c"user.a", b"", 0), Err(Errno::EBADF));
    let mut buf = [0; 8];
    assert_eq!(guest.fs.listxattr(NO_NODE, &mut buf), Err(Errno::EBADF));
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn xattr_of_links_and_fifos_is_their_own() {
    if !is_root_or_says_why_not("xattr_of_links_and_fifos_is_their_own") {
        return;
    }
    let guest = guest_with_xattr();
    symlink("../canary", guest.share.join("link")).unwrap();
    let fifo = super::share::new_object(c"fifo");
    let fifo = super::share::keep(guest.fs.mknod(&fifo, 0o010_644, 0).unwrap());
    let link = guest.lookup(ROOT, c"link");
    for node in [link, fifo] {
        // Linux allows user xattrs on files and directories only; trusted ones anywhere.
        assert_eq!(set(&guest, node, c"user.a", b"1", 0), Err(Errno::EPERM));
        match set(&guest, node, c"trusted.a", b"1", 0) {
            Err(errno @ (Errno::EPERM | Errno::EOPNOTSUPP)) => println!("skipped: {errno}"),
            done => {
                done.unwrap();
                let mut buf = [0; 8];
                assert_eq!(guest.fs.getxattr(node, c"trusted.a", &mut buf), Ok(1));
                assert_eq!(guest.fs.listxattr(node, &mut []), Ok(10));
                assert_eq!(guest.fs.removexattr(node, c"trusted.a"), Ok(()));
            }
        }
        guest.forget(node);
    }
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

fn guest_with_map(rules: &[u8]) -> Guest {
    Guest::with(Settings {
        xattr: true,
        xattr_map: Some(XattrMap::parse(rules).unwrap()),
        ..Settings::new(CachePolicy::Auto)
    })
}

/// Sets an attribute on the host, or says that the file system has none.
fn host_has(guest: &Guest, name: &CStr) -> bool {
    let root = crate::sys::open::directory(guest.share.path()).unwrap();
    let thread = FsThread::current(&guest.fs.proc_fd).unwrap();
    let flags = crate::sys::xattr::XattrFlags::empty();
    let set = crate::sys::xattr::set(&thread, root.as_fd(), name, b"host", flags);
    if set == Err(Errno::EOPNOTSUPP) {
        println!("skipped: no user xattrs on the file system of the temporary directory");
    }
    set.is_ok()
}

fn listed(guest: &Guest, room: usize) -> Result<Vec<u8>, Errno> {
    let mut buf = vec![0xee; room];
    let len = guest.fs.listxattr(ROOT, &mut buf)?;
    buf.truncate(len);
    Ok(buf)
}

#[test]
fn xattr_map_renames_both_ways_and_tells_the_length_of_what_is_shown() {
    let guest = guest_with_map(b":map::user.virtiofs.:");
    if !host_has(&guest, c"user.of-the-host") {
        return;
    }
    for name in [c"security.x", c"trusted.y", c"user.z"] {
        assert_eq!(set(&guest, ROOT, name, b"1", 0), Ok(()));
    }
    let mut buf = [0; 16];
    assert_eq!(guest.fs.getxattr(ROOT, c"security.x", &mut buf), Ok(1));
    let hidden = guest.fs.getxattr(ROOT, c"user.of-the-host", &mut buf);
    assert_eq!(hidden, Err(Errno::ENODATA));
    let mut list = listed(&guest, 100).unwrap();
    list.pop();
    let mut names: Vec<&[u8]> = list.split(|byte| *byte == 0).collect();
    names.sort_unstable();
    assert_eq!(names, [&b"security.x"[..], b"trusted.y", b"user.z"]);
    let len = list.len() + 1;
    assert_eq!(guest.fs.listxattr(ROOT, &mut []), Ok(len));
    // Much less room than the host's list takes, and enough for what is shown.
    assert_eq!(listed(&guest, len).map(|list| list.len()), Ok(len));
    assert_eq!(listed(&guest, len - 1), Err(Errno::ERANGE));
    assert_eq!(guest.fs.removexattr(ROOT, c"trusted.y"), Ok(()));
    let long = std::ffi::CString::new(vec![b'n'; 250]).unwrap();
    assert_eq!(set(&guest, ROOT, &long, b"1", 0), Err(Errno::ERANGE));
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn xattr_map_denies_and_does_not_support() {
    let guest = guest_with_map(
        b":bad:all:user.secret:user.secret:\
        :unsupported:all:user.none:user.none::ok:all:::",
    );
    if !host_has(&guest, c"user.secret") || !host_has(&guest, c"user.none") {
        return;
    }
    let mut buf = [0; 16];
    for (name, on_get, on_change) in [
        (c"user.secret", Errno::ENODATA, Errno::EPERM),
        (c"user.none", Errno::EOPNOTSUPP, Errno::EOPNOTSUPP),
    ] {
        assert_eq!(guest.fs.getxattr(ROOT, name, &mut buf), Err(on_get));
        assert_eq!(set(&guest, ROOT, name, b"1", 0), Err(on_change));
        assert_eq!(guest.fs.removexattr(ROOT, name), Err(on_change));
    }
    assert_eq!(listed(&guest, 100), Ok(Vec::new()));
    assert_eq!(guest.fs.listxattr(ROOT, &mut []), Ok(0));
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn acls_do_not_exist_for_a_guest_that_did_not_agree_on_them() {
    let guest = guest_with_xattr();
    if !host_has(&guest, c"user.a") {
        return;
    }
    // Version 2; owner, one user, group, mask, others.
    let acl = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x02\0\x07\0\x01\0\0\0\x04\0\x05\0\
        \xff\xff\xff\xff\x10\0\x07\0\xff\xff\xff\xff\x20\0\x05\0\xff\xff\xff\xff";
    let name = c"system.posix_acl_access";
    guest.mount(SessionFlags::POSIX_ACL);
    match set(&guest, ROOT, name, acl, 0) {
        Err(Errno::EOPNOTSUPP) => println!("skipped: no ACLs here"),
        done => {
            done.unwrap();
            assert_eq!(listed(&guest, 100).unwrap().len(), 24 + 7);
            guest.mount(SessionFlags::empty());
            let mut buf = [0; 64];
            let get = guest.fs.getxattr(ROOT, name, &mut buf);
            assert_eq!(get, Err(Errno::EOPNOTSUPP));
            assert_eq!(set(&guest, ROOT, name, acl, 0), Err(Errno::EOPNOTSUPP));
            let removed = guest.fs.removexattr(ROOT, name);
            assert_eq!(removed, Err(Errno::EOPNOTSUPP));
            assert_eq!(listed(&guest, 7), Ok(b"user.a\0".to_vec()));
            assert_eq!(guest.fs.listxattr(ROOT, &mut []), Ok(7));
        }
    }
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}
