//! The device as a whole, without a socket: messages by calls, requests by rings.

mod bench;
mod defer;
mod interop;
mod life;
mod parking;
mod stress;

use std::num::NonZeroUsize;
use std::time::Duration;

use bench::{BLOCK, Bench, DROP, ECHO, FORGET, PANIC};

use super::Execution;
use super::test_guest::{MODES, NEXT, WRITE};

const EIO_REPLY: [u8; 8] = [16, 0, 0, 0, 0xfb, 0xff, 0xff, 0xff];

#[test]
fn echo_over_both_modes_and_executors_comes_back_once() {
    for features in MODES {
        for threads in [0, 2] {
            let mut bench = Bench::new(features, threads, 2);
            bench.start_all();
            for unique in 0..200 {
                assert_eq!(bench.round_trip(1, ECHO, unique, 64), (16, unique));
            }
            assert_eq!(bench.handler.served(), 200);
        }
    }
}

#[test]
fn panic_in_the_handler_is_eio_and_the_queue_lives() {
    for threads in [0, 2] {
        let mut bench = Bench::new(MODES[1], threads, 2);
        bench.start_all();
        let reply = bench.drivers[1].request(&bench.memory, 0, (PANIC, 77), 64);
        bench.kick(1);
        assert_eq!(bench.wait_used(1), (0, 16));
        assert_eq!(bench.memory.get(reply, 8), EIO_REPLY);
        assert_eq!(bench.memory.get(reply + 8, 8), 77_u64.to_le_bytes());
        assert_eq!(bench.round_trip(1, ECHO, 5, 64), (16, 5));
        assert_eq!(bench.panics(), 1, "counted");
    }
}

#[test]
fn panic_without_room_or_on_a_forget_is_length_zero() {
    let mut bench = Bench::new(MODES[0], 0, 2);
    bench.start_all();
    bench.drivers[1].request(&bench.memory, 0, (PANIC, 77), 15);
    bench.kick(1);
    assert_eq!(bench.wait_used(1), (0, 0));
    assert_eq!(bench.round_trip(1, ECHO, 5, 64), (16, 5));
}

#[test]
fn dropped_and_silent_outcomes_have_length_zero() {
    let mut bench = Bench::new(MODES[0], 0, 2);
    bench.start_all();
    for opcode in [DROP, FORGET] {
        let reply = bench.drivers[1].request(&bench.memory, 0, (opcode, 1), 64);
        bench.memory.put(reply, &[0xaa; 64]);
        bench.kick(1);
        assert_eq!(bench.wait_used(1), (0, 0));
        assert_eq!(bench.memory.get(reply, 64), [0xaa; 64], "untouched");
    }
}

#[test]
fn unaddressable_buffers_are_eio_or_length_zero() {
    let mut bench = Bench::new(MODES[0], 0, 2);
    bench.start_all();
    let hole = 0x4000_0000;

    // The payload is nowhere, header and room are good.
    let reply = bench.drivers[1].request(&bench.memory, 0, (ECHO, 9), 64);
    let header = bench.drivers[1].buffer(0);
    bench.drivers[1].describe(0, (header, 40, NEXT, 4));
    bench.drivers[1].describe(4, (hole, 8, NEXT, 1));
    bench.kick(1);
    assert_eq!(bench.wait_used(1), (0, 16));
    assert_eq!(bench.memory.get(reply, 8), EIO_REPLY);

    // The same of a FORGET has no reply.
    bench.drivers[1].request(&bench.memory, 0, (FORGET, 9), 64);
    bench.drivers[1].describe(0, (header, 40, NEXT, 4));
    bench.kick(1);
    assert_eq!(bench.wait_used(1), (0, 0));

    // The header is nowhere.
    bench.drivers[1].describe(0, (hole, 40, NEXT, 1));
    bench.drivers[1].offer(0);
    bench.kick(1);
    assert_eq!(bench.wait_used(1), (0, 0));

    // Nothing to read at all.
    bench.drivers[1].describe(0, (header, 64, WRITE, 0));
    bench.drivers[1].offer(0);
    bench.kick(1);
    assert_eq!(bench.wait_used(1), (0, 0));

    assert_eq!(bench.round_trip(1, ECHO, 5, 64), (16, 5));
}

#[test]
fn burst_of_forgets_gives_one_signal() {
    for features in MODES {
        let mut bench = Bench::new(features, 0, 1);
        for slot in 0..100 {
            bench.drivers[0].request(&bench.memory, slot, (FORGET, 0), 0);
        }
        bench.drivers[0].publish();
        bench.start_all();
        bench.wait_until("all are back", |bench| bench.drivers[0].used_idx() == 100);
        bench.stop(0);
        assert_eq!(bench.signals(0), 1);
    }
}

#[test]
fn replies_of_a_burst_are_signalled_in_batches() {
    let mut bench = Bench::new(MODES[0], 0, 2);
    for slot in 0..32 {
        // LOOKUP does not take long, so nothing forces it out early.
        bench.drivers[1].request(&bench.memory, slot * 2, (1, 0), 64);
    }
    bench.drivers[1].publish();
    bench.start_all();
    bench.wait_until("all are back", |bench| bench.drivers[1].used_idx() == 32);
    bench.stop(1);
    assert_eq!(bench.signals(1), 2, "16 and 16");
}

