//! What: file contents on their way between guest memory and a host file, without a copy of ours.
//!
//! In: an open file of the host. Out: bytes moved by the kernel. The file system sees only these
//! two traits, so it cannot look at the contents, and knows nothing of reply headers or rings.

use std::os::fd::BorrowedFd;

use crate::sys::errno::Result;

/// The payload of a WRITE.
pub trait DataSource {
    /// Bytes that the request really brought (at most what its `size` field claims).
    fn len(&self) -> usize;

    /// True when there is nothing to write.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the whole payload to `file` at `offset`, by pwritev2(2) with `rwf_flags`.
    ///
    /// Returns the bytes written; fewer than [`Self::len`] only when the host stopped.
    ///
    /// # Errors
    /// What pwritev2(2) reported when nothing was written.
    fn write_to(&mut self, file: BorrowedFd<'_>, offset: u64, rwf_flags: i32) -> Result<usize>;
}

/// The room for the contents that a READ asks for.
pub trait DataSink {
    /// Bytes of room.
    fn capacity(&self) -> usize;

    /// Reads up to `len` bytes of `file` from `offset`, by preadv2(2) with `rwf_flags`.
    ///
    /// # Errors
    /// What preadv2(2) reported.
    fn read_from(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        rwf_flags: i32,
    ) -> Result<usize>;
}
