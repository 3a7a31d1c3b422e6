//! What: reading what is in memory, and nothing else.
//!
//! In: a READ that would rather not wait. Out: its contents, or `EAGAIN`.
//!
//! The best way is to ask and read in one call, preadv2(2) with `RWF_NOWAIT`, which most local file
//! systems can. Of the others (FUSE, NFS, CIFS, ...) Linux 6.5 and later tell what is in the page
//! cache, by cachestat(2); that is a call of its own, so it is made only when waiting is refused.
//! On tmpfs all is in memory. Where nothing can be found out it is `EAGAIN`, too, if waiting is
//! refused; then how long such reads take decides.
//!
//! Invariants: what RWF_NOWAIT cuts short for want of pages is never taken for the end of the
//! file. What was found out of a file system is kept for the session, and in each handle, so that
//! no read takes a lock for it. Does not: decide who may wait.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU8, Ordering};

use super::PassthroughFs;
use super::store::handles::Handle;
use crate::fs::data::DataSink;
use crate::fs::filesystem::{ReadRequest, Waiting};
use crate::sys::data::RWF_NOWAIT;
use crate::sys::errno::{Errno, Result};
use crate::sys::fs_type::FsType;
use crate::sys::open::HostOpenFlags;
use crate::sys::page_cache;

/// The smallest unit in which contents are in memory or not: a page is no smaller on any machine.
const PAGE_LEN: u64 = 4096;

/// How to find out, on one file system, whether a read would wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// `RWF_NOWAIT`.
    NoWait,
    /// cachestat(2).
    PageCache,
    /// It never does.
    Memory,
    /// Not at all.
    Nothing,
}

impl Probe {
    /// What needs no trying.
    pub(super) const fn of_kind(kind: FsType) -> Option<Self> {
        match kind {
            FsType::Tmpfs => Some(Probe::Memory),
            _ => None,
        }
    }
}

/// A [`Probe`] that may not be known yet. Relaxed: whoever does not see it finds out once more.
#[derive(Debug, Default)]
pub(super) struct ProbeCell(AtomicU8);

impl ProbeCell {
    fn get(&self) -> Option<Probe> {
        match self.0.load(Ordering::Relaxed) {
            1 => Some(Probe::NoWait),
            2 => Some(Probe::PageCache),
            3 => Some(Probe::Memory),
            4 => Some(Probe::Nothing),
            _ => None,
        }
    }

    fn set(&self, probe: Probe) {
        let number = match probe {
            Probe::NoWait => 1,
            Probe::PageCache => 2,
            Probe::Memory => 3,
            Probe::Nothing => 4,
        };
        self.0.store(number, Ordering::Relaxed);
    }
}

/// A read of one open file.
struct Prompt<'a> {
    handle: &'a Handle,
    file: BorrowedFd<'a>,
    offset: u64,
    len: usize,
    waiting: Waiting,
}

impl PassthroughFs {
    /// Reads what is in memory.
    ///
    /// # Errors
    /// `EAGAIN` when not all of it is, and what preadv2(2) says.
    pub(super) fn read_promptly(
        &self,
        request: &ReadRequest,
        handle: &Handle,
        sink: &mut dyn DataSink,
    ) -> Result<usize> {
        let flags = HostOpenFlags::from_bits_retain(request.flags.bits());
        if self.settings.allow_direct_io && flags.contains(HostOpenFlags::DIRECT) {
            // It goes past all that is in memory.
            return Err(Errno::EAGAIN);
        }
        let asked = usize::try_from(request.size_bytes).unwrap_or(usize::MAX);
        let prompt = Prompt {
            handle,
            file: handle.file()?,
            offset: request.offset,
            len: asked.min(sink.capacity()),
            waiting: request.waiting,
        };
        loop {
            match self.probe_of(request, &prompt) {
                None | Some(Probe::NoWait) => match read_cached(&prompt, sink) {
                    Err(Errno::EOPNOTSUPP) => self.learn(request, &prompt, Probe::PageCache),
                    read => {
                        if handle.probe.get().is_none() && read.is_ok() {
                            self.learn(request, &prompt, Probe::NoWait);
                        }
                        return read;
                    }
                },
                Some(Probe::Memory) => return read_waiting(&prompt, sink),
                Some(Probe::PageCache | Probe::Nothing) if prompt.waiting == Waiting::Avoided => {
                    return read_waiting(&prompt, sink);
                }
                Some(Probe::PageCache) => {
                    match page_cache::holds(prompt.file, prompt.offset, prompt.len) {
                        Ok(true) => return read_waiting(&prompt, sink),
                        Ok(false) => return Err(Errno::EAGAIN),
                        Err(Errno::ENOSYS | Errno::EOPNOTSUPP) => {
                            self.learn(request, &prompt, Probe::Nothing);
                        }
                        // Of this file we may not know.
                        Err(_) => handle.probe.set(Probe::Nothing),
                    }
                }
                Some(Probe::Nothing) => return Err(Errno::EAGAIN),
            }
        }
    }

    fn probe_of(&self, request: &ReadRequest, prompt: &Prompt<'_>) -> Option<Probe> {
        if let Some(known) = prompt.handle.probe.get() {
            return Some(known);
        }
        let place = self.store.get(request.node).ok()?.identity.place;
        let probe = self.file_systems.probe(place, prompt.file)?;
        prompt.handle.probe.set(probe);
        Some(probe)
    }

    fn learn(&self, request: &ReadRequest, prompt: &Prompt<'_>, probe: Probe) {
        prompt.handle.probe.set(probe);
        if let Ok(inode) = self.store.get(request.node) {
            self.file_systems.learn_probe(inode.identity.place, probe);
        }
    }
}

fn read_waiting(prompt: &Prompt<'_>, sink: &mut dyn DataSink) -> Result<usize> {
    sink.read_from(prompt.file, prompt.offset, prompt.len, 0)
}

/// With `RWF_NOWAIT` a read is short at the end of the file, and where a page is not in memory,
/// which is at the border of one. Borders are asked about once more.
fn read_cached(prompt: &Prompt<'_>, sink: &mut dyn DataSink) -> Result<usize> {
    let mut done = 0;
    let mut offset = prompt.offset;
    loop {
        let left = prompt.len.saturating_sub(done);
        let read = sink.read_from(prompt.file, offset, left, RWF_NOWAIT)?;
        done = done.saturating_add(read);
        offset = offset.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        if read == 0 || done >= prompt.len || !offset.is_multiple_of(PAGE_LEN) {
            return Ok(done);
        }
    }
}
