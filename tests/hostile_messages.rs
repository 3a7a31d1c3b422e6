//! What: more front ends without manners (security.md 2.11): every message with every number of
//! descriptors and every length, refusals that leave what was there in force, ends in the middle.

mod common;

use std::os::fd::{AsRawFd, RawFd};
use std::thread;
use std::time::{Duration, Instant};

use common::client::Client;
use common::daemon::Daemon;
use common::frontend::Setup;
use common::memory::Span;
use common::oracle::Oracle;
use common::raw::{Answer, RawFrontend, VERSION, msg};
use common::request::{Bytes, OUT_HEADER, ROOT, op};
use common::session_data::{At, read_body};
use common::share::Share;
use common::{Rng, sys, u32_of};
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;

const GET_INFLIGHT_FD: u32 = 31;
const SET_INFLIGHT_FD: u32 = 32;
/// One beyond the last message there is.
const MESSAGES_END: u32 = 46;

fn greeted(share: &Share) -> (Daemon, RawFrontend) {
    let mut daemon = Daemon::spawn(&share.path(), &[]);
    let mut raw = RawFrontend::new(daemon.connect());
    raw.greet();
    (daemon, raw)
}

fn assert_ends_in_order(mut daemon: Daemon, case: &str) {
    let status = daemon.wait_exit();
    assert!(
        matches!(status.code(), Some(0 | 1)),
        "{case}: {status}\n{}",
        daemon.log.describe()
    );
    assert!(!daemon.log.text().contains("panicked"), "{case}");
    let lines = daemon.log.text().lines().count();
    assert!(lines < 30, "{case}: {}", daemon.log.describe());
}

#[test]
fn every_message_with_any_number_of_descriptors_leaks_none() {
    let share = Share::new();
    let file = sys::memfd(4096);
    for request in 1..MESSAGES_END {
        for count in [1, 2, 32, 33, 253] {
            let (daemon, mut raw) = greeted(&share);
            raw.ask_u64(msg::GET_QUEUE_NUM);
            let before = daemon.fd_count();
            let fds: Vec<RawFd> = vec![file.as_raw_fd(); count];
            let answer = raw.ask(request, &[0; 40], &fds);
            let case = format!("message {request} with {count} descriptors: {answer:?}");
            if answer != Answer::Closed {
                let next = raw.ask(msg::GET_QUEUE_NUM, &[], &[]);
                if next != Answer::Closed {
                    // A few messages keep one descriptor, or start a thread with two.
                    let now = daemon.fd_count();
                    assert!(now <= before + 3, "{case}: {before} became {now}");
                }
            }
            drop(raw);
            assert_ends_in_order(daemon, &case);
            if count == 1 && answer == Answer::Closed {
                break;
            }
        }
    }
}

#[test]
fn every_message_of_every_length_is_answered_or_closes() {
    let share = Share::new();
    let mut rng = Rng::new(21);
    for request in 1..MESSAGES_END {
        let mut front: Option<(Daemon, RawFrontend)> = None;
        for len in [0, 1, 4, 7, 8, 9, 12, 16, 40, 64, 300, 4096] {
            let (daemon, mut raw) = front.take().unwrap_or_else(|| greeted(&share));
            let mut body = vec![0; len];
            rng.fill(&mut body);
            let answer = raw.ask(request, &body, &[]);
            assert_ne!(answer, Answer::Silence, "message {request} of {len}");
            let goes_on =
                answer != Answer::Closed && raw.ask(msg::GET_QUEUE_NUM, &[], &[]) != Answer::Closed;
            if goes_on {
                front = Some((daemon, raw));
            } else {
                drop(raw);
                assert_ends_in_order(daemon, &format!("message {request} of {len}"));
            }
        }
        if let Some((daemon, raw)) = front {
            drop(raw);
            assert_ends_in_order(daemon, &format!("message {request}"));
        }
    }
}

#[test]
fn inflight_regions_that_were_not_offered_are_refused() {
    let share = Share::new();
    let file = sys::memfd(1 << 20);
    let bodies: [(u64, u16, u16); 4] = [
        (0, 0, 0),
        (1 << 20, 65_535, 1),
        (64, 1, 3),
        (u64::MAX, 1, 1024),
    ];
    for (size, queues, len) in bodies {
        for request in [GET_INFLIGHT_FD, SET_INFLIGHT_FD] {
            let (daemon, mut raw) = greeted(&share);
            let body = Bytes::new().u64(size).u64(0).u16(queues).u16(len).done();
            let fds: &[RawFd] = match request {
                SET_INFLIGHT_FD => &[file.as_raw_fd()],
                _ => &[],
            };
            let answer = raw.ask(request, &body, fds);
            assert!(answer.is_refusal(), "{request}: {answer:?}");
            drop(raw);
            assert_ends_in_order(daemon, "in-flight region");
        }
    }
}

