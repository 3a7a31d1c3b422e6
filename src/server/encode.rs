//! What: from the result of an operation to the bytes of its reply.
//!
//! In: a [`Reply`] or an errno. Out: a payload behind the header's place, then the header.
//! Invariants: the header is written last and its `len` is the length in the used ring; an error
//! is exactly a header; every byte of padding is zero. What a reply grants (lookups, handles) is
//! committed only when all of it is written; otherwise dropping the reply takes it back.

use std::time::Duration;

use crate::fs::filesystem::LockRequest;
use crate::fs::types::{
    Attr, AttrReply, Entry, ExtendedAttr, FsTotals, HeldLock, LockType, LookupRef, Opened,
    Timestamp,
};
use crate::server::scratch::Buffer;
use crate::sys::errno::Errno;
use crate::wire::channel::{ChannelError, Outcome, ReplySink};
use crate::wire::flags::AttrFlags;
use crate::wire::header::{OUT_HEADER_LEN, OutHeader};
use crate::wire::pod::Plain;
use crate::wire::request::{F_RDLCK, F_UNLCK, F_WRLCK, FileLock};
use crate::wire::response;

/// The result of an operation that succeeded.
#[derive(Debug)]
pub(super) enum Reply<'fs> {
    /// No reply at all.
    Silent,
    /// The request was set aside, and this thread has nothing more to do with it.
    Later,
    /// The request would have to wait, on a thread that must not.
    NotNow,
    /// Success without a payload.
    Empty,
    Entry(Entry<'fs>),
    /// The name is missing, and the guest may believe so for this long.
    NegativeEntry(Duration),
    Attr(AttrReply<Attr>),
    Statx(AttrReply<ExtendedAttr>),
    Opened(Opened<'fs>),
    /// The handle first, so that it is also the first to be taken back: it belongs to the node.
    Created(Opened<'fs>, Entry<'fs>),
    /// Bytes written or copied, in 32 bits.
    Written(u32),
    /// Bytes copied, in 64 bits.
    Copied(u64),
    Offset(u64),
    Totals(FsTotals),
    /// The lock that was asked about, and what stands in its way.
    Lock(LockRequest, Option<HeldLock>),
    /// Length of an extended attribute or of their list.
    XattrLength(u32),
    Init(response::InitOut),
    /// The first bytes of the thread's reply buffer.
    Buffered(usize),
    /// As many bytes stand already behind the header's place.
    InPlace(usize),
    /// A directory in the thread's reply buffer, with the lookups that it grants.
    Listing(usize, Vec<LookupRef<'fs>>),
}

impl Reply<'_> {
    /// Bytes of contents that the operation moved: of files, listings, targets of links, values of
    /// extended attributes and of ioctls. 0 for replies of a fixed length.
    pub(super) fn content_len(&self) -> usize {
        match self {
            Reply::Buffered(len) | Reply::InPlace(len) | Reply::Listing(len, _) => *len,
            Reply::Written(len) => usize::try_from(*len).unwrap_or(usize::MAX),
            Reply::Copied(len) => usize::try_from(*len).unwrap_or(usize::MAX),
            Reply::Silent
            | Reply::Later
            | Reply::NotNow
            | Reply::Empty
            | Reply::Entry(_)
            | Reply::NegativeEntry(_)
            | Reply::Attr(_)
            | Reply::Statx(_)
            | Reply::Opened(_)
            | Reply::Created(..)
            | Reply::Offset(_)
            | Reply::Totals(_)
            | Reply::Lock(..)
            | Reply::XattrLength(_)
            | Reply::Init(_) => 0,
        }
    }

    /// The reply is in guest memory: what it grants is the guest's now.
    #[inline]
    pub(super) fn commit(self) {
        match self {
            Reply::Listing(_, lookups) => lookups.into_iter().for_each(LookupRef::commit),
            // They own nothing besides what they grant, and taking that out would copy it all.
            all_of_it => std::mem::forget(all_of_it),
        }
    }
}

/// Writes the reply to a request. By reference, because it is large; [`Reply::commit`] it when this
/// has succeeded.
///
/// Errors: the memory of the reply is out of reach or too short.
pub(super) fn write_reply(
    sink: &mut dyn ReplySink,
    unique: u64,
    reply: &Reply<'_>,
    buffer: &Buffer,
) -> Result<Outcome, ChannelError> {
    match *reply {
        Reply::Silent => Ok(Outcome::NoReply),
        Reply::Later => Ok(Outcome::Parked),
        Reply::NotNow => Ok(Outcome::Deferred),
        Reply::Empty => write_parts(sink, unique, &[]),
        Reply::Attr(ref attr) => write_parts(sink, unique, attr_out(attr).as_wire()),
        Reply::Statx(ref attr) => write_parts(sink, unique, statx_out(attr).as_wire()),
        Reply::Written(size) => {
            let out = response::WriteOut { size, padding: 0 };
            write_parts(sink, unique, out.as_wire())
        }
        Reply::Copied(bytes_copied) => {
            let out = response::CopyFileRangeOut { bytes_copied };
            write_parts(sink, unique, out.as_wire())
        }
        Reply::Offset(offset) => write_parts(sink, unique, response::LseekOut { offset }.as_wire()),
        Reply::Totals(ref totals) => write_parts(sink, unique, statfs_out(totals).as_wire()),
        Reply::XattrLength(size) => {
            let out = response::GetxattrOut { size, padding: 0 };
            write_parts(sink, unique, out.as_wire())
        }
        Reply::NegativeEntry(valid) => {
            let out = response::EntryOut {
                entry_valid: valid.as_secs(),
                entry_valid_nsec: valid.subsec_nanos(),
                ..response::EntryOut::zero()
            };
            write_parts(sink, unique, out.as_wire())
        }
        Reply::Lock(ref request, held) => {
            write_parts(sink, unique, lk_out(request, held).as_wire())
        }
        Reply::Init(ref out) => write_parts(sink, unique, out.as_wire()),
        Reply::Buffered(len) => write_parts(sink, unique, buffer.filled(len)),
        Reply::InPlace(len) => write_header(sink, unique, len),
        Reply::Entry(ref entry) => write_parts(sink, unique, entry_out(entry).as_wire()),
        Reply::Opened(ref opened) => write_parts(sink, unique, open_out(opened).as_wire()),
        Reply::Created(ref opened, ref entry) => {
            let out = response::CreateOut {
                entry: entry_out(entry),
                open: open_out(opened),
            };
            write_parts(sink, unique, out.as_wire())
        }
        Reply::Listing(len, _) => write_parts(sink, unique, buffer.filled(len)),
    }
}

/// Writes the reply to a request that failed.
pub(super) fn write_error(sink: &mut dyn ReplySink, unique: u64, errno: Errno) -> Outcome {
    let header = OutHeader::failure(unique, errno.raw());
    match sink.write_at(0, header.as_wire()) {
        Ok(()) => Outcome::Replied(header.len),
        Err(ChannelError) => Outcome::Dropped,
    }
}

fn write_parts(
    sink: &mut dyn ReplySink,
    unique: u64,
    payload: &[u8],
) -> Result<Outcome, ChannelError> {
    if !payload.is_empty() {
        sink.write_at(OUT_HEADER_LEN, payload)?;
    }
    write_header(sink, unique, payload.len())
}

fn write_header(
    sink: &mut dyn ReplySink,
    unique: u64,
    payload_len: usize,
) -> Result<Outcome, ChannelError> {
    let len = OUT_HEADER_LEN
        .checked_add(payload_len)
        .and_then(|len| u32::try_from(len).ok())
        .ok_or(ChannelError)?;
    let header = OutHeader {
        len,
        error: 0,
        unique,
    };
    sink.write_at(0, header.as_wire())?;
    Ok(Outcome::Replied(len))
}

fn attr(attr: &Attr) -> response::Attr {
    let flags = match attr.is_submount {
        true => AttrFlags::SUBMOUNT,
        false => AttrFlags::empty(),
    };
    response::Attr {
        ino: attr.ino,
        size: attr.size,
        blocks: attr.blocks,
        atime: attr.atime.secs,
        mtime: attr.mtime.secs,
        ctime: attr.ctime.secs,
        atimensec: attr.atime.nanos,
        mtimensec: attr.mtime.nanos,
        ctimensec: attr.ctime.nanos,
        mode: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid.raw(),
        gid: attr.gid.raw(),
        rdev: attr.rdev,
        blksize: attr.blksize,
        flags: flags.bits(),
    }
}

/// A name with its node.
pub(super) fn entry_out(entry: &Entry<'_>) -> response::EntryOut {
    response::EntryOut {
        nodeid: entry.lookup.node().raw(),
        generation: entry.generation,
        entry_valid: entry.entry_valid.as_secs(),
        attr_valid: entry.attr_valid.as_secs(),
        entry_valid_nsec: entry.entry_valid.subsec_nanos(),
        attr_valid_nsec: entry.attr_valid.subsec_nanos(),
        attr: attr(&entry.attr),
    }
}

fn attr_out(reply: &AttrReply<Attr>) -> response::AttrOut {
    response::AttrOut {
        attr_valid: reply.valid.as_secs(),
        attr_valid_nsec: reply.valid.subsec_nanos(),
        dummy: 0,
        attr: attr(&reply.attr),
    }
}

fn open_out(opened: &Opened<'_>) -> response::OpenOut {
    response::OpenOut {
        fh: opened.handle.handle().raw(),
        open_flags: opened.flags.bits(),
        padding: 0,
    }
}

/// Without a conflict it is the guest's own question with `F_UNLCK`, as fcntl(2) has it.
fn lk_out(request: &LockRequest, held: Option<HeldLock>) -> response::LkOut {
    let found = held.unwrap_or(HeldLock {
        range: request.range,
        lock_type: LockType::Unlock,
        pid: 0,
    });
    response::LkOut {
        lk: FileLock {
            start: found.range.start(),
            end: found.range.end(),
            type_: match found.lock_type {
                LockType::Read => F_RDLCK,
                LockType::Write => F_WRLCK,
                LockType::Unlock => F_UNLCK,
            },
            pid: found.pid,
        },
    }
}

fn statfs_out(totals: &FsTotals) -> response::StatfsOut {
    response::StatfsOut {
        blocks: totals.blocks,
        bfree: totals.blocks_free,
        bavail: totals.blocks_available,
        files: totals.files,
        ffree: totals.files_free,
        bsize: totals.block_size_bytes,
        namelen: totals.name_len_max,
        frsize: totals.fragment_size_bytes,
        padding: 0,
        spare: [0; 6],
    }
}

fn statx_out(reply: &AttrReply<ExtendedAttr>) -> response::StatxOut {
    let extended = &reply.attr;
    let attr = &extended.attr;
    let (rdev_major, rdev_minor) = split_device(attr.rdev);
    let btime_bit = match extended.btime {
        Some(_) => response::STATX_BTIME,
        None => 0,
    };
    let valid: Duration = reply.valid;
    response::StatxOut {
        attr_valid: valid.as_secs(),
        attr_valid_nsec: valid.subsec_nanos(),
        flags: 0,
        spare: [0; 2],
        stat: response::Statx {
            // A guest that asked for the birth time believes this bit, not the value.
            mask: extended.mask & !response::STATX_BTIME | btime_bit,
            blksize: attr.blksize,
            attributes: extended.attributes,
            nlink: attr.nlink,
            uid: attr.uid.raw(),
            gid: attr.gid.raw(),
            // Type and permissions have 16 bits, so nothing is cut off.
            mode: u16::try_from(attr.mode & 0xffff).unwrap_or(0),
            spare0: 0,
            ino: attr.ino,
            size: attr.size,
            blocks: attr.blocks,
            attributes_mask: extended.attributes_mask,
            atime: sx_time(attr.atime),
            btime: sx_time(extended.btime.unwrap_or_default()),
            ctime: sx_time(attr.ctime),
            mtime: sx_time(attr.mtime),
            rdev_major,
            rdev_minor,
            dev_major: extended.dev.0,
            dev_minor: extended.dev.1,
            spare2: [0; 14],
        },
    }
}

const fn sx_time(time: Timestamp) -> response::SxTime {
    response::SxTime {
        tv_sec: time.secs,
        tv_nsec: time.nanos,
        reserved: 0,
    }
}

/// Major and minor number of a device in the kernel's 32-bit encoding (`new_decode_dev`).
const fn split_device(rdev: u32) -> (u32, u32) {
    (
        (rdev >> 8) & 0xfff,
        (rdev & 0xff) | ((rdev >> 12) & 0xfff00),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_split_as_the_kernel_joins_them() {
        // new_encode_dev(major 0x123, minor 0x45678).
        let encoded = 0x78 | (0x123 << 8) | ((0x45678 & !0xff) << 12);
        assert_eq!(split_device(encoded), (0x123, 0x45678));
        assert_eq!(split_device(0), (0, 0));
        assert_eq!(split_device(0x0801), (8, 1));
    }
}
