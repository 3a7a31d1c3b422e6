//! What: attributes over a real socket: GETATTR, SETATTR, STATX, STATFS, ACCESS, cache times.
//!
//! Each success is checked on the host's side too. Errors: those that `fs::filesystem` names.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use common::client::Client;
use common::request::{Attr, ROOT, SetAttr};
use common::session_data::At;
use common::share::Share;

const MODE: u32 = 1 << 0;
const UID: u32 = 1 << 1;
const GID: u32 = 1 << 2;
const SIZE: u32 = 1 << 3;
const ATIME: u32 = 1 << 4;
const MTIME: u32 = 1 << 5;
const FH: u32 = 1 << 6;
const ATIME_NOW: u32 = 1 << 7;
const MTIME_NOW: u32 = 1 << 8;
const KILL_SUIDGID: u32 = 1 << 11;

const STATX_BASIC_STATS: u32 = 0x7ff;
const STATX_BTIME: u32 = 0x800;

fn assert_same(attr: &Attr, host: &fs::Metadata) {
    assert_eq!(attr.ino, host.ino(), "ino");
    assert_eq!(attr.size, host.size(), "size");
    assert_eq!(attr.blocks, host.blocks(), "blocks");
    assert_eq!(attr.mode, host.mode(), "mode");
    assert_eq!(u64::from(attr.nlink), host.nlink(), "nlink");
    assert_eq!((attr.uid, attr.gid), (host.uid(), host.gid()), "owner");
    let time = |secs: i64, nanos: i64| {
        (
            u64::try_from(secs).expect("after 1970"),
            u32::try_from(nanos).expect("below a second"),
        )
    };
    assert_eq!(attr.mtime, time(host.mtime(), host.mtime_nsec()), "mtime");
    assert_eq!(attr.ctime, time(host.ctime(), host.ctime_nsec()), "ctime");
    assert_eq!(u64::from(attr.blksize), host.blksize(), "blksize");
}

#[test]
fn getattr_of_root_file_directory_and_link_equals_the_hosts() {
    let share = Share::new();
    share.write("file", b"twelve bytes");
    share.mkdir("dir");
    std::os::unix::fs::symlink("file", share.at("link")).unwrap();
    let mut client = Client::with_args(&share, &[]);
    assert_same(&client.getattr(ROOT, None).unwrap().attr, &share.stat(""));
    for name in ["file", "dir", "link"] {
        let entry = client.lookup(ROOT, name).unwrap();
        assert_same(&entry.attr, &share.stat(name));
        let attr = client.getattr(entry.node, None).unwrap().attr;
        assert_same(&attr, &share.stat(name));
    }
    assert!(client.shut_down().success());
}

#[test]
fn getattr_through_the_handle_of_an_unlinked_file_works() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    let (node, fh) = client.make_file(ROOT, "gone", b"12345");
    client.unlink(ROOT, "gone").unwrap();
    let attr = client.getattr(node, Some(fh)).unwrap().attr;
    assert_eq!((attr.size, attr.nlink), (5, 0));
    let attr = client.getattr(node, None).unwrap().attr;
    assert_eq!((attr.size, attr.nlink), (5, 0));
}

#[test]
fn getattr_of_unknown_node_or_handle_returns_ebadf() {
    let share = Share::new();
    share.write("file", b"");
    let mut client = Client::with_args(&share, &[]);
    for node in [0, 2, 99, 1 << 32, u64::MAX] {
        assert_eq!(client.getattr(node, None), Err(libc::EBADF), "{node}");
    }
    let node = client.node("file");
    assert_eq!(client.getattr(node, Some(4711)), Err(libc::EBADF));
    client.forget(node, 1);
    assert_eq!(client.getattr(node, None), Err(libc::EBADF));
}

#[test]
fn setattr_mode_changes_permissions_on_the_host() {
    let share = Share::new();
    share.write("file", b"");
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("file");
    for mode in [0o640, 0o4755, 0o2711, 0o1777, 0] {
        let changes = SetAttr {
            valid: MODE,
            mode: libc::S_IFREG | mode,
            ..SetAttr::default()
        };
        let attr = client.setattr(node, &changes).unwrap().attr;
        assert_eq!(attr.mode, libc::S_IFREG | mode);
        assert_eq!(share.stat("file").mode(), libc::S_IFREG | mode);
    }
}

