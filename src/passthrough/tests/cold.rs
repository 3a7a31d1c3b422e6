//! Nodes beyond the descriptor budget: kept as file handles, or refused where there are none.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::locks::{self, W, wish};
use super::share::{
    Guest, NOTHING_LEFT, NamesPlus, ROOT, Share, create_request, file_name, flushed, keep,
    new_object, released,
};
use crate::fs::filesystem::{FileSystem, OpenNode, ReadDirRequest};
use crate::fs::types::NodeId;
use crate::passthrough::settings::{CachePolicy, HandlePolicy, Settings};
use crate::sys::errno::Errno;
use crate::wire::flags::OpenFlags;

/// Enough for a few nodes and an open directory.
pub(super) const BUDGET: usize = 12;
/// Far more than that.
pub(super) const FILES: usize = 150;

fn settings(policy: HandlePolicy, budget: usize) -> Settings {
    Settings {
        inode_file_handles: policy,
        guest_fds_max: budget,
        ..Settings::new(CachePolicy::Auto)
    }
}

/// A guest on a small budget, on a file system with handles; prints why there is none.
pub(super) fn frugal_guest(share: Share, budget: usize) -> Option<Guest> {
    let guest = Guest::on(share, settings(HandlePolicy::Prefer, budget));
    if guest.fs.store.has_handles() {
        return Some(guest);
    }
    println!("skipped: file handles do not work here");
    None
}

/// Shares on each kind of file system that there is.
pub(super) fn shares() -> Vec<Share> {
    let shm = Path::new("/dev/shm");
    let mut shares = vec![Share::new()];
    if shm.is_dir() {
        shares.push(Share::in_directory(shm));
    }
    shares
}

pub(super) fn name_of(index: usize) -> CString {
    CString::new(format!("f{index}")).unwrap()
}

pub(super) fn make_files(guest: &Guest) {
    for index in 0..FILES {
        guest
            .share
            .write(&format!("f{index}"), index.to_string().as_bytes());
    }
}

pub(super) fn is_pinned(guest: &Guest, node: NodeId) -> bool {
    guest.fs.store.get(node).unwrap().is_pinned()
}

/// Looks files up until everything that can be cold is.
pub(super) fn walk(guest: &Guest) -> Vec<NodeId> {
    (0..FILES)
        .map(|index| guest.lookup(ROOT, &name_of(index)))
        .collect()
}

fn list_plus(guest: &Guest, open: OpenNode) -> NamesPlus<'_> {
    let mut sink = NamesPlus {
        seen: Vec::new(),
        room: usize::MAX,
    };
    let request = ReadDirRequest {
        node: open.node,
        handle: open.handle,
        offset: 0,
    };
    guest.fs.readdirplus(&request, &mut sink).unwrap();
    sink
}

#[test]
fn walk_beyond_the_budget_meets_no_error_and_keeps_every_node() {
    for share in shares() {
        let Some(guest) = frugal_guest(share, BUDGET) else {
            continue;
        };
        make_files(&guest);
        let nodes = walk(&guest);
        assert!(guest.fs.store.budget().used() <= BUDGET);
        for (index, node) in nodes.iter().enumerate() {
            let attr = guest.fs.getattr(*node, None).unwrap().attr;
            let host = fs::metadata(guest.share.join(&format!("f{index}"))).unwrap();
            assert_eq!((attr.ino, attr.size), (host.ino(), host.size()), "{index}");
            assert_eq!(guest.lookup(ROOT, &name_of(index)), *node, "{index}");
            guest.forget(*node);
            let open = guest.open(*node, 0);
            let contents = guest.read(open, 0, 100).unwrap();
            assert_eq!(contents, index.to_string().as_bytes());
            guest.close(open);
        }
        assert_eq!(guest.leftovers(), NOTHING_LEFT);
        assert_eq!(guest.fs.store.budget().used(), 0);
    }
}

#[test]
fn listing_beyond_the_budget_has_attributes_for_every_name() {
    for share in shares() {
        let Some(guest) = frugal_guest(share, BUDGET) else {
            continue;
        };
        make_files(&guest);
        let hot = guest.lookup(ROOT, c"f0");
        let dir = guest.opendir(ROOT);
        let sink = list_plus(&guest, dir);
        let found = sink.seen.iter().filter(|(_, found)| found.is_some());
        assert_eq!((sink.seen.len(), found.count()), (FILES + 2, FILES));
        // A listing puts out nobody who was asked for.
        assert!(is_pinned(&guest, hot));
        drop(sink);
        guest.fs.releasedir(&released(dir)).unwrap();
        guest.forget(hot);
        assert_eq!(guest.leftovers(), NOTHING_LEFT);
    }
}

