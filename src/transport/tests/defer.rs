//! Requests that the handler would rather have served elsewhere.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use vhost::vhost_user::VhostUserBackendReqHandlerMut;

use super::EIO_REPLY;
use super::bench::{
    BLOCKED_READ, Bench, DEFER, DEFER_AND_BLOCK, DEFER_AND_PANIC, DEFER_AND_PARK, DEFER_TWICE,
    DEFERRED_READ, ECHO, READ,
};
use crate::transport::pool::Pool;
use crate::transport::test_guest::MODES;

/// A bench with a pool of so many threads, all queues started.
fn bench_with_pool(queues: u64, threads_max: usize) -> (Bench, Arc<Pool>) {
    let mut bench = Bench::adaptive(MODES[1], queues);
    let pool = Arc::new(Pool::new(threads_max));
    bench.device.use_pool(Arc::clone(&pool));
    bench.start_all();
    (bench, pool)
}

#[test]
fn deferred_requests_come_back_once_and_others_start_no_thread() {
    for features in MODES {
        let mut bench = Bench::adaptive(features, 2);
        let pool = Arc::new(Pool::new(4));
        bench.device.use_pool(Arc::clone(&pool));
        bench.start_all();
        for unique in 0..50 {
            assert_eq!(bench.round_trip(1, ECHO, unique, 64), (16, unique));
        }
        assert_eq!(pool.threads(), 0);
        for unique in 0..200 {
            assert_eq!(bench.round_trip(1, DEFER, unique, 64), (16, unique));
        }
        assert_eq!(bench.handler.deferred.load(Ordering::SeqCst), 200);
        assert_eq!(bench.handler.served(), 250, "each is served once");
        assert!((1..=4).contains(&pool.threads()), "{}", pool.threads());
    }
}

#[test]
fn request_behind_a_deferred_one_does_not_wait_for_it() {
    let (mut bench, _) = bench_with_pool(2, 4);
    bench.drivers[1].request(&bench.memory, 0, (DEFER_AND_BLOCK, 1), 64);
    bench.drivers[1].request(&bench.memory, 2, (ECHO, 2), 64);
    bench.kick(1);
    assert_eq!(bench.wait_used(1), (2, 16));
    bench.handler.open_gate();
    assert_eq!(bench.wait_used(1), (0, 16));
}

/// Room for replies from which on READs are copied by two threads.
const LARGE: u32 = 256 * 1024;

/// Two READs behind each other, with this room for replies, the first of which waits at the gate.
fn two_reads(room: u32) -> (Bench, Arc<Pool>) {
    // Eight queues have enough memory.
    let (mut bench, pool) = bench_with_pool(8, 4);
    for (slot, unique) in [(0, BLOCKED_READ), (2, 2), (4, 3)] {
        bench.drivers[1].request(&bench.memory, slot, (READ, unique), room);
    }
    bench.kick(1);
    (bench, pool)
}

#[test]
fn large_read_that_others_wait_behind_is_copied_beside_them() {
    let (mut bench, pool) = two_reads(LARGE);
    // One of the two goes on while the other is at the gate, and then the third.
    assert_eq!(bench.wait_used(1), (2, 16));
    assert_eq!(bench.wait_used(1), (4, 16));
    assert_eq!(pool.threads(), 1);
    bench.handler.open_gate();
    assert_eq!(bench.wait_used(1), (0, 16));
    assert_eq!(bench.handler.served(), 3, "each is served once");
}

#[test]
fn small_reads_are_served_in_turn() {
    let (mut bench, pool) = two_reads(LARGE - 1);
    bench.wait_until("the first is at the gate", |bench| {
        bench.handler.under_way() == 1
    });
    bench.handler.open_gate();
    for slot in [0, 2, 4] {
        assert_eq!(bench.wait_used(1), (slot, 16));
    }
    assert_eq!(pool.threads(), 0);
}

