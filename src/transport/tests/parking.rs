//! Requests that are answered later, by another thread, across stops and resets, or never.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use vhost::vhost_user::VhostUserBackendReqHandlerMut;
use vhost::vhost_user::message::VhostUserMemoryRegion;

use super::bench::{Bench, ECHO, PARK, PARK_AND_PANIC, PARK_AND_REPLY, PARK_NOT, error_reply};
use crate::transport::test_guest::{
    Driver, INDIRECT, MODES, NEXT, TestMemory, WRITE, descriptor, in_header, memory_file, spec,
};
use crate::wire::channel::LateReply;

const EIO: i32 = libc::EIO;
const EAGAIN: i32 = libc::EAGAIN;
const FAR: u64 = 0x1_0000_0000;
/// Where the queue with index 1 and its buffers are.
const QUEUE: (u64, usize) = (0x2_0000, 0x2_0000);

/// Parks one request on descriptors 0 and 1 of queue 1 and gives the address of its reply.
fn park(bench: &mut Bench, unique: u64) -> u64 {
    let reply = bench.drivers[1].request(&bench.memory, 0, (PARK, unique), 64);
    bench.kick(1);
    bench.wait_until("it is parked", |bench| bench.handler.late_count() == 1);
    reply
}

fn take_one(bench: &Bench) -> Box<dyn LateReply> {
    let (_, late) = bench.handler.take_late().pop().expect("one is parked");
    late
}

fn finish_on_another_thread(late: Box<dyn LateReply>, reply: Vec<u8>) {
    thread::spawn(move || late.finish(&reply))
        .join()
        .expect("no panic");
}

#[test]
fn parked_request_is_answered_once_by_another_thread_and_holds_up_nobody() {
    for features in MODES {
        for threads in [0, 1] {
            let mut bench = Bench::new(features, threads, 2);
            bench.start_all();
            let reply = park(&mut bench, 7);
            for unique in 0..10 {
                bench.drivers[1].request(&bench.memory, 2, (ECHO, unique), 64);
                bench.kick(1);
                assert_eq!(bench.wait_used(1), (2, 16));
            }
            bench.signals(1);
            bench.drivers[1].request_signals();
            let late = take_one(&bench);

            let payload: Vec<u8> = (0..24).collect();
            let whole = [&[40, 0, 0, 0][..], &[0; 4], &7_u64.to_le_bytes(), &payload].concat();
            finish_on_another_thread(late, whole.clone());

            assert_eq!(bench.drivers[1].collect(), Some((0, 40)));
            assert_eq!(bench.memory.get(reply, 40), whole);
            assert_eq!(bench.signals(1), 1);
            assert_eq!(bench.stop(1), 11);
            assert_eq!(bench.drivers[1].used_idx(), 11, "not one too many");
        }
    }
}

#[test]
fn late_reply_that_is_dropped_is_eio() {
    for threads in [0, 1] {
        let mut bench = Bench::new(MODES[1], threads, 2);
        bench.start_all();
        let reply = park(&mut bench, 8);
        drop(take_one(&bench));
        assert_eq!(bench.drivers[1].collect(), Some((0, 16)));
        assert_eq!(bench.memory.get(reply, 16), error_reply(8, EIO));
    }
}

#[test]
fn late_reply_of_a_wrong_length_is_eio() {
    let mut bench = Bench::new(MODES[1], 0, 2);
    bench.start_all();
    for len in [0, 15, 65, 4096] {
        let reply = park(&mut bench, 8);
        take_one(&bench).finish(&vec![0xaa; len]);
        assert_eq!(bench.drivers[1].collect(), Some((0, 16)));
        assert_eq!(bench.memory.get(reply, 16), error_reply(8, EIO));
        assert_eq!(bench.memory.get(reply + 16, 1), [0]);
    }
}

#[test]
fn request_without_room_for_a_reply_is_not_parked() {
    let mut bench = Bench::new(MODES[0], 0, 2);
    bench.start_all();
    bench.drivers[1].request(&bench.memory, 0, (PARK, 1), 15);
    bench.kick(1);
    assert_eq!(bench.wait_used(1), (0, 0));
    assert_eq!(bench.handler.late_count(), 0);
}

