//! What: more attacks on the rings (security.md 2.2): chains that come twice, buffers that lie on
//! the rings themselves, wild wishes for signals, and floods. On queue 1, while queue 2 goes on.

mod common;

use std::time::Duration;

use common::client::Client;
use common::frontend::Setup;
use common::memory::MemoryLayout;
use common::oracle::Oracle;
use common::request::{Bytes, OUT_HEADER, ROOT, op, out_header};
use common::rig::{REPLY_ROOM, Rig, descriptor};
use common::ring::{INDIRECT, NEXT, NotifyMode, WRITE};
use common::session_lock::{self, Lock};
use common::share::Share;
use common::{Rng, u32_of};

#[test]
fn chain_made_available_twice_at_once_is_served_once() {
    // A pool may be done with the first before the second is seen, which is fair then; a chain that
    // surely waits is in the next test.
    for notify in [NotifyMode::EventIdx, NotifyMode::Flags] {
        let setup = Setup::default().notify(notify);
        let mut rig = Rig::new(setup.args(&["--thread-pool-size", "0"]));
        let (gpa, len) = rig.request();
        let reply = rig.reply_room();
        let queue = rig.queue();
        let chain = [descriptor(gpa, len, 0), descriptor(reply, 120, WRITE)];
        let head = queue.add_raw(&chain);
        queue.ring.push_avail(head);
        queue.publish();
        assert_eq!(queue.next().used_len, 120);
        assert!(queue.error_signalled(Duration::from_secs(5)));
        assert!(!queue.ring.has_used(), "answered twice");
        rig.finish("a chain twice at once");
    }
}

#[test]
fn chain_made_available_again_while_it_waits_breaks_the_queue() {
    for pool in ["0", "2", "adaptive"] {
        let args = ["--posix-lock", "--thread-pool-size", pool];
        let mut rig = Rig::new(Setup::default().args(&args));
        let (node, fh) = rig.client.make_file(ROOT, "file", b"data");
        let lock = |owner| Lock::new((node, fh), owner, session_lock::WRITE);
        rig.client.setlk(&lock(1)).expect("nobody else holds it");
        let waiting = rig.client.start_setlkw(&lock(2));
        rig.client.getattr(ROOT, None).expect("queue 1 goes on");
        let queue = rig.queue();
        queue.ring.push_avail(waiting.head);
        queue.publish();
        queue.kick_now();
        assert!(queue.error_signalled(Duration::from_secs(5)), "{pool}");
        let mut other = rig.canary;
        let unlock = Lock::new((node, fh), 1, session_lock::UNLOCK);
        other.setlk(&unlock).expect("the other queue goes on");
        rig.canary = other;
        rig.client.finish(waiting).expect("the waiter gets in");
        rig.client.restart_queue();
        rig.client.canary();
        assert!(rig.client.vm.daemon.is_alive());
    }
}

#[test]
fn empty_descriptors_at_no_address_are_ignored() {
    let mut rig = Rig::new(Setup::default());
    let (gpa, len) = rig.request();
    let reply = rig.reply_room();
    let segments = [
        descriptor(u64::MAX, 0, 0),
        descriptor(gpa, len, 0),
        descriptor(0, 0, WRITE),
        descriptor(reply, REPLY_ROOM, WRITE),
        descriptor(1 << 63, 0, WRITE),
    ];
    rig.queue().add_raw(&segments);
    rig.queue().publish();
    assert_eq!(rig.queue().next().used_len, 120);
    rig.finish("empty descriptors at no address");
}

#[test]
fn buffers_that_wrap_around_the_address_space_are_drops_or_errors() {
    for (addr, len) in [
        (u64::MAX - 10, 100),
        (u64::MAX, 1),
        (u64::MAX - 4095, 4096),
        (0, u32::MAX),
    ] {
        let mut rig = Rig::new(Setup::default());
        let (gpa, request_len) = rig.request();
        let segments = [
            descriptor(gpa, request_len, 0),
            descriptor(addr, len, WRITE),
        ];
        rig.queue().add_raw(&segments);
        rig.queue().publish();
        let completion = rig.queue().next();
        assert!([0, 16].contains(&completion.used_len), "{completion:?}");
        rig.finish("a buffer that wraps around");
    }
}

