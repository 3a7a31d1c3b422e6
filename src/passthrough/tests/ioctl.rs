//! IOCTL: inode flags, project ids, fs-verity.

use std::os::fd::AsFd;

use super::share::{
    Guest, NO_HANDLE, NOTHING_LEFT, ROOT, caller, is_root_or_says_why_not, own_caller, released,
};
use crate::fs::filesystem::{FileSystem, IoctlRequest, OpenNode};
use crate::fs::types::{Caller, HandleId};
use crate::passthrough::settings::{CachePolicy, IoctlRights, Settings};
use crate::sys::errno::{Errno, Result};
use crate::sys::ioctl::{self, InodeFlags};

const GET_FLAGS: u32 = 0x8008_6601;
const SET_FLAGS: u32 = 0x4008_6602;
const GET_EXTENDED: u32 = 0x801c_581f;
const SET_EXTENDED: u32 = 0x401c_5820;
const ENABLE_VERITY: u32 = 0x4080_6685;
const MEASURE_VERITY: u32 = 0xc004_6686;
/// `FS_NODUMP_FL`, which every owner may set; as `FS_XFLAG_NODUMP` it is another bit.
const NODUMP: u32 = 0x40;
const IMMUTABLE: u32 = 0x10;
const APPEND: u32 = 0x20;
const X_NODUMP: u32 = 0x80;
const X_IMMUTABLE: u32 = 0x8;

fn guest(ioctl_rights: IoctlRights) -> Guest {
    Guest::with(Settings {
        ioctl_rights,
        ..Settings::new(CachePolicy::Auto)
    })
}

const NO_RIGHTS: IoctlRights = IoctlRights {
    immutable: false,
    project_id: false,
};
const ALL_RIGHTS: IoctlRights = IoctlRights {
    immutable: true,
    project_id: true,
};

fn request(open: OpenNode, command: u32, caller: Caller) -> IoctlRequest {
    IoctlRequest {
        node: open.node,
        handle: open.handle,
        caller,
        command,
        is_32_bit: false,
    }
}

/// The answer, with room for 28 bytes.
fn get(guest: &Guest, open: OpenNode, command: u32, input: &[u8]) -> Result<Vec<u8>> {
    let mut output = [0; 28];
    let request = request(open, command, own_caller());
    let len = guest.fs.ioctl(&request, input, &mut output)?;
    Ok(output[..len].to_vec())
}

fn flags(guest: &Guest, open: OpenNode) -> Result<u32> {
    let answer = get(guest, open, GET_FLAGS, b"")?;
    Ok(u32::from_ne_bytes(answer.try_into().unwrap()))
}

fn set_flags(guest: &Guest, open: OpenNode, flags: u32, who: Caller) -> Result<usize> {
    let request = request(open, SET_FLAGS, who);
    guest.fs.ioctl(&request, &flags.to_ne_bytes(), &mut [])
}

/// Where the temporary directory has inode flags, as all local file systems do.
fn has_flags_or_says_so(guest: &Guest, open: OpenNode, test: &str) -> bool {
    let answer = flags(guest, open);
    if answer.is_err() {
        println!("{test}: skipped, because the temporary directory has no inode flags");
    }
    answer.is_ok()
}

