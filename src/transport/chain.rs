//! What: one descriptor chain, copied out of guest memory once and checked.
//!
//! In: the head index that the guest made available, and the descriptor table. Out: [`Chain`],
//! the readable and the writable pieces in order, adjacent pieces merged; or [`BrokenRing`],
//! when the structure itself is wrong and nothing after it can be believed.
//!
//! Invariants: each descriptor is read once, an indirect table is copied once as a whole, and
//! only the copy is used; the walk is bounded by the size of its table; pieces lie in guest
//! memory; all together are at most 4 GiB. What is wrong with single buffers (no such address,
//! readable after writable, too long) is a [`Defect`] of this chain, not of the ring: the pieces
//! before it are kept, so that an error reply can still be written.
//!
//! Does not: look into the bytes, except for the request's header.

use std::fmt;

use crate::wire::header::InHeader;
use crate::wire::opcode::Opcode;
use crate::wire::pod::Plain;

use super::guest_io;
use super::memory::{GuestRam, Segment, Window};

/// Bytes of a descriptor, VIRTIO 1.2 section 2.7.5.
const DESCRIPTOR_SIZE: usize = 16;
const FLAG_NEXT: u16 = 1;
const FLAG_WRITE: u16 = 2;
const FLAG_INDIRECT: u16 = 4;

/// The most descriptors of an indirect table. The specification says the queue size, but Linux
/// puts 260 into tables of queues with 128; the largest queue size there is bounds our copy.
const INDIRECT_COUNT_MAX: usize = 32768;

/// The most bytes of a chain, VIRTIO 1.2 section 2.7.4.
const CHAIN_BYTES_MAX: u64 = 1 << 32;

/// The ring itself is wrong; its queue stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BrokenRing {
    /// More descriptors than the table has.
    Loop,
    /// A head or `next` at or beyond the table's end.
    IndexOutOfRange(u16),
    /// INDIRECT although the driver did not accept the feature.
    IndirectNotNegotiated,
    /// INDIRECT together with NEXT.
    IndirectWithNext,
    /// INDIRECT inside an indirect table.
    IndirectNested,
    /// An indirect table with this many bytes: none, too many, or no multiple of 16.
    IndirectLength(u32),
    /// More requests made available than the queue has entries.
    AvailJump(u16),
    /// A chain made available again before it came back.
    InFlight(u16),
    /// The ring's own memory is out of reach.
    RingMemory,
}

impl fmt::Display for BrokenRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BrokenRing::Loop => f.write_str("a descriptor chain has a loop"),
            BrokenRing::IndexOutOfRange(index) => {
                write!(f, "descriptor index {index} is out of range")
            }
            BrokenRing::IndirectNotNegotiated => {
                f.write_str("an indirect descriptor without the feature")
            }
            BrokenRing::IndirectWithNext => f.write_str("an indirect descriptor with a next one"),
            BrokenRing::IndirectNested => f.write_str("an indirect table inside another"),
            BrokenRing::IndirectLength(len) => write!(f, "an indirect table of {len} bytes"),
            BrokenRing::AvailJump(count) => {
                write!(
                    f,
                    "{count} requests made available, more than the queue holds"
                )
            }
            BrokenRing::InFlight(head) => {
                write!(f, "chain {head} made available twice")
            }
            BrokenRing::RingMemory => f.write_str("the ring is not in guest memory"),
        }
    }
}

/// What is wrong with a chain's buffers; the request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Defect {
    /// A buffer that is not guest memory.
    Unaddressable,
    /// A readable buffer after a writable one.
    Order,
    /// More than 4 GiB.
    TooLong,
}

/// What transport has to know of a request: enough to answer for a handler that cannot. The
/// handler gets this header, too, so that both believe the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peek {
    pub(super) opcode: Opcode,
    pub(super) header: InHeader,
}

#[derive(Clone, Copy)]
struct Descriptor {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    #[inline]
    fn from_raw(RawDescriptor(low, high): RawDescriptor) -> Descriptor {
        let [l0, l1, l2, l3, f0, f1, n0, n1] = high.to_le_bytes();
        Descriptor {
            addr: low,
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            flags: u16::from_le_bytes([f0, f1]),
            next: u16::from_le_bytes([n0, n1]),
        }
    }

    fn from_bytes(bytes: &[u8; DESCRIPTOR_SIZE]) -> Descriptor {
        let word = |bytes: &[u8]| bytes.first_chunk().copied().map_or(0, u64::from_le_bytes);
        let (low, high) = bytes.split_at(DESCRIPTOR_SIZE / 2);
        Descriptor::from_raw(RawDescriptor(word(low), word(high)))
    }

    fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// A descriptor as two little-endian words.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RawDescriptor(u64, u64);

/// Where the descriptors of a queue are.
#[derive(Debug)]
pub(super) struct DescriptorTable {
    pub(super) window: Window,
    pub(super) size: u16,
    /// Whether the driver accepted VIRTIO_RING_F_INDIRECT_DESC.
    pub(super) indirect: bool,
}

impl DescriptorTable {
    /// The descriptor with this index.
    ///
    /// # Errors
    /// [`BrokenRing::IndexOutOfRange`].
    #[inline]
    pub(super) fn read(&self, index: u16) -> Result<RawDescriptor, BrokenRing> {
        if index >= self.size {
            return Err(BrokenRing::IndexOutOfRange(index));
        }
        let at = usize::from(index).saturating_mul(DESCRIPTOR_SIZE);
        let (low, high) = self.window.load_2_u64(at).ok_or(BrokenRing::RingMemory)?;
        Ok(RawDescriptor(low, high))
    }
}

/// One request's buffers. Made once and loaded anew for each request, so that the vectors keep
/// their memory.
#[derive(Debug, Default)]
pub(super) struct Chain {
    head: u16,
    readable: Vec<Segment>,
    writable: Vec<Segment>,
    readable_bytes: usize,
    writable_bytes: usize,
    total_bytes: u64,
    saw_writable: bool,
    readable_ended: bool,
    writable_ended: bool,
    defect: Option<Defect>,
    peek: Option<Peek>,
    table: Vec<u8>,
    table_place: Vec<Segment>,
    /// The memory region that the last piece was in: the next one is mostly there, too.
    region: usize,
}

impl Chain {
    /// The index that the used ring names the request by.
    pub(super) fn head(&self) -> u16 {
        self.head
    }

    /// The pieces of the request, in order.
    pub(super) fn readable(&self) -> &[Segment] {
        &self.readable
    }

    /// The pieces for the reply, in order.
    pub(super) fn writable(&self) -> &[Segment] {
        &self.writable
    }

    /// Bytes in [`Chain::readable`].
    pub(super) fn readable_bytes(&self) -> usize {
        self.readable_bytes
    }

    /// Bytes in [`Chain::writable`].
    pub(super) fn writable_bytes(&self) -> usize {
        self.writable_bytes
    }

    /// The request's header, if it is there and readable.
    pub(super) fn peek(&self) -> Option<&Peek> {
        self.peek.as_ref()
    }

    /// Why this chain must not be served.
    pub(super) fn defect(&self) -> Option<Defect> {
        self.defect
    }

    /// Reads the chain that starts at `head` with `first`, and the header of its request.
    ///
    /// # Errors
    /// [`BrokenRing`] when the structure is wrong; the chain means nothing then.
    pub(super) fn load(
        &mut self,
        head: u16,
        first: RawDescriptor,
        table: &DescriptorTable,
        ram: &GuestRam,
    ) -> Result<(), BrokenRing> {
        self.forget(head);
        self.load_pieces(first, table, ram)?;
        let mut header = InHeader::zero();
        if guest_io::copy_out(ram, &self.readable, header.as_wire_mut()) {
            let opcode = Opcode::from_raw(header.opcode);
            self.peek = Some(Peek { opcode, header });
        }
        Ok(())
    }

    /// The same without having read the first descriptor before.
    ///
    /// # Errors
    /// As for [`Chain::load`].
    #[cfg(any(test, fuzzing))]
    pub(super) fn load_from(
        &mut self,
        head: u16,
        table: &DescriptorTable,
        ram: &GuestRam,
    ) -> Result<(), BrokenRing> {
        self.load(head, table.read(head)?, table, ram)
    }

    fn load_pieces(
        &mut self,
        first: RawDescriptor,
        table: &DescriptorTable,
        ram: &GuestRam,
    ) -> Result<(), BrokenRing> {
        let mut raw = first;
        for _ in 0..table.size {
            let descriptor = Descriptor::from_raw(raw);
            if descriptor.has(FLAG_INDIRECT) {
                if !table.indirect {
                    return Err(BrokenRing::IndirectNotNegotiated);
                }
                if descriptor.has(FLAG_NEXT) {
                    return Err(BrokenRing::IndirectWithNext);
                }
                return self.load_indirect(&descriptor, ram);
            }
            self.add(&descriptor, ram);
            if !descriptor.has(FLAG_NEXT) {
                return Ok(());
            }
            raw = table.read(descriptor.next)?;
        }
        Err(BrokenRing::Loop)
    }

    fn forget(&mut self, head: u16) {
        self.head = head;
        self.readable.clear();
        self.writable.clear();
        self.readable_bytes = 0;
        self.writable_bytes = 0;
        self.total_bytes = 0;
        self.saw_writable = false;
        self.readable_ended = false;
        self.writable_ended = false;
        self.defect = None;
        self.peek = None;
    }

