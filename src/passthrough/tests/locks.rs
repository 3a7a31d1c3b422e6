//! Remote locks: owners, daemons and the host against each other.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::share::{Guest, NO_HANDLE, NOTHING_LEFT, ROOT, Share};
use crate::fs::filesystem::{FileSystem, FlushRequest, LockRequest, OpenNode, ReleaseRequest};
use crate::fs::types::{HeldLock, LockKind, LockOwner, LockRange, LockType};
use crate::passthrough::PassthroughFs;
use crate::passthrough::locks::{Limits, Locks};
use crate::passthrough::settings::{CachePolicy, Settings};
use crate::sys::errno::{Errno, Result};
use crate::sys::lock::{self, ByteRange, LockMode};
use crate::wire::flags::SessionFlags;

pub(super) const R: LockType = LockType::Read;
pub(super) const W: LockType = LockType::Write;
pub(super) const U: LockType = LockType::Unlock;
pub(super) const POSIX: LockKind = LockKind::Posix;
pub(super) const FLOCK: LockKind = LockKind::Flock;
pub(super) const LAST: u64 = LockRange::WHOLE_FILE.end();
pub(super) const NO_LOCKS: [usize; 5] = [0; 5];

pub(super) fn guest() -> Guest {
    on(Share::new())
}

fn on(share: Share) -> Guest {
    Guest::on(
        share,
        Settings {
            posix_lock: true,
            flock: true,
            ..Settings::new(CachePolicy::Auto)
        },
    )
}

/// A second daemon on the same directory.
pub(super) fn other_daemon(guest: &Guest) -> PassthroughFs {
    let settings = Settings {
        posix_lock: true,
        flock: true,
        ..Settings::new(CachePolicy::Auto)
    };
    let fs = PassthroughFs::new(settings, guest.share.path()).unwrap();
    fs.start_session(&crate::fs::types::Negotiated {
        minor: 38,
        flags: fs.session_wishes().wanted,
        max_write_bytes: 1 << 20,
    });
    fs
}

/// A wish of `owner`; its process has the same number.
pub(super) fn wish(
    open: OpenNode,
    owner: u64,
    (start, end): (u64, u64),
    lock_type: LockType,
) -> LockRequest {
    LockRequest {
        node: open.node,
        handle: open.handle,
        owner: LockOwner::new(owner),
        kind: POSIX,
        lock_type,
        range: LockRange::new(start, end).unwrap(),
        pid: u32::try_from(owner).unwrap(),
    }
}

/// A wish for flock(2).
pub(super) fn whole(open: OpenNode, owner: u64, lock_type: LockType) -> LockRequest {
    LockRequest {
        kind: FLOCK,
        ..wish(open, owner, (0, LAST), lock_type)
    }
}

pub(super) fn released(open: OpenNode, flock_owner: Option<u64>) -> ReleaseRequest {
    ReleaseRequest {
        open,
        flock_owner: flock_owner.map(LockOwner::new),
    }
}

pub(super) fn flushed(open: OpenNode, owner: u64) -> FlushRequest {
    FlushRequest {
        open,
        owner: LockOwner::new(owner),
    }
}

/// The file as a process of the host has it open.
pub(super) fn on_host(guest: &Guest) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options.open(guest.share.join("file")).unwrap()
}

pub(super) fn host_range(file: &File, (start, end): (u64, u64), mode: LockMode) -> Result<()> {
    lock::set_range(file.as_fd(), ByteRange { start, end }, mode)
}