#[test]
fn handler_that_parks_and_does_something_else_as_well_gives_one_used_entry() {
    for threads in [0, 1] {
        for opcode in [PARK_AND_REPLY, PARK_AND_PANIC] {
            for finished in [false, true] {
                let mut bench = Bench::new(MODES[1], threads, 2);
                bench.start_all();
                let reply = bench.drivers[1].request(&bench.memory, 0, (opcode, 5), 64);
                bench.kick(1);
                bench.wait_until("it is parked", |bench| bench.handler.late_count() == 1);
                assert_eq!(bench.drivers[1].collect(), None);
                let late = take_one(&bench);
                let expected = if finished {
                    late.finish(&error_reply(5, 0));
                    0
                } else {
                    drop(late);
                    EIO
                };
                assert_eq!(bench.memory.get(reply, 16), error_reply(5, expected));
                assert_eq!(bench.stop(1), 1);
                assert_eq!(bench.drivers[1].used_idx(), 1);
            }
        }
    }
}

#[test]
fn handler_that_says_parked_and_has_not_done_it_is_eio() {
    for threads in [0, 1] {
        let mut bench = Bench::new(MODES[1], threads, 2);
        bench.start_all();
        let reply = bench.drivers[1].request(&bench.memory, 0, (PARK_NOT, 6), 64);
        bench.kick(1);
        assert_eq!(bench.wait_used(1), (0, 16));
        assert_eq!(bench.memory.get(reply, 16), error_reply(6, EIO));
    }
}

/// Stops queue 1 with one request parked, finishes that, and checks that nothing is written.
fn finish_while_stopped(bench: &mut Bench, late: Box<dyn LateReply>, base: u32) {
    assert_eq!(bench.stop(1), base, "the parked one is taken");
    let at_stop = bench.memory.get(QUEUE.0, QUEUE.1);
    bench.signals(1);
    finish_on_another_thread(late, error_reply(9, EAGAIN).to_vec());
    assert_eq!(bench.memory.get(QUEUE.0, QUEUE.1), at_stop);
    assert_eq!(bench.signals(1), 0);
}

/// Sets queue 1 up as a front end does that goes on at `base`.
fn restart_at(bench: &mut Bench, base: u16) {
    let seen = bench.drivers[1].last_used;
    bench.drivers[1].last_used = base;
    bench.start(1);
    bench.drivers[1].last_used = seen;
}

#[test]
fn request_finished_while_stopped_is_answered_after_going_on() {
    for features in MODES {
        for threads in [0, 1] {
            let mut bench = Bench::new(features, threads, 2);
            bench.start_all();
            assert_eq!(bench.round_trip(1, ECHO, 1, 64), (16, 1));
            let reply = park(&mut bench, 9);
            let late = take_one(&bench);
            finish_while_stopped(&mut bench, late, 2);

            restart_at(&mut bench, 2);

            assert_eq!(bench.wait_used(1), (0, 16));
            assert_eq!(bench.memory.get(reply, 16), error_reply(9, EAGAIN));
            assert!(bench.signals(1) >= 1);
            assert_eq!(bench.round_trip(1, ECHO, 2, 64), (16, 2));
            assert_eq!(bench.stop(1), 3);
            assert_eq!(bench.drivers[1].used_idx(), 3);
        }
    }
}

#[test]
fn request_still_parked_after_a_stop_is_answered_when_it_is_done() {
    let mut bench = Bench::new(MODES[1], 0, 2);
    bench.start_all();
    let reply = park(&mut bench, 9);
    for _ in 0..3 {
        assert_eq!(bench.stop(1), 1);
        restart_at(&mut bench, 1);
    }
    assert_eq!(bench.drivers[1].collect(), None);
    drop(take_one(&bench));
    assert_eq!(bench.drivers[1].collect(), Some((0, 16)));
    assert_eq!(bench.memory.get(reply, 16), error_reply(9, EIO));
}

