//! What: the seams between the rooms that move bytes and the rooms that understand them.
//!
//! In: a request as the transport found it. Out: a reply as the transport shall write it.
//! `transport` implements [`RequestSource`] and [`ReplySink`] and calls a [`RequestHandler`];
//! `server` implements [`RequestHandler`] and never learns what a virtqueue is. Tests implement
//! the two ends on plain byte slices.
//!
//! Invariants: the bytes behind a source or a sink belong to the guest and may change at any
//! time; whoever reads one copies it once and believes only the copy. Neither side ever hands
//! out a Rust reference to them. A request is answered once: at once, by what the handler returns,
//! or later, by a [`LateReply`] that it took from the sink; or not yet, when it says
//! [`Outcome::Deferred`] and is called once more.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use crate::wire::header::InHeader;
use crate::wire::pod::Plain;

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

    /// The header, with which every request begins, and moves on; to be called first. Nothing when
    /// there are too few bytes or they cannot be read.
    fn read_header(&mut self) -> Option<InHeader> {
        let mut header = InHeader::zero();
        self.read_exact(header.as_wire_mut()).ok()?;
        Some(header)
    }

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

    /// Sets the request aside, to be answered later and from any thread; the handler then returns
    /// [`Outcome::Parked`], and its worker is free for the next request.
    ///
    /// From here on source and sink are dead: the answer may be out, and their memory the guest's
    /// again, before the handler has returned. Whatever the handler returns or however it ends,
    /// the [`LateReply`] is the only answer.
    ///
    /// `None` when this sink cannot do it: the request has no reply, no room for one, or too many
    /// of its queue are set aside already. The handler then answers at once.
    fn park(&mut self) -> Option<Box<dyn LateReply>>;
}

/// The most bytes of a reply that comes late: a header and a small payload.
pub const LATE_REPLY_LEN_MAX: usize = 64;

/// The right, and the duty, to answer one request that was set aside.
///
/// Dropping it answers EIO. When the guest has lost interest in the meantime (its device was
/// reset, or the front end has gone) both are without effect. While the queue is stopped the
/// answer is kept, and goes out when the queue goes on.
pub trait LateReply: Send + fmt::Debug {
    /// Answers with `reply`: a header and its payload, [`LATE_REPLY_LEN_MAX`] bytes at most. A
    /// reply that is shorter than a header, or longer than that or than the room that the guest
    /// gave, is a mistake of the caller, and answers EIO. Never blocks on the guest.
    fn finish(self: Box<Self>, reply: &[u8]);
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
    /// The request was set aside by [`ReplySink::park`]. Said without having done so, it is
    /// answered EIO.
    Parked,
    /// Serving the request would keep a [`Pace::Prompt`] thread too long: nothing was done that
    /// anybody can see, and the transport calls the handler once more for the same request, with
    /// [`Pace::Patient`] and all of it to be read again. Said to a patient thread, it is answered
    /// EIO.
    Deferred,
}

impl Outcome {
    /// Bytes of the reply, if there is one by now.
    pub fn reply_len(self) -> u32 {
        match self {
            Outcome::Replied(len) => len,
            Outcome::NoReply | Outcome::Dropped | Outcome::Parked | Outcome::Deferred => 0,
        }
    }
}

/// How long a handler may keep the thread that calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// The thread has a queue to serve: [`Outcome::Deferred`] rather than wait for a disk.
    Prompt {
        /// Requests of its queue are waiting for the thread already.
        others_wait: bool,
    },
    /// For as long as it takes.
    Patient,
}

/// Understands requests.
pub trait RequestHandler: Send + Sync + 'static {
    /// Serves one request, whatever its bytes, and says how it ended. Called by several threads
    /// at once. Never panics on guest input; if it does all the same, the transport answers EIO.
    fn handle(
        &self,
        source: &mut dyn RequestSource,
        sink: &mut dyn ReplySink,
        pace: Pace,
    ) -> Outcome;

    /// The device was reset or the front end has gone: forget the session and free what the
    /// guest held, [`LateReply`]s too. Called when no request is under way, and none that was set
    /// aside can be answered any more.
    fn reset(&self);
}
