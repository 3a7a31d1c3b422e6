//! What: the guest's memory as the front end handed it over.
//!
//! In: regions (guest-physical start, size, front-end address) and the descriptors behind them.
//! Out: [`GuestRam`], one immutable table shared as `Arc<GuestRam>`; [`Segment`], a checked piece
//! of it as plain data; [`Window`], a checked piece that keeps its region mapped.
//!
//! Invariants: regions are sorted, not empty, and overlap neither in guest-physical nor in
//! front-end addresses; a segment or window, once made, lies inside one region. A table never
//! changes: adding and removing makes a new one that shares the regions, so whoever still works
//! with the old one works on memory that stays mapped. No Rust reference into the memory exists.
//! A region that its file was cut under is lost as a whole once that is noticed, see `sys::sigbus`:
//! every access to it fails from then on, the one that noticed it included.
//!
//! Does not: know what a ring or a request is.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::sys::sigbus::Watch;

use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

/// The most regions of a table; 509 is what the other vhost-user back ends tell the front end.
pub(super) const REGION_COUNT_MAX: usize = 509;

/// Smallest unit of a mapping. Files on huge pages tell a larger one in `st_blksize`.
const PAGE_SIZE_MIN: u64 = 4096;

/// Why a change of the memory table was refused; the table before stays in force.
#[derive(Debug)]
pub(super) enum MemoryError {
    /// The front end shares no memory at all.
    NoRegions,
    /// More than [`REGION_COUNT_MAX`].
    TooManyRegions,
    /// Size zero, or an end beyond 2^64.
    BadRange(RegionSpec),
    /// Two regions claim the same addresses.
    Overlap(RegionSpec),
    /// The file is shorter than the region.
    BeyondFile(RegionSpec, u64),
    /// No such region to remove.
    Unknown(RegionSpec),
    /// fstat(2) failed.
    Stat(io::Error),
    /// mmap(2) failed.
    Map(RegionSpec, String),
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MemoryError::NoRegions => f.write_str(
                "the front end shares no guest memory: add share=on to its memory backend",
            ),
            MemoryError::TooManyRegions => {
                write!(f, "more than {REGION_COUNT_MAX} memory regions")
            }
            MemoryError::BadRange(spec) => {
                write!(f, "{spec} is empty or ends beyond the address space")
            }
            MemoryError::Overlap(spec) => write!(f, "{spec} overlaps another region"),
            MemoryError::BeyondFile(spec, len) => {
                write!(f, "{spec} reaches beyond its file of {len} bytes")
            }
            MemoryError::Unknown(spec) => write!(f, "there is no {spec} to remove"),
            MemoryError::Stat(error) => write!(f, "the memory file does not answer: {error}"),
            MemoryError::Map(spec, error) => write!(f, "{spec} cannot be mapped: {error}"),
        }
    }
}

/// A region as the front end describes it; nothing is checked yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RegionSpec {
    pub(super) guest_start: u64,
    pub(super) size: u64,
    /// Where the front end has mapped it; ring addresses are given in these terms.
    pub(super) user_start: u64,
    pub(super) mmap_offset: u64,
}

impl fmt::Display for RegionSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "memory region of {:#x} bytes at guest address {:#x}",
            self.size, self.guest_start
        )
    }
}

impl RegionSpec {
    fn has_valid_range(&self) -> bool {
        self.size != 0
            && self.guest_start.checked_add(self.size).is_some()
            && self.user_start.checked_add(self.size).is_some()
            && self.mmap_offset.checked_add(self.size).is_some()
    }

    fn overlaps(&self, other: &RegionSpec) -> bool {
        overlap(self.guest_start, self.size, other.guest_start, other.size)
            || overlap(self.user_start, self.size, other.user_start, other.size)
    }
}

/// Both ranges have been checked to end inside the address space.
fn overlap(a: u64, a_len: u64, b: u64, b_len: u64) -> bool {
    a < b.saturating_add(b_len) && b < a.saturating_add(a_len)
}

/// One mapped region.
#[derive(Debug)]
struct Region {
    spec: RegionSpec,
    size: usize,
    /// Before the mapping, which must not go first.
    watch: Watch,
    mapping: MmapRegion<()>,
    /// Bytes of the mapping before the region, from rounding its file offset to a page.
    slack: usize,
}

