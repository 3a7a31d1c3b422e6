//! What: what the options mean together. Decided before anything is touched.
//!
//! In: [`Options`]. Out: [`Settings`], with which the library can run. What makes no sense as a
//! command line is an error here (exit status 2). What makes sense, but cannot be done, is kept as
//! an objection: it is told like any other failure (exit status 1), once logging works.

use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::time::Duration;

use clap::CommandFactory;
use clap::error::{Error, ErrorKind};
use virtiofsd::{
    CachePolicy, Capability, CapabilityChanges, DaemonConfig, DeviceSettings, Execution,
    HandlePolicy, IoctlRights, LogDestination, Negotiation as ShareNegotiation, Polling,
    SandboxMode, SandboxSettings, SeccompAction, ShareSettings, SocketSource,
};

use super::options::{Cache, InodeFileHandles, Negotiation, Options};
use super::process_options::{ProcessOptions, SandboxMode as TypedSandboxMode, Seccomp};
use super::share_options::MetadataOptions;
use super::{Command, legacy};

/// Request queues that the configuration space announces: as many as the device serves.
const REQUEST_QUEUES_ANNOUNCED: u32 = 63;

/// Everything that a run needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// For the library.
    pub(crate) daemon: DaemonConfig,
    /// Which log lines to print.
    pub(crate) log_level: log::LevelFilter,
    /// Where.
    pub(crate) log_destination: LogDestination,
    warnings: Vec<String>,
    objection: Option<String>,
}

impl Settings {
    /// Tells the user, by log lines, what is deprecated or without effect.
    ///
    /// # Errors
    /// What speaks against this run although each option makes sense, with the remedy. A missing
    /// directory comes first, and without warnings, as with the existing daemon.
    pub(crate) fn announce(&self) -> Result<(), String> {
        let share = &self.daemon.shared_dir;
        let no_share = share.as_os_str().is_empty() && self.objection.is_some();
        if !no_share
            && let Err(error) = fs::metadata(share)
            && error.kind() == io::ErrorKind::NotFound
        {
            return Err(format!(
                "{} does not exist; create it or give another directory with --shared-dir: {error}",
                share.display()
            ));
        }
        for warning in &self.warnings {
            log::warn!("{warning}");
        }
        match &self.objection {
            Some(why) => Err(why.clone()),
            None => Ok(()),
        }
    }
}

/// What the user wants.
///
/// # Errors
/// A command line that makes no sense: an element of `-o` that is not known, options that
/// contradict each other, an option of the existing daemon that is not built yet.
pub(super) fn command(mut options: Options) -> Result<Command, Error> {
    let ineffective = legacy::apply(&mut options).map_err(|message| refuse(&message))?;
    if options.process.print_capabilities {
        return Ok(Command::PrintCapabilities);
    }
    check(options, ineffective).map(|settings| Command::Run(Box::new(settings)))
}

