//! What: getdents64(2) and a checked cursor over what it returns.
//!
//! In: an open directory and a buffer of ours. Out: entries that borrow from the buffer.
//! Invariant: a name is what stands before the first NUL inside its own record. Does not: keep
//! positions (see `passthrough::dir`).
#![expect(unsafe_code, reason = "system calls")]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::sys::errno::{Errno, Result};
use crate::sys::{check_long, retry};

/// `d_type` of an entry whose file system does not tell.
pub const DT_UNKNOWN: u8 = libc::DT_UNKNOWN;

/// Offsets in `struct linux_dirent64`.
const INO_AT: usize = 0;
const OFF_AT: usize = 8;
const RECLEN_AT: usize = 16;
const TYPE_AT: usize = 18;
const NAME_AT: usize = 19;

/// One entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostDirent<'a> {
    /// Inode number.
    pub ino: u64,
    /// Cookie of the position after this entry: opaque, any 64 bits.
    pub next_offset: u64,
    /// `DT_*`.
    pub kind: u8,
    /// The name; `.` and `..` occur.
    pub name: &'a CStr,
}

/// Reads entries into `buf` and returns how many bytes of it they take; 0 at the end.
///
/// # Errors
/// As getdents64(2): `ENOENT` for a directory that was removed, `EINVAL` for a tiny buffer.
pub fn read_entries(directory: BorrowedFd<'_>, buf: &mut [u8]) -> Result<usize> {
    let read = retry(|| {
        // SAFETY: `buf` is writable for its whole length, which is what is passed.
        let read = unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                directory.as_raw_fd(),
                buf.as_mut_ptr(),
                buf.len(),
            )
        };
        check_long(read)
    })?;
    usize::try_from(read).map_err(|_| Errno::EIO)
}

/// The first entry in `records` and the length of its record; `None` at the end, or when the
/// rest is no record.
pub fn first_entry(records: &[u8]) -> Option<(HostDirent<'_>, usize)> {
    let record_len = usize::from(u16::from_ne_bytes(field(records, RECLEN_AT)?));
    let record = records.get(..record_len)?;
    let name = CStr::from_bytes_until_nul(record.get(NAME_AT..)?).ok()?;
    let entry = HostDirent {
        ino: u64::from_ne_bytes(field(record, INO_AT)?),
        next_offset: u64::from_ne_bytes(field(record, OFF_AT)?),
        kind: *record.get(TYPE_AT)?,
        name,
    };
    Some((entry, record_len))
}

fn field<const N: usize>(record: &[u8], at: usize) -> Option<[u8; N]> {
    record.get(at..)?.first_chunk::<N>().copied()
}

/// Moves an open directory to a cookie that [`read_entries`] gave.
///
/// # Errors
/// As lseek(2). Cookies beyond `i64::MAX` reach the kernel as negative offsets, which most file
/// systems refuse with `EINVAL`.
pub fn seek_entries(directory: BorrowedFd<'_>, cookie: u64) -> Result<()> {
    let offset = i64::from_ne_bytes(cookie.to_ne_bytes());
    // SAFETY: takes no pointers; the descriptor is open while it is borrowed.
    let moved = unsafe { libc::lseek(directory.as_raw_fd(), offset, libc::SEEK_SET) };
    // Not "negative": a file system that takes such a cookie returns it.
    if moved == -1 {
        return Err(Errno::last());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &[u8], record_len: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(7_u64.to_ne_bytes());
        bytes.extend((u64::MAX - 1).to_ne_bytes());
        bytes.extend(record_len.to_ne_bytes());
        bytes.push(libc::DT_REG);
        bytes.extend(name);
        bytes.resize(usize::from(record_len).max(bytes.len()), 0);
        bytes
    }

    #[test]
    fn first_entry_of_a_record_has_its_fields() {
        let bytes = record(b"name\0junk", 32);
        let (entry, len) = first_entry(&bytes).unwrap();
        assert_eq!(len, 32);
        assert_eq!(
            (entry.ino, entry.next_offset, entry.kind, entry.name),
            (7, u64::MAX - 1, libc::DT_REG, c"name")
        );
    }

    #[test]
    fn first_entry_of_every_truncation_is_none() {
        let bytes = record(b"name\0", 24);
        for len in 0..24 {
            assert_eq!(first_entry(&bytes[..len]), None, "{len}");
        }
        assert!(first_entry(&bytes).is_some());
    }

    #[test]
    fn first_entry_without_a_nul_or_with_a_short_record_is_none() {
        assert_eq!(first_entry(&record(b"namexxxx", 27)), None);
        for record_len in 0..20 {
            let mut bytes = record(b"name\0", 24);
            bytes[RECLEN_AT..TYPE_AT].copy_from_slice(&u16::to_ne_bytes(record_len));
            assert_eq!(first_entry(&bytes), None, "{record_len}");
        }
    }
}
