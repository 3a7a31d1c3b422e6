//! What changes cost a file its set-id bits and file capabilities (HANDLE_KILLPRIV_V2).

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::Command;

use super::share::{
    Guest, NOTHING_LEFT, ROOT, Source, caller, create_request, is_root_or_says_why_not,
    write_request,
};
use crate::fs::filesystem::{
    AttrChanges, CopyRangeRequest, CreateRequest, FallocateRequest, FileSystem, OpenNode,
    SetXattrRequest, WriteRequest,
};
use crate::fs::types::{Caller, NodeId};
use crate::ids::types::GuestUid;
use crate::passthrough::settings::{CachePolicy, Settings};
use crate::sys::errno::Errno;
use crate::wire::flags::{OpenFlags, SessionFlags};
use crate::xattr_map::XattrMap;

const WRITE_ONLY: u32 = 1;
const TRUNC: u32 = 0o1000;
/// Whom a Linux guest names where the operation makes nothing and mounts may be idmapped.
const NOBODY: u32 = u32::MAX;

fn guest() -> Guest {
    Guest::with(Settings {
        killpriv_v2: true,
        ..Settings::new(CachePolicy::Auto)
    })
}

fn set_mode(guest: &Guest, mode: u32) {
    let permissions = fs::Permissions::from_mode(mode);
    fs::set_permissions(guest.share.join("file"), permissions).unwrap();
}

fn mode(guest: &Guest) -> u32 {
    fs::metadata(guest.share.join("file")).unwrap().mode() & 0o7777
}

fn write(guest: &Guest, open: OpenNode, kill_suid_sgid: bool) {
    let request = WriteRequest {
        kill_suid_sgid,
        ..write_request(open, 0)
    };
    assert_eq!(guest.fs.write(&request, &mut Source::new(b"x")), Ok(1));
}

fn allocate(guest: &Guest, open: OpenNode, caller: Caller) -> Result<(), Errno> {
    guest.fs.fallocate(&FallocateRequest {
        node: open.node,
        handle: open.handle,
        mode: 0,
        offset: 0,
        len_bytes: 8192,
        caller,
    })
}