#[test]
fn large_read_that_nobody_waits_behind_stays_where_it_is() {
    let (mut bench, pool) = bench_with_pool(8, 4);
    for unique in 2..50 {
        assert_eq!(bench.round_trip(1, READ, unique, LARGE), (16, unique));
    }
    assert_eq!(pool.threads(), 0);
}

#[test]
fn large_read_that_would_wait_is_deferred_from_where_it_is_copied() {
    let (mut bench, pool) = bench_with_pool(8, 4);
    for (slot, unique) in [(0, DEFERRED_READ), (2, 2)] {
        bench.drivers[1].request(&bench.memory, slot, (READ, unique), LARGE);
    }
    bench.kick(1);
    let mut done = [bench.wait_used(1), bench.wait_used(1)];
    done.sort_unstable();
    assert_eq!(done, [(0, 16), (2, 16)]);
    assert_eq!(bench.handler.deferred.load(Ordering::SeqCst), 1);
    assert_eq!(bench.handler.served(), 2, "each is served once");
    assert_eq!(pool.threads(), 1);
}

#[test]
fn more_deferred_requests_than_threads_are_all_served() {
    let (mut bench, pool) = bench_with_pool(2, 4);
    for slot in 0..60 {
        bench.drivers[1].request(&bench.memory, slot * 2, (DEFER_AND_BLOCK, 1), 64);
    }
    bench.kick(1);
    bench.wait_until("all threads have one", |bench| {
        bench.handler.under_way() == 4
    });
    // The queue's own thread is free all the same.
    bench.drivers[1].request(&bench.memory, 120, (ECHO, 2), 64);
    bench.kick(1);
    assert_eq!(bench.wait_used(1), (120, 16));
    assert_eq!(pool.threads(), 4);
    bench.handler.open_gate();
    bench.wait_until("all are back", |bench| bench.drivers[1].used_idx() == 61);
    assert_eq!(bench.handler.served(), 61);
}

#[test]
fn high_priority_queue_never_defers() {
    let (mut bench, pool) = bench_with_pool(2, 4);
    assert_eq!(bench.round_trip(0, DEFER, 7, 64), (16, 7));
    assert_eq!(bench.handler.deferred.load(Ordering::SeqCst), 0);
    assert_eq!(pool.threads(), 0);
}

#[test]
fn handler_that_defers_a_second_time_is_eio() {
    let (mut bench, _) = bench_with_pool(2, 4);
    for queue in [0, 1] {
        let reply = bench.drivers[queue].request(&bench.memory, 0, (DEFER_TWICE, 9), 64);
        bench.kick(queue);
        assert_eq!(bench.wait_used(queue), (0, 16));
        assert_eq!(bench.memory.get(reply, 8), EIO_REPLY);
    }
    assert_eq!(bench.round_trip(1, ECHO, 5, 64), (16, 5));
}

#[test]
fn panic_or_parking_after_a_deferral_is_as_without() {
    let (mut bench, _) = bench_with_pool(2, 4);
    let reply = bench.drivers[1].request(&bench.memory, 0, (DEFER_AND_PANIC, 9), 64);
    bench.kick(1);
    assert_eq!(bench.wait_used(1), (0, 16));
    assert_eq!(bench.memory.get(reply, 8), EIO_REPLY);
    assert_eq!(bench.panics(), 1);

    bench.drivers[1].request(&bench.memory, 0, (DEFER_AND_PARK, 10), 64);
    bench.kick(1);
    bench.wait_until("it is parked", |bench| bench.handler.late_count() == 1);
    drop(bench.handler.take_late());
    assert_eq!(bench.wait_used(1), (0, 16));
}

