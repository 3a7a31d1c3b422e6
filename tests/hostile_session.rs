//! What: hostile use of sessions (security.md 2.3, 2.4, 2.6): requests without a session, several
//! INITs at once, DESTROY under load, wild versions, handles and nodes of the wrong kind.

mod common;

use std::sync::{Arc, Barrier};
use std::thread;

use common::client::Client;
use common::frontend::Setup;
use common::request::{Bytes, OUT_HEADER, ROOT, init, op};
use common::session::{Init, LINUX_OFFERS, Session};
use common::session_data::At;
use common::share::Share;
use common::templates::{Things, WITHOUT_REPLY, open_things, templates};

fn at(node: u64, fh: u64) -> At {
    At {
        node,
        fh,
        offset: 0,
    }
}

#[test]
fn requests_before_init_are_refused_and_make_no_state() {
    let share = Share::new();
    share.write("file", b"data");
    let setup = Setup::default().args(&["--xattr"]);
    let mut client = Client::attach(setup.boot(&share.path()));
    let fds = client.vm.daemon.fd_count();
    let things = Things {
        file: ROOT,
        fh: 0,
        dir_fh: 0,
        link: ROOT,
    };
    for (opcode, node, body) in templates(things, 0) {
        if WITHOUT_REPLY.contains(&opcode) {
            continue;
        }
        let result = client.call(opcode, node, &body, 600);
        assert!(result.is_err(), "opcode {opcode} before INIT: {result:?}");
    }
    assert_eq!(client.vm.daemon.fd_count(), fds, "descriptors");
    assert_eq!(share.names(""), ["file"]);
    client.init();
    client.canary();
}

#[test]
fn requests_after_destroy_are_refused_until_the_next_init() {
    let share = Share::new();
    share.write("file", b"data");
    let mut client = Client::mount(&Setup::default(), &share);
    client.destroy().unwrap();
    assert!(client.getattr(ROOT, None).is_err());
    assert!(client.lookup(ROOT, "file").is_err());
    client.init();
    client.node("file");
}

#[test]
fn init_enables_only_what_was_offered() {
    let share = Share::new();
    let never = init::PASSTHROUGH | init::OVER_IO_URING | init::REQUEST_TIMEOUT;
    let offers = [
        u64::MAX,
        LINUX_OFFERS,
        0,
        init::INIT_EXT,
        init::ASYNC_READ | init::BIG_WRITES,
        LINUX_OFFERS & !init::INIT_EXT,
        0xffff_ffff_0000_0000,
    ];
    let mut client = Client::attach(Setup::default().boot(&share.path()));
    for flags in offers {
        let wish = Init {
            flags,
            ..Init::default()
        };
        let Ok(out) = client.init_with(&wish) else {
            continue;
        };
        assert_eq!(
            out.flags & !flags,
            0,
            "offered {flags:x}, got {:x}",
            out.flags
        );
        assert_eq!(
            out.flags & never,
            0,
            "offered {flags:x}, got {:x}",
            out.flags
        );
        let high = out.flags >> 32;
        assert!(high == 0 || out.flags & init::INIT_EXT != 0, "{high:x}");
        client.canary();
    }
}

#[test]
fn init_settles_the_limits_that_are_promised() {
    let share = Share::new();
    let mut client = Client::attach(Setup::default().boot(&share.path()));
    let out = client.init();
    assert_eq!(out.major, 7);
    assert!(out.minor >= 38 && out.minor <= 45, "minor {}", out.minor);
    assert!(out.max_write >= 1 << 20, "max_write {}", out.max_write);
    assert!(out.max_pages >= 256, "max_pages {}", out.max_pages);
    assert!(out.max_background >= 64, "{}", out.max_background);
    assert!(out.congestion_threshold <= out.max_background);
    assert!(out.max_readahead >= 4096 && out.max_readahead <= 131_072);
    assert_eq!((out.time_gran, out.map_alignment), (1, 0));
    let wanted = init::ASYNC_READ
        | init::ATOMIC_O_TRUNC
        | init::BIG_WRITES
        | init::PARALLEL_DIROPS
        | init::MAX_PAGES
        | init::CREATE_SUPP_GROUP;
    assert_eq!(out.flags & wanted, wanted, "{:x}", out.flags);
    assert_eq!(out.flags & init::WRITEBACK_CACHE, 0, "not asked for");
}

