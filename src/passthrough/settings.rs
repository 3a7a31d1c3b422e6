//! What: how a share is served, as settled before the first guest.
//!
//! In: choices of the operator, already checked against each other. Out: [`Settings`], which
//! never change while the share is served. Does not: parse anything.

use std::time::Duration;

use crate::ids::syntax::Rule;
use crate::xattr_map::XattrMap;

/// For how long a guest with `cache=auto` believes what it was told.
const AUTO_VALID: Duration = Duration::from_secs(1);
/// For how long a guest that owns the directory alone believes what it was told: a day.
const LONG_VALID: Duration = Duration::from_secs(86_400);

/// For how long a file must have been left alone before the guest may keep its pages over an
/// OPEN. Two writes within one tick of the host's clock (10 ms, on old file systems a second or
/// two) bear the same time. And who writes through a mapping is dated only at the first write to
/// a page, then no more until that page has gone to the disk: 35 s later as the kernel is set up
/// (`vm.dirty_expire_centisecs`, `vm.dirty_writeback_centisecs`), and a bit more for a busy disk.
const KEEP_CACHE_AFTER: Duration = Duration::from_secs(60);

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

/// Whether something is asked of the guest that not every guest can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Negotiation {
    /// It is not asked for.
    Never,
    /// It is used if the guest can.
    Auto,
    /// A guest that cannot may not mount (`EPROTO`).
    Always,
}

/// How nodes are reached that the guest holds but does not use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandlePolicy {
    /// By a descriptor for each, so the limit of open files bounds what a guest can hold.
    Never,
    /// By file handles beyond that limit, where the file system has them and the daemon may use
    /// them.
    Prefer,
    /// The same, and where that is not possible nothing is served.
    Mandatory,
}

/// What a guest may do to inodes by ioctl that an ordinary owner of a file may not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoctlRights {
    /// Change the immutable and append-only flags.
    pub immutable: bool,
    /// Change project ids.
    pub project_id: bool,
}

/// Descriptors that a guest may take if nobody says otherwise.
const GUEST_FDS_MAX: usize = 1_000_000;

/// The fewest descriptors with which the daemon starts, as the existing daemon has it.
pub const NOFILE_MIN: u64 = 610;
/// Below this the operator is warned, as by the existing daemon.
pub const NOFILE_FEW: u64 = 738;
/// Descriptors of the process itself: the most memory regions that a front end can hand over
/// (509), four for each of 64 queues (kick, call, error, wake), and 64 for sockets, /proc, the
/// share, the log and messages on their way.
const NOFILE_OF_PROCESS: u64 = 509 + 64 * 4 + 64;
/// Threads that serve queues.
const QUEUE_THREADS: u64 = 64;
/// Descriptors that a thread holds for no longer than a request: a directory, what was found in
/// it, and what that is opened as.
const NOFILE_PER_THREAD: u64 = 3;

