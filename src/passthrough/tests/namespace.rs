//! MKDIR, MKNOD, SYMLINK, LINK, UNLINK, RMDIR, RENAME, READLINK.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use super::share::{
    Guest, NO_NODE, NOTHING_LEFT, ROOT, caller, file_name, is_root_or_says_why_not, keep,
    new_object,
};
use crate::fs::filesystem::{FileSystem, NewObject, RenameRequest};
use crate::fs::types::NodeId;
use crate::sys::errno::Errno;

fn rename_request<'a>(
    name: &'a std::ffi::CStr,
    new_name: &'a std::ffi::CStr,
    flags: u32,
) -> RenameRequest<'a> {
    RenameRequest {
        parent: ROOT,
        name: file_name(name),
        new_parent: ROOT,
        new_name: file_name(new_name),
        flags,
    }
}

#[test]
fn mkdir_makes_a_directory_with_its_mode() {
    let guest = Guest::new();
    let entry = guest.fs.mkdir(&new_object(c"dir"), 0o040_777).unwrap();
    assert_eq!(entry.attr.mode, 0o040_777);
    let host = fs::metadata(guest.share.join("dir")).unwrap();
    assert_eq!(host.mode(), 0o040_777);
    assert_eq!(entry.attr.ino, host.ino());
    drop(entry);
    let again = guest.fs.mkdir(&new_object(c"dir"), 0o777);
    assert_eq!(again.unwrap_err(), Errno::EEXIST);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn making_operations_refuse_wrong_parents_and_callers() {
    let guest = Guest::new();
    guest.share.write("file", b"");
    let file = guest.lookup(ROOT, c"file");
    let nobody = NewObject {
        caller: caller(0, u32::MAX),
        ..new_object(c"new")
    };
    let at = |parent: NodeId| NewObject {
        parent,
        ..new_object(c"new")
    };
    for (new, errno) in [
        (at(file), Errno::ENOTDIR),
        (at(NO_NODE), Errno::EBADF),
        (nobody, Errno::EOVERFLOW),
    ] {
        assert_eq!(guest.fs.mkdir(&new, 0o755).unwrap_err(), errno);
        assert_eq!(guest.fs.mknod(&new, 0o100_644, 0).unwrap_err(), errno);
        assert_eq!(guest.fs.symlink(&new, c"target").unwrap_err(), errno);
    }
    assert_eq!(fs::read_dir(guest.share.path()).unwrap().count(), 1);
    guest.forget(file);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn mknod_makes_each_type() {
    let guest = Guest::new();
    for (name, mode, made) in [
        (c"plain", 0o000_640, 0o100_640),
        (c"file", 0o100_600, 0o100_600),
        (c"fifo", 0o010_666, 0o010_666),
        (c"socket", 0o140_755, 0o140_755),
    ] {
        let entry = guest.fs.mknod(&new_object(name), mode, 0).unwrap();
        assert_eq!(entry.attr.mode, made, "{name:?}");
    }
    for (mode, errno) in [
        (0o040_755, Errno::EPERM),
        (0o120_777, Errno::EINVAL),
        (0o170_000, Errno::EINVAL),
    ] {
        let refused = guest.fs.mknod(&new_object(c"bad"), mode, 0);
        assert_eq!(refused.unwrap_err(), errno, "{mode:o}");
    }
    assert!(!guest.share.join("bad").exists());
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn mknod_of_a_device_keeps_its_number_and_opens_nothing() {
    if !is_root_or_says_why_not("mknod_of_a_device_keeps_its_number_and_opens_nothing") {
        return;
    }
    let guest = Guest::new();
    // Major 1 with a minor beyond 8 bits: nothing answers there.
    let rdev = 0x10_01ff;
    let entry = match guest.fs.mknod(&new_object(c"device"), 0o020_600, rdev) {
        Err(Errno::EPERM) => {
            println!("skipped: no CAP_MKNOD");
            return;
        }
        made => made.unwrap(),
    };
    assert_eq!(entry.attr.mode, 0o020_600);
    assert_eq!(entry.attr.rdev, rdev);
    let node = keep(entry);
    let flags = crate::wire::flags::OpenFlags::empty();
    let opened = guest.fs.open(node, flags, false);
    assert_eq!(opened.unwrap_err(), Errno::ENXIO);
    guest.forget(node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn symlink_and_readlink_keep_the_target_as_it_is() {
    let guest = Guest::new();
    let target = c"../../etc/\xffpasswd";
    let entry = guest.fs.symlink(&new_object(c"link"), target).unwrap();
    let link = keep(entry);
    let len = target.to_bytes().len();
    let mut buf = [0; 64];
    assert_eq!(guest.fs.readlink(link, &mut buf), Ok(len));
    assert_eq!(&buf[..len], target.to_bytes());
    assert_eq!(guest.fs.readlink(link, &mut buf[..len]), Ok(len));
    for short in [0, 1, len - 1] {
        let cut = guest.fs.readlink(link, &mut buf[..short]);
        assert_eq!(cut, Err(Errno::ENAMETOOLONG), "{short}");
    }
    assert_eq!(guest.fs.readlink(ROOT, &mut buf), Err(Errno::EINVAL));
    assert_eq!(guest.fs.readlink(NO_NODE, &mut buf), Err(Errno::EBADF));
    let empty = guest.fs.symlink(&new_object(c"empty"), c"");
    assert_eq!(empty.unwrap_err(), Errno::ENOENT);
    guest.forget(link);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn link_gives_the_same_node_one_more_name() {
    let guest = Guest::new();
    guest.share.write("file", b"");
    symlink("nowhere", guest.share.join("soft")).unwrap();
    for (name, new_name) in [(c"file", c"file2"), (c"soft", c"soft2")] {
        let node = guest.lookup(ROOT, name);
        let entry = guest.fs.link(node, ROOT, file_name(new_name)).unwrap();
        assert_eq!(entry.lookup.node(), node, "{name:?}");
        assert_eq!(entry.attr.nlink, 2, "{name:?}");
        drop(entry);
        assert_eq!(guest.lookup(ROOT, new_name), node, "{name:?}");
        guest.fs.forget(node, 2);
    }
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn link_errors_leave_nothing() {
    let guest = Guest::new();
    guest.share.write("file", b"");
    guest.share.write("taken", b"");
    let file = guest.lookup(ROOT, c"file");
    let error = |node, parent, name| guest.fs.link(node, parent, file_name(name)).unwrap_err();
    assert_eq!(error(file, ROOT, c"taken"), Errno::EEXIST);
    assert_eq!(error(file, file, c"new"), Errno::ENOTDIR);
    assert_eq!(error(ROOT, ROOT, c"new"), Errno::EPERM);
    assert_eq!(error(NO_NODE, ROOT, c"new"), Errno::EBADF);
    assert_eq!(error(file, NO_NODE, c"new"), Errno::EBADF);
    guest.forget(file);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn unlink_and_rmdir_remove_their_own_kind() {
    let guest = Guest::new();
    guest.share.write("file", b"");
    symlink("../canary", guest.share.join("link")).unwrap();
    fs::create_dir_all(guest.share.join("dir/full")).unwrap();
    let unlink = |parent, name| guest.fs.unlink(parent, file_name(name));
    let rmdir = |parent, name| guest.fs.rmdir(parent, file_name(name));
    assert_eq!(unlink(ROOT, c"dir"), Err(Errno::EISDIR));
    assert_eq!(rmdir(ROOT, c"file"), Err(Errno::ENOTDIR));
    assert_eq!(rmdir(ROOT, c"dir"), Err(Errno::ENOTEMPTY));
    assert_eq!(unlink(ROOT, c"none"), Err(Errno::ENOENT));
    assert_eq!(rmdir(ROOT, c"none"), Err(Errno::ENOENT));
    assert_eq!(unlink(NO_NODE, c"file"), Err(Errno::EBADF));
    assert_eq!(rmdir(NO_NODE, c"dir"), Err(Errno::EBADF));
    let dir = guest.lookup(ROOT, c"dir");
    assert_eq!(unlink(ROOT, c"file"), Ok(()));
    assert_eq!(unlink(ROOT, c"link"), Ok(()));
    assert_eq!(rmdir(dir, c"full"), Ok(()));
    assert_eq!(rmdir(ROOT, c"dir"), Ok(()));
    // The guest may still hold the directory: it is empty and stays so.
    let made = NewObject {
        parent: dir,
        ..new_object(c"new")
    };
    assert_eq!(guest.fs.mkdir(&made, 0o755).unwrap_err(), Errno::ENOENT);
    assert_eq!(fs::read_dir(guest.share.path()).unwrap().count(), 0);
    guest.forget(dir);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn rename_moves_replaces_and_exchanges() {
    let guest = Guest::new();
    guest.share.write("a", b"a");
    guest.share.write("b", b"b");
    let (a, b) = (guest.lookup(ROOT, c"a"), guest.lookup(ROOT, c"b"));
    let rename = |flags| guest.fs.rename(&rename_request(c"a", c"b", flags));
    assert_eq!(rename(1), Err(Errno::EEXIST));
    assert_eq!(rename(2), Ok(()));
    assert_eq!((guest.lookup(ROOT, c"a"), guest.lookup(ROOT, c"b")), (b, a));
    assert_eq!(rename(0), Ok(()));
    assert_eq!(guest.lookup(ROOT, c"b"), b);
    assert_eq!(rename(0), Err(Errno::ENOENT));
    assert_eq!(guest.fs.getattr(a, None).unwrap().attr.nlink, 0);
    for flags in [8, 1 << 31, u32::MAX] {
        assert_eq!(rename(flags), Err(Errno::EINVAL), "{flags:#x}");
    }
    guest.fs.forget(a, 2);
    guest.fs.forget(b, 3);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn rename_between_directories_keeps_open_files() {
    let guest = Guest::new();
    fs::create_dir(guest.share.join("dir")).unwrap();
    let open = guest.create(c"file");
    guest.write(open, 0, b"moved").unwrap();
    let dir = guest.lookup(ROOT, c"dir");
    let request = RenameRequest {
        new_parent: dir,
        ..rename_request(c"file", c"there", 0)
    };
    guest.fs.rename(&request).unwrap();
    assert_eq!(guest.lookup(dir, c"there"), open.node);
    assert_eq!(guest.read(open, 0, 9).unwrap(), b"moved");
    let into_itself = RenameRequest {
        new_parent: dir,
        ..rename_request(c"dir", c"inner", 0)
    };
    assert_eq!(guest.fs.rename(&into_itself), Err(Errno::EINVAL));
    guest.forget(open.node);
    guest.forget(dir);
    guest.close(open);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn rename_with_whiteout_leaves_a_device_behind() {
    if !is_root_or_says_why_not("rename_with_whiteout_leaves_a_device_behind") {
        return;
    }
    let guest = Guest::new();
    guest.share.write("a", b"a");
    match guest.fs.rename(&rename_request(c"a", c"b", 4)) {
        Err(errno @ (Errno::EINVAL | Errno::EPERM)) => println!("skipped: whiteout gives {errno}"),
        done => {
            done.unwrap();
            let host = fs::symlink_metadata(guest.share.join("a")).unwrap();
            assert_eq!((host.mode() & 0o170_000, host.rdev()), (0o020_000, 0));
        }
    }
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}
