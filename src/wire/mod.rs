//! The FUSE ABI as include/uapi/linux/fuse.h writes it: layouts, numbers and flags. No policy.

pub mod channel;
pub mod flags;
