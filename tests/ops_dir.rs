//! What: OPENDIR, READDIR, READDIRPLUS, RELEASEDIR, FSYNCDIR over a real socket.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use common::client::Client;
use common::request::{Dirent, ROOT, init, op};
use common::session_data::{At, read_body};
use common::share::Share;

fn names(dirents: &[Dirent]) -> BTreeSet<String> {
    let names: BTreeSet<String> = dirents
        .iter()
        .map(|dirent| String::from_utf8_lossy(&dirent.name).into_owned())
        .collect();
    assert_eq!(names.len(), dirents.len(), "a name came twice");
    names
}

fn populated(count: usize) -> (Share, BTreeSet<String>) {
    let share = Share::new();
    let mut expected: BTreeSet<String> = [".", ".."].map(str::to_owned).into();
    for index in 0..count {
        // Names of many lengths, so that replies end at every alignment.
        let name = format!("{index}-{}", "n".repeat(index % 40));
        share.write(&name, b"");
        expected.insert(name);
    }
    (share, expected)
}

#[test]
fn readdir_in_any_reply_size_lists_every_name_once() {
    let (share, expected) = populated(300);
    let mut client = Client::with_args(&share, &[]);
    for size in [300, 512, 4096, 32_768, 1 << 20] {
        for plus in [false, true] {
            let listed = names(&client.list(ROOT, size, plus));
            assert_eq!(listed, expected, "size {size} plus {plus}");
        }
    }
}

#[test]
fn readdir_gives_inode_numbers_and_types() {
    let share = Share::new();
    share.write("file", b"");
    share.mkdir("dir");
    symlink("file", share.at("link")).unwrap();
    common::sys::mknod(&share.at("fifo"), libc::S_IFIFO | 0o644, 0).unwrap();
    let mut client = Client::with_args(&share, &[]);
    let listed = client.list(ROOT, 4096, false);
    let kinds = [
        ("file", libc::DT_REG),
        ("dir", libc::DT_DIR),
        ("link", libc::DT_LNK),
        ("fifo", libc::DT_FIFO),
    ];
    for (name, kind) in kinds {
        let dirent = listed.iter().find(|dirent| dirent.name == name.as_bytes());
        let dirent = dirent.unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(dirent.ino, share.stat(name).ino(), "{name}");
        assert_eq!(dirent.kind, u32::from(kind), "{name}");
    }
}

#[test]
fn readdirplus_grants_a_lookup_for_all_but_dot_and_dotdot() {
    let share = Share::new();
    share.write("file", b"12345");
    share.mkdir("dir");
    let mut client = Client::with_args(&share, &[]);
    let fh = client.opendir(ROOT).unwrap().fh;
    let at = At {
        node: ROOT,
        fh,
        offset: 0,
    };
    for dirent in client.readdir_once(at, 8192, true).unwrap() {
        let entry = dirent.entry.unwrap();
        let name = String::from_utf8_lossy(&dirent.name).into_owned();
        if name == "." || name == ".." {
            assert_eq!(entry.node, 0, "{name}");
            continue;
        }
        assert_eq!(entry.attr.ino, share.stat(&name).ino());
        assert_eq!(entry.attr.size, share.stat(&name).len());
        assert_eq!(client.lookup(ROOT, &name).unwrap().node, entry.node);
        client.forget(entry.node, 2);
        let forgotten = client.getattr(entry.node, None);
        assert_eq!(forgotten, Err(libc::EBADF), "{name}: lookups were 2");
    }
}

#[test]
fn readdir_from_a_cookie_goes_on_after_that_entry() {
    let (share, _) = populated(50);
    let mut client = Client::with_args(&share, &[]);
    let all = client.list(ROOT, 4096, false);
    let fh = client.opendir(ROOT).unwrap().fh;
    for index in [0, 1, 10, 25, 48, 3, 51] {
        let at = At {
            node: ROOT,
            fh,
            offset: all[index].offset,
        };
        let rest = client.readdir_once(at, 4096, false).unwrap();
        let next = all.get(index + 1).map(|dirent| dirent.name.clone());
        let got = rest.first().map(|dirent| dirent.name.clone());
        assert_eq!(got, next, "after entry {index}");
    }
}

#[test]
fn readdir_from_the_start_sees_new_entries() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    let fh = client.opendir(ROOT).unwrap().fh;
    let at = At {
        node: ROOT,
        fh,
        offset: 0,
    };
    assert_eq!(client.readdir_once(at, 4096, false).unwrap().len(), 2);
    share.write("new", b"");
    assert_eq!(client.readdir_once(at, 4096, false).unwrap().len(), 3);
}

#[test]
fn readdir_with_room_for_no_entry_is_einval_or_empty() {
    let share = Share::new();
    share.write(&"n".repeat(200), b"");
    let mut client = Client::with_args(&share, &[]);
    let fh = client.opendir(ROOT).unwrap().fh;
    for size in [0, 1, 8, 23] {
        let body = read_body(
            At {
                node: ROOT,
                fh,
                offset: 0,
            },
            size,
            0,
        );
        let reply = client.call(op::READDIR, ROOT, &body, common::usize_of(size));
        assert!(
            matches!(reply.as_deref(), Ok([]) | Err(&libc::EINVAL)),
            "size {size}: {reply:?}"
        );
    }
}

