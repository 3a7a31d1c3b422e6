//! What: what a guest may keep in its caches, and for how long.
//!
//! In: the settings of the share. Out: session wishes, and the time for which a missing name may
//! be believed. Pure; doc/caching.md says what each mode means for those who use it, and why.
//! Does not: look at files.

use std::time::Duration;

use super::settings::{CachePolicy, Settings};
use crate::fs::types::{Entry, Lookup};
use crate::sys::errno::{Errno, Result};
use crate::wire::flags::SessionFlags;

/// The session flags that concern caching.
pub(super) fn wanted(settings: &Settings) -> SessionFlags {
    let mut wanted = SessionFlags::empty();
    wanted.set(SessionFlags::WRITEBACK_CACHE, settings.writeback);
    // With AUTO_INVAL_DATA a guest drops a file's pages whenever its times move, after the
    // guest's own writes too. One that is alone needs no such thing.
    let is_alone = settings.cache == CachePolicy::Always;
    wanted.set(SessionFlags::EXPLICIT_INVAL_DATA, is_alone);
    wanted.set(SessionFlags::AUTO_INVAL_DATA, !is_alone);
    // The target of a link never changes, and a node id never comes to mean another link, so
    // what a guest once read stays true for as long as it knows the node.
    let caches_links = settings.cache != CachePolicy::Never;
    wanted.set(SessionFlags::CACHE_SYMLINKS, caches_links);
    // Of weight only for files opened with DIRECT_IO. The guest caches the pages that it maps,
    // for as long as they are mapped; without it, mmap(2) with MAP_SHARED fails there (ENODEV).
    wanted.set(SessionFlags::DIRECT_IO_ALLOW_MMAP, settings.allow_mmap);
    wanted
}

/// What LOOKUP answers: a name that is missing may be an answer too, for a while.
///
/// # Errors
/// Those of `found`; `ENOENT` only if the guest may not remember it.
pub(super) fn looked_up<'fs>(
    found: Result<Entry<'fs>>,
    negative_valid: Duration,
) -> Result<Lookup<'fs>> {
    match found {
        Err(Errno::ENOENT) if !negative_valid.is_zero() => Ok(Lookup::Missing {
            valid: negative_valid,
        }),
        found => found.map(Lookup::Found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_follows_the_cache_policy() {
        let links = SessionFlags::CACHE_SYMLINKS;
        let explicit = SessionFlags::EXPLICIT_INVAL_DATA;
        let automatic = SessionFlags::AUTO_INVAL_DATA;
        let mmap = SessionFlags::DIRECT_IO_ALLOW_MMAP;
        for (cache, flags) in [
            (CachePolicy::Never, automatic | mmap),
            (CachePolicy::Metadata, automatic | mmap | links),
            (CachePolicy::Auto, automatic | mmap | links),
            (CachePolicy::Always, explicit | mmap | links),
        ] {
            assert_eq!(wanted(&Settings::new(cache)), flags, "{cache:?}");
        }
    }

    #[test]
    fn wanted_follows_the_single_settings() {
        let odd = wanted(&Settings {
            allow_mmap: false,
            writeback: true,
            ..Settings::new(CachePolicy::Auto)
        });
        assert!(!odd.contains(SessionFlags::DIRECT_IO_ALLOW_MMAP));
        assert!(odd.contains(SessionFlags::WRITEBACK_CACHE));
    }

    #[test]
    fn looked_up_remembers_only_missing_names_and_only_if_allowed() {
        let second = Duration::from_secs(1);
        let answer = |errno, valid| match looked_up(Err(errno), valid) {
            Ok(Lookup::Missing { valid }) => Ok(valid),
            Ok(Lookup::Found(_)) => panic!("nothing was found"),
            Err(errno) => Err(errno),
        };
        assert_eq!(answer(Errno::ENOENT, second), Ok(second));
        assert_eq!(answer(Errno::ENOENT, Duration::ZERO), Err(Errno::ENOENT));
        assert_eq!(answer(Errno::ENOTDIR, second), Err(Errno::ENOTDIR));
        assert_eq!(answer(Errno::EACCES, second), Err(Errno::EACCES));
    }
}
