//! Files that are closed and opened again.

use std::fs;
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::share::{Guest, NOTHING_LEFT, ROOT, Share, keep, new_object, released};
use crate::fs::filesystem::{FileSystem, OpenNode, SetXattrRequest};
use crate::fs::types::NodeId;
use crate::passthrough::settings::{CachePolicy, Settings};
use crate::sys::errno::Errno;
use crate::sys::poll;

const O_NONBLOCK: u32 = 0o4000;
const O_SYNC: u32 = 0o4_010_000;
/// Where a test leaves the position of a descriptor, to know it again.
const MARK: u64 = 3;

/// A guest on a file system of this host, with a file that was left alone for long enough.
fn guest() -> (Guest, NodeId) {
    let share = Share::in_directory(Path::new("/dev/shm"));
    let guest = Guest::on(share, Settings::new(CachePolicy::Auto));
    guest.share.write("file", b"contents");
    leave_alone();
    let node = guest.lookup(ROOT, c"file");
    (guest, node)
}

/// Lets time pass until a change has another time, and a file is old enough.
fn leave_alone() {
    thread::sleep(Duration::from_millis(50));
}

fn with_file<T>(guest: &Guest, open: OpenNode, look: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
    let handle = guest.fs.handles.get(open).unwrap();
    look(handle.file().unwrap())
}

/// A duplicate, which shares its position with what the guest has.
fn duplicate(guest: &Guest, open: OpenNode) -> fs::File {
    with_file(guest, open, |file| file.try_clone_to_owned().unwrap()).into()
}

fn release(guest: &Guest, open: OpenNode) {
    guest.fs.release(&released(open)).unwrap();
}

fn mark(guest: &Guest, open: OpenNode) {
    let mut file = duplicate(guest, open);
    file.seek(SeekFrom::Start(MARK)).unwrap();
}

/// Whether it is the descriptor that was marked: another one starts at 0.
fn is_marked(guest: &Guest, open: OpenNode) -> bool {
    duplicate(guest, open).stream_position().unwrap() == MARK
}

