//! What: the inode number that a guest sees, where it does not see on which file system a file is.
//!
//! In: the host's number, and where the file is. Out: a number that does not meet those of other
//! file systems. A guest that is told of a mount keeps the files on it apart by a device number
//! of its own, so there the host's numbers pass unchanged. Elsewhere files of several file
//! systems share one device in the guest: where submounts are not announced, and for a file that
//! is a mount by itself (bind mount) or lives on another device than its directory (overlayfs
//! without xino).
//!
//! ```text
//!   63        48 47                        0
//!   [   index   | number of the host        ]   a place other than the root's, from 1
//! ```
//!
//! What this does not promise: a number of the host beyond 48 bits, or the 65,536th place, is
//! mapped by mixing all of its bits. Within one place that never makes two numbers the same;
//! between places it may, with a likelihood of files squared in 2^64. Neither is there a
//! guarantee against files of the root's own place that have numbers beyond 48 bits. Programs of
//! 32 bits without large file support cannot stat(2) what has such a number.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{PoisonError, RwLock};

use super::inode::FileSystemPlace;

/// Places that get an index of their own.
const INDEX_MAX: u32 = 0xffff;
/// Bits of the host's number that stay as they are.
const NUMBER_BITS: u32 = 48;

/// Which place a file is on, as far as the guest is concerned: 0 is the root's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::passthrough) struct PlaceIndex(u32);

impl PlaceIndex {
    /// The root's place.
    pub(in crate::passthrough) const ROOT: PlaceIndex = PlaceIndex(0);

    fn map(self, host_ino: u64) -> u64 {
        if self == PlaceIndex::ROOT {
            return host_ino;
        }
        if self.0 <= INDEX_MAX && host_ino >> NUMBER_BITS == 0 {
            return u64::from(self.0) << NUMBER_BITS | host_ino;
        }
        // The finalizer of splitmix64, which maps no two numbers to one.
        let mut mixed = host_ino ^ u64::from(self.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

/// What the guest sees of the mounts below the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::passthrough) enum Submounts {
    /// Directories on another file system than their parent are mounts in the guest, too.
    Announced,
    /// Everything looks like one file system.
    Hidden,
}

/// Where a file is: what decides its number for the guest. Does not change while it is a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::passthrough) struct Whereabouts {
    index: PlaceIndex,
    /// A directory on another place than its parent.
    is_mount_root: bool,
    /// Anything else on another place than its directory.
    is_stray: bool,
}

impl Whereabouts {
    /// Those of the root.
    pub(in crate::passthrough) const ROOT: Whereabouts = Whereabouts {
        index: PlaceIndex::ROOT,
        is_mount_root: false,
        is_stray: false,
    };

    /// Those of a file found in a directory; `crosses` says that their places differ.
    pub(super) fn new(index: PlaceIndex, crosses: bool, is_directory: bool) -> Self {
        Whereabouts {
            index,
            is_mount_root: crosses && is_directory,
            is_stray: crosses && !is_directory,
        }
    }

    /// Whether the guest is told that another file system begins here.
    pub(in crate::passthrough) fn is_announced(self, submounts: Submounts) -> bool {
        self.is_mount_root && submounts == Submounts::Announced
    }

    /// The number of a file, or of an entry of the directory, for the guest.
    pub(in crate::passthrough) fn guest_ino(self, host_ino: u64, submounts: Submounts) -> u64 {
        match submounts {
            Submounts::Announced if !self.is_stray => host_ino,
            Submounts::Announced | Submounts::Hidden => self.index.map(host_ino),
        }
    }
}

/// The places that the guest has come to, with their indices, which stay for good.
#[derive(Debug)]
pub(super) struct PlaceIndices {
    root: FileSystemPlace,
    indices: RwLock<HashMap<FileSystemPlace, PlaceIndex>>,
    /// Spreads the places for which there is no index.
    hasher: RandomState,
}

impl PlaceIndices {
    /// None but the root's.
    pub(super) fn new(root: FileSystemPlace) -> Self {
        PlaceIndices {
            root,
            indices: RwLock::default(),
            hasher: RandomState::new(),
        }
    }

