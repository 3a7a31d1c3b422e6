//! What: guests that want too much (security.md 2.7 and 2.8): sizes of gigabytes, many large
//! replies at once, storms, and trees that change while they are walked.

mod common;

use std::thread;
use std::time::Duration;

use common::client::Client;
use common::frontend::Setup;
use common::memory::MemoryLayout;
use common::oracle::Oracle;
use common::queue::Cut;
use common::request::{Bytes, OUT_HEADER, ROOT, init, label_extension, op};
use common::session::Session;
use common::session_data::{At, read_body};
use common::share::Share;
use common::{Rng, sys, u64_of};

/// Room for many large replies.
fn roomy() -> Setup {
    Setup::default()
        .memory(MemoryLayout::one(160 << 20))
        .queue_size(256)
}

#[test]
fn sizes_of_gigabytes_are_refused_or_cut_without_memory_for_them() {
    let share = Share::new();
    share.write("file", &[7; 8192]);
    let mut client = Client::with_args(&share, &["--xattr"]);
    let oracle = client.oracle();
    for size in [1 << 20, 1 << 30, 1 << 31, u32::MAX - 4095, u32::MAX] {
        let node = client.node("file");
        let fh = client.open(node, libc::O_RDWR).expect("OPEN").fh;
        let dir = client.opendir(ROOT).expect("OPENDIR").fh;
        let at = |node, fh| At {
            node,
            fh,
            offset: 0,
        };
        for (opcode, body) in [
            (op::READ, read_body(at(node, fh), size, 0)),
            (op::READDIR, read_body(at(ROOT, dir), size, 0)),
            (op::READDIRPLUS, read_body(at(ROOT, dir), size, 0)),
            (
                op::GETXATTR,
                Bytes::new().u32(size).u32(0).name(b"user.x").done(),
            ),
            (op::LISTXATTR, Bytes::new().u32(size).u32(0).done()),
        ] {
            let target = if opcode == op::READDIR || opcode == op::READDIRPLUS {
                ROOT
            } else {
                node
            };
            let (message, _) = client.message(opcode, target, &body);
            let completion = client.send_raw(&message, 4096);
            assert!(completion.used_len >= OUT_HEADER, "{opcode} of {size}");
        }
        // Arguments and results of an ioctl.
        for sizes in [(size, 0), (0, size), (size, size)] {
            let body = Bytes::new().u64(fh).u32(0).u32(0x5401).u64(0);
            let body = body.u32(sizes.0).u32(sizes.1).done();
            assert!(
                client.call(op::IOCTL, node, &body, 64).is_err(),
                "{sizes:?}"
            );
        }
        // The header claims what is not there.
        let (mut message, _) = client.message(op::GETATTR, ROOT, &[0; 16]);
        message[..4].copy_from_slice(&size.to_le_bytes());
        let completion = client.send_raw(&message, 200);
        assert_eq!(completion.used_len, OUT_HEADER, "len {size}");
        client.init();
        client.assert_sound(&oracle, &format!("sizes of {size}"));
    }
}

#[test]
fn many_large_replies_at_once_take_bounded_memory() {
    for pool in ["0", "4", "adaptive"] {
        let share = Share::new();
        share.write("big", &vec![7; 1 << 20]);
        for index in 0..500 {
            share.write(&format!("{index:0200}"), b"");
        }
        let mut client = Client::mount(
            &roomy()
                .queues(2)
                .args(&["--xattr", "--thread-pool-size", pool]),
            &share,
        );
        let mut canary = client.session_on(2);
        let node = client.node("big");
        let fh = client.open(node, libc::O_RDONLY).expect("OPEN").fh;
        let dir = client.opendir(ROOT).expect("OPENDIR").fh;
        client.queue.cut = Cut::Every(1 << 16);
        let oracle = Oracle::new(&mut client.vm, &mut canary);
        for _ in 0..5 {
            for index in 0..100 {
                let (target, fh, opcode) = match index % 2 {
                    0 => (node, fh, op::READ),
                    _ => (ROOT, dir, op::READDIR),
                };
                let at = At {
                    node: target,
                    fh,
                    offset: 0,
                };
                let body = read_body(at, 1 << 20, 0);
                let (message, _) = client.message(opcode, target, &body);
                client.queue.add(&message, OUT_HEADER + (1 << 20));
            }
            client.queue.publish();
            assert_eq!(client.queue.drain().len(), 100);
        }
        // The oracle's bound of 64 MiB is far below the 500 MiB that were answered.
        oracle.check(&mut client.vm, &mut canary, "large replies");
    }
}

