//! Remote locks that are waited for: who gets in when, and how waiting ends.

use std::fs;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::locks::{
    LAST, NO_LOCKS, R, U, W, close, flushed, guest, host_range, on_host, other_daemon, released,
    whole, wish,
};
use super::share::{Guest, NOTHING_LEFT, ROOT, Share};
use crate::fs::filesystem::{FileSystem, LockRequest};
use crate::fs::late::{LateAnswer, RequestId, Waited, WaitingRoom};
use crate::passthrough::PassthroughFs;
use crate::sys::errno::{Errno, Result};
use crate::sys::lock::{self, LockMode};

/// Far longer than the retrier's longest pause.
const PATIENCE: Duration = Duration::from_secs(20);

/// Numbers of requests, and what they were told.
type Told = Arc<Mutex<Vec<(u64, Result<()>)>>>;

/// Where requests wait, and what they were told.
#[derive(Clone, Debug, Default)]
struct Room {
    told: Told,
    is_full: bool,
}

/// One request of a room.
struct Seat<'a>(&'a Room, u64);

impl WaitingRoom for Seat<'_> {
    fn park(&mut self) -> Option<Box<dyn LateAnswer>> {
        let told = Arc::clone(&self.0.told);
        (!self.0.is_full).then(|| Box::new(Answer(told, self.1)) as Box<dyn LateAnswer>)
    }
}

#[derive(Debug)]
struct Answer(Told, u64);

impl LateAnswer for Answer {
    fn request(&self) -> RequestId {
        RequestId::new(self.1)
    }

    fn answer(self: Box<Self>, result: Result<()>) {
        self.0.lock().unwrap().push((self.1, result));
        std::mem::forget(self);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.0.lock().unwrap().push((self.1, Err(Errno::EIO)));
    }
}

impl Room {
    /// SETLKW as the request with this number.
    fn ask(&self, fs: &PassthroughFs, number: u64, request: &LockRequest) -> Result<Waited> {
        fs.setlkw(request, &mut Seat(self, number))
    }

    /// The same, for one that must wait.
    fn wait(&self, fs: &PassthroughFs, number: u64, request: &LockRequest) {
        assert_eq!(self.ask(fs, number, request), Ok(Waited::Parked));
    }

    /// What was told since the last time.
    fn told(&self) -> Vec<(u64, Result<()>)> {
        std::mem::take(&mut self.told.lock().unwrap())
    }

    /// The next `count` answers, told by the retrier.
    fn told_soon(&self, count: usize) -> Vec<(u64, Result<()>)> {
        let deadline = Instant::now() + PATIENCE;
        while self.told.lock().unwrap().len() < count {
            assert!(Instant::now() < deadline, "too few are told anything");
            thread::sleep(Duration::from_millis(1));
        }
        self.told()
    }
}

#[test]
fn waiters_get_in_by_the_order_in_which_they_came() {
    let guest = guest();
    let open = guest.create(c"file");
    let (fs, room) = (&guest.fs, Room::default());
    fs.setlk(&wish(open, 1, (0, 99), W)).unwrap();
    room.wait(fs, 2, &wish(open, 2, (0, 9), W));
    room.wait(fs, 3, &wish(open, 3, (5, 14), W));
    room.wait(fs, 4, &wish(open, 4, (20, 29), R));
    room.wait(fs, 5, &wish(open, 5, (20, 29), R));
    room.wait(fs, 6, &wish(open, 6, (90, 90), W));
    assert_eq!(
        fs.locks.counts()[..4],
        [1, 1, 1, 5],
        "waiting takes no file"
    );

    fs.setlk(&wish(open, 1, (0, 50), U)).unwrap();
    assert_eq!(room.told(), [(2, Ok(())), (4, Ok(())), (5, Ok(()))]);
    fs.setlk(&wish(open, 2, (0, 9), U)).unwrap();
    assert_eq!(room.told(), [(3, Ok(()))]);
    fs.flush(&flushed(open, 1)).unwrap();
    assert_eq!(room.told(), [(6, Ok(()))]);
    for owner in 2..=6 {
        fs.flush(&flushed(open, owner)).unwrap();
    }
    close(&guest, open);
}

