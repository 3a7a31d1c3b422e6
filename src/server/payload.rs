//! What: the contents of a WRITE and the room of a READ, as a file system sees them.
//!
//! In: the two ends of a request. Out: [`DataSource`] and [`DataSink`], which pass on only the
//! bytes that belong to the contents: not the header, not what the guest did not send or ask for.
//! Does not: copy.

use std::os::fd::BorrowedFd;

use crate::fs::data::{DataSink, DataSource};
use crate::sys::errno::{Errno, Result};
use crate::wire::channel::{FileSpan, ReplySink, RequestSource};
use crate::wire::header::OUT_HEADER_LEN;

/// What a WRITE brings.
pub(super) struct WritePayload<'a> {
    source: &'a mut dyn RequestSource,
    left_len: usize,
}

impl<'a> WritePayload<'a> {
    /// The next `len` bytes of `source`, which must be there.
    pub(super) fn new(source: &'a mut dyn RequestSource, len: usize) -> Self {
        WritePayload {
            source,
            left_len: len,
        }
    }
}

impl DataSource for WritePayload<'_> {
    fn len(&self) -> usize {
        self.left_len
    }

    fn write_to(&mut self, file: BorrowedFd<'_>, offset: u64, rwf_flags: i32) -> Result<usize> {
        let span = FileSpan {
            offset,
            len: self.left_len,
            rwf_flags,
        };
        let written = self.source.write_to_file(file, span).map_err(Errno::from)?;
        self.left_len = self.left_len.saturating_sub(written);
        Ok(written)
    }
}

/// The room that a READ leaves, behind the header of its reply.
pub(super) struct ReadRoom<'a> {
    sink: &'a mut dyn ReplySink,
    len_max: usize,
    filled_len: usize,
}

impl<'a> ReadRoom<'a> {
    /// Room for `len_max` bytes, which must fit the sink.
    pub(super) fn new(sink: &'a mut dyn ReplySink, len_max: usize) -> Self {
        ReadRoom {
            sink,
            len_max,
            filled_len: 0,
        }
    }

    /// Bytes that were really read.
    pub(super) fn filled_len(&self) -> usize {
        self.filled_len
    }
}

impl DataSink for ReadRoom<'_> {
    fn capacity(&self) -> usize {
        self.len_max.saturating_sub(self.filled_len)
    }

    fn read_from(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        rwf_flags: i32,
    ) -> Result<usize> {
        let span = FileSpan {
            offset,
            len: len.min(self.capacity()),
            rwf_flags,
        };
        let reply_offset = OUT_HEADER_LEN.saturating_add(self.filled_len);
        let read = self
            .sink
            .read_from_file(reply_offset, file, span)
            .map_err(Errno::from)?;
        self.filled_len = self.filled_len.saturating_add(read).min(self.len_max);
        Ok(read)
    }
}
