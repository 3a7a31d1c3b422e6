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
        let file = handle.file()?;
        let offset = request.offset;
        let asked = usize::try_from(request.size_bytes).unwrap_or(usize::MAX);
        let len = asked.min(sink.capacity());
        loop {
            let probe = self.probe_of(request, handle, file);
            match probe {
                None | Some(Probe::NoWait) => match read_cached(file, offset, len, sink) {
                    Err(Errno::EOPNOTSUPP) => self.learn(request, handle, Probe::PageCache),
                    read => {
                        if probe.is_none() && read.is_ok() {
                            self.learn(request, handle, Probe::NoWait);
                        }
                        return read;
                    }
                },
                Some(Probe::Memory) => return sink.read_from(file, offset, len, 0),
                Some(Probe::PageCache | Probe::Nothing) if request.waiting == Waiting::Avoided => {
                    return sink.read_from(file, offset, len, 0);
                }
                Some(Probe::PageCache) => match page_cache::holds(file, offset, len) {
                    Ok(true) => return sink.read_from(file, offset, len, 0),
                    Ok(false) => return Err(Errno::EAGAIN),
                    Err(Errno::ENOSYS | Errno::EOPNOTSUPP) => {
                        self.learn(request, handle, Probe::Nothing);
                    }
                    // Of this file we may not know.
                    Err(_) => handle.probe.set(Probe::Nothing),
                },
                Some(Probe::Nothing) => return Err(Errno::EAGAIN),
            }
        }
    }

    fn probe_of(
        &self,
        request: &ReadRequest,
        handle: &Handle,
        file: BorrowedFd<'_>,
    ) -> Option<Probe> {
        if let Some(known) = handle.probe.get() {
            return Some(known);
        }
        let place = self.store.get(request.node).ok()?.identity.place;
        let probe = self.file_systems.probe(place, file)?;
        handle.probe.set(probe);
        Some(probe)
    }

    fn learn(&self, request: &ReadRequest, handle: &Handle, probe: Probe) {
        handle.probe.set(probe);
        if let Ok(inode) = self.store.get(request.node) {
            self.file_systems.learn_probe(inode.identity.place, probe);
        }
    }
}

/// With `RWF_NOWAIT` a read is short at the end of the file, and where a page is not in memory,
/// which is at the border of one. Borders are asked about once more.
fn read_cached(
    file: BorrowedFd<'_>,
    mut offset: u64,
    len: usize,
    sink: &mut dyn DataSink,
) -> Result<usize> {
    let mut done = 0;
    loop {
        let left = len.saturating_sub(done);
        let read = sink.read_from(file, offset, left, RWF_NOWAIT)?;
        done = done.saturating_add(read);
        offset = offset.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        if read == 0 || done >= len || !offset.is_multiple_of(PAGE_LEN) {
            return Ok(done);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    /// What each read gives.
    struct Script(Vec<Result<usize>>);

    impl DataSink for Script {
        fn capacity(&self) -> usize {
            1 << 20
        }

        fn read_from(
            &mut self,
            _: BorrowedFd<'_>,
            offset: u64,
            len: usize,
            rwf_flags: i32,
        ) -> Result<usize> {
            assert_eq!(rwf_flags, RWF_NOWAIT);
            assert!(len > 0, "nothing is left to ask for at {offset}");
            self.0.remove(0)
        }
    }

    fn read(offset: u64, len: usize, script: &[Result<usize>]) -> (Result<usize>, usize) {
        let null = File::open("/dev/null").unwrap();
        let handle = null.as_fd();
        let mut script = Script(script.to_vec());
        let read = read_cached(handle, offset, len, &mut script);
        (read, script.0.len())
    }

    #[test]
    fn read_cached_asks_once_for_a_whole_one_and_at_an_end_inside_a_page() {
        for (offset, len, got) in [
            (0, 4096, 4096),
            (0, 8192, 5000),
            (100, 4096, 50),
            (0, 4096, 0),
        ] {
            assert_eq!(
                read(offset, len, &[Ok(got)]),
                (Ok(got), 0),
                "{offset} {len} {got}"
            );
        }
    }

    #[test]
    fn read_cached_asks_again_at_a_border_and_believes_only_that_there_is_no_more() {
        assert_eq!(read(0, 8192, &[Ok(4096), Ok(0)]), (Ok(4096), 0));
        assert_eq!(read(96, 8192, &[Ok(4000), Ok(4192)]), (Ok(8192), 0));
        let pieces = [Ok(4096), Ok(4096), Ok(100)];
        assert_eq!(read(4096, 16384, &pieces), (Ok(8292), 0));
    }

    #[test]
    fn read_cached_in_part_is_eagain_for_all() {
        let rest_waits = [Ok(4096), Err(Errno::EAGAIN)];
        assert_eq!(read(0, 8192, &rest_waits), (Err(Errno::EAGAIN), 0));
        assert_eq!(
            read(0, 8192, &[Err(Errno::EAGAIN)]),
            (Err(Errno::EAGAIN), 0)
        );
    }

    #[test]
    fn probe_that_was_learned_is_kept() {
        let cell = ProbeCell::default();
        assert_eq!(cell.get(), None);
        for probe in [
            Probe::NoWait,
            Probe::PageCache,
            Probe::Memory,
            Probe::Nothing,
        ] {
            cell.set(probe);
            assert_eq!(cell.get(), Some(probe));
        }
    }
}
