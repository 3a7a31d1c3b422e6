//! What: a virtual machine monitor: connects, negotiates, shares memory, starts and stops rings.
//!
//! In: a [`Setup`]. Out: a [`Vm`] with queues that a test can drive itself, or move to threads.
//!
//! ```text
//! Setup --boot--> Vm: owner, features, protocol features, memory table
//!                 `-- start(i): num, base, addr, kick, call, err, enable   stop(i): get base
//! ```
//!
//! Invariants: a control message that is not answered in time kills the daemon, so that the
//! test fails with its words instead of hanging.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use vhost::VhostBackend;
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};

use super::daemon::{Daemon, DaemonLog};
use super::memory::{GuestMemory, MemoryLayout, Region, Span};
use super::queue::{Arena, Queue, QueueParts};
use super::ring::{NotifyMode, Ring};
use super::{TIMEOUT, sys, u64_of, usize_of64};

pub(crate) const F_INDIRECT: u64 = 1 << 28;
pub(crate) const F_EVENT_IDX: u64 = 1 << 29;
pub(crate) const F_PROTOCOL: u64 = 1 << 30;
pub(crate) const F_VERSION_1: u64 = 1 << 32;

/// What a test wants.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) args: Vec<String>,
    /// The program that becomes the daemon, if not the daemon itself.
    pub(crate) wrapper: Vec<String>,
    pub(crate) request_queues: usize,
    pub(crate) queue_size: u16,
    pub(crate) notify: NotifyMode,
    pub(crate) indirect: bool,
    pub(crate) reply_ack: bool,
    /// Negotiate `VHOST_USER_F_PROTOCOL_FEATURES`; without it rings start enabled.
    pub(crate) protocol: bool,
    pub(crate) memory: MemoryLayout,
    /// Memory that several machines have in common; it is not used for buffers until a test does so.
    pub(crate) common: Option<Arc<Region>>,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            args: Vec::new(),
            wrapper: Vec::new(),
            request_queues: 1,
            queue_size: 128,
            notify: NotifyMode::EventIdx,
            indirect: true,
            reply_ack: true,
            protocol: true,
            memory: MemoryLayout::one(8 << 20),
            common: None,
        }
    }
}

impl Setup {
    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    pub(crate) fn through(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|arg| (*arg).to_owned()).collect();
        self
    }

    pub(crate) fn queues(mut self, request_queues: usize) -> Self {
        self.request_queues = request_queues;
        self
    }

    pub(crate) fn queue_size(mut self, queue_size: u16) -> Self {
        self.queue_size = queue_size;
        self
    }

    pub(crate) fn notify(mut self, notify: NotifyMode) -> Self {
        self.notify = notify;
        self
    }

    pub(crate) fn direct(mut self) -> Self {
        self.indirect = false;
        self
    }

    pub(crate) fn no_reply_ack(mut self) -> Self {
        self.reply_ack = false;
        self
    }

    pub(crate) fn memory(mut self, memory: MemoryLayout) -> Self {
        self.memory = memory;
        self
    }

    pub(crate) fn common(mut self, region: Arc<Region>) -> Self {
        self.common = Some(region);
        self
    }

    /// Starts a daemon on `share`, connects and starts every queue.
    pub(crate) fn boot(&self, share: &Path) -> Vm {
        let mut vm = self.boot_stopped(share);
        vm.start_all();
        vm
    }

    /// The same without starting queues.
    pub(crate) fn boot_stopped(&self, share: &Path) -> Vm {
        let mut daemon = Daemon::spawn_through(&self.wrapper, share, &self.args);
        let stream = daemon.connect();
        Vm::new(self, daemon, stream)
    }
}

/// Kills the daemon when a control message takes too long.
#[derive(Debug, Default)]
struct Watchdog(Mutex<Option<Instant>>);

impl Watchdog {
    fn guard(log: &DaemonLog) -> Arc<Self> {
        let watchdog = Arc::new(Watchdog::default());
        let weak: Weak<Self> = Arc::downgrade(&watchdog);
        let pid = log.pid;
        thread::spawn(move || {
            while let Some(watchdog) = weak.upgrade() {
                let deadline = *watchdog.0.lock().expect("no panic with the watchdog");
                if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                    eprintln!(
                        "a vhost-user message was not answered in {TIMEOUT:?}: killing {pid}"
                    );
                    sys::kill(pid, libc::SIGKILL);
                    return;
                }
                drop(watchdog);
                thread::sleep(Duration::from_millis(50));
            }
        });
        watchdog
    }

    fn set(&self, deadline: Option<Instant>) {
        *self.0.lock().expect("no panic with the watchdog") = deadline;
    }
}

/// A virtual machine connected to a daemon.
#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) daemon: Daemon,
    pub(crate) memory: Arc<GuestMemory>,
    pub(crate) arena: Arc<Mutex<Arena>>,
    pub(crate) features: u64,
    pub(crate) protocol: VhostUserProtocolFeatures,
    pub(crate) queue_num: u64,
    pub(crate) setup: Setup,
    queues: Vec<Option<Queue>>,
    frontend: Option<FrontendBox>,
    watchdog: Arc<Watchdog>,
}