#[test]
fn downgrade_lets_readers_in_also_when_it_was_waited_for() {
    let guest = guest();
    let open = guest.create(c"file");
    let (fs, room) = (&guest.fs, Room::default());
    fs.setlk(&wish(open, 1, (0, 9), W)).unwrap();
    fs.setlk(&wish(open, 2, (10, 19), W)).unwrap();
    room.wait(fs, 3, &wish(open, 3, (0, 0), R));
    // Owner 1 shares what it has, and wants to share more, for which it waits.
    room.wait(fs, 1, &wish(open, 1, (0, 10), R));
    assert_eq!(room.told(), []);
    fs.setlk(&wish(open, 2, (10, 19), R)).unwrap();
    assert_eq!(room.told(), [(1, Ok(())), (3, Ok(()))]);
    for owner in 1..=3 {
        fs.flush(&flushed(open, owner)).unwrap();
    }
    close(&guest, open);
}

#[test]
fn waiters_for_the_host_or_another_daemon_get_in_soon() {
    let guest = guest();
    let open = guest.create(c"file");
    let (fs, room, host) = (&guest.fs, Room::default(), on_host(&guest));
    let other = Guest {
        fs: other_daemon(&guest),
        share: Share::new(),
    };
    let theirs = other.open(other.lookup(ROOT, c"file"), 2);

    host_range(&host, (0, 9), LockMode::Exclusive).unwrap();
    room.wait(fs, 1, &wish(open, 1, (0, 0), W));
    room.wait(fs, 2, &wish(open, 2, (0, 9), W));
    thread::sleep(Duration::from_millis(30));
    assert_eq!(room.told(), []);
    host_range(&host, (0, 9), LockMode::Unlocked).unwrap();
    assert_eq!(room.told_soon(1), [(1, Ok(()))]);
    fs.flush(&flushed(open, 1)).unwrap();
    assert_eq!(room.told(), [(2, Ok(()))], "at once");
    fs.flush(&flushed(open, 2)).unwrap();

    other.fs.setlk(&whole(theirs, 1, W)).unwrap();
    room.wait(fs, 3, &whole(open, 3, R));
    room.wait(fs, 4, &whole(open, 4, R));
    other.fs.release(&released(theirs, Some(1))).unwrap();
    assert_eq!(room.told_soon(2), [(3, Ok(())), (4, Ok(()))]);
    fs.setlk(&whole(open, 3, U)).unwrap();
    fs.setlk(&whole(open, 4, U)).unwrap();

    drop((host, other));
    close(&guest, open);
}

#[test]
fn failed_change_of_a_whole_file_lock_gives_up_what_there_was() {
    let guest = guest();
    let open = guest.create(c"file");
    let (fs, room) = (&guest.fs, Room::default());
    fs.setlk(&whole(open, 1, R)).unwrap();
    fs.setlk(&whole(open, 2, R)).unwrap();
    fs.setlk(&whole(open, 4, R)).unwrap();
    room.wait(fs, 3, &whole(open, 3, W));
    assert_eq!(fs.setlk(&whole(open, 1, W)), Err(Errno::EAGAIN));
    assert_eq!(fs.locks.counts()[1], 2, "1 has nothing any more");
    // Nor has 2, and it has to stand behind 3.
    room.wait(fs, 2, &whole(open, 2, W));
    assert_eq!(room.told(), []);
    fs.setlk(&whole(open, 4, U)).unwrap();
    assert_eq!(room.told(), [(3, Ok(()))]);
    fs.setlk(&whole(open, 3, U)).unwrap();
    assert_eq!(room.told(), [(2, Ok(()))]);
    fs.setlk(&whole(open, 2, U)).unwrap();
    close(&guest, open);
}

