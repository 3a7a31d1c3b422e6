//! What: nodes by identity.
//!
//! In: identities as statx(2) tells them. Out: the node that has one, under the lock of a shard.
//! Invariants: a map holds its nodes and no copy of their identities; it shrinks with what it
//! holds. Locks: one shard at a time; whoever holds one says what comes after it (see `inodes`).
//!
//! Inode numbers are half a guest's choice: it can make and remove files until it has numbers
//! that it likes. So the hash has a key that changes with each run, which keeps a guest from
//! making numbers that meet; it is no cryptography, and what could be won is a slow lookup.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::inode::{Identity, Inode};
use super::shards::SHARD_COUNT;

/// A map that shrinks below this capacity no further.
const CAPACITY_KEPT: usize = 64;

/// Nodes by identity.
#[derive(Debug)]
pub(super) struct Identities {
    shards: [Shard; SHARD_COUNT],
    hashing: KeyedHashing,
}

/// On a cache line of its own, so that queues do not meet where their shards differ.
#[derive(Debug)]
#[repr(align(64))]
struct Shard(Mutex<IdentityMap>);

/// The nodes of one shard.
#[derive(Debug)]
pub(super) struct IdentityMap(HashSet<ByIdentity, KeyedHashing>);

/// A node that is found by its identity.
#[derive(Debug)]
struct ByIdentity(Arc<Inode>);

impl Borrow<Identity> for ByIdentity {
    fn borrow(&self) -> &Identity {
        &self.0.identity
    }
}

impl Hash for ByIdentity {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.identity.hash(hasher);
    }
}

impl PartialEq for ByIdentity {
    fn eq(&self, other: &Self) -> bool {
        self.0.identity == other.0.identity
    }
}

impl Eq for ByIdentity {}

impl Identities {
    /// None.
    pub(super) fn new() -> Self {
        let hashing = KeyedHashing::new();
        Identities {
            shards: std::array::from_fn(|_| {
                Shard(Mutex::new(IdentityMap(HashSet::with_hasher(hashing))))
            }),
            hashing,
        }
    }

    /// The shard that `identity` belongs to.
    pub(super) fn lock(&self, identity: &Identity) -> MutexGuard<'_, IdentityMap> {
        // Bits that a map uses neither for its buckets nor for its tags. The mask keeps the
        // index below SHARD_COUNT, a power of two.
        let bits = self.hashing.hash_one(identity) >> 48;
        let index = usize::try_from(bits & 63).unwrap_or(0);
        let shard = self.shards.get(index).unwrap_or(&self.shards[0]);
        shard.lock()
    }

    /// All shards, one after another.
    pub(super) fn each(&self) -> impl Iterator<Item = MutexGuard<'_, IdentityMap>> {
        self.shards.iter().map(Shard::lock)
    }
}

impl Shard {
    fn lock(&self) -> MutexGuard<'_, IdentityMap> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IdentityMap {
    /// The node with this identity.
    pub(super) fn get(&self, identity: &Identity) -> Option<&Arc<Inode>> {
        self.0.get(identity).map(|present| &present.0)
    }

    /// Whether it is this node that has its identity.
    pub(super) fn has(&self, inode: &Arc<Inode>) -> bool {
        self.get(&inode.identity)
            .is_some_and(|present| Arc::ptr_eq(present, inode))
    }

    /// Adds a node whose identity no other has.
    pub(super) fn insert(&mut self, inode: Arc<Inode>) {
        self.0.insert(ByIdentity(inode));
    }

    /// Takes a node out, and gives back memory that the map is far from needing.
    pub(super) fn remove(&mut self, identity: &Identity) -> Option<Arc<Inode>> {
        let removed = self.0.take(identity)?;
        let needed = self.0.len().max(CAPACITY_KEPT);
        if self.0.capacity() / 8 > needed {
            self.0.shrink_to(needed.saturating_mul(2));
        }
        Some(removed.0)
    }

