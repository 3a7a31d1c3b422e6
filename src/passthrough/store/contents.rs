//! What: whether a guest's page cache still holds what a file holds.
//!
//! In: what statx(2) says at each OPEN, and the first READ through each open file. Out: whether
//! the guest may keep its pages over this OPEN. Invariant: when [`KnownContents`] holds a stamp,
//! the guest has emptied its cache of the file after that stamp was read, so every page that it
//! has now shows the contents of that stamp or of a later one.
//!
//! ```text
//!   OPEN   stat -> stamp (or none: too young to prove anything)
//!            equal to what is known -> the guest keeps its pages
//!            else -> the guest empties its cache when it gets the reply; the stamp waits
//!   READ   through this open file: so the guest has got the reply -> the stamp is known
//! ```
//!
//! Why the stamp waits: two tasks of the guest may open the file at once. If the first reply,
//! which empties the cache, is still on its way while the second OPEN is served, the second must
//! not say "keep": it would be believed before the cache is empty.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::inode::Inode;
use crate::sys::meta::FileStat;

/// The state of a file's contents: the time of its last change (ctime) in nanoseconds. Every
/// change moves it, and nobody can move it to a time of his choice; so size and time of
/// modification (mtime), which everybody can, would add nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::passthrough) struct ContentsStamp(NonZeroU64);

impl ContentsStamp {
    /// The stamp of a file that has been left alone for `left_alone` at the time `now` (since
    /// 1970). Of a file that was changed later than that nothing can be proven: another change
    /// may get the same time, or none.
    pub(in crate::passthrough) fn of(
        stat: &FileStat,
        now: Duration,
        left_alone: Duration,
    ) -> Option<Self> {
        let changed = Duration::new(u64::try_from(stat.ctime.secs).ok()?, stat.ctime.nanos);
        // A time in the future belongs to a clock that was set back.
        if now.checked_sub(changed)? < left_alone {
            return None;
        }
        Self::of_nanos(u64::try_from(changed.as_nanos()).ok()?)
    }

    pub(super) fn of_nanos(nanos: u64) -> Option<Self> {
        NonZeroU64::new(nanos).map(ContentsStamp)
    }
}

/// The stamp of what the guest has in its page cache, of one node.
#[derive(Debug, Default)]
pub(in crate::passthrough) struct KnownContents(AtomicU64);

impl KnownContents {
    /// Whether the guest's pages show what the file with this stamp holds.
    pub(in crate::passthrough) fn are(&self, stamp: ContentsStamp) -> bool {
        // Relaxed here and in `set`: the number stands for itself, nothing else is read by it.
        self.0.load(Ordering::Relaxed) == stamp.0.get()
    }

    fn set(&self, stamp: u64) {
        self.0.store(stamp, Ordering::Relaxed);
    }
}

/// A stamp that waits until the guest has surely emptied its cache.
#[derive(Debug)]
pub(in crate::passthrough) struct WaitingStamp {
    inode: Arc<Inode>,
    /// 0 when it waits no more.
    stamp: AtomicU64,
}

impl WaitingStamp {
    /// A stamp that was read when `inode` was opened.
    pub(in crate::passthrough) fn new(inode: Arc<Inode>, stamp: ContentsStamp) -> Self {
        WaitingStamp {
            inode,
            stamp: AtomicU64::new(stamp.0.get()),
        }
    }

    /// The guest has used what it opened, so it has got the reply to OPEN.
    pub(in crate::passthrough) fn arrive(&self) {
        // Relaxed: two readers at once would say the same.
        let stamp = self.stamp.load(Ordering::Relaxed);
        if stamp != 0 {
            self.stamp.store(0, Ordering::Relaxed);
            self.inode.known_contents.set(stamp);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passthrough::tests::share::Share;
    use crate::sys::meta::{self, HostTime};
    use crate::sys::open;
    use std::os::fd::AsFd;

    const LEFT_ALONE: Duration = Duration::from_secs(60);

    fn stat(ctime: HostTime) -> FileStat {
        let share = Share::new();
        let any = open::pin_path(share.path()).unwrap();
        FileStat {
            ctime,
            ..meta::stat_fd(any.as_fd()).unwrap()
        }
    }

    fn stamp(secs: i64, nanos: u32, now: Duration) -> Option<u64> {
        let stat = stat(HostTime { secs, nanos });
        ContentsStamp::of(&stat, now, LEFT_ALONE).map(|stamp| stamp.0.get())
    }

    #[test]
    fn stamp_of_a_file_that_changed_too_lately_is_none() {
        let now = Duration::new(1_000, 500);
        assert_eq!(stamp(940, 500, now), Some(940_000_000_500));
        assert_eq!(stamp(940, 501, now), None);
        assert_eq!(stamp(1_000, 500, now), None);
    }

    #[test]
    fn stamp_of_a_time_that_cannot_be_is_none() {
        let now = Duration::new(1_000, 0);
        for (secs, nanos) in [(0, 0), (-1, 0), (1_001, 0), (i64::MAX, 0), (i64::MIN, 0)] {
            assert_eq!(stamp(secs, nanos, now), None, "{secs}");
        }
        // After the year 2554 the number has no room.
        let late = Duration::new(u64::MAX, 0);
        assert_eq!(stamp(18_446_744_073, 709_551_615, late), Some(u64::MAX));
        assert_eq!(stamp(18_446_744_073, 709_551_616, late), None);
    }
}