#[test]
fn many_attributes_are_listed_or_refused() {
    let share = Share::new();
    let file = share.write("file", b"data");
    let mut there = 0;
    for index in 0..2000 {
        let name = std::ffi::CString::new(format!("user.{index:0200}")).expect("no NUL");
        if sys::set_xattr(&file, &name, b"v").is_err() {
            break;
        }
        there += 1;
    }
    let mut client = Client::with_args(&share, &["--xattr"]);
    let node = client.node("file");
    let oracle = client.oracle();
    for size in [0, 1, 100, 65_536, 1 << 20] {
        let result = client.listxattr(node, size);
        if let Err(errno) = result {
            assert!(
                [libc::ERANGE, libc::E2BIG, libc::EINVAL].contains(&errno),
                "{errno}"
            );
        }
    }
    client.assert_sound(&oracle, &format!("a list of {there} names"));
}

#[test]
fn directories_with_labels_made_and_removed_leave_no_descriptor() {
    if !common::is_root_or_skip("directories_with_labels_made_and_removed_leave_no_descriptor") {
        return;
    }
    let share = Share::new();
    let mut client = Client::with_args(&share, &["--security-label"]);
    assert_ne!(client.flags & init::SECURITY_CTX, 0);
    let oracle = client.oracle();
    for (name, value) in [("trusted.x", &b"label"[..]), ("no-such-class.x", b"label")] {
        for _ in 0..500 {
            client.extension = label_extension(&[(name, value)]);
            if let Ok(entry) = client.mkdir(ROOT, "dir", 0o755) {
                client.extension = Vec::new();
                client.rmdir(ROOT, "dir").expect("RMDIR");
                client.forget(entry.node, 1);
            }
        }
        client.extension = Vec::new();
        client.assert_sound(&oracle, name);
    }
}

#[test]
fn storm_of_syncs_on_one_queue_leaves_the_other_alive() {
    for pool in ["0", "2", "adaptive"] {
        let share = Share::new();
        let setup = roomy().queues(2).args(&["--thread-pool-size", pool]);
        let mut client = Client::mount(&setup, &share);
        let mut canary = client.session_on(2);
        let (node, fh) = client.make_file(ROOT, "file", &[7; 4096]);
        let oracle = Oracle::new(&mut client.vm, &mut canary);
        for _ in 0..100 {
            let body = Bytes::new().u64(fh).u64(0).done();
            let (message, _) = client.message(op::FSYNC, node, &body);
            client.queue.submit(&message, OUT_HEADER);
        }
        // Inline, the other queue has a thread of its own; in a pool it has its turn.
        canary.canary();
        client.queue.drain();
        oracle.check(&mut client.vm, &mut canary, "a storm of FSYNC");
    }
}

/// Exchanges a directory with one below it, and so on, while another queue walks through both.
#[test]
fn directories_exchanged_with_their_ancestors_lead_nowhere_else() {
    const EXCHANGE: u32 = 2;
    let share = Share::new();
    std::fs::create_dir_all(share.at("a/b/c")).expect("a fresh share");
    std::fs::create_dir_all(share.at("x/y/z")).expect("a fresh share");
    let mut client = Client::mount(
        &Setup::default().queues(2).args(&["--cache", "never"]),
        &share,
    );
    let mut walker = client.session_on(2);
    let a = client.node("a");
    let b = client.lookup(a, "b").expect("LOOKUP").node;
    let x = client.node("x");
    for below in [(a, "b"), (b, "c")] {
        let result = client.rename2((ROOT, "a"), below, EXCHANGE);
        assert!(
            matches!(
                result,
                Err(libc::EINVAL | libc::ELOOP | libc::ENOTEMPTY | libc::EBUSY)
            ),
            "{result:?}"
        );
    }
    let walk = thread::spawn(move || {
        let mut rng = Rng::new(9);
        let mut nodes = vec![ROOT, a, b, x];
        for _ in 0..1500 {
            let parent = nodes[rng.below(nodes.len())];
            for name in ["a", "b", "c", "x", "y", "z", "..", "outside", "victim"] {
                let found = walker.lookup(parent, name);
                assert!(found.is_err() || !["outside", "victim"].contains(&name));
                if let Ok(entry) = found
                    && nodes.len() < 200
                    && entry.node != 0
                {
                    nodes.push(entry.node);
                }
            }
        }
    });
    while !walk.is_finished() {
        for (one, other) in [
            ((a, "b"), (x, "y")),
            ((ROOT, "a"), (ROOT, "x")),
            ((ROOT, "x"), (a, "b")),
        ] {
            let _ = client.rename2(one, other, EXCHANGE);
        }
    }
    walk.join().expect("no name led outside");
    client.canary();
    share.assert_outside_unchanged();
}

