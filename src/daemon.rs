//! What: the composition root, the only place that knows all rooms.
//!
//! In: [`DaemonConfig`]. Out: a daemon that has served one front end to its end. The order is:
//! descriptor limit, share, socket, connection, service; whatever can fail for a reason
//! that the operator can mend fails before the front end is let in.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::passthrough::PassthroughFs;
use crate::passthrough::settings::{NOFILE_MIN, Settings as ShareSettings, guest_fds_for_limit};
use crate::passthrough::setup::SetupError;
use crate::process::capabilities::CapabilityChanges;
use crate::process::limits::{LimitError, limit_open_files};
use crate::process::listener::{Connection, ListenError, Listener, SocketSource};
use crate::process::sandbox::SandboxSettings;
use crate::process::seccomp::SeccompAction;
use crate::server::Server;
use crate::server::gate_read_only::ReadOnlyGate;
use crate::sys::process::{ignore_file_size_signal, set_umask};
use crate::transport::{self, DeviceSettings, Ended, TransportError};

/// What to serve, where and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonConfig {
    /// The directory.
    pub shared_dir: PathBuf,
    /// Where the front end connects.
    pub socket: SocketSource,
    /// How the directory is served.
    pub share: ShareSettings,
    /// How the device looks.
    pub device: DeviceSettings,
    /// Refuse every change.
    pub read_only: bool,
    /// The group of the socket file, by name or number; needs [`SocketSource::Path`].
    pub socket_group: Option<String>,
    /// How the daemon is confined.
    pub sandbox: SandboxSettings,
    /// What happens at system calls that the daemon never makes.
    pub seccomp: SeccompAction,
    /// Capabilities beyond, or short of, the usual ones.
    pub capability_changes: CapabilityChanges,
    /// Return to the caller when the socket is ready, and serve in the background.
    pub daemonize: bool,
    /// The limit of open descriptors to set; `None` for as many as the host gives up to
    /// [`NOFILE_TARGET`](crate::sys::process::NOFILE_TARGET), `Some(0)` to leave it alone.
    pub rlimit_nofile: Option<u64>,
}

/// Why the daemon could not start or had to end.
#[derive(Debug)]
pub enum DaemonError {
    /// The limit of open files cannot be what was asked for.
    Limit(LimitError),
    /// Too few files can be open at once.
    FewDescriptors {
        /// How many.
        limit: u64,
    },
    /// The directory cannot be shared.
    Share(SetupError),
    /// There is no socket, or nobody came through it.
    Listen(ListenError),
    /// The connection to the front end failed.
    Transport(TransportError),
}

impl fmt::Display for DaemonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DaemonError::Limit(error) => error.fmt(f),
            DaemonError::FewDescriptors { limit } => write!(
                f,
                "only {limit} files can be open at once, and it must be at least {NOFILE_MIN}; \
                 raise it with --rlimit-nofile or ulimit -n"
            ),
            DaemonError::Share(error) => error.fmt(f),
            DaemonError::Listen(error) => error.fmt(f),
            DaemonError::Transport(error) => error.fmt(f),
        }
    }
}

impl Error for DaemonError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            DaemonError::Limit(error) => error.source(),
            DaemonError::FewDescriptors { .. } => None,
            DaemonError::Share(error) => error.source(),
            DaemonError::Listen(error) => error.source(),
            DaemonError::Transport(error) => error.source(),
        }
    }
}

/// Serves `config.shared_dir` to one front end and returns when it has disconnected. Call it
/// from the main thread before others are started.
///
/// # Errors
/// [`DaemonError`], whose text names the cause and, where there is one, the remedy.
pub fn run(config: &DaemonConfig) -> Result<(), DaemonError> {
    if let Err(error) = ignore_file_size_signal() {
        log::warn!("writing beyond the file size limit will end the daemon: {error}");
    }
    // The guest's modes are final: its kernel has applied the caller's mask already.
    set_umask(0);
    let limit = limit_open_files(config.rlimit_nofile).map_err(DaemonError::Limit)?;
    let settings = share_settings(config, limit)?;
    let share = PassthroughFs::new(settings, &config.shared_dir).map_err(DaemonError::Share)?;
    let listener = Listener::open(&config.socket).map_err(DaemonError::Listen)?;
    log::info!(
        "sharing {}, waiting for the front end to connect",
        config.shared_dir.display()
    );
    let Connection { stream, files } = listener.accept().map_err(DaemonError::Listen)?;
    log::info!("front end connected");
    let mut server = Server::new(share);
    if config.read_only {
        server = server.with_gate(Box::new(ReadOnlyGate));
    }
    let Ended::Disconnected = transport::serve(stream, &config.device, Arc::new(server))
        .map_err(DaemonError::Transport)?;
    drop(files);
    log::info!("front end disconnected, ending");
    Ok(())
}

/// How the directory is served when `limit` files can be open at once.
fn share_settings(config: &DaemonConfig, limit: u64) -> Result<ShareSettings, DaemonError> {
    let guest_fds = guest_fds_for_limit(limit, config.device.thread_pool_size)
        .ok_or(DaemonError::FewDescriptors { limit })?;
    Ok(ShareSettings {
        guest_fds_max: config.share.guest_fds_max.min(guest_fds),
        ..config.share.clone()
    })
}

/// The texts of `error` and of its causes, on one line.
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text.replace('\n', " ")
}