#[test]
fn cache_and_writeback_options_reach_the_guest() {
    let both = init::AUTO_INVAL_DATA | init::EXPLICIT_INVAL_DATA | init::WRITEBACK_CACHE;
    let cases = [
        (
            vec!["--writeback"],
            init::WRITEBACK_CACHE,
            init::WRITEBACK_CACHE,
        ),
        (vec!["--cache", "auto"], both, init::AUTO_INVAL_DATA),
    ];
    for (args, mask, expected) in cases {
        let share = Share::new();
        let client = Client::with_args(&share, &args);
        assert_eq!(client.flags & mask, expected, "{args:?}");
    }
}

#[test]
fn init_of_other_versions_is_answered_as_fuse_says() {
    let share = Share::new();
    let mut client = Client::attach(Setup::default().boot(&share.path()));
    let version = |major, minor| Init {
        major,
        minor,
        ..Init::default()
    };
    // A newer major version is answered with ours, and the guest tries again.
    let body = version(8, 0).body();
    let reply = client.call(op::INIT, 0, &body, 64).unwrap();
    assert_eq!(reply[..4], 7_u32.to_le_bytes());
    for (major, minor) in [(6, 99), (0, 0), (7, 0), (7, 26)] {
        let result = client.init_with(&version(major, minor));
        assert_eq!(result, Err(libc::EPROTO), "{major}.{minor}");
    }
    for minor in [27, 31, 36, 99, u32::MAX] {
        let out = client.init_with(&version(7, minor)).unwrap();
        assert!(out.minor >= 27, "{minor}: {}", out.minor);
        client.canary();
    }
}

#[test]
fn init_on_every_queue_at_once_leaves_one_working_session() {
    const QUEUES: usize = 4;
    let share = Share::new();
    share.write("file", b"data");
    let mut client = Client::attach(Setup::default().queues(QUEUES).boot(&share.path()));
    client.init();
    let oracle = client.oracle();
    let mut sessions: Vec<Session> = (2..=QUEUES).map(|index| client.session_on(index)).collect();
    for _ in 0..50 {
        let barrier = Arc::new(Barrier::new(sessions.len()));
        let threads: Vec<_> = sessions
            .into_iter()
            .map(|mut session| {
                let barrier = Arc::clone(&barrier);
                thread::spawn(move || {
                    barrier.wait();
                    // Losing the race may be answered with an error, never with silence.
                    let _ = session.init_with(&Init::default());
                    let _ = session.lookup(ROOT, "file");
                    session
                })
            })
            .collect();
        sessions = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic in a guest thread"))
            .collect();
    }
    client.init();
    client.assert_sound(&oracle, "INIT on every queue");
}

#[test]
fn destroy_under_load_leaves_nothing_behind() {
    let share = Share::new();
    for index in 0..20 {
        share.write(&format!("file{index}"), b"data");
    }
    let setup = Setup::default()
        .queues(2)
        .args(&["--thread-pool-size", "4"]);
    let mut client = Client::mount(&setup, &share);
    let oracle = client.oracle();
    let mut other = client.session_on(2);
    for _ in 0..20 {
        for index in 0..60 {
            let body = Bytes::new().name(format!("file{}", index % 20).as_bytes());
            let (message, _) = other.message(op::LOOKUP, ROOT, &body.done());
            other.queue.submit(&message, OUT_HEADER + 128);
        }
        client.destroy().unwrap();
        other.queue.drain();
        client.init();
    }
    client.init();
    client.assert_sound(&oracle, "DESTROY under load");
}

