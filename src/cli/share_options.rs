//! What: the options that say how the directory is served, as they are typed.
//!
//! In: the arguments. Out: groups of options, which `options` joins; every value is checked for
//! its form only.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgAction, Args};
use virtiofsd::{IdRule, XattrMap};

use super::options::{Cache, InodeFileHandles, Negotiation};

/// What the guest may cache, and for how long.
#[derive(Debug, Args)]
pub(crate) struct CachingOptions {
    /// How much the guest may cache
    #[arg(long, value_enum, ignore_case = true, default_value_t = Cache::Auto)]
    pub(crate) cache: Cache,

    /// How long the guest may believe names and attributes, instead of what --cache says: seconds,
    /// with fractions
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub(crate) timeout: Option<Duration>,

    /// The same, for names that exist
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub(crate) entry_timeout: Option<Duration>,

    /// The same, for attributes
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub(crate) attr_timeout: Option<Duration>,

    /// How long the guest may believe that a name does not exist; 0 makes it ask each time, as
    /// --cache auto and never do without this option
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub(crate) negative_timeout: Option<Duration>,

    /// Let the guest cache writes; it then owns sizes and times of files that it writes
    #[arg(long)]
    pub(crate) writeback: bool,

    /// Never return attributes along with directory listings
    #[arg(long)]
    pub(crate) no_readdirplus: bool,

    /// Let the guest map files for sharing with --cache never and metadata (default)
    #[arg(long)]
    pub(crate) allow_mmap: bool,

    /// Do not let it, for programs that must see every change by others at once
    #[arg(long, overrides_with = "allow_mmap")]
    pub(crate) no_allow_mmap: bool,
}

/// Attributes beyond those of stat(2), and who owns what.
#[derive(Debug, Args)]
pub(crate) struct MetadataOptions {
    /// Let the guest use extended attributes
    #[arg(long)]
    pub(crate) xattr: bool,

    /// Rules that rename, hide or refuse extended attributes between guest and host, like
    /// ":map::user.virtiofs.:" (implies --xattr)
    #[arg(long, value_name = "RULES", value_parser = OsStringValueParser::new().try_map(parse_xattr_map))]
    pub(crate) xattrmap: Option<XattrMap>,

    /// Let the guest use access control lists (implies --xattr)
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = Negotiation::Never,
        default_missing_value = "always"
    )]
    pub(crate) posix_acl: Negotiation,

    /// Label new files with the security contexts that the guest sends (implies --xattr)
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = Negotiation::Never,
        default_missing_value = "always"
    )]
    pub(crate) security_label: Negotiation,

    /// Translate user ids between guest and host: TYPE:FROM:TO:COUNT with guest, host,
    /// squash-guest, squash-host or map as TYPE, or forbid-guest:FROM:COUNT. May be repeated
    #[arg(long, value_name = "RULE", action = ArgAction::Append)]
    pub(crate) translate_uid: Vec<IdRule>,

    /// The same for group ids
    #[arg(long, value_name = "RULE", action = ArgAction::Append)]
    pub(crate) translate_gid: Vec<IdRule>,

    /// Clear set-user-id, set-group-id and file capabilities on the host when a file is written
    /// (default with --xattr)
    #[arg(long)]
    pub(crate) killpriv_v2: bool,

    /// Leave that to the guest, which then asks for file capabilities before each write
    #[arg(long)]
    pub(crate) no_killpriv_v2: bool,

    /// Let the guest change the immutable and append-only flags of files (chattr +i, +a)
    #[arg(long)]
    pub(crate) allow_immutable: bool,

    /// Let the guest change project ids of files
    #[arg(long)]
    pub(crate) allow_project_id: bool,
}

/// How operations behave.
#[derive(Debug, Args)]
pub(crate) struct SemanticsOptions {
    /// POSIX locks (fcntl) of the guest hold on the host and in other guests, too
    #[arg(long)]
    pub(crate) posix_lock: bool,

    /// BSD locks (flock) of the guest hold on the host and in other guests, too
    #[arg(long)]
    pub(crate) flock: bool,

    /// Tell the guest which directories are mount points (default)
    #[arg(long)]
    pub(crate) announce_submounts: bool,

    /// Do not tell it: everything looks like one file system
    #[arg(long, overrides_with = "announce_submounts")]
    pub(crate) no_announce_submounts: bool,

    /// Honour O_DIRECT of the guest: file contents bypass the host's page cache
    #[arg(long)]
    pub(crate) allow_direct_io: bool,

    /// Honour O_NOATIME of the guest instead of dropping it
    #[arg(long)]
    pub(crate) preserve_noatime: bool,

    /// Spare the guest the messages that open and close files
    #[arg(long)]
    pub(crate) no_open: bool,

    /// Spare the guest the messages that open and close directories
    #[arg(long)]
    pub(crate) no_opendir: bool,

    /// Make every directory look empty: names have to be known
    #[arg(long)]
    pub(crate) no_readdir: bool,
}

/// How many descriptors the daemon may hold.
#[derive(Debug, Args)]
pub(crate) struct DescriptorOptions {
    /// Most open descriptors of the daemon (RLIMIT_NOFILE); 0 leaves the limit as it is. Without
    /// this option as many as the host gives, up to 1000000
    #[arg(long, value_name = "N")]
    pub(crate) rlimit_nofile: Option<u64>,

    /// How files are found again that the guest knows but has not open: by descriptors or by file
    /// handles
    #[arg(
        long,
        value_enum,
        value_name = "POLICY",
        require_equals = true,
        default_value_t = InodeFileHandles::Prefer
    )]
    pub(crate) inode_file_handles: InodeFileHandles,
}

/// Longest time-out in seconds: some thirty years, well within what the protocol can carry.
const SECONDS_MAX: f64 = 1e9;

/// The rules of `--xattrmap`, which are bytes: names of attributes need not be text.
pub(super) fn parse_xattr_map(text: OsString) -> Result<XattrMap, String> {
    XattrMap::parse(text.as_bytes()).map_err(|error| error.to_string())
}

/// A time-out as it is typed: seconds with fractions.
pub(super) fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| format!("{text:?} is no number of seconds"))?;
    if !(0.0..=SECONDS_MAX).contains(&seconds) {
        return Err(format!("a time-out is 0 to {SECONDS_MAX} seconds"));
    }
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_not_negative_and_have_fractions() {
        assert_eq!(parse_seconds("0"), Ok(Duration::ZERO));
        assert_eq!(parse_seconds("1.5"), Ok(Duration::from_millis(1500)));
        for bad in ["-1", "-0.1", "NaN", "inf", "1e10", "", "1s"] {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
    }
}
