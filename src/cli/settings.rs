//! What: what the options mean together. Pure; decided before anything is touched.
//!
//! In: [`Options`]. Out: [`Settings`], with which the library can run, or an error of the
//! command line (exit status 2) that names the option and what to do.

use clap::CommandFactory;
use clap::error::{Error, ErrorKind};
use virtiofsd::{
    CachePolicy, CapabilityChanges, DaemonConfig, DeviceSettings, HandlePolicy, IoctlRights,
    Negotiation as ShareNegotiation, SandboxMode, SandboxSettings, SeccompAction, ShareSettings,
    SocketSource,
};

use super::legacy;
use super::options::{
    Cache, InodeFileHandles, Negotiation, Options, SandboxMode as TypedSandboxMode,
};
use super::share_options::MetadataOptions;

/// Request queues that the configuration space announces: as many as the device serves.
const REQUEST_QUEUES_ANNOUNCED: u32 = 63;

/// Everything that a run needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// For the library.
    pub(crate) daemon: DaemonConfig,
    /// Which log lines to print.
    pub(crate) log_level: log::LevelFilter,
    /// Things to tell the user once logging works.
    pub(crate) warnings: Vec<&'static str>,
}

/// Checks what the options mean together.
///
/// # Errors
/// An option of the existing daemon that is not built yet, or a sandbox mode that is not; an
/// element of `-o` that is not known; options that contradict each other.
pub(crate) fn check(mut options: Options) -> Result<Settings, Error> {
    legacy::apply(&mut options).map_err(|message| refuse(&message))?;
    if let Some(name) = options.unbuilt.first_given() {
        return Err(refuse(&format!(
            "option '{name}' is not available in this version of virtiofsd; leave it out"
        )));
    }
    if options.sandbox != TypedSandboxMode::None {
        return Err(refuse(
            "only '--sandbox none' is available in this version of virtiofsd: the default mode, \
             'namespace', and 'chroot' are not built yet. If the daemon may run with all rights \
             of its user, add '--sandbox none'",
        ));
    }
    let warnings = warnings(&options);
    let share = share(&options);
    if let Some(why) = share.contradiction() {
        return Err(refuse(why));
    }
    let device = DeviceSettings {
        tag: options.tag,
        thread_pool_size: usize::try_from(options.thread_pool_size).unwrap_or(usize::MAX),
        num_request_queues_in_config: REQUEST_QUEUES_ANNOUNCED,
    };
    let socket = match (options.socket_path.or(options.socket), options.fd) {
        (Some(path), None) => SocketSource::Path(path),
        (None, Some(number)) => SocketSource::Fd(number),
        (Some(_), Some(_)) | (None, None) => {
            return Err(refuse("give exactly one of --socket-path and --fd"));
        }
    };
    let Some(shared_dir) = options.shared_dir else {
        return Err(refuse(
            "give the directory to share with --shared-dir (or '-o source=')",
        ));
    };
    Ok(Settings {
        daemon: DaemonConfig {
            shared_dir,
            socket,
            share,
            device,
            read_only: options.readonly,
            socket_group: None,
            sandbox: SandboxSettings {
                mode: SandboxMode::None,
                ..SandboxSettings::default()
            },
            seccomp: SeccompAction::None,
            capability_changes: CapabilityChanges::default(),
            daemonize: false,
            rlimit_nofile: options.descriptors.rlimit_nofile,
        },
        log_level: match options.compat_debug {
            true => log::LevelFilter::Debug,
            false => options.log_level,
        },
        warnings,
    })
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

fn warnings(options: &Options) -> Vec<&'static str> {
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
            "-f is deprecated and has no effect: the daemon always stays in the foreground",
        ),
        (
            is_fallback,
            "--inode-file-handles=fallback is deprecated, use --inode-file-handles=prefer instead",
        ),
    ]
    .into_iter()
    .filter_map(|(is_given, text)| is_given.then_some(text))
    .collect()
}

fn refuse(message: &str) -> Error {
    Options::command().error(ErrorKind::InvalidValue, message)
}