#[test]
fn owners_that_wait_in_a_circle_are_told_so() {
    let guest = guest();
    let (one, two) = (guest.create(c"file"), guest.create(c"second"));
    let (fs, room) = (&guest.fs, Room::default());
    fs.setlk(&wish(one, 1, (0, 9), W)).unwrap();
    fs.setlk(&wish(two, 2, (0, 9), W)).unwrap();
    room.wait(fs, 1, &wish(two, 1, (0, 0), R));
    let circle = room.ask(fs, 2, &wish(one, 2, (0, 0), R));
    assert_eq!(circle, Err(Errno::EDEADLK));
    fs.flush(&flushed(two, 2)).unwrap();
    assert_eq!(room.told(), [(1, Ok(()))]);

    // Who is in a circle only after somebody else has gone is told when that happens.
    fs.setlk(&wish(one, 3, (100, 109), R)).unwrap();
    fs.setlk(&wish(one, 4, (105, 114), R)).unwrap();
    fs.setlk(&wish(two, 5, (100, 100), W)).unwrap();
    room.wait(fs, 5, &wish(one, 5, (100, 114), W));
    let circle = room.ask(fs, 4, &wish(two, 4, (100, 100), W));
    let second = room.ask(fs, 3, &wish(two, 3, (100, 100), W));
    let refused = [circle, second]
        .iter()
        .filter(|asked| **asked == Err(Errno::EDEADLK))
        .count();
    assert_eq!(refused, 1, "{circle:?} {second:?}");
    // The one that was refused gives up what it has, and the circle through the other shows.
    let refused_owner = if circle == Err(Errno::EDEADLK) { 4 } else { 3 };
    fs.flush(&flushed(one, refused_owner)).unwrap();
    assert_eq!(room.told(), [(5, Err(Errno::EDEADLK))]);
    fs.flush(&flushed(two, 5)).unwrap();
    let other_owner = if refused_owner == 4 { 3 } else { 4 };
    assert_eq!(room.told(), [(other_owner, Ok(()))]);
    for owner in 1..=5 {
        fs.flush(&flushed(one, owner)).unwrap();
        fs.flush(&flushed(two, owner)).unwrap();
    }
    assert_eq!(fs.locks.counts(), NO_LOCKS);
    guest.close(two);
    close(&guest, one);
}