#[test]
fn setattr_owner_changes_each_id_alone() {
    if !common::is_root_or_skip("setattr_owner_changes_each_id_alone") {
        return;
    }
    let share = Share::new();
    share.write("file", b"");
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("file");
    let mut change = |valid, uid, gid| {
        let changes = SetAttr {
            valid,
            uid,
            gid,
            ..SetAttr::default()
        };
        let attr = client.setattr(node, &changes).unwrap().attr;
        (attr.uid, attr.gid)
    };
    assert_eq!(change(UID, 1001, 55), (1001, 0));
    assert_eq!(change(GID, 55, 1002), (1001, 1002));
    assert_eq!(change(UID | GID, 7, 8), (7, 8));
    assert_eq!((share.stat("file").uid(), share.stat("file").gid()), (7, 8));
}

#[test]
fn setattr_owner_of_a_symlink_leaves_its_target_alone() {
    if !common::is_root_or_skip("setattr_owner_of_a_symlink_leaves_its_target_alone") {
        return;
    }
    let share = Share::new();
    share.write("file", b"");
    std::os::unix::fs::symlink("file", share.at("link")).unwrap();
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("link");
    let changes = SetAttr {
        valid: UID,
        uid: 1001,
        ..SetAttr::default()
    };
    client.setattr(node, &changes).unwrap();
    assert_eq!(
        (share.stat("link").uid(), share.stat("file").uid()),
        (1001, 0)
    );
}

#[test]
fn setattr_size_truncates_and_extends_with_and_without_handle() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    let (node, fh) = client.make_file(ROOT, "file", b"0123456789");
    for (valid, size) in [
        (SIZE, 4),
        (SIZE | FH, 2),
        (SIZE, 5000),
        (SIZE | FH, 1 << 33),
    ] {
        let changes = SetAttr {
            valid,
            fh,
            size,
            ..SetAttr::default()
        };
        let attr = client.setattr(node, &changes).unwrap().attr;
        assert_eq!(attr.size, size);
        assert_eq!(share.stat("file").len(), size);
    }
    let start = common::session_data::At {
        node,
        fh,
        offset: 0,
    };
    assert_eq!(client.read(start, 4).unwrap(), b"01\0\0");
}

#[test]
fn setattr_size_of_a_directory_fails_and_changes_nothing() {
    let share = Share::new();
    share.mkdir("dir");
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("dir");
    let changes = SetAttr {
        valid: SIZE,
        ..SetAttr::default()
    };
    let result = client.setattr(node, &changes);
    assert!(
        matches!(result, Err(libc::EISDIR | libc::EINVAL | libc::EBADF)),
        "{result:?}"
    );
}

#[test]
fn setattr_size_of_a_fifo_neither_hangs_nor_succeeds() {
    let share = Share::new();
    common::sys::mknod(&share.at("fifo"), libc::S_IFIFO | 0o644, 0).unwrap();
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("fifo");
    let changes = SetAttr {
        valid: SIZE,
        ..SetAttr::default()
    };
    assert!(client.setattr(node, &changes).is_err());
}

#[test]
fn setattr_size_with_kill_suidgid_clears_set_id_bits() {
    let share = Share::new();
    let path = share.write("file", b"data");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).unwrap();
    let mut client = Client::with_args(&share, &["--killpriv-v2"]);
    if !client.kills_set_ids_or_skip("setattr_size_with_kill_suidgid_clears_set_id_bits") {
        return;
    }
    let node = client.node("file");
    let changes = SetAttr {
        valid: SIZE | KILL_SUIDGID,
        size: 1,
        ..SetAttr::default()
    };
    client.setattr(node, &changes).unwrap();
    assert_eq!(share.stat("file").mode() & 0o7777, 0o755);
}