#[test]
fn chain_without_writable_descriptors_is_a_drop() {
    let mut rig = Rig::new(Setup::default());
    let (gpa, len) = rig.request();
    rig.queue().add_raw(&[descriptor(gpa, len, 0)]);
    rig.queue().publish();
    rig.expect_drop("no writable descriptor");
}

#[test]
fn chain_of_empty_descriptors_only_is_a_drop() {
    let mut rig = Rig::new(Setup::default());
    rig.queue()
        .add_raw(&[descriptor(0, 0, 0), descriptor(0, 0, WRITE)]);
    rig.queue().publish();
    rig.expect_drop("nothing but empty descriptors");
}

#[test]
fn request_of_a_thousand_descriptors_of_one_byte_works() {
    let layout = MemoryLayout::one(8 << 20);
    let mut rig = Rig::new(Setup::default().memory(layout));
    let reply = rig.reply_room();
    let node = rig.client.mkdir(ROOT, "dir", 0o755).expect("MKDIR").node;
    let name = vec![b'n'; 255];
    let target = vec![b't'; 700];
    let body = Bytes::new().name(&name).name(&target).done();
    let (message, _) = rig.client.message(op::SYMLINK, node, &body);
    assert!(message.len() > 990);
    let gpa = rig.queue().scratch(message.len());
    rig.queue().memory.write(gpa, &message);
    let count = message.len() + 1;
    let mut table = Vec::new();
    for index in 0..count {
        let mut entry = match index {
            last if last == message.len() => descriptor(reply, 200, WRITE),
            byte => descriptor(gpa + byte as u64, 1, NEXT),
        };
        entry.next = u16::try_from(index + 1).expect("short");
        table.extend(entry.to_bytes());
    }
    let at = rig.queue().scratch(table.len());
    rig.queue().memory.write(at, &table);
    rig.queue()
        .add_raw(&[descriptor(at, u32_of(table.len()), INDIRECT)]);
    rig.queue().publish();
    assert_eq!(rig.queue().next().used_len, OUT_HEADER + 128);
    assert_eq!(rig.share.names("dir").len(), 1);
    rig.oracle = Oracle::new(&mut rig.client.vm, &mut rig.canary);
    rig.finish("a thousand descriptors");
}

#[test]
fn indirect_table_longer_than_any_queue_breaks_the_queue() {
    let mut rig = Rig::new(Setup::default());
    let table = rig.queue().scratch(32_769 * 16);
    for len in [32_769_u32 * 16, u32::MAX - 15] {
        rig.queue().add_raw(&[descriptor(table, len, INDIRECT)]);
        rig.queue().publish();
        let broken = rig.queue().error_signalled(Duration::from_secs(5));
        assert!(broken, "{len} bytes");
        rig.client.restart_queue();
    }
    rig.finish("a huge indirect table");
}

/// The reply goes over the attacker's own rings: its queue may break, and nothing else.
#[test]
fn reply_over_the_rings_harms_only_their_queue() {
    for pool in ["0", "4", "adaptive"] {
        let setup = Setup::default().args(&["--thread-pool-size", pool]);
        let mut rig = Rig::new(setup);
        // The rings of queue 1, which lie behind those of queue 0.
        let config = rig.queue().ring.config();
        let guest = |user: u64| user - common::memory::USER_ADDR_OFFSET;
        let parts = [
            config.desc_table_addr,
            config.avail_ring_addr,
            config.used_ring_addr,
        ];
        for part in parts.map(guest) {
            for shift in [0, 2, 4, 64] {
                let (gpa, len) = rig.request();
                let chain = [
                    descriptor(gpa, len, 0),
                    descriptor(part + shift, REPLY_ROOM, WRITE),
                ];
                let queue = rig.queue();
                queue.add_raw(&chain);
                queue.ring.publish();
                queue.kick_now();
                // Whatever the ring says now, it is not to be believed: look at the other one.
                std::thread::sleep(Duration::from_millis(5));
                rig.canary.canary();
                rig.client.restart_queue();
                rig.client.canary();
            }
        }
        rig.finish("replies over the rings");
    }
}

#[test]
fn request_read_from_the_rings_does_no_harm() {
    let mut rig = Rig::new(Setup::default());
    let config = rig.queue().ring.config();
    let reply = rig.reply_room();
    for at in [config.desc_table_addr, config.used_ring_addr] {
        let gpa = at - common::memory::USER_ADDR_OFFSET;
        let chain = [descriptor(gpa, 56, 0), descriptor(reply, 120, WRITE)];
        rig.queue().add_raw(&chain);
        rig.queue().publish();
        let completion = rig.queue().next();
        assert!([0, 16, 120].contains(&completion.used_len));
    }
    rig.finish("requests read from the rings");
}

