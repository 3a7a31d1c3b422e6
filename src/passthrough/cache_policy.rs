//! What: what a guest may keep in its caches, and for how long.
//!
//! In: the settings of the share, and what is known of a file that is being opened. Out: session
//! wishes, flags for the reply to an OPEN, and the time for which a missing name may be believed.
//! Pure; doc/caching.md says what each mode means for those who use it, and why. Does not: look
//! at files.

use std::time::Duration;

use super::file_systems;
use super::settings::{CachePolicy, Settings};
use crate::fs::types::{Entry, Lookup};
use crate::sys::errno::{Errno, Result};
use crate::sys::fs_type::FsType;
use crate::wire::flags::{OpenFlags, OpenReplyFlags, SessionFlags};

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
    // A guest that opens nothing believes that O_TRUNC was part of the OPEN that it did not send.
    // Without ATOMIC_O_TRUNC it truncates by SETATTR.
    wanted.set(SessionFlags::NO_OPEN_SUPPORT, settings.no_open);
    wanted.set(SessionFlags::ATOMIC_O_TRUNC, !settings.no_open);
    wanted.set(SessionFlags::NO_OPENDIR_SUPPORT, settings.no_opendir);
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

/// What a file was opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Both; only such a file can be changed through a mapping.
    Both,
}

impl Access {
    /// What the guest's flags say.
    pub(super) fn of(flags: OpenFlags) -> Self {
        if flags.contains(OpenFlags::RDWR) {
            Access::Both
        } else if flags.contains(OpenFlags::WRONLY) {
            Access::Write
        } else {
            Access::Read
        }
    }
}

/// Whether the guest's page cache still holds what the file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CachedPages {
    /// It provably does.
    Valid,
    /// Nobody can tell.
    Unknown,
}

/// A file that is being opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenedFile {
    /// What for.
    pub(super) access: Access,
    /// Where it is.
    pub(super) fs_type: FsType,
    /// What the guest has of it.
    pub(super) pages: CachedPages,
}

/// Whether it depends on a file's contents if the guest may keep its pages over an OPEN. O_TRUNC
/// leaves no pages to keep.
pub(super) fn looks_at_contents(cache: CachePolicy, flags: OpenFlags, fs_type: FsType) -> bool {
    cache == CachePolicy::Auto
        && !flags.contains(OpenFlags::TRUNC)
        && file_systems::dates_every_change(fs_type)
}

/// How a guest shall treat its cache of a file. `O_DIRECT` needs no flag: guests bypass their
/// page cache for it by themselves.
pub(super) fn file_reply_flags(
    cache: CachePolicy,
    session: SessionFlags,
    file: OpenedFile,
) -> OpenReplyFlags {
    let mut flags = match cache {
        CachePolicy::Never | CachePolicy::Metadata => OpenReplyFlags::DIRECT_IO,
        CachePolicy::Auto => match file.pages {
            CachedPages::Valid => OpenReplyFlags::KEEP_CACHE,
            CachedPages::Unknown => OpenReplyFlags::empty(),
        },
        CachePolicy::Always => OpenReplyFlags::KEEP_CACHE,
    };
    let is_parallel =
        flags.contains(OpenReplyFlags::DIRECT_IO) && file_systems::orders_writes(file.fs_type);
    flags.set(OpenReplyFlags::PARALLEL_DIRECT_WRITES, is_parallel);
    let noflush = !needs_flush(cache, session, file);
    flags.set(OpenReplyFlags::NOFLUSH, noflush);
    flags
}

/// Whether a close in the guest means anything to the host:
///
/// - the host's file system may have something to report at close(2);
/// - the guest gives up POSIX locks with FLUSH;
/// - a guest with a write-back cache writes out when it closes, and sends FLUSH anyway;
/// - so does any guest with pages that were changed through a mapping, for which the file must
///   have been opened for reading and writing. That can wait where nobody else looks.
fn needs_flush(cache: CachePolicy, session: SessionFlags, file: OpenedFile) -> bool {
    let is_mapped_and_seen = file.access == Access::Both && cache != CachePolicy::Always;
    is_mapped_and_seen
        || session.intersects(SessionFlags::POSIX_LOCKS | SessionFlags::WRITEBACK_CACHE)
        || !file_systems::reports_nothing_at_close(file.fs_type)
}