#[test]
fn setattr_times_sets_each_alone_and_now() {
    let share = Share::new();
    share.write("file", b"");
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("file");
    let before = share.stat("file");
    let atime_only = SetAttr {
        valid: ATIME,
        atime: (1_000_000, 123_456_789),
        mtime: (5, 5),
        ..SetAttr::default()
    };
    client.setattr(node, &atime_only).unwrap();
    let host = share.stat("file");
    assert_eq!((host.atime(), host.atime_nsec()), (1_000_000, 123_456_789));
    assert_eq!(
        (host.mtime(), host.mtime_nsec()),
        (before.mtime(), before.mtime_nsec())
    );
    let mtime_only = SetAttr {
        valid: MTIME,
        mtime: (2_000_000, 999_999_999),
        ..SetAttr::default()
    };
    let attr = client.setattr(node, &mtime_only).unwrap().attr;
    assert_eq!(attr.mtime, (2_000_000, 999_999_999));
    assert_eq!(attr.atime, (1_000_000, 123_456_789));
    let now = SetAttr {
        valid: ATIME | ATIME_NOW | MTIME | MTIME_NOW,
        ..SetAttr::default()
    };
    client.setattr(node, &now).unwrap();
    let host = share.stat("file");
    assert!(host.atime() >= before.mtime() && host.mtime() >= before.mtime());
}

#[test]
fn setattr_times_before_1970_are_kept() {
    let share = Share::new();
    share.write("file", b"");
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("file");
    let changes = SetAttr {
        valid: MTIME,
        mtime: (1_u64.wrapping_neg(), 500_000_000),
        ..SetAttr::default()
    };
    client.setattr(node, &changes).unwrap();
    let host = share.stat("file");
    assert_eq!((host.mtime(), host.mtime_nsec()), (-1, 500_000_000));
}

#[test]
fn setattr_times_with_a_second_of_nanoseconds_return_einval() {
    let share = Share::new();
    share.write("file", b"");
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("file");
    for nanos in [1_000_000_000, u32::MAX, 0x3fff_ffff, 0x3fff_fffe] {
        let changes = SetAttr {
            valid: MTIME,
            mtime: (1, nanos),
            ..SetAttr::default()
        };
        assert_eq!(client.setattr(node, &changes), Err(libc::EINVAL), "{nanos}");
    }
}

#[test]
fn setattr_of_unknown_node_or_handle_returns_ebadf() {
    let share = Share::new();
    share.write("file", b"data");
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("file");
    let mut changes = SetAttr {
        valid: SIZE | FH,
        fh: 4711,
        ..SetAttr::default()
    };
    assert_eq!(client.setattr(node, &changes), Err(libc::EBADF));
    changes.valid = SIZE;
    assert_eq!(client.setattr(4711, &changes), Err(libc::EBADF));
    assert_eq!(share.read("file"), b"data");
}

#[test]
fn statx_tells_the_hosts_birth_time() {
    let share = Share::new();
    let path = share.write("file", b"abc");
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("file");
    let statx = client.statx(node, STATX_BASIC_STATS | STATX_BTIME).unwrap();
    let host = share.stat("file");
    assert_eq!(statx.mask & STATX_BASIC_STATS, STATX_BASIC_STATS);
    assert_eq!((statx.ino, statx.size), (host.ino(), 3));
    assert_eq!(u32::from(statx.mode), host.mode());
    assert_eq!(
        (statx.uid, statx.gid, statx.nlink),
        (host.uid(), host.gid(), 1)
    );
    assert_eq!(statx.mtime.0, host.mtime());
    let has_birth_time = statx.mask & STATX_BTIME != 0;
    let birth_time = has_birth_time.then_some(statx.btime);
    assert_eq!(birth_time, common::sys::birth_time(&path));
}

#[test]
fn statx_of_unknown_node_returns_ebadf() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    assert_eq!(client.statx(4711, STATX_BASIC_STATS), Err(libc::EBADF));
}

#[test]
fn statfs_gives_the_hosts_totals() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    let statfs = client.statfs(ROOT).unwrap();
    assert_eq!(statfs.name_len_max, 255);
    assert!(statfs.blocks > 0 && statfs.blocks_free <= statfs.blocks);
    assert!(statfs.fragment_size >= 512 && statfs.block_size >= 512);
    assert_eq!(client.statfs(4711), Err(libc::EBADF));
}