impl Region {
    fn map(spec: RegionSpec, file: File) -> Result<Region, MemoryError> {
        let bad_range = || MemoryError::BadRange(spec);
        if !spec.has_valid_range() {
            return Err(bad_range());
        }
        let metadata = file.metadata().map_err(MemoryError::Stat)?;
        let file_end = spec
            .mmap_offset
            .checked_add(spec.size)
            .ok_or_else(bad_range)?;
        // Memory beyond the end of a file would raise SIGBUS at the first touch. Devices have no
        // length to compare with.
        if metadata.is_file() && file_end > metadata.len() {
            return Err(MemoryError::BeyondFile(spec, metadata.len()));
        }
        // A hugetlbfs mapping must start, and be unmapped, in whole huge pages.
        let page = match metadata.blksize() {
            size if size.is_power_of_two() => size.max(PAGE_SIZE_MIN),
            _ => PAGE_SIZE_MIN,
        };
        let slack = spec.mmap_offset.checked_rem(page).unwrap_or(0);
        let map_start = spec.mmap_offset.saturating_sub(slack);
        let map_len = slack
            .checked_add(spec.size)
            .and_then(|len| len.checked_next_multiple_of(page))
            .and_then(|len| usize::try_from(len).ok())
            .ok_or_else(bad_range)?;
        let mapping = MmapRegion::from_file(FileOffset::new(file, map_start), map_len)
            .map_err(|error| MemoryError::Map(spec, error.to_string()))?;
        let watch = usize::try_from(page)
            .map_err(io::Error::other)
            .and_then(|page| Watch::new(mapping.as_ptr(), map_len, page))
            .map_err(|error| MemoryError::Map(spec, error.to_string()))?;
        Ok(Region {
            spec,
            size: usize::try_from(spec.size).map_err(|_| bad_range())?,
            watch,
            mapping,
            slack: usize::try_from(slack).map_err(|_| bad_range())?,
        })
    }

    /// Passes on what an access gave, unless the access, or an earlier one, found memory missing.
    fn intact<T>(&self, got: T) -> Option<T> {
        (!self.watch.is_lost()).then_some(got)
    }

    #[inline]
    fn slice(&self, offset: usize, len: usize) -> Option<VolatileSlice<'_>> {
        // Checked against the region, not the mapping, which may be larger.
        if offset.checked_add(len)? > self.size {
            return None;
        }
        self.mapping
            .get_slice(self.slack.checked_add(offset)?, len)
            .ok()
    }
}

/// Some bytes of guest memory, in bounds and mapped.
pub(super) struct Piece<'m> {
    region: &'m Region,
    slice: VolatileSlice<'m>,
}

impl Piece<'_> {
    /// Length in bytes.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.slice.len()
    }

    /// Address of the first byte. All are readable and writable for as long as the table lives.
    #[inline]
    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.slice.ptr_guard_mut().as_ptr()
    }

    /// Whether all bytes are known to be there; asked after an access, the answer holds for that.
    #[inline]
    pub(super) fn is_intact(&self) -> bool {
        !self.region.watch.is_lost()
    }
}

/// A piece of guest memory inside one region, as plain data. Means something only together with
/// the [`GuestRam`] it was made from; with another one it is out of bounds or some other piece,
/// never outside guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    region: usize,
    offset: usize,
    len: usize,
}

impl Segment {
    /// Length in bytes, never zero.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Number of the region that it is in.
    pub(super) fn region(&self) -> usize {
        self.region
    }

    /// Adds it behind the others, grown onto the last one where it continues that.
    #[inline]
    pub(super) fn append_to(self, segments: &mut Vec<Segment>) {
        let is_absorbed = segments.last_mut().is_some_and(|last| last.absorb(&self));
        if !is_absorbed {
            segments.push(self);
        }
    }

    /// Takes `next` in when it starts where this one ends.
    fn absorb(&mut self, next: &Segment) -> bool {
        if self.region != next.region || self.offset.checked_add(self.len) != Some(next.offset) {
            return false;
        }
        match self.len.checked_add(next.len) {
            Some(len) => {
                self.len = len;
                true
            }
            None => false,
        }
    }
}

/// An immutable table of regions.
#[derive(Debug, Default)]
pub(super) struct GuestRam {
    regions: Vec<Arc<Region>>,
}

impl GuestRam {
    /// The table of SET_MEM_TABLE.
    pub(super) fn from_table(table: Vec<(RegionSpec, File)>) -> Result<GuestRam, MemoryError> {
        if table.is_empty() {
            return Err(MemoryError::NoRegions);
        }
        let mut ram = GuestRam::default();
        for (spec, file) in table {
            ram = ram.with_region(spec, file)?;
        }
        Ok(ram)
    }

