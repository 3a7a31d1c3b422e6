//! A device with a guest, and a handler that does what the opcode says.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use vhost::vhost_user::VhostUserBackendReqHandlerMut;
use vhost::vhost_user::message::{
    VhostUserMemoryRegion, VhostUserSingleMemoryRegion, VhostUserVringAddrFlags,
};

use crate::sys::poll;
use crate::transport::counters::Counters;
use crate::transport::device::Device;
use crate::transport::memory::RegionSpec;
use crate::transport::ring::RingFeatures;
use crate::transport::test_guest::{Driver, TestMemory};
use crate::transport::{DeviceSettings, Execution, Polling};
use crate::wire::channel::{LateReply, Outcome, Pace, ReplySink, RequestHandler, RequestSource};

pub(super) const FORGET: u32 = 2;
/// As [`ECHO`], or what the number says.
pub(super) const READ: u32 = 15;
/// The number of a READ that is served as [`BLOCK`].
pub(super) const BLOCKED_READ: u64 = 0xb10c;
/// The number of a READ that is served as [`DEFER`].
pub(super) const DEFERRED_READ: u64 = 0xdefe;
pub(super) const ECHO: u32 = 1000;
pub(super) const PANIC: u32 = 1001;
pub(super) const DROP: u32 = 1002;
/// Waits until the gate is open.
pub(super) const BLOCK: u32 = 1003;
/// Parks and keeps the late reply; EAGAIN if it cannot.
pub(super) const PARK: u32 = 1004;
/// The same, and then answers all the same.
pub(super) const PARK_AND_REPLY: u32 = 1005;
/// The same, and then panics.
pub(super) const PARK_AND_PANIC: u32 = 1006;
/// Says that it has parked, and has not.
pub(super) const PARK_NOT: u32 = 1007;
/// Defers, if it may; else as [`ECHO`].
pub(super) const DEFER: u32 = 1008;
/// The same; else as [`BLOCK`].
pub(super) const DEFER_AND_BLOCK: u32 = 1009;
/// Defers, and defers again.
pub(super) const DEFER_TWICE: u32 = 1010;
/// Defers, if it may; else as [`PANIC`].
pub(super) const DEFER_AND_PANIC: u32 = 1011;
/// Defers, if it may; else as [`PARK`].
pub(super) const DEFER_AND_PARK: u32 = 1012;

const SIZE: u16 = 128;
/// What a queue takes of the guest's memory.
const QUEUE_BYTES: u64 = 0x2_0000;
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
pub(super) struct TestHandler {
    served: AtomicU32,
    under_way: AtomicUsize,
    pub(super) resets: AtomicU32,
    gate: Mutex<bool>,
    opened: Condvar,
    late: Mutex<Vec<(u64, Box<dyn LateReply>)>>,
    pub(super) deferred: AtomicU32,
}

impl TestHandler {
    pub(super) fn served(&self) -> u32 {
        self.served.load(Ordering::SeqCst)
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::SeqCst)
    }

    pub(super) fn open_gate(&self) {
        *self.gate.lock().expect("not poisoned") = true;
        self.opened.notify_all();
    }

    /// The late replies that are kept, with their unique numbers.
    pub(super) fn take_late(&self) -> Vec<(u64, Box<dyn LateReply>)> {
        std::mem::take(&mut self.late.lock().expect("not poisoned"))
    }

    pub(super) fn late_count(&self) -> usize {
        self.late.lock().expect("not poisoned").len()
    }

    fn park(&self, unique: u64, sink: &mut dyn ReplySink) -> Option<Outcome> {
        let late = sink.park()?;
        assert!(sink.park().is_none(), "once is enough");
        assert!(sink.write_at(0, &[0; 16]).is_err(), "the sink is dead");
        self.late.lock().expect("not poisoned").push((unique, late));
        Some(Outcome::Parked)
    }

    fn wait_at_gate(&self) {
        let mut open = self.gate.lock().expect("not poisoned");
        while !*open {
            open = self.opened.wait(open).expect("not poisoned");
        }
    }
}

