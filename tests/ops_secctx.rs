//! What: labels that come along with new objects (SECURITY_CTX), over a real socket, from guests
//! of today and from those of Linux 5.17 to 6.2, which lay them out differently.

mod common;

use std::ffi::CStr;

use common::client::Client;
use common::frontend::Setup;
use common::request::{Entry, ROOT, init, label_extension};
use common::session::{Init, LINUX_OFFERS, Reply};
use common::share::Share;
use common::sys;

/// Names of everything that [`make_all`] makes.
const ALL: [&str; 4] = ["file", "dir", "link", "fifo"];
const LABEL: &[u8] = b"system_u:object_r:x_t:s0";

/// The minor versions, and the capabilities with which such a guest mounts.
const GUESTS: [(u32, u64); 3] = [
    (45, LINUX_OFFERS),
    (37, LINUX_OFFERS & ((1 << 34) - 1)),
    (36, LINUX_OFFERS & ((1 << 34) - 1)),
];

fn mounted(share: &Share, args: &[&str], (minor, flags): (u32, u64)) -> Client {
    let mut client = Client::attach(Setup::default().args(args).boot(&share.path()));
    let init = Init {
        minor,
        flags,
        ..Init::default()
    };
    let out = client.init_with(&init).expect("INIT");
    assert_eq!(
        out.flags & init::SECURITY_CTX,
        init::SECURITY_CTX,
        "7.{minor}"
    );
    client
}

/// One of everything; what each said.
fn make_all(client: &mut Client) -> [(&'static str, Reply<Entry>); 4] {
    let file = client
        .create(ROOT, "file", libc::S_IFREG | 0o644, libc::O_RDWR)
        .map(|(entry, opened)| {
            client.release(entry.node, opened.fh).expect("RELEASE");
            entry
        });
    [
        ("file", file),
        ("dir", client.mkdir(ROOT, "dir", 0o755)),
        ("link", client.symlink(ROOT, "link", "target")),
        ("fifo", client.mknod(ROOT, "fifo", libc::S_IFIFO | 0o644, 0)),
    ]
}

fn host_label(share: &Share, name: &str, label: &CStr) -> Option<Vec<u8>> {
    sys::get_xattr(&share.at(name), label).ok()
}

/// The kernel keeps trusted attributes for CAP_SYS_ADMIN, xattr(7).
const MAY_SET_TRUSTED: &str = "--modcaps=+sys_admin";

/// Whether attributes of this kind can be set in the temporary directory.
fn may_label_or_skip(test: &str) -> bool {
    let probe = Share::new();
    let may = common::is_root_or_skip(test)
        && sys::set_xattr(&probe.path(), c"trusted.probe", b"1").is_ok();
    if !may {
        eprintln!("skipped {test}: trusted attributes cannot be set here");
    }
    may
}

#[test]
fn everything_has_its_labels_whatever_the_guests_version() {
    if !may_label_or_skip("everything_has_its_labels_whatever_the_guests_version") {
        return;
    }
    for guest in GUESTS {
        let share = Share::new();
        let args = ["--security-label", MAY_SET_TRUSTED];
        let mut client = mounted(&share, &args, guest);
        client.extension = label_extension(&[("trusted.one", LABEL), ("trusted.two", b"2")]);
        for (name, made) in make_all(&mut client) {
            assert!(made.is_ok(), "{guest:?} {name}: {made:?}");
            let labels = [c"trusted.one", c"trusted.two"].map(|l| host_label(&share, name, l));
            let expected = [Some(LABEL.to_vec()), Some(b"2".to_vec())];
            assert_eq!(labels, expected, "{guest:?} {name}");
        }
        if let Ok((unnamed, opened)) = client.tmpfile(ROOT, 0o600, libc::O_RDWR) {
            let label = client.getxattr(unnamed.node, "trusted.one", 100);
            assert_eq!(label.as_deref(), Ok(LABEL));
            client.release(unnamed.node, opened.fh).expect("RELEASE");
        }
    }
}

#[test]
fn guests_without_a_security_module_make_things_as_ever() {
    for guest in GUESTS {
        let share = Share::new();
        let mut client = mounted(&share, &["--security-label"], guest);
        client.extension = label_extension(&[]);
        for (name, made) in make_all(&mut client) {
            assert!(made.is_ok(), "{guest:?} {name}: {made:?}");
        }
    }
}

#[test]
fn labels_live_under_the_names_of_the_map() {
    if !may_label_or_skip("labels_live_under_the_names_of_the_map") {
        return;
    }
    let share = Share::new();
    let map = "--xattrmap=:map::trusted.virtiofs.:";
    let args = ["--security-label", map, MAY_SET_TRUSTED];
    let mut client = mounted(&share, &args, GUESTS[0]);
    client.extension = label_extension(&[("security.selinux", LABEL)]);
    for (name, made) in make_all(&mut client) {
        let node = made.expect("made").node;
        let label = host_label(&share, name, c"trusted.virtiofs.security.selinux");
        assert_eq!(label.as_deref(), Some(LABEL), "{name}");
        let seen = client.getxattr(node, "security.selinux", 100);
        assert_eq!(seen.as_deref(), Ok(LABEL), "{name}");
    }
}

#[test]
fn label_that_cannot_be_set_leaves_nothing_behind() {
    for guest in GUESTS {
        let share = Share::new();
        let mut client = mounted(&share, &["--security-label"], guest);
        let oracle = client.oracle();
        client.extension = label_extension(&[("user.fine", b"1"), ("nonsense", b"2")]);
        for round in 0..20 {
            for (name, made) in make_all(&mut client) {
                assert!(
                    matches!(made, Err(libc::EOPNOTSUPP | libc::EPERM)),
                    "{guest:?} {name} round {round}: {made:?}"
                );
                assert!(!share.exists(name), "{guest:?} {name}");
            }
        }
        client.extension = label_extension(&[]);
        client.assert_sound(&oracle, "labels that cannot be set");
        share.assert_outside_unchanged();
    }
}

#[test]
fn labels_that_the_map_forbids_prevent_the_making() {
    let share = Share::new();
    let map = "--xattrmap=:bad:all:security.:security.::ok:all:::";
    let mut client = mounted(&share, &["--security-label", map], GUESTS[0]);
    client.extension = label_extension(&[("security.selinux", LABEL)]);
    for (name, made) in make_all(&mut client) {
        assert_eq!(made, Err(libc::EPERM), "{name}");
    }
    assert!(ALL.iter().all(|name| !share.exists(name)));
}

#[test]
fn contexts_without_the_option_are_refused() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &["--xattr"]);
    assert_eq!(client.flags & init::SECURITY_CTX, 0);
    client.extension = label_extension(&[("trusted.one", LABEL)]);
    for (name, made) in make_all(&mut client) {
        assert_eq!(made, Err(libc::EINVAL), "{name}");
    }
}

#[test]
fn guest_that_cannot_label_mounts_only_if_the_option_lets_it() {
    let share = Share::new();
    for (option, mounts) in [("--security-label", false), ("--security-label=auto", true)] {
        let mut client = Client::attach(Setup::default().args(&[option]).boot(&share.path()));
        let init = Init {
            minor: 35,
            ..Init::default()
        };
        let answer = client
            .init_with(&init)
            .map(|out| out.flags & init::SECURITY_CTX);
        let expected = if mounts { Ok(0) } else { Err(libc::EPROTO) };
        assert_eq!(answer, expected, "{option}");
    }
}
