//! What: nodes, handles and special files used for what they are not (security.md 2.4 to 2.6 and
//! 2.9): handles with other nodes, links that are asked to lead, deleted files, sockets.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;

use common::client::Client;
use common::frontend::Setup;
use common::request::{Bytes, ROOT, SetAttr, op};
use common::session_data::At;
use common::share::Share;
use common::templates::{Things, WITHOUT_REPLY, templates};

const REG: u32 = libc::S_IFREG;

#[test]
fn handle_of_another_node_is_refused_or_means_its_own_file() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    let (one, one_fh) = client.make_file(ROOT, "one", b"one");
    let (two, two_fh) = client.make_file(ROOT, "two", b"two");
    let dir_fh = client.opendir(ROOT).expect("OPENDIR").fh;
    let oracle = client.oracle();
    let at = |node, fh| At {
        node,
        fh,
        offset: 0,
    };
    assert_eq!(client.read(at(one, two_fh), 10), Err(libc::EBADF));
    assert_eq!(client.write(at(one, two_fh), b"x"), Err(libc::EBADF));
    assert_eq!(client.read(at(ROOT, one_fh), 10), Err(libc::EBADF));
    assert_eq!(client.release(one, two_fh), Err(libc::EBADF));
    assert_eq!(client.flush(two, one_fh), Err(libc::EBADF));
    assert_eq!(
        client
            .fsync(one, dir_fh)
            .map_err(|e| e == libc::EBADF || e == libc::EISDIR),
        Err(true)
    );
    assert_eq!(client.releasedir(one, dir_fh), Err(libc::EBADF));
    assert_eq!(
        client.readdir_once(at(one, dir_fh), 500, false),
        Err(libc::EBADF)
    );
    let shrink = SetAttr {
        valid: 1 << 3 | 1 << 6,
        fh: two_fh,
        size: 0,
        ..SetAttr::default()
    };
    assert!(client.setattr(one, &shrink).is_err());
    client.assert_sound(&oracle, "handles of other nodes");
    assert_eq!(share.read("one"), b"one");
    assert_eq!(share.read("two"), b"two");
    assert_eq!(client.read_all(one, one_fh), b"one", "its own still works");
}

#[test]
fn symlink_is_never_a_parent() {
    let share = Share::new();
    fs::create_dir(share.at("dir")).expect("fresh");
    share.write("dir/file", b"data");
    symlink("dir", share.at("inside")).expect("fresh");
    symlink("../outside", share.at("outside")).expect("fresh");
    symlink("/etc", share.at("etc")).expect("fresh");
    let mut client = Client::with_args(&share, &["--xattr"]);
    for name in ["inside", "outside", "etc"] {
        let node = client.node(name);
        let oracle = client.oracle();
        for below in ["file", "victim", "passwd", "deep"] {
            assert_eq!(client.lookup(node, below), Err(libc::ENOTDIR), "{name}");
            assert!(client.unlink(node, below).is_err());
            assert!(client.rmdir(node, below).is_err());
            assert!(client.rename((node, below), (ROOT, "stolen")).is_err());
        }
        assert!(client.mkdir(node, "new", 0o755).is_err());
        assert!(client.mknod(node, "new", REG | 0o644, 0).is_err());
        assert!(client.symlink(node, "new", "x").is_err());
        assert!(
            client
                .create(node, "new", REG | 0o644, libc::O_RDWR)
                .is_err()
        );
        assert!(client.tmpfile(node, REG | 0o644, libc::O_RDWR).is_err());
        assert!(client.opendir(node).is_err());
        assert!(client.open(node, libc::O_RDONLY).is_err());
        client.assert_sound(&oracle, name);
    }
}

#[test]
fn symlink_targets_that_are_none_are_refused() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    let oracle = client.oracle();
    for target in [vec![b't'; 4096], vec![b't'; 65_536], vec![b't'; 1 << 20]] {
        let body = Bytes::new().name(b"link").name(&target).done();
        let result = client.call(op::SYMLINK, ROOT, &body, 128).map(drop);
        assert!(
            matches!(result, Err(libc::ENAMETOOLONG | libc::EINVAL | libc::E2BIG)),
            "{} bytes: {result:?}",
            target.len()
        );
    }
    let with_nul = Bytes::new().name(b"link").name(b"tar\0get").done();
    assert_eq!(
        client.call(op::SYMLINK, ROOT, &with_nul, 128).map(drop),
        Err(libc::EINVAL)
    );
    let without_target = Bytes::new().name(b"link").done();
    assert_eq!(
        client
            .call(op::SYMLINK, ROOT, &without_target, 128)
            .map(drop),
        Err(libc::EINVAL)
    );
    assert_eq!(client.symlink(ROOT, "link", ""), Err(libc::ENOENT));
    assert_eq!(share.names(""), [""; 0]);
    client.assert_sound(&oracle, "symlink targets");
}

