//! What: GETLK, SETLK and SETLKW over a real socket: guests, daemons and the host against each
//! other, and everything that ends a wait.

mod common;

use std::fs::{File, OpenOptions};
use std::io;
use std::time::{Duration, Instant};

use common::client::Client;
use common::frontend::Setup;
use common::memory::MemoryLayout;
use common::request::ROOT;
use common::session_data::At;
use common::session_lock::{LAST, Lock, READ, UNLOCK, WRITE, Waiting};
use common::share::Share;
use common::{TIMEOUT, sys};

const POSIX_LOCKS: u64 = 1 << 1;
const FLOCK_LOCKS: u64 = 1 << 10;
const ARGS: [&str; 2] = ["--posix-lock", "--flock"];
const POOLED: [&str; 4] = ["--posix-lock", "--flock", "--thread-pool-size", "2"];
const AGAIN: Result<(), i32> = Err(libc::EAGAIN);

fn share() -> Share {
    let share = Share::new();
    share.write("file", b"contents");
    share
}

/// The file for reading and writing: node and handle.
fn open(client: &mut Client) -> (u64, u64) {
    let node = client.node("file");
    let fh = client.open(node, libc::O_RDWR).expect("it is there").fh;
    (node, fh)
}

fn on_host(share: &Share) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options.open(share.at("file")).expect("it is there")
}

fn is_taken(done: &io::Result<()>) -> bool {
    matches!(done, Err(error) if error.raw_os_error() == Some(libc::EAGAIN))
}

/// Nothing has been answered for a moment.
fn assert_silent(client: &mut Client) {
    let early = client.queue.next_within(Duration::from_millis(50));
    assert!(early.is_none(), "{early:?}");
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "waiting until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn locks_are_offered_only_with_their_options() {
    let share = share();
    for (args, offered) in [
        (&[][..], 0),
        (&ARGS[..1], POSIX_LOCKS),
        (&ARGS[1..], FLOCK_LOCKS),
        (&["-o", "posix_lock,flock"], POSIX_LOCKS | FLOCK_LOCKS),
    ] {
        let mut client = Client::with_args(&share, args);
        assert_eq!(client.flags & (POSIX_LOCKS | FLOCK_LOCKS), offered);
        let file = open(&mut client);
        let says = |flag| match offered & flag {
            0 => Err(libc::ENOSYS),
            _ => Ok(()),
        };
        let posix = client.setlk(&Lock::new(file, 1, WRITE));
        assert_eq!(posix, says(POSIX_LOCKS), "{args:?}");
        let flock = client.setlk(&Lock::flock(file, 1, WRITE));
        assert_eq!(flock, says(FLOCK_LOCKS), "{args:?}");
    }
}

#[test]
fn owners_of_a_guest_conflict_and_getlk_names_the_process() {
    let share = share();
    let mut client = Client::with_args(&share, &ARGS);
    let file = open(&mut client);
    let lock = |owner, kind| Lock::new(file, owner, kind);
    client.setlk(&lock(1, WRITE).range(10, 19)).unwrap();
    client.setlk(&lock(2, READ).range(30, LAST)).unwrap();
    assert_eq!(client.setlk(&lock(2, READ).range(19, 29)), AGAIN);
    client.setlk(&lock(3, READ).range(40, 49)).unwrap();
    assert_eq!(client.setlk(&lock(3, WRITE).range(40, 49)), AGAIN);
    let held = client.getlk(&lock(3, READ)).unwrap();
    assert_eq!(held, (10, 19, WRITE, 1));
    let held = client.getlk(&lock(9, WRITE).range(35, 36)).unwrap();
    assert_eq!(held, (30, LAST, READ, 2));
    let free = client.getlk(&lock(1, WRITE).range(0, 29)).unwrap();
    assert_eq!((free.2, free.3), (UNLOCK, 0));
    // Without an owner in between, and with the two families side by side.
    client.setlk(&Lock::flock(file, 4, WRITE)).unwrap();
    assert_eq!(client.setlk(&Lock::flock(file, 5, READ)), AGAIN);
    client.setlk(&Lock::flock(file, 4, UNLOCK)).unwrap();
    client.setlk(&Lock::flock(file, 5, READ)).unwrap();
}

