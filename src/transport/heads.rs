//! What: which descriptor chains of a queue are under way elsewhere, by their heads.
//!
//! In: heads that the queue's thread hands to another one or that are parked, and heads whose used
//! element the driver is about to see. Out: the refusal of a head that the driver gives a second
//! time before it has the first one back. Two requests by one head would be answered twice, and
//! the driver could not tell which of the two buffers is its own again. A head that is there a
//! second time when the first is taken, or comes while the queue's own thread serves that, is the
//! available ring's business (ring.rs).
//!
//! Invariant: a head is under way from [`Heads::enter`] until [`Heads::leave`], which comes
//! before the driver can see the used element: one that follows the rules is never refused. What
//! the queue's thread serves itself does not enter: it takes nothing else meanwhile.
//! Parked requests stay under way while their queue is stopped; what is forgotten leaves.
//!
//! Ordering: relaxed. Whoever takes a head has seen an available index that the driver wrote
//! after it had seen the used index, which was written after the head had left.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ring::QUEUE_SIZE_MAX;

/// Heads in one word.
const WORD_BITS: u16 = 64;

/// The heads of one queue. Takes memory (4 KiB) only once a head enters.
#[derive(Debug, Default)]
pub(super) struct Heads(OnceLock<Box<[AtomicU64]>>);

impl Heads {
    /// Notes that `head` goes elsewhere.
    pub(super) fn enter(&self, head: u16) {
        let (word, bit) = place(head);
        if let Some(word) = self.words().get(word) {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Whether `head` is under way.
    pub(super) fn has(&self, head: u16) -> bool {
        let (word, bit) = place(head);
        let word = self.0.get().and_then(|words| words.get(word));
        word.is_some_and(|word| word.load(Ordering::Relaxed) & bit != 0)
    }

    /// Notes that `head` goes back, wherever it was served.
    pub(super) fn leave(&self, head: u16) {
        // Most never entered, and to look costs less than to take it out.
        if self.has(head) {
            let (word, bit) = place(head);
            if let Some(word) = self.words().get(word) {
                word.fetch_and(!bit, Ordering::Relaxed);
            }
        }
    }

    /// None is under way any more.
    pub(super) fn forget_all(&self) {
        for word in self.0.get().into_iter().flat_map(|words| words.iter()) {
            word.store(0, Ordering::Relaxed);
        }
    }

    fn words(&self) -> &[AtomicU64] {
        self.0.get_or_init(|| {
            let count = usize::from(QUEUE_SIZE_MAX / WORD_BITS);
            std::iter::repeat_with(AtomicU64::default)
                .take(count)
                .collect()
        })
    }
}

/// Index of the word, and the bit in it. Heads are below the queue's size.
fn place(head: u16) -> (usize, u64) {
    let bit = 1_u64.wrapping_shl(u32::from(head % WORD_BITS));
    (usize::from(head / WORD_BITS), bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_is_under_way_until_it_is_back() {
        let heads = Heads::default();
        let some = [0, 1, 63, 64, QUEUE_SIZE_MAX - 1];
        for head in some {
            assert!(!heads.has(head), "{head}");
            heads.enter(head);
            assert!(heads.has(head), "{head}");
        }
        heads.leave(63);
        assert!(!heads.has(63));
        heads.leave(2);
        assert!(heads.has(64), "its neighbour has not left");
        heads.forget_all();
        assert!(!some.into_iter().any(|head| heads.has(head)));
    }

    #[test]
    fn head_beyond_any_queue_is_none() {
        let heads = Heads::default();
        heads.enter(QUEUE_SIZE_MAX);
        assert!(!heads.has(QUEUE_SIZE_MAX));
        heads.leave(u16::MAX);
    }
}
