//! What: which node a file probably is, without a lock.
//!
//! In: inode numbers, and the nodes that files with them turned out to be. Out: a node's number,
//! which may be that of any other node by now, or of none: whoever asks looks the node up and
//! compares its identity. Invariants: a fixed number of places, each of which holds the last that
//! was put there; memory is taken for those places that are used. Does not: keep anything alive.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::inode::Identity;
use crate::fs::types::NodeId;

/// Places of a chunk: a page.
const CHUNK_LEN: usize = 512;
/// Places in all: 65,536. Files that are made one after the other have places side by side.
const CHUNK_COUNT: usize = 128;

/// Nobody has this number.
const NO_NODE: u64 = 0;

/// See the module head.
#[derive(Debug)]
pub(super) struct Hints {
    chunks: [OnceLock<Box<[AtomicU64]>>; CHUNK_COUNT],
}

impl Hints {
    /// None.
    pub(super) fn new() -> Self {
        Hints {
            chunks: [const { OnceLock::new() }; CHUNK_COUNT],
        }
    }

    /// The node that probably has this identity.
    pub(super) fn get(&self, identity: &Identity) -> Option<NodeId> {
        let (chunk, place) = place(identity);
        let place = self.chunks.get(chunk)?.get()?.get(place)?;
        // Relaxed: it is a number to begin with, nothing more.
        let number = place.load(Ordering::Relaxed);
        (number != NO_NODE).then(|| NodeId::new(number))
    }

    /// Notes a node.
    pub(super) fn put(&self, identity: &Identity, node: NodeId) {
        let (chunk, place) = place(identity);
        let chunk = self.chunks.get(chunk);
        let chunk = chunk.map(|chunk| {
            chunk.get_or_init(|| {
                std::iter::repeat_with(|| AtomicU64::new(NO_NODE))
                    .take(CHUNK_LEN)
                    .collect()
            })
        });
        if let Some(place) = chunk.and_then(|chunk| chunk.get(place)) {
            place.store(node.raw(), Ordering::Relaxed);
        }
    }
}

/// Chunk, and place in it.
fn place(identity: &Identity) -> (usize, usize) {
    // Both masks are below 2^16, so nothing is cut.
    let low = usize::try_from(identity.ino & 0xffff).unwrap_or(0);
    (low / CHUNK_LEN, low % CHUNK_LEN)
}

#[cfg(test)]
mod tests {
    use super::super::inode::FileSystemPlace;
    use super::*;
    use crate::sys::meta::DeviceNumber;

    fn identity(ino: u64) -> Identity {
        let place = FileSystemPlace {
            mount_id: 1,
            dev: DeviceNumber::default(),
        };
        Identity { place, ino }
    }

    #[test]
    fn last_node_of_a_place_is_what_is_found() {
        let hints = Hints::new();
        for ino in [0, 511, 512, 0xffff, u64::MAX] {
            hints.put(&identity(ino), NodeId::new(ino | 2));
            assert_eq!(hints.get(&identity(ino)), Some(NodeId::new(ino | 2)));
        }
        assert_eq!(hints.get(&identity(1)), None);
        assert_eq!(hints.get(&identity(4096)), None);
        hints.put(&identity(0x1_0000), NodeId::new(9));
        assert_eq!(hints.get(&identity(0)), Some(NodeId::new(9)));
    }
}
