//! What: guest memory that its owner takes away while it is in use (security.md 2.11, T159 and its
//! neighbours): the ring, a request, the room for a reply, the data of READ and WRITE.
//!
//! Memory beyond the end of its file is SIGBUS to whoever touches it. Expected: a ring that is gone
//! breaks its queue, a buffer that is gone costs its request, and nobody else notices.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::client::Client;
use common::frontend::Setup;
use common::memory::{Region, Span};
use common::oracle::Oracle;
use common::queue::Completion;
use common::request::{OUT_HEADER, ROOT, op, out_header};
use common::ring::{Descriptor, WRITE};
use common::session::Session;
use common::session_data::{At, read_body, write_body};
use common::share::Share;
use common::u32_of;

const GPA: u64 = 0x8_0000_0000;
const LEN: u64 = 1 << 20;
/// Offset in the region up to which the file stays.
const KEPT: u64 = 64 * 1024;

/// A guest with a region of its own to be cut, a session on queue 1 and a canary on queue 2.
struct Rig {
    client: Client,
    canary: Session,
    region: Arc<Region>,
    oracle: Oracle,
}

impl Rig {
    fn new(share: &Share) -> Self {
        let mut client = Client::mount(&Setup::default().queues(2), share);
        let mut canary = client.session_on(2);
        let region = client.vm.add_memory(Span { gpa: GPA, len: LEN });
        let oracle = Oracle::new(&mut client.vm, &mut canary);
        Rig {
            client,
            canary,
            region,
            oracle,
        }
    }

    fn cut(&self) {
        self.region.file().set_len(KEPT).expect("a memfd shrinks");
    }

    /// Sends a chain of the given buffers; NEXT flags are added.
    fn send(&mut self, segments: &[(u64, usize, u16)]) -> Completion {
        let segments: Vec<_> = segments
            .iter()
            .map(|(addr, len, flags)| Descriptor {
                addr: *addr,
                len: u32_of(*len),
                flags: *flags,
                next: 0,
            })
            .collect();
        let queue = &mut self.client.session.queue;
        queue.add_raw(&segments);
        queue.publish();
        queue.next()
    }

    /// A GETATTR at `gpa`, which is in memory that is there.
    fn put_getattr(&mut self, gpa: u64) -> usize {
        let (message, _) = self.client.message(op::GETATTR, ROOT, &[0; 16]);
        self.client.session.queue.memory.write(gpa, &message);
        message.len()
    }

    fn scratch(&mut self, len: usize) -> u64 {
        self.client.session.queue.scratch(len)
    }

    fn error_at(&mut self, gpa: u64) -> i32 {
        out_header(&self.client.session.queue.peek(gpa, OUT_HEADER)).1
    }

    fn finish(mut self, case: &str) {
        self.client.canary();
        self.oracle
            .check(&mut self.client.vm, &mut self.canary, case);
    }
}

#[test]
fn ring_that_is_cut_off_breaks_only_its_queue() {
    for queue_at in [KEPT, LEN / 2, LEN - 8192] {
        let share = Share::new();
        let mut client = Client::mount(&Setup::default().queues(2), &share);
        let mut canary = client.session_on(2);
        let region = client.vm.add_memory(Span { gpa: GPA, len: LEN });
        let mut queue = client.vm.extra_queue(3, GPA + queue_at, 16);
        client.vm.start_queue(&queue, 0);
        let oracle = Oracle::new(&mut client.vm, &mut canary);
        region.file().set_len(KEPT).expect("a memfd shrinks");
        queue.kick_now();
        assert!(queue.error_signalled(Duration::from_secs(5)), "{queue_at}");
        client.vm.daemon.log.wait_for("queue 3 stops");
        client.canary();
        oracle.check(&mut client.vm, &mut canary, "ring that is cut off");
        client.vm.stop(3);
        // The same queue in memory that is there works again.
        let whole = client.vm.add_memory(Span {
            gpa: 2 * GPA,
            len: LEN,
        });
        let queue = client.vm.extra_queue(3, whole.span.gpa, 16);
        client.vm.start_queue(&queue, 0);
        let log = Arc::clone(&client.vm.daemon.log);
        Session::new(queue, None, log).canary();
    }
}

