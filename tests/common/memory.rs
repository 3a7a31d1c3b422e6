//! What: the memory of the guest, in one or several shared regions.
//!
//! In: a layout. Out: mapped memfd regions, byte access by guest address across regions, atomics
//! for ring indices, and snapshots. The addresses that the front end announces for its own
//! mapping (`user_addr`) are made up, so that a daemon that mixes them up with guest addresses
//! fails at once.
//!
//! Invariants: no Rust reference to the bytes is ever made, other than to atomics: the daemon
//! writes them at any time.
#![allow(unsafe_code, reason = "maps memory and copies to and from it")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, AtomicU32};
use std::sync::{Arc, RwLock};

use vhost::VhostUserMemoryRegionInfo;

use super::{u64_of, usize_of64};

/// What the front end adds to a guest address to make its own (made-up) address.
pub(crate) const USER_ADDR_OFFSET: u64 = 0x7f00_0000_0000;

/// Where one region lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) gpa: u64,
    pub(crate) len: u64,
}

/// How guest memory is divided.
#[derive(Clone, Debug)]
pub(crate) struct MemoryLayout(pub(crate) Vec<Span>);

impl MemoryLayout {
    /// One region from guest address `gpa`.
    pub(crate) fn one(len: u64) -> Self {
        Self::several(1, len, 0)
    }

    /// `count` regions of `len` bytes each, `hole` bytes apart (0: adjacent).
    pub(crate) fn several(count: u64, len: u64, hole: u64) -> Self {
        let base = 0x10_0000;
        MemoryLayout(
            (0..count)
                .map(|index| Span {
                    gpa: base + index * (len + hole),
                    len,
                })
                .collect(),
        )
    }
}

/// One mapped region.
#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) span: Span,
    file: File,
    ptr: *mut u8,
}

// SAFETY: the mapping stays for the life of the value, and every access is either atomic or a
// raw copy that expects concurrent writers.
unsafe impl Send for Region {}
// SAFETY: as for Send.
unsafe impl Sync for Region {}

impl Region {
    pub(crate) fn new(span: Span) -> Self {
        let file = super::sys::memfd(span.len);
        // SAFETY: a fresh shared mapping of a file that has span.len bytes.
        let ptr = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                usize_of64(span.len),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(
            ptr,
            libc::MAP_FAILED,
            "mmap of guest memory: {}",
            std::io::Error::last_os_error()
        );
        Region {
            span,
            file,
            ptr: ptr.cast(),
        }
    }

    /// What the front end tells the daemon about it.
    pub(crate) fn info(&self) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: self.span.gpa,
            memory_size: self.span.len,
            userspace_addr: self.span.gpa + USER_ADDR_OFFSET,
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        let end = offset.checked_add(len).expect("no overflow in a test");
        assert!(
            end <= usize_of64(self.span.len),
            "access to {offset}+{len} beyond a region of {} bytes",
            self.span.len
        );
        // SAFETY: offset is within the mapping, as just checked.
        unsafe { self.ptr.add(offset) }
    }

    /// For system calls; others write to it at any time.
    pub(crate) fn raw(&self, offset: usize, len: usize) -> *mut u8 {
        self.at(offset, len)
    }

    pub(crate) fn read(&self, offset: usize, buf: &mut [u8]) {
        let from = self.at(offset, buf.len());
        // SAFETY: `from` is valid for buf.len() bytes and cannot overlap memory that Rust owns.
        unsafe { std::ptr::copy_nonoverlapping(from, buf.as_mut_ptr(), buf.len()) };
    }

    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        let to = self.at(offset, bytes.len());
        // SAFETY: `to` is valid for bytes.len() bytes and cannot overlap memory that Rust owns.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    /// A ring index that both sides use.
    pub(crate) fn atomic_u16(&self, offset: usize) -> &AtomicU16 {
        let ptr = self.at(offset, 2);
        assert_eq!(ptr.addr() % 2, 0, "a ring index must be aligned");
        // SAFETY: aligned, in the mapping, which lives as long as self; only accessed atomically.
        unsafe { AtomicU16::from_ptr(ptr.cast()) }
    }

    /// Half of a used element.
    pub(crate) fn atomic_u32(&self, offset: usize) -> &AtomicU32 {
        let ptr = self.at(offset, 4);
        assert_eq!(ptr.addr() % 4, 0, "a used element must be aligned");
        // SAFETY: aligned, in the mapping, which lives as long as self; only accessed atomically.
        unsafe { AtomicU32::from_ptr(ptr.cast()) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in new() with this length and nothing refers to it now.
        unsafe { libc::munmap(self.ptr.cast(), usize_of64(self.span.len)) };
    }
}