#[test]
fn sockets_are_refused_by_open_and_still_serve_their_host() {
    let share = Share::new();
    let listener = UnixListener::bind(share.at("socket")).expect("fresh");
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("socket");
    let oracle = client.oracle();
    for flags in [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR | libc::O_TRUNC] {
        assert!(client.open(node, flags).is_err());
        assert!(client.create(ROOT, "socket", REG | 0o644, flags).is_err());
    }
    client
        .getattr(node, None)
        .expect("its attributes are there");
    drop(std::os::unix::net::UnixStream::connect(share.at("socket")).expect("it listens"));
    drop(listener);
    client.assert_sound(&oracle, "a socket");
}

#[test]
fn deleted_files_are_not_resurrected_and_links_of_specials_follow_the_kernel() {
    let share = Share::new();
    symlink("target", share.at("link")).expect("fresh");
    let mut client = Client::with_args(&share, &[]);
    let (file, fh) = client.make_file(ROOT, "file", b"data");
    client.unlink(ROOT, "file").expect("UNLINK");
    let again = client.link(file, ROOT, "again");
    assert!(again.is_err(), "{again:?}");
    assert!(!share.exists("again"));
    client.release(file, fh).expect("RELEASE");
    let link = client.node("link");
    client.link(link, ROOT, "hard").expect("a link of the link");
    assert_eq!(share.stat("hard").ino(), share.stat("link").ino());
    assert!(
        client.link(ROOT, ROOT, "root").is_err(),
        "no links of directories"
    );
    assert!(client.link(4711, ROOT, "nobody").is_err());
    // A temporary file of one session is nobody else's: node ids are not guessed, and after the
    // next INIT they mean nothing.
    let (tmp, opened) = client
        .tmpfile(ROOT, REG | 0o600, libc::O_RDWR)
        .expect("TMPFILE");
    client.init();
    assert!(client.link(tmp.node, ROOT, "stolen").is_err());
    let at = At {
        node: tmp.node,
        fh: opened.fh,
        offset: 0,
    };
    assert!(client.read(at, 10).is_err());
    assert!(!share.exists("stolen"));
}

/// A node whose file is gone is ESTALE or the like, and never the file that took its place.
#[test]
fn node_of_a_replaced_file_never_leads_to_the_other() {
    for policy in ["never", "prefer"] {
        let handles = format!("--inode-file-handles={policy}");
        let share = Share::new();
        let mut client = Client::with_args(&share, &[&handles, "--cache", "never"]);
        for round in 0..50 {
            let name = format!("file{round}");
            share.write(&name, b"old");
            let node = client.node(&name);
            fs::remove_file(share.at(&name)).expect("it is there");
            // Likely to get the inode number that was freed.
            let other = format!("other{round}");
            share.write(&other, b"new");
            if let Ok(opened) = client.open(node, libc::O_RDONLY) {
                assert_eq!(client.read_all(node, opened.fh), b"old", "{policy}");
            }
            let theirs = client.node(&other);
            assert_ne!(theirs, node, "{policy}");
        }
        client.canary();
    }
}

/// Every operation on every kind of node: an answer, no hang, no harm.
#[test]
fn every_operation_on_every_kind_of_node_is_answered() {
    let share = Share::new();
    fs::create_dir(share.at("dir")).expect("fresh");
    share.write("plain", b"data");
    symlink("../outside/victim", share.at("link")).expect("fresh");
    common::sys::mknod(&share.at("fifo"), libc::S_IFIFO | 0o666, 0).expect("fresh");
    let _listener = UnixListener::bind(share.at("socket")).expect("fresh");
    let setup = Setup::default()
        .queues(2)
        .args(&["--xattr", "--posix-lock", "--flock"]);
    let mut client = Client::mount(&setup, &share);
    let oracle = client.oracle();
    let mut canary = client.session_on(2);
    let kinds = ["dir", "plain", "link", "fifo", "socket"];
    for (opcode, _, body) in templates(
        Things {
            file: ROOT,
            fh: 0,
            dir_fh: 0,
            link: ROOT,
        },
        client.flags,
    ) {
        for kind in kinds {
            // Some of them remove or replace what the others need.
            if [op::SETATTR, op::UNLINK, op::RMDIR].contains(&opcode) {
                continue;
            }
            let Ok(entry) = client.lookup(ROOT, kind) else {
                continue;
            };
            let (message, _) = client.message(opcode, entry.node, &body);
            let completion = client.send_raw(&message, 700);
            let silent = WITHOUT_REPLY.contains(&opcode);
            assert_eq!(completion.used_len == 0, silent, "{opcode} on {kind}");
        }
    }
    for node in [0, 2, 4711, u64::MAX, 1 << 63] {
        for (opcode, _, body) in templates(
            Things {
                file: node,
                fh: 0,
                dir_fh: 0,
                link: node,
            },
            client.flags,
        ) {
            if WITHOUT_REPLY.contains(&opcode)
                || [op::OPEN, op::CREATE, op::OPENDIR].contains(&opcode)
            {
                continue;
            }
            let result = client.call(opcode, node, &body, 700);
            assert!(
                result.is_err() || opcode == op::STATFS,
                "{opcode} on {node}"
            );
        }
    }
    client.init();
    canary.canary();
    client.assert_sound(&oracle, "every operation on every kind");
    share.assert_outside_unchanged();
}