    /// Takes all nodes out, for the caller to drop without the lock.
    pub(super) fn take_all(&mut self) -> IdentityMap {
        let hashing = *self.0.hasher();
        IdentityMap(std::mem::replace(
            &mut self.0,
            HashSet::with_hasher(hashing),
        ))
    }

    /// How many of the nodes the guest holds.
    #[cfg(test)]
    pub(super) fn held_count(&self) -> usize {
        self.0.iter().filter(|inode| inode.0.is_held()).count()
    }
}

/// A hash of a few words under a random key: multiply and fold.
#[derive(Clone, Copy, Debug)]
struct KeyedHashing {
    start: u64,
    key: u64,
}

/// A hash under way.
#[derive(Debug)]
struct KeyedHasher {
    state: u64,
    key: u64,
}

impl KeyedHashing {
    fn new() -> Self {
        // The standard library has asked the kernel for random numbers.
        let random = RandomState::new();
        KeyedHashing {
            start: random.hash_one(0_u64),
            key: random.hash_one(1_u64) | 1,
        }
    }
}

impl BuildHasher for KeyedHashing {
    type Hasher = KeyedHasher;

    fn build_hasher(&self) -> KeyedHasher {
        KeyedHasher {
            state: self.start,
            key: self.key,
        }
    }
}

impl Hasher for KeyedHasher {
    fn finish(&self) -> u64 {
        // The finalizer of splitmix64: consecutive numbers times an unlucky key stay in step.
        let mut mixed = self.state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.state ^ word).wrapping_mul(u128::from(self.key));
        let high = u64::try_from(product >> 64).unwrap_or(0);
        let low = u64::try_from(product & u128::from(u64::MAX)).unwrap_or(0);
        // Half of the state is added back, so that a product of 0 does not forget it.
        self.state = (high ^ low).wrapping_add(self.state.rotate_left(32));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passthrough::store::inode::FileSystemPlace;
    use crate::sys::meta::DeviceNumber;
    use std::collections::HashMap;

    fn identity(mount_id: u64, minor: u32, ino: u64) -> Identity {
        let dev = DeviceNumber { major: 8, minor };
        Identity {
            place: FileSystemPlace { mount_id, dev },
            ino,
        }
    }

    #[test]
    fn hash_spreads_numbers_that_look_alike_whatever_its_key() {
        let steps = [1, 2, 64, 1 << 12, 1 << 32, 1 << 44];
        for (key, step) in (0..10).flat_map(|key| steps.map(|step| (key, step))) {
            let hashing = match key {
                0 => KeyedHashing { start: 0, key: 1 },
                1 => KeyedHashing {
                    start: 1,
                    key: 1 << 63 | 1,
                },
                _ => KeyedHashing::new(),
            };
            let (mut shards, mut buckets, mut tags) =
                (HashMap::new(), HashMap::new(), HashMap::new());
            for number in 0..16_384_u64 {
                let hash = hashing.hash_one(identity(30, 1, number.wrapping_mul(step)));
                *shards.entry(hash >> 48 & 63).or_insert(0) += 1;
                *buckets.entry(hash & 1023).or_insert(0) += 1;
                *tags.entry(hash >> 57).or_insert(0) += 1;
            }
            // 256, 16 and 128 of each if it were even.
            assert!(
                shards.values().all(|n: &i32| (100..500).contains(n)),
                "{step}"
            );
            assert!(buckets.values().all(|n: &i32| *n < 60), "{step}");
            assert!(tags.values().all(|n: &i32| (30..300).contains(n)), "{step}");
        }
    }

    #[test]
    fn hash_depends_on_every_part_and_on_the_key() {
        let hashing = KeyedHashing::new();
        let hash = hashing.hash_one(identity(1, 2, 3));
        for other in [identity(2, 2, 3), identity(1, 3, 3), identity(1, 2, 4)] {
            assert_ne!(hash, hashing.hash_one(other));
        }
        assert_ne!(hash, KeyedHashing::new().hash_one(identity(1, 2, 3)));
    }
}