#[test]
fn access_judges_by_owner_group_and_others() {
    if !common::is_root_or_skip("access_judges_by_owner_group_and_others") {
        return;
    }
    let share = Share::new();
    let path = share.write("file", b"");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&path, Some(1000), Some(2000)).unwrap();
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("file");
    let cases = [
        ((1000, 1), libc::R_OK | libc::W_OK, Ok(())),
        ((1000, 1), libc::X_OK, Err(libc::EACCES)),
        ((1, 2000), libc::R_OK, Ok(())),
        ((1, 2000), libc::W_OK, Err(libc::EACCES)),
        ((1, 1), libc::R_OK, Err(libc::EACCES)),
        ((1, 1), libc::F_OK, Ok(())),
        ((0, 0), libc::R_OK | libc::W_OK, Ok(())),
        ((0, 0), libc::X_OK, Err(libc::EACCES)),
    ];
    for ((uid, gid), mask, expected) in cases {
        client.uid = uid;
        client.gid = gid;
        let mask = u32::try_from(mask).unwrap();
        assert_eq!(
            client.access(node, mask),
            expected,
            "{uid}/{gid} asks {mask}"
        );
    }
    assert_eq!(client.access(4711, 0), Err(libc::EBADF));
}

/// Seconds for which names and attributes may be cached, by cache mode.
#[test]
fn cache_mode_sets_the_time_outs() {
    for (mode, secs) in [
        ("never", 0),
        ("auto", 1),
        ("always", 86400),
        ("metadata", 86400),
    ] {
        let share = Share::new();
        share.write("file", b"");
        let mut client = Client::with_args(&share, &["--cache", mode]);
        let entry = client.lookup(ROOT, "file").unwrap();
        assert_eq!(entry.entry_valid, (secs, 0), "{mode}: entry");
        assert_eq!(
            entry.attr_valid,
            (secs, 0),
            "{mode}: attributes in an entry"
        );
        let attr = client.getattr(entry.node, None).unwrap();
        assert_eq!(attr.valid, (secs, 0), "{mode}: attributes");
        let set = client.setattr(entry.node, &SetAttr::default()).unwrap();
        assert_eq!(set.valid, (secs, 0), "{mode}: attributes that were set");
    }
}

/// A guest that holds back writes owns the times: what it writes out later must not move them,
/// and what it says last counts.
#[test]
fn setattr_times_under_writeback_are_those_of_the_guest() {
    const CTIME: u32 = 1 << 10;
    const FH: u32 = 1 << 6;
    const WRITE_CACHE: u32 = 1 << 0;
    let share = Share::new();
    share.write("file", b"contents");
    let mut client = Client::with_args(&share, &["--writeback"]);
    let node = client.node("file");
    let fh = client.open(node, libc::O_WRONLY).unwrap().fh;
    let at = At {
        node,
        fh,
        offset: 0,
    };
    let flushed = |secs: u64| SetAttr {
        valid: MTIME | CTIME | FH,
        fh,
        mtime: (secs, 5),
        ..SetAttr::default()
    };
    client.setattr(node, &flushed(1_000_000)).unwrap();
    assert_eq!(share.stat("file").mtime(), 1_000_000);
    // Pages that were written before the times were set are written out before them, too; the
    // next ones come with times of their own.
    let written = client.write_with(at, b"C", WRITE_CACHE, libc::O_WRONLY);
    assert_eq!(written, Ok(1));
    let attr = client.setattr(node, &flushed(2_000_000)).unwrap().attr;
    assert_eq!(attr.mtime, (2_000_000, 5));
    let host = share.stat("file");
    assert_eq!((host.mtime(), host.mtime_nsec()), (2_000_000, 5));
    // The change time belongs to the host; asking for it alone is no error.
    let ctime_only = SetAttr {
        valid: CTIME | FH,
        fh,
        ..SetAttr::default()
    };
    let attr = client.setattr(node, &ctime_only).unwrap().attr;
    assert_eq!(attr.mtime, (2_000_000, 5));
    client.flush(node, fh).unwrap();
    client.release(node, fh).unwrap();
    assert_eq!(share.stat("file").mtime(), 2_000_000);
    assert_eq!(share.read("file"), b"Contents");
}
