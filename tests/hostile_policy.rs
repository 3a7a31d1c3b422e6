//! What: policies of the operator under a guest that ignores errors and skips INIT (security.md
//! 2.3 and 2.10): `always` modes, ids at the edges of maps, read-only shares, privileges.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::{Arc, Barrier};
use std::thread;

use common::client::Client;
use common::frontend::Setup;
use common::request::{ROOT, SetAttr, init, op};
use common::session::{Init, LINUX_OFFERS};
use common::session_data::At;
use common::share::{Share, tree_state};
use common::templates::{Things, WITHOUT_REPLY, templates};
use common::{is_root_or_skip, sys};

const REG: u32 = libc::S_IFREG;

/// What each policy needs a guest to offer.
const ALWAYS: [(&str, u64); 4] = [
    ("--posix-acl", init::POSIX_ACL),
    ("--posix-acl=always", init::DONT_MASK),
    ("--posix-acl", init::SETXATTR_EXT),
    ("--security-label", init::SECURITY_CTX),
];

/// Every operation fails, and nothing changes on the host.
fn assert_locked_out(client: &mut Client, share: &Share, case: &str) {
    let before = tree_state(&share.path());
    let things = Things {
        file: ROOT,
        fh: 0,
        dir_fh: 0,
        link: ROOT,
    };
    for (opcode, node, body) in templates(things, LINUX_OFFERS) {
        if WITHOUT_REPLY.contains(&opcode) {
            continue;
        }
        let result = client.call(opcode, node, &body, 600);
        assert!(result.is_err(), "{case}: opcode {opcode}: {result:?}");
    }
    assert_eq!(tree_state(&share.path()), before, "{case}");
}

#[test]
fn guest_that_ignores_a_refused_init_gets_nothing() {
    for (option, lacking) in ALWAYS {
        let share = Share::new();
        share.write("file", b"data");
        let mut client = Client::attach(Setup::default().args(&[option]).boot(&share.path()));
        let fds = client.vm.daemon.fd_count();
        let wish = Init {
            flags: LINUX_OFFERS & !lacking,
            ..Init::default()
        };
        for _ in 0..3 {
            let refused = client.init_with(&wish).map(drop);
            assert_eq!(refused, Err(libc::EPROTO), "{option} {lacking:#x}");
            assert_locked_out(&mut client, &share, option);
        }
        assert_eq!(client.vm.daemon.fd_count(), fds);
        client.init();
        client.canary();
    }
}

#[test]
fn refused_init_ends_the_session_before_it() {
    let share = Share::new();
    share.write("file", b"data");
    let mut client = Client::with_args(&share, &["--posix-acl"]);
    let fds = client.vm.daemon.fd_count();
    let node = client.node("file");
    let fh = client.open(node, libc::O_RDWR).expect("OPEN").fh;
    let wish = Init {
        flags: LINUX_OFFERS & !init::POSIX_ACL,
        ..Init::default()
    };
    assert_eq!(client.init_with(&wish).map(drop), Err(libc::EPROTO));
    let at = At {
        node,
        fh,
        offset: 0,
    };
    assert!(client.read(at, 10).is_err(), "a handle of the old session");
    assert_locked_out(&mut client, &share, "after a refused INIT");
    assert_eq!(client.vm.daemon.fd_count(), fds);
}

#[test]
fn read_only_share_without_init_changes_nothing() {
    let share = Share::new();
    share.write("file", b"data");
    let setup = Setup::default().args(&["--readonly", "--xattr"]);
    let mut client = Client::attach(setup.boot(&share.path()));
    assert_locked_out(&mut client, &share, "read-only, no INIT");
    client.init();
    client.canary();
}

#[test]
fn wild_open_flags_on_a_read_only_share_are_refused_or_harmless() {
    let share = Share::new();
    share.write("file", b"data");
    let mut client = Client::with_args(&share, &["--readonly"]);
    let node = client.node("file");
    let before = tree_state(&share.path());
    let oracle = client.oracle();
    let path_and_truncate = libc::O_PATH | libc::O_TRUNC;
    for extra in [0, i32::MIN, path_and_truncate, -1 ^ libc::O_ACCMODE] {
        for access in [
            libc::O_RDONLY,
            libc::O_WRONLY,
            libc::O_RDWR,
            libc::O_ACCMODE,
        ] {
            let flags = extra | access;
            match client.open(node, flags) {
                Ok(opened) => {
                    let at = At {
                        node,
                        fh: opened.fh,
                        offset: 0,
                    };
                    assert_eq!(client.write(at, b"x"), Err(libc::EROFS), "{flags:#x}");
                    client.release(node, opened.fh).expect("RELEASE");
                }
                Err(errno) => assert!(
                    [libc::EROFS, libc::EINVAL].contains(&errno),
                    "{flags:#x}: {errno}"
                ),
            }
        }
        let made = client.create(ROOT, "new", REG | 0o644, extra | libc::O_RDWR);
        assert_eq!(made, Err(libc::EROFS), "{extra:#x}");
    }
    assert_eq!(tree_state(&share.path()), before);
    client.assert_sound(&oracle, "wild flags, read-only");
}