impl RequestHandler for TestHandler {
    fn handle(
        &self,
        source: &mut dyn RequestSource,
        sink: &mut dyn ReplySink,
        pace: Pace,
    ) -> Outcome {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let mut header = [0; 40];
        let outcome = match source.read_exact(&mut header) {
            Err(_) => Outcome::Dropped,
            Ok(()) => {
                let opcode = u32::from_le_bytes(header[4..8].try_into().expect("four bytes"));
                let unique = u64::from_le_bytes(header[8..16].try_into().expect("eight"));
                let opcode = match (opcode, unique) {
                    (READ, BLOCKED_READ) => BLOCK,
                    (READ, DEFERRED_READ) => DEFER,
                    (other, _) => other,
                };
                let opcode = match (opcode, pace) {
                    (DEFER_TWICE, _) | (DEFER..=DEFER_AND_PARK, Pace::Prompt { .. }) => {
                        self.deferred.fetch_add(1, Ordering::SeqCst);
                        self.under_way.fetch_sub(1, Ordering::SeqCst);
                        return Outcome::Deferred;
                    }
                    (DEFER, Pace::Patient) => ECHO,
                    (DEFER_AND_BLOCK, Pace::Patient) => BLOCK,
                    (DEFER_AND_PANIC, Pace::Patient) => PANIC,
                    (DEFER_AND_PARK, Pace::Patient) => PARK,
                    (other, _) => other,
                };
                match opcode {
                    PANIC => panic!("as the test asked"),
                    FORGET => Outcome::NoReply,
                    DROP => Outcome::Dropped,
                    PARK_NOT => Outcome::Parked,
                    PARK | PARK_AND_REPLY | PARK_AND_PANIC => {
                        let parked = self.park(unique, sink);
                        match (opcode, parked) {
                            (PARK_AND_PANIC, _) => panic!("as the test asked"),
                            (PARK, Some(parked)) => parked,
                            (PARK, None) => answer(sink, error_reply(unique, libc::EAGAIN)),
                            _ => Outcome::Replied(16),
                        }
                    }
                    _ => {
                        if opcode == BLOCK {
                            self.wait_at_gate();
                        }
                        answer(sink, error_reply(unique, 0))
                    }
                }
            }
        };
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        self.served.fetch_add(1, Ordering::SeqCst);
        outcome
    }

    fn reset(&self) {
        self.resets.fetch_add(1, Ordering::SeqCst);
        self.take_late();
    }
}

/// A reply without a payload.
pub(super) fn error_reply(unique: u64, error_number: i32) -> [u8; 16] {
    let mut reply = [0; 16];
    reply[0] = 16;
    reply[4..8].copy_from_slice(&(-error_number).to_le_bytes());
    reply[8..].copy_from_slice(&unique.to_le_bytes());
    reply
}

fn answer(sink: &mut dyn ReplySink, reply: [u8; 16]) -> Outcome {
    match sink.write_at(0, &reply) {
        Ok(()) => Outcome::Replied(16),
        Err(_) => Outcome::Dropped,
    }
}

/// See the file head.
pub(super) struct Bench {
    pub(super) memory: TestMemory,
    pub(super) drivers: Vec<Driver>,
    pub(super) handler: Arc<TestHandler>,
    pub(super) device: Device,
    counters: Arc<Counters>,
    kicks: Vec<File>,
    calls: Vec<File>,
    errors: Vec<File>,
}

impl Bench {
    /// This many queues, of which none is started.
    pub(super) fn new(features: RingFeatures, threads: usize, queues: u64) -> Bench {
        let (memory, drivers) = queues_of(features, queues);
        Bench::around(memory, drivers, threads)
    }

    /// The same, with threads for what the handler defers.
    pub(super) fn adaptive(features: RingFeatures, queues: u64) -> Bench {
        Bench::in_mode(features, queues, Execution::Adaptive)
    }

    /// The same, in any mode.
    pub(super) fn in_mode(features: RingFeatures, queues: u64, execution: Execution) -> Bench {
        let (memory, drivers) = queues_of(features, queues);
        Bench::with(memory, drivers, execution)
    }

