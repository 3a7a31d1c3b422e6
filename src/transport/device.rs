//! What: the vhost-user device of one connection.
//!
//! In: the messages that the `vhost` crate has decoded. Out: queues that are set up, started and
//! stopped, memory that is mapped, features that are agreed on.
//!
//! Invariants: a message is either done or refused with a reason and no effect; memory that the
//! front end takes away is used by nobody once the answer is out, because every queue is drained
//! first; adding memory disturbs no queue. Does not: read or answer messages, see connection.rs.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    FrontendReq, VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags,
    VhostUserInflight, VhostUserLog, VhostUserMemoryRegion, VhostUserShMemConfig,
    VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{
    Backend, Error, GpuBackend, Result, VhostUserBackendReqHandlerMut, VhostUserProtocolFeatures,
};

use crate::log_limit::guest_log;
use crate::sys::descriptors::close_on_exec;
use crate::wire::channel::RequestHandler;

use super::DeviceSettings;
use super::config_space::ConfigSpace;
use super::counters::Counters;
use super::error::TransportError;
use super::executor::Executor;
use super::memory::{GuestRam, MemoryCell, REGION_COUNT_MAX, RegionSpec};
use super::polling::Seats;
use super::queue::{Queue, QueueError, Surroundings};
use super::ring::{RingAddresses, RingFeatures};

/// One high-priority queue and 63 for requests: the most that the bit masks of vhost-user
/// libraries on both sides can count.
const QUEUE_COUNT: usize = 64;

/// `VIRTIO_RING_F_INDIRECT_DESC`.
const FEATURE_INDIRECT: u64 = 1 << 28;
/// `VIRTIO_RING_F_EVENT_IDX`.
const FEATURE_EVENT_IDX: u64 = 1 << 29;
/// `VHOST_USER_F_PROTOCOL_FEATURES`.
const FEATURE_PROTOCOL_FEATURES: u64 = 1 << 30;
/// `VIRTIO_F_VERSION_1`.
const FEATURE_VERSION_1: u64 = 1 << 32;

const OFFERED_FEATURES: u64 =
    FEATURE_INDIRECT | FEATURE_EVENT_IDX | FEATURE_PROTOCOL_FEATURES | FEATURE_VERSION_1;

/// Shared between the connection and the message layer; only one thread ever locks it.
pub(super) type SharedDevice = Arc<Mutex<Device>>;

/// See the file head.
pub(super) struct Device {
    config: Option<ConfigSpace>,
    surroundings: Surroundings,
    queues: Vec<Queue>,
    protocol_features: u64,
    /// Kept open for the front end; no message of ours needs it.
    backend_channel: Option<Backend>,
}

impl Device {
    /// A device that nobody has talked to.
    pub(super) fn new(
        settings: &DeviceSettings,
        handler: Arc<dyn RequestHandler>,
        counters: Arc<Counters>,
    ) -> std::result::Result<Device, TransportError> {
        let config = settings
            .tag
            .as_ref()
            .map(|tag| ConfigSpace::new(tag, settings.num_request_queues_in_config))
            .transpose()?;
        Ok(Device {
            config,
            surroundings: Surroundings {
                handler,
                memory: Arc::new(MemoryCell::default()),
                counters,
                executor: Executor::new(settings.execution)?,
                features: ring_features(0),
                polling: settings.polling,
                seats: Seats::for_this_machine(),
            },
            queues: (0..QUEUE_COUNT).map(Queue::new).collect(),
            protocol_features: 0,
            backend_channel: None,
        })
    }

    /// Takes another pool for what the handler defers, and for one large copy at a time.
    #[cfg(test)]
    pub(super) fn use_pool(&mut self, pool: Arc<super::pool::Pool>) {
        let copiers = Seats::new(1);
        self.surroundings.executor = Executor::Adaptive(pool, copiers);
    }

    /// Whether the front end expects answers to messages that have none of their own.
    pub(super) fn acknowledges(&self) -> bool {
        self.protocol_features & VhostUserProtocolFeatures::REPLY_ACK.bits() != 0
    }

    /// The front end has gone: drains everything and frees what the guest held.
    pub(super) fn shut_down(&mut self) {
        self.reset_queues();
        self.backend_channel = None;
        self.surroundings.memory.replace(GuestRam::default());
        self.surroundings.handler.reset();
    }

