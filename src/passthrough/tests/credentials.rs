//! Who owns what is made, who may make it, and that the thread is itself again afterwards.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::thread;

use super::share::{
    Guest, NOTHING_LEFT, ROOT, caller, create_request, is_root_or_says_why_not, keep, new_object,
};
use crate::fs::filesystem::{CreateRequest, FileSystem, NewObject, TmpfileRequest};
use crate::fs::types::{Caller, SecurityContexts};
use crate::ids::types::GuestGid;
use crate::passthrough::privilege::{AsCaller, GroupKnowledge, HostCaller};
use crate::sys::credentials::{self, CapabilitySets};
use crate::sys::errno::Errno;
use crate::sys::proc_fd::ProcFd;
use crate::sys::thread::FsThread;
use crate::wire::flags::{OpenFlags, SessionFlags};

/// Ids, groups and effective capabilities of the calling thread, and of no other.
fn thread_credentials() -> Vec<String> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let of_interest = ["Uid:", "Gid:", "Groups:", "CapEff:", "CapPrm:"];
    status
        .lines()
        .filter(|line| of_interest.iter().any(|start| line.starts_with(start)))
        .map(str::to_owned)
        .collect()
}

fn set_mode(guest: &Guest, name: &str, mode: u32) {
    let permissions = fs::Permissions::from_mode(mode);
    fs::set_permissions(guest.share.join(name), permissions).unwrap();
}

fn mkdir_as(guest: &Guest, name: &std::ffi::CStr, caller: Caller) -> Result<(), Errno> {
    let new = NewObject {
        caller,
        ..new_object(name)
    };
    guest.fs.mkdir(&new, 0o755).map(drop)
}

fn owner(guest: &Guest, name: &str) -> (u32, u32) {
    let host = fs::symlink_metadata(guest.share.join(name)).unwrap();
    (host.uid(), host.gid())
}

