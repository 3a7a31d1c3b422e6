//! What: rings and memory in the shapes that other front ends give them: indices that wrap, no
//! protocol features, pipes for signals, many memory slots, resets under load.

mod common;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vmm_sys_util::eventfd::EventFd;

use common::client::Client;
use common::frontend::Setup;
use common::memory::{MemoryLayout, Span};
use common::queue::Queue;
use common::request::{OUT_HEADER, ROOT, op};
use common::ring::{Descriptor, NotifyMode, WRITE};
use common::session::Session;
use common::session_data::{At, read_body};
use common::share::Share;
use common::{u32_of, u64_of};

const MODES: [NotifyMode; 2] = [NotifyMode::EventIdx, NotifyMode::Flags];

#[test]
fn ring_indices_that_wrap_are_followed() {
    for notify in MODES {
        for size in [2, 128, 32_768] {
            let share = Share::new();
            let setup = Setup::default()
                .notify(notify)
                .queue_size(size)
                .memory(MemoryLayout::one(16 << 20));
            let mut client = Client::attach(setup.boot(&share.path()));
            client.vm.stop(1);
            client.queue.ring.start_at(65_500);
            client.vm.start_queue(&client.session.queue, 65_500);
            client.init();
            for _ in 0..100 {
                client.canary();
            }
            let base = client.vm.stop(1);
            assert_eq!(base, 65_500_u16.wrapping_add(101), "{notify:?} {size}");
        }
    }
}

#[test]
fn front_end_without_protocol_features_is_served() {
    let share = Share::new();
    let setup = Setup {
        protocol: false,
        reply_ack: false,
        ..Setup::default()
    };
    let mut client = Client::mount(&setup, &share);
    client.make_file(ROOT, "file", b"data");
    let base = client.vm.stop(1);
    assert_eq!(base, client.queue.ring.avail_index());
    client.vm.start_queue(&client.session.queue, base);
    client.canary();
    assert_eq!(client.shut_down().code(), Some(0));
}

/// User Mode Linux signals through pipes (protocol.md 3.2).
fn call_through(client: &mut Client, fd: OwnedFd) {
    // SAFETY-free: the front end only passes the number on; EventFd closes it.
    let call = EventFd::from_owned(fd);
    client.vm.must("SET_VRING_CALL", |frontend| {
        frontend.set_vring_call(1, &call)
    });
}

/// The crate's front end wants an EventFd, whatever is behind the descriptor.
trait FromOwned {
    fn from_owned(fd: OwnedFd) -> Self;
}

impl FromOwned for EventFd {
    #[allow(unsafe_code, reason = "EventFd has no safe conversion from OwnedFd")]
    fn from_owned(fd: OwnedFd) -> Self {
        // SAFETY: the descriptor is open and its ownership moves into the result.
        unsafe { EventFd::from_raw_fd(fd.into_raw_fd()) }
    }
}

#[test]
fn call_through_a_pipe_is_signalled() {
    let share = Share::new();
    let mut client = Client::mount(&Setup::default(), &share);
    let (read, write) = common::sys::pipe();
    call_through(&mut client, write);
    let (message, _) = client.message(op::GETATTR, ROOT, &[0; 16]);
    client.queue.ring.enable_interrupts();
    client.queue.submit(&message, 120);
    // A new call descriptor may be signalled once for safety, before there is anything to find.
    let mut pipe = File::from(read);
    while !client.queue.ring.has_used() {
        assert!(common::sys::wait_readable(&pipe, Duration::from_secs(5)));
        let mut signal = [0; 8];
        pipe.read_exact(&mut signal).unwrap();
    }
    assert_eq!(client.queue.drain().len(), 1);
}

#[test]
fn call_through_a_closed_or_full_pipe_or_a_file_loses_only_the_signal() {
    let share = Share::new();
    let mut client = Client::mount(&Setup::default().queues(2), &share);
    let mut canary = client.session_on(2);
    let (closed_read, closed) = common::sys::pipe();
    drop(closed_read);
    let (_kept, full) = common::sys::pipe();
    let file = File::open("/dev/null").unwrap();
    for fd in [closed, full, OwnedFd::from(file)] {
        call_through(&mut client, fd);
        for _ in 0..10_000 {
            let (message, _) = client.message(op::GETATTR, ROOT, &[0; 16]);
            client.queue.ring.enable_interrupts();
            let before = client.queue.ring.used_index();
            client.queue.submit(&message, 120);
            let deadline = Instant::now() + Duration::from_secs(10);
            while client.queue.ring.used_index() == before {
                assert!(Instant::now() < deadline, "no used entry");
                thread::yield_now();
            }
            assert_eq!(client.queue.drain().len(), 1);
        }
        canary.canary();
    }
}

