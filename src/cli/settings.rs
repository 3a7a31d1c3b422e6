//! What: what the options mean together. Pure; decided before anything is touched.
//!
//! In: [`Options`]. Out: [`Settings`], with which the library can run, or an error of the
//! command line (exit status 2) that names the option and what to do.

use clap::CommandFactory;
use clap::error::{Error, ErrorKind};
use virtiofsd::{CachePolicy, DaemonConfig, DeviceSettings, ShareSettings, SocketSource};

use super::options::{Cache, Options, SandboxMode};

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
/// An option of the existing daemon that is not built yet, or a sandbox mode that is not.
pub(crate) fn check(options: Options) -> Result<Settings, Error> {
    if let Some(name) = options.unbuilt.first_given() {
        return Err(refuse(&format!(
            "option '{name}' is not available in this version of virtiofsd; leave it out"
        )));
    }
    if options.sandbox != SandboxMode::None {
        return Err(refuse(
            "only '--sandbox none' is available in this version of virtiofsd: the default mode, \
             'namespace', and 'chroot' are not built yet. If the daemon may run with all rights \
             of its user, add '--sandbox none'",
        ));
    }
    let mut warnings = Vec::new();
    if options.socket.is_some() {
        warnings.push("--socket is deprecated, use --socket-path instead");
    }
    let socket = match (options.socket_path.or(options.socket), options.fd) {
        (Some(path), None) => SocketSource::Path(path),
        (None, Some(number)) => SocketSource::Fd(number),
        (Some(_), Some(_)) | (None, None) => {
            return Err(refuse("give exactly one of --socket-path and --fd"));
        }
    };
    let Some(shared_dir) = options.shared_dir else {
        return Err(refuse("give the directory to share with --shared-dir"));
    };
    let cache = match options.cache {
        Cache::Auto => CachePolicy::Auto,
        Cache::Always => CachePolicy::Always,
        Cache::Metadata => CachePolicy::Metadata,
        Cache::Never => CachePolicy::Never,
    };
    let share = ShareSettings {
        writeback: options.writeback,
        readdirplus: !options.no_readdirplus,
        xattr: options.xattr,
        allow_direct_io: options.allow_direct_io,
        preserve_noatime: options.preserve_noatime,
        ..ShareSettings::new(cache)
    };
    let device = DeviceSettings {
        tag: options.tag,
        thread_pool_size: usize::try_from(options.thread_pool_size).unwrap_or(usize::MAX),
        num_request_queues_in_config: REQUEST_QUEUES_ANNOUNCED,
    };
    Ok(Settings {
        daemon: DaemonConfig {
            shared_dir,
            socket,
            share,
            device,
        },
        log_level: options.log_level,
        warnings,
    })
}

fn refuse(message: &str) -> Error {
    Options::command().error(ErrorKind::InvalidValue, message)
}