    /// This table and one more region.
    pub(super) fn with_region(
        &self,
        spec: RegionSpec,
        file: File,
    ) -> Result<GuestRam, MemoryError> {
        if self.regions.len() >= REGION_COUNT_MAX {
            return Err(MemoryError::TooManyRegions);
        }
        if !spec.has_valid_range() {
            return Err(MemoryError::BadRange(spec));
        }
        if self.regions.iter().any(|known| known.spec.overlaps(&spec)) {
            return Err(MemoryError::Overlap(spec));
        }
        let mut regions = self.regions.clone();
        regions.push(Arc::new(Region::map(spec, file)?));
        regions.sort_by_key(|region| region.spec.guest_start);
        Ok(GuestRam { regions })
    }

    /// This table without one region. The offset in the file is not compared: front ends need
    /// not repeat it.
    pub(super) fn without_region(&self, spec: RegionSpec) -> Result<GuestRam, MemoryError> {
        let is_meant = |known: &RegionSpec| {
            known.guest_start == spec.guest_start
                && known.size == spec.size
                && known.user_start == spec.user_start
        };
        if !self.regions.iter().any(|region| is_meant(&region.spec)) {
            return Err(MemoryError::Unknown(spec));
        }
        let regions = self
            .regions
            .iter()
            .filter(|region| !is_meant(&region.spec))
            .cloned()
            .collect();
        Ok(GuestRam { regions })
    }

    /// Whether the front end has shared no memory.
    pub(super) fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// The guest-physical range as one segment, if all of it lies in the region with the number
    /// `region`.
    #[inline]
    pub(super) fn segment_in(&self, region: usize, start: u64, len: u64) -> Option<Segment> {
        let spec = &self.regions.get(region)?.spec;
        let offset = start.checked_sub(spec.guest_start)?;
        let room = spec.size.checked_sub(offset)?;
        if len > room || len == 0 {
            return None;
        }
        Some(Segment {
            region,
            offset: usize::try_from(offset).ok()?,
            len: usize::try_from(len).ok()?,
        })
    }

    /// Adds the guest-physical range to `segments`, in several pieces where it crosses from one
    /// region into the next, and grown onto the last one where it continues it. Gives false
    /// when a byte of the range is no memory; `segments` is as before then.
    pub(super) fn translate(&self, start: u64, len: u64, segments: &mut Vec<Segment>) -> bool {
        let known = segments.len();
        let last_before = segments.last().copied();
        if self.translate_pieces(start, len, segments).is_some() {
            return true;
        }
        segments.truncate(known);
        if let (Some(last), Some(before)) = (segments.last_mut(), last_before) {
            *last = before;
        }
        false
    }

    fn translate_pieces(
        &self,
        mut start: u64,
        mut len: u64,
        segments: &mut Vec<Segment>,
    ) -> Option<()> {
        let after = self
            .regions
            .partition_point(|region| region.spec.guest_start <= start);
        let mut index = after.checked_sub(1)?;
        while len > 0 {
            let spec = &self.regions.get(index)?.spec;
            let offset = start.checked_sub(spec.guest_start)?;
            let room = spec.size.checked_sub(offset).filter(|room| *room > 0)?;
            let piece = len.min(room);
            let segment = Segment {
                region: index,
                offset: usize::try_from(offset).ok()?,
                len: usize::try_from(piece).ok()?,
            };
            segment.append_to(segments);
            len = len.checked_sub(piece)?;
            start = start.checked_add(piece)?;
            index = index.checked_add(1)?;
        }
        Some(())
    }

    /// Where the segment starts in guest-physical terms, which outlive this table.
    pub(super) fn guest_start(&self, segment: &Segment) -> Option<u64> {
        let region = self.regions.get(segment.region)?;
        let offset = u64::try_from(segment.offset).ok()?;
        region.spec.guest_start.checked_add(offset)
    }

