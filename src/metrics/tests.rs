//! Slots and their owners, sums over threads, and which requests are timed.

use std::sync::Barrier;
use std::thread;

use super::*;

const READ: u32 = 15;

fn count(meter: &mut Meter, number: u32, ending: Ending) -> Option<Duration> {
    let begun = meter.begin(number);
    meter.end(begun, ending)
}

fn slot_count(metrics: &Metrics) -> usize {
    metrics.lock().all.len()
}

#[test]
fn counts_of_threads_at_once_add_up_exactly() {
    const THREADS: usize = 8;
    const REQUESTS: u64 = 10_000;
    let metrics = Arc::new(Metrics::new());
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut meter = metrics.meter();
                start.wait();
                for request in 0..REQUESTS {
                    let ending = match request % 10 {
                        0 => Ending::Failed,
                        _ => Ending::Done { bytes: 3 },
                    };
                    count(&mut meter, READ, ending);
                }
                meter.count_dropped();
            });
        }
    });
    let sum = metrics.opcode(READ);
    assert_eq!(sum.requests, 8 * REQUESTS);
    assert_eq!(sum.errors, 8 * REQUESTS / 10);
    assert_eq!(sum.bytes, 8 * 3 * (REQUESTS - REQUESTS / 10));
    let timed_often = (REQUESTS - TIMED_EVERY).div_ceil(TIMED_EVERY);
    assert_eq!(
        sum.times.count(),
        8 * (TIMED_EVERY + TIMED_EVERY * timed_often)
    );
    assert_eq!(metrics.dropped(), 8);
    assert_eq!(metrics.opcode(READ + 1), OperationCount::default());
}

#[test]
fn slot_of_a_thread_that_ended_is_used_again_and_keeps_its_counts() {
    let metrics = Arc::new(Metrics::new());
    for _ in 0..50 {
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut meter = metrics.meter();
                count(&mut meter, READ, Ending::Done { bytes: 1 });
            });
        });
    }
    let sum = metrics.opcode(READ);
    assert_eq!((sum.requests, sum.bytes), (50, 50));
    assert_eq!(slot_count(&metrics), 1);
}

#[test]
fn two_meters_at_once_never_have_one_slot() {
    let metrics = Arc::new(Metrics::new());
    drop(metrics.meter());
    let (mut first, mut second) = (metrics.meter(), metrics.meter());
    let begun = first.begin(READ);
    count(&mut second, READ, Ending::Failed);
    first.end(begun, Ending::Failed);
    assert!(!Arc::ptr_eq(&first.slot, &second.slot));
    assert_eq!(slot_count(&metrics), 2);
    assert_eq!(metrics.opcode(READ).errors, 2);
}

#[test]
fn slot_is_given_back_when_its_thread_panics() {
    let metrics = Arc::new(Metrics::new());
    let there = Arc::clone(&metrics);
    let panicked = thread::spawn(move || {
        let mut meter = there.meter();
        let _begun = meter.begin(READ);
        std::panic::resume_unwind(Box::new(()));
    });
    assert!(panicked.join().is_err());
    count(&mut metrics.meter(), READ, Ending::Done { bytes: 0 });
    assert_eq!(metrics.opcode(READ).requests, 2);
    assert_eq!(slot_count(&metrics), 1);
}

#[test]
fn first_requests_are_timed_and_then_one_stands_for_many() {
    let metrics = Arc::new(Metrics::new());
    let mut meter = metrics.meter();
    let timed: Vec<u64> = (0..4 * TIMED_EVERY)
        .filter(|_| count(&mut meter, READ, Ending::Failed).is_some())
        .collect();
    let first = 0..TIMED_EVERY;
    let then = [TIMED_EVERY, 2 * TIMED_EVERY, 3 * TIMED_EVERY];
    assert_eq!(timed, first.chain(then).collect::<Vec<u64>>());
    // So the histogram stands for all of them.
    assert_eq!(metrics.opcode(READ).times.count(), 4 * TIMED_EVERY);
    // Each operation by itself.
    assert!(count(&mut meter, READ + 1, Ending::Failed).is_some());
}

#[test]
fn requests_under_way_count_and_have_no_time_yet() {
    let metrics = Arc::new(Metrics::new());
    let mut meter = metrics.meter();
    let begun = meter.begin(READ);
    let sum = metrics.opcode(READ);
    assert_eq!((sum.requests, sum.times.count()), (1, 0));
    assert!(meter.end(begun, Ending::Done { bytes: 0 }).is_some());
    assert_eq!(metrics.opcode(READ).times.count(), 1);
}

#[test]
fn request_that_is_postponed_counts_once_where_it_is_served() {
    let metrics = Arc::new(Metrics::new());
    let (mut first, mut second) = (metrics.meter(), metrics.meter());
    assert_eq!(count(&mut first, READ, Ending::Postponed), None);
    assert_eq!(metrics.opcode(READ), OperationCount::default());
    assert!(count(&mut second, READ, Ending::Failed).is_some());
    let sum = metrics.opcode(READ);
    assert_eq!((sum.requests, sum.errors, sum.times.count()), (1, 1, 1));
}

#[test]
fn unknown_numbers_count_together() {
    let metrics = Arc::new(Metrics::new());
    let mut meter = metrics.meter();
    for number in [0, 64, u32::MAX] {
        count(&mut meter, number, Ending::Failed);
        metrics.count_late_error(number);
    }
    assert_eq!(metrics.opcode(0).requests, 3);
    assert_eq!(metrics.opcode(0).errors, 6);
}

#[test]
fn late_errors_are_errors_of_their_operation() {
    let metrics = Metrics::new();
    metrics.count_late_error(33);
    assert_eq!(metrics.opcode(33).errors, 1);
    assert_eq!(metrics.opcode(0).errors, 0);
}

#[test]
fn meter_knows_for_whom_it_counts() {
    let (ours, others) = (Arc::new(Metrics::new()), Arc::new(Metrics::new()));
    let meter = ours.meter();
    assert!(meter.is_of(&ours));
    assert!(!meter.is_of(&others));
}

#[test]
fn report_names_what_was_asked_for() {
    let metrics = Arc::new(Metrics::new());
    let mut meter = metrics.meter();
    let _begun = meter.begin(READ);
    let lines = metrics.report(|number| match number {
        READ => "READ",
        _ => "other",
    });
    assert_eq!(lines.len(), 2);
    assert_eq!(lines.last().map(String::as_str), Some("READ 1 0 0 - - -"));
}
