//! Estimates without a clock: times are given.

use super::*;

const ALONE: Pace = Pace::Prompt { others_wait: false };
const CROWDED: Pace = Pace::Prompt { others_wait: true };
const FAST: Duration = Duration::from_micros(2);
const MIDDLING: Duration = Duration::from_micros(250);
const SLOW: Duration = Duration::from_millis(5);

/// Whether a request of this opcode would be served at once.
fn is_served(estimates: &Estimates, opcode: Opcode, pace: Pace) -> bool {
    estimates.begin(opcode, 40, pace, &mut 0).is_some()
}

/// One request of `opcode` that took `elapsed`, waiting all the time, wherever it was served.
fn serve(estimates: &Estimates, opcode: Opcode, elapsed: Duration) {
    let turn = turn(estimates, opcode, 40);
    note(estimates, &turn, 16, elapsed);
}

/// How a request is served when no others wait: now, or deferred. READs are taken for uncached.
fn turn(estimates: &Estimates, opcode: Opcode, request_len: u32) -> Turn {
    let now = estimates.begin(opcode, request_len, ALONE, &mut 0);
    let now = now.filter(|_| opcode != Opcode::Read);
    let later = || estimates.begin(opcode, request_len, Pace::Patient, &mut 0);
    now.or_else(later).expect("never refused")
}

/// A turn that took `elapsed`, all of it waiting.
fn note(estimates: &Estimates, turn: &Turn, reply_len: u32, elapsed: Duration) {
    let waits = turn.waits.unwrap_or(0) + 1;
    estimates.note(turn, reply_len, elapsed, || waits);
}

/// How many fast requests it takes until the next one is served at once.
fn served_again_after(estimates: &Estimates, opcode: Opcode, pace: Pace) -> u32 {
    let mut count = 0;
    while !is_served(estimates, opcode, pace) {
        serve(estimates, opcode, FAST);
        count += 1;
        assert!(count < 1000, "{opcode:?} is never served again");
    }
    count
}

#[test]
fn lookup_is_served_at_once_until_it_was_slow_and_again_when_it_is_fast() {
    let estimates = Estimates::new();
    assert!(is_served(&estimates, Opcode::Lookup, CROWDED));
    serve(&estimates, Opcode::Lookup, SLOW);
    assert!(
        is_served(&estimates, Opcode::Lookup, CROWDED),
        "once is none"
    );
    serve(&estimates, Opcode::Lookup, SLOW);
    assert!(
        !is_served(&estimates, Opcode::Lookup, ALONE),
        "twice is enough"
    );
    assert!(
        is_served(&estimates, Opcode::Getattr, ALONE),
        "others are fast"
    );
    for _ in 0..100 {
        serve(&estimates, Opcode::Lookup, SLOW);
    }
    let alone = served_again_after(&estimates, Opcode::Lookup, ALONE);
    assert!((1..15).contains(&alone), "{alone}");
    let crowded = served_again_after(&estimates, Opcode::Lookup, CROWDED);
    assert!((10..40).contains(&crowded), "{crowded}");
}

#[test]
fn request_of_medium_length_is_deferred_only_when_others_wait() {
    let estimates = Estimates::new();
    for _ in 0..50 {
        serve(&estimates, Opcode::Unlink, MIDDLING);
    }
    assert!(is_served(&estimates, Opcode::Unlink, ALONE));
    assert!(!is_served(&estimates, Opcode::Unlink, CROWDED));
}

#[test]
fn time_of_many_bytes_counts_for_nothing() {
    let estimates = Estimates::new();
    for (opcode, request_len, reply_len) in [
        (Opcode::Write, (1 << 20) + 80, 24),
        (Opcode::Readdirplus, 80, 128 << 10),
    ] {
        for _ in 0..50 {
            let turn = turn(&estimates, opcode, request_len);
            note(&estimates, &turn, reply_len, Duration::from_micros(400));
        }
        assert!(is_served(&estimates, opcode, CROWDED), "{opcode:?}");
    }
    for _ in 0..50 {
        serve(&estimates, Opcode::Write, Duration::from_micros(400));
    }
    assert!(
        !is_served(&estimates, Opcode::Write, CROWDED),
        "of few bytes"
    );
}

#[test]
fn fsync_and_its_kin_start_slow_and_are_never_served_between_others_while_noticeable() {
    for opcode in [
        Opcode::Fsync,
        Opcode::Fsyncdir,
        Opcode::Syncfs,
        Opcode::Fallocate,
        Opcode::CopyFileRange,
        Opcode::CopyFileRange64,
    ] {
        let estimates = Estimates::new();
        assert!(!is_served(&estimates, opcode, ALONE), "{opcode:?}");
        let alone = served_again_after(&estimates, opcode, ALONE);
        let crowded = served_again_after(&estimates, opcode, CROWDED);
        assert!(alone < 15 && crowded > 15, "{opcode:?}: {alone} {crowded}");
        for _ in 0..8 {
            serve(&estimates, opcode, Duration::from_micros(60));
        }
        assert!(!is_served(&estimates, opcode, CROWDED), "{opcode:?}");
        assert!(is_served(&estimates, opcode, ALONE), "{opcode:?}");
    }
}