/// A map with walls around it, as doc/id-translation.md says.
const WALLED: [&str; 6] = [
    "--translate-uid=map:10:1000:10",
    "--translate-uid=forbid-guest:0:10",
    "--translate-uid=forbid-guest:20:4294967275",
    "--translate-gid=map:10:2000:10",
    "--translate-gid=forbid-guest:0:10",
    "--translate-gid=forbid-guest:20:4294967275",
];

/// Ids around every edge of a map, as callers and as owners to be.
const EDGES: [u32; 12] = [
    0,
    9,
    10,
    19,
    20,
    999,
    1000,
    1009,
    1010,
    0x7fff_ffff,
    0xffff_fffe,
    u32::MAX,
];

#[test]
fn ids_beyond_the_edges_of_a_map_with_walls_are_refused() {
    if !is_root_or_skip("ids_beyond_the_edges_of_a_map_with_walls_are_refused") {
        return;
    }
    let share = Share::new();
    fs::set_permissions(share.path(), Permissions::from_mode(0o777)).expect("own directory");
    let file = share.write("file", b"data");
    std::os::unix::fs::chown(&file, Some(1005), Some(2005)).expect("root may");
    let mut client = Client::with_args(&share, &WALLED);
    client.uid = 15;
    client.gid = 15;
    let node = client.node("file");
    let oracle = client.oracle();
    for id in EDGES {
        client.uid = id;
        client.gid = id;
        let name = format!("dir{id}");
        let made = client.mkdir(ROOT, &name, 0o755);
        if (10..20).contains(&id) {
            let entry = made.expect("inside the map");
            let host = share.stat(&name);
            assert_eq!((host.uid(), host.gid()), (990 + id, 1990 + id));
            client.forget(entry.node, 1);
        } else {
            let expected = if id == u32::MAX {
                libc::EOVERFLOW
            } else {
                libc::EPERM
            };
            assert_eq!(made.map(drop), Err(expected), "caller {id}");
            assert!(!share.exists(&name));
        }
        client.uid = 15;
        client.gid = 15;
        for valid in [1 << 1, 1 << 2] {
            let change = SetAttr {
                valid,
                uid: id,
                gid: id,
                ..SetAttr::default()
            };
            let changed = client.setattr(node, &change).map(drop);
            assert_eq!(changed.is_ok(), (10..20).contains(&id), "owner {id}");
        }
    }
    let host = share.stat("file");
    assert!((1000..1010).contains(&host.uid()) && (2000..2010).contains(&host.gid()));
    client.assert_sound(&oracle, "ids at the edges");
}

/// Ids that no rule names stay what they are; that is the documented policy of a map alone.
#[test]
fn ids_beyond_the_edges_of_a_map_alone_stay_what_they_are() {
    if !is_root_or_skip("ids_beyond_the_edges_of_a_map_alone_stay_what_they_are") {
        return;
    }
    let share = Share::new();
    fs::set_permissions(share.path(), Permissions::from_mode(0o777)).expect("own directory");
    let map = [
        "--translate-uid=map:10:1000:10",
        "--translate-gid=map:10:2000:10",
    ];
    let mut client = Client::with_args(&share, &map);
    for id in EDGES {
        client.uid = id;
        client.gid = id;
        let name = format!("dir{id}");
        let made = client.mkdir(ROOT, &name, 0o755).map(drop);
        if id == u32::MAX {
            assert_eq!(made, Err(libc::EOVERFLOW), "nobody's id");
            continue;
        }
        let shift = if (10..20).contains(&id) {
            (990, 1990)
        } else {
            (0, 0)
        };
        let host = share.stat(&name);
        assert_eq!((host.uid(), host.gid()), (id + shift.0, id + shift.1));
    }
}

