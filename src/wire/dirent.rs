//! What: the records of READDIR and READDIRPLUS.
//!
//! In: lengths of names. Out: layouts and record lengths. Invariant: a record is a fixed part, the
//! name without a NUL, and zeroes up to the next multiple of 8 bytes. Does not: fill buffers.

use crate::wire::pod::wire_struct;
use crate::wire::response::EntryOut;

wire_struct! {
    "fuse_dirent", 24;
    /// The fixed part of a READDIR record; the name follows.
    pub struct Dirent {
        pub ino: u64,
        /// Cookie: where to go on after this entry.
        pub off: u64,
        pub namelen: u32,
        /// `DT_*`.
        pub type_: u32,
    }
}

wire_struct! {
    "fuse_direntplus", 152;
    /// The fixed part of a READDIRPLUS record; the name follows.
    pub struct Direntplus {
        /// All zero when the entry carries no node.
        pub entry_out: EntryOut,
        pub dirent: Dirent,
    }
}

/// Records are aligned to this many bytes (`FUSE_REC_ALIGN`).
pub const RECORD_ALIGN: usize = 8;

/// `len` rounded up to whole records, or `None` if it overflows.
pub const fn record_align(len: usize) -> Option<usize> {
    len.checked_next_multiple_of(RECORD_ALIGN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_align_rounds_up_to_eight() {
        for (len, aligned) in [(0, 0), (1, 8), (7, 8), (8, 8), (9, 16), (24 + 255, 280)] {
            assert_eq!(record_align(len), Some(aligned));
        }
        assert_eq!(record_align(usize::MAX), None);
    }
}