    /// A device for these drivers, which agree on features.
    pub(super) fn around(memory: TestMemory, drivers: Vec<Driver>, threads: usize) -> Bench {
        let pool = NonZeroUsize::new(threads).map(Execution::Pool);
        Bench::with(memory, drivers, pool.unwrap_or(Execution::Inline))
    }

    /// The same, in any mode.
    pub(super) fn with(memory: TestMemory, drivers: Vec<Driver>, execution: Execution) -> Bench {
        let settings = DeviceSettings {
            tag: None,
            execution,
            polling: Polling::Adaptive,
            num_request_queues_in_config: 1,
        };
        let handler = Arc::new(TestHandler::default());
        let counters = Arc::new(Counters::default());
        let served: Arc<dyn RequestHandler> = handler.clone();
        let mut device =
            Device::new(&settings, served, Arc::clone(&counters)).expect("good settings");
        let event_idx = if drivers[0].features.event_idx {
            1 << 29
        } else {
            0
        };
        device
            .set_features(1 << 32 | 1 << 30 | 1 << 28 | event_idx)
            .expect("offered");
        let (regions, files): (Vec<_>, Vec<_>) = memory
            .regions
            .iter()
            .map(|(spec, file)| (region(spec), file.try_clone().expect("dup")))
            .unzip();
        device
            .set_mem_table(&regions, files, None)
            .expect("a good table");
        let eventfds = || {
            drivers
                .iter()
                .map(|_| poll::eventfd().expect("eventfd"))
                .collect::<Vec<_>>()
        };
        let (kicks, calls, errors) = (eventfds(), eventfds(), eventfds());
        Bench {
            memory,
            drivers,
            handler,
            device,
            counters,
            kicks,
            calls,
            errors,
        }
    }

    pub(super) fn start_all(&mut self) {
        for index in 0..self.drivers.len() {
            self.start(index);
        }
    }

    /// What QEMU sends to start a queue.
    pub(super) fn start(&mut self, index: usize) {
        self.set_up(index);
        let queue = u32::try_from(index).expect("small");
        self.device.set_vring_enable(queue, true).expect("started");
    }

    /// All but the last message.
    pub(super) fn set_up(&mut self, index: usize) {
        let queue = u32::try_from(index).expect("small");
        let narrow = u8::try_from(index).expect("small");
        let driver = &self.drivers[index];
        let addresses = driver.addresses();
        let base = driver.last_used;
        self.device
            .set_vring_num(queue, u32::from(driver.size))
            .expect("a good size");
        self.device
            .set_vring_base(queue, u32::from(base))
            .expect("a good base");
        self.device
            .set_vring_addr(
                queue,
                VhostUserVringAddrFlags::empty(),
                addresses.descriptors,
                addresses.used,
                addresses.avail,
                0,
            )
            .expect("good addresses");
        let copy = |files: &[File]| Some(files[index].try_clone().expect("dup"));
        self.device
            .set_vring_call(narrow, copy(&self.calls))
            .expect("a good call");
        self.device
            .set_vring_err(narrow, copy(&self.errors))
            .expect("a good err");
        self.device
            .set_vring_kick(narrow, copy(&self.kicks))
            .expect("a good kick");
    }

    /// GET_VRING_BASE.
    pub(super) fn stop(&mut self, index: usize) -> u32 {
        let queue = u32::try_from(index).expect("small");
        self.device.get_vring_base(queue).expect("a base").num
    }

    /// Publishes and kicks if the device asked for that.
    pub(super) fn kick(&mut self, index: usize) {
        if self.drivers[index].publish() {
            self.kick_hard(index);
        }
    }

    pub(super) fn kick_hard(&self, index: usize) {
        (&self.kicks[index])
            .write_all(&1_u64.to_ne_bytes())
            .expect("room");
    }