#[test]
fn two_daemons_and_the_host_see_what_a_guest_has_locked() {
    let share = share();
    let mut one = Client::with_args(&share, &ARGS);
    let mut two = Client::with_args(&share, &ARGS);
    let (mine, theirs, host) = (open(&mut one), open(&mut two), on_host(&share));
    one.setlk(&Lock::new(mine, 1, WRITE).range(0, 99)).unwrap();
    one.setlk(&Lock::new(mine, 1, UNLOCK).range(40, 59))
        .unwrap();
    one.setlk(&Lock::new(mine, 1, READ).range(0, 9)).unwrap();
    for (at, shared, exclusive) in [
        (9, true, false),
        (10, false, false),
        (39, false, false),
        (40, true, true),
        (60, false, false),
        (100, true, true),
    ] {
        for (kind, host_kind, free) in [
            (READ, libc::F_RDLCK, shared),
            (WRITE, libc::F_WRLCK, exclusive),
        ] {
            let asked = Lock::new(theirs, 7, kind).range(at, at);
            assert_eq!(two.setlk(&asked).is_ok(), free, "{asked:?}");
            two.setlk(&Lock::new(theirs, 7, UNLOCK)).unwrap();
            let at = i64::try_from(at).unwrap();
            let done = sys::ofd_lock(&host, (at, at), host_kind);
            assert_eq!(is_taken(&done), !free, "{at}: {done:?}");
            sys::ofd_lock(&host, (at, at), libc::F_UNLCK).unwrap();
        }
    }
    let held = two.getlk(&Lock::new(theirs, 1, READ)).unwrap();
    assert_eq!(
        held,
        (10, 39, WRITE, 0),
        "a process of another guest has no number here"
    );
    one.setlk(&Lock::flock(mine, 1, WRITE)).unwrap();
    assert_eq!(two.setlk(&Lock::flock(theirs, 1, READ)), AGAIN);
    assert!(host.try_lock_shared().is_err());
    host.unlock().unwrap();
    one.release_flock(mine, 1).unwrap();
    host.lock().unwrap();
    assert_eq!(two.setlk(&Lock::flock(theirs, 1, READ)), AGAIN);
    sys::ofd_lock(&host, (70, 79), libc::F_RDLCK).unwrap();
    assert_eq!(two.setlk(&Lock::new(theirs, 1, WRITE).range(70, 70)), AGAIN);
}

/// Sends a SETLKW of each of these owners, all of which have to wait.
fn start_waiting(client: &mut Client, locks: &[Lock]) -> Vec<Waiting> {
    let started = locks.iter().map(|lock| client.start_setlkw(lock)).collect();
    assert_silent(client);
    started
}

#[test]
fn waiters_get_in_when_a_neighbour_unlocks_flushes_or_releases() {
    let share = share();
    for args in [&ARGS[..], &POOLED] {
        let mut client = Client::with_args(&share, args);
        let (file, second) = (open(&mut client), open(&mut client));
        let lock = |owner, kind| Lock::new(file, owner, kind);
        client.setlk(&lock(1, WRITE).range(0, 9)).unwrap();
        client.setlk(&lock(2, WRITE).range(20, 29)).unwrap();
        client.setlk(&Lock::flock(second, 3, WRITE)).unwrap();
        let waiting = start_waiting(
            &mut client,
            &[
                lock(4, WRITE).range(0, 4),
                lock(5, READ).range(5, 29),
                Lock::flock(file, 6, READ),
            ],
        );
        client.setlk(&lock(1, UNLOCK).range(0, 4)).unwrap();
        assert_eq!(client.finish(waiting[0]), Ok(()), "by an unlock");
        client.flush_as(file, 2).unwrap();
        assert_silent(&mut client);
        client.setlk(&lock(1, READ).range(5, 9)).unwrap();
        assert_eq!(client.finish(waiting[1]), Ok(()), "by a downgrade");
        client.release_flock(second, 3).unwrap();
        assert_eq!(client.finish(waiting[2]), Ok(()), "by a release");
    }
}

