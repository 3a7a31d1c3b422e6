//! What: the room for a reply, addressed by offset.
//!
//! In: the writable segments of a chain. Out: [`ReplySink`]. Invariant: nothing outside the
//! segments is written, and nothing at all once the request is parked: its memory may be the
//! guest's again. Does not: remember what was written; the handler's outcome says how long the
//! reply is.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::wire::channel::{ChannelError, FileSpan, LateReply, ReplySink};

use super::chain::Chain;
use super::guest_io::{self, Cursor};
use super::memory::GuestRam;
use super::parking::Lot;

/// See the file head.
#[derive(Debug)]
pub(super) struct ReplyWriter<'a> {
    ram: &'a GuestRam,
    chain: &'a Chain,
    lot: &'a Arc<Lot>,
    /// None left once the request is parked.
    capacity: usize,
    parked: bool,
}

impl<'a> ReplyWriter<'a> {
    /// A writer over all of the chain's room, which may be parked in `lot`.
    pub(super) fn new(ram: &'a GuestRam, chain: &'a Chain, lot: &'a Arc<Lot>) -> Self {
        ReplyWriter {
            ram,
            chain,
            lot,
            capacity: chain.writable_bytes(),
            parked: false,
        }
    }

    /// Whether somebody else answers the request now.
    pub(super) fn is_parked(&self) -> bool {
        self.parked
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
        if guest_io::copy_in(self.ram, self.chain.writable(), offset, bytes) {
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
        let segments = self.chain.writable();
        let cursor = Cursor::at(segments, reply_offset);
        guest_io::read_from_file(self.ram, segments, cursor, file, span)
    }

    fn park(&mut self) -> Option<Box<dyn LateReply>> {
        if self.parked {
            return None;
        }
        let late = self.lot.park(self.ram, self.chain)?;
        self.parked = true;
        self.capacity = 0;
        Some(late)
    }
}
