//! What the replies to OPEN, CREATE and TMPFILE let a guest cache.

use std::path::Path;

use super::share::{Guest, NOTHING_LEFT, ROOT, Share, create_request, file_name, own_caller};
use crate::fs::filesystem::{FileSystem, TmpfileRequest};
use crate::fs::types::{Lookup, Negotiated, SecurityContexts};
use crate::passthrough::PassthroughFs;
use crate::passthrough::settings::{CachePolicy, Settings};
use crate::wire::flags::{OpenFlags, OpenReplyFlags, SessionFlags};

const DIRECT: OpenReplyFlags = OpenReplyFlags::DIRECT_IO;
const KEEP: OpenReplyFlags = OpenReplyFlags::KEEP_CACHE;
const NOFLUSH: OpenReplyFlags = OpenReplyFlags::NOFLUSH;
const PARALLEL: OpenReplyFlags = OpenReplyFlags::PARALLEL_DIRECT_WRITES;

/// A guest whose share is on a local file system, wherever this test runs.
fn on_tmpfs(cache: CachePolicy) -> Guest {
    let share = Share::in_directory(Path::new("/dev/shm"));
    Guest::on(share, Settings::new(cache))
}

#[test]
fn every_way_to_open_replies_with_the_flags_of_the_policy() {
    for (cache, base, both) in [
        (CachePolicy::Never, DIRECT | PARALLEL, DIRECT | PARALLEL),
        (CachePolicy::Metadata, DIRECT | PARALLEL, DIRECT | PARALLEL),
        (
            CachePolicy::Auto,
            OpenReplyFlags::empty(),
            OpenReplyFlags::empty(),
        ),
        (CachePolicy::Always, KEEP, KEEP | NOFLUSH),
    ] {
        let guest = on_tmpfs(cache);
        let (entry, created) = guest.fs.create(&create_request(c"file")).unwrap();
        assert_eq!(created.flags, both, "{cache:?}: CREATE");
        let node = entry.lookup.node();
        for (bits, flags) in [(0, base | NOFLUSH), (1, base | NOFLUSH), (2, both)] {
            let opened = guest
                .fs
                .open(node, OpenFlags::from_bits_retain(bits), false);
            assert_eq!(opened.unwrap().flags, flags, "{cache:?}: OPEN {bits}");
        }
        let request = TmpfileRequest {
            caller: own_caller(),
            parent: ROOT,
            mode: 0o600,
            umask: 0,
            flags: OpenFlags::WRONLY,
            security_contexts: SecurityContexts::default(),
        };
        let unnamed = guest.fs.tmpfile(&request).unwrap();
        assert_eq!(unnamed.1.flags, base | NOFLUSH, "{cache:?}: TMPFILE");
        drop((unnamed.1, unnamed.0, created, entry));
        assert_eq!(guest.leftovers(), NOTHING_LEFT);
    }
}

#[test]
fn close_on_an_unknown_file_system_is_always_announced() {
    let settings = Settings::new(CachePolicy::Always);
    let fs = PassthroughFs::new(settings, Path::new("/proc")).unwrap();
    fs.start_session(&Negotiated {
        minor: 38,
        flags: SessionFlags::empty(),
        max_write_bytes: 1 << 20,
    });
    let Ok(Lookup::Found(entry)) = fs.lookup(ROOT, file_name(c"version")) else {
        panic!("/proc/version is missing");
    };
    let opened = fs.open(entry.lookup.node(), OpenFlags::empty(), false);
    assert_eq!(opened.unwrap().flags, KEEP);
}

#[test]
fn close_is_announced_to_guests_that_give_locks_up_with_it() {
    let guest = on_tmpfs(CachePolicy::Always);
    guest.share.write("file", b"");
    guest.mount(SessionFlags::POSIX_LOCKS);
    let node = guest.lookup(ROOT, c"file");
    let opened = guest.fs.open(node, OpenFlags::empty(), false).unwrap();
    assert_eq!(opened.flags, KEEP);
}