#[test]
fn request_finished_while_disabled_is_answered_when_enabled() {
    let mut bench = Bench::new(MODES[1], 1, 2);
    bench.start_all();
    let reply = park(&mut bench, 9);
    bench.device.set_vring_enable(1, false).expect("stopped");
    take_one(&bench).finish(&error_reply(9, EAGAIN));
    assert_eq!(bench.drivers[1].collect(), None);
    bench.device.set_vring_enable(1, true).expect("started");
    assert_eq!(bench.wait_used(1), (0, 16));
    assert_eq!(bench.memory.get(reply, 16), error_reply(9, EAGAIN));
}

#[test]
fn queue_that_starts_anew_forgets_what_was_parked() {
    for finished_before in [false, true] {
        let mut bench = Bench::new(MODES[1], 1, 2);
        bench.start_all();
        let reply = park(&mut bench, 9);
        let mut late = Some(take_one(&bench));
        assert_eq!(bench.stop(1), 1);
        if finished_before {
            late.take().expect("kept").finish(&error_reply(9, 0));
        }
        let (base, size) = (bench.drivers[1].base, bench.drivers[1].size);
        bench.drivers[1] = Driver::new(&bench.memory, base, size, MODES[1], 0);
        bench.memory.put(reply, &[0xcc; 64]);

        bench.start(1);

        if let Some(late) = late {
            late.finish(&error_reply(9, 0));
        }
        thread::sleep(Duration::from_millis(10));
        assert_eq!(bench.drivers[1].collect(), None);
        assert_eq!(bench.memory.get(reply, 64), [0xcc; 64]);
        assert_eq!(bench.round_trip(1, ECHO, 2, 64), (16, 2));
    }
}

#[test]
fn ring_that_is_new_at_the_same_base_forgets_what_was_parked() {
    let memory = TestMemory::new(&[(0, 0x4_0000)]);
    let queue = |index: u64, start| Driver::new(&memory, index * 0x2_0000, 128, MODES[1], start);
    let drivers = vec![queue(0, 0), queue(1, u16::MAX)];
    let mut bench = Bench::around(memory, drivers, 0);
    bench.start_all();
    park(&mut bench, 9);
    assert_eq!(bench.stop(1), 0, "the index has wrapped");
    bench.drivers[1] = Driver::new(&bench.memory, 0x2_0000, 128, MODES[1], 0);
    bench.start(1);
    take_one(&bench).finish(&error_reply(9, 0));
    assert_eq!(bench.drivers[1].collect(), None);
    assert_eq!(bench.drivers[1].used_idx(), 0);
}

#[test]
fn queue_that_moves_or_is_resized_forgets_what_was_parked() {
    for resized in [false, true] {
        let mut bench = Bench::new(MODES[1], 0, 3);
        bench.start_all();
        park(&mut bench, 9);
        assert_eq!(bench.stop(1), 1);
        let (at, size) = if resized { (1, 64) } else { (2, 128) };
        assert_eq!(bench.stop(2), 0);
        let mut driver = Driver::new(&bench.memory, at * 0x2_0000, size, MODES[1], 0);
        // Indices go on as if it were the same ring.
        driver.last_used = 1;
        bench.drivers[1] = driver;
        bench.start(1);
        bench.drivers[1].last_used = 0;
        take_one(&bench).finish(&error_reply(9, 0));
        assert_eq!(bench.drivers[1].used_idx(), 0);
    }
}

#[test]
fn reset_and_disconnect_forget_what_is_parked_before_the_handler_hears() {
    for disconnect in [false, true] {
        for threads in [0, 1] {
            let mut bench = Bench::new(MODES[1], threads, 2);
            bench.start_all();
            let kept = park(&mut bench, 9);
            let late = take_one(&bench);
            bench.drivers[1].request(&bench.memory, 2, (PARK, 10), 64);
            bench.kick(1);
            bench.wait_until("the second, too", |bench| bench.handler.late_count() == 1);
            bench.memory.put(kept, &[0xcc; 64]);
            let before = bench.memory.get(QUEUE.0, QUEUE.1);

            if disconnect {
                bench.device.shut_down();
            } else {
                bench.device.reset_device().expect("reset");
            }

            assert_eq!(bench.handler.late_count(), 0, "the handler drops its own");
            finish_on_another_thread(late, error_reply(9, 0).to_vec());
            let after = bench.memory.get(QUEUE.0, QUEUE.1);
            // Stopping asks for kicks: the word of avail_event behind 128 used elements.
            let changed: Vec<_> = (0..QUEUE.1).filter(|&at| before[at] != after[at]).collect();
            let avail_event = 0x8000 + 4 + 128 * 8;
            assert!(
                changed
                    .iter()
                    .all(|at| (avail_event..avail_event + 2).contains(at)),
                "{changed:x?}"
            );
        }
    }
}