#[test]
fn finished_request_is_shown_before_one_that_takes_long() {
    let mut bench = Bench::new(MODES[0], 0, 2);
    bench.drivers[1].request(&bench.memory, 0, (1, 1), 64);
    bench.drivers[1].request(&bench.memory, 2, (BLOCK, 2), 64);
    bench.drivers[1].publish();
    bench.start_all();
    assert_eq!(bench.wait_used(1), (0, 16));
    bench.wait_until("its signal", |bench| bench.signals(1) == 1);
    bench.handler.open_gate();
    assert_eq!(bench.wait_used(1), (2, 16));
}

#[test]
fn broken_ring_stops_its_queue_only_until_set_up_anew() {
    for threads in [0, 2] {
        let mut bench = Bench::new(MODES[1], threads, 3);
        bench.start_all();
        assert_eq!(bench.round_trip(1, ECHO, 1, 64), (16, 1));
        let header = bench.drivers[1].buffer(0);
        bench.drivers[1].describe(0, (header, 40, NEXT, 0));
        bench.drivers[1].offer(0);
        bench.kick(1);
        bench.wait_until("the error signal", |bench| bench.errors(1) == 1);
        assert_eq!(bench.round_trip(2, ECHO, 2, 64), (16, 2), "the others live");

        // The guest resets its driver: the same queue with good descriptors.
        assert_eq!(bench.stop(1), 1, "the bad request is not taken");
        let reply = bench.drivers[1].request(&bench.memory, 0, (ECHO, 3), 64);
        bench.drivers[1].next_avail = 2;
        bench.drivers[1].publish();
        bench.start(1);
        assert_eq!(bench.wait_used(1), (0, 16));
        assert_eq!(bench.memory.get(reply + 8, 8), 3_u64.to_le_bytes());
    }
}

#[test]
fn call_that_changes_while_running_gets_a_signal() {
    let mut bench = Bench::new(MODES[1], 0, 2);
    bench.start_all();
    assert_eq!(bench.round_trip(1, ECHO, 1, 64), (16, 1));
    bench.replace_call(1);
    assert_eq!(bench.signals(1), 1, "one may have gone to the old one");
    bench.drivers[1].request_signals();
    assert_eq!(bench.round_trip(1, ECHO, 2, 64), (16, 2));
    bench.wait_until("a signal", |bench| bench.signals(1) == 1);
}

#[test]
fn lost_signals_are_counted_and_cost_nothing_else() {
    let mut bench = Bench::new(MODES[0], 0, 2);
    bench.start_all();
    bench.break_call(1);
    assert_eq!(bench.round_trip(1, ECHO, 1, 64), (16, 1));
    bench.stop(1);
    assert!(bench.lost_signals() >= 1);
}

#[test]
fn entry_offered_again_while_it_is_served_breaks_the_queue() {
    let pool = NonZeroUsize::new(2).map(Execution::Pool).expect("two");
    for execution in [Execution::Inline, Execution::Adaptive, pool] {
        let mut bench = Bench::in_mode(MODES[0], 3, execution);
        bench.start_all();
        assert_eq!(bench.round_trip(1, ECHO, 1, 64), (16, 1));
        bench.drivers[1].request(&bench.memory, 0, (BLOCK, 2), 64);
        bench.kick(1);
        bench.wait_until("it is under way", |bench| bench.handler.under_way() == 1);
        bench.drivers[1].offer(0);
        bench.drivers[1].publish();
        bench.kick_hard(1);
        if execution != pool {
            // The queue's own thread looks at the ring when it is done with the first one.
            bench.handler.open_gate();
        }
        bench.wait_until("the error signal", |bench| bench.errors(1) == 1);
        bench.handler.open_gate();
        assert_eq!(bench.wait_used(1), (0, 16), "the first one is answered");
        assert_eq!(bench.handler.served(), 2, "and only that");
        assert_eq!(bench.round_trip(2, ECHO, 3, 64), (16, 3), "the others live");
        assert_eq!(bench.stop(1), 2, "the second one is not taken");
    }
}

#[test]
fn entry_offered_again_before_it_came_back_breaks_a_queue_with_one_thread() {
    for more_first in [false, true] {
        let mut bench = Bench::new(MODES[0], 0, 2);
        bench.drivers[1].request(&bench.memory, 0, (ECHO, 2), 64);
        if more_first {
            bench.drivers[1].request(&bench.memory, 2, (ECHO, 3), 64);
        }
        bench.drivers[1].offer(0);
        bench.drivers[1].publish();
        bench.start_all();
        bench.wait_until("the error signal", |bench| bench.errors(1) == 1);
        assert_eq!(bench.wait_used(1), (0, 16), "the first one is answered");
        let answered = 1 + u16::from(more_first);
        assert_eq!(bench.drivers[1].used_idx(), answered, "once");
        assert_eq!(bench.stop(1), u32::from(answered));
    }
}

#[test]
fn queue_that_is_full_has_no_more_under_way_than_it_has_entries() {
    let mut bench = Bench::new(MODES[0], 2, 2);
    let size = bench.drivers[1].size;
    bench.start_all();
    for slot in 0..size / 2 {
        bench.drivers[1].request(&bench.memory, slot * 2, (BLOCK, 0), 64);
    }
    bench.kick(1);
    std::thread::sleep(Duration::from_millis(20));
    assert!(bench.handler.under_way() <= usize::from(size));
    bench.handler.open_gate();
    let all = u32::from(size / 2);
    bench.wait_until("all are back", |bench| bench.handler.served() == all);
}
