//! OPENDIR, READDIR, READDIRPLUS.

use std::collections::BTreeSet;
use std::fs;

use super::share::{
    Guest, NO_HANDLE, NOTHING_LEFT, Names, NamesPlus, ROOT, Seen, file_name, released,
};
use crate::fs::filesystem::{FileSystem, OpenNode, ReadDirRequest};
use crate::passthrough::settings::{CachePolicy, Settings};
use crate::sys::errno::Errno;
use crate::wire::flags::{OpenFlags, OpenReplyFlags};

fn at(open: OpenNode, offset: u64) -> ReadDirRequest {
    ReadDirRequest {
        node: open.node,
        handle: open.handle,
        offset,
    }
}

fn readdir(guest: &Guest, open: OpenNode, offset: u64, room: usize) -> Result<Vec<Seen>, Errno> {
    let mut names = Names {
        seen: Vec::new(),
        room,
    };
    guest.fs.readdir(&at(open, offset), &mut names)?;
    Ok(names.seen)
}

fn readdir_all(guest: &Guest, open: OpenNode, room: usize) -> Vec<Seen> {
    let mut all: Vec<Seen> = Vec::new();
    loop {
        let offset = all.last().map_or(0, |entry| entry.next_offset);
        let some = readdir(guest, open, offset, room).unwrap();
        if some.is_empty() {
            return all;
        }
        all.extend(some);
    }
}

/// A share with so many files that their names fill more than one buffer.
fn crowded(count: usize) -> (Guest, BTreeSet<String>) {
    let guest = Guest::new();
    let mut names: BTreeSet<String> = (0..count).map(|index| format!("file-{index}")).collect();
    for name in &names {
        guest.share.write(name, b"");
    }
    names.extend([".".to_owned(), "..".to_owned()]);
    (guest, names)
}

