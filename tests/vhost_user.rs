//! What: the vhost-user side over a real socket: negotiation, queues, memory, life cycle.

mod common;

use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;

use common::Rng;
use common::client::Client;
use common::daemon::Daemon;
use common::frontend::{F_EVENT_IDX, F_INDIRECT, F_PROTOCOL, F_VERSION_1, Setup, Vm};
use common::memory::{MemoryLayout, Span};
use common::queue::Cut;
use common::request::{ROOT, op};
use common::ring::NotifyMode;
use common::session::Session;
use common::session_data::At;
use common::share::{Share, TempDir};

const MODES: [NotifyMode; 2] = [NotifyMode::EventIdx, NotifyMode::Flags];

fn read_write(client: &mut Client, name: &str, len: usize) {
    let mut data = vec![0; len];
    Rng::new(9).fill(&mut data);
    let (node, fh) = client.make_file(ROOT, name, &data);
    let at = At {
        node,
        fh,
        offset: 0,
    };
    let size = u32::try_from(len).expect("tests read less than 4 GiB");
    let read = client.read(at, size).expect("READ of the test's own file");
    assert!(read == data, "{name}: what was read back");
    client.release(node, fh).expect("RELEASE of an open handle");
}

#[test]
fn features_offered_are_those_that_are_promised() {
    let share = Share::new();
    let vm = Setup::default().boot_stopped(&share.path());
    let promised = F_VERSION_1 | F_PROTOCOL | F_INDIRECT | F_EVENT_IDX;
    assert_eq!(vm.features & promised, promised, "{:x}", vm.features);
    let packed_and_iommu = 1 << 34 | 1 << 33 | 1 << 35;
    assert_eq!(vm.features & packed_and_iommu, 0, "{:x}", vm.features);
    assert_eq!(vm.features & 0xff_ffff, 0, "no device feature bits");
    let promised = Protocol::MQ
        | Protocol::REPLY_ACK
        | Protocol::CONFIGURE_MEM_SLOTS
        | Protocol::BACKEND_REQ
        | Protocol::RESET_DEVICE;
    assert!(vm.protocol.contains(promised), "{:?}", vm.protocol);
    // QEMU takes these at their word although neither side here has them (protocol.md 3.2).
    let traps = Protocol::INBAND_NOTIFICATIONS
        | Protocol::XEN_MMAP
        | Protocol::HOST_NOTIFIER
        | Protocol::CROSS_ENDIAN
        | Protocol::STATUS
        | Protocol::INFLIGHT_SHMFD;
    assert!(!vm.protocol.intersects(traps), "{:?}", vm.protocol);
    assert!(
        !vm.protocol.contains(Protocol::CONFIG),
        "no --tag, no CONFIG"
    );
    assert_eq!(vm.queue_num, 64, "hiprio and 63 request queues");
}

#[test]
fn config_space_with_a_tag_holds_it_and_the_queue_count() {
    let longest = "t".repeat(36);
    for tag in ["myfs", longest.as_str()] {
        let share = Share::new();
        let mut vm = Setup::default()
            .args(&["--tag", tag])
            .boot_stopped(&share.path());
        assert!(vm.protocol.contains(Protocol::CONFIG));
        let config = vm.config_space(40).unwrap();
        let mut expected = tag.as_bytes().to_vec();
        expected.resize(36, 0);
        assert_eq!(config[..36], expected);
        let queues = u32::from_le_bytes(config[36..40].try_into().unwrap());
        assert!((1..=63).contains(&queues), "num_request_queues {queues}");
    }
}

#[test]
fn every_combination_of_negotiation_serves_requests() {
    for notify in MODES {
        for indirect in [true, false] {
            for reply_ack in [true, false] {
                let setup = Setup {
                    notify,
                    indirect,
                    reply_ack,
                    ..Setup::default()
                };
                let share = Share::new();
                let mut client = Client::mount(&setup, &share);
                read_write(&mut client, "file", 100_000);
                assert!(client.shut_down().success(), "{setup:?}");
            }
        }
    }
}

