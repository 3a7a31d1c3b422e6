//! What: the driver's half of a split virtqueue (virtio 1.2, 2.7), written for these tests only.
//!
//! In: descriptors to publish. Out: used elements, and whether a kick is due.
//! Invariants: the available index is published by a release store after the entries; the used
//! index is read by an acquire load before the elements; a full fence stands between publishing
//! and looking at the other side's wish for notification, in both directions.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use vhost::VringConfigData;

use super::memory::{Region, USER_ADDR_OFFSET};
use super::{u64_of, usize_of64};

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;
const NO_INTERRUPT: u16 = 1;
const NO_NOTIFY: u16 = 1;

/// One descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) addr: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

impl Descriptor {
    pub(crate) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[0..8].copy_from_slice(&self.addr.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..16].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// How the two sides tell each other when to be notified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotifyMode {
    /// `VIRTIO_F_EVENT_IDX`.
    EventIdx,
    /// The flags fields.
    Flags,
}

/// The rings of one queue.
#[derive(Debug)]
pub(crate) struct Ring {
    region: Arc<Region>,
    pub(crate) size: u16,
    pub(crate) mode: NotifyMode,
    desc: usize,
    avail: usize,
    used: usize,
    next_avail: u16,
    published: u16,
    last_used: u16,
}

impl Ring {
    /// Bytes that a ring of `size` takes, from an address that is a multiple of 16.
    pub(crate) fn bytes(size: u16) -> usize {
        let size = usize::from(size);
        (16 * size + (6 + 2 * size)).next_multiple_of(4) + (6 + 8 * size)
    }

    /// A ring at `gpa`, which lies in `region`.
    pub(crate) fn new(region: Arc<Region>, gpa: u64, size: u16, mode: NotifyMode) -> Self {
        let count = usize::from(size);
        let desc = usize_of64(gpa - region.span.gpa);
        let avail = desc + 16 * count;
        let used = (avail + 6 + 2 * count).next_multiple_of(4);
        let mut ring = Ring {
            region,
            size,
            mode,
            desc,
            avail,
            used,
            next_avail: 0,
            published: 0,
            last_used: 0,
        };
        ring.reset();
        ring
    }

    /// Empties the ring, as a driver does after a device reset.
    pub(crate) fn reset(&mut self) {
        self.region
            .write(self.desc, &vec![0; Self::bytes(self.size)]);
        self.next_avail = 0;
        self.published = 0;
        self.last_used = 0;
    }

    /// An empty ring whose indices both stand at `index`.
    pub(crate) fn start_at(&mut self, index: u16) {
        self.reset();
        self.region.write(self.avail + 2, &index.to_le_bytes());
        self.region.write(self.used + 2, &index.to_le_bytes());
        self.next_avail = index;
        self.published = index;
        self.last_used = index;
    }

    /// Where the parts lie, for SET_VRING_ADDR.
    pub(crate) fn config(&self) -> VringConfigData {
        let addr = |offset: usize| self.region.span.gpa + USER_ADDR_OFFSET + u64_of(offset);
        VringConfigData {
            queue_max_size: self.size,
            queue_size: self.size,
            flags: 0,
            desc_table_addr: addr(self.desc),
            used_ring_addr: addr(self.used),
            avail_ring_addr: addr(self.avail),
            log_addr: None,
        }
    }

    /// Index of the next chain to be published, which a drained device returns as its base.
    pub(crate) fn avail_index(&self) -> u16 {
        self.published
    }

    pub(crate) fn write_descriptor(&self, index: u16, descriptor: Descriptor) {
        self.region
            .write(self.desc + 16 * usize::from(index), &descriptor.to_bytes());
    }

    /// Puts the chain that starts at `head` in line; the device sees it after [`Self::publish`].
    pub(crate) fn push_avail(&mut self, head: u16) {
        let slot = usize::from(self.next_avail % self.size);
        // Relaxed: the release store of the index in publish() orders it.
        self.region
            .atomic_u16(self.avail + 4 + 2 * slot)
            .store(head, Ordering::Relaxed);
        self.next_avail = self.next_avail.wrapping_add(1);
    }

