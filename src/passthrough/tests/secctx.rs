//! Labels of new objects (SECURITY_CTX): all of them, or no object.

use std::ffi::CStr;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;

use super::share::{
    Guest, NOTHING_LEFT, ROOT, caller, create_request, file_name, is_root_or_says_why_not,
    new_object, own_caller,
};
use crate::fs::filesystem::{CreateRequest, FileSystem, NewObject, TmpfileRequest};
use crate::fs::types::{SecurityContext, SecurityContexts};
use crate::passthrough::settings::{CachePolicy, Negotiation, Settings};
use crate::sys::errno::{Errno, Result};
use crate::sys::open;
use crate::sys::thread::FsThread;
use crate::sys::xattr;
use crate::wire::flags::OpenFlags;
use crate::xattr_map::XattrMap;

fn guest(xattr_map: Option<&[u8]>) -> Guest {
    Guest::with(Settings {
        xattr: true,
        security_label: Negotiation::Always,
        xattr_map: xattr_map.map(|rules| XattrMap::parse(rules).unwrap()),
        ..Settings::new(CachePolicy::Auto)
    })
}

fn contexts<'a>(named: &[(&'a CStr, &'a [u8])]) -> SecurityContexts<'a> {
    let mut contexts = SecurityContexts::default();
    for (name, value) in named {
        contexts.add(SecurityContext { name, value }).unwrap();
    }
    contexts
}

/// Two labels that root may set on anything, in the names of no module that this machine runs.
const TWO: [(&CStr, &[u8]); 2] = [(c"trusted.one", b"first"), (c"trusted.two", b"\0second")];

/// The attribute of `name` on the host, of a link itself.
fn host_label(guest: &Guest, name: &CStr, label: &CStr) -> Result<Vec<u8>> {
    let root = fs::File::open(guest.share.path()).unwrap();
    let pinned = open::pin_beneath(root.as_fd(), name).unwrap();
    let thread = FsThread::current(&guest.fs.proc_fd).unwrap();
    let mut buf = vec![0; 64];
    let len = xattr::get(&thread, pinned.as_fd(), label, &mut buf)?;
    buf.truncate(len);
    Ok(buf)
}

/// One of everything that has a name: which operation made it, and what that said.
fn make_all(guest: &Guest, contexts: SecurityContexts<'_>) -> Vec<(&'static CStr, Result<()>)> {
    let new = |name| NewObject {
        security_contexts: contexts,
        ..new_object(name)
    };
    let create = CreateRequest {
        new: new(c"file"),
        ..create_request(c"file")
    };
    vec![
        (c"file", guest.fs.create(&create).map(drop)),
        (c"dir", guest.fs.mkdir(&new(c"dir"), 0o755).map(drop)),
        (
            c"link",
            guest.fs.symlink(&new(c"link"), c"target").map(drop),
        ),
        (
            c"fifo",
            guest.fs.mknod(&new(c"fifo"), 0o010_644, 0).map(drop),
        ),
        (
            c"node",
            guest.fs.mknod(&new(c"node"), 0o100_644, 0).map(drop),
        ),
    ]
}

fn tmpfile(guest: &Guest, security_contexts: SecurityContexts<'_>) -> Result<()> {
    let request = TmpfileRequest {
        caller: own_caller(),
        parent: ROOT,
        mode: 0o600,
        umask: 0,
        flags: OpenFlags::RDWR,
        security_contexts,
    };
    guest.fs.tmpfile(&request).map(drop)
}

/// Whether `trusted.` attributes can be set at all.
fn may_label_or_says_why_not(guest: &Guest, test: &str) -> bool {
    if !is_root_or_says_why_not(test) {
        return false;
    }
    let new = NewObject {
        security_contexts: contexts(&TWO),
        ..new_object(c"probe")
    };
    let made = guest.fs.mkdir(&new, 0o755).map(drop);
    let _ = fs::remove_dir(guest.share.join("probe"));
    match made {
        Err(errno @ (Errno::EPERM | Errno::EOPNOTSUPP)) => {
            println!("{test}: skipped, because trusted attributes are refused: {errno}");
            false
        }
        _ => true,
    }
}