    /// The index of a place.
    pub(super) fn of(&self, place: FileSystemPlace) -> PlaceIndex {
        if place == self.root {
            return PlaceIndex::ROOT;
        }
        let indices = self.indices.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = indices.get(&place) {
            return *index;
        }
        drop(indices);
        let mut indices = self.indices.write().unwrap_or_else(PoisonError::into_inner);
        let next = u32::try_from(indices.len()).map_or(u32::MAX, |len| len.saturating_add(1));
        if next > INDEX_MAX {
            // No more is remembered; the same place gives the same index nevertheless.
            let hash = u32::try_from(self.hasher.hash_one(place) >> 32).unwrap_or(u32::MAX);
            let taken = indices.get(&place).copied();
            return taken.unwrap_or(PlaceIndex(hash.max(INDEX_MAX.saturating_add(1))));
        }
        *indices.entry(place).or_insert(PlaceIndex(next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::meta::DeviceNumber;
    use std::collections::HashSet;

    fn place(mount_id: u64) -> FileSystemPlace {
        FileSystemPlace {
            mount_id,
            dev: DeviceNumber { major: 8, minor: 1 },
        }
    }

    #[test]
    fn index_of_a_place_stays_and_differs_from_others() {
        let indices = PlaceIndices::new(place(1));
        assert_eq!(indices.of(place(1)), PlaceIndex::ROOT);
        let (two, three) = (indices.of(place(2)), indices.of(place(3)));
        assert_eq!((two, three), (PlaceIndex(1), PlaceIndex(2)));
        assert_eq!(indices.of(place(2)), two);
    }

    #[test]
    fn index_beyond_the_last_is_remembered_by_nobody_but_stays() {
        let indices = PlaceIndices::new(place(0));
        for number in 1..=u64::from(INDEX_MAX) {
            assert!(indices.of(place(number)).0 <= INDEX_MAX);
        }
        let beyond = indices.of(place(1 << 40));
        assert!(beyond.0 > INDEX_MAX);
        assert_eq!(indices.of(place(1 << 40)), beyond);
        assert_eq!(indices.of(place(1)), PlaceIndex(1));
        assert_eq!(indices.indices.read().unwrap().len(), 0xffff);
    }

    #[test]
    fn numbers_of_places_do_not_meet() {
        let numbers = [0, 1, 2, (1 << 48) - 1, 1 << 48, (1 << 48) + 1, u64::MAX];
        let indices = [1, 2, 0xffff, 0x1_0000, u32::MAX].map(PlaceIndex);
        let mapped: HashSet<u64> = indices
            .iter()
            .flat_map(|index| numbers.map(|number| index.map(number)))
            .collect();
        assert_eq!(mapped.len(), indices.len() * numbers.len());
        assert_eq!(PlaceIndex(3).map(77), 3 << 48 | 77);
        assert_eq!(PlaceIndex::ROOT.map(u64::MAX), u64::MAX);
    }

    #[test]
    fn number_for_the_guest_follows_what_it_sees_of_mounts() {
        use Submounts::{Announced, Hidden};
        let index = PlaceIndex(5);
        let mapped = 5 << 48 | 9;
        for (crosses, is_directory, announced, hidden) in [
            (false, false, 9, mapped),
            (false, true, 9, mapped),
            (true, true, 9, mapped),
            (true, false, mapped, mapped),
        ] {
            let it = Whereabouts::new(index, crosses, is_directory);
            assert_eq!(it.guest_ino(9, Announced), announced, "{it:?}");
            assert_eq!(it.guest_ino(9, Hidden), hidden, "{it:?}");
            assert_eq!(it.is_announced(Announced), crosses && is_directory);
            assert!(!it.is_announced(Hidden));
        }
        assert_eq!(Whereabouts::ROOT.guest_ino(9, Hidden), 9);
    }
}