#[test]
fn waiters_get_in_when_the_host_or_a_killed_daemon_lets_go() {
    let share = share();
    let mut one = Client::with_args(&share, &ARGS);
    let mut two = Client::with_args(&share, &ARGS);
    let (mine, theirs, host) = (open(&mut one), open(&mut two), on_host(&share));
    let baseline = one.vm.daemon.thread_count();

    sys::ofd_lock(&host, (0, 9), libc::F_WRLCK).unwrap();
    host.lock().unwrap();
    let wishes = [Lock::new(mine, 1, WRITE), Lock::flock(mine, 1, WRITE)];
    let waiting = start_waiting(&mut one, &wishes);
    assert_eq!(one.vm.daemon.thread_count(), baseline + 1, "one thread");
    sys::ofd_lock(&host, (0, 9), libc::F_UNLCK).unwrap();
    assert_eq!(one.finish(waiting[0]), Ok(()));
    host.unlock().unwrap();
    assert_eq!(one.finish(waiting[1]), Ok(()));
    for wish in wishes {
        one.setlk(&Lock {
            kind: UNLOCK,
            ..wish
        })
        .unwrap();
    }
    let daemon = &one.vm.daemon;
    wait_until("the thread is gone", || daemon.thread_count() == baseline);

    two.setlk(&Lock::new(theirs, 1, WRITE)).unwrap();
    two.setlk(&Lock::flock(theirs, 1, WRITE)).unwrap();
    let waiting = start_waiting(&mut one, &wishes);
    two.vm.daemon.signal(libc::SIGKILL);
    assert_eq!(one.finish(waiting[0]), Ok(()));
    assert_eq!(one.finish(waiting[1]), Ok(()));
}

#[test]
fn waiter_whose_file_is_closed_is_told_ebadf_and_one_that_is_interrupted_eintr() {
    let share = share();
    let mut client = Client::with_args(&share, &ARGS);
    let (file, second) = (open(&mut client), open(&mut client));
    client.setlk(&Lock::new(file, 1, WRITE)).unwrap();
    client.setlk(&Lock::flock(file, 1, WRITE)).unwrap();
    let waiting = start_waiting(
        &mut client,
        &[
            Lock::new(file, 2, WRITE),
            Lock::flock(second, 3, WRITE),
            Lock::new(file, 4, READ),
        ],
    );
    client.flush_as(file, 2).unwrap();
    assert_eq!(client.finish(waiting[0]), Err(libc::EBADF));
    client.release(second.0, second.1).unwrap();
    assert_eq!(client.finish(waiting[1]), Err(libc::EBADF));
    client.interrupt(waiting[2]);
    assert_eq!(client.finish(waiting[2]), Err(libc::EINTR));
    client.forget(file.0, 2);
    client.session.canary();
    let host = on_host(&share);
    sys::ofd_lock(&host, (0, i64::MAX - 1), libc::F_WRLCK).expect("forgotten with the node");
}

#[test]
fn deadlock_of_two_owners_is_found() {
    let share = share();
    let mut client = Client::with_args(&share, &ARGS);
    let file = open(&mut client);
    let lock = |owner, at| Lock::new(file, owner, WRITE).range(at, at);
    client.setlk(&lock(1, 10)).unwrap();
    client.setlk(&lock(2, 20)).unwrap();
    let waiting = start_waiting(&mut client, &[lock(1, 20)]);
    let circle = client.start_setlkw(&lock(2, 10));
    assert_eq!(client.finish(circle), Err(libc::EDEADLK));
    client.flush_as(file, 2).unwrap();
    assert_eq!(client.finish(waiting[0]), Ok(()));
}

