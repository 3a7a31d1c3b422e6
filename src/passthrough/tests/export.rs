//! LOOKUP of `.` and `..`, as a guest that exports the mount by NFS sends them.

use std::ffi::CString;
use std::fs;

use super::share::{Guest, NO_NODE, NOTHING_LEFT, ROOT, file_name, keep};
use crate::fs::filesystem::FileSystem;
use crate::passthrough::settings::{CachePolicy, HandlePolicy, Settings};
use crate::sys::errno::Errno;
use crate::wire::flags::SessionFlags;

fn exporting_guest() -> Option<Guest> {
    let guest = Guest::new();
    if guest.fs.store.has_handles() {
        return Some(guest);
    }
    println!("skipped: file handles do not work here");
    None
}

#[test]
fn export_is_offered_only_with_file_handles() {
    for (policy, is_offered) in [(HandlePolicy::Prefer, true), (HandlePolicy::Never, false)] {
        let guest = Guest::with(Settings {
            inode_file_handles: policy,
            ..Settings::new(CachePolicy::Auto)
        });
        let wanted = guest.fs.session_wishes().wanted;
        let is_offered = is_offered && guest.fs.store.has_handles();
        assert_eq!(wanted.contains(SessionFlags::EXPORT_SUPPORT), is_offered);
        let is_refused = wanted.contains(SessionFlags::NO_EXPORT_SUPPORT);
        assert_eq!(is_refused, !is_offered, "{policy:?}");
    }
}