/// The crate's front end has no Debug of its own.
pub(crate) struct FrontendBox(Frontend);

impl std::fmt::Debug for FrontendBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Frontend")
    }
}

impl Vm {
    /// Negotiates over `stream` and hands memory over.
    pub(crate) fn new(setup: &Setup, daemon: Daemon, stream: UnixStream) -> Self {
        let memory = Arc::new(GuestMemory::new(&setup.memory));
        let log = Arc::clone(&daemon.log);
        let regions = memory.regions();
        let queue_count = setup.request_queues + 1;
        let ring_len = u64_of(Ring::bytes(setup.queue_size)).next_multiple_of(4096);
        let rings_len = ring_len * u64_of(queue_count);
        let mut spans: Vec<Span> = regions.iter().map(|region| region.span).collect();
        assert!(
            spans[0].len >= rings_len,
            "the first region is too small for the rings"
        );
        spans[0].gpa += rings_len;
        spans[0].len -= rings_len;
        let arena = Arc::new(Mutex::new(Arena::new(&spans)));
        let queue = |index: usize| {
            let gpa = regions[0].span.gpa + ring_len * u64_of(index);
            let region = Arc::clone(&regions[0]);
            Some(Queue::new(QueueParts {
                index,
                ring: Ring::new(region, gpa, setup.queue_size, setup.notify),
                memory: Arc::clone(&memory),
                arena: Arc::clone(&arena),
                log: Arc::clone(&log),
                indirect: setup.indirect,
            }))
        };
        let queues = (0..queue_count).map(queue).collect();
        if let Some(region) = &setup.common {
            memory.add_region(Arc::clone(region));
        }
        let mut vm = Vm {
            watchdog: Watchdog::guard(&log),
            daemon,
            memory,
            arena,
            features: 0,
            protocol: VhostUserProtocolFeatures::empty(),
            queue_num: 0,
            setup: setup.clone(),
            queues,
            frontend: Some(FrontendBox(Frontend::from_stream(stream, 256))),
        };
        vm.negotiate();
        vm.share_memory();
        vm
    }

    /// One exchange with the daemon, under the watchdog.
    pub(crate) fn control<T>(&mut self, step: impl FnOnce(&mut Frontend) -> T) -> T {
        self.watchdog.set(Some(Instant::now() + TIMEOUT));
        let frontend = self.frontend.as_mut().expect("the front end is connected");
        let result = step(&mut frontend.0);
        self.watchdog.set(None);
        result
    }

    /// One exchange that must succeed.
    pub(crate) fn must<T>(
        &mut self,
        what: &str,
        step: impl FnOnce(&mut Frontend) -> vhost::Result<T>,
    ) -> T {
        match self.control(step) {
            Ok(value) => value,
            Err(error) => panic!("{what}: {error:?}\n{}", self.daemon.log.describe()),
        }
    }

    fn negotiate(&mut self) {
        let setup = self.setup.clone();
        self.must("SET_OWNER", |frontend| frontend.set_owner());
        self.features = self.must("GET_FEATURES", |frontend| frontend.get_features());
        if setup.protocol {
            self.negotiate_protocol(setup.reply_ack);
        }
        self.set_features();
    }