    /// Refuses feature bits that were not offered. The connection asks before the message layer
    /// sees the message, because the layer takes over even bits that we refuse.
    pub(super) fn check_features(&self, request: FrontendReq, features: u64) -> Result<()> {
        let (kind, offered) = match request {
            FrontendReq::SET_FEATURES => ("features", OFFERED_FEATURES),
            FrontendReq::SET_PROTOCOL_FEATURES => {
                ("protocol features", self.offered_protocol_features().bits())
            }
            _ => return Ok(()),
        };
        match features & !offered {
            0 => Ok(()),
            unknown => Err(refuse(format!("{kind} {unknown:#x} were not offered"))),
        }
    }

    fn offered_protocol_features(&self) -> VhostUserProtocolFeatures {
        let mut offered = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::BACKEND_SEND_FD
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::RESET_DEVICE;
        if self.config.is_some() {
            offered |= VhostUserProtocolFeatures::CONFIG;
        }
        offered
    }

    /// Runs one message's work on one queue.
    fn with_queue<T>(
        &mut self,
        index: u32,
        work: impl FnOnce(&mut Queue, &Surroundings) -> std::result::Result<T, QueueError>,
    ) -> Result<T> {
        let queue = usize::try_from(index)
            .ok()
            .and_then(|index| self.queues.get_mut(index))
            .ok_or_else(|| out_of_range(index))?;
        work(queue, &self.surroundings).map_err(|error| refuse(format!("queue {index}: {error}")))
    }

    /// Puts a table in force that lacks memory of the one before.
    fn replace_memory(&mut self, ram: GuestRam) {
        for queue in &mut self.queues {
            queue.stop();
        }
        self.surroundings.memory.replace(ram);
        self.start_queues();
    }

    /// Starts what can be started. QEMU resizes a region by removing and adding it, so a queue
    /// may be without its ring in between.
    fn start_queues(&mut self) {
        for (index, queue) in self.queues.iter_mut().enumerate() {
            if let Err(error) = queue.start_if_ready(&self.surroundings) {
                guest_log!(
                    log::Level::Debug,
                    "queue {index} stays stopped after a change of memory: {error}"
                );
            }
        }
    }

    fn reset_queues(&mut self) {
        for queue in &mut self.queues {
            queue.reset();
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Worker threads would go on otherwise.
        self.reset_queues();
    }
}

fn ring_features(acknowledged: u64) -> RingFeatures {
    RingFeatures {
        event_idx: acknowledged & FEATURE_EVENT_IDX != 0,
        indirect: acknowledged & FEATURE_INDIRECT != 0,
    }
}

/// A refusal whose text the connection logs; the message layer turns it into an error reply.
fn refuse(reason: impl Into<String>) -> Error {
    Error::ReqHandlerError(io::Error::other(reason.into()))
}

/// A descriptor of the front end, as this process keeps it: the message layer receives without
/// MSG_CMSG_CLOEXEC (vmm-sys-util 0.15), and no program that is started must inherit it.
fn kept(file: File) -> Result<File> {
    close_on_exec(file.as_fd()).map_err(Error::ReqHandlerError)?;
    Ok(file)
}

fn out_of_range(index: u32) -> Error {
    let last = QUEUE_COUNT.saturating_sub(1);
    refuse(format!("queue index {index} out of range, at most {last}"))
}

fn unsupported<T>(what: &str) -> Result<T> {
    Err(refuse(format!("{what} is not supported")))
}

fn region_spec(region: &VhostUserMemoryRegion) -> RegionSpec {
    RegionSpec {
        guest_start: region.guest_phys_addr,
        size: region.memory_size,
        user_start: region.user_addr,
        mmap_offset: region.mmap_offset,
    }
}

impl VhostUserBackendReqHandlerMut for Device {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    /// Deprecated, and used by front ends without RESET_DEVICE in its place.
    fn reset_owner(&mut self) -> Result<()> {
        self.reset_device()
    }