#[test]
fn everything_that_is_made_has_all_its_labels() {
    let guest = guest(None);
    if !may_label_or_says_why_not(&guest, "everything_that_is_made_has_all_its_labels") {
        return;
    }
    for (name, made) in make_all(&guest, contexts(&TWO)) {
        assert_eq!(made, Ok(()), "{name:?}");
        for (label, value) in TWO {
            assert_eq!(
                host_label(&guest, name, label).as_deref(),
                Ok(value),
                "{name:?}"
            );
        }
    }
    assert_eq!(tmpfile(&guest, contexts(&TWO)), Ok(()));
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn without_labels_things_are_made_as_ever() {
    let guest = guest(None);
    for (name, made) in make_all(&guest, SecurityContexts::default()) {
        assert_eq!(made, Ok(()), "{name:?}");
    }
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn labels_pass_through_the_rules_for_names() {
    let guest = guest(Some(b":map::trusted.virtiofs.:"));
    let label = [(c"security.selinux", &b"system_u:object_r:x_t:s0"[..])];
    if !is_root_or_says_why_not("labels_pass_through_the_rules_for_names") {
        return;
    }
    for (name, made) in make_all(&guest, contexts(&label)) {
        assert_eq!(made, Ok(()), "{name:?}");
        let on_host = host_label(&guest, name, c"trusted.virtiofs.security.selinux");
        assert_eq!(on_host.as_deref(), Ok(label[0].1), "{name:?}");
        let under_its_own_name = host_label(&guest, name, c"security.selinux");
        assert_ne!(under_its_own_name.as_deref(), Ok(label[0].1), "{name:?}");
    }
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn labels_that_the_rules_forbid_prevent_the_making() {
    let guest = guest(Some(b":bad:all:security.:security.::ok:all:::"));
    let label = contexts(&[(c"security.selinux", b"x")]);
    for (name, made) in make_all(&guest, label) {
        assert_eq!(made, Err(Errno::EPERM), "{name:?}");
    }
    assert_eq!(fs::read_dir(guest.share.path()).unwrap().count(), 0);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn label_that_the_host_refuses_leaves_nothing_behind() {
    let guest = guest(None);
    // The first can be set on files and directories, the second nowhere.
    let label = contexts(&[(c"user.fine", b"1"), (c"nonsense", b"2")]);
    for (name, made) in make_all(&guest, label) {
        assert!(
            matches!(made, Err(Errno::EOPNOTSUPP | Errno::EPERM)),
            "{name:?}: {made:?}"
        );
    }
    let unnamed = tmpfile(&guest, label);
    assert!(unnamed.is_err(), "{unnamed:?}");
    assert_eq!(fs::read_dir(guest.share.path()).unwrap().count(), 0);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn file_that_was_there_keeps_its_labels_and_its_name() {
    let guest = guest(None);
    guest.share.write("file", b"here already");
    let label = contexts(&[(c"nonsense", b"2")]);
    let mut request = create_request(c"file");
    request.new.security_contexts = label;
    // It is only opened, so there is nothing to label, or to remove.
    drop(guest.fs.create(&request).unwrap());
    assert_eq!(fs::read(guest.share.join("file")).unwrap(), b"here already");
    let new = NewObject {
        security_contexts: label,
        ..new_object(c"file")
    };
    let taken = guest.fs.mkdir(&new, 0o755).map(drop);
    assert_eq!(taken, Err(Errno::EEXIST));
    assert!(guest.find(ROOT, file_name(c"file")).is_ok());
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn labels_are_set_for_callers_who_could_not_set_them() {
    let guest = guest(None);
    if !may_label_or_says_why_not(&guest, "labels_are_set_for_callers_who_could_not_set_them") {
        return;
    }
    let everybody = fs::Permissions::from_mode(0o777);
    fs::set_permissions(guest.share.path(), everybody).unwrap();
    let mut request = create_request(c"file");
    request.new.caller = caller(1234, 4321);
    request.new.security_contexts = contexts(&TWO);
    drop(guest.fs.create(&request).unwrap());
    let label = host_label(&guest, c"file", c"trusted.one");
    assert_eq!(label.as_deref(), Ok(&b"first"[..]));
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}
