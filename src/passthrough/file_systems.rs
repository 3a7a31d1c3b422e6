//! What: what is known of the file systems of the host that a share reaches into.
//!
//! In: the place of a node, and a descriptor there. Out: which promises of caching its file
//! system lets us make, and how to find out whether it has contents in memory. Invariants: what is not on a list is believed to be able to do anything;
//! a place is asked once in a session, and never while a lock is held. Does not: cache anything
//! of a single file.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::{PoisonError, RwLock};

use super::prompt::Probe;
use super::store::inode::FileSystemPlace;
use crate::sys::fs_type::{self, FsType};

/// Most places that are remembered. Only the host can make more, by mounting; then all are asked
/// again.
const PLACES_MAX: usize = 1024;

/// The file systems that nodes of the present session were opened on.
#[derive(Debug, Default)]
pub(super) struct FileSystems {
    known: RwLock<HashMap<FileSystemPlace, Known>>,
}

/// What is known of one place.
#[derive(Clone, Copy, Debug)]
struct Known {
    kind: FsType,
    probe: Option<Probe>,
}

impl FileSystems {
    /// The kind of file system at `place`, where `file` is. One that cannot be asked is as good
    /// as unknown.
    pub(super) fn kind(&self, place: FileSystemPlace, file: BorrowedFd<'_>) -> FsType {
        self.known(place, file).kind
    }

    /// How to find out there what a read would wait for, as far as that is known.
    pub(super) fn probe(&self, place: FileSystemPlace, file: BorrowedFd<'_>) -> Option<Probe> {
        self.known(place, file).probe
    }

    /// How to find out at `place` what a read would wait for, as it has turned out.
    pub(super) fn learn_probe(&self, place: FileSystemPlace, probe: Probe) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get_mut(&place) {
            known.probe = Some(probe);
        }
    }

    fn known(&self, place: FileSystemPlace, file: BorrowedFd<'_>) -> Known {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&place) {
            return *known;
        }
        drop(known);
        let Ok(kind) = fs_type::fs_type(file) else {
            let (kind, probe) = (FsType::Other, None);
            return Known { kind, probe };
        };
        let new = Known {
            kind,
            probe: Probe::of_kind(kind),
        };
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= PLACES_MAX {
            known.clear();
        }
        known.insert(place, new);
        new
    }

    /// Forgets all: the numbers of a mount that is gone may come to mean another.
    pub(super) fn clear(&self) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.clear();
    }
}

/// Whether close(2) never has anything to report, because what was written is in the page cache
/// of this host, or on its way to a disk of which only fsync(2) tells. NFS, CIFS and FUSE write
/// out at close(2); overlayfs passes it on to who knows what.
pub(super) const fn reports_nothing_at_close(kind: FsType) -> bool {
    match kind {
        FsType::Ext
        | FsType::Xfs
        | FsType::Btrfs
        | FsType::F2fs
        | FsType::Bcachefs
        | FsType::Zfs
        | FsType::Tmpfs => true,
        FsType::Fuse | FsType::Fat | FsType::Other => false,
    }
}

/// Whether several writes to one file may be under way at once, because the file system puts
/// them in order by itself. So do all that are local.
pub(super) const fn orders_writes(kind: FsType) -> bool {
    reports_nothing_at_close(kind)
}

/// Whether no contents change without moving the time of the last change (ctime): neither by
/// write(2) and its like, nor through a mapping, once what was written there before has gone to
/// the disk. tmpfs has no disk: it never notices a second write to a mapped page. The others
/// are left out because nobody has looked.
pub(super) const fn dates_every_change(kind: FsType) -> bool {
    match kind {
        FsType::Ext | FsType::Xfs | FsType::Btrfs | FsType::F2fs => true,
        FsType::Bcachefs
        | FsType::Zfs
        | FsType::Tmpfs
        | FsType::Fuse
        | FsType::Fat
        | FsType::Other => false,
    }
}

/// Whether files have a time of birth, by the clock of this host, that nobody can choose. Others
/// take one from elsewhere, or have none.
pub(super) const fn dates_births(kind: FsType) -> bool {
    match kind {
        FsType::Ext | FsType::Xfs | FsType::Btrfs | FsType::F2fs | FsType::Tmpfs => true,
        FsType::Bcachefs | FsType::Zfs | FsType::Fuse | FsType::Fat | FsType::Other => false,
    }
}

/// Whether a file handle leads to its file for as long as that exists. FUSE and FAT find a file
/// by handle only while the host has it cached.
pub(super) const fn keeps_handles(kind: FsType) -> bool {
    !matches!(kind, FsType::Fuse | FsType::Fat)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passthrough::store::inode::Identity;
    use crate::sys::meta;
    use crate::sys::open;
    use std::os::fd::AsFd;
    use std::path::Path;

    #[test]
    fn kind_of_a_place_is_asked_once_and_again_after_clear() {
        let systems = FileSystems::default();
        let proc = open::pin_path(Path::new("/proc")).unwrap();
        let shm = open::pin_path(Path::new("/dev/shm")).unwrap();
        let place = Identity::of(&meta::stat_fd(shm.as_fd()).unwrap()).place;
        assert_eq!(systems.kind(place, shm.as_fd()), FsType::Tmpfs);
        // Another descriptor, to see that it is not looked at.
        assert_eq!(systems.kind(place, proc.as_fd()), FsType::Tmpfs);
        systems.clear();
        assert_eq!(systems.kind(place, proc.as_fd()), FsType::Other);
    }

    #[test]
    fn kind_of_more_places_than_are_remembered_stays_right() {
        let systems = FileSystems::default();
        let shm = open::pin_path(Path::new("/dev/shm")).unwrap();
        let mut place = Identity::of(&meta::stat_fd(shm.as_fd()).unwrap()).place;
        for _ in 0..PLACES_MAX + 10 {
            place.mount_id += 1;
            assert_eq!(systems.kind(place, shm.as_fd()), FsType::Tmpfs);
        }
        assert!(systems.known.read().unwrap().len() <= PLACES_MAX);
    }
}
