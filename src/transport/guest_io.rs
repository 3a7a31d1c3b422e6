//! What: bytes between guest memory, small buffers of ours, and host files.
//!
//! In: a table of regions and a list of checked segments. Out: copies of small things, and
//! file data straight from and to guest memory, by `sys::vectored`.
//!
//! Memory that its owner has taken away is `EIO` here: to the guest, EFAULT would blame the
//! process that reads or writes.
//!
//! Invariants: the only place of this room with raw pointers, and they live no longer than one
//! system call; nothing outside the segments is touched. A list longer than what one call takes
//! is moved by several.
//!
//! Does not: know which segments are a request and which a reply.

#![expect(unsafe_code, reason = "hands guest memory to the kernel by address")]

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{Ordering, compiler_fence};

use crate::sys::errno::Errno;
use crate::sys::vectored::{self, IoVecs};
use crate::wire::channel::FileSpan;

use super::memory::{GuestRam, Piece, Segment};

/// A position in a list of segments.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    segment: usize,
    offset: usize,
}

impl Cursor {
    /// The position `skip` bytes from the start; the end when the list is shorter.
    pub(super) fn at(segments: &[Segment], skip: usize) -> Cursor {
        let mut cursor = Cursor::default();
        cursor.advance(segments, skip);
        cursor
    }

    /// Moves on; stays at the end when the list is shorter.
    pub(super) fn advance(&mut self, segments: &[Segment], mut count: usize) {
        while let Some(segment) = segments.get(self.segment) {
            let left = segment.len().saturating_sub(self.offset);
            if count < left {
                self.offset = self.offset.saturating_add(count);
                return;
            }
            count = count.saturating_sub(left);
            self.segment = self.segment.saturating_add(1);
            self.offset = 0;
        }
    }

    /// The next `len` bytes, and moves behind them; nothing, and stays, when they are not all in
    /// one segment.
    #[inline]
    fn next_whole<'m>(
        &mut self,
        ram: &'m GuestRam,
        segments: &[Segment],
        len: usize,
    ) -> Option<Piece<'m>> {
        let segment = segments.get(self.segment)?;
        let piece = ram.piece(segment, self.offset, len)?;
        self.offset = self.offset.saturating_add(len);
        if self.offset >= segment.len() {
            self.segment = self.segment.saturating_add(1);
            self.offset = 0;
        }
        Some(piece)
    }

    /// The next piece of at most `len` bytes, and moves behind it; nothing at the end.
    fn next_piece<'m>(
        &mut self,
        ram: &'m GuestRam,
        segments: &[Segment],
        len: usize,
    ) -> Option<Piece<'m>> {
        let left = segments
            .get(self.segment)?
            .len()
            .saturating_sub(self.offset);
        self.next_whole(ram, segments, left.min(len))
    }
}

/// Copies a piece; false when some of its bytes are missing, or the lengths differ.
#[inline]
fn read_piece(piece: &Piece<'_>, to: &mut [u8]) -> bool {
    if piece.len() != to.len() {
        return false;
    }
    // SAFETY: the piece is in bounds of a mapping that it borrows; `to` is as long, checked
    // above, and no guest memory, of which no reference is ever made. What the guest changes
    // meanwhile comes out as any bytes, which is what they are to us.
    unsafe { std::ptr::copy_nonoverlapping(piece.as_ptr(), to.as_mut_ptr(), to.len()) };
    // The compiler must neither look whether all is there before it copies, nor, to spare a copy of
    // the copy, fetch from the guest a second time.
    compiler_fence(Ordering::SeqCst);
    piece.is_intact()
}

/// Fills a piece; false when some of its bytes are missing, or the lengths differ.
#[inline]
fn write_piece(piece: &Piece<'_>, from: &[u8]) -> bool {
    if piece.len() != from.len() {
        return false;
    }
    // SAFETY: as in `read_piece`, the other way round.
    unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), piece.as_ptr(), from.len()) };
    // As there: the look comes afterwards.
    compiler_fence(Ordering::SeqCst);
    piece.is_intact()
}

/// Fills `buf` from the start of the list; false when the list is shorter.
#[inline]
pub(super) fn copy_out(ram: &GuestRam, segments: &[Segment], buf: &mut [u8]) -> bool {
    copy_out_at(ram, segments, &mut Cursor::default(), buf)
}

/// Fills `buf` from the cursor on and moves it; false when the list is shorter.
#[inline]
pub(super) fn copy_out_at(
    ram: &GuestRam,
    segments: &[Segment],
    cursor: &mut Cursor,
    buf: &mut [u8],
) -> bool {
    match cursor.next_whole(ram, segments, buf.len()) {
        Some(piece) => read_piece(&piece, buf),
        None => copy_out_pieces(ram, segments, cursor, buf),
    }
}

