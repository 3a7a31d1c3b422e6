//! What: a guest for tests: memory in files, and the driver's side of split rings in it.
//!
//! In: what a test wants to put into descriptors. Out: memory that both sides have mapped, each
//! by itself, and a driver that follows the rules of VIRTIO 1.2 section 2.7 (or breaks them as
//! the test says). Does not: assert anything.

#![cfg_attr(
    not(test),
    allow(dead_code, reason = "a fuzz target uses a part of it")
)]

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{Ordering, fence};

use vmm_sys_util::tempfile::TempFile;

use super::memory::{GuestRam, RegionSpec, Window};
use super::ring::{RingAddresses, RingFeatures};

/// Distance between guest-physical and front-end addresses.
pub(super) const USER_BASE: u64 = 0x7000_0000_0000;

pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

/// A memory file of this many bytes.
pub(super) fn memory_file(size: u64) -> File {
    let file = TempFile::new_in(Path::new("/dev/shm"))
        .expect("room in /dev/shm")
        .into_file();
    file.set_len(size).expect("a file of that size");
    file
}

/// A region at this address, front-end address to match, from the start of its file.
pub(super) fn spec(guest_start: u64, size: u64) -> RegionSpec {
    RegionSpec {
        guest_start,
        size,
        user_start: USER_BASE.wrapping_add(guest_start),
        mmap_offset: 0,
    }
}

/// The guest's memory, as the guest sees it.
#[derive(Debug)]
pub(super) struct TestMemory {
    pub(super) regions: Vec<(RegionSpec, File)>,
    own: GuestRam,
}

impl TestMemory {
    /// Memory at these (start, size) ranges.
    pub(super) fn new(ranges: &[(u64, u64)]) -> TestMemory {
        let regions: Vec<_> = ranges
            .iter()
            .map(|(start, size)| (spec(*start, *size), memory_file(*size)))
            .collect();
        let own = map(&regions);
        TestMemory { regions, own }
    }

    /// A mapping for the device.
    pub(super) fn share(&self) -> GuestRam {
        map(&self.regions)
    }

    /// The driver's own view of a range inside one region.
    pub(super) fn window(&self, guest_start: u64, len: usize) -> Window {
        self.own
            .user_window(USER_BASE + guest_start, len)
            .expect("a range of guest memory")
    }

    /// Writes bytes, which may cross regions.
    pub(super) fn put(&self, guest_start: u64, bytes: &[u8]) {
        for (at, byte) in (guest_start..).zip(bytes) {
            self.window(at, 1).write(0, [*byte]).expect("in range");
        }
    }

    /// Reads bytes, which may cross regions.
    pub(super) fn get(&self, guest_start: u64, len: usize) -> Vec<u8> {
        (guest_start..)
            .take(len)
            .map(|at| self.window(at, 1).read::<1>(0).expect("in range")[0])
            .collect()
    }
}

fn map(regions: &[(RegionSpec, File)]) -> GuestRam {
    let table = regions
        .iter()
        .map(|(spec, file)| (*spec, file.try_clone().expect("dup")))
        .collect();
    GuestRam::from_table(table).expect("a good table")
}

/// A descriptor as the driver writes it.
pub(super) fn descriptor(addr: u64, len: u32, flags: u16, next: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&addr.to_le_bytes());
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    bytes
}

/// The header of a FUSE request.
pub(super) fn in_header(len: u32, opcode: u32, unique: u64) -> [u8; 40] {
    let mut bytes = [0; 40];
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    bytes[4..8].copy_from_slice(&opcode.to_le_bytes());
    bytes[8..16].copy_from_slice(&unique.to_le_bytes());
    bytes
}

/// The driver's half of a queue that lies at `base`, in 128 KiB.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) base: u64,
    pub(super) size: u16,
    pub(super) features: RingFeatures,
    descriptors: Window,
    avail: Window,
    used: Window,
    pub(super) next_avail: u16,
    pub(super) last_used: u16,
    kicked_at: u16,
}

const AVAIL: u64 = 0x4000;
const USED: u64 = 0x8000;
/// Where buffers are, one page for each descriptor.
pub(super) const BUFFERS: u64 = 0x1_0000;

