//! Directories that the guest reads without opening them, and directories that look empty.

use std::collections::BTreeSet;
use std::fs;

use super::share::{
    Guest, NO_HANDLE, NO_NODE, NOTHING_LEFT, Names, NamesPlus, ROOT, keep, released,
};
use crate::fs::filesystem::{FileSystem, OpenNode, ReadDirRequest, SyncScope};
use crate::fs::types::{HandleId, NodeId};
use crate::passthrough::settings::{CachePolicy, Settings};
use crate::sys::errno::{Errno, Result};
use crate::wire::flags::{OpenFlags, SessionFlags};

fn guest() -> Guest {
    Guest::with(Settings {
        no_opendir: true,
        ..Settings::new(CachePolicy::Auto)
    })
}

fn unopened(node: NodeId) -> OpenNode {
    OpenNode {
        node,
        handle: HandleId::new(0),
    }
}

/// Up to `room` names from `offset` on, and the cookie after them.
fn readdir(guest: &Guest, open: OpenNode, offset: u64, room: usize) -> Result<(Vec<String>, u64)> {
    let mut names = Names {
        seen: Vec::new(),
        room,
    };
    let request = ReadDirRequest {
        node: open.node,
        handle: open.handle,
        offset,
    };
    guest.fs.readdir(&request, &mut names)?;
    let next = names.seen.last().map_or(offset, |entry| entry.next_offset);
    let names = names.seen.into_iter().map(|entry| entry.name).collect();
    Ok((names, next))
}

fn readdir_all(guest: &Guest, open: OpenNode, room: usize) -> Vec<String> {
    let (mut all, mut offset) = (Vec::new(), 0);
    loop {
        let (names, next) = readdir(guest, open, offset, room).unwrap();
        if names.is_empty() {
            return all;
        }
        all.extend(names);
        offset = next;
    }
}

fn fill(guest: &Guest, count: usize) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = (0..count).map(|index| format!("file-{index}")).collect();
    for name in &names {
        guest.share.write(name, b"");
    }
    names.extend([".".to_owned(), "..".to_owned()]);
    names
}