#[test]
fn destroy_answers_waiters_and_frees_the_file() {
    let share = share();
    let mut client = Client::with_args(&share, &ARGS);
    let (file, host) = (open(&mut client), on_host(&share));
    client.setlk(&Lock::new(file, 1, WRITE)).unwrap();
    let waiting = start_waiting(&mut client, &[Lock::new(file, 2, WRITE)]);
    client.destroy().unwrap();
    assert_eq!(client.finish(waiting[0]), Err(libc::EIO));
    sys::ofd_lock(&host, (0, 9), libc::F_WRLCK).unwrap();
    sys::ofd_lock(&host, (0, 9), libc::F_UNLCK).unwrap();

    // INIT without DESTROY does the same.
    client.session.init();
    let file = open(&mut client);
    client.setlk(&Lock::new(file, 1, WRITE)).unwrap();
    let waiting = start_waiting(&mut client, &[Lock::new(file, 2, WRITE)]);
    client.session.init();
    assert_eq!(client.finish(waiting[0]), Err(libc::EIO));
    sys::ofd_lock(&host, (0, 9), libc::F_WRLCK).unwrap();
}

#[test]
fn reset_frees_the_file_and_writes_nothing() {
    let share = share();
    for args in [&ARGS[..], &POOLED] {
        let mut client = Client::with_args(&share, args);
        let (file, host) = (open(&mut client), on_host(&share));
        client.setlk(&Lock::new(file, 1, WRITE)).unwrap();
        start_waiting(&mut client, &[Lock::new(file, 2, WRITE)]);
        client.vm.reset_device();
        sys::ofd_lock(&host, (0, 9), libc::F_WRLCK).unwrap();
        assert_silent(&mut client);
        client.recover_from_reset();
        client.session.init();
        assert_silent(&mut client);
        let file = open(&mut client);
        assert_eq!(client.setlk(&Lock::new(file, 1, WRITE)), AGAIN);
    }
}

#[test]
fn disconnect_with_waiters_ends_the_daemon_and_frees_the_file() {
    let share = share();
    let mut client = Client::with_args(&share, &ARGS);
    let (file, host) = (open(&mut client), on_host(&share));
    sys::ofd_lock(&host, (0, 9), libc::F_WRLCK).unwrap();
    client.setlk(&Lock::flock(file, 1, WRITE)).unwrap();
    let wishes = [Lock::new(file, 2, WRITE), Lock::flock(file, 2, WRITE)];
    start_waiting(&mut client, &wishes);
    assert!(client.shut_down().success());
    host.lock().unwrap();
}

#[test]
fn waiter_of_a_paused_machine_gets_its_answer_when_it_goes_on() {
    let share = share();
    for args in [&ARGS[..], &POOLED] {
        let mut client = Client::with_args(&share, args);
        let (file, host) = (open(&mut client), on_host(&share));
        sys::ofd_lock(&host, (0, 9), libc::F_WRLCK).unwrap();
        let waiting = start_waiting(&mut client, &[Lock::new(file, 1, WRITE)]);
        let base = client.vm.stop(1);
        sys::ofd_lock(&host, (0, 9), libc::F_UNLCK).unwrap();
        wait_until("it has the lock", || {
            let taken = is_taken(&sys::ofd_lock(&host, (0, 9), libc::F_WRLCK));
            sys::ofd_lock(&host, (0, 9), libc::F_UNLCK).unwrap();
            taken
        });
        assert_silent(&mut client);
        client.vm.start_queue(&client.session.queue, base);
        assert_eq!(client.finish(waiting[0]), Ok(()));
        client.session.canary();
    }
}