    /// Makes everything in line visible and says whether the device wants to be kicked.
    pub(crate) fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.next_avail);
        // Release: pairs with the device's acquire load of the index.
        self.avail_idx().store(new, Ordering::Release);
        self.published = new;
        // SeqCst: our index must be out before we read whether the device sleeps; the device
        // does the mirror image.
        fence(Ordering::SeqCst);
        match self.mode {
            NotifyMode::EventIdx => {
                let offset = self.used + 4 + 8 * usize::from(self.size);
                let event = self.region.atomic_u16(offset).load(Ordering::Relaxed);
                new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
            }
            NotifyMode::Flags => {
                let flags = self.region.atomic_u16(self.used).load(Ordering::Relaxed);
                flags & NO_NOTIFY == 0
            }
        }
    }

    /// Publishes an index that nothing stands behind, as a broken driver would.
    pub(crate) fn publish_wild_index(&mut self, index: u16) {
        self.avail_idx().store(index, Ordering::Release);
        self.published = index;
        self.next_avail = index;
    }

    fn avail_idx(&self) -> &std::sync::atomic::AtomicU16 {
        self.region.atomic_u16(self.avail + 2)
    }

    /// The device's index, not yet taken note of.
    pub(crate) fn used_index(&self) -> u16 {
        // Acquire: pairs with the device's release store, so that the elements are visible.
        self.region
            .atomic_u16(self.used + 2)
            .load(Ordering::Acquire)
    }

    pub(crate) fn has_used(&self) -> bool {
        self.used_index() != self.last_used
    }

    /// How many elements the device has published that we have not taken.
    pub(crate) fn used_pending(&self) -> u16 {
        self.used_index().wrapping_sub(self.last_used)
    }

    /// The next used element: head and length.
    pub(crate) fn pop_used(&mut self) -> Option<(u32, u32)> {
        if !self.has_used() {
            return None;
        }
        let slot = usize::from(self.last_used % self.size);
        let offset = self.used + 4 + 8 * slot;
        // Relaxed: ordered by the acquire load of the index.
        let id = self.region.atomic_u32(offset).load(Ordering::Relaxed);
        let len = self.region.atomic_u32(offset + 4).load(Ordering::Relaxed);
        self.last_used = self.last_used.wrapping_add(1);
        Some((id, len))
    }

    /// Asks for an interrupt at the next used element. False when one is there already, so that
    /// the caller must not sleep.
    pub(crate) fn enable_interrupts(&self) -> bool {
        match self.mode {
            NotifyMode::EventIdx => self.used_event().store(self.last_used, Ordering::Relaxed),
            NotifyMode::Flags => self.avail_flags().store(0, Ordering::Relaxed),
        }
        // SeqCst: our wish must be out before we look for work; the device does the mirror image.
        fence(Ordering::SeqCst);
        !self.has_used()
    }

    /// Asks for no interrupts while we are awake. With EVENT_IDX there is nothing to write: the
    /// event index falls behind by itself.
    pub(crate) fn disable_interrupts(&self) {
        if self.mode == NotifyMode::Flags {
            self.avail_flags().store(NO_INTERRUPT, Ordering::Relaxed);
        }
    }

    fn used_event(&self) -> &std::sync::atomic::AtomicU16 {
        self.region
            .atomic_u16(self.avail + 4 + 2 * usize::from(self.size))
    }

    fn avail_flags(&self) -> &std::sync::atomic::AtomicU16 {
        self.region.atomic_u16(self.avail)
    }

    /// The state in words, for panic messages.
    pub(crate) fn describe(&self) -> String {
        format!(
            "ring of {}: published {}, device's used index {}, taken {}, {:?}",
            self.size,
            self.published,
            self.used_index(),
            self.last_used,
            self.mode
        )
    }
}