#[test]
fn handles_of_the_wrong_kind_are_refused() {
    let share = Share::new();
    std::os::unix::fs::symlink("target", share.at("link")).unwrap();
    let mut client = Client::mount(&Setup::default(), &share);
    let things = open_things(&mut client);
    let oracle = client.oracle();
    let Things {
        file, fh, dir_fh, ..
    } = things;
    for result in [client.releasedir(file, fh), client.fsyncdir(file, fh)] {
        assert!(
            matches!(result, Err(libc::ENOTDIR | libc::EBADF)),
            "{result:?}"
        );
    }
    assert_eq!(client.read(at(ROOT, dir_fh), 10), Err(libc::EISDIR));
    assert_eq!(
        client.readdir_once(at(file, fh), 100, false),
        Err(libc::ENOTDIR)
    );
    for wild in [u64::MAX, 1 << 32, 4711] {
        assert_eq!(client.release(file, wild), Err(libc::EBADF));
        assert_eq!(client.releasedir(ROOT, wild), Err(libc::EBADF));
        assert_eq!(client.flush(file, wild), Err(libc::EBADF));
        assert_eq!(client.fsync(file, wild), Err(libc::EBADF));
    }
    client.assert_sound(&oracle, "handles of the wrong kind");
    assert_eq!(
        client.read_all(file, fh).len(),
        4096,
        "the handle still works"
    );
}

#[test]
fn release_while_a_read_is_in_flight_lets_the_read_finish() {
    let share = Share::new();
    share.write("file", &vec![7; 1 << 20]);
    for pool in ["0", "4", "adaptive"] {
        let setup = Setup::default().args(&["--thread-pool-size", pool]);
        let mut client = Client::mount(&setup, &share);
        let node = client.node("file");
        for _ in 0..20 {
            let fh = client.open(node, libc::O_RDONLY).unwrap().fh;
            let read = client.start_read(at(node, fh), 1 << 20);
            client.release(node, fh).unwrap();
            let completion = client.queue.wait_for(read);
            let len = completion.used_len;
            assert!(len == OUT_HEADER + (1 << 20) || len == OUT_HEADER, "{len}");
        }
    }
}

#[test]
fn open_with_every_flag_bit_does_no_harm() {
    let share = Share::new();
    std::os::unix::fs::symlink("target", share.at("link")).unwrap();
    let mut client = Client::mount(&Setup::default(), &share);
    let things = open_things(&mut client);
    let oracle = client.oracle();
    for bit in 0..32 {
        for access in 0..4 {
            let flags = 1_i32.wrapping_shl(bit) | access;
            if let Ok(opened) = client.open(things.file, flags) {
                client.release(things.file, opened.fh).unwrap();
            }
            if let Ok(opened) = client.open(ROOT, flags) {
                panic!("OPEN of a directory gave {opened:?}");
            }
        }
    }
    client.assert_sound(&oracle, "every open flag");
    share.assert_outside_unchanged();
}

#[test]
fn handles_are_limited_and_the_daemon_survives_the_limit() {
    let share = Share::new();
    share.write("file", b"data");
    let mut client = Client::mount(&Setup::default(), &share);
    let node = client.node("file");
    let oracle = client.oracle();
    let mut handles = Vec::new();
    // More than any limit on descriptors that the daemon can have here without an error.
    for _ in 0..30_000 {
        // For writing, because the last one for reading may be kept for the next OPEN.
        match client.open(node, libc::O_RDWR) {
            Ok(opened) => handles.push(opened.fh),
            Err(errno) => {
                assert!([libc::ENFILE, libc::EMFILE].contains(&errno), "{errno}");
                break;
            }
        }
    }
    client.canary();
    assert!(
        client.lookup(ROOT, "nothing").is_err(),
        "names still resolve"
    );
    for fh in handles {
        client.release(node, fh).unwrap();
    }
    // The node may have given its descriptor for one of them; now there is one for it again.
    client.getattr(node, None).unwrap();
    client.assert_sound(&oracle, "handles up to the limit");
}