fn check(options: Options, ineffective: Vec<String>) -> Result<Settings, Error> {
    if let Some(name) = options.unbuilt.first_given() {
        return Err(refuse(&format!(
            "option '{name}' is not available in this version of virtiofsd; leave it out"
        )));
    }
    let share = share(&options);
    if let Some(why) = share.contradiction() {
        return Err(refuse(why));
    }
    let mut warnings = deprecations(&options);
    warnings.extend(ineffective);
    let changes = capability_changes(&options.process);
    let objection = missing_share(&options)
        .or_else(|| misplaced_maps(&options.process))
        .or_else(|| match &changes {
            Ok(changes) => lost_handles(&options, changes),
            Err(why) => Some(why.clone()),
        });
    let device = DeviceSettings {
        tag: options.tag,
        execution: execution(options.thread_pool_size),
        polling: options.poll_us.map_or(Polling::Adaptive, |time_us| {
            Polling::Fixed(Duration::from_micros(time_us))
        }),
        num_request_queues_in_config: REQUEST_QUEUES_ANNOUNCED,
    };
    let socket = match (options.socket_path.or(options.socket), options.fd) {
        (Some(path), None) => SocketSource::Path(path),
        (None, Some(number)) => SocketSource::Fd(number),
        (Some(_), Some(_)) | (None, None) => {
            return Err(refuse("give exactly one of --socket-path and --fd"));
        }
    };
    let process = options.process;
    Ok(Settings {
        daemon: DaemonConfig {
            shared_dir: options.shared_dir.unwrap_or_default(),
            socket,
            share,
            device,
            read_only: options.readonly,
            socket_group: options.socket_group,
            sandbox: SandboxSettings {
                mode: sandbox_mode(process.sandbox),
                uid_map: process.uid_map,
                gid_map: process.gid_map,
            },
            seccomp: seccomp_action(process.seccomp),
            capability_changes: changes.unwrap_or_default(),
            daemonize: process.daemonize,
            rlimit_nofile: options.descriptors.rlimit_nofile,
        },
        log_level: match options.compat_debug {
            true => log::LevelFilter::Debug,
            false => process.log_level,
        },
        log_destination: match process.syslog {
            true => LogDestination::Syslog,
            false => LogDestination::StandardError,
        },
        warnings,
        objection,
    })
}

/// Where requests are served: without a size of the pool, wherever is best for each.
fn execution(pool_size: Option<u64>) -> Execution {
    let Some(threads) = pool_size else {
        return Execution::Adaptive;
    };
    let threads = usize::try_from(threads).unwrap_or(usize::MAX);
    NonZeroUsize::new(threads).map_or(Execution::Inline, Execution::Pool)
}

fn missing_share(options: &Options) -> Option<String> {
    options.shared_dir.is_none().then(|| {
        "missing \"--shared-dir\" or \"-o source\" option: it says which directory to share"
            .to_owned()
    })
}

/// Maps of ids are those of a user namespace, which only one mode has.
fn misplaced_maps(process: &ProcessOptions) -> Option<String> {
    let name = match (process.uid_map.is_empty(), process.gid_map.is_empty()) {
        (true, true) => return None,
        (false, _) => "--uid-map",
        (true, false) => "--gid-map",
    };
    let mode = match process.sandbox {
        TypedSandboxMode::Namespace => return None,
        TypedSandboxMode::Chroot => "chroot",
        TypedSandboxMode::None => "none",
    };
    Some(format!(
        "{name} does not go with --sandbox {mode}, which has no user namespace; use --sandbox \
         namespace, or --translate-uid and --translate-gid"
    ))
}

fn capability_changes(process: &ProcessOptions) -> Result<CapabilityChanges, String> {
    match &process.modcaps {
        Some(text) => text
            .parse()
            .map_err(|why| format!("invalid value '{text}' for --modcaps: {why}")),
        None => Ok(CapabilityChanges::default()),
    }
}

/// File handles cannot be opened without a capability that `--modcaps` may take away.
fn lost_handles(options: &Options, changes: &CapabilityChanges) -> Option<String> {
    let wants_handles = options.descriptors.inode_file_handles != InodeFileHandles::Never;
    let is_lost = wants_handles && changes.removes(Capability::DAC_READ_SEARCH);
    is_lost.then(|| {
        "--modcaps takes away dac_read_search, which file handles need; add \
         --inode-file-handles=never or leave it out"
            .to_owned()
    })
}

const fn sandbox_mode(typed: TypedSandboxMode) -> SandboxMode {
    match typed {
        TypedSandboxMode::Namespace => SandboxMode::Namespace,
        TypedSandboxMode::Chroot => SandboxMode::Chroot,
        TypedSandboxMode::None => SandboxMode::None,
    }
}

const fn seccomp_action(typed: Seccomp) -> SeccompAction {
    match typed {
        Seccomp::None => SeccompAction::None,
        Seccomp::Kill => SeccompAction::Kill,
        Seccomp::Log => SeccompAction::Log,
        Seccomp::Trap => SeccompAction::Trap,
    }
}

