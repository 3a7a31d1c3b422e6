//! What: what a guest is told that it may cache, over a real socket. What a real guest makes of
//! it is counted in tests/guest/40-requests.sh.

mod common;

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use common::client::Client;
use common::request::{ENTRY_OUT, ROOT, init, op};
use common::session_data::At;
use common::share::Share;
use common::sys::MappedPage;

const KEEP_CACHE: u32 = 1 << 1;

#[test]
fn cache_mode_sets_what_init_agrees_on() {
    let mask = init::CACHE_SYMLINKS
        | init::DIRECT_IO_ALLOW_MMAP
        | init::AUTO_INVAL_DATA
        | init::EXPLICIT_INVAL_DATA;
    let (links, mmap) = (init::CACHE_SYMLINKS, init::DIRECT_IO_ALLOW_MMAP);
    for (mode, expected) in [
        ("never", init::AUTO_INVAL_DATA | mmap),
        ("metadata", init::AUTO_INVAL_DATA | mmap | links),
        ("auto", init::AUTO_INVAL_DATA | mmap | links),
        ("always", init::EXPLICIT_INVAL_DATA | mmap | links),
    ] {
        let share = Share::new();
        let client = Client::with_args(&share, &["--cache", mode]);
        assert_eq!(client.flags & mask, expected, "{mode}");
    }
}

/// A negative entry is all zero but for the time for which it holds.
#[test]
fn lookup_of_a_missing_name_is_a_negative_entry_where_the_guest_is_alone() {
    let day = 86_400_u64.to_le_bytes();
    for mode in ["metadata", "always"] {
        let share = Share::new();
        let mut client = Client::with_args(&share, &["--cache", mode]);
        let reply = client
            .call(op::LOOKUP, ROOT, b"missing\0", ENTRY_OUT)
            .unwrap();
        let mut expected = [0; ENTRY_OUT];
        expected[16..24].copy_from_slice(&day);
        assert_eq!(reply, expected, "{mode}");
        // What is made later is found.
        share.write("missing", b"");
        assert_ne!(client.lookup(ROOT, "missing").unwrap().node, 0, "{mode}");
    }
    for mode in ["never", "auto"] {
        let share = Share::new();
        let mut client = Client::with_args(&share, &["--cache", mode]);
        let missing = client.lookup(ROOT, "missing");
        assert_eq!(missing.unwrap_err(), libc::ENOENT, "{mode}");
    }
}

#[test]
fn time_outs_set_for_how_long_a_missing_name_is_believed() {
    for (args, valid) in [
        (&["--negative-timeout=1.5"][..], Some((1, 500_000_000))),
        (&["--cache=always", "--timeout=7"], Some((7, 0))),
        (&["--cache=always", "--entry-timeout=7"], Some((7, 0))),
        (&["--cache=always", "--attr-timeout=7"], Some((86_400, 0))),
        (&["--cache=always", "--timeout=0"], None),
        (&["--cache=always", "--negative-timeout=0"], None),
        (&["--cache=auto", "--timeout=7"], None),
    ] {
        let share = Share::new();
        let mut client = Client::with_args(&share, args);
        let missing = client.lookup(ROOT, "missing");
        let believed = missing.map(|entry| (entry.node, entry.entry_valid)).ok();
        assert_eq!(believed, valid.map(|valid| (0, valid)), "{args:?}");
    }
}

/// A second write to a mapped page moves no time, so a daemon that goes by times alone would let
/// the guest keep the first.
#[test]
fn host_that_writes_through_a_mapping_is_never_missed() {
    let share = Share::new();
    let path = share.write("file", &[0; 4096]);
    let mut client = Client::with_args(&share, &["--cache", "auto"]);
    let node = client.node("file");
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let page = MappedPage::new(&file);
    page.store(1);
    let first = client.open(node, libc::O_RDONLY).unwrap();
    let at = At {
        node,
        fh: first.fh,
        offset: 0,
    };
    assert_eq!(client.read(at, 1).unwrap(), [1]);
    let before = (share.stat("file").ctime(), share.stat("file").ctime_nsec());
    page.store(2);
    let after = (share.stat("file").ctime(), share.stat("file").ctime_nsec());
    if before != after {
        println!("this file system dates every write through a mapping");
    }
    let second = client.open(node, libc::O_RDONLY).unwrap();
    assert_eq!(second.flags & KEEP_CACHE, 0);
}

#[test]
fn no_open_spares_the_guest_open_and_release() {
    let share = Share::new();
    share.write("file", b"contents");
    let mut client = Client::with_args(&share, &["--no-open"]);
    let mask = init::NO_OPEN_SUPPORT | init::ATOMIC_O_TRUNC;
    assert_eq!(client.flags & mask, init::NO_OPEN_SUPPORT);
    let node = client.node("file");
    let open = client.open(node, libc::O_RDWR);
    assert_eq!(open.unwrap_err(), libc::ENOSYS);
    let file = At {
        node,
        fh: 0,
        offset: 0,
    };
    assert_eq!(client.read(file, 20).unwrap(), b"contents");
    assert_eq!(client.write(file, b"C"), Ok(1));
    assert_eq!(client.read(file, 20).unwrap(), b"Contents");
    client.fsync(node, 0).unwrap();
    client.release(node, 0).unwrap();
    let mode = libc::S_IFREG | 0o600;
    let (created, opened) = client.create(ROOT, "new", mode, libc::O_WRONLY).unwrap();
    assert_eq!(opened.fh, 0);
    let new = At {
        node: created.node,
        ..file
    };
    assert_eq!(client.write(new, b"new"), Ok(3));
    assert_eq!(client.read(new, 20).unwrap(), b"new");
}

#[test]
fn no_opendir_spares_the_guest_opendir_and_releasedir() {
    let share = Share::new();
    for index in 0..300 {
        share.write(&format!("file-{index}"), b"");
    }
    let mut client = Client::with_args(&share, &["--no-opendir"]);
    assert_ne!(client.flags & init::NO_OPENDIR_SUPPORT, 0);
    assert_ne!(client.flags & init::ATOMIC_O_TRUNC, 0);
    assert_eq!(client.opendir(ROOT).unwrap_err(), libc::ENOSYS);
    let mut offset = 0;
    let mut count = 0;
    loop {
        let at = At {
            node: ROOT,
            fh: 0,
            offset,
        };
        let part = client.readdir_once(at, 1_000, false).unwrap();
        let Some(last) = part.last() else {
            break;
        };
        offset = last.offset;
        count += part.len();
    }
    assert_eq!(count, 302);
    client.fsyncdir(ROOT, 0).unwrap();
    client.releasedir(ROOT, 0).unwrap();
}

#[test]
fn no_readdir_makes_directories_look_empty() {
    let share = Share::new();
    share.write("file", b"");
    let mut client = Client::with_args(&share, &["--no-readdir"]);
    assert_eq!(client.flags & init::DO_READDIRPLUS, 0);
    assert!(client.list(ROOT, 4096, false).is_empty());
    assert!(client.list(ROOT, 4096, true).is_empty());
    assert_ne!(client.node("file"), 0);
}