/// How many of `nofile` descriptors (`RLIMIT_NOFILE`) a guest may take, next to a pool of
/// `pool_threads` threads: [`Settings::guest_fds_max`]. `None` below [`NOFILE_MIN`].
///
/// What the process may need itself is left out, as long as that leaves the guest a quarter.
/// With fewer (below about 1,400) the guest gets that quarter: front ends with hundreds of memory
/// regions and dozens of queues are rare, and where one meets such a limit, nodes are put out
/// for it or an operation fails, but nothing that is held is lost.
pub fn guest_fds_for_limit(nofile: u64, pool_threads: usize) -> Option<usize> {
    if nofile < NOFILE_MIN {
        return None;
    }
    let threads = u64::try_from(pool_threads)
        .unwrap_or(u64::MAX)
        .saturating_add(QUEUE_THREADS);
    let reserve = threads
        .saturating_mul(NOFILE_PER_THREAD)
        .saturating_add(NOFILE_OF_PROCESS);
    let left = nofile.saturating_sub(reserve).max(nofile / 4);
    Some(usize::try_from(left).unwrap_or(usize::MAX))
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
    /// For how long the guest may believe that a name is missing; zero to be asked each time.
    pub negative_valid: Duration,
    /// For how long a file must have been left alone before a guest with [`CachePolicy::Auto`]
    /// may keep its pages over an OPEN.
    pub keep_cache_after: Duration,
    /// The guest may hold back writes (`WRITEBACK_CACHE`).
    pub writeback: bool,
    /// Offer READDIRPLUS. Without effect with [`CachePolicy::Never`], where the attributes
    /// would be worthless on arrival.
    pub readdirplus: bool,
    /// Serve extended attributes.
    pub xattr: bool,
    /// How attributes are named on the host, and which exist for the guest. Needs `xattr`.
    pub xattr_map: Option<XattrMap>,
    /// Let the guest use access control lists. Needs `xattr`.
    pub posix_acl: Negotiation,
    /// Label new objects with the guest's security contexts. Needs `xattr`.
    pub security_label: Negotiation,
    /// Clear set-id bits and file capabilities here when the guest says so (HANDLE_KILLPRIV_V2),
    /// instead of letting the guest look for them before each write.
    pub killpriv_v2: bool,
    /// Pass `O_DIRECT` on to the host.
    pub allow_direct_io: bool,
    /// Pass `O_NOATIME` on to the host.
    pub preserve_noatime: bool,
    /// Tell the guest where another file system begins.
    pub announce_submounts: bool,
    /// Let the guest map files for sharing that it may not cache (DIRECT_IO_ALLOW_MMAP).
    pub allow_mmap: bool,
    /// POSIX locks are seen by the host and by other guests.
    pub posix_lock: bool,
    /// BSD locks are seen by the host and by other guests.
    pub flock: bool,
    /// The guest sends no OPEN and RELEASE: files are opened as they are used.
    pub no_open: bool,
    /// The same for directories.
    pub no_opendir: bool,
    /// Directories look empty.
    pub no_readdir: bool,
    /// What the guest may do by ioctl.
    pub ioctl_rights: IoctlRights,
    /// Who a user of the guest is on the host, and the other way round. Rules that contradict
    /// each other are found when the share is set up.
    pub uid_rules: Vec<Rule>,
    /// The same for groups.
    pub gid_rules: Vec<Rule>,
    /// How nodes are reached.
    pub inode_file_handles: HandlePolicy,
    /// Most descriptors that are held for the guest: pinned nodes, open files, locks.
    pub guest_fds_max: usize,
}

impl Settings {
    /// The usual settings under a cache policy, with the time-outs that belong to it.
    pub const fn new(cache: CachePolicy) -> Self {
        let valid = match cache {
            CachePolicy::Never => Duration::ZERO,
            CachePolicy::Auto => AUTO_VALID,
            CachePolicy::Metadata | CachePolicy::Always => LONG_VALID,
        };
        // A name that the host has just made and that the guest does not find is worse than a
        // stale one: what was told to use it fails. So a guest that is not alone asks each time.
        let negative_valid = match cache {
            CachePolicy::Never | CachePolicy::Auto => Duration::ZERO,
            CachePolicy::Metadata | CachePolicy::Always => LONG_VALID,
        };
        Settings {
            cache,
            attr_valid: valid,
            entry_valid: valid,
            negative_valid,
            keep_cache_after: KEEP_CACHE_AFTER,
            writeback: false,
            readdirplus: true,
            xattr: false,
            xattr_map: None,
            posix_acl: Negotiation::Never,
            security_label: Negotiation::Never,
            killpriv_v2: false,
            allow_direct_io: false,
            preserve_noatime: false,
            announce_submounts: true,
            allow_mmap: true,
            posix_lock: false,
            flock: false,
            no_open: false,
            no_opendir: false,
            no_readdir: false,
            ioctl_rights: IoctlRights {
                immutable: false,
                project_id: false,
            },
            uid_rules: Vec::new(),
            gid_rules: Vec::new(),
            inode_file_handles: HandlePolicy::Prefer,
            guest_fds_max: GUEST_FDS_MAX,
        }
    }
}

