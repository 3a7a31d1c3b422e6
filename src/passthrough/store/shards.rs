//! What: maps that many threads use at once, cut into shards so that they seldom meet.
//!
//! In: keys whose low bits spread. Out: the shard of a key. Does not: lock by itself.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

/// Shards of a map. More than a host has request queues, so that two seldom meet in one.
pub(super) const SHARD_COUNT: usize = 64;

/// A map that shrinks below this capacity no further.
const CAPACITY_KEPT: usize = 64;

/// The shard that `key` belongs to.
pub(super) fn shard_of<S>(shards: &[S; SHARD_COUNT], key: u64) -> &S {
    // The mask keeps the index below SHARD_COUNT, a power of two.
    let index = usize::try_from(key & 63).unwrap_or(0);
    shards.get(index).unwrap_or(&shards[0])
}

/// Removes `key` and gives back memory that the map is far from needing.
pub(super) fn remove<K: Eq + Hash, V, H: BuildHasher>(
    map: &mut HashMap<K, V, H>,
    key: &K,
) -> Option<V> {
    let removed = map.remove(key);
    let needed = map.len().max(CAPACITY_KEPT);
    if map.capacity() / 8 > needed {
        map.shrink_to(needed.saturating_mul(2));
    }
    removed
}

/// A map by numbers that this program gave out itself, in order. A guest can ask for any number
/// but has no say in which ones exist, so a hash that resists attacks would buy nothing.
pub(super) type NumberMap<V> = HashMap<u64, V, BuildHasherDefault<NumberHasher>>;

/// Spreads consecutive numbers (Fibonacci hashing).
#[derive(Debug, Default)]
pub(super) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0.rotate_left(8) ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remove_gives_memory_back() {
        let mut map = NumberMap::default();
        for number in 0..10_000_u64 {
            map.insert(number, number);
        }
        for number in 0..10_000_u64 {
            assert_eq!(remove(&mut map, &number), Some(number));
        }
        assert!(map.capacity() < 2_000, "{}", map.capacity());
    }

    #[test]
    fn shard_of_every_key_exists() {
        let shards: [usize; SHARD_COUNT] = std::array::from_fn(|index| index);
        assert_eq!(*shard_of(&shards, 0), 0);
        assert_eq!(*shard_of(&shards, 63), 63);
        assert_eq!(*shard_of(&shards, 64), 0);
        assert_eq!(*shard_of(&shards, u64::MAX), 63);
    }
}