#[cold]
fn copy_out_pieces(
    ram: &GuestRam,
    segments: &[Segment],
    cursor: &mut Cursor,
    mut buf: &mut [u8],
) -> bool {
    while !buf.is_empty() {
        let Some(piece) = cursor.next_piece(ram, segments, buf.len()) else {
            return false;
        };
        let Some((now, later)) = buf.split_at_mut_checked(piece.len()) else {
            return false;
        };
        if !read_piece(&piece, now) {
            return false;
        }
        buf = later;
    }
    true
}

/// Writes all of `bytes` at `offset` of the list; false when the list is shorter.
#[inline]
pub(super) fn copy_in(ram: &GuestRam, segments: &[Segment], offset: usize, bytes: &[u8]) -> bool {
    let mut cursor = Cursor::at(segments, offset);
    match cursor.next_whole(ram, segments, bytes.len()) {
        Some(piece) => write_piece(&piece, bytes),
        None => copy_in_pieces(ram, segments, &mut cursor, bytes),
    }
}

#[cold]
fn copy_in_pieces(
    ram: &GuestRam,
    segments: &[Segment],
    cursor: &mut Cursor,
    mut bytes: &[u8],
) -> bool {
    while !bytes.is_empty() {
        let Some(piece) = cursor.next_piece(ram, segments, bytes.len()) else {
            return false;
        };
        let Some((now, later)) = bytes.split_at_checked(piece.len()) else {
            return false;
        };
        if !write_piece(&piece, now) {
            return false;
        }
        bytes = later;
    }
    true
}

/// Writes the `span.len` bytes from the cursor on to `file`, and moves the cursor by what was
/// written. Goes on after a short write until the host makes no progress.
pub(super) fn write_to_file(
    ram: &GuestRam,
    segments: &[Segment],
    cursor: &mut Cursor,
    file: BorrowedFd<'_>,
    span: FileSpan,
) -> io::Result<usize> {
    let mut areas = IoVecs::new();
    let mut done = 0_usize;
    while done < span.len {
        fill(
            ram,
            segments,
            *cursor,
            span.len.saturating_sub(done),
            &mut areas,
        );
        if areas.bytes() == 0 {
            break;
        }
        let offset = file_offset(span.offset, done);
        match vectored::write_at(file, &areas, offset, span.rwf_flags) {
            Ok(0) => break,
            Ok(count) => {
                cursor.advance(segments, count);
                done = done.saturating_add(count);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if done == 0 => return Err(as_lost_memory(error)),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Reads up to `span.len` bytes of `file` into the list from the cursor on. The first short read
/// ends it. An error after the first bytes ends it, too, except that `EAGAIN` is for all of them.
pub(super) fn read_from_file(
    ram: &GuestRam,
    segments: &[Segment],
    mut cursor: Cursor,
    file: BorrowedFd<'_>,
    span: FileSpan,
) -> io::Result<usize> {
    let mut areas = IoVecs::new();
    let mut done = 0_usize;
    while done < span.len {
        fill(
            ram,
            segments,
            cursor,
            span.len.saturating_sub(done),
            &mut areas,
        );
        let wanted = areas.bytes();
        if wanted == 0 {
            break;
        }
        let offset = file_offset(span.offset, done);
        match vectored::read_at(file, &mut areas, offset, span.rwf_flags) {
            Ok(count) => {
                cursor.advance(segments, count);
                done = done.saturating_add(count);
                if count < wanted {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // With RWF_NOWAIT: the rest is there, but not in memory. That is no end of the file.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            Err(error) if done == 0 => return Err(as_lost_memory(error)),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// What an error of preadv2(2) or pwritev2(2) is for the guest.
fn as_lost_memory(error: io::Error) -> io::Error {
    match Errno::from(error) {
        Errno::EFAULT => Errno::EIO.into(),
        other => other.into(),
    }
}

/// Saturates: an offset that large is refused by the call.
fn file_offset(start: u64, done: usize) -> u64 {
    start.saturating_add(u64::try_from(done).unwrap_or(u64::MAX))
}

/// Puts as much of the next `len` bytes into `areas` as one call takes.
fn fill<'m>(
    ram: &'m GuestRam,
    segments: &[Segment],
    mut cursor: Cursor,
    len: usize,
    areas: &mut IoVecs<'m>,
) {
    areas.clear();
    while !areas.is_full() {
        let left = len.saturating_sub(areas.bytes());
        if left == 0 {
            break;
        }
        let Some(piece) = cursor.next_piece(ram, segments, left) else {
            break;
        };
        if !piece.is_intact() {
            break;
        }
        // SAFETY: the piece was bounds-checked against its region, whose mapping is readable and
        // writable and kept by `ram` for all of 'm; no reference into guest memory is ever made
        // in this crate.
        let pushed = unsafe { areas.push(piece.as_ptr(), piece.len()) };
        if !pushed {
            break;
        }
    }
}

#[cfg(test)]
mod tests;
