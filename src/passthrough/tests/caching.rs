//! What the replies to OPEN, CREATE and TMPFILE let a guest cache.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::share::{
    Guest, NOTHING_LEFT, ROOT, Share, create_request, file_name, own_caller, released,
};
use crate::fs::filesystem::{FileSystem, OpenNode, TmpfileRequest};
use crate::fs::types::{Lookup, Negotiated, NodeId, SecurityContexts};
use crate::passthrough::PassthroughFs;
use crate::passthrough::file_systems::dates_every_change;
use crate::passthrough::settings::{CachePolicy, Settings};
use crate::sys::fs_type::fs_type;
use crate::wire::flags::{OpenFlags, OpenReplyFlags, SessionFlags};

const DIRECT: OpenReplyFlags = OpenReplyFlags::DIRECT_IO;
const KEEP: OpenReplyFlags = OpenReplyFlags::KEEP_CACHE;
const NOFLUSH: OpenReplyFlags = OpenReplyFlags::NOFLUSH;
const PARALLEL: OpenReplyFlags = OpenReplyFlags::PARALLEL_DIRECT_WRITES;

/// A guest whose share is on a local file system, wherever this test runs.
fn on_tmpfs(cache: CachePolicy) -> Guest {
    let share = Share::in_directory(Path::new("/dev/shm"));
    Guest::on(share, Settings::new(cache))
}

#[test]
fn every_way_to_open_replies_with_the_flags_of_the_policy() {
    for (cache, base, both) in [
        (CachePolicy::Never, DIRECT | PARALLEL, DIRECT | PARALLEL),
        (CachePolicy::Metadata, DIRECT | PARALLEL, DIRECT | PARALLEL),
        (
            CachePolicy::Auto,
            OpenReplyFlags::empty(),
            OpenReplyFlags::empty(),
        ),
        (CachePolicy::Always, KEEP, KEEP | NOFLUSH),
    ] {
        let guest = on_tmpfs(cache);
        let (entry, created) = guest.fs.create(&create_request(c"file")).unwrap();
        assert_eq!(created.flags, both, "{cache:?}: CREATE");
        let node = entry.lookup.node();
        for (bits, flags) in [(0, base | NOFLUSH), (1, base | NOFLUSH), (2, both)] {
            let opened = guest
                .fs
                .open(node, OpenFlags::from_bits_retain(bits), false);
            assert_eq!(opened.unwrap().flags, flags, "{cache:?}: OPEN {bits}");
        }
        let request = TmpfileRequest {
            caller: own_caller(),
            parent: ROOT,
            mode: 0o600,
            umask: 0,
            flags: OpenFlags::WRONLY,
            security_contexts: SecurityContexts::default(),
        };
        let unnamed = guest.fs.tmpfile(&request).unwrap();
        assert_eq!(unnamed.1.flags, base | NOFLUSH, "{cache:?}: TMPFILE");
        drop((unnamed.1, unnamed.0, created, entry));
        assert_eq!(guest.leftovers(), NOTHING_LEFT);
    }
}

#[test]
fn close_on_an_unknown_file_system_is_always_announced() {
    let settings = Settings::new(CachePolicy::Always);
    let fs = PassthroughFs::new(settings, Path::new("/proc")).unwrap();
    fs.start_session(&Negotiated {
        minor: 38,
        flags: SessionFlags::empty(),
        max_write_bytes: 1 << 20,
    });
    let Ok(Lookup::Found(entry)) = fs.lookup(ROOT, file_name(c"version")) else {
        panic!("/proc/version is missing");
    };
    let opened = fs.open(entry.lookup.node(), OpenFlags::empty(), false);
    assert_eq!(opened.unwrap().flags, KEEP);
}

#[test]
fn close_is_announced_to_guests_that_give_locks_up_with_it() {
    let guest = on_tmpfs(CachePolicy::Always);
    guest.share.write("file", b"");
    guest.mount(SessionFlags::POSIX_LOCKS);
    let node = guest.lookup(ROOT, c"file");
    let opened = guest.fs.open(node, OpenFlags::empty(), false).unwrap();
    assert_eq!(opened.flags, KEEP);
}

/// A guest with a share on a disk that may keep its pages, however young a file is.
fn keeping_guest_or_says_why_not(test: &str) -> Option<Guest> {
    let guest = Guest::with(Settings {
        keep_cache_after: Duration::ZERO,
        ..Settings::new(CachePolicy::Auto)
    });
    let root = File::open(guest.share.path()).unwrap();
    let kind = fs_type(root.as_fd()).unwrap();
    if !dates_every_change(kind) {
        println!("{test}: skipped, because the temporary directory is on {kind:?}");
        return None;
    }
    Some(guest)
}