#[test]
fn cold_node_stays_its_file_under_every_name() {
    let Some(guest) = frugal_guest(Share::new(), BUDGET) else {
        return;
    };
    make_files(&guest);
    let node = guest.lookup(ROOT, c"f0");
    let others = walk(&guest);
    guest.forget(node);
    assert!(!is_pinned(&guest, node));
    fs::rename(guest.share.join("f0"), guest.share.join("moved")).unwrap();
    fs::hard_link(guest.share.join("moved"), guest.share.join("linked")).unwrap();
    for name in [c"moved", c"linked"] {
        assert_eq!(guest.lookup(ROOT, name), node);
        guest.forget(node);
    }
    let link = guest.fs.link(node, ROOT, file_name(c"third")).unwrap();
    assert_eq!((link.lookup.node(), link.attr.nlink), (node, 3));
    drop(link);
    others.into_iter().for_each(|node| guest.forget(node));
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn cold_node_that_is_used_twice_is_pinned_again() {
    let Some(guest) = frugal_guest(Share::new(), BUDGET) else {
        return;
    };
    make_files(&guest);
    let node = guest.lookup(ROOT, c"f0");
    let others = walk(&guest);
    assert!(!is_pinned(&guest, node));
    assert!(guest.fs.getattr(node, None).is_ok());
    assert!(guest.fs.getattr(node, None).is_ok());
    // All that is pinned was used when it was looked up, so the clock may take some rounds.
    let rounds = (0..10).take_while(|_| {
        guest.fs.getattr(node, None).unwrap();
        !is_pinned(&guest, node)
    });
    assert!(rounds.count() < 10);
    assert!(guest.fs.store.budget().used() <= BUDGET);
    guest.forget(node);
    others.into_iter().for_each(|node| guest.forget(node));
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn cold_node_that_is_looked_up_again_and_again_is_pinned_but_not_by_listings() {
    let Some(guest) = frugal_guest(Share::new(), BUDGET) else {
        return;
    };
    make_files(&guest);
    let node = guest.lookup(ROOT, c"f0");
    let others = walk(&guest);
    let dir = guest.opendir(ROOT);
    for _ in 0..10 {
        drop(list_plus(&guest, dir));
    }
    assert!(!is_pinned(&guest, node));
    guest.fs.releasedir(&released(dir)).unwrap();
    // It takes the ticket that the directory had: a free one is no feat. The clock may take some
    // rounds, as above, and only every second look-up asks for a descriptor.
    let held = guest.open(others[1], 0);
    let rounds = (0..20).take_while(|_| {
        assert_eq!(guest.lookup(ROOT, c"f0"), node);
        guest.forget(node);
        !is_pinned(&guest, node)
    });
    assert!(rounds.count() < 20);
    guest.fs.release(&released(held)).unwrap();
    assert!(guest.fs.store.budget().used() <= BUDGET);
    guest.forget(node);
    others.into_iter().for_each(|node| guest.forget(node));
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn directories_are_put_out_after_leaves() {
    let Some(guest) = frugal_guest(Share::new(), BUDGET) else {
        return;
    };
    make_files(&guest);
    fs::create_dir(guest.share.join("dir")).unwrap();
    fs::write(guest.share.join("dir/inside"), b"").unwrap();
    let dir = guest.lookup(ROOT, c"dir");
    let others = walk(&guest);
    assert!(is_pinned(&guest, dir));
    let inside = guest.lookup(dir, c"inside");
    guest.forget(inside);
    guest.forget(dir);
    others.into_iter().for_each(|node| guest.forget(node));
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn cold_directories_are_walked_like_others() {
    let Some(guest) = frugal_guest(Share::new(), 3) else {
        return;
    };
    let mut path = guest.share.path().to_owned();
    let mut nodes = vec![ROOT];
    for _ in 0..20 {
        path.push("d");
        fs::create_dir(&path).unwrap();
        nodes.push(guest.lookup(*nodes.last().unwrap(), c"d"));
    }
    for node in &nodes {
        let dir = guest.opendir(*node);
        let sink = list_plus(&guest, dir);
        assert!(
            sink.seen
                .iter()
                .all(|(entry, found)| { entry.name.starts_with('.') || found.is_some() })
        );
        drop(sink);
        guest.fs.releasedir(&released(dir)).unwrap();
    }
    nodes.into_iter().for_each(|node| guest.forget(node));
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn unlinked_file_that_is_open_stays_readable_though_its_node_is_cold() {
    for share in shares() {
        let Some(guest) = frugal_guest(share, BUDGET) else {
            continue;
        };
        make_files(&guest);
        let node = guest.lookup(ROOT, c"f7");
        let open = guest.open(node, 2);
        let others = walk(&guest);
        guest.forget(node);
        assert!(!is_pinned(&guest, node));
        guest.fs.unlink(ROOT, file_name(c"f7")).unwrap();
        let by_handle = guest.fs.getattr(node, Some(open.handle)).unwrap().attr;
        let by_number = guest.fs.getattr(node, None).unwrap().attr;
        assert_eq!((by_handle.nlink, by_number.nlink), (0, 0));
        assert_eq!(by_handle.ino, by_number.ino);
        assert_eq!(guest.read(open, 0, 9).unwrap(), b"7");
        assert_eq!(guest.write(open, 0, b"still here"), Ok(10));
        let second = guest.open(node, 0);
        assert_eq!(guest.read(second, 0, 99).unwrap(), b"still here");
        guest.fs.release(&released(second)).unwrap();
        guest.fs.release(&released(open)).unwrap();
        others.into_iter().for_each(|node| guest.forget(node));
        assert_eq!(guest.leftovers(), NOTHING_LEFT);
    }
}

#[test]
fn unlinked_file_that_was_pinned_is_never_put_out() {
    let Some(guest) = frugal_guest(Share::new(), BUDGET) else {
        return;
    };
    make_files(&guest);
    let held: Vec<_> = (0..BUDGET / 2)
        .map(|index| guest.lookup(ROOT, &name_of(index)))
        .collect();
    for index in 0..BUDGET / 2 {
        fs::remove_file(guest.share.join(&format!("f{index}"))).unwrap();
    }
    let others: Vec<_> = (BUDGET / 2..FILES)
        .map(|index| guest.lookup(ROOT, &name_of(index)))
        .collect();
    for node in &held {
        assert_eq!(guest.fs.getattr(*node, None).unwrap().attr.nlink, 0);
    }
    held.into_iter()
        .chain(others)
        .for_each(|node| guest.forget(node));
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn cold_node_of_a_removed_file_is_stale_and_loses_its_identity_to_a_later_file() {
    for share in shares() {
        let Some(guest) = frugal_guest(share, 1) else {
            continue;
        };
        let mut recycled = 0;
        for round in 0..200 {
            guest.share.write("file", b"old");
            let old = guest.lookup(ROOT, c"file");
            let old_ino = guest.fs.getattr(old, None).unwrap().attr.ino;
            // A new file takes the only descriptor.
            let other = CString::new(format!("other-{round}")).unwrap();
            let other = keep(guest.fs.mknod(&new_object(&other), 0o100_644, 0).unwrap());
            assert!(!is_pinned(&guest, old), "{round}");
            fs::remove_file(guest.share.join("file")).unwrap();
            guest.share.write("file", b"newer");
            let entry = guest.find(ROOT, file_name(c"file")).unwrap();
            assert_ne!(entry.lookup.node(), old, "{round}");
            assert_eq!(entry.attr.size, 5);
            recycled += usize::from(entry.attr.ino == old_ino);
            let stale = guest.fs.getattr(old, None).unwrap_err();
            assert_eq!(stale, Errno::ESTALE, "{round}");
            // Looked at again, both are what they were.
            assert_eq!(guest.lookup(ROOT, c"file"), entry.lookup.node());
            guest.forget(keep(entry));
            let again = guest.lookup(ROOT, c"file");
            guest.fs.forget(again, 2);
            guest.fs.forget(old, u64::MAX);
            guest.forget(other);
            fs::remove_file(guest.share.join("file")).unwrap();
        }
        println!("{recycled} of 200 inode numbers were used again");
        assert_eq!(guest.leftovers(), NOTHING_LEFT);
    }
}

#[test]
fn clock_remembers_no_more_than_there_is() {
    let Some(guest) = frugal_guest(Share::new(), 1_000) else {
        return;
    };
    guest.share.write("file", b"");
    for _ in 0..20_000 {
        let node = guest.lookup(ROOT, c"file");
        guest.fs.forget(node, 1);
    }
    // 64 for each of its 16 parts.
    assert!(guest.fs.store.budget().clock_len() <= 1_100);
    make_files(&guest);
    let nodes = walk(&guest);
    nodes.into_iter().for_each(|node| guest.forget(node));
    assert!(guest.fs.store.budget().clock_len() <= 1_100 + 2 * FILES);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn hostile_counts_of_cold_nodes_are_clamped() {
    let Some(guest) = frugal_guest(Share::new(), BUDGET) else {
        return;
    };
    make_files(&guest);
    let nodes = walk(&guest);
    for node in &nodes {
        guest.fs.forget(*node, 0);
        assert!(guest.fs.getattr(*node, None).is_ok());
        guest.fs.forget(*node, u64::MAX);
        guest.fs.forget(*node, u64::MAX);
        let gone = guest.fs.getattr(*node, None).unwrap_err();
        assert_eq!(gone, Errno::EBADF);
    }
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn without_handles_the_budget_bounds_what_a_guest_can_hold() {
    let guest = Guest::with(settings(HandlePolicy::Never, BUDGET));
    make_files(&guest);
    let dir = guest.opendir(ROOT);
    let open = guest.create(c"open");
    let sink = list_plus(&guest, dir);
    assert_eq!(sink.seen.len(), FILES + 3);
    let found = sink.seen.iter().filter(|(_, found)| found.is_some());
    // Directory, file and the file's node hold one each; the file is listed, too.
    assert_eq!(found.count(), BUDGET - 3 + 1);
    let (missing, _) = sink
        .seen
        .iter()
        .find(|(seen, found)| found.is_none() && seen.name.starts_with('f'))
        .unwrap();
    let missing = CString::new(missing.name.clone()).unwrap();
    let refused = guest.find(ROOT, file_name(&missing)).unwrap_err();
    assert_eq!(refused, Errno::ENFILE);
    let refused = guest.fs.open(open.node, OpenFlags::empty(), false);
    assert_eq!(refused.unwrap_err(), Errno::ENFILE);
    let refused = guest.fs.opendir(ROOT, OpenFlags::empty());
    assert_eq!(refused.unwrap_err(), Errno::ENFILE);
    // Nothing is made that could not be answered for.
    let refused = guest.fs.create(&create_request(c"new"));
    assert_eq!(refused.unwrap_err(), Errno::ENFILE);
    let refused = guest.fs.mkdir(&new_object(c"new"), 0o755);
    assert_eq!(refused.unwrap_err(), Errno::ENFILE);
    assert!(!guest.share.join("new").exists());
    // What is held goes on working, and can be given back.
    guest.fs.flush(&flushed(open)).unwrap();
    assert!(guest.fs.getattr(open.node, None).is_ok());
    drop(sink);
    assert!(guest.find(ROOT, file_name(&missing)).is_ok());
    guest.fs.releasedir(&released(dir)).unwrap();
    guest.close(open);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
    assert_eq!(guest.fs.store.budget().used(), 0);
}

#[test]
fn open_files_take_the_whole_budget_and_no_more() {
    let Some(guest) = frugal_guest(Share::new(), BUDGET) else {
        return;
    };
    guest.share.write("file", b"x");
    guest.share.write("other", b"x");
    let node = guest.lookup(ROOT, c"file");
    let opened: Vec<_> = (0..BUDGET).map(|_| guest.open(node, 0)).collect();
    let refused = guest.fs.open(node, OpenFlags::empty(), false);
    assert_eq!(refused.unwrap_err(), Errno::ENFILE);
    let refused = guest.fs.create(&create_request(c"new"));
    assert_eq!(refused.unwrap_err(), Errno::ENFILE);
    assert!(!guest.share.join("new").exists());
    // Names can be looked up and made all the same.
    let other = guest.lookup(ROOT, c"other");
    let made = keep(guest.fs.mkdir(&new_object(c"made"), 0o755).unwrap());
    for open in &opened {
        guest.fs.flush(&flushed(*open)).unwrap();
        assert_eq!(guest.read(*open, 0, 1).unwrap(), b"x");
    }
    guest.fs.release(&released(opened[0])).unwrap();
    assert!(guest.fs.open(node, OpenFlags::empty(), false).is_ok());
    for open in &opened[1..] {
        guest.fs.release(&released(*open)).unwrap();
    }
    for node in [node, other, made] {
        guest.forget(node);
    }
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
    assert_eq!(guest.fs.store.budget().used(), 0);
}

#[test]
fn lock_without_a_descriptor_left_is_enolck() {
    let guest = Guest::with(Settings {
        posix_lock: true,
        ..settings(HandlePolicy::Never, 3)
    });
    // The node, the open file and one owner of locks take one each.
    let open = guest.create(c"file");
    let lock = |owner| guest.fs.setlk(&wish(open, owner, (owner, owner), W));
    assert_eq!(lock(1), Ok(()));
    assert_eq!(lock(2), Err(Errno::ENOLCK));
    guest.fs.flush(&locks::flushed(open, 1)).unwrap();
    assert_eq!(lock(2), Ok(()));
    guest.fs.flush(&locks::flushed(open, 2)).unwrap();
    guest.close(open);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
    assert_eq!(guest.fs.store.budget().used(), 0);
}

#[test]
fn unnamed_file_lives_as_long_as_it_is_open_also_without_a_budget() {
    use crate::fs::filesystem::TmpfileRequest;
    use crate::fs::types::SecurityContexts;
    let Some(guest) = frugal_guest(Share::new(), 1) else {
        return;
    };
    let request = TmpfileRequest {
        caller: super::share::own_caller(),
        parent: ROOT,
        mode: 0o600,
        umask: 0,
        flags: OpenFlags::RDWR,
        security_contexts: SecurityContexts::default(),
    };
    let Ok((entry, opened)) = guest.fs.tmpfile(&request) else {
        println!("skipped: no O_TMPFILE here");
        return;
    };
    let open = OpenNode {
        node: keep(entry),
        handle: opened.handle.handle(),
    };
    opened.handle.commit();
    assert_eq!(guest.write(open, 0, b"kept"), Ok(4));
    assert_eq!(guest.fs.getattr(open.node, None).unwrap().attr.size, 4);
    drop(guest.fs.link(open.node, ROOT, file_name(c"named")).unwrap());
    assert_eq!(fs::read(guest.share.join("named")).unwrap(), b"kept");
    guest.close(open);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn lookup_forget_list_and_put_out_at_once_lose_nothing() {
    let Some(guest) = frugal_guest(Share::new(), 4) else {
        return;
    };
    const NAMES: usize = 12;
    for index in 0..NAMES {
        guest.share.write(&format!("f{index}"), b"");
    }
    let until = Instant::now() + Duration::from_millis(1_500);
    let wrong: usize = thread::scope(|scope| {
        let walkers: Vec<_> = (0..3)
            .map(|seed: usize| {
                let guest = &guest;
                scope.spawn(move || {
                    let mut wrong = 0;
                    let mut turn = seed * 5;
                    while Instant::now() < until {
                        turn += 1;
                        let name = name_of(turn % NAMES);
                        let node = guest.lookup(ROOT, &name);
                        wrong += usize::from(guest.fs.getattr(node, None).is_err());
                        let again = guest.lookup(ROOT, &name);
                        wrong += usize::from(again != node);
                        guest.fs.forget(node, 1);
                        wrong += usize::from(guest.fs.getattr(again, None).is_err());
                        guest.fs.forget(again, 1);
                    }
                    wrong
                })
            })
            .collect();
        let lister = scope.spawn(|| {
            let mut wrong = 0;
            while Instant::now() < until {
                // The others hold no open file, but put out what they can.
                let Ok(opened) = guest.fs.opendir(ROOT, OpenFlags::empty()) else {
                    continue;
                };
                let dir = OpenNode {
                    node: ROOT,
                    handle: opened.handle.handle(),
                };
                let sink = list_plus(&guest, dir);
                let found = sink.seen.iter().filter(|(_, found)| found.is_some());
                wrong += usize::from(found.count() != NAMES);
            }
            wrong
        });
        let walkers: usize = walkers.into_iter().map(|w| w.join().unwrap()).sum();
        walkers + lister.join().unwrap()
    });
    assert_eq!(wrong, 0);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
    assert_eq!(guest.fs.store.budget().used(), 0);
}
