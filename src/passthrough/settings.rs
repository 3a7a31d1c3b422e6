//! What: how a share is served, as settled before the first guest.
//!
//! In: choices of the operator, already checked against each other. Out: [`Settings`], which
//! never change while the share is served. Does not: parse anything.

use std::time::Duration;

/// For how long a guest with `cache=auto` believes what it was told.
const AUTO_VALID: Duration = Duration::from_secs(1);
/// For how long a guest that owns the directory alone believes what it was told: a day.
const LONG_VALID: Duration = Duration::from_secs(86_400);

/// How much a guest may cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CachePolicy {
    /// Nothing: files are read and written past the guest's page cache.
    Never,
    /// Names, attributes and directories, but no file contents.
    Metadata,
    /// Everything, for a second, and contents as long as size and times stay the same.
    Auto,
    /// Everything: the guest is the only one that changes the directory.
    Always,
}

/// How a share is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How much a guest may cache.
    pub cache: CachePolicy,
    /// For how long attributes may be cached.
    pub attr_valid: Duration,
    /// For how long names may be cached.
    pub entry_valid: Duration,
    /// The guest may hold back writes (`WRITEBACK_CACHE`).
    pub writeback: bool,
    /// Offer READDIRPLUS. Without effect with [`CachePolicy::Never`], where the attributes
    /// would be worthless on arrival.
    pub readdirplus: bool,
    /// Serve extended attributes.
    pub xattr: bool,
    /// Pass `O_DIRECT` on to the host.
    pub allow_direct_io: bool,
    /// Pass `O_NOATIME` on to the host.
    pub preserve_noatime: bool,
    /// Tell the guest where another file system begins.
    pub announce_submounts: bool,
}

impl Settings {
    /// The usual settings under a cache policy, with the time-outs that belong to it.
    pub const fn new(cache: CachePolicy) -> Self {
        let valid = match cache {
            CachePolicy::Never => Duration::ZERO,
            CachePolicy::Auto => AUTO_VALID,
            CachePolicy::Metadata | CachePolicy::Always => LONG_VALID,
        };
        Settings {
            cache,
            attr_valid: valid,
            entry_valid: valid,
            writeback: false,
            readdirplus: true,
            xattr: false,
            allow_direct_io: false,
            preserve_noatime: false,
            announce_submounts: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_the_time_outs_of_their_policy() {
        for (cache, secs) in [
            (CachePolicy::Never, 0),
            (CachePolicy::Auto, 1),
            (CachePolicy::Metadata, 86_400),
            (CachePolicy::Always, 86_400),
        ] {
            let settings = Settings::new(cache);
            assert_eq!(settings.attr_valid.as_secs(), secs, "{cache:?}");
            assert_eq!(settings.entry_valid.as_secs(), secs, "{cache:?}");
        }
    }
}