#[test]
fn whatever_is_made_belongs_to_the_caller() {
    if !is_root_or_says_why_not("whatever_is_made_belongs_to_the_caller") {
        return;
    }
    let guest = Guest::new();
    set_mode(&guest, "", 0o777);
    let before = thread_credentials();
    let who = caller(1234, 4321);
    let new = |name| NewObject {
        caller: who,
        ..new_object(name)
    };
    guest.fs.mkdir(&new(c"dir"), 0o755).unwrap();
    guest.fs.mknod(&new(c"fifo"), 0o010_644, 0).unwrap();
    guest.fs.symlink(&new(c"link"), c"target").unwrap();
    let create = CreateRequest {
        new: new(c"file"),
        ..create_request(c"file")
    };
    guest.fs.create(&create).unwrap();
    for name in ["dir", "fifo", "link", "file"] {
        assert_eq!(owner(&guest, name), (1234, 4321), "{name}");
    }
    let tmpfile = TmpfileRequest {
        caller: who,
        parent: ROOT,
        mode: 0o600,
        umask: 0,
        flags: OpenFlags::RDWR,
        security_contexts: SecurityContexts::default(),
    };
    match guest.fs.tmpfile(&tmpfile) {
        Err(Errno::EOPNOTSUPP) => println!("skipped: no O_TMPFILE here"),
        made => {
            let attr = made.unwrap().0.attr;
            assert_eq!((attr.uid.raw(), attr.gid.raw()), (1234, 4321));
        }
    }
    assert_eq!(thread_credentials(), before);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn root_and_each_id_alone_are_switched_as_needed() {
    if !is_root_or_says_why_not("root_and_each_id_alone_are_switched_as_needed") {
        return;
    }
    let guest = Guest::new();
    set_mode(&guest, "", 0o777);
    let before = thread_credentials();
    for (name, uid, gid) in [(c"a", 0, 0), (c"b", 0, 77), (c"c", 77, 0), (c"d", 77, 88)] {
        mkdir_as(&guest, name, caller(uid, gid)).unwrap();
        let made = owner(&guest, name.to_str().unwrap());
        assert_eq!(made, (uid, gid));
        assert_eq!(thread_credentials(), before);
    }
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn directory_with_set_group_id_gives_its_group() {
    if !is_root_or_says_why_not("directory_with_set_group_id_gives_its_group") {
        return;
    }
    let guest = Guest::new();
    chown(guest.share.path(), Some(0), Some(555)).unwrap();
    set_mode(&guest, "", 0o2777);
    mkdir_as(&guest, c"dir", caller(1234, 4321)).unwrap();
    let host = fs::metadata(guest.share.join("dir")).unwrap();
    assert_eq!((host.uid(), host.gid()), (1234, 555));
    assert_eq!(host.mode() & 0o2000, 0o2000);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn errors_leave_the_thread_as_it_was() {
    if !is_root_or_says_why_not("errors_leave_the_thread_as_it_was") {
        return;
    }
    let guest = Guest::new();
    fs::create_dir(guest.share.join("taken")).unwrap();
    guest.share.write("file", b"");
    let file = guest.lookup(ROOT, c"file");
    let before = thread_credentials();
    let who = Caller {
        supplementary_gid: GuestGid::new(99),
        ..caller(1234, 4321)
    };
    assert_eq!(mkdir_as(&guest, c"new", who), Err(Errno::EACCES));
    assert_eq!(thread_credentials(), before);
    assert_eq!(mkdir_as(&guest, c"taken", who), Err(Errno::EEXIST));
    assert_eq!(thread_credentials(), before);
    let under_file = NewObject {
        caller: who,
        parent: file,
        ..new_object(c"new")
    };
    assert_eq!(
        guest.fs.mkdir(&under_file, 0o755).unwrap_err(),
        Errno::ENOTDIR
    );
    let create = CreateRequest {
        new: under_file,
        ..create_request(c"new")
    };
    assert_eq!(guest.fs.create(&create).unwrap_err(), Errno::ENOTDIR);
    assert_eq!(thread_credentials(), before);
    guest.forget(file);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn group_membership_counts_as_the_guest_says_it() {
    if !is_root_or_says_why_not("group_membership_counts_as_the_guest_says_it") {
        return;
    }
    let guest = Guest::new();
    chown(guest.share.path(), Some(0), Some(555)).unwrap();
    set_mode(&guest, "", 0o770);
    let before = thread_credentials();
    let member = |gid| Caller {
        supplementary_gid: GuestGid::new(gid),
        ..caller(1234, 4321)
    };
    // With CREATE_SUPP_GROUP the guest names the group that counts, and only that one does.
    assert_eq!(mkdir_as(&guest, c"a", member(555)), Ok(()));
    assert_eq!(owner(&guest, "a"), (1234, 4321));
    assert_eq!(thread_credentials(), before);
    assert_eq!(mkdir_as(&guest, c"b", member(556)), Err(Errno::EACCES));
    assert_eq!(
        mkdir_as(&guest, c"b", caller(1234, 4321)),
        Err(Errno::EACCES)
    );
    // The groups of the request before must be gone.
    assert_eq!(mkdir_as(&guest, c"b", caller(1234, 555)), Ok(()));
    assert_eq!(mkdir_as(&guest, c"c", caller(0, 0)), Ok(()));
    assert_eq!(
        mkdir_as(&guest, c"d", caller(1234, 4321)),
        Err(Errno::EACCES)
    );
    // Without it the guest's own check counts.
    guest.mount(SessionFlags::empty());
    assert_eq!(mkdir_as(&guest, c"d", caller(1234, 4321)), Ok(()));
    assert_eq!(owner(&guest, "d"), (1234, 4321));
    assert_eq!(thread_credentials(), before);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn device_nodes_take_the_guest_root() {
    if !is_root_or_says_why_not("device_nodes_take_the_guest_root") {
        return;
    }
    let guest = Guest::new();
    set_mode(&guest, "", 0o777);
    guest.mount(SessionFlags::empty());
    let new = NewObject {
        caller: caller(1234, 4321),
        ..new_object(c"device")
    };
    // DAC_OVERRIDE stays without CREATE_SUPP_GROUP; CAP_MKNOD does not.
    let refused = guest.fs.mknod(&new, 0o020_666, 0x103);
    assert_eq!(refused.unwrap_err(), Errno::EPERM);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn create_opens_what_is_there_only_as_the_caller_may() {
    if !is_root_or_says_why_not("create_opens_what_is_there_only_as_the_caller_may") {
        return;
    }
    let guest = Guest::new();
    set_mode(&guest, "", 0o777);
    guest.share.write("secret", b"of root");
    set_mode(&guest, "secret", 0o600);
    let mut request = create_request(c"secret");
    request.new.caller = caller(1234, 4321);
    request.flags = OpenFlags::RDWR | OpenFlags::TRUNC;
    assert_eq!(guest.fs.create(&request).unwrap_err(), Errno::EACCES);
    assert_eq!(fs::read(guest.share.join("secret")).unwrap(), b"of root");
    chown(guest.share.join("secret"), Some(1234), Some(0)).unwrap();
    let (entry, opened) = guest.fs.create(&request).unwrap();
    assert_eq!(fs::read(guest.share.join("secret")).unwrap(), b"");
    drop((entry, opened));
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn threads_act_for_different_callers_at_once() {
    if !is_root_or_says_why_not("threads_act_for_different_callers_at_once") {
        return;
    }
    let guest = Guest::new();
    set_mode(&guest, "", 0o777);
    thread::scope(|scope| {
        for uid in [101_u32, 102, 103] {
            let guest = &guest;
            scope.spawn(move || {
                for index in 0..100 {
                    let name = std::ffi::CString::new(format!("{uid}-{index}")).unwrap();
                    let new = NewObject {
                        caller: caller(uid, uid),
                        ..new_object(&name)
                    };
                    let entry = guest.fs.mkdir(&new, 0o700).unwrap();
                    assert_eq!(entry.attr.uid.raw(), uid);
                    assert_eq!(entry.attr.gid.raw(), uid);
                    guest.forget(keep(entry));
                }
            });
        }
    });
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

/// Takes one capability away from the calling thread.
fn give_up(capability: u32) {
    let sets = credentials::capabilities().unwrap();
    credentials::set_capabilities(&sets.lacking(capability)).unwrap();
}

#[test]
fn switch_that_fails_half_way_is_undone_as_far_as_it_came() {
    if !is_root_or_says_why_not("switch_that_fails_half_way_is_undone_as_far_as_it_came") {
        return;
    }
    let guest = Guest::new();
    set_mode(&guest, "", 0o777);
    let who = Caller {
        supplementary_gid: GuestGid::new(99),
        ..caller(1234, 4321)
    };
    // Without SETUID the groups and the group id are switched already; without SETGID nothing is.
    for capability in [CapabilitySets::SETUID, CapabilitySets::SETGID] {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                give_up(capability);
                let before = thread_credentials();
                assert_eq!(mkdir_as(&guest, c"dir", who), Err(Errno::EPERM));
                assert_eq!(thread_credentials(), before, "without {capability}");
                // Nobody is switched for, so this goes on.
                mkdir_as(&guest, c"own", caller(0, 0)).unwrap();
                fs::remove_dir(guest.share.join("own")).unwrap();
            });
            thread.join().unwrap();
        });
    }
    assert!(!guest.share.join("dir").exists());
}

/// The process has to end of it, so it is another one: this test again, asked to.
#[test]
fn way_back_that_fails_ends_the_process() {
    const ASKED: &str = "VIRTIOFSD_TEST_NO_WAY_BACK";
    if !is_root_or_says_why_not("way_back_that_fails_ends_the_process") {
        return;
    }
    if std::env::var_os(ASKED).is_some() {
        let translator = crate::ids::translator::Translator::default();
        let thread = FsThread::current(&ProcFd::open().unwrap()).unwrap();
        let who = Caller {
            supplementary_gid: GuestGid::new(99),
            ..caller(1234, 4321)
        };
        let who = HostCaller::resolve(&translator, &who).unwrap();
        let acting = AsCaller::become_caller(&thread, &who, GroupKnowledge::Exact).unwrap();
        give_up(CapabilitySets::SETGID);
        drop(acting);
        unreachable!("the thread went on without its own groups");
    }
    let name = "passthrough::tests::credentials::way_back_that_fails_ends_the_process";
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(ASKED, "1")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    assert_eq!(signal, Some(libc::SIGABRT));
}