    fn negotiate_protocol(&mut self, reply_ack: bool) {
        self.protocol = self.must("GET_PROTOCOL_FEATURES", |frontend| {
            frontend.get_protocol_features()
        });
        let mut wanted = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::RESET_DEVICE;
        wanted.set(VhostUserProtocolFeatures::REPLY_ACK, reply_ack);
        let acked = self.protocol & wanted;
        self.must("SET_PROTOCOL_FEATURES", |frontend| {
            frontend.set_protocol_features(acked)
        });
        if acked.contains(VhostUserProtocolFeatures::REPLY_ACK) {
            self.control(|frontend| frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY));
        }
        self.queue_num = self.must("GET_QUEUE_NUM", |frontend| frontend.get_queue_num());
    }

    /// SET_FEATURES, at first and again after a reset.
    pub(crate) fn set_features(&mut self) {
        let setup = self.setup.clone();
        let mut features = F_VERSION_1;
        if setup.protocol {
            features |= F_PROTOCOL;
        }
        if setup.indirect {
            features |= F_INDIRECT;
        }
        if setup.notify == NotifyMode::EventIdx {
            features |= F_EVENT_IDX;
        }
        self.must("SET_FEATURES", |frontend| frontend.set_features(features));
    }

    fn share_memory(&mut self) {
        let infos: Vec<_> = self
            .memory
            .regions()
            .iter()
            .map(|region| region.info())
            .collect();
        // The message has room for 32 regions; more are added one by one.
        let (first, rest) = infos.split_at(infos.len().min(8));
        self.must("SET_MEM_TABLE", |frontend| frontend.set_mem_table(first));
        for info in rest {
            self.must("ADD_MEM_REG", |frontend| frontend.add_mem_region(info));
        }
    }

    /// Plugs memory in; it is not used for buffers until a test does so.
    pub(crate) fn add_memory(&mut self, span: Span) -> Arc<Region> {
        let region = self.memory.add(span);
        let info = region.info();
        self.must("ADD_MEM_REG", |frontend| frontend.add_mem_region(&info));
        region
    }

    /// Pulls memory out again.
    pub(crate) fn remove_memory(&mut self, gpa: u64) {
        let region = self.memory.remove(gpa);
        let info = region.info();
        self.must("REM_MEM_REG", |frontend| frontend.remove_mem_region(&info));
    }

    pub(crate) fn queue(&mut self, index: usize) -> &mut Queue {
        self.queues[index]
            .as_mut()
            .unwrap_or_else(|| panic!("queue {index} was taken"))
    }

    /// Moves a queue out, to a thread of its own.
    pub(crate) fn take_queue(&mut self, index: usize) -> Queue {
        self.queues[index]
            .take()
            .unwrap_or_else(|| panic!("queue {index} was taken"))
    }

    /// Brings a queue back.
    pub(crate) fn return_queue(&mut self, queue: Queue) {
        let index = queue.index;
        self.queues[index] = Some(queue);
    }

    pub(crate) fn start_all(&mut self) {
        for index in 0..self.queues.len() {
            self.start(index, 0);
        }
    }

    /// Starts a queue at available index `base`.
    pub(crate) fn start(&mut self, index: usize, base: u16) {
        let mut queue = self.take_queue(index);
        self.start_queue(&queue, base);
        // A driver may have put chains in line while the ring was stopped.
        queue.kick_now();
        self.return_queue(queue);
    }

    /// The messages that start `queue`.
    pub(crate) fn start_queue(&mut self, queue: &Queue, base: u16) {
        let index = queue.index;
        let config = queue.ring.config();
        self.must("SET_VRING_NUM", |f| f.set_vring_num(index, queue.ring.size));
        self.must("SET_VRING_BASE", |f| f.set_vring_base(index, base));
        self.must("SET_VRING_ADDR", |f| f.set_vring_addr(index, &config));
        self.must("SET_VRING_CALL", |f| f.set_vring_call(index, &queue.call));
        self.must("SET_VRING_ERR", |f| f.set_vring_err(index, &queue.err));
        self.must("SET_VRING_KICK", |f| f.set_vring_kick(index, &queue.kick));
        if self.setup.protocol {
            self.must("SET_VRING_ENABLE", |f| f.set_vring_enable(index, true));
        }
    }

    /// Stops a queue and returns its next available index.
    pub(crate) fn stop(&mut self, index: usize) -> u16 {
        let base = self.must("GET_VRING_BASE", |frontend| frontend.get_vring_base(index));
        u16::try_from(base).unwrap_or_else(|_| panic!("base {base} of queue {index}"))
    }

    /// Stops a queue, empties its ring and starts it again, as after a driver's reset.
    pub(crate) fn restart(&mut self, index: usize) {
        self.stop(index);
        self.queue(index).reset();
        self.start(index, 0);
    }

    /// The configuration space.
    pub(crate) fn config_space(&mut self, len: u32) -> vhost::Result<Vec<u8>> {
        let zeros = vec![0; super::usize_of(len)];
        self.control(|frontend| {
            frontend
                .get_config(0, len, VhostUserConfigFlags::WRITABLE, &zeros)
                .map(|(_, payload)| payload)
        })
    }

    pub(crate) fn reset_device(&mut self) {
        self.must("RESET_DEVICE", |frontend| frontend.reset_device());
    }

    /// Closes the connection.
    pub(crate) fn disconnect(&mut self) {
        self.frontend = None;
    }

    /// Closes the connection and waits for the daemon to end.
    pub(crate) fn shut_down(mut self) -> ExitStatus {
        self.disconnect();
        self.daemon.wait_exit()
    }

    /// A queue that starts at guest address `gpa` and was not part of the set-up.
    pub(crate) fn extra_queue(&self, index: usize, gpa: u64, size: u16) -> Queue {
        let regions = self.memory.regions();
        let region = regions
            .into_iter()
            .find(|region| (region.span.gpa..region.span.gpa + region.span.len).contains(&gpa))
            .unwrap_or_else(|| panic!("{gpa:#x} is in no region"));
        let end = usize_of64(gpa - region.span.gpa) + Ring::bytes(size);
        assert!(end <= usize_of64(region.span.len), "the ring does not fit");
        Queue::new(QueueParts {
            index,
            ring: Ring::new(region, gpa, size, self.setup.notify),
            memory: Arc::clone(&self.memory),
            arena: Arc::clone(&self.arena),
            log: Arc::clone(&self.daemon.log),
            indirect: self.setup.indirect,
        })
    }
}
