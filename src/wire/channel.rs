//! What: the seams between the rooms that move bytes and the rooms that understand them.
//!
//! In: a request as the transport found it. Out: a reply as the transport shall write it.
//! `transport` implements [`RequestSource`] and [`ReplySink`] and calls a [`RequestHandler`];
//! `server` implements [`RequestHandler`] and never learns what a virtqueue is. Tests implement
//! the two ends on plain byte slices.
//!
//! Invariants: the bytes behind a source or a sink belong to the guest and may change at any
//! time; whoever reads one copies it once and believes only the copy. Neither side ever hands
//! out a Rust reference to them.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

/// Guest memory that was described could not be reached (no such address, or no room left).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelError;

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("request or reply memory is out of reach or too short")
    }
}

impl std::error::Error for ChannelError {}

/// What part of a host file a transfer concerns, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSpan {
    /// Where in the file, in bytes.
    pub offset: u64,
    /// How much, in bytes.
    pub len: usize,
    /// `RWF_*` flags of preadv2(2) and pwritev2(2).
    pub rwf_flags: i32,
}

/// The bytes of one request, read front to back.
pub trait RequestSource {
    /// Bytes not read yet.
    fn remaining(&self) -> usize;

    /// Copies exactly `buf.len()` bytes and moves on.
    ///
    /// # Errors
    /// [`ChannelError`] when fewer bytes are left; nothing is consumed then.
    fn read_exact(&mut self, buf: &mut [u8]) -> Result<(), ChannelError>;

    /// Moves the next `span.len` bytes from guest memory to `file`, without a copy of ours, by
    /// pwritev2(2).
    ///
    /// Goes on after a short write until all bytes are written, the host reports an error, or
    /// no progress is made. Returns the bytes written and consumes as many.
    ///
    /// # Errors
    /// The error of the first write when nothing was written; later errors end the transfer and
    /// the shorter count is returned. `EINVAL` when fewer than `span.len` bytes remain.
    fn write_to_file(&mut self, file: BorrowedFd<'_>, span: FileSpan) -> io::Result<usize>;
}

/// The room for one reply, addressed by offset so that the header can be written last.
pub trait ReplySink {
    /// Bytes of room in all.
    fn capacity(&self) -> usize;

    /// Copies `bytes` to `offset`.
    ///
    /// # Errors
    /// [`ChannelError`] when they do not fit.
    fn write_at(&mut self, offset: usize, bytes: &[u8]) -> Result<(), ChannelError>;

    /// Moves up to `span.len` bytes of `file` to reply offset `reply_offset`, without a copy of
    /// ours, by preadv2(2). A short read of a regular file is its end: there is no second call
    /// to confirm it.
    ///
    /// Returns the bytes read; a length beyond the capacity is cut to it.
    ///
    /// # Errors
    /// What preadv2(2) reported.
    fn read_from_file(
        &mut self,
        reply_offset: usize,
        file: BorrowedFd<'_>,
        span: FileSpan,
    ) -> io::Result<usize>;
}

/// How a request ended, for the used ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// A reply of this many bytes stands at the start of the sink; `used.len` equals it.
    Replied(u32),
    /// The request has no reply (FORGET, BATCH_FORGET, INTERRUPT): `used.len` is 0.
    NoReply,
    /// The request could not be answered at all (no readable header, or no room for a reply
    /// header): `used.len` is 0 and the transport counts it.
    Dropped,
}

/// Understands requests.
pub trait RequestHandler: Send + Sync + 'static {
    /// Serves one request, whatever its bytes, and says how it ended. Called by several threads
    /// at once. Never panics on guest input; if it does all the same, the transport answers EIO.
    fn handle(&self, source: &mut dyn RequestSource, sink: &mut dyn ReplySink) -> Outcome;

    /// The device was reset or the front end has gone: forget the session and free what the
    /// guest held. Called when no request is under way.
    fn reset(&self);
}
