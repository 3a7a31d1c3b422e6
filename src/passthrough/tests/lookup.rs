//! LOOKUP and FORGET: identity, counts, and what others do to the names meanwhile.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::share::{Guest, NO_NODE, NOTHING_LEFT, ROOT, file_name, keep};
use crate::fs::filesystem::{FileSystem, SyncScope};
use crate::fs::types::{Lookup, NodeId};
use crate::passthrough::settings::{CachePolicy, Settings};
use crate::sys::errno::Errno;
use crate::wire::flags::SessionFlags;

#[test]
fn lookup_of_a_file_gives_its_attributes_and_one_count() {
    let guest = Guest::new();
    guest.share.write("file", b"hello");
    let host = fs::metadata(guest.share.join("file")).unwrap();
    let entry = guest.find(ROOT, file_name(c"file")).unwrap();
    assert_eq!(entry.attr.ino, host.ino());
    assert_eq!(entry.attr.size, 5);
    assert_eq!(entry.attr.mode, host.mode());
    assert_eq!(entry.attr.uid.raw(), host.uid());
    assert_eq!(entry.attr.mtime.secs, host.mtime());
    assert_eq!(i64::from(entry.attr.mtime.nanos), host.mtime_nsec());
    assert!(!entry.attr.is_submount);
    assert_eq!(entry.generation, 0);
    assert_eq!(entry.entry_valid, Duration::from_secs(1));
    assert_eq!(guest.fs.store.len(), (1, 1));
    drop(entry);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn lookup_again_gives_the_same_node_until_all_is_forgotten() {
    let guest = Guest::new();
    // With EXPORT_SUPPORT forgotten nodes come back: see `export`.
    guest.mount(SessionFlags::empty());
    guest.share.write("file", b"");
    fs::hard_link(guest.share.join("file"), guest.share.join("other")).unwrap();
    let first = guest.lookup(ROOT, c"file");
    assert_eq!(guest.lookup(ROOT, c"file"), first);
    assert_eq!(guest.lookup(ROOT, c"other"), first);
    guest.fs.forget(first, 2);
    assert!(guest.fs.getattr(first, None).is_ok());
    guest.fs.forget(first, 1);
    assert_eq!(guest.fs.getattr(first, None).unwrap_err(), Errno::EBADF);
    let second = guest.lookup(ROOT, c"file");
    assert!(second > first, "node ids are never used again");
    guest.forget(second);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn lookup_after_new_files_pins_at_once_and_finds_what_is_known_all_the_same() {
    let guest = Guest::new();
    for name in ["a", "b", "c", "d"] {
        guest.share.write(name, name.as_bytes());
    }
    symlink("a", guest.share.join("link")).unwrap();
    let are_new_likely = || guest.fs.store.root().news.are_likely();
    let a = guest.lookup(ROOT, c"a");
    assert!(!are_new_likely());
    let b = guest.lookup(ROOT, c"b");
    assert!(are_new_likely());
    let link = guest.lookup(ROOT, c"link");
    let link_mode = guest.fs.getattr(link, None).unwrap().attr.mode;
    assert_eq!(link_mode & libc::S_IFMT, libc::S_IFLNK);
    assert!(are_new_likely());
    assert_eq!(guest.lookup(ROOT, c"a"), a);
    assert!(!are_new_likely(), "a was known");
    let c = guest.lookup(ROOT, c"c");
    let d = guest.lookup(ROOT, c"d");
    assert!(are_new_likely());
    let missing = guest.find(ROOT, file_name(c"missing"));
    assert_eq!(missing.unwrap_err(), Errno::ENOENT);
    assert!(!are_new_likely(), "there was nothing");
    assert_eq!(guest.lookup(ROOT, c"b"), b);
    guest.fs.forget(a, 2);
    guest.fs.forget(b, 2);
    for node in [c, d, link] {
        guest.forget(node);
    }
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn lookup_of_a_missing_name_may_be_believed_as_long_as_the_settings_say() {
    for (cache, valid) in [
        (CachePolicy::Never, None),
        (CachePolicy::Auto, None),
        (CachePolicy::Metadata, Some(Duration::from_secs(86_400))),
        (CachePolicy::Always, Some(Duration::from_secs(86_400))),
    ] {
        let guest = Guest::with(Settings::new(cache));
        let answer = match guest.fs.lookup(ROOT, file_name(c"none")) {
            Ok(Lookup::Missing { valid }) => Some(valid),
            Ok(Lookup::Found(_)) => panic!("nothing is there"),
            Err(errno) => {
                assert_eq!(errno, Errno::ENOENT);
                None
            }
        };
        assert_eq!(answer, valid, "{cache:?}");
        assert_eq!(guest.leftovers(), NOTHING_LEFT);
    }
}

#[test]
fn lookup_errors_leave_nothing() {
    let guest = Guest::new();
    guest.share.write("file", b"");
    let file = guest.lookup(ROOT, c"file");
    let lookup = |parent| guest.find(parent, file_name(c"x")).unwrap_err();
    assert_eq!(lookup(ROOT), Errno::ENOENT);
    assert_eq!(lookup(file), Errno::ENOTDIR);
    assert_eq!(lookup(NO_NODE), Errno::EBADF);
    assert_eq!(lookup(NodeId::new(0)), Errno::EBADF);
    guest.forget(file);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn lookup_of_a_link_gives_the_link_and_never_goes_through_it() {
    let guest = Guest::new();
    symlink("/etc", guest.share.join("etc")).unwrap();
    symlink("..", guest.share.join("up")).unwrap();
    symlink("nowhere", guest.share.join("dangling")).unwrap();
    for name in [c"etc", c"up", c"dangling"] {
        let entry = guest.find(ROOT, file_name(name)).unwrap();
        assert_eq!(entry.attr.mode & 0o170_000, 0o120_000, "{name:?}");
        let link = keep(entry);
        for inside in [c"passwd", c"canary"] {
            let through = guest.find(link, file_name(inside));
            assert_eq!(through.unwrap_err(), Errno::ENOTDIR, "{name:?}");
        }
        guest.forget(link);
    }
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn lookup_of_mount_points_announces_them_only_when_negotiated() {
    use crate::passthrough::PassthroughFs;
    use crate::passthrough::settings::{CachePolicy, Settings};
    let settings = Settings::new(CachePolicy::Auto);
    let fs = PassthroughFs::new(settings, std::path::Path::new("/")).unwrap();
    let negotiate = |flags| {
        fs.start_session(&crate::fs::types::Negotiated {
            minor: 38,
            flags,
            max_write_bytes: 1 << 20,
        });
        let found = fs.lookup(ROOT, file_name(c"proc")).unwrap();
        let Lookup::Found(entry) = found else {
            panic!("/proc is missing");
        };
        let attr = fs.getattr(entry.lookup.node(), None).unwrap().attr;
        (entry.attr.is_submount, attr.is_submount)
    };
    assert_eq!(negotiate(SessionFlags::SUBMOUNTS), (true, true));
    assert_eq!(negotiate(SessionFlags::empty()), (false, false));
    assert_eq!(fs.store.len(), (0, 0));
}

#[test]
fn forget_of_too_much_or_of_strangers_is_clamped() {
    let guest = Guest::new();
    guest.share.write("file", b"");
    let node = guest.lookup(ROOT, c"file");
    guest.fs.forget(ROOT, u64::MAX);
    guest.fs.forget(NO_NODE, u64::MAX);
    guest.fs.forget(NodeId::new(0), 1);
    guest.fs.forget(node, 0);
    assert!(guest.fs.getattr(node, None).is_ok());
    guest.fs.forget(node, u64::MAX);
    guest.fs.forget(node, 1);
    assert!(guest.fs.getattr(ROOT, None).is_ok());
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn node_stays_the_same_file_when_its_name_is_swapped() {
    let guest = Guest::new();
    guest.share.write("file", b"mine");
    let node = guest.lookup(ROOT, c"file");
    fs::remove_file(guest.share.join("file")).unwrap();
    symlink("../canary", guest.share.join("file")).unwrap();
    let open = guest.open(node, 0);
    assert_eq!(guest.read(open, 0, 100).unwrap(), b"mine");
    assert_eq!(guest.fs.getattr(node, None).unwrap().attr.nlink, 0);
    guest.fs.fsync(open, SyncScope::Everything).unwrap();
    let swapped = guest.lookup(ROOT, c"file");
    assert_ne!(swapped, node);
    guest.forget(swapped);
    guest.close(open);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn directory_swapped_for_a_link_is_never_followed() {
    let guest = Guest::new();
    let (good, link) = (guest.share.join("dir"), guest.share.join("link"));
    fs::create_dir(&good).unwrap();
    fs::write(good.join("canary"), b"inside").unwrap();
    symlink("..", &link).unwrap();
    let stop = AtomicBool::new(false);
    let outside = thread::scope(|scope| {
        scope.spawn(|| {
            let aside = guest.share.join("aside");
            while !stop.load(Ordering::Relaxed) {
                fs::rename(&good, &aside).unwrap();
                fs::rename(&link, &good).unwrap();
                fs::rename(&good, &link).unwrap();
                fs::rename(&aside, &good).unwrap();
            }
        });
        let until = Instant::now() + Duration::from_millis(300);
        let mut outside = 0;
        while Instant::now() < until {
            let Ok(dir) = guest.find(ROOT, file_name(c"dir")) else {
                continue;
            };
            let node = dir.lookup.node();
            if let Ok(found) = guest.find(node, file_name(c"canary")) {
                outside += usize::from(found.attr.size != 6);
            }
        }
        stop.store(true, Ordering::Relaxed);
        outside
    });
    assert_eq!(outside, 0);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn directory_moved_out_of_the_share_leads_no_further() {
    let guest = Guest::new();
    fs::create_dir(guest.share.join("dir")).unwrap();
    let dir = guest.lookup(ROOT, c"dir");
    let outside = guest.share.path().with_file_name("moved");
    fs::rename(guest.share.join("dir"), &outside).unwrap();
    let found = guest.find(dir, file_name(c"canary"));
    assert_eq!(found.unwrap_err(), Errno::ENOENT);
    fs::remove_dir(outside).unwrap();
    guest.forget(dir);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn lookup_racing_forget_never_loses_or_keeps_a_node() {
    const FILES: usize = 3;
    let guest = Guest::new();
    for index in 0..FILES {
        guest.share.write(&format!("f{index}"), b"");
    }
    let names = [c"f0", c"f1", c"f2"];
    let until = Instant::now() + Duration::from_millis(700);
    let wrong: usize = thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|seed: usize| {
                let guest = &guest;
                scope.spawn(move || {
                    let mut wrong = 0;
                    let mut turn = seed;
                    while Instant::now() < until {
                        turn += 1;
                        let name = names[turn % FILES];
                        let node = guest.lookup(ROOT, name);
                        // The guest holds the lookup: the node must be there.
                        wrong += usize::from(guest.fs.getattr(node, None).is_err());
                        let again = guest.lookup(ROOT, name);
                        // While a lookup is held the id cannot change.
                        wrong += usize::from(again != node);
                        guest.fs.forget(node, 1);
                        wrong += usize::from(guest.fs.getattr(again, None).is_err());
                        guest.fs.forget(again, 1);
                    }
                    wrong
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .sum()
    });
    assert_eq!(wrong, 0);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn many_nodes_at_once_all_go_away() {
    let guest = Guest::new();
    let count = 500_u32;
    for index in 0..count {
        guest.share.write(&format!("f{index}"), b"");
    }
    let nodes: Vec<_> = (0..count)
        .map(|index| {
            let name = std::ffi::CString::new(format!("f{index}")).unwrap();
            guest.lookup(ROOT, &name)
        })
        .collect();
    assert_eq!(guest.fs.store.len(), (500, 500));
    for node in nodes {
        guest.forget(node);
    }
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}
