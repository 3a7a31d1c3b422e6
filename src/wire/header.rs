//! What: the headers that open every request and every reply.
//!
//! In: numbers. Out: their layout. A reply's `len` counts the header itself and equals the length
//! in the used ring; a reply with an error is the header and nothing else.

use crate::wire::pod::wire_struct;

wire_struct! {
    "fuse_in_header", 40;
    /// Opens a request.
    pub struct InHeader {
        /// Length of the request with this header, in bytes.
        pub len: u32,
        pub opcode: u32,
        /// Ties the reply to the request.
        pub unique: u64,
        pub nodeid: u64,
        pub uid: u32,
        pub gid: u32,
        pub pid: u32,
        /// Length of the extensions at the end, in units of 8 bytes.
        pub total_extlen: u16,
        pub padding: u16,
    }
}

wire_struct! {
    "fuse_out_header", 16;
    /// Opens a reply.
    pub struct OutHeader {
        /// Length of the reply with this header, in bytes.
        pub len: u32,
        /// 0, or a negative error number above -512.
        pub error: i32,
        pub unique: u64,
    }
}

/// Length of [`InHeader`] in bytes.
pub const IN_HEADER_LEN: usize = size_of::<InHeader>();

/// Length of [`OutHeader`] in bytes.
pub const OUT_HEADER_LEN: usize = size_of::<OutHeader>();

impl OutHeader {
    /// The reply that says only that a request failed; `error_number` is positive.
    pub const fn failure(unique: u64, error_number: i32) -> Self {
        OutHeader {
            len: 16,
            error: -error_number,
            unique,
        }
    }
}
