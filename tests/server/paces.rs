//! Requests of threads that have no time: deferred or served, and never half of both.

use std::sync::atomic::Ordering;

use virtiofsd::server::Server;
use virtiofsd::wire::channel::{Outcome, Pace, RequestHandler};
use virtiofsd::wire::opcode::Opcode;

use crate::cases::{Args, Request, mounted, out_header, replied};
use crate::double::{CONTENTS, FakeFs};
use crate::slices::{SliceSink, SliceSource};

const ALONE: Pace = Pace::Prompt { others_wait: false };
const CROWDED: Pace = Pace::Prompt { others_wait: true };

fn serve(server: &Server<FakeFs>, request: &Request, pace: Pace) -> (Outcome, SliceSink) {
    let mut sink = SliceSink::new(256);
    let bytes = request.bytes();
    let outcome = server.handle(&mut SliceSource::new(&bytes), &mut sink, pace);
    (outcome, sink)
}

#[test]
fn read_of_far_contents_is_deferred_by_the_hurried_and_whole_for_the_patient() {
    let server = mounted();
    server.file_system().is_slow.store(true, Ordering::Relaxed);
    let read = Args::read(2, 10).to(Opcode::Read, 42);
    let requests = || server.metrics().opcode(Opcode::Read.raw()).requests;
    for pace in [ALONE, CROWDED] {
        let before = requests();
        assert_eq!(serve(&server, &read, pace).0, Outcome::Deferred);
        assert_eq!(requests(), before, "it is not over yet");
        let (outcome, sink) = serve(&server, &read, Pace::Patient);
        assert_eq!(outcome, replied(10));
        assert_eq!(out_header(&sink).error, 0);
        assert_eq!(sink.bytes[16..26], CONTENTS[2..12]);
        assert_eq!(requests(), before + 1);
    }
}

#[test]
fn read_that_only_seems_far_is_served_at_once_after_a_while() {
    let server = mounted();
    server.file_system().is_slow.store(true, Ordering::Relaxed);
    let read = Args::read(2, 10).to(Opcode::Read, 42);
    for _ in 0..200 {
        assert_eq!(serve(&server, &read, Pace::Patient).0, replied(10));
    }
    // The contents were never far, if the machine was not.
    let (outcome, sink) = serve(&server, &read, ALONE);
    if outcome == Outcome::Deferred {
        println!("skipped: this machine is too busy");
        return;
    }
    assert_eq!(outcome, replied(10));
    assert_eq!(sink.bytes[16..26], CONTENTS[2..12], "from the start again");
}

#[test]
fn fsync_is_deferred_before_anybody_is_asked() {
    let server = mounted();
    let fsync = Args::new().u64(55).u32s(&[1, 0]).to(Opcode::Fsync, 42);
    server.file_system().take_last_call();
    let (outcome, sink) = serve(&server, &fsync, ALONE);
    assert_eq!(outcome, Outcome::Deferred);
    assert!(sink.writes.is_empty());
    assert_eq!(server.file_system().take_last_call(), "");
    assert_eq!(serve(&server, &fsync, Pace::Patient).0, replied(0));
}

#[test]
fn request_that_cannot_be_answered_is_dropped_at_any_pace() {
    let server = mounted();
    let fsync = Args::new().u64(55).u32s(&[1, 0]).to(Opcode::Fsync, 42);
    let bytes = fsync.bytes();
    let mut sink = SliceSink::new(15);
    let outcome = server.handle(&mut SliceSource::new(&bytes), &mut sink, ALONE);
    assert_eq!(outcome, Outcome::Dropped);
}