#[test]
fn flags_go_round_on_files_and_directories() {
    let guest = guest(NO_RIGHTS);
    let file = guest.create(c"file");
    let directory = guest.opendir(ROOT);
    if !has_flags_or_says_so(&guest, file, "flags_go_round_on_files_and_directories") {
        return;
    }
    for open in [file, directory] {
        let before = flags(&guest, open).unwrap();
        let set = set_flags(&guest, open, before | NODUMP, own_caller());
        assert_eq!(set, Ok(0));
        assert_eq!(flags(&guest, open), Ok(before | NODUMP));
        let extended = get(&guest, open, GET_EXTENDED, b"").unwrap();
        assert_eq!(extended.len(), 28);
        let first = u32::from_ne_bytes(extended[..4].try_into().unwrap());
        assert_eq!(first & X_NODUMP, X_NODUMP);
        let mut without = extended.clone();
        without[..4].copy_from_slice(&(first & !X_NODUMP).to_ne_bytes());
        assert_eq!(get(&guest, open, SET_EXTENDED, &without), Ok(vec![]));
        assert_eq!(flags(&guest, open), Ok(before));
    }
    guest.fs.releasedir(&released(directory)).unwrap();
    guest.close(file);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn immutable_and_append_only_need_the_setting() {
    if !is_root_or_says_why_not("immutable_and_append_only_need_the_setting") {
        return;
    }
    let with_setting = guest(ALL_RIGHTS);
    let without = guest(NO_RIGHTS);
    let free = with_setting.create(c"file");
    let bound = without.create(c"file");
    let test = "immutable_and_append_only_need_the_setting";
    if !has_flags_or_says_so(&without, bound, test) {
        return;
    }
    let before = flags(&without, bound).unwrap();
    for flag in [IMMUTABLE, APPEND] {
        let refused = set_flags(&without, bound, before | flag, own_caller());
        assert_eq!(refused, Err(Errno::EPERM));
        assert_eq!(flags(&without, bound), Ok(before));
        let set = set_flags(&with_setting, free, before | flag, own_caller());
        assert_eq!(set, Ok(0));
        assert_eq!(flags(&with_setting, free), Ok(before | flag));
        assert_eq!(
            set_flags(&with_setting, free, before, own_caller()),
            Ok(0),
            "and back again"
        );
        // What the host has sealed stays sealed.
        let host = std::fs::File::open(without.share.join("file")).unwrap();
        let sealed = InodeFlags::from_bits_retain(before | flag);
        ioctl::set_inode_flags(host.as_fd(), sealed).unwrap();
        let refused = set_flags(&without, bound, before, own_caller());
        assert_eq!(refused, Err(Errno::EPERM));
        let kept = set_flags(&without, bound, before | flag | NODUMP, own_caller());
        assert!(matches!(kept, Ok(0) | Err(Errno::EPERM)), "{kept:?}");
        ioctl::set_inode_flags(host.as_fd(), InodeFlags::from_bits_retain(before)).unwrap();
    }
    let mut extended = get(&without, bound, GET_EXTENDED, b"").unwrap();
    extended[0] |= u8::try_from(X_IMMUTABLE).unwrap();
    let refused = get(&without, bound, SET_EXTENDED, &extended);
    assert_eq!(refused, Err(Errno::EPERM));
    with_setting.close(free);
    without.close(bound);
    assert_eq!(without.leftovers(), NOTHING_LEFT);
}

#[test]
fn rights_that_were_lowered_come_back() {
    if !is_root_or_says_why_not("rights_that_were_lowered_come_back") {
        return;
    }
    let guest = guest(NO_RIGHTS);
    let file = guest.create(c"file");
    let effective = || {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("CapEff:"));
        line.unwrap().to_owned()
    };
    let before = effective();
    for flags in [0, NODUMP, u32::MAX] {
        let _ = set_flags(&guest, file, flags, own_caller());
        assert_eq!(effective(), before);
    }
    guest.close(file);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn project_ids_need_the_setting() {
    let guest = guest(NO_RIGHTS);
    let file = guest.create(c"file");
    if !has_flags_or_says_so(&guest, file, "project_ids_need_the_setting") {
        return;
    }
    let extended = get(&guest, file, GET_EXTENDED, b"").unwrap();
    for (offset, bit) in [(12, 1), (1, 2)] {
        let mut changed = extended.clone();
        changed[offset] ^= bit;
        let refused = get(&guest, file, SET_EXTENDED, &changed);
        assert_eq!(refused, Err(Errno::EPERM), "byte {offset}");
    }
    let inherits = flags(&guest, file).unwrap() | 0x2000_0000;
    let refused = set_flags(&guest, file, inherits, own_caller());
    assert_eq!(refused, Err(Errno::EPERM));
    guest.close(file);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn flags_change_for_the_owner_root_and_who_is_not_named() {
    if !is_root_or_says_why_not("flags_change_for_the_owner_root_and_who_is_not_named") {
        return;
    }
    let guest = guest(NO_RIGHTS);
    let file = guest.create(c"file");
    let test = "flags_change_for_the_owner_root_and_who_is_not_named";
    if !has_flags_or_says_so(&guest, file, test) {
        return;
    }
    std::os::unix::fs::chown(guest.share.join("file"), Some(1000), Some(1000)).unwrap();
    let before = flags(&guest, file).unwrap();
    for (who, expected) in [
        (caller(0, 0), Ok(0)),
        (caller(1000, 0), Ok(0)),
        (caller(u32::MAX, u32::MAX), Ok(0)),
        (caller(1001, 1000), Err(Errno::EPERM)),
    ] {
        let answer = set_flags(&guest, file, before ^ NODUMP, who);
        assert_eq!(answer, expected, "{who:?}");
        set_flags(&guest, file, before, caller(0, 0)).unwrap();
    }
    guest.close(file);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn commands_that_are_not_served_and_wrong_arguments_are_refused() {
    let guest = guest(ALL_RIGHTS);
    let file = guest.create(c"file");
    // FIEMAP, FICLONE, FS_IOC_GETVERSION, TCGETS, a set-policy of fscrypt.
    for command in [0xc020_660b, 0x4004_9409, 0x8008_7601, 0x5401, 0x800c_6613] {
        let refused = get(&guest, file, command, &[0; 128]);
        assert_eq!(refused, Err(Errno::ENOTTY), "{command:#x}");
    }
    for (command, input) in [
        (SET_FLAGS, &[0; 3][..]),
        (SET_EXTENDED, &[0; 27]),
        (ENABLE_VERITY, &[1; 127]),
        (MEASURE_VERITY, &[0; 3]),
    ] {
        let refused = get(&guest, file, command, input);
        assert_eq!(refused, Err(Errno::EINVAL), "{command:#x}");
    }
    let strange = OpenNode {
        handle: NO_HANDLE,
        ..file
    };
    assert_eq!(get(&guest, strange, GET_FLAGS, b""), Err(Errno::EBADF));
    guest.close(file);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn answers_that_do_not_fit_are_refused() {
    let guest = guest(NO_RIGHTS);
    let file = guest.create(c"file");
    if !has_flags_or_says_so(&guest, file, "answers_that_do_not_fit_are_refused") {
        return;
    }
    for (command, len) in [(GET_FLAGS, 3), (GET_EXTENDED, 27)] {
        let request = request(file, command, own_caller());
        let refused = guest.fs.ioctl(&request, b"", &mut vec![0; len]);
        assert_eq!(refused, Err(Errno::EINVAL), "{command:#x}");
    }
    guest.close(file);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn verity_is_for_who_may_write_or_is_trusted() {
    if !is_root_or_says_why_not("verity_is_for_who_may_write_or_is_trusted") {
        return;
    }
    let mut argument = vec![0; 128];
    argument[0] = 1;
    argument[4] = 1;
    argument[8..12].copy_from_slice(&4096_u32.to_ne_bytes());
    for (rights, who, expected) in [
        (NO_RIGHTS, caller(1001, 1001), Errno::EACCES),
        (NO_RIGHTS, caller(u32::MAX, u32::MAX), Errno::EPERM),
        // From here on it is the host that has no fs-verity, unless it has.
        (ALL_RIGHTS, caller(u32::MAX, u32::MAX), Errno::EOPNOTSUPP),
        (NO_RIGHTS, caller(1000, 0), Errno::EOPNOTSUPP),
        (NO_RIGHTS, caller(0, 0), Errno::EOPNOTSUPP),
    ] {
        let guest = guest(rights);
        guest.share.write("file", b"contents");
        std::os::unix::fs::chown(guest.share.join("file"), Some(1000), Some(1000)).unwrap();
        let file = guest.open(guest.lookup(ROOT, c"file"), 0);
        let request = request(file, ENABLE_VERITY, who);
        let answer = guest.fs.ioctl(&request, &argument, &mut []);
        let is_for_the_host = expected == Errno::EOPNOTSUPP;
        let host_says = [Ok(0), Err(Errno::EOPNOTSUPP), Err(Errno::ENOTTY)];
        assert!(
            answer == Err(expected) || is_for_the_host && host_says.contains(&answer),
            "{who:?}: {answer:?}"
        );
        guest.close(file);
        assert_eq!(guest.leftovers(), NOTHING_LEFT);
    }
}

#[test]
fn flags_are_read_without_an_open_file_where_there_are_none() {
    let guest = Guest::with(Settings {
        no_open: true,
        no_opendir: true,
        ..Settings::new(CachePolicy::Always)
    });
    guest.share.write("file", b"");
    let file = guest.lookup(ROOT, c"file");
    for node in [ROOT, file] {
        let unopened = OpenNode {
            node,
            handle: HandleId::new(0),
        };
        let test = "flags_are_read_without_an_open_file_where_there_are_none";
        if !has_flags_or_says_so(&guest, unopened, test) {
            return;
        }
        let before = flags(&guest, unopened).unwrap();
        let set = set_flags(&guest, unopened, before | NODUMP, own_caller());
        assert_eq!(set, Ok(0));
        assert_eq!(flags(&guest, unopened), Ok(before | NODUMP));
    }
    guest.forget(file);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}
