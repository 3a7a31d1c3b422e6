//! What: the records that creating requests may carry behind their arguments.
//!
//! Each starts with its size and type and is padded to 8 bytes; all of them together take
//! `8 * total_extlen` bytes at the very end of the request, at no particular alignment.
//! Does not: parse (see `server::decode_ext`).

use crate::wire::pod::wire_struct;

wire_struct! {
    "fuse_ext_header", 8;
    /// Opens an extension. With `type` 0 to 31 it is a `fuse_secctx_header`, and the type is the
    /// number of security contexts.
    pub struct ExtHeader {
        /// Size with this header, in bytes.
        pub size: u32,
        pub type_: u32,
    }
}

wire_struct! {
    "fuse_secctx", 8;
    /// Opens a security context; its name with a NUL and its value follow.
    pub struct Secctx {
        /// Size of the value in bytes.
        pub size: u32,
        pub padding: u32,
    }
}

wire_struct! {
    "fuse_supp_groups", 4;
    /// Opens a list of supplementary groups, 4 bytes each.
    pub struct SuppGroups {
        pub nr_groups: u32,
    }
}

/// Largest type that means "so many security contexts" (`FUSE_MAX_NR_SECCTX`).
pub const SECCTX_TYPE_MAX: u32 = 31;

/// Type of supplementary groups (`FUSE_EXT_GROUPS`).
pub const TYPE_GROUPS: u32 = 32;

/// Unit of `total_extlen` in bytes.
pub const LEN_UNIT_BYTES: u32 = 8;