#[test]
fn queue_sizes_from_2_to_32768_work() {
    for size in [2, 4, 64, 1024, 32_768] {
        let setup = Setup::default()
            .queue_size(size)
            .memory(MemoryLayout::one(16 << 20));
        let share = Share::new();
        let mut client = Client::mount(&setup, &share);
        for round in 0..5 {
            read_write(&mut client, &format!("file{round}"), 10_000);
        }
    }
}

#[test]
fn direct_descriptors_in_the_smallest_queue_work() {
    let setup = Setup::default().queue_size(2).direct();
    let share = Share::new();
    let mut client = Client::attach(setup.boot(&share.path()));
    client.queue.cut = Cut::Whole;
    client.init();
    read_write(&mut client, "file", 1000);
}

#[test]
fn several_queues_serve_one_session_and_only_started_ones_have_threads() {
    let share = Share::new();
    let mut one = Setup::default().boot(&share.path());
    let base = one.daemon.thread_count();
    assert!(one.queue(1).ring.size > 0);
    let threads = |queues: usize| {
        let setup = Setup::default().queues(queues);
        let vm = setup.boot(&share.path());
        vm.daemon.thread_count()
    };
    assert_eq!(threads(4), base + 3, "one thread for each request queue");
    assert_eq!(threads(16), base + 15, "one thread for each request queue");
}

#[test]
fn sixty_three_request_queues_serve_requests() {
    let share = Share::new();
    share.write("file", b"data");
    let setup = Setup::default()
        .queues(63)
        .queue_size(16)
        .memory(MemoryLayout::one(16 << 20));
    let mut client = Client::mount(&setup, &share);
    let node = client.node("file");
    for index in 2..=63 {
        let mut session = client.session_on(index);
        assert_eq!(session.getattr(node, None).unwrap().attr.size, 4);
    }
    assert!(client.shut_down().success());
}