    /// A request on descriptors 0 and 1 and what came back: length and unique number.
    pub(super) fn round_trip(
        &mut self,
        index: usize,
        opcode: u32,
        unique: u64,
        room: u32,
    ) -> (u32, u64) {
        let reply = self.drivers[index].request(&self.memory, 0, (opcode, unique), room);
        self.kick(index);
        let (_, len) = self.wait_used(index);
        let echoed = self.memory.get(reply + 8, 8);
        let unique = u64::from_le_bytes(echoed.try_into().expect("eight bytes"));
        (len, unique)
    }

    /// The next completion.
    pub(super) fn wait_used(&mut self, index: usize) -> (u16, u32) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(used) = self.drivers[index].collect() {
                return used;
            }
            assert!(Instant::now() < deadline, "no completion on queue {index}");
            thread::sleep(Duration::from_micros(50));
        }
    }

    pub(super) fn wait_until(&mut self, what: &str, condition: impl Fn(&Bench) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "waiting until {what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Signals since the last time.
    pub(super) fn signals(&self, index: usize) -> u64 {
        count(&self.calls[index])
    }

    pub(super) fn errors(&self, index: usize) -> u64 {
        count(&self.errors[index])
    }

    pub(super) fn panics(&self) -> u64 {
        self.counters.handler_panics.load(Ordering::SeqCst)
    }

    pub(super) fn refused_threads(&self) -> u64 {
        self.counters.refused_threads.load(Ordering::Relaxed)
    }

    pub(super) fn lost_signals(&self) -> u64 {
        self.counters.lost_signals.load(Ordering::Relaxed)
    }

    pub(super) fn replace_call(&mut self, index: usize) {
        self.calls[index] = poll::eventfd().expect("eventfd");
        let copy = self.calls[index].try_clone().expect("dup");
        let narrow = u8::try_from(index).expect("small");
        self.device.set_vring_call(narrow, Some(copy)).expect("set");
    }

    /// A call descriptor that nothing can be written to.
    pub(super) fn break_call(&mut self, index: usize) {
        let null = File::open("/dev/null").expect("/dev/null");
        let narrow = u8::try_from(index).expect("small");
        self.device.set_vring_call(narrow, Some(null)).expect("set");
    }

    pub(super) fn add_region(&mut self, spec: RegionSpec, file: &File) {
        let file = file.try_clone().expect("dup");
        self.device
            .add_mem_region(&single(&spec), file, None)
            .expect("a good region");
    }

    pub(super) fn remove_region(&mut self, spec: RegionSpec) {
        self.device
            .remove_mem_region(&single(&spec))
            .expect("it is there");
    }

    /// Copies of the kick and call descriptors for a thread that drives the queue.
    pub(super) fn descriptors(&self, index: usize) -> (File, File) {
        let copy = |files: &[File]| files[index].try_clone().expect("dup");
        (copy(&self.kicks), copy(&self.calls))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // A test that has failed must not leave the device waiting for its handler.
        self.handler.open_gate();
    }
}

fn queues_of(features: RingFeatures, queues: u64) -> (TestMemory, Vec<Driver>) {
    let memory = TestMemory::new(&[(0, QUEUE_BYTES * queues)]);
    let drivers = (0..queues)
        .map(|index| Driver::new(&memory, index * QUEUE_BYTES, SIZE, features, 0))
        .collect();
    (memory, drivers)
}

fn region(spec: &RegionSpec) -> VhostUserMemoryRegion {
    VhostUserMemoryRegion::new(
        spec.guest_start,
        spec.size,
        spec.user_start,
        spec.mmap_offset,
    )
}

fn single(spec: &RegionSpec) -> VhostUserSingleMemoryRegion {
    VhostUserSingleMemoryRegion::new(
        spec.guest_start,
        spec.size,
        spec.user_start,
        spec.mmap_offset,
    )
}

/// The count of an eventfd, which is zero afterwards.
fn count(eventfd: &File) -> u64 {
    use std::os::fd::AsFd;
    if !poll::is_readable(eventfd.as_fd()) {
        return 0;
    }
    let mut bytes = [0; 8];
    (&*eventfd).read_exact(&mut bytes).expect("a count");
    u64::from_ne_bytes(bytes)
}