#[test]
fn memory_slots_are_many_and_wrong_ones_refused() {
    let share = Share::new();
    let mut client = Client::mount(&Setup::default(), &share);
    let slots = client
        .vm
        .must("GET_MAX_MEM_SLOTS", |frontend| frontend.get_max_mem_slots());
    assert!(slots >= 64, "{slots} slots");
    let gpa = |index: u64| 0x4_0000_0000 + index * 8192;
    for index in 0..60 {
        client.vm.add_memory(Span {
            gpa: gpa(index),
            len: 4096,
        });
    }
    // The answer to one message says that the descriptors of those before it are settled.
    client
        .vm
        .must("GET_QUEUE_NUM", |frontend| frontend.get_queue_num());
    let fds = client.vm.daemon.fd_count();
    let known = client.vm.memory.regions().pop().unwrap().info();
    let again = client
        .vm
        .control(|frontend| frontend.add_mem_region(&known));
    assert!(again.is_err(), "a region twice");
    let mut unknown = known;
    unknown.guest_phys_addr += 1 << 30;
    unknown.userspace_addr += 1 << 30;
    let removed = client
        .vm
        .control(|frontend| frontend.remove_mem_region(&unknown));
    assert!(removed.is_err(), "a region that is not there");
    client
        .vm
        .must("GET_QUEUE_NUM", |frontend| frontend.get_queue_num());
    assert_eq!(client.vm.daemon.fd_count(), fds);
    client.canary();
    for index in 0..60 {
        client.vm.remove_memory(gpa(index));
    }
    client.canary();
}

#[test]
fn queues_that_were_never_started_can_be_stopped() {
    let share = Share::new();
    let mut client = Client::mount(&Setup::default(), &share);
    for index in [2, 5, 63] {
        assert_eq!(client.vm.stop(index), 0, "queue {index}");
    }
    let base = client.vm.stop(1);
    assert_eq!(client.vm.stop(1), base, "stopped twice");
    client.vm.start_queue(&client.session.queue, base);
    client.canary();
}

#[test]
fn stopping_one_queue_leaves_the_others_running() {
    let share = Share::new();
    let mut client = Client::mount(&Setup::default().queues(3), &share);
    let mut second = client.session_on(2);
    for _ in 0..20 {
        let base = client.vm.stop(1);
        second.canary();
        client.vm.start_queue(&client.session.queue, base);
        client.canary();
    }
}

#[test]
fn reset_under_load_frees_everything() {
    let share = Share::new();
    for index in 0..32 {
        share.write(&format!("file{index}"), &[7; 4096]);
    }
    for pool in ["0", "4", "adaptive"] {
        let setup = Setup::default().args(&["--thread-pool-size", pool]);
        let mut client = Client::mount(&setup, &share);
        let oracle = client.oracle();
        for _ in 0..10 {
            for index in 0..32 {
                let body = format!("file{index}\0").into_bytes();
                let (message, _) = client.message(op::LOOKUP, ROOT, &body);
                client.queue.submit(&message, OUT_HEADER + 128);
            }
            client.vm.reset_device();
            let snapshot = client.vm.memory.snapshot();
            thread::sleep(Duration::from_millis(5));
            assert!(
                client.vm.memory.snapshot() == snapshot,
                "memory after the reset"
            );
            client.recover_from_reset();
            client.init();
            client.assert_sound(&oracle, "reset under load");
        }
    }
}

#[test]
fn back_end_channel_is_accepted_and_its_descriptor_kept_once() {
    let share = Share::new();
    let mut client = Client::mount(&Setup::default(), &share);
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut set = || {
        client.vm.must("SET_BACKEND_REQ_FD", |frontend| {
            frontend.set_backend_request_fd(&theirs)
        });
        client.canary();
        // FORGET has no reply, so the canary's node may still be open for a moment.
        let counts = (0..10).map(|_| {
            thread::sleep(Duration::from_millis(10));
            client.vm.daemon.fd_count()
        });
        counts.min()
    };
    let once = set();
    assert_eq!([set(), set(), set()], [once; 3]);
    assert!(ours.as_raw_fd() >= 0);
}