#[test]
fn refused_memory_table_leaves_the_old_one_in_force() {
    let share = Share::new();
    let mut client = Client::mount(&Setup::default().queues(2), &share);
    let mut canary = client.session_on(2);
    let oracle = Oracle::new(&mut client.vm, &mut canary);
    let mut infos: Vec<_> = client
        .vm
        .memory
        .regions()
        .iter()
        .map(|r| r.info())
        .collect();
    let mut overlapping = vec![infos[0], infos[0]];
    overlapping[1].guest_phys_addr += 4096;
    infos[0].memory_size = 1 << 40;
    for table in [infos, overlapping] {
        let refused = client.vm.control(|frontend| frontend.set_mem_table(&table));
        assert!(refused.is_err());
        client.canary();
        oracle.check(&mut client.vm, &mut canary, "a refused table");
    }
    // The same of single regions.
    let region = client.vm.add_memory(Span {
        gpa: 1 << 40,
        len: 1 << 20,
    });
    let mut again = region.info();
    again.guest_phys_addr += 4096;
    assert!(client.vm.control(|f| f.add_mem_region(&again)).is_err());
    assert!(client.vm.control(|f| f.remove_mem_region(&again)).is_err());
    client.vm.remove_memory(1 << 40);
    client.canary();
}

#[test]
fn half_a_message_holds_up_no_queue() {
    let share = Share::new();
    share.write("file", b"data");
    let setup = Setup::default();
    let mut daemon = Daemon::spawn(&share.path(), &[]);
    let stream = daemon.connect();
    let half = stream.try_clone().expect("dup");
    let mut client = Client::attach({
        let mut vm = common::frontend::Vm::new(&setup, daemon, stream);
        vm.start_all();
        vm
    });
    client.init();
    client.node("file");
    let oracle = client.oracle();
    let mut raw = RawFrontend::new(half);
    assert!(raw.send_bytes(
        &RawFrontend::header(msg::GET_FEATURES, VERSION, 0)[..7],
        &[]
    ));
    for _ in 0..50 {
        client.node("file");
    }
    client.assert_sound(&oracle, "half a header");
    // The rest of it makes a message.
    assert!(raw.send_bytes(
        &RawFrontend::header(msg::GET_FEATURES, VERSION, 0)[7..],
        &[]
    ));
    assert!(matches!(
        raw.receive(Duration::from_secs(5)),
        Answer::Body(_)
    ));
    // And now half a body, then the end.
    assert!(raw.send_bytes(&RawFrontend::header(msg::SET_VRING_NUM, VERSION, 8), &[]));
    client.node("file");
    drop(raw);
    client.vm.disconnect();
    assert!(matches!(client.vm.daemon.wait_exit().code(), Some(0 | 1)));
}

#[test]
fn disconnect_with_requests_under_way_ends_in_order() {
    for pool in ["0", "4", "adaptive"] {
        let share = Share::new();
        share.write("file", &vec![7; 1 << 20]);
        let setup = Setup::default().args(&["--thread-pool-size", pool]);
        let mut client = Client::mount(&setup, &share);
        let node = client.node("file");
        let fh = client.open(node, libc::O_RDONLY).expect("OPEN").fh;
        let at = At {
            node,
            fh,
            offset: 0,
        };
        for _ in 0..6 {
            let (message, _) = client.message(op::READ, node, &read_body(at, 1 << 20, 0));
            client.queue.add(&message, OUT_HEADER + (1 << 20));
        }
        client.queue.publish();
        let begin = Instant::now();
        client.vm.disconnect();
        assert_eq!(client.vm.daemon.wait_exit().code(), Some(0), "pool {pool}");
        assert!(begin.elapsed() < common::TIMEOUT);
    }
}

#[test]
fn stop_with_a_thousand_requests_in_line_answers_what_it_took() {
    for pool in ["0", "4", "adaptive"] {
        let share = Share::new();
        let setup = Setup::default().queue_size(2048);
        let mut client = Client::mount(&setup.args(&["--thread-pool-size", pool]), &share);
        for _ in 0..1000 {
            let (message, _) = client.message(op::GETATTR, ROOT, &[0; 16]);
            client.queue.add(&message, OUT_HEADER + 104);
        }
        client.queue.publish();
        let base = client.vm.stop(1);
        assert_eq!(base, client.queue.ring.used_index(), "taken and answered");
        let before = client.vm.memory.snapshot();
        thread::sleep(Duration::from_millis(20));
        assert!(client.vm.memory.snapshot() == before, "memory changes");
        client.vm.start_queue(&client.session.queue, base);
        client.queue.kick_now();
        assert_eq!(client.queue.drain().len(), 1000);
        client.canary();
    }
}

