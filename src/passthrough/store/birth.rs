//! What: telling the file of a cold node from a later one with its inode number, without asking
//! for the handle of each.
//!
//! In: what statx(2) says of a file whose last descriptor is about to be closed here, and of one
//! that was found. Out: whether they are the same. Invariant: a time is noted only if the file was
//! made [`LONG_AGO`] before, and had its name still. Its number is free for another file only
//! later than that, and what is made then has another time of birth, for nobody can choose that.
//! Does not: know which file systems keep one, see `file_systems::dates_births`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::sys::meta::FileStat;

/// How old a file has to be. File systems date in ticks of at most 10 ms; the rest is for a clock
/// that is set.
const LONG_AGO: Duration = Duration::from_secs(1);

/// When the file of a node was made, in nanoseconds since 1970; 0 as long as that proves nothing.
#[derive(Debug, Default)]
pub(super) struct Birth(AtomicU64);

impl Birth {
    /// Notes the birth of a file that is pinned, or open, at the time `now`.
    pub(super) fn note(&self, stat: &FileStat, now: SystemTime) {
        let born = nanos(stat).filter(|born| {
            let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(*born));
            // A time in the future belongs to a clock that was set back.
            let age = at.and_then(|at| now.duration_since(at).ok());
            age.is_some_and(|age| age >= LONG_AGO)
        });
        if let Some(born) = born {
            // Relaxed: the number stands for itself, and never changes once it is there.
            self.0.store(born, Ordering::Relaxed);
        }
    }

    /// Whether a file with the same identity is surely the one whose birth was noted.
    pub(super) fn is_of(&self, stat: &FileStat) -> bool {
        let noted = self.0.load(Ordering::Relaxed);
        noted != 0 && nanos(stat) == Some(noted)
    }
}

fn nanos(stat: &FileStat) -> Option<u64> {
    let born = stat.btime?;
    u64::try_from(born.secs)
        .ok()?
        .checked_mul(1_000_000_000)?
        .checked_add(u64::from(born.nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::meta::{self, HostTime};
    use std::fs::File;
    use std::os::fd::AsFd;

    fn born(btime: Option<HostTime>) -> FileStat {
        let null = File::open("/dev/null").unwrap();
        FileStat {
            btime,
            ..meta::stat_fd(null.as_fd()).unwrap()
        }
    }

    fn at(secs: i64, nanos: u32) -> FileStat {
        born(Some(HostTime { secs, nanos }))
    }

    #[test]
    fn birth_is_noted_of_what_is_old_and_recognized_to_the_nanosecond() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let birth = Birth::default();
        let old = at(998, 7);
        assert!(!birth.is_of(&old));
        birth.note(&old, now);
        assert!(birth.is_of(&old));
        assert!(!birth.is_of(&at(998, 8)) && !birth.is_of(&at(999, 7)));
        assert!(!birth.is_of(&born(None)));
    }

    #[test]
    fn birth_is_not_noted_of_what_is_young_or_of_the_future_or_has_none() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let birth = Birth::default();
        for stat in [
            at(999, 1),
            at(1_000, 0),
            at(2_000, 0),
            at(-1, 0),
            at(i64::MAX, 0),
            at(0, 0),
            born(None),
        ] {
            birth.note(&stat, now);
            assert!(!birth.is_of(&stat), "{:?}", stat.btime);
        }
    }
}