#[test]
fn thousand_waiters_hold_up_nobody_and_need_no_descriptors() {
    let share = share();
    for args in [&ARGS[..], &POOLED] {
        let setup = Setup::default()
            .args(args)
            .queue_size(1024)
            .memory(MemoryLayout::one(64 << 20));
        let mut client = Client::mount(&setup, &share);
        let (file, host) = (open(&mut client), on_host(&share));
        let at = At {
            node: file.0,
            fh: file.1,
            offset: 0,
        };
        sys::ofd_lock(&host, (0, 9), libc::F_WRLCK).unwrap();
        let descriptors = client.vm.daemon.fd_count();
        let waiting: Vec<_> = (1..=1000)
            .map(|owner| client.start_setlkw(&Lock::new(file, owner, READ)))
            .collect();
        for _ in 0..1000 {
            assert_eq!(client.read(at, 100).unwrap(), b"contents");
        }
        // The retrier may have one open at this moment.
        let with_waiters = client.vm.daemon.fd_count();
        assert!(with_waiters <= descriptors + 2, "{with_waiters}");
        sys::ofd_lock(&host, (0, 9), libc::F_UNLCK).unwrap();
        for one in &waiting {
            assert_eq!(client.finish(*one), Ok(()));
        }
        for owner in 1..=1000 {
            client.flush_as(file, owner).unwrap();
        }
        assert_eq!(client.vm.daemon.fd_count(), descriptors);
        sys::ofd_lock(&host, (0, 9), libc::F_WRLCK).unwrap();
    }
}

#[test]
fn queue_is_never_filled_by_waiters() {
    let share = share();
    let mut client = Client::mount(&Setup::default().args(&ARGS).queue_size(64), &share);
    let file = open(&mut client);
    client.setlk(&Lock::new(file, 1, WRITE)).unwrap();
    let waiting: Vec<_> = (2..=64)
        .map(|owner| client.start_setlkw(&Lock::new(file, owner, READ)))
        .collect();
    let last = client.start_setlkw(&Lock::new(file, 65, READ));
    assert_eq!(client.finish(last), Err(libc::ENOLCK));
    client.setlk(&Lock::new(file, 1, UNLOCK)).unwrap();
    for one in waiting {
        assert_eq!(client.finish(one), Ok(()));
    }
}

#[test]
fn waiters_for_the_host_take_little_time_of_a_cpu() {
    let share = share();
    let setup = Setup::default().args(&ARGS).queue_size(1024);
    let setup = setup.memory(MemoryLayout::one(64 << 20));
    let mut client = Client::mount(&setup, &share);
    let (file, host) = (open(&mut client), on_host(&share));
    sys::ofd_lock(&host, (0, 9), libc::F_WRLCK).unwrap();
    for owner in 1..=500 {
        client.start_setlkw(&Lock::new(file, owner, WRITE));
    }
    client.session.canary();
    let before = client.vm.daemon.cpu_time();
    std::thread::sleep(Duration::from_secs(1));
    let used = client.vm.daemon.cpu_time() - before;
    assert!(used < Duration::from_millis(300), "{used:?} in a second");
}

#[test]
fn locks_of_the_root_directory_and_of_unlinked_files_work() {
    let share = share();
    let mut client = Client::with_args(&share, &ARGS);
    let fh = client.opendir(ROOT).unwrap().fh;
    let root = File::open(share.path()).unwrap();
    client.setlk(&Lock::flock((ROOT, fh), 1, WRITE)).unwrap();
    assert!(root.try_lock_shared().is_err());
    let file = open(&mut client);
    client.unlink(ROOT, "file").unwrap();
    client.setlk(&Lock::new(file, 1, WRITE)).unwrap();
    assert_eq!(client.setlk(&Lock::new(file, 2, READ)), AGAIN);
    client.flush_as(file, 1).unwrap();
    client.setlk(&Lock::new(file, 2, READ)).unwrap();
}