#[test]
fn stop_waits_for_deferred_requests_and_takes_no_more() {
    let (mut bench, _) = bench_with_pool(2, 4);
    for slot in 0..20 {
        bench.drivers[1].request(&bench.memory, slot * 2, (DEFER_AND_BLOCK, 1), 64);
    }
    bench.kick(1);
    bench.wait_until("some are under way", |bench| bench.handler.under_way() == 4);
    let handler = bench.handler.clone();
    let opener = thread::spawn(move || {
        thread::sleep(Duration::from_millis(30));
        handler.open_gate();
    });

    let base = bench.stop(1);

    let used = bench.drivers[1].used_idx();
    assert_eq!(u32::from(used), base, "all that was taken is back");
    let at_stop = bench.memory.get(0x2_0000, 0x2_0000);
    thread::sleep(Duration::from_millis(30));
    assert_eq!(bench.memory.get(0x2_0000, 0x2_0000), at_stop);
    opener.join().expect("no panic");
    bench.drivers[1].last_used = used;
    bench.start(1);
    bench.wait_until("the rest", |bench| bench.drivers[1].used_idx() == 20);
}

#[test]
fn reset_waits_for_deferred_requests_and_then_tells_the_handler() {
    let (mut bench, _) = bench_with_pool(2, 4);
    for slot in 0..20 {
        bench.drivers[1].request(&bench.memory, slot * 2, (DEFER_AND_BLOCK, 1), 64);
    }
    bench.kick(1);
    bench.wait_until("some are under way", |bench| bench.handler.under_way() == 4);
    let handler = bench.handler.clone();
    let opener = thread::spawn(move || {
        thread::sleep(Duration::from_millis(30));
        assert_eq!(handler.resets.load(Ordering::SeqCst), 0, "not before");
        handler.open_gate();
    });
    bench.device.reset_device().expect("reset");
    assert_eq!(bench.handler.under_way(), 0);
    assert_eq!(bench.handler.resets.load(Ordering::SeqCst), 1);
    opener.join().expect("no panic");
}

#[test]
fn entry_offered_again_while_deferred_breaks_the_queue() {
    let (mut bench, _) = bench_with_pool(3, 4);
    bench.drivers[1].request(&bench.memory, 0, (DEFER_AND_BLOCK, 2), 64);
    bench.kick(1);
    bench.wait_until("it is under way", |bench| bench.handler.under_way() == 1);
    bench.drivers[1].offer(0);
    bench.drivers[1].publish();
    bench.kick_hard(1);
    bench.wait_until("the error signal", |bench| bench.errors(1) == 1);
    bench.handler.open_gate();
    assert_eq!(bench.wait_used(1), (0, 16), "the first one is answered");
    assert_eq!(bench.handler.served(), 1, "and only that");
    assert_eq!(
        bench.round_trip(2, DEFER, 3, 64),
        (16, 3),
        "the others live"
    );
}

#[test]
fn request_that_no_thread_can_be_had_for_is_served_where_it_is() {
    let (mut bench, pool) = bench_with_pool(2, 0);
    for unique in 0..10 {
        assert_eq!(bench.round_trip(1, DEFER, unique, 64), (16, unique));
    }
    assert_eq!(pool.threads(), 0);
    assert_eq!(bench.refused_threads(), 10);
    assert_eq!(bench.handler.served(), 10);
}

#[test]
fn threads_of_a_pool_end_with_it() {
    let (mut bench, pool) = bench_with_pool(2, 4);
    assert_eq!(bench.round_trip(1, DEFER, 1, 64), (16, 1));
    let weak = pool.watch();
    drop((bench, pool));
    for _ in 0..20_000 {
        if weak.strong_count() == 0 {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("a thread is still there");
}

#[test]
fn threads_with_nothing_to_do_end_and_come_again() {
    let mut bench = Bench::adaptive(MODES[1], 2);
    let pool = Arc::new(Pool::shrinking(4, Duration::from_millis(1)));
    bench.device.use_pool(Arc::clone(&pool));
    bench.start_all();
    for unique in 0..5 {
        assert_eq!(bench.round_trip(1, DEFER, unique, 64), (16, unique));
        bench.wait_until("it ends", |_| pool.threads() == 0);
    }
    // While they end.
    for unique in 0..2000 {
        assert_eq!(bench.round_trip(1, DEFER, unique, 64), (16, unique));
    }
}
