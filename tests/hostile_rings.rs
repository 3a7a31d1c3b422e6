//! What: attacks on the rings themselves (security.md 2.2), on queue 1, while queue 2 goes on.
//!
//! BROKEN: the error event of queue 1 is signalled, nothing else; it works again after a
//! restart. DROP: used entry of length 0, buffers untouched. After each case the oracle on queue
//! 2, then queue 1 is restarted and must serve.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::client::Client;
use common::frontend::Setup;
use common::memory::{MemoryLayout, Span};
use common::queue::assert_canary;
use common::request::{Bytes, OUT_HEADER, ROOT, op, out_header};
use common::rig::{REPLY_ROOM, Rig, descriptor};
use common::ring::{Descriptor, INDIRECT, NEXT, NotifyMode, WRITE};
use common::session::Session;
use common::share::Share;
use common::u32_of;

#[test]
fn descriptor_loop_breaks_the_queue_or_is_an_error() {
    let mut rig = Rig::new(Setup::default());
    let (gpa, len) = rig.request();
    let queue = rig.queue();
    let (a, b) = (queue.take_descriptor(), queue.take_descriptor());
    let linked = |next| Descriptor {
        next,
        ..descriptor(gpa, len, NEXT)
    };
    queue.ring.write_descriptor(a, linked(b));
    queue.ring.write_descriptor(b, linked(a));
    queue.push_raw_head(a);
    rig.expect_broken_or_error("descriptor loop");
}

#[test]
fn descriptor_that_leads_to_itself_breaks_the_queue_or_is_an_error() {
    let mut rig = Rig::new(Setup::default());
    let (gpa, len) = rig.request();
    let queue = rig.queue();
    let a = queue.take_descriptor();
    let own = Descriptor {
        next: a,
        ..descriptor(gpa, len, NEXT)
    };
    queue.ring.write_descriptor(a, own);
    queue.push_raw_head(a);
    rig.expect_broken_or_error("descriptor that leads to itself");
}

#[test]
fn next_beyond_the_table_breaks_the_queue() {
    for next in [128, 129, 1000, u16::MAX] {
        let mut rig = Rig::new(Setup::default());
        let (gpa, len) = rig.request();
        let queue = rig.queue();
        let a = queue.take_descriptor();
        let wild = Descriptor {
            next,
            ..descriptor(gpa, len, NEXT)
        };
        queue.ring.write_descriptor(a, wild);
        queue.push_raw_head(a);
        rig.expect_broken("next beyond the table");
    }
}

#[test]
fn head_beyond_the_table_breaks_the_queue() {
    for head in [128, 200, u16::MAX] {
        let mut rig = Rig::new(Setup::default());
        rig.queue().push_raw_head(head);
        rig.expect_broken("head beyond the table");
    }
}

#[test]
fn chain_of_exactly_queue_size_descriptors_works() {
    let mut rig = Rig::new(Setup::default().queue_size(64).direct());
    let (gpa, len) = rig.request();
    let reply = rig.reply_room();
    let piece = |index: u64| descriptor(gpa + index, 1, 0);
    let mut segments: Vec<_> = (0..u64::from(len)).map(piece).collect();
    // 56 readable descriptors; 8 writable ones make 64.
    segments.extend((0..8).map(|index| descriptor(reply + index * 15, 15, WRITE)));
    assert_eq!(segments.len(), 64);
    rig.queue().add_raw(&segments);
    rig.queue().publish();
    assert_eq!(rig.queue().next().used_len, 120);
    rig.finish("chain of queue size");
}

#[test]
fn empty_descriptors_anywhere_are_ignored() {
    let mut rig = Rig::new(Setup::default());
    let (gpa, len) = rig.request();
    let reply = rig.reply_room();
    let empty = |flags| descriptor(gpa, 0, flags);
    let full = [
        empty(0),
        descriptor(gpa, 10, 0),
        empty(0),
        descriptor(gpa + 10, len - 10, 0),
        empty(WRITE),
        descriptor(reply, 60, WRITE),
        empty(WRITE),
        descriptor(reply + 60, 60, WRITE),
        empty(WRITE),
    ];
    rig.queue().add_raw(&full);
    rig.queue().publish();
    assert_eq!(rig.queue().next().used_len, 120);
    let (len, error, _) = out_header(&rig.queue().peek(reply, OUT_HEADER));
    assert_eq!((len, error), (120, 0));
    rig.finish("empty descriptors");
}