#[test]
fn memory_table_that_is_sent_again_keeps_what_is_parked() {
    let mut bench = Bench::new(MODES[1], 1, 2);
    bench.start_all();
    let reply = park(&mut bench, 9);
    let (known, file) = &bench.memory.regions[0];
    let region = VhostUserMemoryRegion::new(
        known.guest_start,
        known.size,
        known.user_start,
        known.mmap_offset,
    );
    let files = vec![file.try_clone().expect("dup")];
    bench
        .device
        .set_mem_table(&[region], files, None)
        .expect("good");
    take_one(&bench).finish(&error_reply(9, EAGAIN));
    assert_eq!(bench.wait_used(1), (0, 16));
    assert_eq!(bench.memory.get(reply, 16), error_reply(9, EAGAIN));
}

#[test]
fn reply_whose_room_has_gone_gives_the_chain_back_with_length_zero() {
    for comes_back in [false, true] {
        let mut bench = Bench::new(MODES[0], 0, 2);
        bench.start_all();
        let (file, far) = (memory_file(4096), spec(FAR, 4096));
        bench.add_region(far, &file);
        bench.drivers[1].request(&bench.memory, 0, (PARK, 9), 64);
        bench.drivers[1].describe(1, (FAR, 64, WRITE, 0));
        bench.kick(1);
        bench.wait_until("it is parked", |bench| bench.handler.late_count() == 1);
        bench.remove_region(far);
        if comes_back {
            bench.add_region(far, &file);
        }
        take_one(&bench).finish(&error_reply(9, 0));
        let expected = if comes_back { 16 } else { 0 };
        assert_eq!(bench.wait_used(1), (0, expected));
        assert_eq!(bench.round_trip(1, ECHO, 3, 64), (16, 3));
    }
}

/// A request in one descriptor, as Linux makes them, so that a queue holds as many as entries.
fn indirect_request(bench: &mut Bench, head: u16, request: (u32, u64)) -> u64 {
    let at = bench.drivers[1].buffer(head);
    let (table, reply) = (at + 64, at + 128);
    bench
        .memory
        .window(at, 40)
        .write(0, in_header(40, request.0, request.1))
        .expect("in range");
    let window = bench.memory.window(table, 32);
    window
        .write(0, descriptor(at, 40, NEXT, 1))
        .expect("in range");
    window
        .write(16, descriptor(reply, 64, WRITE, 0))
        .expect("in range");
    bench.drivers[1].describe(head, (table, 32, INDIRECT, 0));
    bench.drivers[1].offer(head);
    reply
}

fn bench_with_1024_entries(threads: usize) -> Bench {
    let bytes = 0x8_0000;
    let memory = TestMemory::new(&[(0, bytes * 2)]);
    let drivers = (0..2)
        .map(|index| Driver::new(&memory, index * bytes, 1024, MODES[1], 0))
        .collect();
    Bench::around(memory, drivers, threads)
}

#[test]
fn thousand_parked_of_1024_leave_the_others_free_and_all_come_back_once() {
    for threads in [0, 2] {
        let mut bench = bench_with_1024_entries(threads);
        bench.start_all();
        let mut replies = Vec::new();
        for head in 0..1000 {
            replies.push(indirect_request(&mut bench, head, (PARK, u64::from(head))));
        }
        bench.kick(1);
        bench.wait_until("all are parked", |bench| bench.handler.late_count() == 1000);
        for unique in 0..100 {
            for head in 1000..1024 {
                indirect_request(&mut bench, head, (ECHO, unique));
            }
            bench.kick(1);
            for _ in 1000..1024 {
                assert_eq!(bench.wait_used(1).1, 16);
            }
        }
        let mut late = bench.handler.take_late();
        let finishers: Vec<_> = (0..4)
            .map(|_| {
                let part = late.split_off(late.len() - 250);
                thread::spawn(move || {
                    for (unique, late) in part {
                        late.finish(&error_reply(unique, 0));
                    }
                })
            })
            .collect();
        for finisher in finishers {
            finisher.join().expect("no panic");
        }
        let mut heads: Vec<_> = (0..1000).map(|_| bench.wait_used(1).0).collect();
        heads.sort_unstable();
        assert!(heads.into_iter().eq(0..1000), "each once");
        for (unique, reply) in (0..).zip(replies) {
            assert_eq!(bench.memory.get(reply, 16), error_reply(unique, 0));
        }
        assert_eq!(bench.stop(1), u32::from(bench.drivers[1].used_idx()));
    }
}