#[test]
fn messages_in_wild_order_leave_a_daemon_that_answers() {
    let share = Share::new();
    let file = sys::memfd(1 << 20);
    for seed in 0..12 {
        let mut rng = Rng::new(seed);
        let (daemon, mut raw) = greeted(&share);
        for _ in 0..200 {
            let queue = u32_of(rng.below(66));
            let number = u32_of(rng.below(3000));
            let (request, body) = match rng.below(9) {
                0 => (
                    msg::SET_VRING_NUM,
                    Bytes::new().u32(queue).u32(1 << rng.below(12)),
                ),
                1 => (msg::SET_VRING_BASE, Bytes::new().u32(queue).u32(number)),
                2 => (msg::GET_VRING_BASE, Bytes::new().u32(queue).u32(0)),
                3 => (
                    msg::SET_VRING_ENABLE,
                    Bytes::new().u32(queue).u32(number & 1),
                ),
                4 => {
                    let address = rng.next() & 0xf_fff0;
                    let body = Bytes::new().u32(queue).u32(0).u64((1 << 40) + address);
                    let body = body.u64((1 << 40) + 0x1_0000).u64((1 << 40) + 0x2_0000);
                    (msg::SET_VRING_ADDR, body.u64(0))
                }
                5 => {
                    let region = Bytes::new().u32(1).u32(0).u64(0).u64(1 << 20);
                    (msg::SET_MEM_TABLE, region.u64(1 << 40).u64(0))
                }
                6 => (msg::SET_VRING_KICK, Bytes::new().u64(u64::from(queue))),
                7 => (
                    msg::SET_VRING_CALL,
                    Bytes::new().u64(u64::from(queue) | 1 << 8),
                ),
                _ => (34, Bytes::new()),
            };
            let with_file = [msg::SET_MEM_TABLE, msg::SET_VRING_KICK].contains(&request);
            let fds = [file.as_raw_fd()];
            let answer = raw.ask(request, &body.done(), if with_file { &fds } else { &[] });
            assert_ne!(answer, Answer::Silence, "seed {seed}, message {request}");
            if answer == Answer::Closed {
                break;
            }
        }
        drop(raw);
        assert_ends_in_order(daemon, &format!("seed {seed}"));
    }
}

#[test]
fn enable_flapping_without_end_keeps_every_descriptor() {
    let share = Share::new();
    let mut client = Client::mount(&Setup::default(), &share);
    let oracle = client.oracle();
    for round in 0..3000 {
        client.vm.must("SET_VRING_ENABLE", |frontend| {
            frontend.set_vring_enable(1, round % 2 == 1)
        });
    }
    client.assert_sound(&oracle, "enable flapping");
}

#[test]
fn connections_beside_the_first_are_never_served_and_cost_nothing() {
    let share = Share::new();
    let mut client = Client::mount(&Setup::default(), &share);
    let oracle = client.oracle();
    for _ in 0..2000 {
        drop(std::os::unix::net::UnixStream::connect(
            &client.vm.daemon.socket,
        ));
    }
    client.assert_sound(&oracle, "connections beside the first");
    assert_eq!(client.shut_down().code(), Some(0));
}

#[test]
fn refusals_without_end_stay_a_few_lines() {
    let share = Share::new();
    let (daemon, mut raw) = greeted(&share);
    for _ in 0..2000 {
        let body = Bytes::new().u32(1).u32(3).done();
        let answer = raw.ask(msg::SET_VRING_NUM, &body, &[]);
        assert!(answer.status().is_some_and(|status| status != 0));
    }
    drop(raw);
    assert_ends_in_order(daemon, "a flood of refusals");
}

/// An eventfd that gives one of 2^64 kicks with each read.
#[test]
fn kick_that_never_runs_dry_takes_little_of_a_cpu() {
    let share = Share::new();
    let mut client = Client::mount(&Setup::default().queues(2), &share);
    let mut canary = client.session_on(2);
    let flags = libc::EFD_NONBLOCK | libc::EFD_CLOEXEC | libc::EFD_SEMAPHORE;
    let endless = vmm_sys_util::eventfd::EventFd::new(flags).expect("eventfd");
    endless.write(u64::MAX - 1).expect("room");
    let oracle = Oracle::new(&mut client.vm, &mut canary);
    let base = client.vm.stop(1);
    client.session.queue.kick = endless;
    client.vm.start_queue(&client.session.queue, base);
    thread::sleep(Duration::from_millis(50));
    oracle.check(&mut client.vm, &mut canary, "an endless kick");
    // Requests on that queue are served all the same.
    let (message, _) = client.message(op::GETATTR, ROOT, &[0; 16]);
    client.session.queue.add(&message, OUT_HEADER + 104);
    client.session.queue.ring.publish();
    assert_eq!(client.queue.next().used_len, OUT_HEADER + 104);
    client.vm.stop(1);
}