/// Whether the guest may keep its pages over an OPEN; it reads and closes.
fn keeps_then_reads(guest: &Guest, node: NodeId) -> bool {
    let opened = guest.fs.open(node, OpenFlags::empty(), false).unwrap();
    let kept = opened.flags.contains(KEEP);
    let handle = opened.handle.handle();
    opened.handle.commit();
    let open = OpenNode { node, handle };
    guest.read(open, 0, 10).unwrap();
    guest.fs.release(&released(open)).unwrap();
    kept
}

/// The host's clock moves on by more than a tick.
fn next_tick() {
    thread::sleep(Duration::from_millis(20));
}

#[test]
fn pages_are_kept_while_nobody_changes_the_file() {
    let Some(guest) = keeping_guest_or_says_why_not("pages_are_kept_while_nobody_changes_the_file")
    else {
        return;
    };
    guest.share.write("file", b"one");
    let node = guest.lookup(ROOT, c"file");
    assert!(!keeps_then_reads(&guest, node), "nothing is known yet");
    assert!(keeps_then_reads(&guest, node));
    assert!(keeps_then_reads(&guest, node));
    next_tick();
    guest.share.write("file", b"two");
    assert!(!keeps_then_reads(&guest, node), "the host wrote");
    assert!(keeps_then_reads(&guest, node));
    next_tick();
    let writer = guest.open(node, 1);
    assert_eq!(guest.write(writer, 0, b"own"), Ok(3));
    guest.fs.release(&released(writer)).unwrap();
    assert!(!keeps_then_reads(&guest, node), "the guest wrote");
    assert!(keeps_then_reads(&guest, node));
    next_tick();
    // Same size, and the time of modification put back to what it was.
    let path = guest.share.join("file");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    guest.share.write("file", b"old");
    let file = File::options().write(true).open(&path).unwrap();
    file.set_modified(modified).unwrap();
    drop(file);
    assert!(!keeps_then_reads(&guest, node), "somebody hides a change");
    guest.forget(node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn pages_are_not_kept_before_the_guest_has_surely_emptied_its_cache() {
    let test = "pages_are_not_kept_before_the_guest_has_surely_emptied_its_cache";
    let Some(guest) = keeping_guest_or_says_why_not(test) else {
        return;
    };
    guest.share.write("file", b"one");
    let node = guest.lookup(ROOT, c"file");
    assert!(!keeps_then_reads(&guest, node));
    next_tick();
    guest.share.write("file", b"two");
    let flags = OpenFlags::empty();
    // The reply to the first is still on its way when the second is served, and the third.
    let first = guest.fs.open(node, flags, false).unwrap();
    let second = guest.fs.open(node, flags, false).unwrap();
    assert!(!first.flags.contains(KEEP));
    assert!(!second.flags.contains(KEEP));
    let handle = second.handle.handle();
    guest.read(OpenNode { node, handle }, 0, 1).unwrap();
    let third = guest.fs.open(node, flags, false).unwrap();
    assert!(third.flags.contains(KEEP), "the second has been used");
    drop((first, second, third));
    guest.forget(node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn stamp_of_an_older_open_file_never_makes_pages_valid() {
    let test = "stamp_of_an_older_open_file_never_makes_pages_valid";
    let Some(guest) = keeping_guest_or_says_why_not(test) else {
        return;
    };
    guest.share.write("file", b"one");
    let node = guest.lookup(ROOT, c"file");
    let old = guest.open(node, 0);
    next_tick();
    guest.share.write("file", b"two");
    assert!(!keeps_then_reads(&guest, node));
    // The first task reads only now.
    guest.read(old, 0, 1).unwrap();
    assert!(!keeps_then_reads(&guest, node));
    assert!(keeps_then_reads(&guest, node));
    guest.close(old);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn pages_of_a_young_file_are_never_kept() {
    let guest = Guest::new();
    guest.share.write("file", b"one");
    let node = guest.lookup(ROOT, c"file");
    for _ in 0..3 {
        assert!(!keeps_then_reads(&guest, node));
    }
    guest.forget(node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn pages_are_never_kept_where_changes_may_leave_no_time() {
    let share = Share::in_directory(Path::new("/dev/shm"));
    let guest = Guest::on(
        share,
        Settings {
            keep_cache_after: Duration::ZERO,
            ..Settings::new(CachePolicy::Auto)
        },
    );
    guest.share.write("file", b"one");
    let node = guest.lookup(ROOT, c"file");
    for _ in 0..3 {
        assert!(!keeps_then_reads(&guest, node));
    }
    guest.forget(node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}
