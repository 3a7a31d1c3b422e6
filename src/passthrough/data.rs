//! What: contents of open files: read, write, lseek, fallocate, copy_file_range.
//!
//! In: handles and positions. Out: lengths and offsets. Contents go between guest memory and
//! the host's file without passing through here. Invariant: no offset beyond `i64::MAX` reaches
//! the host, where it would be a negative one.

use super::PassthroughFs;
use super::store::unopened_files::Purpose;
use crate::fs::data::{DataSink, DataSource};
use crate::fs::filesystem::{
    CopyRangeRequest, FallocateRequest, OpenNode, ReadRequest, Waiting, WriteRequest,
};
use crate::sys::data::{self, PositionIn, RWF_APPEND, RWF_DSYNC, RWF_SYNC, Whence};
use crate::sys::errno::{Errno, Result};
use crate::wire::flags::OpenFlags;

impl PassthroughFs {
    /// Reads.
    ///
    /// # Errors
    /// `EBADF`, `EISDIR`, `EINVAL` for an offset beyond `i64::MAX`, and what preadv2(2) says;
    /// `EAGAIN` where the request would rather not wait.
    pub(super) fn read_file(
        &self,
        request: &ReadRequest,
        sink: &mut dyn DataSink,
    ) -> Result<usize> {
        let open = OpenNode {
            node: request.node,
            handle: request.handle,
        };
        let handle = self.opened(open, Purpose::Look)?;
        let file = handle.file()?;
        handle.note_read();
        check_offset(request.offset)?;
        let asked = usize::try_from(request.size_bytes).unwrap_or(usize::MAX);
        let len = asked.min(sink.capacity());
        match request.waiting {
            Waiting::Allowed => sink.read_from(file, request.offset, len, 0),
            Waiting::Avoided | Waiting::Refused => self.read_promptly(request, &handle, sink),
        }
    }

    /// Writes. With `O_APPEND` it goes to the end that the file has by then, wherever the guest
    /// believes that to be, so that several guests can append; but pages from the guest's cache
    /// go where they belong, and a guest that holds back writes knows the end best.
    ///
    /// # Errors
    /// `EBADF`, `EISDIR`, `EINVAL` for an offset beyond `i64::MAX`, and what pwritev2(2) says.
    pub(super) fn write_file(
        &self,
        request: &WriteRequest,
        source: &mut dyn DataSource,
    ) -> Result<usize> {
        let open = OpenNode {
            node: request.node,
            handle: request.handle,
        };
        let handle = self.opened(open, Purpose::Change)?;
        let file = handle.file()?;
        check_offset(request.offset)?;
        let appends = request.flags.contains(OpenFlags::APPEND)
            && !request.from_cache
            && !self.has_writeback();
        let mut rwf_flags = if appends { RWF_APPEND } else { 0 };
        if !request.from_cache {
            rwf_flags |= durability(request.flags);
        }
        let set_ids = self.set_ids_by_flag(request.kill_suid_sgid);
        self.changing(file, set_ids, || {
            source.write_to(file, request.offset, rwf_flags)
        })
    }

    /// Looks for data or a hole. Not for a guest that holds back writes: Linux (6.12, 6.18)
    /// does not flush before it asks, so it would be told of a hole or of the end where it has
    /// data itself, and whoever copies the file would lose them. It takes `ENOSYS` for good, and
    /// then says that all up to the end is data.
    ///
    /// # Errors
    /// `EBADF`, `EISDIR`, `EINVAL` for what is no `SEEK_DATA`, `SEEK_HOLE`, `SEEK_SET` or
    /// `SEEK_END`; `ENXIO` beyond the end; `ENOSYS` with writeback.
    pub(super) fn seek_file(&self, open: OpenNode, offset: u64, whence: u32) -> Result<u64> {
        let handle = self.opened(open, Purpose::Look)?;
        let file = handle.file()?;
        if self.has_writeback() {
            return Err(Errno::ENOSYS);
        }
        let whence = Whence::from_raw(whence).ok_or(Errno::EINVAL)?;
        data::seek(file, offset, whence)
    }

    /// Reserves or gives back space.
    ///
    /// # Errors
    /// `EBADF`, `EISDIR`, and what fallocate(2) says.
    pub(super) fn allocate_file(&self, request: &FallocateRequest) -> Result<()> {
        let open = OpenNode {
            node: request.node,
            handle: request.handle,
        };
        let handle = self.opened(open, Purpose::Change)?;
        let file = handle.file()?;
        let set_ids = self.set_ids_by_caller(&request.caller);
        self.changing(file, set_ids, || {
            data::allocate(file, request.mode, request.offset, request.len_bytes)
        })
    }

    /// Copies between two open files, on the host alone. One call: a short count is an answer,
    /// and a guest that wants more asks again, so that one request does not hold a worker long.
    ///
    /// # Errors
    /// `EBADF`, `EISDIR`, `EINVAL` for flags, and what copy_file_range(2) says.
    pub(super) fn copy_files(&self, request: &CopyRangeRequest) -> Result<u64> {
        let from = OpenNode {
            node: request.node_in,
            handle: request.handle_in,
        };
        let to = OpenNode {
            node: request.node_out,
            handle: request.handle_out,
        };
        let from = self.opened(from, Purpose::Look)?;
        let to = self.opened(to, Purpose::Change)?;
        if request.flags != 0 {
            return Err(Errno::EINVAL);
        }
        let from = PositionIn {
            file: from.file()?,
            offset: request.offset_in,
        };
        let to = PositionIn {
            file: to.file()?,
            offset: request.offset_out,
        };
        let set_ids = self.set_ids_by_caller(&request.caller);
        let copied = self.changing(to.file, set_ids, || {
            data::copy_range(from, to, request.len_bytes)
        })?;
        u64::try_from(copied).map_err(|_| Errno::EIO)
    }
}

/// How durable one write shall be. The flags are those of the open file and of the call: a guest
/// leaves RWF_SYNC and RWF_DSYNC of pwritev2(2) to its server, and has no other way to tell.
fn durability(flags: OpenFlags) -> i32 {
    if flags.contains(OpenFlags::SYNC) {
        RWF_SYNC
    } else if flags.contains(OpenFlags::DSYNC) {
        RWF_DSYNC
    } else {
        0
    }
}

/// # Errors
/// `EINVAL` for what would be a negative offset on the host.
fn check_offset(offset: u64) -> Result<()> {
    i64::try_from(offset).map(drop).map_err(|_| Errno::EINVAL)
}