#[test]
fn threads_of_stopped_queues_go_away() {
    let share = Share::new();
    let setup = Setup::default().queues(8);
    let mut client = Client::mount(&setup, &share);
    let before = client.vm.daemon.thread_count();
    for index in 2..=8 {
        client.vm.stop(index);
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while client.vm.daemon.thread_count() > before - 7 {
        assert!(
            std::time::Instant::now() < deadline,
            "{before} threads with 8 queues, {} with 1",
            client.vm.daemon.thread_count()
        );
        thread::sleep(Duration::from_millis(5));
    }
    client.canary();
}

#[test]
fn buffers_may_cross_adjacent_regions() {
    let share = Share::new();
    // The first region has room for the rings; then 20 regions of 3 pages.
    let mut layout = MemoryLayout::one(1 << 20).0;
    let start = layout[0].gpa + layout[0].len;
    layout.extend((0..60).map(|index| Span {
        gpa: start + index * 12_288,
        len: 12_288,
    }));
    layout[0].len = 1 << 20;
    let setup = Setup::default().memory(MemoryLayout(layout));
    let mut client = Client::mount(&setup, &share);
    for cut in [Cut::Whole, Cut::Every(10_000), Cut::Random(Rng::new(3))] {
        client.queue.cut = cut;
        // Fills what the first region has left, so that buffers lie in the small ones.
        let filler = client.queue.scratch(900_000);
        read_write(&mut client, "file", 150_000);
        assert!(filler > 0);
        client.queue.free_scratch(filler, 900_000);
    }
}

#[test]
fn regions_with_holes_serve_requests() {
    let share = Share::new();
    let setup = Setup::default().memory(MemoryLayout::several(8, 1 << 20, 1 << 30));
    let mut client = Client::mount(&setup, &share);
    read_write(&mut client, "file", 900_000);
}

#[test]
fn regions_added_and_removed_while_running_are_used_and_forgotten() {
    let share = Share::new();
    share.write("file", &[7; 4096]);
    let mut client = Client::mount(&Setup::default(), &share);
    let oracle = client.oracle();
    let node = client.node("file");
    let fh = client.open(node, libc::O_RDONLY).unwrap().fh;
    for round in 0..20 {
        let gpa = 0x1_0000_0000 + round * 0x10_0000;
        client.vm.add_memory(Span { gpa, len: 65_536 });
        let head = client.read_into(
            At {
                node,
                fh,
                offset: 0,
            },
            gpa + 100,
            4096,
        );
        let completion = client.queue.wait_for(head);
        assert_eq!(completion.used_len, 16 + 4096);
        let reply = client.queue.peek(gpa + 100, 16 + 4096);
        assert!(reply[16..].iter().all(|byte| *byte == 7));
        client.vm.remove_memory(gpa);
        // The address is gone: the daemon must neither crash nor write there.
        let head = client.read_into(
            At {
                node,
                fh,
                offset: 0,
            },
            gpa + 100,
            4096,
        );
        let completion = client.queue.wait_for(head);
        assert_eq!(completion.used_len, 0, "no reply into memory that is gone");
    }
    client.release(node, fh).unwrap();
    client.forget(node, 1);
    client.assert_sound(&oracle, "regions added and removed");
}

#[test]
fn requests_in_single_bytes_are_served() {
    let share = Share::new();
    let setup = Setup::default().queue_size(1024);
    let mut client = Client::mount(&setup, &share);
    client.queue.cut = Cut::Every(1);
    read_write(&mut client, "file", 800);
    client.list(ROOT, 500, true);
}

#[test]
fn stopping_drains_and_nothing_changes_afterwards() {
    for pool in ["0", "4", "adaptive"] {
        let share = Share::new();
        share.write("file", &vec![7; 1 << 20]);
        let setup = Setup::default()
            .args(&["--thread-pool-size", pool])
            .memory(MemoryLayout::one(48 << 20));
        let mut client = Client::mount(&setup, &share);
        let node = client.node("file");
        let fh = client.open(node, libc::O_RDONLY).unwrap().fh;
        client.queue.cut = Cut::Every(65_536);
        for _ in 0..10 {
            let at = At {
                node,
                fh,
                offset: 0,
            };
            for _ in 0..32 {
                client.start_read(at, 1 << 20);
            }
            let base = client.vm.stop(1);
            let snapshot = client.vm.memory.snapshot();
            let used = client.queue.ring.used_index();
            thread::sleep(Duration::from_millis(30));
            assert!(
                client.vm.memory.snapshot() == snapshot,
                "pool {pool}: memory changed"
            );
            assert_eq!(base, used, "pool {pool}: what was taken was not answered");
            // The rest is served after the restart.
            client.vm.start_queue(&client.session.queue, base);
            client.queue.kick_now();
            let completions = client.queue.drain();
            assert_eq!(completions.len(), 32, "pool {pool}");
            for completion in completions {
                assert_eq!(completion.used_len, 16 + (1 << 20), "pool {pool}");
            }
        }
    }
}

#[test]
fn stop_and_start_keep_the_session() {
    let share = Share::new();
    share.write("file", b"data");
    let mut client = Client::mount(&Setup::default(), &share);
    let node = client.node("file");
    let fh = client.open(node, libc::O_RDONLY).unwrap().fh;
    for round in 0..10 {
        let base = client.vm.stop(1);
        assert_eq!(base, client.queue.ring.avail_index(), "round {round}");
        client.vm.start_queue(&client.session.queue, base);
        assert_eq!(client.read_all(node, fh), b"data", "round {round}");
    }
}

#[test]
fn reset_device_frees_everything_and_init_starts_afresh() {
    let share = Share::new();
    share.write("file", b"data");
    let mut client = Client::mount(&Setup::default(), &share);
    let oracle = client.oracle();
    let node = client.node("file");
    client.open(node, libc::O_RDONLY).unwrap();
    client.vm.reset_device();
    client.recover_from_reset();
    assert!(
        client.getattr(ROOT, None).is_err(),
        "no session before INIT"
    );
    client.init();
    assert_eq!(client.getattr(node, None), Err(libc::EBADF));
    client.assert_sound(&oracle, "RESET_DEVICE");
}

#[test]
fn second_init_starts_afresh() {
    let share = Share::new();
    share.write("file", b"data");
    let mut client = Client::mount(&Setup::default(), &share);
    let oracle = client.oracle();
    for _ in 0..3 {
        let node = client.node("file");
        let fh = client.open(node, libc::O_RDONLY).unwrap().fh;
        client.init();
        assert_eq!(client.getattr(node, None), Err(libc::EBADF));
        let at = At {
            node,
            fh,
            offset: 0,
        };
        assert_eq!(client.read(at, 4), Err(libc::EBADF));
        client.assert_sound(&oracle, "second INIT");
    }
}

#[test]
fn destroy_is_answered_and_frees_everything() {
    let share = Share::new();
    share.write("file", b"data");
    let mut client = Client::mount(&Setup::default(), &share);
    let oracle = client.oracle();
    let node = client.node("file");
    client.open(node, libc::O_RDONLY).unwrap();
    client.destroy().unwrap();
    client.init();
    client.assert_sound(&oracle, "DESTROY and INIT");
    assert_eq!(client.getattr(node, None), Err(libc::EBADF));
}

#[test]
fn disconnect_ends_the_daemon_with_status_0() {
    let share = Share::new();
    let vm = Setup::default().boot(&share.path());
    assert_eq!(vm.shut_down().code(), Some(0));
    let mut client = Client::mount(&Setup::default().queues(4), &share);
    for _ in 0..50 {
        let (message, _) = client.message(op::GETATTR, ROOT, &[0; 16]);
        client.queue.submit(&message, 120);
    }
    assert_eq!(
        client.shut_down().code(),
        Some(0),
        "with requests in flight"
    );
    let mut daemon = Daemon::spawn(&share.path(), &[]);
    drop(daemon.connect());
    assert_eq!(daemon.wait_exit().code(), Some(0), "without any message");
}

#[test]
fn inherited_listening_socket_is_served() {
    let share = Share::new();
    share.write("file", b"data");
    let directory = TempDir::new("listener");
    let path = directory.path().join("inherited.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let daemon = Daemon::spawn_with_fd(&share.path(), &listener);
    let stream = UnixStream::connect(&path).unwrap();
    let mut vm = Vm::new(&Setup::default(), daemon, stream);
    vm.start_all();
    let mut client = Client::attach(vm);
    client.init();
    client.node("file");
    assert_eq!(client.shut_down().code(), Some(0));
}

#[test]
fn second_front_end_does_not_disturb_the_first() {
    let share = Share::new();
    let mut client = Client::mount(&Setup::default(), &share);
    let _second = UnixStream::connect(&client.vm.daemon.socket);
    let _third = UnixStream::connect(&client.vm.daemon.socket);
    read_write(&mut client, "file", 1000);
}

#[test]
fn hiprio_does_not_wait_for_request_queues() {
    let share = Share::new();
    share.write("file", &vec![7; 1 << 20]);
    let setup = Setup::default().memory(MemoryLayout::one(48 << 20));
    let mut client = Client::mount(&setup, &share);
    let node = client.node("file");
    let fh = client.open(node, libc::O_RDONLY).unwrap().fh;
    for _ in 0..32 {
        client.start_read(
            At {
                node,
                fh,
                offset: 0,
            },
            1 << 20,
        );
    }
    let (message, _) = client.message(op::FORGET, 4711, &1_u64.to_le_bytes());
    let hiprio = std::sync::Arc::clone(&client.hiprio);
    let completion = hiprio.lock().unwrap().round_trip(&message, 0);
    assert_eq!(completion.used_len, 0);
    assert_eq!(client.queue.drain().len(), 32);
}

#[test]
fn requests_on_the_hiprio_queue_are_answered_too() {
    let share = Share::new();
    let mut vm = Setup::default().boot(&share.path());
    let log = std::sync::Arc::clone(&vm.daemon.log);
    let mut session = Session::new(vm.take_queue(0), None, log);
    session.init();
    session.canary();
    session.forget(4711, 1);
}

#[test]
fn queues_started_later_join_the_session() {
    let share = Share::new();
    let mut client = Client::mount(&Setup::default(), &share);
    let (node, _) = client.make_file(ROOT, "file", b"data");
    let gpa = client.queue.scratch(1 << 16).next_multiple_of(4096);
    let queue = client.vm.extra_queue(5, gpa, 16);
    client.vm.start_queue(&queue, 0);
    let log = std::sync::Arc::clone(&client.vm.daemon.log);
    let mut session = Session::new(queue, None, log);
    assert_eq!(session.getattr(node, None).unwrap().attr.size, 4);
}