#[test]
fn readdir_with_huge_size_is_cut_to_the_reply_room() {
    let (share, expected) = populated(200);
    let mut client = Client::with_args(&share, &[]);
    let fh = client.opendir(ROOT).unwrap().fh;
    let mut listed = BTreeSet::new();
    let mut offset = 0;
    for _ in 0..100 {
        let at = At {
            node: ROOT,
            fh,
            offset,
        };
        let body = read_body(at, u32::MAX, 0);
        let reply = client.call(op::READDIR, ROOT, &body, 1000).unwrap();
        let part = common::request::parse_dirents(&reply, false);
        let Some(last) = part.last() else { break };
        offset = last.offset;
        listed.extend(names(&part));
    }
    assert_eq!(listed, expected);
}

#[test]
fn readdir_on_wrong_handles_fails() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    let (node, fh) = client.make_file(ROOT, "file", b"");
    let dir_fh = client.opendir(ROOT).unwrap().fh;
    let at = |node, fh| At {
        node,
        fh,
        offset: 0,
    };
    for plus in [false, true] {
        let on_file = client.readdir_once(at(node, fh), 4096, plus);
        assert_eq!(on_file, Err(libc::ENOTDIR));
        let unknown = client.readdir_once(at(ROOT, 4711), 4096, plus);
        assert_eq!(unknown, Err(libc::EBADF));
        let of_another = client.readdir_once(at(node, dir_fh), 4096, plus);
        assert_eq!(of_another, Err(libc::EBADF));
    }
}

#[test]
fn readdir_with_wild_cookies_never_harms() {
    let (share, expected) = populated(20);
    let mut client = Client::with_args(&share, &[]);
    let fh = client.opendir(ROOT).unwrap().fh;
    for offset in [
        1,
        7,
        u64::MAX,
        1 << 63,
        (1 << 63) - 1,
        0x1234_5678_9abc_def0,
    ] {
        let at = At {
            node: ROOT,
            fh,
            offset,
        };
        if let Ok(part) = client.readdir_once(at, 4096, false) {
            assert!(names(&part).is_subset(&expected));
        }
    }
    let all = names(&client.list(ROOT, 4096, false));
    assert_eq!(all, expected);
}

#[test]
fn opendir_of_no_directory_returns_enotdir() {
    let share = Share::new();
    share.write("file", b"");
    symlink(".", share.at("link")).unwrap();
    common::sys::mknod(&share.at("fifo"), libc::S_IFIFO | 0o644, 0).unwrap();
    let mut client = Client::with_args(&share, &[]);
    for name in ["file", "link", "fifo"] {
        let node = client.node(name);
        assert_eq!(client.opendir(node), Err(libc::ENOTDIR), "{name}");
    }
    assert_eq!(client.opendir(4711), Err(libc::EBADF));
}

#[test]
fn fsyncdir_works_and_releasedir_ends_the_handle() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    let fh = client.opendir(ROOT).unwrap().fh;
    client.fsyncdir(ROOT, fh).unwrap();
    client.releasedir(ROOT, fh).unwrap();
    assert_eq!(client.fsyncdir(ROOT, fh), Err(libc::EBADF));
    assert_eq!(client.releasedir(ROOT, fh), Err(libc::EBADF));
}

#[test]
fn two_handles_of_one_directory_do_not_disturb_each_other() {
    let (share, expected) = populated(100);
    let mut client = Client::with_args(&share, &[]);
    let handles = [
        client.opendir(ROOT).unwrap().fh,
        client.opendir(ROOT).unwrap().fh,
    ];
    let mut listed = [Vec::new(), Vec::new()];
    for _ in 0..200 {
        for (fh, list) in handles.iter().zip(&mut listed) {
            let at = At {
                node: ROOT,
                fh: *fh,
                offset: list.last().map_or(0, |dirent: &Dirent| dirent.offset),
            };
            list.extend(client.readdir_once(at, 400, false).unwrap());
        }
    }
    for list in &listed {
        assert_eq!(names(list), expected);
    }
}

#[test]
fn readdirplus_is_offered_unless_switched_off_or_never_cached() {
    for (args, offered) in [
        (vec![], true),
        (vec!["--no-readdirplus"], false),
        (vec!["--cache", "never"], false),
        (vec!["--cache", "always"], true),
    ] {
        let share = Share::new();
        let client = Client::with_args(&share, &args);
        let both = init::DO_READDIRPLUS | init::READDIRPLUS_AUTO;
        let expected = if offered { both } else { 0 };
        assert_eq!(client.flags & both, expected, "{args:?}");
    }
}

#[test]
fn readdirplus_of_entries_that_vanish_keeps_the_rest() {
    let (share, _) = populated(100);
    let mut client = Client::with_args(&share, &[]);
    let fh = client.opendir(ROOT).unwrap().fh;
    let mut offset = 0;
    let mut count = 0;
    loop {
        let at = At {
            node: ROOT,
            fh,
            offset,
        };
        let part = client.readdir_once(at, 1500, true).unwrap();
        let Some(last) = part.last() else { break };
        offset = last.offset;
        count += part.len();
        // The host removes half of what is left.
        for name in share.names("").iter().step_by(2) {
            fs::remove_file(share.at(name)).unwrap();
        }
    }
    assert!(count >= 2, "dot and dotdot never vanish");
    client.getattr(ROOT, None).unwrap();
}