#[test]
fn names_full_of_control_characters_are_names_and_never_reach_the_log_raw() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &["--xattr", "--log-level", "debug"]);
    let oracle = client.oracle();
    let nasty: [&[u8]; 5] = [
        b"line\nbreak",
        b"\x1b[2J\x1b[31mred",
        b"\xff\xfe\x80",
        b"\r\x08\x07",
        b"%s%n{}{:?}",
    ];
    for name in nasty {
        let body = Bytes::new().u32(0o755).u32(0).name(name).done();
        let made = client.call(op::MKDIR, ROOT, &body, 128).map(drop);
        assert_eq!(made, Ok(()), "{name:?}");
        client.lookup_bytes(ROOT, name).expect("it is there now");
        let body = Bytes::new().name(name).done();
        client.plain(op::RMDIR, ROOT, &body).expect("RMDIR");
        assert!(client.plain(op::RMDIR, ROOT, &body).is_err(), "twice");
        for opcode in [op::GETXATTR, op::REMOVEXATTR] {
            let mut body = Bytes::new();
            if opcode == op::GETXATTR {
                body = body.u64(100);
            }
            let body = body.name(name).done();
            assert!(client.call(opcode, ROOT, &body, 100).is_err(), "{opcode}");
        }
    }
    client.init();
    let log = client.vm.daemon.log.text();
    let raw = |letter: char| letter.is_control() && letter != '\n';
    assert!(!log.contains(raw), "{log:?}");
    assert!(!log.contains("break"), "a line of its own: {log}");
    client.assert_sound(&oracle, "nasty names");
}

#[test]
fn opens_and_nodes_share_one_limit_and_leave_room_for_the_daemon() {
    let share = Share::new();
    for index in 0..400 {
        share.write(&format!("file{index}"), b"data");
    }
    let setup = Setup::default().queues(2);
    let args = ["--rlimit-nofile", "700", "--inode-file-handles=never"];
    let mut client = Client::mount(&setup.args(&args), &share);
    let mut canary = client.session_on(2);
    let mut handles = Vec::new();
    let mut refused = 0;
    for index in 0..400 {
        let Ok(entry) = client.lookup(ROOT, &format!("file{index}")) else {
            refused += 1;
            continue;
        };
        for _ in 0..3 {
            match client.open(entry.node, libc::O_RDONLY) {
                Ok(opened) => handles.push((entry.node, opened.fh)),
                Err(errno) => {
                    assert!([libc::ENFILE, libc::EMFILE].contains(&errno), "{errno}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 0, "there is a limit");
    assert!(client.vm.daemon.fd_count() < 700);
    canary.canary();
    // A listing loses no name, and what gives back works.
    let (node, fh) = handles[0];
    client.release(node, fh).expect("RELEASE");
    let dir = client.opendir(ROOT).expect("OPENDIR").fh;
    let mut names = 0;
    let mut offset = 0;
    loop {
        let at = At {
            node: ROOT,
            fh: dir,
            offset,
        };
        let part = client.readdir_once(at, 8192, true).expect("READDIRPLUS");
        let Some(last) = part.last() else { break };
        offset = last.offset;
        names += part.len();
    }
    assert_eq!(names, 402, "400 files, `.` and `..`");
    for (node, fh) in &handles[1..] {
        client.release(*node, *fh).expect("RELEASE");
    }
    client.canary();
}

/// A queue that is busy for ever holds up nobody else, not even the stop of another one.
#[test]
fn queue_full_of_waiters_does_not_hold_up_others() {
    use common::session_lock::{Lock, WRITE};
    let share = Share::new();
    let setup = Setup::default()
        .queues(2)
        .args(&["--posix-lock", "--thread-pool-size", "1"]);
    let mut client = Client::mount(&setup, &share);
    let mut other: Session = client.session_on(2);
    let open = client.make_file(ROOT, "file", b"data");
    other.setlk(&Lock::new(open, 1, WRITE)).expect("free");
    let waiting: Vec<_> = (0..60)
        .map(|owner| client.start_setlkw(&Lock::new(open, u64_of(10 + owner), WRITE)))
        .collect();
    thread::sleep(Duration::from_millis(20));
    other.canary();
    client.canary();
    client.vm.stop(1);
    other.canary();
    assert_eq!(waiting.len(), 60);
    client.vm.reset_device();
}
