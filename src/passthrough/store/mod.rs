//! What the guest holds: nodes and handles, by number.

pub(super) mod contents;
pub(super) mod handles;
pub(super) mod inode;
pub(super) mod inodes;
mod shards;
pub(super) mod unopened_files;
