//! What: `ring_sync.rs` of the daemon for loom.
//!
//! In and out: as there.

pub(super) use loom::sync::atomic::fence;