#[test]
fn opendir_is_unknown_to_a_guest_that_can_do_without() {
    let guest = guest();
    let opened = guest.fs.opendir(ROOT, OpenFlags::empty());
    assert_eq!(opened.unwrap_err(), Errno::ENOSYS);
    assert_eq!(guest.fs.releasedir(&released(unopened(ROOT))), Ok(()));
    let synced = guest.fs.fsyncdir(unopened(ROOT), SyncScope::Everything);
    assert_eq!(synced, Ok(()));
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn guest_that_has_to_open_directories_does_so() {
    let guest = guest();
    guest.mount(guest.fs.session_wishes().wanted - SessionFlags::NO_OPENDIR_SUPPORT);
    let open = guest.opendir(ROOT);
    assert_eq!(readdir_all(&guest, open, 10).len(), 2);
    let by_node = readdir(&guest, unopened(ROOT), 0, 10);
    assert_eq!(by_node.unwrap_err(), Errno::EBADF);
    guest.fs.releasedir(&released(open)).unwrap();
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn readdir_by_node_gives_every_name_once_whatever_the_room() {
    let guest = guest();
    let names = fill(&guest, 1_200);
    for room in [1, 7, 1_000, 10_000] {
        let seen = readdir_all(&guest, unopened(ROOT), room);
        assert_eq!(seen.len(), names.len(), "{room}");
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), names, "{room}");
        assert_eq!(guest.fs.dir_streams.len(), 0, "nothing waits at the end");
    }
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn readers_of_one_directory_do_not_stand_in_each_others_way() {
    let guest = guest();
    let names = fill(&guest, 300);
    let mut readers: Vec<(Vec<String>, u64)> = (0..5).map(|_| (Vec::new(), 0)).collect();
    // Each with a step of its own, so that they soon stand in different places.
    for _ in 0..320 {
        for (index, (seen, offset)) in readers.iter_mut().enumerate() {
            let some = readdir(&guest, unopened(ROOT), *offset, index + 1);
            let (names, next) = some.unwrap();
            seen.extend(names);
            *offset = next;
        }
    }
    for (seen, _) in readers {
        assert_eq!(seen.len(), names.len());
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), names);
    }
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn readers_beyond_those_that_may_wait_go_on_where_they_were() {
    let guest = guest();
    let names = fill(&guest, 200);
    // One name further on for each reader.
    let firsts: Vec<_> = (1..=100)
        .map(|room| readdir(&guest, unopened(ROOT), 0, room).unwrap())
        .collect();
    assert!(guest.fs.dir_streams.len() <= 64);
    for (mut seen, mut offset) in firsts {
        loop {
            let (more, next) = readdir(&guest, unopened(ROOT), offset, 50).unwrap();
            if more.is_empty() {
                break;
            }
            seen.extend(more);
            offset = next;
        }
        assert_eq!(seen.len(), names.len());
    }
    guest.fs.end_session();
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn reading_from_the_start_sees_what_is_new() {
    let guest = guest();
    guest.share.write("old", b"");
    assert_eq!(readdir_all(&guest, unopened(ROOT), 10).len(), 3);
    guest.share.write("new", b"");
    assert_eq!(readdir_all(&guest, unopened(ROOT), 10).len(), 4);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn readdirplus_by_node_grants_lookups() {
    let guest = guest();
    guest.share.write("file", b"12345");
    let mut names = NamesPlus {
        seen: Vec::new(),
        room: 10,
    };
    let request = ReadDirRequest {
        node: ROOT,
        handle: HandleId::new(0),
        offset: 0,
    };
    guest.fs.readdirplus(&request, &mut names).unwrap();
    let found = names.seen.into_iter().find_map(|(_, entry)| entry).unwrap();
    assert_eq!(found.attr.size, 5);
    let node = keep(found);
    guest.forget(node);
    guest.fs.end_session();
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn directory_that_is_forgotten_half_read_is_closed() {
    let guest = guest();
    fs::create_dir(guest.share.join("dir")).unwrap();
    let dir = guest.lookup(ROOT, c"dir");
    readdir(&guest, unopened(dir), 0, 1).unwrap();
    assert_eq!(guest.fs.dir_streams.len(), 1);
    guest.forget(dir);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
    let gone = readdir(&guest, unopened(dir), 0, 1);
    assert_eq!(gone.unwrap_err(), Errno::EBADF);
}

#[test]
fn only_directories_are_read_by_node() {
    let guest = guest();
    guest.share.write("file", b"");
    let file = guest.lookup(ROOT, c"file");
    let error = |open| readdir(&guest, open, 0, 1).unwrap_err();
    assert_eq!(error(unopened(file)), Errno::ENOTDIR);
    assert_eq!(error(unopened(NO_NODE)), Errno::EBADF);
    assert_eq!(guest.read(unopened(file), 0, 1), Err(Errno::EBADF));
    let node = ROOT;
    let handle = NO_HANDLE;
    assert_eq!(error(OpenNode { node, handle }), Errno::EBADF);
    guest.forget(file);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn directories_look_empty_if_the_settings_say_so() {
    for no_opendir in [false, true] {
        let guest = Guest::with(Settings {
            no_readdir: true,
            no_opendir,
            ..Settings::new(CachePolicy::Auto)
        });
        let plus = SessionFlags::DO_READDIRPLUS | SessionFlags::READDIRPLUS_AUTO;
        assert!(!guest.fs.session_wishes().wanted.intersects(plus));
        guest.share.write("file", b"");
        let open = match no_opendir {
            true => unopened(ROOT),
            false => guest.opendir(ROOT),
        };
        assert_eq!(readdir(&guest, open, 0, 10), Ok((Vec::new(), 0)));
        // It is there all the same.
        let file = guest.lookup(ROOT, c"file");
        let wrong = readdir(&guest, OpenNode { node: file, ..open }, 0, 10);
        assert!(wrong.is_err());
        guest.fs.releasedir(&released(open)).unwrap();
        guest.forget(file);
        assert_eq!(guest.leftovers(), NOTHING_LEFT);
    }
}