#[test]
fn forgotten_node_is_found_again_by_number_and_by_name() {
    let Some(guest) = exporting_guest() else {
        return;
    };
    guest.share.write("file", b"12345");
    let node = guest.lookup(ROOT, c"file");
    guest.forget(node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
    assert_eq!(guest.fs.getattr(node, None).unwrap_err(), Errno::EBADF);
    let entry = guest.fs.lookup_self(node).unwrap();
    assert_eq!((entry.lookup.node(), entry.generation), (node, 0));
    assert_eq!(entry.attr.size, 5);
    assert_eq!(keep(entry), node);
    assert!(guest.fs.getattr(node, None).is_ok());
    guest.forget(node);
    assert_eq!(guest.lookup(ROOT, c"file"), node);
    guest.fs.forget(node, u64::MAX);
    guest.fs.forget(node, u64::MAX);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
    assert_eq!(guest.fs.store.budget().used(), 0);
}

#[test]
fn forgotten_node_of_a_removed_file_is_stale_and_takes_no_space() {
    let Some(guest) = exporting_guest() else {
        return;
    };
    for is_removed_first in [true, false] {
        guest.share.write("file", b"old");
        let node = guest.lookup(ROOT, c"file");
        if is_removed_first {
            fs::remove_file(guest.share.join("file")).unwrap();
            guest.forget(node);
        } else {
            guest.forget(node);
            fs::remove_file(guest.share.join("file")).unwrap();
        }
        assert_eq!(guest.leftovers(), NOTHING_LEFT);
        // Its inode number is probably used again by this one.
        guest.share.write("file", b"other");
        assert_eq!(guest.fs.lookup_self(node).unwrap_err(), Errno::ESTALE);
        let other = guest.lookup(ROOT, c"file");
        assert_ne!(other, node);
        assert_eq!(guest.fs.lookup_self(node).unwrap_err(), Errno::ESTALE);
        guest.forget(other);
        fs::remove_file(guest.share.join("file")).unwrap();
    }
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn forgotten_node_is_unknown_without_export_and_in_the_next_session() {
    let Some(guest) = exporting_guest() else {
        return;
    };
    guest.share.write("file", b"");
    let node = guest.lookup(ROOT, c"file");
    guest.forget(node);
    guest.mount(SessionFlags::empty());
    assert_eq!(guest.fs.lookup_self(node).unwrap_err(), Errno::ESTALE);
    let node = guest.lookup(ROOT, c"file");
    assert_eq!(guest.fs.lookup_self(node).unwrap().lookup.node(), node);
    guest.forget(node);
    assert_eq!(guest.fs.lookup_self(node).unwrap_err(), Errno::ESTALE);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn node_of_no_file_is_stale() {
    let guest = Guest::new();
    assert_eq!(guest.fs.lookup_self(NO_NODE).unwrap_err(), Errno::ESTALE);
    assert_eq!(guest.fs.lookup_parent(NO_NODE).unwrap_err(), Errno::ESTALE);
    assert_eq!(guest.fs.lookup_self(ROOT).unwrap().lookup.node(), ROOT);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn forgotten_nodes_are_kept_in_the_order_of_their_use() {
    let Some(guest) = exporting_guest() else {
        return;
    };
    // As many as are kept in tests.
    const KEPT: usize = 64;
    let nodes: Vec<_> = (0..KEPT + 10)
        .map(|index| {
            guest.share.write(&format!("f{index}"), b"");
            let name = CString::new(format!("f{index}")).unwrap();
            let node = guest.lookup(ROOT, &name);
            guest.forget(node);
            if index == KEPT - 1 {
                // The first comes back once, and so survives the second.
                let first = guest.lookup(ROOT, c"f0");
                guest.forget(first);
            }
            node
        })
        .collect();
    let is_known: Vec<_> = nodes
        .iter()
        .map(|node| guest.fs.lookup_self(*node).is_ok())
        .collect();
    assert!(is_known[0]);
    assert_eq!(is_known[1..11], [false; 10]);
    assert!(is_known[11..].iter().all(|known| *known));
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn parent_is_found_up_to_the_root_and_never_beyond() {
    let guest = Guest::new();
    fs::create_dir_all(guest.share.join("a/b/c")).unwrap();
    guest.share.write("a/file", b"");
    let a = guest.lookup(ROOT, c"a");
    let b = guest.lookup(a, c"b");
    let c = guest.lookup(b, c"c");
    let file = guest.lookup(a, c"file");
    let parent = |node| keep(guest.fs.lookup_parent(node).unwrap());
    assert_eq!(parent(c), b);
    assert_eq!(parent(b), a);
    assert_eq!(parent(a), ROOT);
    assert_eq!(parent(ROOT), ROOT);
    assert_eq!(guest.fs.lookup_parent(file).unwrap_err(), Errno::ENOTDIR);
    // A directory that nobody has looked up yet.
    guest.fs.forget(b, 2);
    let unknown = guest.fs.lookup_parent(c).unwrap();
    assert_eq!(unknown.attr.mode & 0o170_000, 0o040_000);
    drop(unknown);
    for (node, count) in [(a, 2), (c, 1), (file, 1)] {
        guest.fs.forget(node, count);
    }
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn parent_of_a_directory_outside_the_share_is_stale() {
    let guest = Guest::new();
    fs::create_dir_all(guest.share.join("dir/sub")).unwrap();
    let dir = guest.lookup(ROOT, c"dir");
    let sub = guest.lookup(dir, c"sub");
    let outside = guest.share.path().with_file_name("moved");
    fs::rename(guest.share.join("dir"), &outside).unwrap();
    assert_eq!(guest.fs.lookup_parent(dir).unwrap_err(), Errno::ESTALE);
    assert_eq!(guest.fs.lookup_parent(sub).unwrap_err(), Errno::ESTALE);
    fs::remove_dir_all(outside).unwrap();
    assert_eq!(guest.fs.lookup_parent(sub).unwrap_err(), Errno::ESTALE);
    guest.forget(sub);
    guest.forget(dir);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn parent_of_a_directory_too_deep_is_stale() {
    let guest = Guest::new();
    let mut node = ROOT;
    let mut held = Vec::new();
    // In tests the limit is 100.
    for _ in 0..110 {
        let made = guest.fs.mkdir(
            &crate::fs::filesystem::NewObject {
                parent: node,
                ..super::share::new_object(c"d")
            },
            0o755,
        );
        node = keep(made.unwrap());
        held.push(node);
    }
    assert_eq!(guest.fs.lookup_parent(node).unwrap_err(), Errno::ESTALE);
    let found = guest.fs.lookup_parent(held[50]).unwrap();
    assert_eq!(found.lookup.node(), held[49]);
    drop(found);
    // From the bottom up: a path to the last would be too long for the host.
    while let Some(node) = held.pop() {
        let parent = held.last().copied().unwrap_or(ROOT);
        guest.fs.rmdir(parent, file_name(c"d")).unwrap();
        guest.forget(node);
    }
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}
