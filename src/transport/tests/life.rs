//! Starting, stopping, resetting, and memory that comes and goes.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use vhost::vhost_user::VhostUserBackendReqHandlerMut;

use super::bench::{BLOCK, Bench, ECHO};
use crate::transport::test_guest::{MODES, NEXT, WRITE, in_header, memory_file, spec};

const FAR: u64 = 0x1_0000_0000;

#[test]
fn stop_waits_for_all_requests_and_nothing_is_written_afterwards() {
    for threads in [0, 3] {
        let mut bench = Bench::new(MODES[0], threads, 2);
        bench.start_all();
        for slot in 0..20 {
            bench.drivers[1].request(&bench.memory, slot * 2, (BLOCK, 1), 64);
        }
        bench.kick(1);
        bench.wait_until("some are under way", |bench| {
            bench.handler.under_way() == threads.max(1)
        });
        let handler = bench.handler.clone();
        let opener = thread::spawn(move || {
            thread::sleep(Duration::from_millis(30));
            handler.open_gate();
        });

        let base = bench.stop(1);

        let at_stop = bench.memory.get(0x2_0000, 0x2_0000);
        let used = bench.drivers[1].used_idx();
        assert_eq!(u32::from(used), base, "all that was taken is back");
        assert!(base >= 1);
        thread::sleep(Duration::from_millis(30));
        assert_eq!(bench.memory.get(0x2_0000, 0x2_0000), at_stop);
        opener.join().expect("no panic");

        // What was not taken is served after the next start.
        bench.drivers[1].last_used = used;
        bench.start(1);
        bench.wait_until("the rest", |bench| bench.drivers[1].used_idx() == 20);
    }
}

#[test]
fn stopped_queue_ignores_kicks_until_it_has_a_new_descriptor() {
    let mut bench = Bench::new(MODES[1], 0, 2);
    bench.start_all();
    assert_eq!(bench.round_trip(1, ECHO, 1, 64), (16, 1));
    assert_eq!(bench.stop(1), 1);
    bench.drivers[1].request(&bench.memory, 0, (ECHO, 2), 64);
    bench.drivers[1].publish();
    bench.kick_hard(1);
    thread::sleep(Duration::from_millis(20));
    assert_eq!(bench.drivers[1].collect(), None);
    bench.start(1);
    assert_eq!(bench.wait_used(1), (0, 16));
}

#[test]
fn enable_and_disable_under_load_loses_nothing() {
    for threads in [0, 2] {
        let mut bench = Bench::new(MODES[1], threads, 2);
        bench.start_all();
        for round in 0..300_u32 {
            let unique = u64::from(round);
            let reply = bench.drivers[1].request(&bench.memory, 0, (ECHO, unique), 64);
            bench.kick(1);
            bench.device.set_vring_enable(1, false).expect("stopped");
            bench.device.set_vring_enable(1, true).expect("started");
            assert_eq!(bench.wait_used(1), (0, 16), "round {round}");
            assert_eq!(bench.memory.get(reply + 8, 8), unique.to_le_bytes());
        }
    }
}

#[test]
fn settings_of_a_started_queue_are_refused_except_the_same_again() {
    let mut bench = Bench::new(MODES[1], 0, 2);
    bench.start_all();
    assert!(bench.device.set_vring_num(1, 64).is_err());
    assert!(bench.device.set_vring_num(1, 128).is_ok());
    assert!(bench.device.set_vring_base(1, 0).is_err());
    assert_eq!(bench.round_trip(1, ECHO, 1, 64), (16, 1));
}

#[test]
fn front_end_without_protocol_features_has_its_rings_enabled() {
    let mut bench = Bench::new(MODES[0], 0, 2);
    bench.set_up(1);
    bench.drivers[1].request(&bench.memory, 0, (ECHO, 1), 64);
    bench.drivers[1].publish();
    thread::sleep(Duration::from_millis(20));
    assert_eq!(bench.drivers[1].collect(), None, "not enabled");
    bench.device.set_features(1 << 32).expect("offered");
    assert_eq!(bench.wait_used(1), (0, 16));
}

