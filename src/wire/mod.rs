//! The FUSE ABI as include/uapi/linux/fuse.h writes it: layouts, numbers and flags. No policy.
//!
//! Integers are in the byte order of the machine: vhost-user shares memory within one machine,
//! and FUSE leaves the order of a session to the guest. A guest of the other order is recognised
//! by its byte-swapped INIT opcode, which no opcode of ours equals.
//!
//! Rooms: `channel` the seams to the transport; `pod` the proof that a layout is plain bytes;
//! `opcode`, `header`, `request`, `response`, `dirent`, `extension` the layouts; `flags` the bits.

pub mod channel;
pub mod dirent;
pub mod extension;
pub mod flags;
pub mod header;
pub mod opcode;
pub mod pod;
pub mod request;
pub mod response;

/// Major version of the protocol (`FUSE_KERNEL_VERSION`).
pub const MAJOR_VERSION: u32 = 7;

/// Newest minor version that is implemented here (`FUSE_KERNEL_MINOR_VERSION` of Linux 6.18).
/// Opcodes that a guest knows and we do not are answered with ENOSYS, which is how guests probe.
pub const MINOR_VERSION: u32 = 45;

/// Oldest minor version of a guest: from 7.27 (Linux 4.16) on every layout used here has its
/// present size, so no reply needs a shorter form.
pub const MINOR_VERSION_MIN: u32 = 27;

/// First minor version in which a header says how long the extensions are (`total_extlen`).
pub const MINOR_VERSION_EXTENSIONS: u32 = 38;

/// First minor version with security contexts; without `total_extlen`, in the two versions before
/// it came, they stand directly behind the last name.
pub const MINOR_VERSION_CONTEXTS: u32 = 36;

/// Unit of `max_pages`: FUSE counts in pages of the guest, which are at least this long.
pub const PAGE_SIZE_BYTES: u32 = 4096;