impl Driver {
    /// A ring of at most 1024 entries; both indices start at `start`.
    pub(super) fn new(
        memory: &TestMemory,
        base: u64,
        size: u16,
        features: RingFeatures,
        start: u16,
    ) -> Driver {
        let entries = usize::from(size);
        let driver = Driver {
            base,
            size,
            features,
            descriptors: memory.window(base, entries * 16),
            avail: memory.window(base + AVAIL, entries * 2 + 6),
            used: memory.window(base + USED, entries * 8 + 6),
            next_avail: start,
            last_used: start,
            kicked_at: start,
        };
        let order = Ordering::Relaxed;
        driver.avail.store_u16(2, start, order).expect("in range");
        driver.used.store_u16(2, start, order).expect("in range");
        driver
            .avail
            .store_u16(4 + entries * 2, start, order)
            .expect("in range");
        driver
    }

    /// What SET_VRING_ADDR says.
    pub(super) fn addresses(&self) -> RingAddresses {
        RingAddresses {
            descriptors: USER_BASE + self.base,
            avail: USER_BASE + self.base + AVAIL,
            used: USER_BASE + self.base + USED,
        }
    }

    /// Writes one descriptor: address, length, flags, next.
    pub(super) fn describe(&self, index: u16, fields: (u64, u32, u16, u16)) {
        let (addr, len, flags, next) = fields;
        self.descriptors
            .write(usize::from(index) * 16, descriptor(addr, len, flags, next))
            .expect("in range");
    }

    /// Puts a chain into the available ring; the device sees it after `publish`.
    pub(super) fn offer(&mut self, head: u16) {
        let slot = usize::from(self.next_avail & (self.size - 1));
        self.avail
            .store_u16(4 + slot * 2, head, Ordering::Relaxed)
            .expect("in range");
        self.next_avail = self.next_avail.wrapping_add(1);
    }

    /// Shows the device all offers; true when it wants a kick.
    pub(super) fn publish(&mut self) -> bool {
        self.avail
            .store_u16(2, self.next_avail, Ordering::Release)
            .expect("in range");
        fence(Ordering::SeqCst);
        if !self.features.event_idx {
            return self.used.load_u16(0, Ordering::Relaxed) == Some(0);
        }
        let event = self
            .used
            .load_u16(4 + usize::from(self.size) * 8, Ordering::Relaxed)
            .expect("in range");
        let (old, new) = (self.kicked_at, self.next_avail);
        self.kicked_at = new;
        new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
    }

    /// The next completed request.
    pub(super) fn collect(&mut self) -> Option<(u16, u32)> {
        if self.used_idx() == self.last_used {
            return None;
        }
        let slot = usize::from(self.last_used & (self.size - 1));
        let bytes = self.used.read::<8>(4 + slot * 8).expect("in range");
        self.last_used = self.last_used.wrapping_add(1);
        let head = u16::from_le_bytes([bytes[0], bytes[1]]);
        let len = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        Some((head, len))
    }

    /// used.idx.
    pub(super) fn used_idx(&self) -> u16 {
        self.used.load_u16(2, Ordering::Acquire).expect("in range")
    }

    /// Asks for a signal with the next completion, then looks once more.
    pub(super) fn request_signals(&self) -> bool {
        if self.features.event_idx {
            self.avail
                .store_u16(
                    4 + usize::from(self.size) * 2,
                    self.last_used,
                    Ordering::Relaxed,
                )
                .expect("in range");
        } else {
            self.set_avail_flags(0);
        }
        fence(Ordering::SeqCst);
        self.used_idx() != self.last_used
    }

    /// `avail.flags`, 1 for NO_INTERRUPT.
    pub(super) fn set_avail_flags(&self, flags: u16) {
        self.avail
            .store_u16(0, flags, Ordering::Relaxed)
            .expect("in range");
    }

    /// The page of buffers that belongs to a descriptor.
    pub(super) fn buffer(&self, index: u16) -> u64 {
        self.base + BUFFERS + u64::from(index) * 256
    }

    /// A request of two descriptors, `head` and `head + 1`: header and payload to read, and
    /// `room` bytes to write. Gives the reply's address.
    pub(super) fn request(
        &mut self,
        memory: &TestMemory,
        head: u16,
        (opcode, unique): (u32, u64),
        room: u32,
    ) -> u64 {
        let at = self.buffer(head);
        let window = memory.window(at, 40);
        window
            .write(0, in_header(40, opcode, unique))
            .expect("in range");
        let reply = self.buffer(head + 1);
        if room > 0 {
            self.describe(head, (at, 40, NEXT, head + 1));
            self.describe(head + 1, (reply, room, WRITE, 0));
        } else {
            self.describe(head, (at, 40, 0, 0));
        }
        self.offer(head);
        reply
    }
}

/// Both ways of notifying.
pub(super) const MODES: [RingFeatures; 2] = [
    RingFeatures {
        event_idx: false,
        indirect: true,
    },
    RingFeatures {
        event_idx: true,
        indirect: true,
    },
];