#[test]
fn what_only_gives_back_or_must_stay_in_order_is_never_deferred() {
    let estimates = Estimates::new();
    for opcode in [
        Opcode::Forget,
        Opcode::BatchForget,
        Opcode::Interrupt,
        Opcode::Setlkw,
        Opcode::Init,
        Opcode::Destroy,
        Opcode::Unknown(4096),
    ] {
        for _ in 0..100 {
            serve(&estimates, opcode, SLOW);
        }
        assert!(is_served(&estimates, opcode, CROWDED), "{opcode:?}");
    }
}

#[test]
fn patient_thread_serves_everything_and_may_wait() {
    let estimates = Estimates::new();
    for opcode in [Opcode::Read, Opcode::Fsync, Opcode::Lookup] {
        for _ in 0..100 {
            serve(&estimates, opcode, SLOW);
        }
        let turn = estimates.begin(opcode, 40, Pace::Patient, &mut 0);
        assert_eq!(turn.expect("served").waiting(), Waiting::Allowed);
    }
}

#[test]
fn read_refuses_to_wait_when_others_wait_or_a_read_was_slow() {
    let estimates = Estimates::new();
    let waiting = |estimates: &Estimates, pace| {
        let turn = estimates.begin(Opcode::Read, 80, pace, &mut 0);
        turn.map(|turn| turn.waiting())
    };
    assert_eq!(waiting(&estimates, ALONE), Some(Waiting::Avoided));
    assert_eq!(waiting(&estimates, CROWDED), Some(Waiting::Refused));
    let turn = estimates.begin(Opcode::Read, 80, ALONE, &mut 0).unwrap();
    note(&estimates, &turn, 4112, MIDDLING);
    assert_eq!(waiting(&estimates, ALONE), Some(Waiting::Refused));
}

#[test]
fn read_that_was_wrongly_believed_to_be_cached_is_tried_again_after_a_while() {
    let estimates = Estimates::new();
    for _ in 0..100 {
        let turn = estimates.begin(Opcode::Read, 80, ALONE, &mut 0);
        if let Some(turn) = turn {
            note(&estimates, &turn, 4112, SLOW);
        }
    }
    let served = (0..100).filter(|_| is_served(&estimates, Opcode::Read, ALONE));
    assert!(served.count() > 50);
}

#[test]
fn read_that_would_wait_is_deferred_until_such_reads_prove_fast() {
    let estimates = Estimates::new();
    let may_wait = |pace| {
        let turn = estimates.begin(Opcode::Read, 80, pace, &mut 0);
        let mut turn = turn.expect("cached ones are fast");
        let may_wait = turn.may_wait_after_all();
        assert!(!turn.may_wait_after_all(), "once is enough");
        assert_eq!(turn.waiting() == Waiting::Allowed, may_wait);
        may_wait
    };
    assert!(!may_wait(ALONE));
    for _ in 0..50 {
        serve(&estimates, Opcode::Read, MIDDLING);
    }
    assert!(may_wait(ALONE));
    assert!(!may_wait(CROWDED));
    for _ in 0..50 {
        serve(&estimates, Opcode::Read, Duration::from_micros(60));
    }
    assert!(may_wait(CROWDED));
}

#[test]
fn time_that_never_ends_is_forgotten_as_soon_as_any() {
    let estimates = Estimates::new();
    for _ in 0..2 {
        serve(&estimates, Opcode::Lookup, Duration::from_secs(3600));
    }
    let count = served_again_after(&estimates, Opcode::Lookup, ALONE);
    assert!(count < 20, "{count}");
}

#[test]
fn fast_requests_are_measured_now_and_then_and_slow_ones_always() {
    let estimates = Estimates::new();
    let mut tick = 0;
    let mut measured = |estimates: &Estimates| {
        let turns = (0..80).map(|_| {
            let turn = estimates.begin(Opcode::Getattr, 56, Pace::Patient, &mut tick);
            turn.expect("served").begun.is_some()
        });
        turns.filter(|is_measured| *is_measured).count()
    };
    assert_eq!(measured(&estimates), 10);
    serve(&estimates, Opcode::Getattr, MIDDLING);
    assert_eq!(measured(&estimates), 80);
}

#[test]
fn fast_requests_write_no_estimate() {
    let estimates = Estimates::new();
    for _ in 0..100 {
        serve(&estimates, Opcode::Getattr, Duration::from_micros(15));
    }
    assert_eq!(estimates.get(class_of(Opcode::Getattr)), 0);
}

#[test]
fn time_without_waiting_defers_only_what_has_no_bound() {
    for (opcode, is_deferred) in [(Opcode::Lookup, false), (Opcode::Fsync, true)] {
        let estimates = Estimates::new();
        for _ in 0..100 {
            let turn = turn(&estimates, opcode, 40);
            let waits = turn.waits.unwrap_or(0);
            estimates.note(&turn, 16, SLOW, || waits);
            assert_eq!(!is_served(&estimates, opcode, CROWDED), is_deferred);
        }
    }
}

#[test]
fn deferred_requests_that_wait_for_each_other_do_not_keep_others_deferred() {
    let estimates = Estimates::new();
    for _ in 0..20 {
        serve(&estimates, Opcode::Lookup, MIDDLING);
    }
    assert!(!is_served(&estimates, Opcode::Lookup, CROWDED));
    for turn in 0..100 {
        let deferred = estimates.begin(Opcode::Lookup, 40, Pace::Patient, &mut 0);
        let elapsed = if turn % 2 == 0 { SLOW } else { FAST };
        note(&estimates, &deferred.expect("never refused"), 16, elapsed);
    }
    assert!(is_served(&estimates, Opcode::Lookup, CROWDED));
}
