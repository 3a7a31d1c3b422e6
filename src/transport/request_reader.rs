//! What: a request's bytes, front to back.
//!
//! In: the readable segments of a chain, and its header if that was copied already. Out:
//! [`RequestSource`]. Invariant: each byte is fetched and handed out at most once, so nobody can
//! read one twice and find two values. Does not: know what the
//! bytes mean.

use std::io;
use std::os::fd::BorrowedFd;

use crate::wire::channel::{ChannelError, FileSpan, RequestSource};

use crate::wire::header::{IN_HEADER_LEN, InHeader};

use super::chain::Chain;
use super::guest_io::{self, Cursor};
use super::memory::{GuestRam, Segment};

/// See the file head.
#[derive(Debug)]
pub(super) struct RequestReader<'a> {
    ram: &'a GuestRam,
    segments: &'a [Segment],
    cursor: Cursor,
    remaining: usize,
    /// The header, which was fetched already; none once anything was handed out.
    header: Option<&'a InHeader>,
}

impl<'a> RequestReader<'a> {
    /// A reader at the start of the chain.
    pub(super) fn new(ram: &'a GuestRam, chain: &'a Chain) -> Self {
        RequestReader {
            ram,
            segments: chain.readable(),
            cursor: Cursor::default(),
            remaining: chain.readable_bytes(),
            header: chain.peek().map(|peek| &peek.header),
        }
    }
}

impl RequestSource for RequestReader<'_> {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn read_header(&mut self) -> Option<InHeader> {
        let header = self.header.take()?;
        self.remaining = self.remaining.checked_sub(IN_HEADER_LEN)?;
        self.cursor.advance(self.segments, IN_HEADER_LEN);
        Some(*header)
    }

    fn read_exact(&mut self, buf: &mut [u8]) -> Result<(), ChannelError> {
        let remaining = self.remaining.checked_sub(buf.len()).ok_or(ChannelError)?;
        let mut cursor = self.cursor;
        if !guest_io::copy_out_at(self.ram, self.segments, &mut cursor, buf) {
            return Err(ChannelError);
        }
        self.header = None;
        self.cursor = cursor;
        self.remaining = remaining;
        Ok(())
    }

    fn write_to_file(&mut self, file: BorrowedFd<'_>, span: FileSpan) -> io::Result<usize> {
        if span.len > self.remaining {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        self.header = None;
        let done = guest_io::write_to_file(self.ram, self.segments, &mut self.cursor, file, span)?;
        self.remaining = self.remaining.saturating_sub(done);
        Ok(done)
    }
}