/// A READ in the shape that Linux gives it for direct I/O: the data in pages of their own.
fn read_aligned(client: &mut Client, at: At, pages: usize) -> (i32, Vec<u8>) {
    let size = 4096 * pages;
    let body = read_body(at, u32_of(size), libc::O_DIRECT);
    let (message, _) = client.message(op::READ, at.node, &body);
    let header = client.queue.scratch(4096);
    let data = client.queue.scratch(size + 4096).next_multiple_of(4096);
    client.queue.memory.write(header, &message);
    let segment = |addr, len: usize, flags| Descriptor {
        addr,
        len: u32_of(len),
        flags,
        next: 0,
    };
    let reply = header + 2048;
    let segments = [
        segment(header, message.len(), 0),
        segment(reply, OUT_HEADER, WRITE),
        segment(data, size, WRITE),
    ];
    client.queue.add_raw(&segments);
    client.queue.publish();
    let completion = client.queue.next();
    let (_, error, _) = common::request::out_header(&client.queue.peek(reply, OUT_HEADER));
    let len = completion.used_len.saturating_sub(OUT_HEADER);
    (error, client.queue.peek(data, len))
}

#[test]
fn direct_io_reads_into_aligned_pages() {
    let share = Share::new();
    let mut contents = vec![0; 5 * 4096];
    common::Rng::new(3).fill(&mut contents);
    share.write("file", &contents);
    let mut client = Client::with_args(&share, &["--allow-direct-io"]);
    let node = client.node("file");
    let flags = libc::O_RDONLY | libc::O_DIRECT;
    let fh = client.open(node, flags).unwrap().fh;
    for page in 0..4 {
        let offset = u64_of(page * 4096);
        let (error, data) = read_aligned(&mut client, At { node, fh, offset }, 1);
        assert_eq!(error, 0, "page {page}");
        assert!(
            data == contents[page * 4096..(page + 1) * 4096],
            "page {page}"
        );
    }
    let at = At {
        node,
        fh,
        offset: 4096,
    };
    let (error, data) = read_aligned(&mut client, at, 8);
    assert_eq!(error, 0);
    assert!(data == contents[4096..], "up to the end of the file");
}

fn write_and_check(mut session: Session, node: u64, fh: u64) -> Queue {
    let block = 64 * 1024;
    let start = u64_of(session.queue.index) << 20;
    let mut rng = common::Rng::new(start);
    let mut data = vec![0; block];
    for round in 0..50 {
        rng.fill(&mut data);
        let at = At {
            node,
            fh,
            offset: start + u64_of(round % 4 * block),
        };
        session.write_all(at, &data);
        let back = session.read(at, u32_of(block)).expect("READ");
        assert!(back == data, "round {round}");
    }
    session.queue
}

#[test]
fn data_written_over_several_queues_is_what_is_read() {
    for pool in ["0", "4", "adaptive"] {
        let share = Share::new();
        let setup = Setup::default()
            .queues(4)
            .args(&["--thread-pool-size", pool])
            .memory(MemoryLayout::one(32 << 20));
        let mut client = Client::mount(&setup, &share);
        let (node, fh) = client.make_file(ROOT, "file", b"");
        let threads: Vec<_> = (2..=4)
            .map(|index| client.session_on(index))
            .map(|session| thread::spawn(move || write_and_check(session, node, fh)))
            .collect();
        for thread in threads {
            let queue = thread.join().expect("data came back wrong");
            assert_eq!(queue.in_flight(), 0);
        }
    }
}

#[test]
fn memory_without_a_descriptor_is_refused_with_a_remedy() {
    let share = Share::new();
    let mut daemon = common::daemon::Daemon::spawn(&share.path(), &[]);
    let mut raw = common::raw::RawFrontend::new(daemon.connect());
    raw.greet();
    let body = common::request::Bytes::new().u64(0).done();
    let answer = raw.ask(common::raw::msg::SET_MEM_TABLE, &body, &[]);
    assert!(answer.is_refusal(), "{answer:?}");
    drop(raw);
    daemon.wait_exit();
    let words = daemon.log.text();
    assert!(words.contains("share=on"), "no remedy in: {words}");
}

/// What a guest looks like whose memory the VMM maps privately: it kicks, and nothing is there.
#[test]
fn kicks_on_an_untouched_ring_are_explained_once() {
    let share = Share::new();
    let mut client = Client::attach(Setup::default().boot(&share.path()));
    let start = Instant::now();
    while !client.vm.daemon.log.text().contains("share=on") {
        assert!(start.elapsed() < Duration::from_secs(20), "no remedy named");
        client.queue.kick_now();
        thread::sleep(Duration::from_millis(20));
    }
    for _ in 0..20 {
        client.queue.kick_now();
        thread::sleep(Duration::from_millis(5));
    }
    client.init();
    let words = client.vm.daemon.log.text();
    assert_eq!(words.matches("share=on").count(), 1, "{words}");
}