impl Settings {
    /// Why these settings cannot be served together, if they cannot. For the operator: it names
    /// options.
    pub fn contradiction(&self) -> Option<&'static str> {
        let caches_no_contents = matches!(self.cache, CachePolicy::Never | CachePolicy::Metadata);
        let cases = [
            (
                self.no_open && caches_no_contents,
                "--no-open does not go with --cache never or metadata: a guest that opens nothing \
                 keeps file contents in its cache",
            ),
            (
                self.no_open && self.writeback,
                "--no-open does not go with --writeback: that a file cannot be written would be \
                 found out only after the guest has told its programs that it was",
            ),
            (
                self.no_open && (self.posix_lock || self.flock),
                "--no-open does not go with --posix-lock or --flock: locks are given up when a \
                 file is closed, and the guest would not tell",
            ),
            (
                self.no_open && self.allow_direct_io,
                "--no-open does not go with --allow-direct-io: a file is opened with O_DIRECT, \
                 and the guest opens nothing",
            ),
            (
                (self.no_open || self.no_opendir) && self.preserve_noatime,
                "--no-open and --no-opendir do not go with --preserve-noatime: files are opened \
                 with O_NOATIME, and the guest opens nothing",
            ),
            (
                self.no_open && self.inode_file_handles == HandlePolicy::Mandatory,
                "--no-open does not go with --inode-file-handles=mandatory: a file that is \
                 deleted while the guest uses it can be kept only by a descriptor",
            ),
            (
                self.no_opendir && self.cache == CachePolicy::Never,
                "--no-opendir does not go with --cache never: a guest that opens no directories \
                 keeps listings in its cache",
            ),
        ];
        let found = cases.into_iter().find(|(contradicts, _)| *contradicts);
        found.map(|(_, why)| why)
    }

    /// Whether a node has to be kept by a descriptor for as long as the guest knows it: nobody
    /// tells when a file is in use that has no name any more, and a file handle would lose it.
    pub const fn pins_every_node(&self) -> bool {
        self.no_open || matches!(self.inode_file_handles, HandlePolicy::Never)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradiction_names_what_does_not_go_together() {
        let usual = Settings::new(CachePolicy::Auto);
        let stateless = Settings {
            no_open: true,
            no_opendir: true,
            no_readdir: true,
            ..usual.clone()
        };
        for fine in [
            usual.clone(),
            stateless.clone(),
            Settings {
                writeback: true,
                posix_lock: true,
                flock: true,
                allow_direct_io: true,
                preserve_noatime: true,
                inode_file_handles: HandlePolicy::Mandatory,
                ..Settings::new(CachePolicy::Never)
            },
            Settings {
                no_opendir: true,
                ..Settings::new(CachePolicy::Metadata)
            },
        ] {
            assert_eq!(fine.contradiction(), None, "{fine:?}");
        }
        let with = |change: fn(&mut Settings)| {
            let mut settings = stateless.clone();
            change(&mut settings);
            settings.contradiction().unwrap_or_default()
        };
        for (text, names) in [
            (with(|s| s.cache = CachePolicy::Never), "--cache never"),
            (with(|s| s.cache = CachePolicy::Metadata), "metadata"),
            (with(|s| s.writeback = true), "--writeback"),
            (with(|s| s.posix_lock = true), "--posix-lock"),
            (with(|s| s.flock = true), "--flock"),
            (with(|s| s.allow_direct_io = true), "--allow-direct-io"),
            (with(|s| s.preserve_noatime = true), "--preserve-noatime"),
            (
                with(|s| s.inode_file_handles = HandlePolicy::Mandatory),
                "--inode-file-handles=mandatory",
            ),
        ] {
            assert!(text.contains("--no-open"), "{names}: {text}");
            assert!(text.contains(names), "{text}");
        }
        let listing = Settings {
            no_opendir: true,
            ..Settings::new(CachePolicy::Never)
        };
        assert!(listing.contradiction().unwrap().contains("--no-opendir"));
    }

    #[test]
    fn pins_every_node_where_nobody_tells_of_closes() {
        let usual = Settings::new(CachePolicy::Auto);
        assert!(!usual.pins_every_node());
        let stateless = Settings {
            no_open: true,
            ..usual.clone()
        };
        assert!(stateless.pins_every_node());
        let without_handles = Settings {
            inode_file_handles: HandlePolicy::Never,
            ..usual
        };
        assert!(without_handles.pins_every_node());
    }

    #[test]
    fn guest_fds_leave_the_process_its_own() {
        for (nofile, pool_threads, expected) in [
            (0, 0, None),
            (609, 0, None),
            (610, 0, Some(152)),
            (1024, 0, Some(256)),
            (2048, 0, Some(1027)),
            (2048, 64, Some(835)),
            (2048, usize::MAX, Some(512)),
            (1_000_000, 0, Some(998_979)),
            (u64::MAX, 0, Some(usize::MAX - 1021)),
        ] {
            let guest_fds = guest_fds_for_limit(nofile, pool_threads);
            assert_eq!(guest_fds, expected, "{nofile} {pool_threads}");
        }
    }

    #[test]
    fn settings_have_the_time_outs_of_their_policy() {
        for (cache, secs, negative_secs) in [
            (CachePolicy::Never, 0, 0),
            (CachePolicy::Auto, 1, 0),
            (CachePolicy::Metadata, 86_400, 86_400),
            (CachePolicy::Always, 86_400, 86_400),
        ] {
            let settings = Settings::new(cache);
            assert_eq!(settings.attr_valid.as_secs(), secs, "{cache:?}");
            assert_eq!(settings.entry_valid.as_secs(), secs, "{cache:?}");
            assert_eq!(
                settings.negative_valid.as_secs(),
                negative_secs,
                "{cache:?}"
            );
        }
    }
}