#[test]
fn open_for_reading_gives_the_descriptor_that_was_closed() {
    let (guest, node) = guest();
    let open = guest.open(node, 0);
    mark(&guest, open);
    release(&guest, open);
    let again = guest.open(node, 0);
    assert_ne!(open.handle, again.handle);
    assert!(is_marked(&guest, again));
    assert_eq!(guest.read(again, 0, 100).unwrap(), b"contents");
    assert_eq!(guest.read(open, 0, 100).unwrap_err(), Errno::EBADF);
    release(&guest, again);
    guest.forget(node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn attributes_that_are_asked_for_again_are_read_by_an_open_file() {
    let share = Share::in_directory(Path::new("/dev/shm"));
    let settings = Settings {
        xattr: true,
        ..Settings::new(CachePolicy::Auto)
    };
    let guest = Guest::on(share, settings);
    guest.share.write("file", b"contents");
    let node = guest.lookup(ROOT, c"file");
    let ask = || guest.fs.getxattr(node, c"user.a", &mut [0; 8]);
    if ask() == Err(Errno::EOPNOTSUPP) {
        println!("skipped: no user xattrs in /dev/shm");
        return;
    }
    let used = guest.fs.store.budget().used();
    let held = || guest.fs.store.budget().used() - used;
    assert_eq!(ask(), Err(Errno::ENODATA));
    assert_eq!(held(), 0, "it is too young");
    leave_alone();
    assert_eq!(ask(), Err(Errno::ENODATA));
    assert_eq!(held(), 0, "one time is none");
    assert_eq!(ask(), Err(Errno::ENODATA));
    assert_eq!(held(), 1, "opened at the second time");
    for value in [&b"1"[..], b"22"] {
        let set = SetXattrRequest {
            node,
            name: c"user.a",
            value,
            flags: 0,
            kill_sgid: false,
        };
        guest.fs.setxattr(&set).unwrap();
        assert_eq!(ask(), Ok(value.len()));
        assert_eq!(guest.fs.listxattr(node, &mut []), Ok(7));
    }
    assert_eq!(held(), 1);
    // It waits for nobody, as what an OPEN gets does, so none gets it.
    let open = guest.open(node, 0);
    assert_eq!(held(), 1, "closed, and another one opened");
    assert!(!with_file(&guest, open, poll::is_nonblocking));
    release(&guest, open);
    guest.forget(node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn two_open_files_never_share_a_descriptor() {
    let (guest, node) = guest();
    release(&guest, guest.open(node, 0));
    let (one, other) = (guest.open(node, 0), guest.open(node, 0));
    let fd = |open| with_file(&guest, open, |file| file.as_raw_fd());
    assert_ne!(fd(one), fd(other));
    release(&guest, one);
    release(&guest, other);
    guest.forget(node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn open_after_a_change_by_the_host_opens_anew() {
    let (guest, node) = guest();
    let path = guest.share.join("file");
    let changes: [&dyn Fn(); 2] = [
        &|| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap(),
        &|| fs::write(&path, "other").unwrap(),
    ];
    for change in changes {
        leave_alone();
        let open = guest.open(node, 0);
        mark(&guest, open);
        release(&guest, open);
        change();
        let again = guest.open(node, 0);
        assert!(!is_marked(&guest, again));
        release(&guest, again);
    }
    // And one that was opened too soon after a change is not used again.
    let open = guest.open(node, 0);
    mark(&guest, open);
    release(&guest, open);
    let again = guest.open(node, 0);
    assert!(!is_marked(&guest, again));
    release(&guest, again);
}

#[test]
fn open_with_other_flags_opens_anew() {
    let (guest, node) = guest();
    for flags in [1, 2, O_NONBLOCK, O_SYNC] {
        let open = guest.open(node, flags);
        mark(&guest, open);
        release(&guest, open);
        for again in [0, flags] {
            let again = guest.open(node, again);
            assert!(!is_marked(&guest, again), "{flags:#o}");
            release(&guest, again);
        }
    }
}

#[test]
fn closed_file_goes_with_its_node_and_with_the_session() {
    let (guest, node) = guest();
    release(&guest, guest.open(node, 0));
    assert!(guest.fs.idle_readers.may_hold(node));
    guest.forget(node);
    assert!(!guest.fs.idle_readers.may_hold(node));
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
    let node = guest.lookup(ROOT, c"file");
    release(&guest, guest.open(node, 0));
    guest.fs.end_session();
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn closed_file_makes_room_when_descriptors_run_out() {
    let share = Share::in_directory(Path::new("/dev/shm"));
    let settings = Settings {
        guest_fds_max: 16,
        ..Settings::new(CachePolicy::Auto)
    };
    let guest = Guest::on(share, settings);
    let names: Vec<String> = (0..8).map(|number| format!("file-{number}")).collect();
    for name in &names {
        guest.share.write(name, b"x");
    }
    leave_alone();
    let node = guest.lookup(ROOT, c"file-0");
    release(&guest, guest.open(node, 0));
    assert!(guest.fs.idle_readers.may_hold(node));
    // Each takes a descriptor that nothing else can give.
    let mut open = Vec::new();
    let full = loop {
        match guest
            .fs
            .open(node, crate::wire::flags::OpenFlags::RDWR, false)
        {
            Ok(opened) => open.push(opened),
            Err(errno) => break errno,
        }
    };
    assert_eq!(full, Errno::ENFILE);
    assert!(!guest.fs.idle_readers.may_hold(node));
}

#[test]
fn new_file_that_was_closed_can_be_executed_on_the_host() {
    let (guest, _) = guest();
    let _ = keep(
        guest
            .fs
            .mknod(&new_object(c"script"), 0o100_755, 0)
            .unwrap(),
    );
    let node = guest.lookup(ROOT, c"script");
    let open = guest.open(node, 2);
    guest.write(open, 0, b"#!/bin/sh\nexit 7\n").unwrap();
    release(&guest, open);
    let status = std::process::Command::new(guest.share.join("script")).status();
    assert_eq!(status.unwrap().code(), Some(7));
}