    /// `len` bytes of the segment from `skip` on.
    #[inline]
    pub(super) fn piece(&self, segment: &Segment, skip: usize, len: usize) -> Option<Piece<'_>> {
        if skip.checked_add(len)? > segment.len {
            return None;
        }
        let region = self.regions.get(segment.region)?;
        let slice = region.slice(segment.offset.checked_add(skip)?, len)?;
        Some(Piece { region, slice })
    }

    /// The range of front-end addresses as a window, if all of it lies in one region.
    pub(super) fn user_window(&self, user_start: u64, len: usize) -> Option<Window> {
        for region in &self.regions {
            let Some(offset) = user_start.checked_sub(region.spec.user_start) else {
                continue;
            };
            if offset >= region.spec.size {
                continue;
            }
            let offset = usize::try_from(offset).ok()?;
            region.slice(offset, len)?;
            return Some(Window {
                region: Arc::clone(region),
                at: region.slack.checked_add(offset)?,
                len,
            });
        }
        None
    }
}

/// A part of a ring: a piece of one region that stays mapped as long as the window lives.
#[derive(Clone, Debug)]
pub(super) struct Window {
    region: Arc<Region>,
    /// Where it begins in the mapping.
    at: usize,
    len: usize,
}

impl Window {
    #[inline]
    fn slice(&self, offset: usize, len: usize) -> Option<VolatileSlice<'_>> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        let at = self.at.checked_add(offset)?;
        self.region.mapping.get_slice(at, len).ok()
    }

    /// Whether its first byte is at a multiple of `align`, where this process has it.
    pub(super) fn is_aligned(&self, align: u64) -> bool {
        let start = self.slice(0, 0).map(|slice| slice.ptr_guard().as_ptr());
        let start = start.and_then(|start| u64::try_from(start.addr()).ok());
        start.is_some_and(|start| start.is_multiple_of(align))
    }

    /// One little-endian word; `None` outside the window.
    #[inline]
    pub(super) fn load_u16(&self, offset: usize, order: Ordering) -> Option<u16> {
        let raw: u16 = self.slice(offset, 2)?.load(0, order).ok()?;
        self.region.intact(u16::from_le(raw))
    }

    /// Writes one little-endian word; `None` outside the window.
    #[inline]
    pub(super) fn store_u16(&self, offset: usize, value: u16, order: Ordering) -> Option<()> {
        let stored = self.slice(offset, 2)?.store(value.to_le(), 0, order).ok();
        self.region.intact(stored)?
    }

    /// Two little-endian words, the second behind the first; `None` outside the window or not at a
    /// multiple of 8.
    #[inline]
    pub(super) fn load_2_u64(&self, offset: usize) -> Option<(u64, u64)> {
        let slice = self.slice(offset, 16)?;
        let low: u64 = slice.load(0, Ordering::Relaxed).ok()?;
        let high: u64 = slice.load(8, Ordering::Relaxed).ok()?;
        self.region.intact((u64::from_le(low), u64::from_le(high)))
    }

    /// Writes two little-endian words, the second behind the first; `None` outside the window or
    /// not at a multiple of 4.
    #[inline]
    pub(super) fn store_2_u32(&self, offset: usize, first: u32, second: u32) -> Option<()> {
        let slice = self.slice(offset, 8)?;
        slice.store(first.to_le(), 0, Ordering::Relaxed).ok()?;
        slice.store(second.to_le(), 4, Ordering::Relaxed).ok()?;
        self.region.intact(())
    }

    /// Copies bytes out of the window, once.
    #[inline]
    pub(super) fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.slice(offset, N)?.copy_to(&mut bytes);
        self.region.intact(bytes)
    }

    /// Copies bytes into the window.
    #[cfg(any(test, fuzzing))]
    pub(super) fn write<const N: usize>(&self, offset: usize, bytes: [u8; N]) -> Option<()> {
        self.slice(offset, N)?.copy_from(&bytes);
        self.region.intact(())
    }
}

/// The table in force, for workers that go on while regions are added.
#[derive(Debug, Default)]
pub(super) struct MemoryCell {
    generation: AtomicU64,
    current: Mutex<Arc<GuestRam>>,
}

impl MemoryCell {
    /// The table and its generation.
    pub(super) fn current(&self) -> (u64, Arc<GuestRam>) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        (
            self.generation.load(Ordering::Relaxed),
            Arc::clone(&current),
        )
    }

    /// Whether a table got by [`MemoryCell::current`] is still the one in force. A worker asks
    /// after it has seen a request: the guest can use a region only after the front end has our
    /// answer to its addition, so Acquire here and Release in `replace` order the two.
    pub(super) fn is_current(&self, generation: u64) -> bool {
        self.generation.load(Ordering::Acquire) == generation
    }

    /// Puts a new table in force.
    pub(super) fn replace(&self, ram: GuestRam) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(ram);
        // Pairs with the Acquire in is_current.
        self.generation.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
