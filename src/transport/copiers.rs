//! What: how many large copies go on beside those on the queues' own threads.
//!
//! In: the wish of a queue's thread to hand a large READ over, because more requests wait behind
//! it. Out: a [`Copier`], the right to do so, until it is dropped. One processor copies a few
//! gigabytes in a second; a guest that has several such requests under way gets more with two.
//!
//! Invariants: at most half of the processors copy aside for one device, and none if there is one
//! processor only. Only READs: copies into one file wait for each other in the host's kernel, and
//! there two threads are slower than one. Does not: copy.

use std::sync::Arc;
use std::thread;

use crate::wire::opcode::Opcode;

use super::chain::Chain;
use super::polling::{Seat, Seats};

/// Room for a reply from which on a READ is large. To wake a thread takes as long as copying some
/// 100 KiB: at depth 8, READs of 1 MiB are 1.2 to 1.5 times as fast with another thread, those of
/// 128 KiB between 0.84 and 1.2 times.
const LARGE_COPY: usize = 256 * 1024;

/// Whether the request of this chain may copy a lot, and beside others.
pub(super) fn is_large_copy(chain: &Chain) -> bool {
    chain.writable_bytes() >= LARGE_COPY
        && chain.peek().is_some_and(|peek| peek.opcode == Opcode::Read)
}

/// The right to copy aside, until it is dropped.
pub(super) type Copier = Seat<Arc<Seats>>;

/// Seats for half of the processors that this process may use.
pub(super) fn seats() -> Arc<Seats> {
    Seats::new(thread::available_parallelism().map_or(1, usize::from) / 2)
}