/// The wish for signals is the guest's own: at worst it misses some, or gets too many.
#[test]
fn wild_wishes_for_signals_do_no_harm() {
    for notify in [NotifyMode::EventIdx, NotifyMode::Flags] {
        let mut rig = Rig::new(Setup::default().notify(notify));
        let config = rig.queue().ring.config();
        let avail = config.avail_ring_addr - common::memory::USER_ADDR_OFFSET;
        let event = avail + 4 + 2 * u64::from(config.queue_size);
        let mut rng = Rng::new(6);
        for _ in 0..500 {
            let (gpa, len) = rig.request();
            let reply = rig.reply_room();
            let word = rng.next().to_le_bytes();
            let queue = rig.queue();
            queue.memory.write(event, &word[..2]);
            queue.memory.write(avail, &word[2..4]);
            let chain = [descriptor(gpa, len, 0), descriptor(reply, 120, WRITE)];
            queue.add_raw(&chain);
            queue.publish();
            queue.kick_now();
            while !queue.ring.has_used() {
                std::thread::yield_now();
            }
            assert_eq!(queue.next().used_len, 120);
            queue.free_scratch(reply, 4096);
            queue.free_scratch(gpa, common::usize_of(len));
        }
        rig.finish("wild wishes for signals");
    }
}

/// What a guest does again and again says little: here ten kinds of trouble, a hundred times.
#[test]
fn floods_of_what_is_logged_stay_a_few_lines() {
    let mut rig = Rig::new(Setup::default());
    let reply = rig.reply_room();
    for _ in 0..2000 {
        rig.queue().add_raw(&[descriptor(reply, 120, WRITE)]);
        rig.queue().publish();
        assert_eq!(rig.queue().next().used_len, 0);
    }
    rig.oracle
        .check(&mut rig.client.vm, &mut rig.canary, "a flood of drops");
    for _ in 0..100 {
        let queue = rig.queue();
        queue.push_raw_head(1000);
        assert!(queue.error_signalled(Duration::from_secs(5)));
        rig.client.restart_queue();
    }
    rig.oracle.check(
        &mut rig.client.vm,
        &mut rig.canary,
        "a flood of broken rings",
    );
    let body = Bytes::new().u32(7).u32(1).raw(&[0; 56]).done();
    for _ in 0..300 {
        let refused = rig.client.call(op::INIT, 0, &body, 64);
        assert_eq!(refused, Err(libc::EPROTO));
    }
    rig.client.init();
    rig.finish("a flood of INITs");
}

#[test]
fn lines_that_were_suppressed_are_counted() {
    let share = Share::new();
    let mut client = Client::mount(&Setup::default(), &share);
    for _ in 0..500 {
        client.send_raw(&[0; 10], 200);
    }
    let mut daemon = {
        client.vm.disconnect();
        client.vm.daemon
    };
    assert_eq!(daemon.wait_exit().code(), Some(0));
    let log = daemon.log.text();
    let line = log
        .lines()
        .find(|line| line.contains("suppressed: "))
        .unwrap_or_else(|| panic!("no count in {log}"));
    let count = line.rsplit(": ").next().and_then(|n| n.parse::<u32>().ok());
    assert!(count.is_some_and(|count| count > 400), "{line}");
}

#[test]
fn error_replies_have_16_bytes_in_every_room() {
    let mut rig = Rig::new(Setup::default());
    let (gpa, len) = rig.request();
    let hole = rig.queue().unmapped(1 << 30);
    for room in [16, 17, 120, 4000] {
        let reply = rig.reply_room();
        let chain = [
            descriptor(gpa, len - 1, 0),
            descriptor(hole, 1, 0),
            descriptor(reply, room, WRITE),
        ];
        rig.queue().add_raw(&chain);
        rig.queue().publish();
        assert_eq!(rig.queue().next().used_len, OUT_HEADER, "{room}");
        let (len, error, _) = out_header(&rig.queue().peek(reply, OUT_HEADER));
        assert_eq!((len, error), (OUT_HEADER, -libc::EIO), "{room}");
    }
    rig.finish("error replies");
}
