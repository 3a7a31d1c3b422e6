//! Access control lists: the umask, inheritance, set-group-id and ids.

use std::ffi::CStr;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use super::share::{
    Guest, NOTHING_LEFT, ROOT, caller, create_request, is_root_or_says_why_not, new_object,
};
use crate::fs::filesystem::{
    CreateRequest, FileSystem, NewObject, SetXattrRequest, TmpfileRequest,
};
use crate::fs::types::{NodeId, SecurityContexts};
use crate::ids::syntax::Rule;
use crate::passthrough::settings::{CachePolicy, Negotiation, Settings};
use crate::sys::errno::Errno;
use crate::sys::thread::FsThread;
use crate::sys::xattr;
use crate::wire::flags::{OpenFlags, SessionFlags};
use crate::xattr_map::XattrMap;

const ACCESS: &CStr = c"system.posix_acl_access";
const DEFAULT: &CStr = c"system.posix_acl_default";
const NO_ID: u32 = u32::MAX;

/// `u::PERMISSIONS,u:USER:rwx,g::---,m::rwx,o::---` as setxattr(2) takes it.
fn list_for(user: u32, permissions: u16) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (0x01_u16, permissions, NO_ID),
        (0x02, 7, user),
        (0x04, 0, NO_ID),
        (0x10, 7, NO_ID),
        (0x20, 0, NO_ID),
    ] {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

fn guest() -> Guest {
    guest_with_ids(Vec::new())
}

fn guest_with_ids(uid_rules: Vec<Rule>) -> Guest {
    Guest::with(Settings {
        xattr: true,
        posix_acl: Negotiation::Always,
        uid_rules,
        ..Settings::new(CachePolicy::Auto)
    })
}

fn set(guest: &Guest, node: NodeId, name: &CStr, value: &[u8]) -> Result<(), Errno> {
    guest.fs.setxattr(&SetXattrRequest {
        node,
        name,
        value,
        flags: 0,
        kill_sgid: false,
    })
}

fn get(guest: &Guest, node: NodeId, name: &CStr) -> Result<Vec<u8>, Errno> {
    let mut buf = vec![0; 4096];
    let len = guest.fs.getxattr(node, name, &mut buf)?;
    buf.truncate(len);
    Ok(buf)
}

/// The list that the host has, by its own ids.
fn host_list(guest: &Guest, name: &str) -> Vec<u8> {
    let file = fs::File::open(guest.share.join(name)).unwrap();
    let thread = FsThread::current(&guest.fs.proc_fd).unwrap();
    let mut buf = vec![0; 4096];
    let len = xattr::get(&thread, file.as_fd(), ACCESS, &mut buf).unwrap();
    buf.truncate(len);
    buf
}

fn mode(guest: &Guest, name: &str) -> u32 {
    let path = guest.share.join(name);
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Whether the temporary directory keeps lists at all.
fn has_lists_or_says_so(guest: &Guest, test: &str) -> bool {
    let answer = get(guest, ROOT, ACCESS);
    let has_lists = answer != Err(Errno::EOPNOTSUPP);
    if !has_lists {
        println!("{test}: skipped, because the temporary directory has no ACLs");
    }
    has_lists
}

/// Makes one of everything as the daemon itself, with all permissions and this umask.
fn make_all(guest: &Guest, umask: u32) -> u32 {
    let new = |name| NewObject {
        umask,
        ..new_object(name)
    };
    let create = CreateRequest {
        new: new(c"file"),
        mode: 0o100_666,
        ..create_request(c"file")
    };
    drop(guest.fs.create(&create).unwrap());
    drop(guest.fs.mkdir(&new(c"dir"), 0o777).unwrap());
    drop(guest.fs.mknod(&new(c"fifo"), 0o010_666, 0).unwrap());
    drop(guest.fs.symlink(&new(c"link"), c"target").unwrap());
    let tmpfile = TmpfileRequest {
        caller: new(c"unused").caller,
        parent: ROOT,
        mode: 0o666,
        umask,
        flags: OpenFlags::RDWR,
        security_contexts: SecurityContexts::default(),
    };
    guest.fs.tmpfile(&tmpfile).unwrap().0.attr.mode & 0o7777
}

#[test]
fn umask_is_applied_here_if_the_guest_does_not() {
    let guest = guest();
    let unnamed = make_all(&guest, 0o027);
    let modes = ["file", "dir", "fifo"].map(|name| mode(&guest, name));
    assert_eq!((modes, unnamed), ([0o640, 0o750, 0o640], 0o640));
    assert_eq!(mode(&guest, "link"), 0o777);
    // The thread's own mask is what it was.
    make_in_subdirectory(&guest, c"sub");
    assert_eq!(mode(&guest, "sub"), 0o777);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

fn make_in_subdirectory(guest: &Guest, name: &CStr) {
    let new = NewObject {
        umask: 0,
        ..new_object(name)
    };
    drop(guest.fs.mkdir(&new, 0o777).unwrap());
}

#[test]
fn umask_is_of_no_weight_if_the_guest_has_applied_it() {
    let guest = guest();
    guest.mount(SessionFlags::empty());
    let unnamed = make_all(&guest, 0o777);
    let modes = ["file", "dir", "fifo"].map(|name| mode(&guest, name));
    assert_eq!((modes, unnamed), ([0o666, 0o777, 0o666], 0o666));
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn default_list_takes_the_place_of_the_umask() {
    let guest = guest();
    if !has_lists_or_says_so(&guest, "default_list_takes_the_place_of_the_umask") {
        return;
    }
    set(&guest, ROOT, DEFAULT, &list_for(1000, 7)).unwrap();
    let unnamed = make_all(&guest, 0o777);
    // The mask of the list stands where the group's permissions were; the mode that was asked
    // for is all that limits it.
    let modes = ["file", "dir", "fifo"].map(|name| mode(&guest, name));
    assert_eq!((modes, unnamed), ([0o660, 0o770, 0o660], 0o660));
    let inherited = guest.lookup(ROOT, c"dir");
    let list = get(&guest, inherited, DEFAULT);
    assert_eq!(list, Ok(list_for(1000, 7)));
    guest.forget(inherited);
    let file = guest.lookup(ROOT, c"file");
    assert!(get(&guest, file, ACCESS).is_ok());
    guest.forget(file);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn list_and_mode_are_kept_in_step_by_the_host() {
    let guest = guest();
    if !has_lists_or_says_so(&guest, "list_and_mode_are_kept_in_step_by_the_host") {
        return;
    }
    guest.share.write("file", b"");
    let node = guest.lookup(ROOT, c"file");
    set(&guest, node, ACCESS, &list_for(1000, 6)).unwrap();
    assert_eq!(mode(&guest, "file"), 0o670);
    assert_eq!(get(&guest, node, ACCESS), Ok(list_for(1000, 6)));
    assert_eq!(guest.fs.removexattr(node, ACCESS), Ok(()));
    assert_eq!(get(&guest, node, ACCESS), Err(Errno::ENODATA));
    let without_the_rest = &list_for(1000, 6)[..12];
    let refused = set(&guest, node, ACCESS, without_the_rest);
    assert_eq!(refused, Err(Errno::EINVAL));
    guest.forget(node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

fn set_killing_sgid(guest: &Guest, node: NodeId, name: &CStr, value: &[u8]) -> Result<(), Errno> {
    guest.fs.setxattr(&SetXattrRequest {
        node,
        name,
        value,
        flags: 0,
        kill_sgid: true,
    })
}

#[test]
fn access_list_of_an_outsider_costs_set_group_id() {
    if !is_root_or_says_why_not("access_list_of_an_outsider_costs_set_group_id") {
        return;
    }
    let guest = guest();
    if !has_lists_or_says_so(&guest, "access_list_of_an_outsider_costs_set_group_id") {
        return;
    }
    fs::create_dir(guest.share.join("dir")).unwrap();
    chown(guest.share.join("dir"), Some(1000), Some(1000)).unwrap();
    let node = guest.lookup(ROOT, c"dir");
    let set_mode = |mode| {
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(guest.share.join("dir"), permissions).unwrap();
    };
    set_mode(0o2770);
    let list = list_for(1000, 7);
    assert_eq!(set(&guest, node, ACCESS, &list), Ok(()));
    assert_eq!(mode(&guest, "dir"), 0o2770, "without the flag");
    assert_eq!(set_killing_sgid(&guest, node, DEFAULT, &list), Ok(()));
    assert_eq!(mode(&guest, "dir"), 0o2770, "with a default list");
    // The bit comes back when the list is refused.
    let refused = set_killing_sgid(&guest, node, ACCESS, &list[..list.len() - 8]);
    assert_eq!(refused, Err(Errno::EINVAL));
    assert_eq!(mode(&guest, "dir"), 0o2770, "with a list that is none");
    assert_eq!(set_killing_sgid(&guest, node, ACCESS, &list), Ok(()));
    assert_eq!(mode(&guest, "dir"), 0o770);
    set_mode(0o1770);
    assert_eq!(set_killing_sgid(&guest, node, ACCESS, &list), Ok(()));
    assert_eq!(mode(&guest, "dir"), 0o1770, "with nothing to clear");
    guest.forget(node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn lists_name_the_ids_of_each_side() {
    let guest = guest_with_ids(vec![
        "map:0:100000:1000".parse().unwrap(),
        "host:0:100000:1000".parse().unwrap(),
        "forbid-guest:100000:1000".parse().unwrap(),
    ]);
    if !has_lists_or_says_so(&guest, "lists_name_the_ids_of_each_side") {
        return;
    }
    guest.share.write("file", b"");
    let node = guest.lookup(ROOT, c"file");
    set(&guest, node, ACCESS, &list_for(7, 7)).unwrap();
    assert_eq!(host_list(&guest, "file"), list_for(100_007, 7));
    assert_eq!(get(&guest, node, ACCESS), Ok(list_for(7, 7)));
    let size = guest.fs.getxattr(node, ACCESS, &mut []);
    assert_eq!(size, Ok(list_for(7, 7).len()));
    let forbidden = set(&guest, node, ACCESS, &list_for(100_000, 7));
    assert_eq!(forbidden, Err(Errno::EPERM));
    let malformed = set(&guest, node, ACCESS, b"nonsense");
    assert_eq!(malformed, Err(Errno::EINVAL));
    assert_eq!(host_list(&guest, "file"), list_for(100_007, 7));
    guest.forget(node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn default_list_counts_for_other_callers_too() {
    if !is_root_or_says_why_not("default_list_counts_for_other_callers_too") {
        return;
    }
    let guest = guest();
    if !has_lists_or_says_so(&guest, "default_list_counts_for_other_callers_too") {
        return;
    }
    let everybody = fs::Permissions::from_mode(0o777);
    fs::set_permissions(guest.share.path(), everybody).unwrap();
    set(&guest, ROOT, DEFAULT, &list_for(2000, 7)).unwrap();
    let mut request = CreateRequest {
        mode: 0o100_666,
        ..create_request(c"file")
    };
    request.new.caller = caller(1234, 4321);
    request.new.umask = 0o077;
    drop(guest.fs.create(&request).unwrap());
    let host = fs::metadata(guest.share.join("file")).unwrap();
    assert_eq!((host.uid(), host.gid()), (1234, 4321));
    assert_eq!(host.mode() & 0o777, 0o660);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn a_list_may_let_callers_in_by_groups_that_the_guest_does_not_name() {
    let test = "a_list_may_let_callers_in_by_groups_that_the_guest_does_not_name";
    if !is_root_or_says_why_not(test) {
        return;
    }
    let guest = guest();
    let closed = fs::Permissions::from_mode(0o700);
    fs::set_permissions(guest.share.path(), closed.clone()).unwrap();
    guest.share.write("there", b"");
    let mut request = create_request(c"file");
    request.new.caller = caller(1234, 4321);
    // The guest's kernel has checked that its lists let the caller in.
    drop(guest.fs.create(&request).unwrap());
    // It has not checked what it did not know to be there.
    fs::set_permissions(guest.share.join("there"), closed).unwrap();
    request.new.name = super::share::file_name(c"there");
    assert_eq!(guest.fs.create(&request).map(drop), Err(Errno::EACCES));
    guest.mount(SessionFlags::CREATE_SUPP_GROUP);
    request.new.name = super::share::file_name(c"another");
    assert_eq!(guest.fs.create(&request).map(drop), Err(Errno::EACCES));
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn a_list_that_cannot_be_there_is_none() {
    let guest = Guest::with(Settings {
        xattr: true,
        xattr_map: Some(XattrMap::parse(b":unsupported:client:system.:::ok:all:::").unwrap()),
        posix_acl: Negotiation::Always,
        ..Settings::new(CachePolicy::Auto)
    });
    assert_eq!(get(&guest, ROOT, ACCESS), Err(Errno::ENODATA));
    let set = set(&guest, ROOT, ACCESS, &list_for(2000, 7));
    assert_eq!(set, Err(Errno::EOPNOTSUPP));
    guest.mount(SessionFlags::empty());
    assert_eq!(get(&guest, ROOT, ACCESS), Err(Errno::EOPNOTSUPP));
}