#[test]
fn last_entries_of_a_queue_are_never_parked() {
    let mut bench = bench_with_1024_entries(0);
    bench.start_all();
    let mut last = 0;
    for head in 0..1009 {
        last = indirect_request(&mut bench, head, (PARK, u64::from(head)));
    }
    bench.kick(1);
    assert_eq!(bench.wait_used(1), (1008, 16));
    assert_eq!(bench.handler.late_count(), 1008);
    assert_eq!(bench.memory.get(last, 16), error_reply(1008, EAGAIN));
}

#[test]
fn parked_entry_that_is_offered_again_breaks_the_queue_and_is_answered_once() {
    for threads in [0, 2] {
        let mut bench = Bench::new(MODES[0], threads, 2);
        bench.start_all();
        let reply = bench.drivers[1].request(&bench.memory, 0, (PARK, 1), 64);
        bench.kick(1);
        bench.wait_until("it is parked", |bench| bench.handler.late_count() == 1);
        bench.drivers[1].offer(0);
        bench.drivers[1].publish();
        bench.kick_hard(1);
        bench.wait_until("the error signal", |bench| bench.errors(1) == 1);
        assert_eq!(bench.stop(1), 1, "the second one is not taken");

        // The front end starts the queue where it was: the entry is under way as before.
        restart_at(&mut bench, 1);
        bench.wait_until("the next error signal", |bench| bench.errors(1) == 1);
        for (unique, late) in bench.handler.take_late() {
            late.finish(&error_reply(unique, 0));
        }
        assert_eq!(bench.wait_used(1), (0, 16));
        assert_eq!(bench.memory.get(reply, 16), error_reply(1, 0));
        bench.stop(1);

        // Now it is back, and may be used again.
        bench.start(1);
        bench.wait_until("it is parked", |bench| bench.handler.late_count() == 1);
    }
}

#[test]
fn finishing_while_the_queue_stops_and_goes_on_loses_and_doubles_nothing() {
    for threads in [0, 2] {
        let mut bench = Bench::new(MODES[1], threads, 2);
        bench.start_all();
        let (handler, done) = (bench.handler.clone(), Arc::new(AtomicBool::new(false)));
        let finisher = {
            let done = Arc::clone(&done);
            thread::spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    for (unique, late) in handler.take_late() {
                        late.finish(&error_reply(unique, 0));
                    }
                    thread::yield_now();
                }
            })
        };
        for round in 0..200_u16 {
            for slot in 0..8 {
                bench.drivers[1].request(&bench.memory, slot * 2, (PARK, 1), 64);
            }
            bench.kick(1);
            let base = bench.stop(1);
            let used = bench.drivers[1].used_idx();
            thread::yield_now();
            assert_eq!(bench.drivers[1].used_idx(), used, "stopped is stopped");
            restart_at(&mut bench, u16::try_from(base).expect("an index"));
            let mut heads: Vec<_> = (0..8).map(|_| bench.wait_used(1)).collect();
            heads.sort_unstable();
            let expected: Vec<_> = (0..8).map(|slot| (slot * 2, 16)).collect();
            assert_eq!(heads, expected, "round {round}");
        }
        done.store(true, Ordering::SeqCst);
        finisher.join().expect("no panic");
        assert_eq!(bench.stop(1), 1600);
        assert_eq!(bench.drivers[1].used_idx(), 1600);
    }
}