/// All regions of a guest.
#[derive(Debug)]
pub(crate) struct GuestMemory {
    regions: RwLock<Vec<Arc<Region>>>,
}

impl GuestMemory {
    pub(crate) fn new(layout: &MemoryLayout) -> Self {
        let regions = layout.0.iter().map(|span| Arc::new(Region::new(*span)));
        GuestMemory {
            regions: RwLock::new(regions.collect()),
        }
    }

    /// The regions as they are now.
    pub(crate) fn regions(&self) -> Vec<Arc<Region>> {
        self.regions
            .read()
            .expect("no panic while regions change")
            .clone()
    }

    /// Memory that is plugged in while the guest runs.
    pub(crate) fn add(&self, span: Span) -> Arc<Region> {
        let region = Arc::new(Region::new(span));
        self.add_region(Arc::clone(&region));
        region
    }

    /// The same with memory that exists.
    pub(crate) fn add_region(&self, region: Arc<Region>) {
        let mut regions = self.regions.write().expect("no panic while regions change");
        regions.push(region);
    }

    /// Memory that is pulled out.
    pub(crate) fn remove(&self, gpa: u64) -> Arc<Region> {
        let mut regions = self.regions.write().expect("no panic while regions change");
        let index = regions
            .iter()
            .position(|region| region.span.gpa == gpa)
            .unwrap_or_else(|| panic!("no region at {gpa:#x}"));
        regions.remove(index)
    }

    /// Calls `step(region, offset in region, range in the access)` for each part of an access.
    fn walk(
        &self,
        gpa: u64,
        len: usize,
        mut step: impl FnMut(&Region, usize, std::ops::Range<usize>),
    ) {
        let regions = self.regions.read().expect("no panic while regions change");
        let mut done = 0;
        while done < len {
            let here = gpa + u64_of(done);
            let region = regions
                .iter()
                .find(|region| (region.span.gpa..region.span.gpa + region.span.len).contains(&here))
                .unwrap_or_else(|| panic!("guest address {here:#x} is in no region"));
            let offset = usize_of64(here - region.span.gpa);
            let part = (len - done).min(usize_of64(region.span.len) - offset);
            step(region, offset, done..done + part);
            done += part;
        }
    }

    pub(crate) fn read(&self, gpa: u64, buf: &mut [u8]) {
        self.walk(gpa, buf.len(), |region, offset, range| {
            region.read(offset, &mut buf[range]);
        });
    }

    pub(crate) fn read_vec(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut buf = vec![0; len];
        self.read(gpa, &mut buf);
        buf
    }

    pub(crate) fn write(&self, gpa: u64, bytes: &[u8]) {
        self.walk(gpa, bytes.len(), |region, offset, range| {
            region.write(offset, &bytes[range]);
        });
    }

    /// Every byte of every region.
    pub(crate) fn snapshot(&self) -> Vec<Vec<u8>> {
        let copy = |region: &Arc<Region>| {
            let mut bytes = vec![0; usize_of64(region.span.len)];
            region.read(0, &mut bytes);
            bytes
        };
        self.regions().iter().map(copy).collect()
    }
}