#[test]
fn readdir_gives_every_name_once_whatever_the_room() {
    let (guest, names) = crowded(1_200);
    let open = guest.opendir(ROOT);
    for room in [1, 7, 1_000, 10_000] {
        let seen = readdir_all(&guest, open, room);
        assert_eq!(seen.len(), names.len(), "{room}");
        let seen: BTreeSet<String> = seen.into_iter().map(|entry| entry.name).collect();
        assert_eq!(seen, names, "{room}");
    }
    guest.fs.releasedir(&released(open)).unwrap();
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn readdir_goes_on_from_any_cookie() {
    let (guest, _) = crowded(1_200);
    let open = guest.opendir(ROOT);
    let all = readdir_all(&guest, open, 10_000);
    for index in [0, 700, 3, 1_190, 2, 1_199] {
        let next = readdir(&guest, open, all[index].next_offset, 3).unwrap();
        let end = (index + 4).min(all.len());
        assert_eq!(next, all[index + 1..end], "{index}");
    }
    let last = all.last().unwrap().next_offset;
    assert_eq!(readdir(&guest, open, last, 3), Ok(Vec::new()));
    guest.fs.releasedir(&released(open)).unwrap();
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn readdir_without_room_loses_nothing() {
    let (guest, names) = crowded(5);
    let open = guest.opendir(ROOT);
    assert_eq!(readdir(&guest, open, 0, 0), Ok(Vec::new()));
    assert_eq!(readdir_all(&guest, open, 2).len(), names.len());
    guest.fs.releasedir(&released(open)).unwrap();
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn readdir_from_the_start_reads_afresh() {
    let (guest, _) = crowded(3);
    let open = guest.opendir(ROOT);
    assert_eq!(readdir(&guest, open, 0, 2).unwrap().len(), 2);
    guest.share.write("new", b"");
    fs::remove_file(guest.share.join("file-1")).unwrap();
    let seen: BTreeSet<String> = readdir_all(&guest, open, 100)
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    let now = [".", "..", "file-0", "file-2", "new"].map(str::to_owned);
    assert_eq!(seen, BTreeSet::from(now));
    guest.fs.releasedir(&released(open)).unwrap();
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn readdir_with_a_cookie_beyond_the_signed_ones_is_answered() {
    let (guest, names) = crowded(50);
    let open = guest.opendir(ROOT);
    for cookie in [1 << 63, u64::MAX, u64::MAX - 4095] {
        assert_eq!(readdir(&guest, open, cookie, 9), Err(Errno::EINVAL));
        // The stream is not lost by it.
        assert_eq!(readdir_all(&guest, open, 9).len(), names.len());
    }
    guest.fs.releasedir(&released(open)).unwrap();
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn readdir_refuses_wrong_handles() {
    let guest = Guest::new();
    let file = guest.create(c"file");
    let dir = guest.opendir(ROOT);
    let strange = OpenNode {
        node: ROOT,
        handle: NO_HANDLE,
    };
    let crossed = OpenNode {
        node: file.node,
        handle: dir.handle,
    };
    assert_eq!(readdir(&guest, file, 0, 9), Err(Errno::ENOTDIR));
    assert_eq!(readdir(&guest, strange, 0, 9), Err(Errno::EBADF));
    assert_eq!(readdir(&guest, crossed, 0, 9), Err(Errno::EBADF));
    guest.fs.releasedir(&released(dir)).unwrap();
    guest.close(file);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn readdir_of_a_removed_directory_is_empty_or_gone() {
    let guest = Guest::new();
    fs::create_dir(guest.share.join("dir")).unwrap();
    let dir = guest.opendir(guest.lookup(ROOT, c"dir"));
    guest.fs.rmdir(ROOT, file_name(c"dir")).unwrap();
    let seen = readdir(&guest, dir, 0, 9);
    assert!(matches!(seen, Err(Errno::ENOENT)) || seen.is_ok_and(|seen| seen.is_empty()));
    guest.fs.releasedir(&released(dir)).unwrap();
    guest.forget(dir.node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn readdirplus_grants_a_lookup_for_each_entry_that_fits() {
    let (guest, names) = crowded(40);
    let open = guest.opendir(ROOT);
    let mut offset = 0;
    let mut count = 0;
    loop {
        let mut sink = NamesPlus {
            seen: Vec::new(),
            room: 7,
        };
        guest.fs.readdirplus(&at(open, offset), &mut sink).unwrap();
        let Some((last, _)) = sink.seen.last() else {
            break;
        };
        offset = last.next_offset;
        count += sink.seen.len();
        for (seen, found) in &sink.seen {
            let is_dot = seen.name == "." || seen.name == "..";
            assert_eq!(found.is_none(), is_dot, "{seen:?}");
        }
        // No lookup was spent on the entry that did not fit.
        let granted = sink.seen.iter().filter(|(_, found)| found.is_some());
        assert_eq!(guest.fs.store.len().0, granted.count());
    }
    assert_eq!(count, names.len());
    guest.fs.releasedir(&released(open)).unwrap();
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn readdirplus_passes_vanished_entries_without_attributes() {
    let (guest, names) = crowded(10);
    let open = guest.opendir(ROOT);
    let first = readdir(&guest, open, 0, 1).unwrap();
    for name in fs::read_dir(guest.share.path()).unwrap() {
        fs::remove_file(name.unwrap().path()).unwrap();
    }
    let mut sink = NamesPlus {
        seen: Vec::new(),
        room: 100,
    };
    // The names were read before they vanished.
    let offset = first[0].next_offset;
    guest.fs.readdirplus(&at(open, offset), &mut sink).unwrap();
    assert_eq!(sink.seen.len(), names.len() - 1);
    assert!(sink.seen.iter().all(|(_, found)| found.is_none()));
    drop(sink);
    guest.fs.releasedir(&released(open)).unwrap();
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn readers_of_one_handle_take_turns() {
    let (guest, names) = crowded(100);
    let open = guest.opendir(ROOT);
    std::thread::scope(|scope| {
        for room in [3, 20, 1_000] {
            let (guest, names) = (&guest, &names);
            scope.spawn(move || {
                for _ in 0..5 {
                    assert_eq!(readdir_all(guest, open, room).len(), names.len());
                }
            });
        }
    });
    guest.fs.releasedir(&released(open)).unwrap();
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn opendir_replies_with_the_flags_of_the_policy() {
    let guest = Guest::with(Settings::new(CachePolicy::Metadata));
    let opened = guest.fs.opendir(ROOT, OpenFlags::empty()).unwrap();
    let kept = OpenReplyFlags::KEEP_CACHE | OpenReplyFlags::CACHE_DIR;
    assert_eq!(opened.flags, kept);
    drop(opened);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}