    fn load_indirect(&mut self, descriptor: &Descriptor, ram: &GuestRam) -> Result<(), BrokenRing> {
        let bad_length = || BrokenRing::IndirectLength(descriptor.len);
        let len = usize::try_from(descriptor.len).map_err(|_| bad_length())?;
        let count = len / DESCRIPTOR_SIZE;
        if len == 0 || len % DESCRIPTOR_SIZE != 0 || count > INDIRECT_COUNT_MAX {
            return Err(bad_length());
        }
        self.table_place.clear();
        self.table.resize(len, 0);
        let is_there = match ram.segment_in(self.region, descriptor.addr, descriptor.len.into()) {
            Some(segment) => guest_io::copy_out(ram, &[segment], &mut self.table),
            None => {
                translate(ram, descriptor, &mut self.region, &mut self.table_place)
                    && guest_io::copy_out(ram, &self.table_place, &mut self.table)
            }
        };
        if !is_there {
            // The ring is well-formed, it is the table's address that is not.
            self.mark(Defect::Unaddressable);
            return Ok(());
        }
        // The walk needs the table and the pieces at once; taking the vector costs nothing.
        let table = std::mem::take(&mut self.table);
        let walked = self.walk_table(&table, count, ram);
        self.table = table;
        walked
    }

    fn walk_table(&mut self, table: &[u8], count: usize, ram: &GuestRam) -> Result<(), BrokenRing> {
        let mut index = 0_u16;
        for _ in 0..count {
            let descriptor = table
                .get(usize::from(index).saturating_mul(DESCRIPTOR_SIZE)..)
                .and_then(|rest| rest.first_chunk())
                .map(Descriptor::from_bytes)
                .ok_or(BrokenRing::IndexOutOfRange(index))?;
            if descriptor.has(FLAG_INDIRECT) {
                return Err(BrokenRing::IndirectNested);
            }
            self.add(&descriptor, ram);
            if !descriptor.has(FLAG_NEXT) {
                return Ok(());
            }
            index = descriptor.next;
        }
        Err(BrokenRing::Loop)
    }

    /// Adds the buffer of one descriptor. Nearly always it is all right, and in the same region as
    /// the one before.
    #[inline(always)]
    fn add(&mut self, descriptor: &Descriptor, ram: &GuestRam) {
        let len = u64::from(descriptor.len);
        let is_writable = descriptor.has(FLAG_WRITE);
        let total = self.total_bytes.saturating_add(len);
        let is_in_order = self.defect.is_none() && (is_writable || !self.saw_writable);
        match ram.segment_in(self.region, descriptor.addr, len) {
            Some(segment) if is_in_order && total <= CHAIN_BYTES_MAX => {
                self.total_bytes = total;
                if is_writable {
                    self.saw_writable = true;
                    self.writable_bytes = self.writable_bytes.saturating_add(segment.len());
                    segment.append_to(&mut self.writable);
                } else {
                    self.readable_bytes = self.readable_bytes.saturating_add(segment.len());
                    segment.append_to(&mut self.readable);
                }
            }
            _ => self.add_with_care(descriptor, ram),
        }
    }

    /// The same for any buffer.
    fn add_with_care(&mut self, descriptor: &Descriptor, ram: &GuestRam) {
        let Ok(len) = usize::try_from(descriptor.len) else {
            return self.end_too_long(descriptor);
        };
        if len == 0 {
            return;
        }
        let total = self.total_bytes.saturating_add(u64::from(descriptor.len));
        if total > CHAIN_BYTES_MAX {
            return self.end_too_long(descriptor);
        }
        self.total_bytes = total;
        let region = &mut self.region;
        if descriptor.has(FLAG_WRITE) {
            self.saw_writable = true;
            if self.writable_ended {
                return;
            }
            if translate(ram, descriptor, region, &mut self.writable) {
                self.writable_bytes = self.writable_bytes.saturating_add(len);
            } else {
                // What follows a hole is not at its place in the reply any more.
                self.writable_ended = true;
                self.mark(Defect::Unaddressable);
            }
            return;
        }
        if self.saw_writable {
            return self.mark(Defect::Order);
        }
        if self.readable_ended {
            return;
        }
        if translate(ram, descriptor, region, &mut self.readable) {
            self.readable_bytes = self.readable_bytes.saturating_add(len);
        } else {
            self.readable_ended = true;
            self.mark(Defect::Unaddressable);
        }
    }

    /// Leaves a buffer out that makes the chain too long. What comes after it in the same direction
    /// is not at its place any more; room for an error reply may still follow a long request.
    fn end_too_long(&mut self, descriptor: &Descriptor) {
        if descriptor.has(FLAG_WRITE) {
            self.saw_writable = true;
            self.writable_ended = true;
        } else {
            self.readable_ended = true;
        }
        self.mark(Defect::TooLong);
    }

    fn mark(&mut self, defect: Defect) {
        self.defect.get_or_insert(defect);
    }
}

/// [`GuestRam::translate`], which leaves the number of the last region in `region`.
fn translate(
    ram: &GuestRam,
    descriptor: &Descriptor,
    region: &mut usize,
    segments: &mut Vec<Segment>,
) -> bool {
    let translated = ram.translate(descriptor.addr, u64::from(descriptor.len), segments);
    *region = segments.last().map_or(0, Segment::region);
    translated
}

#[cfg(test)]
mod tests;
