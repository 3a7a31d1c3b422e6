//! What: the room for a reply, addressed by offset.
//!
//! In: the writable segments of a chain. Out: [`ReplySink`]. Invariant: nothing outside the
//! segments is written. Does not: remember what was written; the handler's outcome says how long
//! the reply is.

use std::io;
use std::os::fd::BorrowedFd;

use crate::wire::channel::{ChannelError, FileSpan, ReplySink};

use super::chain::Chain;
use super::guest_io::{self, Cursor};
use super::memory::{GuestRam, Segment};

/// See the file head.
#[derive(Debug)]
pub(super) struct ReplyWriter<'a> {
    ram: &'a GuestRam,
    segments: &'a [Segment],
    capacity: usize,
}

impl<'a> ReplyWriter<'a> {
    /// A writer over all of the chain's room.
    pub(super) fn new(ram: &'a GuestRam, chain: &'a Chain) -> Self {
        ReplyWriter {
            ram,
            segments: chain.writable(),
            capacity: chain.writable_bytes(),
        }
    }
}

impl ReplySink for ReplyWriter<'_> {
    fn capacity(&self) -> usize {
        self.capacity
    }

    fn write_at(&mut self, offset: usize, bytes: &[u8]) -> Result<(), ChannelError> {
        let end = offset.checked_add(bytes.len()).ok_or(ChannelError)?;
        if end > self.capacity {
            return Err(ChannelError);
        }
        if guest_io::copy_in(self.ram, self.segments, offset, bytes) {
            Ok(())
        } else {
            Err(ChannelError)
        }
    }

    fn read_from_file(
        &mut self,
        reply_offset: usize,
        file: BorrowedFd<'_>,
        span: FileSpan,
    ) -> io::Result<usize> {
        let room = self.capacity.saturating_sub(reply_offset);
        let span = FileSpan {
            len: span.len.min(room),
            ..span
        };
        let cursor = Cursor::at(self.segments, reply_offset);
        guest_io::read_from_file(self.ram, self.segments, cursor, file, span)
    }
}