#[test]
fn waiter_whose_open_file_is_closed_is_told_ebadf_and_others_wait_on() {
    let guest = guest();
    let open = guest.create(c"file");
    let again = guest.open(open.node, 2);
    let (fs, room) = (&guest.fs, Room::default());
    fs.setlk(&wish(open, 1, (0, 9), W)).unwrap();
    fs.setlk(&whole(open, 1, W)).unwrap();
    room.wait(fs, 2, &wish(open, 2, (0, 9), W));
    room.wait(fs, 3, &wish(again, 2, (0, 9), W));
    room.wait(fs, 4, &wish(open, 3, (0, 9), W));
    room.wait(fs, 5, &whole(again, 5, W));
    fs.flush(&flushed(open, 2)).unwrap();
    assert_eq!(room.told(), [(2, Err(Errno::EBADF))]);
    fs.release(&released(again, None)).unwrap();
    let ebadf = Err(Errno::EBADF);
    assert_eq!(room.told(), [(3, ebadf), (5, ebadf)]);
    fs.release(&released(open, Some(1))).unwrap();
    assert_eq!(room.told(), [(4, ebadf)]);
    // The lock that came through it goes with it, as the guest's own open-file locks must.
    assert_eq!(fs.locks.counts(), NO_LOCKS);
    guest.forget(open.node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn forgotten_node_and_end_of_session_release_everything() {
    for session_ends in [false, true] {
        let guest = guest();
        let open = guest.create(c"file");
        let (fs, room, host) = (&guest.fs, Room::default(), on_host(&guest));
        fs.setlk(&wish(open, 1, (0, 9), W)).unwrap();
        fs.setlk(&whole(open, 1, W)).unwrap();
        host_range(&host, (20, 20), LockMode::Exclusive).unwrap();
        room.wait(fs, 2, &wish(open, 2, (0, 9), W));
        room.wait(fs, 3, &wish(open, 3, (20, 20), W));
        room.wait(fs, 4, &whole(open, 4, W));
        let errno = if session_ends {
            fs.end_session();
            Errno::EIO
        } else {
            guest.forget(open.node);
            Errno::EBADF
        };
        let told: Vec<_> = (2..=4).map(|number| (number, Err(errno))).collect();
        assert_eq!(room.told(), told);
        assert_eq!(fs.locks.counts(), NO_LOCKS);
        host_range(&host, (0, LAST), LockMode::Exclusive).unwrap();
        lock::set_whole(host.as_fd(), LockMode::Exclusive).unwrap();
        drop(host);
        if !session_ends {
            fs.release(&released(open, None)).unwrap();
        }
        assert_eq!(guest.leftovers(), NOTHING_LEFT);
    }
}

#[test]
fn interrupt_before_or_after_the_request_is_eintr() {
    let guest = guest();
    let open = guest.create(c"file");
    let (fs, room) = (&guest.fs, Room::default());
    fs.setlk(&wish(open, 1, (0, 9), W)).unwrap();
    room.wait(fs, 2, &wish(open, 2, (0, 9), W));
    room.wait(fs, 3, &wish(open, 3, (0, 9), W));
    fs.interrupt(RequestId::new(2));
    assert_eq!(room.told(), [(2, Err(Errno::EINTR))]);
    fs.interrupt(RequestId::new(4));
    room.wait(fs, 4, &wish(open, 4, (0, 9), W));
    assert_eq!(room.told(), [(4, Err(Errno::EINTR))]);
    // Only so many are remembered.
    for number in 5..30 {
        fs.interrupt(RequestId::new(number));
    }
    room.wait(fs, 5, &wish(open, 5, (0, 9), W));
    assert_eq!(room.told(), []);
    fs.end_session();
    assert_eq!(fs.locks.counts(), NO_LOCKS);
}

#[test]
fn request_that_cannot_wait_is_enolck_and_leaves_nothing() {
    let guest = guest();
    let open = guest.create(c"file");
    let (fs, room) = (&guest.fs, Room::default());
    let full = Room {
        is_full: true,
        ..Room::default()
    };
    fs.setlk(&wish(open, 1, (0, 9), W)).unwrap();
    let asked = wish(open, 2, (0, 9), W);
    assert_eq!(full.ask(fs, 2, &asked), Err(Errno::ENOLCK));
    assert_eq!(fs.locks.counts(), [1, 1, 1, 0, 0]);
    assert_eq!(
        room.ask(fs, 1, &wish(open, 1, (0, 5), U)),
        Ok(Waited::Settled)
    );
    assert_eq!(
        room.ask(fs, 1, &wish(open, 2, (0, 5), W)),
        Ok(Waited::Settled)
    );
    fs.flush(&flushed(open, 1)).unwrap();
    fs.flush(&flushed(open, 2)).unwrap();
    close(&guest, open);
}

#[test]
fn retrier_ends_with_the_last_waiter() {
    let guest = guest();
    let open = guest.create(c"file");
    let (fs, room, host) = (&guest.fs, Room::default(), on_host(&guest));
    let threads = || {
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        tasks
            .filter_map(|task| fs::read_to_string(task.path().join("comm")).ok())
            .filter(|name| name.trim_end() == "virtiofsd-locks")
            .count()
    };
    host_range(&host, (0, 9), LockMode::Exclusive).unwrap();
    room.wait(fs, 1, &wish(open, 1, (0, 0), W));
    let deadline = Instant::now() + PATIENCE;
    while threads() == 0 {
        assert!(Instant::now() < deadline, "there is no retrier");
        thread::yield_now();
    }
    fs.interrupt(RequestId::new(1));
    assert_eq!(room.told(), [(1, Err(Errno::EINTR))]);
    room.wait(fs, 2, &wish(open, 2, (0, 0), W));
    host_range(&host, (0, 9), LockMode::Unlocked).unwrap();
    assert_eq!(room.told_soon(1), [(2, Ok(()))]);
    fs.end_session();
    // Other tests have retriers of their own, which end in the same way.
    let deadline = Instant::now() + PATIENCE;
    while threads() > 0 {
        assert!(Instant::now() < deadline, "a retrier lives on");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn thousand_waiters_on_the_host_cost_little_time_and_all_get_in() {
    let guest = guest();
    let open = guest.create(c"file");
    let (fs, room, host) = (&guest.fs, Room::default(), on_host(&guest));
    host_range(&host, (0, LAST), LockMode::Exclusive).unwrap();
    for owner in 1..=1000 {
        room.wait(fs, owner, &wish(open, owner, (0, 9), R));
    }
    host_range(&host, (0, LAST), LockMode::Unlocked).unwrap();
    let mut told = Vec::new();
    while told.len() < 1000 {
        told.extend(room.told_soon(1));
    }
    let expected: Vec<_> = (1..=1000).map(|owner| (owner, Ok(()))).collect();
    assert_eq!(told, expected);
    for owner in 1..=1000 {
        fs.flush(&flushed(open, owner)).unwrap();
    }
    drop(host);
    close(&guest, open);
}