/// How the directory is served.
fn share(options: &Options) -> ShareSettings {
    let (caching, metadata, semantics) = (&options.caching, &options.metadata, &options.semantics);
    let cache = match caching.cache {
        Cache::Auto => CachePolicy::Auto,
        Cache::Always => CachePolicy::Always,
        Cache::Metadata => CachePolicy::Metadata,
        Cache::Never => CachePolicy::Never,
    };
    let usual = ShareSettings::new(cache);
    let entry_valid = caching.entry_timeout.or(caching.timeout);
    let entry_valid = entry_valid.unwrap_or(usual.entry_valid);
    let attr_valid = caching.attr_timeout.or(caching.timeout);
    // Who believes a name for less than usual does not believe longer that one is missing.
    let negative_valid = usual.negative_valid.min(entry_valid);
    let has_xattr = has_xattr(metadata);
    ShareSettings {
        entry_valid,
        attr_valid: attr_valid.unwrap_or(usual.attr_valid),
        negative_valid: caching.negative_timeout.unwrap_or(negative_valid),
        writeback: caching.writeback,
        readdirplus: !caching.no_readdirplus,
        xattr: has_xattr,
        xattr_map: metadata.xattrmap.clone(),
        posix_acl: negotiation(metadata.posix_acl),
        security_label: negotiation(metadata.security_label),
        killpriv_v2: metadata.killpriv_v2 || has_xattr && !metadata.no_killpriv_v2,
        allow_direct_io: semantics.allow_direct_io,
        preserve_noatime: semantics.preserve_noatime,
        announce_submounts: !semantics.no_announce_submounts,
        allow_mmap: !caching.no_allow_mmap,
        posix_lock: semantics.posix_lock,
        flock: semantics.flock,
        no_open: semantics.no_open,
        no_opendir: semantics.no_opendir,
        no_readdir: semantics.no_readdir,
        uid_rules: metadata.translate_uid.clone(),
        gid_rules: metadata.translate_gid.clone(),
        ioctl_rights: IoctlRights {
            immutable: metadata.allow_immutable,
            project_id: metadata.allow_project_id,
        },
        inode_file_handles: match options.descriptors.inode_file_handles {
            InodeFileHandles::Never => HandlePolicy::Never,
            InodeFileHandles::Prefer | InodeFileHandles::Fallback => HandlePolicy::Prefer,
            InodeFileHandles::Mandatory => HandlePolicy::Mandatory,
        },
        ..usual
    }
}

/// Several options are about extended attributes, and useless without them.
fn has_xattr(metadata: &MetadataOptions) -> bool {
    metadata.xattr
        || metadata.xattrmap.is_some()
        || metadata.posix_acl != Negotiation::Never
        || metadata.security_label != Negotiation::Never
}

const fn negotiation(typed: Negotiation) -> ShareNegotiation {
    match typed {
        Negotiation::Never => ShareNegotiation::Never,
        Negotiation::Auto => ShareNegotiation::Auto,
        Negotiation::Always => ShareNegotiation::Always,
    }
}

fn deprecations(options: &Options) -> Vec<String> {
    let is_fallback = options.descriptors.inode_file_handles == InodeFileHandles::Fallback;
    [
        (
            options.socket.is_some(),
            "--socket is deprecated, use --socket-path instead",
        ),
        (
            !options.compat.is_empty(),
            "-o is deprecated, use the options that begin with -- instead",
        ),
        (
            options.compat_debug,
            "-d is deprecated, use --log-level debug instead",
        ),
        (
            options.compat_foreground,
            "-f is deprecated and has no effect: the daemon stays in the foreground without \
             --daemonize",
        ),
        (
            is_fallback,
            "--inode-file-handles=fallback is deprecated, use --inode-file-handles=prefer instead",
        ),
    ]
    .into_iter()
    .filter(|(is_given, _)| *is_given)
    .map(|(_, text)| text.to_owned())
    .collect()
}

fn refuse(message: &str) -> Error {
    Options::command().error(ErrorKind::InvalidValue, message)
}
