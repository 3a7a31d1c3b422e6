//! OPEN, CREATE, TMPFILE, FLUSH, RELEASE, FSYNC, SYNCFS.

use std::ffi::CStr;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use super::share::{
    Guest, NO_HANDLE, NO_NODE, NOTHING_LEFT, ROOT, Share, caller, create_request, file_name,
    flushed, is_root_or_says_why_not, keep, new_object, own_caller, released,
};
use crate::fs::filesystem::{
    CreateRequest, FileSystem, NewObject, OpenNode, SyncScope, TmpfileRequest,
};
use crate::fs::types::{NodeId, SecurityContexts};
use crate::passthrough::settings::{CachePolicy, Settings};
use crate::sys::errno::Errno;
use crate::sys::path_ops::PlaceAt;
use crate::wire::flags::OpenFlags;

const O_TRUNC: u32 = 0o1000;

fn open_error(guest: &Guest, node: NodeId, flags: u32) -> Errno {
    let flags = OpenFlags::from_bits_retain(flags);
    guest.fs.open(node, flags, false).unwrap_err()
}

#[test]
fn open_refuses_everything_but_regular_files() {
    let guest = Guest::new();
    symlink("/etc/passwd", guest.share.join("link")).unwrap();
    let _socket = UnixListener::bind(guest.share.join("socket")).unwrap();
    let fifo = guest.fs.mknod(&new_object(c"fifo"), 0o010_644, 0).unwrap();
    let fifo = keep(fifo);
    let (link, socket) = (guest.lookup(ROOT, c"link"), guest.lookup(ROOT, c"socket"));
    // Opening the FIFO would wait for a writer for ever.
    for flags in [0, 1, 2, O_TRUNC] {
        assert_eq!(open_error(&guest, ROOT, flags), Errno::EISDIR);
        assert_eq!(open_error(&guest, link, flags), Errno::ELOOP);
        assert_eq!(open_error(&guest, fifo, flags), Errno::ENXIO);
        assert_eq!(open_error(&guest, socket, flags), Errno::ENXIO);
        assert_eq!(open_error(&guest, NO_NODE, flags), Errno::EBADF);
    }
    for node in [fifo, link, socket] {
        let opened = guest.fs.opendir(node, OpenFlags::empty());
        assert_eq!(opened.unwrap_err(), Errno::ENOTDIR);
        assert_eq!(guest.fs.syncfs(node), Err(Errno::EBADF));
        guest.forget(node);
    }
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn open_through_a_name_that_became_a_fifo_opens_the_old_file() {
    let guest = Guest::new();
    guest.share.write("file", b"regular");
    let node = guest.lookup(ROOT, c"file");
    fs::remove_file(guest.share.join("file")).unwrap();
    guest.forget(keep(
        guest.fs.mknod(&new_object(c"file"), 0o010_644, 0).unwrap(),
    ));
    let open = guest.open(node, 0);
    assert_eq!(guest.read(open, 0, 9).unwrap(), b"regular");
    guest.close(open);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn open_truncates_when_asked() {
    let guest = Guest::new();
    guest.share.write("file", b"contents");
    let node = guest.lookup(ROOT, c"file");
    let open = guest.open(node, 1 | O_TRUNC);
    assert_eq!(fs::metadata(guest.share.join("file")).unwrap().len(), 0);
    guest.close(open);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn open_with_writeback_makes_a_write_only_file_readable() {
    let guest = Guest::with(Settings {
        writeback: true,
        ..Settings::new(CachePolicy::Always)
    });
    guest.share.write("file", b"contents");
    let open = guest.open(guest.lookup(ROOT, c"file"), 1);
    assert_eq!(guest.read(open, 0, 3).unwrap(), b"con");
    guest.close(open);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn open_with_writeback_writes_what_may_only_be_written() {
    if !is_root_or_says_why_not("open_with_writeback_writes_what_may_only_be_written") {
        return;
    }
    let guest = Guest::with(Settings {
        writeback: true,
        ..Settings::new(CachePolicy::Always)
    });
    guest.share.write("file", b"contents");
    let only_writable = fs::Permissions::from_mode(0o602);
    fs::set_permissions(guest.share.join("file"), only_writable).unwrap();
    let with = |flags| {
        let mut request = create_request(c"file");
        request.new.caller = caller(1234, 4321);
        request.flags = OpenFlags::from_bits_retain(flags);
        guest.fs.create(&request)
    };
    let (entry, opened) = with(1).unwrap();
    let open = OpenNode {
        node: keep(entry),
        handle: opened.handle.handle(),
    };
    opened.handle.commit();
    assert_eq!(guest.write(open, 0, b"C"), Ok(1));
    assert_eq!(guest.read(open, 0, 1), Err(Errno::EBADF));
    assert_eq!(with(2).map(drop), Err(Errno::EACCES));
    assert_eq!(with(0).map(drop), Err(Errno::EACCES));
    guest.close(open);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn create_makes_a_file_with_its_mode_whatever_the_umask() {
    let guest = Guest::new();
    let request = CreateRequest {
        mode: 0o100_666,
        ..create_request(c"file")
    };
    let (entry, opened) = guest.fs.create(&request).unwrap();
    let host = fs::metadata(guest.share.join("file")).unwrap();
    assert_eq!(host.mode(), 0o100_666);
    assert_eq!(entry.attr.ino, host.ino());
    assert_eq!(entry.attr.nlink, 1);
    let node = entry.lookup.node();
    assert_eq!(guest.lookup(ROOT, c"file"), node);
    drop((entry, opened));
    guest.forget(node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn create_of_an_existing_file_opens_it_unless_exclusive() {
    let guest = Guest::new();
    guest.share.write("file", b"here already");
    let with = |flags| CreateRequest {
        flags: OpenFlags::from_bits_retain(flags),
        ..create_request(c"file")
    };
    let exclusive = guest.fs.create(&with(2 | 0o100 | 0o200));
    assert_eq!(exclusive.unwrap_err(), Errno::EEXIST);
    let (entry, opened) = guest.fs.create(&with(2 | 0o100)).unwrap();
    assert_eq!(entry.attr.size, 12);
    drop((entry, opened));
    let (entry, opened) = guest.fs.create(&with(2 | 0o100 | O_TRUNC)).unwrap();
    assert_eq!(fs::metadata(guest.share.join("file")).unwrap().len(), 0);
    drop((entry, opened));
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn create_over_what_is_no_file_is_refused_and_leaves_nothing() {
    let guest = Guest::new();
    fs::create_dir(guest.share.join("dir")).unwrap();
    symlink("../canary", guest.share.join("link")).unwrap();
    symlink("../made", guest.share.join("dangling")).unwrap();
    guest.forget(keep(
        guest.fs.mknod(&new_object(c"fifo"), 0o010_644, 0).unwrap(),
    ));
    for (name, errno) in [
        (c"dir", Errno::EISDIR),
        (c"link", Errno::ELOOP),
        (c"dangling", Errno::ELOOP),
        (c"fifo", Errno::ENXIO),
    ] {
        let request = CreateRequest {
            flags: OpenFlags::from_bits_retain(2 | O_TRUNC),
            ..create_request(name)
        };
        let created = guest.fs.create(&request);
        assert_eq!(created.unwrap_err(), errno, "{name:?}");
    }
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn create_errors_leave_nothing() {
    let guest = Guest::new();
    guest.share.write("file", b"");
    let file = guest.lookup(ROOT, c"file");
    let at = |parent| CreateRequest {
        new: NewObject {
            parent,
            ..new_object(c"new")
        },
        ..create_request(c"new")
    };
    let error = |request: &CreateRequest<'_>| guest.fs.create(request).unwrap_err();
    assert_eq!(error(&at(file)), Errno::ENOTDIR);
    assert_eq!(error(&at(NO_NODE)), Errno::EBADF);
    let mut nobody = at(ROOT);
    nobody.new.caller = caller(u32::MAX, 0);
    assert_eq!(error(&nobody), Errno::EOVERFLOW);
    let mut mode_three = at(ROOT);
    mode_three.flags = OpenFlags::from_bits_retain(3);
    assert_eq!(error(&mode_three), Errno::EINVAL);
    assert!(!guest.share.join("new").exists());
    guest.forget(file);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn new_file_is_the_one_that_was_opened_whatever_has_its_name() {
    let guest = Guest::new();
    guest.share.write("other", b"other");
    symlink("mine", guest.share.join("link")).unwrap();
    fs::create_dir(guest.share.join("dir")).unwrap();
    let root = guest.fs.store.get(ROOT).unwrap();
    let directory = root.reach().unwrap();
    for name in [c"mine", c"other", c"link", c"dir", c"missing"] {
        guest.share.write("mine", name.to_bytes());
        let mine = fs::File::open(guest.share.join("mine")).unwrap();
        let ino = mine.metadata().unwrap().ino();
        let at = PlaceAt {
            directory: directory.as_fd(),
            name,
        };
        let entry = guest.fs.entry_of_new(&root, mine.as_fd(), Some(at));
        let node = keep(entry.unwrap());
        drop(mine);
        fs::remove_file(guest.share.join("mine")).unwrap();
        let attr = guest.fs.getattr(node, None).unwrap().attr;
        assert_eq!(attr.ino, ino, "{name:?}");
        let open = guest.open(node, 0);
        assert_eq!(guest.read(open, 0, 64), Ok(name.to_bytes().to_vec()));
        guest.close(open);
    }
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn create_racing_remove_ends_and_leaves_nothing() {
    let guest = Guest::new();
    let path = guest.share.join("file");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let unexpected = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = fs::remove_file(&path);
                let _ = fs::write(&path, b"");
            }
        });
        let mut unexpected = Vec::new();
        for _ in 0..1_000 {
            match guest.fs.create(&create_request(c"file")) {
                Ok(_) | Err(Errno::ESTALE) => {}
                Err(errno) => unexpected.push(errno),
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        unexpected
    });
    assert_eq!(unexpected, []);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

fn tmpfile_request(flags: u32) -> TmpfileRequest<'static> {
    TmpfileRequest {
        caller: own_caller(),
        parent: ROOT,
        mode: 0o100_600,
        umask: 0,
        flags: OpenFlags::from_bits_retain(flags),
        security_contexts: SecurityContexts::default(),
    }
}

#[test]
fn tmpfile_has_no_name_until_it_is_linked() {
    let guest = Guest::new();
    let (entry, opened) = match guest.fs.tmpfile(&tmpfile_request(2)) {
        Err(Errno::EOPNOTSUPP) => {
            println!("skipped: no O_TMPFILE on the file system of the temporary directory");
            return;
        }
        made => made.unwrap(),
    };
    assert_eq!(entry.attr.nlink, 0);
    assert_eq!(fs::read_dir(guest.share.path()).unwrap().count(), 0);
    let node = keep(entry);
    let handle = opened.handle.handle();
    opened.handle.commit();
    let open = OpenNode { node, handle };
    guest.write(open, 0, b"secret").unwrap();
    let linked = guest.fs.link(node, ROOT, file_name(c"named")).unwrap();
    assert_eq!((linked.lookup.node(), linked.attr.nlink), (node, 1));
    drop(linked);
    assert_eq!(fs::read(guest.share.join("named")).unwrap(), b"secret");
    let read_only = guest.fs.tmpfile(&tmpfile_request(0)).unwrap_err();
    assert_eq!(read_only, Errno::EINVAL);
    guest.close(open);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn file_that_is_removed_while_open_stays_until_it_is_closed() {
    let guest = Guest::new();
    let open = guest.create(c"file");
    guest.write(open, 0, b"still here").unwrap();
    guest.fs.unlink(ROOT, file_name(c"file")).unwrap();
    let found = guest.find(ROOT, file_name(c"file"));
    assert_eq!(found.unwrap_err(), Errno::ENOENT);
    assert_eq!(guest.read(open, 6, 99).unwrap(), b"here");
    let again = guest.open(open.node, 2);
    assert_eq!(guest.read(again, 0, 5).unwrap(), b"still");
    let linked = guest.fs.link(open.node, ROOT, file_name(c"back"));
    assert_eq!(linked.unwrap_err(), Errno::ENOENT);
    guest.fs.release(&released(again)).unwrap();
    guest.close(open);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn flush_fsync_release_know_their_handles() {
    let guest = Guest::new();
    let open = guest.create(c"file");
    let dir = guest.opendir(ROOT);
    let strange = OpenNode {
        node: open.node,
        handle: NO_HANDLE,
    };
    let crossed = OpenNode {
        node: ROOT,
        handle: open.handle,
    };
    for (open, expected) in [
        (open, Ok(())),
        (strange, Err(Errno::EBADF)),
        (crossed, Err(Errno::EBADF)),
        (dir, Err(Errno::EISDIR)),
    ] {
        assert_eq!(guest.fs.flush(&flushed(open)), expected);
        assert_eq!(guest.fs.fsync(open, SyncScope::Everything), expected);
        assert_eq!(guest.fs.fsync(open, SyncScope::ContentsOnly), expected);
    }
    assert_eq!(guest.fs.fsyncdir(dir, SyncScope::Everything), Ok(()));
    assert_eq!(
        guest.fs.fsyncdir(open, SyncScope::ContentsOnly),
        Err(Errno::ENOTDIR)
    );
    assert_eq!(guest.fs.release(&released(dir)), Err(Errno::EISDIR));
    assert_eq!(guest.fs.releasedir(&released(open)), Err(Errno::ENOTDIR));
    assert_eq!(guest.fs.release(&released(crossed)), Err(Errno::EBADF));
    guest.fs.releasedir(&released(dir)).unwrap();
    guest.fs.release(&released(open)).unwrap();
    assert_eq!(guest.fs.release(&released(open)), Err(Errno::EBADF));
    assert_eq!(guest.fs.releasedir(&released(dir)), Err(Errno::EBADF));
    guest.forget(open.node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn syncfs_takes_files_and_directories() {
    // In memory, so as not to wait for whatever else the disk is doing.
    let memory = std::path::Path::new("/dev/shm");
    let share = if memory.is_dir() {
        Share::in_directory(memory)
    } else {
        Share::new()
    };
    let guest = Guest::on(share, Settings::new(CachePolicy::Auto));
    guest.share.write("file", b"");
    let node = guest.lookup(ROOT, c"file");
    assert_eq!(guest.fs.syncfs(ROOT), Ok(()));
    assert_eq!(guest.fs.syncfs(node), Ok(()));
    assert_eq!(guest.fs.syncfs(NO_NODE), Err(Errno::EBADF));
    guest.forget(node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn names_are_opened_as_they_are() {
    let guest = Guest::new();
    let names: [&CStr; 4] = [c"...", c" ", c"new\nline", c"\xff\xfe"];
    for name in names {
        guest.close(guest.create(name));
        guest.forget(guest.lookup(ROOT, name));
        guest.fs.unlink(ROOT, file_name(name)).unwrap();
    }
    assert_eq!(fs::read_dir(guest.share.path()).unwrap().count(), 0);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}