#[test]
fn all_of_memory_cut_off_leaves_a_daemon_that_ends_in_order() {
    let share = Share::new();
    let mut client = Client::mount(&Setup::default(), &share);
    for region in client.vm.memory.regions() {
        region.file().set_len(0).expect("a memfd shrinks");
    }
    client.session.queue.kick_now();
    assert!(client.queue.error_signalled(Duration::from_secs(5)));
    assert!(client.vm.daemon.is_alive());
    assert_eq!(client.shut_down().code(), Some(0));
}

#[test]
fn request_that_is_cut_off_is_dropped() {
    let share = Share::new();
    let mut rig = Rig::new(&share);
    let reply = rig.scratch(120);
    let at = GPA + LEN - 4096;
    let len = rig.put_getattr(at);
    rig.cut();
    let completion = rig.send(&[(at, len, 0), (reply, 120, WRITE)]);
    assert_eq!(completion.used_len, 0);
    rig.finish("request that is cut off");
}

#[test]
fn arguments_that_are_cut_off_are_an_error() {
    let share = Share::new();
    let mut rig = Rig::new(&share);
    let (reply, header) = (rig.scratch(120), rig.scratch(64));
    let len = rig.put_getattr(header);
    rig.cut();
    let segments = [
        (header, 40, 0),
        (GPA + KEPT, len - 40, 0),
        (reply, 120, WRITE),
    ];
    let completion = rig.send(&segments);
    assert_eq!(completion.used_len, OUT_HEADER);
    assert_eq!(rig.error_at(reply), -libc::EIO);
    rig.finish("arguments that are cut off");
}

#[test]
fn reply_room_that_is_cut_off_is_a_drop_or_an_error() {
    let share = Share::new();
    for room_at in [KEPT, KEPT - 16, KEPT - 60] {
        let mut rig = Rig::new(&share);
        let request = rig.scratch(64);
        let len = rig.put_getattr(request);
        rig.cut();
        let completion = rig.send(&[(request, len, 0), (GPA + room_at, 120, WRITE)]);
        assert!(
            [0, OUT_HEADER].contains(&completion.used_len),
            "{completion:?}"
        );
        rig.finish("reply room that is cut off");
    }
}

#[test]
fn indirect_table_that_is_cut_off_is_a_drop() {
    let share = Share::new();
    let mut rig = Rig::new(&share);
    rig.cut();
    let completion = rig.send(&[(GPA + KEPT, 32, common::ring::INDIRECT)]);
    assert_eq!(completion.used_len, 0);
    rig.finish("indirect table that is cut off");
}

#[test]
fn data_of_a_read_or_write_that_is_cut_off_is_an_error_and_changes_no_file() {
    let share = Share::new();
    share.write("file", &[7; 8192]);
    let mut rig = Rig::new(&share);
    let node = rig.client.node("file");
    let fh = rig.client.open(node, libc::O_RDWR).expect("OPEN").fh;
    let at = At {
        node,
        fh,
        offset: 0,
    };
    rig.oracle = Oracle::new(&mut rig.client.vm, &mut rig.canary);
    rig.cut();
    let (request, reply) = (rig.scratch(128), rig.scratch(64));

    let (message, _) = rig.client.message(op::READ, node, &read_body(at, 4096, 0));
    rig.client.queue.memory.write(request, &message);
    let segments = [
        (request, message.len(), 0),
        (reply, OUT_HEADER, WRITE),
        (GPA + KEPT, 4096, WRITE),
    ];
    let completion = rig.send(&segments);
    assert_eq!(completion.used_len, OUT_HEADER);
    assert_eq!(rig.error_at(reply), -libc::EIO, "READ");

    let body = write_body(at, &[9; 4096], 0, 0);
    let (message, _) = rig.client.message(op::WRITE, node, &body);
    let head = message.len() - 4096;
    rig.client.queue.memory.write(request, &message[..head]);
    let segments = [
        (request, head, 0),
        (GPA + KEPT + 8192, 4096, 0),
        (reply, 24, WRITE),
    ];
    let completion = rig.send(&segments);
    assert_eq!(completion.used_len, OUT_HEADER);
    assert_eq!(rig.error_at(reply), -libc::EIO, "WRITE");
    assert_eq!(share.read("file"), [7; 8192]);
    rig.finish("data that is cut off");
}