#[test]
fn reset_drains_forgets_the_queue_and_tells_the_handler() {
    for owner in [false, true] {
        let mut bench = Bench::new(MODES[1], 2, 2);
        bench.start_all();
        assert_eq!(bench.round_trip(1, ECHO, 1, 64), (16, 1));
        if owner {
            bench.device.reset_owner().expect("reset");
        } else {
            bench.device.reset_device().expect("reset");
        }
        assert_eq!(bench.handler.resets.load(Ordering::SeqCst), 1);
        assert_eq!(bench.stop(1), 0);
        bench.device.set_vring_enable(1, true).expect("no effect");
        bench.drivers[1].request(&bench.memory, 0, (ECHO, 2), 64);
        bench.drivers[1].publish();
        bench.kick_hard(1);
        thread::sleep(Duration::from_millis(20));
        assert_eq!(bench.drivers[1].collect(), None);
    }
}

#[test]
fn memory_added_while_running_is_used_and_removed_memory_is_not() {
    let mut bench = Bench::new(MODES[0], 0, 2);
    bench.start_all();
    let file = memory_file(4096);
    let far = spec(FAR, 4096);
    // Header near, room for the reply far.
    let ask = |bench: &mut Bench| {
        bench.drivers[1].request(&bench.memory, 0, (ECHO, 3), 64);
        let header = bench.drivers[1].buffer(0);
        bench.memory.put(header, &in_header(40, ECHO, 3));
        bench.drivers[1].describe(0, (header, 40, NEXT, 1));
        bench.drivers[1].describe(1, (FAR, 64, WRITE, 0));
        bench.kick(1);
        bench.wait_used(1)
    };
    assert_eq!(ask(&mut bench), (0, 0), "nowhere to reply to");
    bench.add_region(far, &file);
    assert_eq!(ask(&mut bench), (0, 16));
    bench.remove_region(far);
    assert_eq!(ask(&mut bench), (0, 0));
    assert_eq!(bench.round_trip(1, ECHO, 9, 64), (16, 9));
}

#[test]
fn queue_whose_ring_memory_goes_and_comes_back_goes_on() {
    let mut bench = Bench::new(MODES[1], 0, 2);
    bench.start_all();
    assert_eq!(bench.round_trip(1, ECHO, 1, 64), (16, 1));
    let (all, file) = (
        bench.memory.regions[0].0,
        bench.memory.regions[0].1.try_clone().expect("dup"),
    );
    bench.remove_region(all);
    bench.drivers[1].request(&bench.memory, 0, (ECHO, 2), 64);
    bench.drivers[1].publish();
    bench.kick_hard(1);
    thread::sleep(Duration::from_millis(20));
    assert_eq!(bench.drivers[1].collect(), None);
    bench.add_region(all, &file);
    assert_eq!(bench.wait_used(1), (0, 16));
}

#[test]
fn kick_descriptor_that_hangs_up_does_not_keep_a_thread_busy() {
    let mut bench = Bench::new(MODES[1], 0, 2);
    bench.start_all();
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let kick = File::from(OwnedFd::from(theirs));
    bench.device.set_vring_kick(1, Some(kick)).expect("usable");
    drop(ours);
    thread::sleep(Duration::from_millis(20));
    let before = cpu_ticks("virtiofsd-q1");
    thread::sleep(Duration::from_millis(300));
    let after = cpu_ticks("virtiofsd-q1");
    // Other tests have threads of this name, too; a spinning one would take 30 ticks.
    assert!(after.saturating_sub(before) < 20, "{before} {after}");
    assert_eq!(bench.stop(1), 0);
}

#[test]
fn kick_that_cannot_wait_or_is_missing_is_refused() {
    let mut bench = Bench::new(MODES[1], 0, 2);
    let zero = File::open("/dev/zero").expect("/dev/zero");
    assert!(bench.device.set_vring_kick(1, Some(zero)).is_err());
    assert!(bench.device.set_vring_kick(1, None).is_err());
    let error = bench.device.set_vring_kick(64, None).expect_err("no such");
    assert!(error.to_string().contains("queue index 64 out of range"));
}

#[test]
fn kicks_with_nothing_in_the_ring_are_harmless() {
    let mut bench = Bench::new(MODES[1], 0, 2);
    bench.start_all();
    for _ in 0..1000 {
        bench.kick_hard(1);
    }
    assert_eq!(bench.round_trip(1, ECHO, 4, 64), (16, 4));
}

/// CPU time of the threads with this name that have the most of it, in ticks of 10 ms.
fn cpu_ticks(name: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("procfs");
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok())
        .filter(|stat| stat.contains(&format!("({name})")))
        .filter_map(|stat| {
            let fields: Vec<_> = stat.rsplit(") ").next()?.split(' ').collect();
            let user: u64 = fields.get(11)?.parse().ok()?;
            let system: u64 = fields.get(12)?.parse().ok()?;
            Some(user + system)
        })
        .max()
        .unwrap_or(0)
}