#[test]
fn available_index_that_jumps_breaks_the_queue() {
    for notify in [NotifyMode::EventIdx, NotifyMode::Flags] {
        for jump in [129, 1000, 0x8000] {
            let mut rig = Rig::new(Setup::default().notify(notify));
            let queue = rig.queue();
            let index = queue.ring.avail_index().wrapping_add(jump);
            queue.ring.publish_wild_index(index);
            queue.kick_now();
            rig.expect_broken("available index that jumps");
        }
    }
}

#[test]
fn available_index_that_goes_back_breaks_the_queue() {
    let mut rig = Rig::new(Setup::default());
    rig.client.canary();
    let queue = rig.queue();
    let index = queue.ring.avail_index().wrapping_sub(1);
    queue.ring.publish_wild_index(index);
    queue.kick_now();
    rig.expect_broken("available index that goes back");
}

#[test]
fn reply_room_outside_memory_is_a_drop() {
    let mut rig = Rig::new(Setup::default());
    let (gpa, len) = rig.request();
    let wild = rig.queue().unmapped(1 << 30);
    let segments = [descriptor(gpa, len, 0), descriptor(wild, REPLY_ROOM, WRITE)];
    rig.queue().add_raw(&segments);
    rig.queue().publish();
    rig.expect_drop("reply room outside memory");
}

#[test]
fn request_outside_memory_is_a_drop_or_an_error() {
    for wild in [0, u64::MAX, u64::MAX - 100, 1 << 63] {
        let mut rig = Rig::new(Setup::default());
        let reply = rig.reply_room();
        let segments = [
            descriptor(wild, 56, 0),
            descriptor(reply, REPLY_ROOM, WRITE),
        ];
        rig.queue().add_raw(&segments);
        rig.queue().publish();
        rig.expect_drop("request outside memory");
    }
}

#[test]
fn body_outside_memory_with_a_readable_header_is_an_error() {
    let mut rig = Rig::new(Setup::default());
    let (gpa, _) = rig.request();
    let reply = rig.reply_room();
    let wild = rig.queue().unmapped(1 << 20);
    let segments = [
        descriptor(gpa, 40, 0),
        descriptor(wild, 16, 0),
        descriptor(reply, REPLY_ROOM, WRITE),
    ];
    rig.queue().add_raw(&segments);
    rig.queue().publish();
    assert_eq!(rig.queue().next().used_len, 16);
    let (_, error, _) = out_header(&rig.queue().peek(reply, OUT_HEADER));
    assert_eq!(error, -libc::EIO);
    rig.finish("body outside memory");
}

#[test]
fn buffer_that_straddles_into_a_hole_is_an_error_or_a_drop() {
    let mut rig = Rig::new(Setup::default().memory(MemoryLayout::several(2, 4 << 20, 1 << 20)));
    let (gpa, len) = rig.request();
    let end = {
        let regions = rig.queue().memory.regions();
        regions[0].span.gpa + regions[0].span.len
    };
    let straddling = [
        descriptor(gpa, len, 0),
        descriptor(end - 60, REPLY_ROOM, WRITE),
    ];
    rig.queue()
        .memory
        .write(end - 60, &[common::queue::CANARY; 60]);
    rig.queue().add_raw(&straddling);
    rig.queue().publish();
    let completion = rig.queue().next();
    assert!([0, 16].contains(&completion.used_len), "{completion:?}");
    rig.finish("buffer that straddles into a hole");
}

#[test]
fn lengths_beyond_4_gib_are_errors() {
    let mut rig = Rig::new(Setup::default());
    let (gpa, len) = rig.request();
    let reply = rig.reply_room();
    let huge = [
        descriptor(gpa, len, 0),
        descriptor(gpa, u32::MAX, 0),
        descriptor(gpa, u32::MAX, 0),
        descriptor(reply, REPLY_ROOM, WRITE),
    ];
    rig.queue().add_raw(&huge);
    rig.queue().publish();
    assert_eq!(rig.queue().next().used_len, 16);
    let (_, error, _) = out_header(&rig.queue().peek(reply, OUT_HEADER));
    assert_eq!(error, -libc::EIO);
    rig.finish("lengths beyond 4 GiB");
}

#[test]
fn chain_without_readable_descriptors_is_a_drop() {
    let mut rig = Rig::new(Setup::default());
    let reply = rig.reply_room();
    rig.queue().add_raw(&[descriptor(reply, REPLY_ROOM, WRITE)]);
    rig.queue().publish();
    rig.expect_drop("no readable descriptor");
}