/// The set-id bits and the capabilities of a file must not outlive a write, whoever writes and
/// however the file was opened.
#[test]
fn file_capabilities_do_not_outlive_a_write_through_a_create_handle() {
    if !is_root_or_skip("file_capabilities_do_not_outlive_a_write_through_a_create_handle") {
        return;
    }
    let share = Share::new();
    let path = share.write("file", b"old");
    for map in ["--xattr", "--xattrmap=:map::user.virtiofs.:"] {
        let (name, caps) = match map {
            "--xattr" => (c"security.capability", &CAPS[..]),
            _ => (c"user.virtiofs.security.capability", &CAPS[..]),
        };
        if sys::set_xattr(&path, name, caps).is_err() {
            eprintln!("skipped {map}: the temporary directory takes no {name:?}");
            continue;
        }
        let mut client = Client::with_args(&share, &[map]);
        // The type bits are missing from the mode.
        let made = client.create(ROOT, "file", 0o755, libc::O_RDWR);
        let (entry, opened) = made.expect("CREATE of what is there");
        let at = At {
            node: entry.node,
            fh: opened.fh,
            offset: 0,
        };
        client.write(at, b"new").expect("WRITE");
        assert!(sys::get_xattr(&path, name).is_err(), "{map}: still there");
    }
}

/// Version 2, `cap_net_raw+ep`.
const CAPS: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// With access control lists the umask of each request counts, in its own thread only.
#[test]
fn umasks_of_requests_at_once_stay_apart() {
    const ROUNDS: usize = 60;
    for pool in ["0", "4", "adaptive"] {
        let share = Share::new();
        let setup = Setup::default().queues(2);
        let setup = setup.args(&["--posix-acl", "--thread-pool-size", pool]);
        let mut client = Client::mount(&setup, &share);
        let mut other = client.session_on(2);
        client.umask = 0o077;
        other.umask = 0;
        let barrier = Arc::new(Barrier::new(2));
        let start = Arc::clone(&barrier);
        let racer = thread::spawn(move || {
            start.wait();
            for round in 0..ROUNDS {
                let name = format!("open{round}");
                other.mkdir(ROOT, &name, 0o777).expect("MKDIR");
            }
        });
        barrier.wait();
        for round in 0..ROUNDS {
            let name = format!("shut{round}");
            client.mkdir(ROOT, &name, 0o777).expect("MKDIR");
        }
        racer.join().expect("no panic in the other guest thread");
        for round in 0..ROUNDS {
            let mode = |name: String| share.stat(&name).mode() & 0o777;
            assert_eq!(mode(format!("open{round}")), 0o777, "pool {pool}");
            assert_eq!(mode(format!("shut{round}")), 0o700, "pool {pool}");
        }
    }
}

/// Callers of many kinds in turn on one thread: nothing of one is left for the next.
#[test]
fn ids_and_groups_of_requests_at_once_stay_apart() {
    if !is_root_or_skip("ids_and_groups_of_requests_at_once_stay_apart") {
        return;
    }
    for pool in ["0", "3", "adaptive"] {
        let share = Share::new();
        fs::set_permissions(share.path(), Permissions::from_mode(0o777)).expect("own directory");
        let dir = share.mkdir("members");
        std::os::unix::fs::chown(&dir, Some(1), Some(3000)).expect("root may");
        fs::set_permissions(&dir, Permissions::from_mode(0o770)).expect("root may");
        let setup = Setup::default().args(&["--thread-pool-size", pool]);
        let mut client = Client::mount(&setup, &share);
        let members = client.node("members");
        for round in 0..100_u32 {
            let name = format!("f{round}");
            // Root names a group; then an ordinary user tries to live on it.
            client.uid = 0;
            client.gid = 0;
            client.extension = common::request::group_extension(&[3000]);
            client
                .mkdir(ROOT, &format!("root{round}"), 0o755)
                .expect("root");
            client.extension = Vec::new();
            client.uid = 1000 + round;
            client.gid = 2000 + round;
            let refused = client.mkdir(members, &name, 0o755).map(drop);
            assert_eq!(refused, Err(libc::EACCES), "pool {pool}");
            client.mkdir(ROOT, &name, 0o755).expect("MKDIR");
            let host = share.stat(&name);
            assert_eq!((host.uid(), host.gid()), (1000 + round, 2000 + round));
            let root = share.stat(&format!("root{round}"));
            assert_eq!((root.uid(), root.gid()), (0, 0));
        }
    }
}

#[test]
fn forgetting_and_releasing_before_init_does_no_harm() {
    let share = Share::new();
    let mut client = Client::attach(Setup::default().boot(&share.path()));
    for opcode in WITHOUT_REPLY {
        let (message, _) = client.message(opcode, ROOT, &[0xff; 64]);
        assert_eq!(client.send_raw(&message, 200).used_len, 0);
    }
    assert!(client.plain(op::DESTROY, ROOT, &[]).is_err());
    client.init();
    client.canary();
}
