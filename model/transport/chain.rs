//! What: as much of `chain.rs` of the daemon as a ring needs: heads without descriptors.
//!
//! In and out: as there.

use super::memory::{GuestRam, Window};

/// The ring itself is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BrokenRing {
    AvailJump(u16),
    IndexOutOfRange(u16),
    InFlight(u16),
    RingMemory,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RawDescriptor;

#[derive(Debug)]
#[allow(dead_code)]
pub(super) struct DescriptorTable {
    pub(super) window: Window,
    pub(super) size: u16,
    pub(super) indirect: bool,
}

impl DescriptorTable {
    pub(super) fn read(&self, _index: u16) -> Result<RawDescriptor, BrokenRing> {
        Ok(RawDescriptor)
    }
}

#[derive(Debug)]
pub(super) struct Chain;

impl Chain {
    pub(super) fn load(
        &mut self,
        _head: u16,
        _first: RawDescriptor,
        _table: &DescriptorTable,
        _ram: &GuestRam,
    ) -> Result<(), BrokenRing> {
        Ok(())
    }
}