#[test]
fn readable_after_writable_is_refused() {
    let mut rig = Rig::new(Setup::default());
    let (gpa, len) = rig.request();
    let reply = rig.reply_room();
    let swapped = [
        descriptor(reply, REPLY_ROOM, WRITE),
        descriptor(gpa, len, 0),
    ];
    rig.queue().add_raw(&swapped);
    rig.queue().publish();
    rig.expect_broken_or_error("readable after writable");
}

#[test]
fn indirect_tables_of_wrong_length_break_the_queue() {
    for len in [0, 1, 15, 17, 24, 33] {
        let mut rig = Rig::new(Setup::default());
        let (gpa, _) = rig.request();
        rig.queue().add_raw(&[descriptor(gpa, len, INDIRECT)]);
        rig.queue().publish();
        rig.expect_broken(&format!("indirect table of {len} bytes"));
    }
}

#[test]
fn indirect_tables_outside_memory_break_the_queue_or_are_dropped() {
    for addr in [0, u64::MAX - 15, 1 << 62] {
        let mut rig = Rig::new(Setup::default());
        rig.queue().add_raw(&[descriptor(addr, 32, INDIRECT)]);
        rig.queue().publish();
        rig.expect_broken_or_error("indirect table outside memory");
    }
}

#[test]
fn indirect_with_next_breaks_the_queue() {
    let mut rig = Rig::new(Setup::default());
    let (gpa, len) = rig.request();
    let table = rig.queue().scratch(16);
    let entry = descriptor(gpa, len, 0).to_bytes();
    rig.queue().memory.write(table, &entry);
    let queue = rig.queue();
    let (a, b) = (queue.take_descriptor(), queue.take_descriptor());
    let both = Descriptor {
        next: b,
        ..descriptor(table, 16, INDIRECT | NEXT)
    };
    queue.ring.write_descriptor(a, both);
    queue.ring.write_descriptor(b, descriptor(gpa, len, WRITE));
    queue.push_raw_head(a);
    rig.expect_broken("INDIRECT with NEXT");
}

#[test]
fn indirect_that_was_not_negotiated_breaks_the_queue() {
    let mut rig = Rig::new(Setup::default().direct());
    let (gpa, len) = rig.request();
    let table = rig.queue().scratch(16);
    let entry = descriptor(gpa, len, 0).to_bytes();
    rig.queue().memory.write(table, &entry);
    rig.queue().add_raw(&[descriptor(table, 16, INDIRECT)]);
    rig.queue().publish();
    rig.expect_broken("INDIRECT that was not negotiated");
}

#[test]
fn indirect_table_in_an_indirect_table_breaks_the_queue() {
    let mut rig = Rig::new(Setup::default());
    let table = rig.queue().scratch(32);
    let entry = descriptor(table, 16, INDIRECT).to_bytes();
    rig.queue().memory.write(table, &entry);
    rig.queue().add_raw(&[descriptor(table, 16, INDIRECT)]);
    rig.queue().publish();
    rig.expect_broken_or_error("INDIRECT in an indirect table");
}

#[test]
fn indirect_tables_with_loops_and_wild_links_are_refused() {
    for next in [0, 1, 2, 100, u16::MAX] {
        let mut rig = Rig::new(Setup::default());
        let (gpa, len) = rig.request();
        let table = rig.queue().scratch(32);
        let wild = Descriptor {
            next,
            ..descriptor(gpa, len, NEXT)
        };
        let bytes = [wild.to_bytes(), wild.to_bytes()].concat();
        rig.queue().memory.write(table, &bytes);
        rig.queue().add_raw(&[descriptor(table, 32, INDIRECT)]);
        rig.queue().publish();
        rig.expect_broken_or_error("indirect table with wild links");
    }
}

#[test]
fn request_that_changes_while_it_is_served_does_no_harm() {
    let mut rig = Rig::new(Setup::default());
    let (gpa, len) = rig.request();
    let reply = rig.reply_room();
    let memory = Arc::clone(&rig.queue().memory);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let vandal = thread::spawn(move || {
        let mut rng = common::Rng::new(3);
        let safe = [op::GETATTR, op::LOOKUP, op::STATFS, op::READDIR, op::FORGET];
        while !stopped.load(Ordering::Relaxed) {
            let mut header = [0; 24];
            rng.fill(&mut header);
            header[4..8].copy_from_slice(&rng.pick(&safe).to_le_bytes());
            memory.write(gpa, &header);
        }
    });
    for _ in 0..3000 {
        let segments = [
            descriptor(gpa, len, 0),
            descriptor(reply, REPLY_ROOM, WRITE),
        ];
        rig.queue().add_raw(&segments);
        rig.queue().publish();
        rig.queue().next();
    }
    stop.store(true, Ordering::Relaxed);
    vandal.join().expect("the vandal does not panic");
    rig.finish("request that changes");
}