#[test]
fn write_clears_set_ids_only_when_told() {
    if !is_root_or_says_why_not("write_clears_set_ids_only_when_told") {
        return;
    }
    let guest = guest();
    let open = guest.create(c"file");
    // Neither the owner nor the group is the daemon's, which must make no difference.
    chown(guest.share.join("file"), Some(1000), Some(1000)).unwrap();
    for (before, after) in [
        (0o6755, 0o755),
        (0o4644, 0o644),
        (0o2710, 0o710),
        (0o2644, 0o2644),
        (0o6645, 0o2645),
        (0o1777, 0o1777),
    ] {
        set_mode(&guest, before);
        write(&guest, open, false);
        assert_eq!(mode(&guest), before);
        write(&guest, open, true);
        assert_eq!(mode(&guest), after, "{before:o}");
    }
    guest.close(open);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn flags_of_a_guest_that_did_not_agree_mean_nothing() {
    if !is_root_or_says_why_not("flags_of_a_guest_that_did_not_agree_mean_nothing") {
        return;
    }
    let guest = guest();
    guest.mount(SessionFlags::empty());
    let open = guest.create(c"file");
    set_mode(&guest, 0o6755);
    write(&guest, open, true);
    allocate(&guest, open, caller(1000, 1000)).unwrap();
    assert_eq!(mode(&guest), 0o6755);
    guest.close(open);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn fallocate_and_copy_clear_set_ids_for_everybody_but_root() {
    if !is_root_or_says_why_not("fallocate_and_copy_clear_set_ids_for_everybody_but_root") {
        return;
    }
    let guest = guest();
    let open = guest.create(c"file");
    guest.write(open, 0, b"0123456789").unwrap();
    for (who, after) in [
        (caller(0, 0), 0o6755),
        (caller(1000, 0), 0o755),
        (caller(NOBODY, NOBODY), 0o755),
    ] {
        set_mode(&guest, 0o6755);
        allocate(&guest, open, who).unwrap();
        assert_eq!(mode(&guest), after, "{who:?}");
        set_mode(&guest, 0o6755);
        let copy = CopyRangeRequest {
            node_in: open.node,
            handle_in: open.handle,
            offset_in: 0,
            node_out: open.node,
            handle_out: open.handle,
            offset_out: 4096,
            len_bytes: 5,
            flags: 0,
            caller: who,
        };
        assert_eq!(guest.fs.copy_file_range(&copy), Ok(5));
        assert_eq!(mode(&guest), after, "{who:?}");
    }
    guest.close(open);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn truncation_clears_set_ids_only_when_told() {
    if !is_root_or_says_why_not("truncation_clears_set_ids_only_when_told") {
        return;
    }
    let guest = guest();
    let open = guest.create(c"file");
    for (kill_suid_sgid, after) in [(false, 0o6755), (true, 0o755)] {
        for handle in [None, Some(open.handle)] {
            set_mode(&guest, 0o6755);
            let changes = AttrChanges {
                size_bytes: Some(3),
                kill_suid_sgid,
                ..AttrChanges::default()
            };
            let attr = guest.fs.setattr(open.node, handle, &changes).unwrap().attr;
            assert_eq!(attr.mode & 0o7777, after);
            assert_eq!((mode(&guest), attr.size), (after, 3));
        }
    }
    guest.close(open);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn truncation_of_a_directory_leaves_its_set_group_id() {
    let guest = guest();
    let permissions = fs::Permissions::from_mode(0o2755);
    fs::set_permissions(guest.share.path(), permissions).unwrap();
    let changes = AttrChanges {
        size_bytes: Some(0),
        kill_suid_sgid: true,
        ..AttrChanges::default()
    };
    let refused = guest.fs.setattr(ROOT, None, &changes);
    assert_eq!(refused.unwrap_err(), Errno::EISDIR);
    let host = fs::metadata(guest.share.path()).unwrap();
    assert_eq!(host.mode() & 0o7777, 0o2755);
}

#[test]
fn open_with_trunc_clears_set_ids_in_every_access_mode() {
    if !is_root_or_says_why_not("open_with_trunc_clears_set_ids_in_every_access_mode") {
        return;
    }
    let guest = guest();
    guest.share.write("file", b"contents");
    let node = guest.lookup(ROOT, c"file");
    for (kill, after) in [(false, 0o6755), (true, 0o755)] {
        for access in [0, 1, 2] {
            guest.share.write("file", b"contents");
            set_mode(&guest, 0o6755);
            let flags = OpenFlags::from_bits_retain(access | TRUNC);
            drop(guest.fs.open(node, flags, kill).unwrap());
            assert_eq!(mode(&guest), after, "access mode {access}");
            assert_eq!(fs::read(guest.share.join("file")).unwrap(), b"");
            // CREATE of what is there already is such an open, too.
            set_mode(&guest, 0o6755);
            let request = CreateRequest {
                flags,
                kill_suid_sgid: kill,
                ..create_request(c"file")
            };
            drop(guest.fs.create(&request).unwrap());
            assert_eq!(mode(&guest), after, "CREATE, access mode {access}");
        }
    }
    set_mode(&guest, 0o6755);
    drop(guest.fs.open(node, OpenFlags::RDWR, true).unwrap());
    assert_eq!(mode(&guest), 0o6755, "nothing was changed");
    guest.forget(node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn open_that_fails_costs_nothing() {
    let guest = guest();
    // Not by this process: another test that forks would hold it open for writing.
    let file = guest.share.join("file");
    assert!(
        Command::new("cp")
            .arg("/bin/sleep")
            .arg(&file)
            .status()
            .unwrap()
            .success()
    );
    set_mode(&guest, 0o6755);
    let node = guest.lookup(ROOT, c"file");
    let mut running = Command::new(file).arg("60").spawn().unwrap();
    let flags = OpenFlags::from_bits_retain(WRITE_ONLY | TRUNC);
    let refused = guest.fs.open(node, flags, true);
    assert_eq!(refused.unwrap_err(), Errno::ETXTBSY);
    assert_eq!(mode(&guest), 0o6755);
    running.kill().unwrap();
    running.wait().unwrap();
    guest.forget(node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn create_for_another_user_truncates_only_what_that_user_may_write() {
    if !is_root_or_says_why_not("create_for_another_user_truncates_only_what_that_user_may_write") {
        return;
    }
    let guest = guest();
    guest.share.write("file", b"contents");
    let mut request = create_request(c"file");
    request.new.caller = caller(1234, 4321);
    request.kill_suid_sgid = true;
    // Read-only, but O_TRUNC asks for the right to write.
    request.flags = OpenFlags::from_bits_retain(TRUNC);
    set_mode(&guest, 0o4755);
    assert_eq!(guest.fs.create(&request).unwrap_err(), Errno::EACCES);
    assert_eq!(mode(&guest), 0o4755);
    assert_eq!(
        fs::read(guest.share.join("file")).unwrap(),
        b"contents",
        "nothing was changed"
    );
    set_mode(&guest, 0o4777);
    drop(guest.fs.create(&request).unwrap());
    assert_eq!(mode(&guest), 0o777);
    assert_eq!(fs::read(guest.share.join("file")).unwrap(), b"");
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn change_of_owner_clears_set_ids_and_capabilities_on_the_host() {
    if !is_root_or_says_why_not("change_of_owner_clears_set_ids") {
        return;
    }
    let guest = guest();
    guest.share.write("file", b"");
    set_mode(&guest, 0o6755);
    let node = guest.lookup(ROOT, c"file");
    let changes = AttrChanges {
        uid: GuestUid::new(1000),
        ..AttrChanges::default()
    };
    guest.fs.setattr(node, None, &changes).unwrap();
    assert_eq!(mode(&guest), 0o755);
    guest.forget(node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

/// A guest whose file capabilities are stored as `user.virtiofs.security.capability`.
fn guest_with_renamed_capabilities() -> Guest {
    Guest::with(Settings {
        killpriv_v2: true,
        xattr: true,
        xattr_map: XattrMap::parse(b":map::user.virtiofs.:").ok(),
        ..Settings::new(CachePolicy::Auto)
    })
}

fn give_capabilities(guest: &Guest, node: NodeId) -> Result<(), Errno> {
    guest.fs.setxattr(&SetXattrRequest {
        node,
        name: c"security.capability",
        value: b"whatever the guest says",
        flags: 0,
        kill_sgid: false,
    })
}

fn has_capabilities(guest: &Guest, node: NodeId) -> bool {
    let found = guest.fs.getxattr(node, c"security.capability", &mut []);
    assert!(matches!(found, Ok(_) | Err(Errno::ENODATA)), "{found:?}");
    found.is_ok()
}

#[test]
fn renamed_capabilities_go_with_every_change_and_stay_with_everything_else() {
    let guest = guest_with_renamed_capabilities();
    let open = guest.create(c"file");
    let node = open.node;
    if give_capabilities(&guest, node) == Err(Errno::EOPNOTSUPP) {
        println!("skipped: no user xattrs on the file system of the temporary directory");
        return;
    }
    let owner = fs::metadata(guest.share.join("file")).unwrap();
    let attrs = |changes| guest.fs.setattr(node, None, &changes).map(drop);
    let copy = CopyRangeRequest {
        node_in: node,
        handle_in: open.handle,
        offset_in: 0,
        node_out: node,
        handle_out: open.handle,
        offset_out: 4096,
        len_bytes: 1,
        flags: 0,
        caller: caller(0, 0),
    };
    let opened = |flags| {
        let flags = OpenFlags::from_bits_retain(flags);
        guest.fs.open(node, flags, false).map(drop)
    };
    type Step<'a> = (&'a str, bool, &'a dyn Fn() -> Result<(), Errno>);
    let steps: [Step<'_>; 9] = [
        ("write", false, &|| guest.write(open, 0, b"x").map(drop)),
        ("fallocate", false, &|| allocate(&guest, open, caller(0, 0))),
        ("copy", false, &|| guest.fs.copy_file_range(&copy).map(drop)),
        ("truncate", false, &|| {
            attrs(AttrChanges {
                size_bytes: Some(1),
                ..AttrChanges::default()
            })
        }),
        ("chown", false, &|| {
            attrs(AttrChanges {
                uid: GuestUid::new(owner.uid()),
                ..AttrChanges::default()
            })
        }),
        ("open with O_TRUNC", false, &|| opened(2 | TRUNC)),
        ("open read-only with O_TRUNC", false, &|| opened(TRUNC)),
        ("open", true, &|| opened(2)),
        ("chmod", true, &|| {
            attrs(AttrChanges {
                mode: Some(0o755),
                ..AttrChanges::default()
            })
        }),
    ];
    for (name, stays, step) in steps {
        give_capabilities(&guest, node).unwrap();
        assert!(has_capabilities(&guest, node));
        assert_eq!(step(), Ok(()), "{name}");
        assert_eq!(has_capabilities(&guest, node), stays, "{name}");
    }
    guest.close(open);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn renamed_capabilities_of_a_directory_are_nobodys_business() {
    let guest = guest_with_renamed_capabilities();
    if give_capabilities(&guest, ROOT) == Err(Errno::EOPNOTSUPP) {
        println!("skipped: no user xattrs on the file system of the temporary directory");
        return;
    }
    let changes = AttrChanges {
        size_bytes: Some(0),
        ..AttrChanges::default()
    };
    let refused = guest.fs.setattr(ROOT, None, &changes);
    assert_eq!(refused.unwrap_err(), Errno::EISDIR);
    assert!(has_capabilities(&guest, ROOT));
}