/// How a guest shall cache a listing.
///
/// Not in auto mode: a guest that has a listing in its cache asks for the attributes of each name
/// by a LOOKUP of its own when they have become too old, which is after a second, while a fresh
/// listing (READDIRPLUS) brings dozens of them in one message. doc/caching.md has the counts.
pub(super) const fn directory_reply_flags(cache: CachePolicy) -> OpenReplyFlags {
    match cache {
        CachePolicy::Never | CachePolicy::Auto => OpenReplyFlags::empty(),
        CachePolicy::Metadata | CachePolicy::Always => {
            OpenReplyFlags::KEEP_CACHE.union(OpenReplyFlags::CACHE_DIR)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECT: OpenReplyFlags = OpenReplyFlags::DIRECT_IO;
    const KEEP: OpenReplyFlags = OpenReplyFlags::KEEP_CACHE;
    const NOFLUSH: OpenReplyFlags = OpenReplyFlags::NOFLUSH;
    const PARALLEL: OpenReplyFlags = OpenReplyFlags::PARALLEL_DIRECT_WRITES;

    fn on(fs_type: FsType, access: Access) -> OpenedFile {
        OpenedFile {
            access,
            fs_type,
            pages: CachedPages::Unknown,
        }
    }

    #[test]
    fn file_reply_flags_follow_the_cache_policy_and_the_access() {
        let auto = OpenReplyFlags::empty();
        for (cache, base, both) in [
            (CachePolicy::Never, DIRECT | PARALLEL, DIRECT | PARALLEL),
            (CachePolicy::Metadata, DIRECT | PARALLEL, DIRECT | PARALLEL),
            (CachePolicy::Auto, auto, auto),
            (CachePolicy::Always, KEEP, KEEP | NOFLUSH),
        ] {
            let flags =
                |access| file_reply_flags(cache, SessionFlags::empty(), on(FsType::Ext, access));
            assert_eq!(flags(Access::Read), base | NOFLUSH, "{cache:?}");
            assert_eq!(flags(Access::Write), base | NOFLUSH, "{cache:?}");
            assert_eq!(flags(Access::Both), both, "{cache:?}");
        }
    }

    #[test]
    fn file_reply_flags_keep_valid_pages_where_pages_are_kept_at_all() {
        for (cache, kept) in [
            (CachePolicy::Never, OpenReplyFlags::empty()),
            (CachePolicy::Metadata, OpenReplyFlags::empty()),
            (CachePolicy::Auto, KEEP),
            (CachePolicy::Always, KEEP),
        ] {
            let file = OpenedFile {
                pages: CachedPages::Valid,
                ..on(FsType::Ext, Access::Read)
            };
            let flags = file_reply_flags(cache, SessionFlags::empty(), file);
            assert_eq!(flags & KEEP, kept, "{cache:?}");
        }
    }

    #[test]
    fn looks_at_contents_only_where_that_proves_something() {
        let (read, truncate) = (OpenFlags::empty(), OpenFlags::TRUNC);
        for (cache, flags, fs_type, looks) in [
            (CachePolicy::Auto, read, FsType::Ext, true),
            (CachePolicy::Auto, read, FsType::Tmpfs, false),
            (CachePolicy::Auto, read, FsType::Other, false),
            (CachePolicy::Auto, truncate, FsType::Ext, false),
            (CachePolicy::Always, read, FsType::Ext, false),
            (CachePolicy::Never, read, FsType::Ext, false),
            (CachePolicy::Metadata, read, FsType::Ext, false),
        ] {
            assert_eq!(looks_at_contents(cache, flags, fs_type), looks);
        }
    }

    #[test]
    fn file_reply_flags_trust_no_unknown_file_system() {
        for (cache, flags) in [
            (CachePolicy::Never, DIRECT),
            (CachePolicy::Metadata, DIRECT),
            (CachePolicy::Auto, OpenReplyFlags::empty()),
            (CachePolicy::Always, KEEP),
        ] {
            let file = on(FsType::Other, Access::Read);
            assert_eq!(file_reply_flags(cache, SessionFlags::empty(), file), flags);
        }
    }

    #[test]
    fn file_reply_flags_ask_for_flush_where_the_guest_needs_it() {
        let file = on(FsType::Xfs, Access::Read);
        for session in [SessionFlags::POSIX_LOCKS, SessionFlags::WRITEBACK_CACHE] {
            assert_eq!(file_reply_flags(CachePolicy::Always, session, file), KEEP);
        }
        // BSD locks go with RELEASE.
        let flags = file_reply_flags(CachePolicy::Always, SessionFlags::FLOCK_LOCKS, file);
        assert_eq!(flags, KEEP | NOFLUSH);
    }

    #[test]
    fn access_of_the_guests_flags_is_their_access_mode() {
        for (bits, access) in [
            (0, Access::Read),
            (1, Access::Write),
            (2, Access::Both),
            (0o101_001, Access::Write),
        ] {
            assert_eq!(Access::of(OpenFlags::from_bits_retain(bits)), access);
        }
    }

    #[test]
    fn directory_reply_flags_follow_the_cache_policy() {
        let kept = KEEP | OpenReplyFlags::CACHE_DIR;
        for (cache, flags) in [
            (CachePolicy::Never, OpenReplyFlags::empty()),
            (CachePolicy::Auto, OpenReplyFlags::empty()),
            (CachePolicy::Metadata, kept),
            (CachePolicy::Always, kept),
        ] {
            assert_eq!(directory_reply_flags(cache), flags, "{cache:?}");
        }
    }

    #[test]
    fn wanted_follows_the_cache_policy() {
        let links = SessionFlags::CACHE_SYMLINKS;
        let explicit = SessionFlags::EXPLICIT_INVAL_DATA;
        let automatic = SessionFlags::AUTO_INVAL_DATA;
        let mmap = SessionFlags::DIRECT_IO_ALLOW_MMAP;
        let truncate = SessionFlags::ATOMIC_O_TRUNC;
        for (cache, flags) in [
            (CachePolicy::Never, automatic),
            (CachePolicy::Metadata, automatic | links),
            (CachePolicy::Auto, automatic | links),
            (CachePolicy::Always, explicit | links),
        ] {
            let flags = flags | mmap | truncate;
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
        let stateless = wanted(&Settings {
            no_open: true,
            ..Settings::new(CachePolicy::Auto)
        });
        assert!(stateless.contains(SessionFlags::NO_OPEN_SUPPORT));
        assert!(!stateless.contains(SessionFlags::ATOMIC_O_TRUNC));
        let listing = wanted(&Settings {
            no_opendir: true,
            ..Settings::new(CachePolicy::Auto)
        });
        assert!(listing.contains(SessionFlags::NO_OPENDIR_SUPPORT));
        assert!(listing.contains(SessionFlags::ATOMIC_O_TRUNC));
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