#[test]
fn descriptors_that_change_while_they_are_read_do_no_harm() {
    let mut rig = Rig::new(Setup::default());
    let (gpa, len) = rig.request();
    let reply = rig.reply_room();
    let table = rig.queue().scratch(32);
    let memory = Arc::clone(&rig.queue().memory);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let good = move |next| Descriptor {
        next,
        ..descriptor(gpa, len, NEXT)
    };
    let second = descriptor(reply, REPLY_ROOM, WRITE);
    memory.write(table, &[good(1).to_bytes(), second.to_bytes()].concat());
    let vandal = thread::spawn(move || {
        let mut rng = common::Rng::new(4);
        while !stopped.load(Ordering::Relaxed) {
            let writable = descriptor(reply, REPLY_ROOM, WRITE);
            let wild = descriptor(rng.next(), u32_of(rng.below(1 << 30)), WRITE);
            let second = if rng.below(2) == 0 { writable } else { wild };
            memory.write(table, &[good(1).to_bytes(), second.to_bytes()].concat());
        }
    });
    for _ in 0..3000 {
        rig.queue().add_raw(&[descriptor(table, 32, INDIRECT)]);
        rig.queue().publish();
        let completion = rig.queue().next();
        assert!(
            [0, 16, 120].contains(&completion.used_len),
            "{completion:?}"
        );
    }
    stop.store(true, Ordering::Relaxed);
    vandal.join().expect("the vandal does not panic");
    rig.finish("descriptors that change");
}

#[test]
fn request_and_reply_in_the_same_memory_do_no_harm() {
    let mut rig = Rig::new(Setup::default());
    let (gpa, len) = rig.request();
    for shift in [0, 1, 8, 39] {
        let (message, _) = rig.client.message(op::GETATTR, ROOT, &[0; 16]);
        rig.queue().memory.write(gpa, &message);
        let segments = [
            descriptor(gpa, len, 0),
            descriptor(gpa + shift, REPLY_ROOM, WRITE),
        ];
        rig.queue().add_raw(&segments);
        rig.queue().publish();
        assert_eq!(rig.queue().next().used_len, 120, "shift {shift}");
    }
    rig.finish("overlapping request and reply");
}

#[test]
fn forget_with_a_reply_buffer_leaves_it_alone() {
    let mut rig = Rig::new(Setup::default());
    let body = Bytes::new().u64(1).done();
    let (message, _) = rig.client.message(op::FORGET, 4711, &body);
    let completion = rig.client.send_raw(&message, 200);
    assert_eq!(completion.used_len, 0);
    assert_canary(&completion.rest);
    rig.finish("FORGET with a reply buffer");
}

#[test]
fn kicks_for_nothing_cost_little() {
    let mut rig = Rig::new(Setup::default());
    for _ in 0..65_536 {
        rig.queue().kick_now();
    }
    thread::sleep(Duration::from_millis(200));
    let before = rig.client.vm.daemon.cpu_time();
    thread::sleep(Duration::from_millis(500));
    let used = rig.client.vm.daemon.cpu_time() - before;
    assert!(
        used < Duration::from_millis(50),
        "{used:?} of CPU time when idle"
    );
    rig.finish("kicks for nothing");
}

#[test]
fn ring_memory_that_is_removed_breaks_only_that_queue() {
    let share = Share::new();
    let setup = Setup::default().queues(2);
    let mut client = Client::mount(&setup, &share);
    let mut canary = client.session_on(2);
    let span = Span {
        gpa: 0x2_0000_0000,
        len: 1 << 20,
    };
    client.vm.add_memory(span);
    let queue = client.vm.extra_queue(3, span.gpa, 16);
    client.vm.start_queue(&queue, 0);
    let log = Arc::clone(&client.vm.daemon.log);
    let mut session = Session::new(queue, None, log);
    session.canary();
    let fds = client.vm.daemon.fd_count();
    client.vm.remove_memory(span.gpa);
    session.queue.kick_now();
    thread::sleep(Duration::from_millis(100));
    let case = "ring memory that is gone";
    assert!(client.vm.daemon.is_alive(), "{case}");
    canary.canary();
    client.canary();
    assert!(client.vm.daemon.fd_count() <= fds, "{case}");
}