pub(super) fn close(guest: &Guest, open: OpenNode) {
    assert_eq!(guest.fs.locks.counts(), NO_LOCKS);
    guest.close(open);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn release_takes_no_lock_of_the_next_file_with_the_same_owner_number() {
    let guest = guest();
    let old = guest.create(c"file");
    let new = guest.open(old.node, 2);
    let fs = &guest.fs;
    fs.setlk(&whole(old, 1, W)).unwrap();
    fs.setlk(&whole(new, 1, W)).unwrap();
    fs.release(&released(old, Some(1))).unwrap();
    let other = fs.setlk(&whole(new, 2, R));
    assert_eq!(other, Err(Errno::EAGAIN), "the lock is still there");
    fs.release(&released(new, Some(1))).unwrap();
    assert_eq!(guest.fs.locks.counts(), NO_LOCKS);
    guest.forget(old.node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn owners_of_one_guest_conflict_and_are_told_about_each_other() {
    let guest = guest();
    let open = guest.create(c"file");
    let fs = &guest.fs;
    fs.setlk(&wish(open, 1, (10, 19), W)).unwrap();
    fs.setlk(&wish(open, 2, (20, LAST), R)).unwrap();
    fs.setlk(&wish(open, 3, (30, 39), R)).unwrap();
    for (owner, range, lock_type, expected) in [
        (2, (0, 9), W, Ok(())),
        (2, (0, 10), R, Err(Errno::EAGAIN)),
        (1, (10, 19), R, Ok(())),
        (1, (10, 19), W, Ok(())),
        (3, (25, 25), W, Err(Errno::EAGAIN)),
        (4, (0, LAST), U, Ok(())),
    ] {
        let asked = wish(open, owner, range, lock_type);
        assert_eq!(fs.setlk(&asked), expected, "{asked:?}");
    }
    let held = |asked| fs.getlk(&asked).unwrap();
    let first = HeldLock {
        range: LockRange::new(10, 19).unwrap(),
        lock_type: W,
        pid: 1,
    };
    assert_eq!(held(wish(open, 9, (15, 15), R)), Some(first));
    assert_eq!(held(wish(open, 1, (15, 15), R)), None, "its own");
    assert_eq!(held(wish(open, 9, (40, LAST), R)), None, "shared");
    assert_eq!(held(wish(open, 9, (40, LAST), W)).unwrap().pid, 2);
    for owner in [1, 2, 3] {
        fs.flush(&flushed(open, owner)).unwrap();
    }
    // A child of another test, on its way from fork(2) to execve(2), has the descriptors that were
    // just closed here, and with them the locks.
    let deadline = Instant::now() + Duration::from_secs(10);
    while held(wish(open, 9, (0, LAST), W)).is_some() {
        assert!(Instant::now() < deadline, "something is still locked");
        thread::sleep(Duration::from_millis(1));
    }
    close(&guest, open);
}

#[test]
fn daemons_and_the_host_conflict_with_the_guest() {
    let guest = guest();
    let open = guest.create(c"file");
    let (fs, host) = (&guest.fs, on_host(&guest));
    let second = other_daemon(&guest);
    let other = Guest {
        fs: second,
        share: Share::new(),
    };
    let theirs = other.open(other.lookup(ROOT, c"file"), 2);

    fs.setlk(&wish(open, 1, (0, 9), W)).unwrap();
    assert_eq!(
        other.fs.setlk(&wish(theirs, 1, (9, 9), R)),
        Err(Errno::EAGAIN)
    );
    assert_eq!(
        host_range(&host, (0, 0), LockMode::Shared),
        Err(Errno::EAGAIN)
    );
    let told = other
        .fs
        .getlk(&wish(theirs, 1, (9, 9), R))
        .unwrap()
        .unwrap();
    assert_eq!((told.range.start(), told.range.end(), told.pid), (0, 9, 0));

    host_range(&host, (50, 59), LockMode::Exclusive).unwrap();
    assert_eq!(fs.setlk(&wish(open, 1, (59, 60), R)), Err(Errno::EAGAIN));
    let told = fs.getlk(&wish(open, 1, (59, 60), R)).unwrap().unwrap();
    assert_eq!(
        (told.range.start(), told.range.end(), told.pid),
        (50, 59, 0)
    );

    fs.setlk(&whole(open, 1, R)).unwrap();
    other.fs.setlk(&whole(theirs, 1, R)).unwrap();
    assert_eq!(
        lock::set_whole(host.as_fd(), LockMode::Exclusive),
        Err(Errno::EAGAIN)
    );
    fs.setlk(&whole(open, 1, U)).unwrap();
    other.fs.setlk(&whole(theirs, 1, W)).unwrap();
    assert_eq!(fs.setlk(&whole(open, 1, R)), Err(Errno::EAGAIN));
    fs.setlk(&wish(open, 1, (0, LAST), U)).unwrap();
    drop(other);
    fs.setlk(&whole(open, 1, W)).unwrap();
    fs.release(&released(open, Some(1))).unwrap();
    lock::set_whole(host.as_fd(), LockMode::Exclusive).unwrap();
    drop(host);
    guest.forget(open.node);
    assert_eq!(guest.fs.locks.counts(), NO_LOCKS);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn ranges_split_and_merge_and_the_host_sees_the_same() {
    let guest = guest();
    let open = guest.create(c"file");
    let (fs, host) = (&guest.fs, on_host(&guest));
    fs.setlk(&wish(open, 1, (0, 99), W)).unwrap();
    fs.setlk(&wish(open, 1, (40, 59), U)).unwrap();
    fs.setlk(&wish(open, 1, (0, 9), R)).unwrap();
    for (at, shared, exclusive) in [
        (5, true, false),
        (10, false, false),
        (39, false, false),
        (40, true, true),
        (59, true, true),
        (60, false, false),
        (100, true, true),
    ] {
        let modes = [(LockMode::Shared, shared), (LockMode::Exclusive, exclusive)];
        for (mode, free) in modes {
            let taken = host_range(&host, (at, at), mode);
            assert_eq!(taken.is_ok(), free, "{at} {mode:?}");
            host_range(&host, (at, at), LockMode::Unlocked).unwrap();
        }
    }
    assert_eq!(fs.locks.counts()[2], 3);
    fs.setlk(&wish(open, 1, (0, 99), W)).unwrap();
    assert_eq!(fs.locks.counts()[2], 1, "merged");
    drop(host);
    fs.setlk(&wish(open, 1, (0, LAST), U)).unwrap();
    close(&guest, open);
}

#[test]
fn failed_change_against_the_host_gives_up_what_there_was() {
    let guest = guest();
    let open = guest.create(c"file");
    let (fs, host) = (&guest.fs, on_host(&guest));
    fs.setlk(&whole(open, 1, R)).unwrap();
    lock::set_whole(host.as_fd(), LockMode::Shared).unwrap();
    assert_eq!(fs.setlk(&whole(open, 1, W)), Err(Errno::EAGAIN));
    lock::set_whole(host.as_fd(), LockMode::Exclusive).unwrap();
    drop(host);
    close(&guest, open);
}

#[test]
fn wrong_requests_are_refused_as_fcntl_does() {
    let guest = guest();
    let open = guest.create(c"file");
    let (reading, writing) = (guest.open(open.node, 0), guest.open(open.node, 1));
    let fs = &guest.fs;
    for (asked, errno) in [
        (wish(reading, 1, (0, 9), W), Errno::EBADF),
        (wish(writing, 1, (0, 9), R), Errno::EBADF),
        (
            LockRequest {
                handle: NO_HANDLE,
                ..wish(open, 1, (0, 9), R)
            },
            Errno::EBADF,
        ),
    ] {
        assert_eq!(fs.setlk(&asked), Err(errno), "{asked:?}");
    }
    assert_eq!(fs.getlk(&wish(open, 1, (0, 9), U)), Err(Errno::EINVAL));
    assert_eq!(fs.getlk(&whole(open, 1, W)), Err(Errno::EINVAL));
    fs.setlk(&wish(reading, 1, (0, 9), R)).unwrap();
    fs.setlk(&wish(writing, 1, (20, 29), W)).unwrap();
    fs.setlk(&whole(reading, 1, W)).unwrap();
    for handle in [reading, writing] {
        fs.release(&released(handle, Some(1))).unwrap();
    }
    close(&guest, open);
}

#[test]
fn locks_that_were_not_agreed_on_are_enosys() {
    let guest = guest();
    let open = guest.create(c"file");
    let fs = &guest.fs;
    for (flags, posix, flock) in [
        (SessionFlags::empty(), false, false),
        (SessionFlags::POSIX_LOCKS, true, false),
        (SessionFlags::FLOCK_LOCKS, false, true),
    ] {
        fs.end_session();
        guest.mount(flags);
        let open = guest.open(guest.lookup(ROOT, c"file"), 2);
        for (asked, agreed) in [
            (wish(open, 1, (0, 9), R), posix),
            (whole(open, 1, R), flock),
        ] {
            let expected = if agreed { Ok(()) } else { Err(Errno::ENOSYS) };
            assert_eq!(fs.setlk(&asked), expected, "{flags:?} {asked:?}");
        }
    }
    assert_eq!(fs.setlk(&whole(open, 1, R)), Err(Errno::EBADF));
    fs.end_session();
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn reader_becomes_a_writer_without_letting_anybody_in() {
    let guest = guest();
    let open = guest.create(c"file");
    let (fs, host) = (&guest.fs, on_host(&guest));
    let reading = guest.open(open.node, 0);
    fs.setlk(&wish(reading, 1, (0, 9), R)).unwrap();
    fs.setlk(&wish(reading, 1, (50, 59), R)).unwrap();
    host_range(&host, (5, 5), LockMode::Shared).unwrap();
    // It fails, and leaves it with all that it had.
    assert_eq!(fs.setlk(&wish(open, 1, (0, 5), W)), Err(Errno::EAGAIN));
    fs.setlk(&wish(open, 1, (0, 4), W)).unwrap();
    for (at, mode) in [
        (4, LockMode::Shared),
        (9, LockMode::Exclusive),
        (50, LockMode::Exclusive),
    ] {
        assert_eq!(
            host_range(&host, (at, at), mode),
            Err(Errno::EAGAIN),
            "{at}"
        );
    }
    drop(host);
    fs.flush(&flushed(open, 1)).unwrap();
    fs.release(&released(reading, None)).unwrap();
    close(&guest, open);
}

#[test]
fn program_that_is_locked_for_reading_can_be_run_on_the_host() {
    let guest = guest();
    let program = guest.share.join("program");
    fs::copy("/bin/true", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let open = guest.open(guest.lookup(ROOT, c"program"), 0);
    guest.fs.setlk(&wish(open, 1, (0, LAST), R)).unwrap();
    guest.fs.setlk(&whole(open, 1, W)).unwrap();
    assert!(Command::new(&program).status().unwrap().success());
    guest.fs.release(&released(open, Some(1))).unwrap();
    guest.forget(open.node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn directories_can_be_locked_as_a_whole() {
    let guest = guest();
    let open = guest.opendir(ROOT);
    let host = File::open(guest.share.path()).unwrap();
    guest.fs.setlk(&whole(open, 1, W)).unwrap();
    assert_eq!(
        lock::set_whole(host.as_fd(), LockMode::Shared),
        Err(Errno::EAGAIN)
    );
    guest.fs.releasedir(&released(open, Some(1))).unwrap();
    lock::set_whole(host.as_fd(), LockMode::Shared).unwrap();
    drop(host);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn owners_and_ranges_beyond_the_limits_are_enolck() {
    let mut guest = guest();
    guest.fs.locks = Locks::within(Limits::new(3, 10), Arc::clone(&guest.fs.proc_fd));
    let open = guest.create(c"file");
    let fs = &guest.fs;
    for owner in 1..=3 {
        fs.setlk(&wish(open, owner, (0, 99), R)).unwrap();
    }
    let fourth = wish(open, 4, (0, 99), R);
    assert_eq!(fs.setlk(&fourth), Err(Errno::ENOLCK));
    fs.flush(&flushed(open, 3)).unwrap();
    fs.setlk(&fourth).unwrap();
    fs.flush(&flushed(open, 4)).unwrap();
    for at in 0..8 {
        fs.setlk(&wish(open, 1, (at * 10 + 5, at * 10 + 5), U))
            .unwrap();
    }
    assert_eq!(fs.locks.counts()[2], 10);
    let split = wish(open, 1, (97, 97), U);
    assert_eq!(fs.setlk(&split), Err(Errno::ENOLCK));
    fs.setlk(&wish(open, 1, (86, 99), U)).unwrap();
    fs.setlk(&wish(open, 1, (0, LAST), U)).unwrap();
    fs.flush(&flushed(open, 2)).unwrap();
    close(&guest, open);
}