    fn reset_device(&mut self) -> Result<()> {
        self.reset_queues();
        self.surroundings.features = ring_features(0);
        self.surroundings.handler.reset();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(OFFERED_FEATURES)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        self.check_features(FrontendReq::SET_FEATURES, features)?;
        self.surroundings.features = ring_features(features);
        if features & FEATURE_PROTOCOL_FEATURES == 0 {
            // Such a front end has no SET_VRING_ENABLE: its rings are enabled from the start.
            for index in 0..self.queues.len() {
                let index = u32::try_from(index).unwrap_or(u32::MAX);
                self.with_queue(index, |queue, around| queue.set_enabled(true, around))?;
            }
        }
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        let files = files.into_iter().map(kept).collect::<Result<Vec<_>>>()?;
        let table = regions.iter().map(region_spec).zip(files).collect();
        let ram = GuestRam::from_table(table).map_err(|error| refuse(error.to_string()))?;
        self.replace_memory(ram);
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        self.with_queue(index, |queue, around| {
            queue.set_size(num)?;
            queue.start_if_ready(around)
        })
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let addresses = RingAddresses {
            descriptors: descriptor,
            avail: available,
            used,
        };
        self.with_queue(index, |queue, around| {
            queue.set_addresses(addresses, around)?;
            queue.start_if_ready(around)
        })
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        self.with_queue(index, |queue, _| queue.set_base(base))
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        match self.with_queue(index, |queue, _| Ok(queue.take_base())) {
            Ok(base) => Ok(VhostUserVringState::new(index, u32::from(base))),
            Err(error) => {
                // This message has no refusal. A queue that does not exist is stopped, and was
                // never anywhere but at its start.
                Counters::count(&self.surroundings.counters.refused_messages);
                guest_log!(log::Level::Warn, "GET_VRING_BASE: {error}");
                Ok(VhostUserVringState::new(index, 0))
            }
        }
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let file = file.map(kept).transpose()?;
        self.with_queue(u32::from(index), |queue, around| {
            queue.set_kick(file, around)
        })
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let file = file.map(kept).transpose()?;
        self.with_queue(u32::from(index), |queue, _| {
            queue.set_call(file);
            Ok(())
        })
    }

    fn set_vring_err(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let file = file.map(kept).transpose()?;
        self.with_queue(u32::from(index), |queue, _| {
            queue.set_err(file);
            Ok(())
        })
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(self.offered_protocol_features())
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        self.check_features(FrontendReq::SET_PROTOCOL_FEATURES, features)?;
        self.protocol_features = features;
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(u64::try_from(QUEUE_COUNT).unwrap_or(u64::MAX))
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.with_queue(index, |queue, around| queue.set_enabled(enable, around))
    }

    fn get_config(
        &mut self,
        offset: u32,
        size: u32,
        _flags: VhostUserConfigFlags,
    ) -> Result<Vec<u8>> {
        let config = self
            .config
            .as_ref()
            .ok_or_else(|| refuse("there is no configuration space without a tag"))?;
        let offset = usize::try_from(offset).map_err(|_| Error::InvalidParam)?;
        let size = usize::try_from(size).map_err(|_| Error::InvalidParam)?;
        Ok(config.read(offset, size))
    }

    fn set_config(
        &mut self,
        _offset: u32,
        _bytes: &[u8],
        _flags: VhostUserConfigFlags,
    ) -> Result<()> {
        Err(refuse("the configuration space cannot be written"))
    }

    fn set_backend_req_fd(&mut self, backend: Backend) {
        self.backend_channel = Some(backend);
    }

    fn set_gpu_socket(&mut self, _gpu_backend: GpuBackend) -> Result<()> {
        unsupported("GPU_SET_SOCKET")
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        unsupported("GET_SHARED_OBJECT")
    }

    fn get_inflight_fd(
        &mut self,
        _inflight: &VhostUserInflight,
    ) -> Result<(VhostUserInflight, File)> {
        unsupported("GET_INFLIGHT_FD")
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> Result<()> {
        unsupported("SET_INFLIGHT_FD")
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(u64::try_from(REGION_COUNT_MAX).unwrap_or(u64::MAX))
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        let (_, ram) = self.surroundings.memory.current();
        let ram = ram
            .with_region(region_spec(region), kept(file)?)
            .map_err(|error| refuse(error.to_string()))?;
        // Nothing that a queue uses has gone, so those that run go on and notice by themselves.
        self.surroundings.memory.replace(ram);
        self.start_queues();
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let (_, ram) = self.surroundings.memory.current();
        let ram = ram
            .without_region(region_spec(region))
            .map_err(|error| refuse(error.to_string()))?;
        self.replace_memory(ram);
        Ok(())
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _file: File,
    ) -> Result<Option<File>> {
        unsupported("SET_DEVICE_STATE_FD")
    }

    fn check_device_state(&mut self) -> Result<()> {
        unsupported("CHECK_DEVICE_STATE")
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        unsupported("GET_SHMEM_CONFIG")
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> Result<()> {
        unsupported("SET_LOG_BASE")
    }
}
