//! GETATTR, STATX, SETATTR, ACCESS, STATFS.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::Duration;

use super::share::{
    Guest, NO_HANDLE, NO_NODE, NOTHING_LEFT, ROOT, caller, is_root_or_says_why_not, released,
};
use crate::fs::filesystem::{AttrChanges, FileSystem, SetTime};
use crate::fs::types::{NodeId, Timestamp};
use crate::ids::types::{GuestGid, GuestUid};
use crate::passthrough::attr::{decode_device, encode_device};
use crate::passthrough::settings::{CachePolicy, Settings};
use crate::sys::errno::Errno;
use crate::sys::meta::DeviceNumber;

const NONE: AttrChanges = AttrChanges {
    mode: None,
    uid: None,
    gid: None,
    size_bytes: None,
    atime: None,
    mtime: None,
    kill_suid_sgid: false,
};

fn set(guest: &Guest, node: NodeId, changes: &AttrChanges) -> Result<(), Errno> {
    guest.fs.setattr(node, None, changes).map(drop)
}

#[test]
fn getattr_uses_the_handle_and_refuses_wrong_ones() {
    let guest = Guest::new();
    let open = guest.create(c"file");
    guest.write(open, 0, b"12345").unwrap();
    let by_handle = guest.fs.getattr(open.node, Some(open.handle)).unwrap();
    assert_eq!(by_handle, guest.fs.getattr(open.node, None).unwrap());
    assert_eq!(by_handle.attr.size, 5);
    assert_eq!(by_handle.valid, Duration::from_secs(1));
    let refused = |node, handle| guest.fs.getattr(node, handle).unwrap_err();
    assert_eq!(refused(open.node, Some(NO_HANDLE)), Errno::EBADF);
    assert_eq!(refused(ROOT, Some(open.handle)), Errno::EBADF);
    assert_eq!(refused(NO_NODE, None), Errno::EBADF);
    let dir = guest.opendir(ROOT);
    assert!(guest.fs.getattr(ROOT, Some(dir.handle)).is_ok());
    guest.fs.releasedir(&released(dir)).unwrap();
    guest.close(open);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn getattr_under_cache_never_is_valid_for_no_time() {
    let guest = Guest::with(Settings::new(CachePolicy::Never));
    assert_eq!(guest.fs.getattr(ROOT, None).unwrap().valid, Duration::ZERO);
}

#[test]
fn statx_tells_of_birth_and_device() {
    let guest = Guest::new();
    guest.share.write("file", b"x");
    let host = fs::metadata(guest.share.join("file")).unwrap();
    let node = guest.lookup(ROOT, c"file");
    let found = guest.fs.statx(node, None, 0xfff).unwrap().attr;
    let born = host.created().ok().map(|time| {
        let since = time.duration_since(std::time::UNIX_EPOCH).unwrap();
        (since.as_secs().try_into().unwrap(), since.subsec_nanos())
    });
    assert_eq!(found.btime.map(|time| (time.secs, time.nanos)), born);
    assert_eq!(found.mask & 0x7ff, 0x7ff);
    assert_eq!(found.mask & !0xfff, 0);
    let dev = libc_device(host.dev());
    assert_eq!(found.dev, dev);
    guest.forget(node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

/// Major and minor of a 64-bit `dev_t`, see makedev(3).
fn libc_device(dev: u64) -> (u32, u32) {
    let major = ((dev >> 32) & 0xffff_f000) | ((dev >> 8) & 0xfff);
    let minor = ((dev >> 12) & 0xffff_ff00) | (dev & 0xff);
    (major.try_into().unwrap(), minor.try_into().unwrap())
}

#[test]
fn setattr_changes_only_what_is_asked() {
    let guest = Guest::new();
    guest.share.write("file", b"0123456789");
    let path = guest.share.join("file");
    let node = guest.lookup(ROOT, c"file");
    let before = fs::metadata(&path).unwrap();
    let mode = AttrChanges {
        mode: Some(0o100_640),
        ..NONE
    };
    let changed = guest.fs.setattr(node, None, &mode).unwrap().attr;
    assert_eq!(changed.mode, 0o100_640);
    let size = AttrChanges {
        size_bytes: Some(4),
        ..NONE
    };
    assert_eq!(guest.fs.setattr(node, None, &size).unwrap().attr.size, 4);
    let times = AttrChanges {
        atime: Some(SetTime::To(Timestamp { secs: -7, nanos: 5 })),
        mtime: Some(SetTime::To(Timestamp {
            secs: 12,
            nanos: 999_999_999,
        })),
        ..NONE
    };
    set(&guest, node, &times).unwrap();
    let after = fs::metadata(&path).unwrap();
    assert_eq!((after.atime(), after.atime_nsec()), (-7, 5));
    assert_eq!((after.mtime(), after.mtime_nsec()), (12, 999_999_999));
    let now = AttrChanges {
        mtime: Some(SetTime::Now),
        ..NONE
    };
    set(&guest, node, &now).unwrap();
    let after = fs::metadata(&path).unwrap();
    assert!(after.mtime() >= before.mtime());
    assert_eq!(after.atime(), -7);
    assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
    assert_eq!(fs::read(&path).unwrap(), b"0123");
    guest.forget(node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn setattr_of_size_by_handle_and_beyond_limits() {
    let guest = Guest::new();
    let open = guest.create(c"file");
    let size = |bytes| AttrChanges {
        size_bytes: Some(bytes),
        ..NONE
    };
    let by_handle = |bytes| guest.fs.setattr(open.node, Some(open.handle), &size(bytes));
    assert_eq!(by_handle(9).unwrap().attr.size, 9);
    assert_eq!(by_handle(1 << 63).unwrap_err(), Errno::EINVAL);
    assert_eq!(set(&guest, open.node, &size(u64::MAX)), Err(Errno::EINVAL));
    assert_eq!(set(&guest, ROOT, &size(0)), Err(Errno::EISDIR));
    assert_eq!(set(&guest, NO_NODE, &size(0)), Err(Errno::EBADF));
    let read_only = guest.open(open.node, 0);
    let refused = guest
        .fs
        .setattr(open.node, Some(read_only.handle), &size(0));
    assert_eq!(refused.unwrap_err(), Errno::EINVAL);
    guest.fs.release(&released(read_only)).unwrap();
    guest.close(open);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn setattr_of_a_link_never_touches_its_target() {
    let guest = Guest::new();
    let canary = guest.share.path().with_file_name("canary");
    let before = fs::metadata(&canary).unwrap();
    symlink("../canary", guest.share.join("link")).unwrap();
    let link = guest.lookup(ROOT, c"link");
    let times = AttrChanges {
        mtime: Some(SetTime::To(Timestamp { secs: 1, nanos: 2 })),
        ..NONE
    };
    assert_eq!(
        guest
            .fs
            .setattr(link, None, &times)
            .unwrap()
            .attr
            .mtime
            .secs,
        1
    );
    let size = AttrChanges {
        size_bytes: Some(0),
        ..NONE
    };
    assert_eq!(set(&guest, link, &size), Err(Errno::EINVAL));
    let mode = AttrChanges {
        mode: Some(0o777),
        ..NONE
    };
    // Linux gives links no mode of their own; some of its file systems pretend.
    let _ = set(&guest, link, &mode);
    let after = fs::metadata(&canary).unwrap();
    assert_eq!(after.mtime(), before.mtime());
    assert_eq!(after.mode(), before.mode());
    guest.forget(link);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn setattr_of_owner_changes_each_id_alone() {
    if !is_root_or_says_why_not("setattr_of_owner_changes_each_id_alone") {
        return;
    }
    let guest = Guest::new();
    guest.share.write("file", b"");
    let node = guest.lookup(ROOT, c"file");
    let uid = AttrChanges {
        uid: GuestUid::new(1234),
        ..NONE
    };
    let attr = guest.fs.setattr(node, None, &uid).unwrap().attr;
    assert_eq!((attr.uid.raw(), attr.gid.raw()), (1234, 0));
    let gid = AttrChanges {
        gid: GuestGid::new(4321),
        ..NONE
    };
    let attr = guest.fs.setattr(node, None, &gid).unwrap().attr;
    assert_eq!((attr.uid.raw(), attr.gid.raw()), (1234, 4321));
    guest.forget(node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn access_follows_the_mode_bits() {
    if !is_root_or_says_why_not("access_follows_the_mode_bits") {
        return;
    }
    let guest = Guest::new();
    guest.share.write("file", b"");
    let path = guest.share.join("file");
    std::os::unix::fs::chown(&path, Some(100), Some(200)).unwrap();
    let node = guest.lookup(ROOT, c"file");
    let with_group = |gid| crate::fs::types::Caller {
        supplementary_gid: GuestGid::new(gid),
        ..caller(7, 7)
    };
    for (mode, who, mask, expected) in [
        (0o640, caller(100, 7), 6, Ok(())),
        (0o640, caller(100, 7), 1, Err(Errno::EACCES)),
        (0o640, caller(7, 200), 4, Ok(())),
        (0o640, caller(7, 200), 2, Err(Errno::EACCES)),
        (0o640, with_group(200), 4, Ok(())),
        (0o640, with_group(201), 4, Err(Errno::EACCES)),
        (0o640, caller(7, 7), 4, Err(Errno::EACCES)),
        (0o640, caller(7, 7), 0, Ok(())),
        (0o047, caller(100, 200), 4, Err(Errno::EACCES)),
        (0o007, caller(u32::MAX, u32::MAX), 7, Ok(())),
        (0o770, caller(u32::MAX, u32::MAX), 1, Err(Errno::EACCES)),
        (0o000, caller(0, 0), 6, Ok(())),
        (0o000, caller(0, 0), 1, Err(Errno::EACCES)),
        (0o010, caller(0, 0), 1, Ok(())),
        (0o777, caller(0, 0), 8, Err(Errno::EINVAL)),
    ] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let answer = guest.fs.access(&who, node, mask);
        assert_eq!(answer, expected, "{mode:o} {who:?} {mask}");
    }
    assert_eq!(
        guest.fs.access(&caller(0, 0), NO_NODE, 0),
        Err(Errno::EBADF)
    );
    guest.forget(node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn statfs_tells_of_the_file_system() {
    let guest = Guest::new();
    let totals = guest.fs.statfs(ROOT).unwrap();
    assert!(totals.blocks >= totals.blocks_free);
    assert!(totals.fragment_size_bytes >= 512);
    assert!(totals.name_len_max >= 255);
    assert_eq!(guest.fs.statfs(NO_NODE), Err(Errno::EBADF));
}

#[test]
fn device_numbers_survive_the_protocol() {
    for (major, minor, encoded) in [
        (0, 0, 0),
        (1, 3, 0x103),
        (8, 255, 0x8ff),
        (8, 256, 0x10_0800),
        (0xfff, 0xf_ffff, u32::MAX),
    ] {
        let device = DeviceNumber { major, minor };
        assert_eq!(encode_device(device), encoded, "{major}:{minor}");
        assert_eq!(decode_device(encoded), device, "{encoded:#x}");
    }
}
