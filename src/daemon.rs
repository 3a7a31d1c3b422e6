//! What: the composition root, the only place that knows all rooms.
//!
//! In: [`DaemonConfig`]. Out: a daemon that has served one front end to its end. The order is:
//! signals, directory, socket, limit of descriptors, sandbox, capabilities, system call filter,
//! share, connection, service; whatever can fail for a reason that the operator can mend fails
//! before the front end is let in, and nothing that a guest sends is read before all locks are on.

use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::metrics::Metrics;
use crate::passthrough::PassthroughFs;
use crate::passthrough::settings::{
    NOFILE_FEW, NOFILE_MIN, Settings as ShareSettings, guest_fds_for_limit,
};
use crate::passthrough::setup::SetupError;
use crate::process::background::{self, BackgroundError, Detached, Silence};
use crate::process::capabilities::{self, CapabilityChanges, CapabilityError, Needs, Prepared};
use crate::process::limits::{LimitError, limit_open_files};
use crate::process::listener::{CreatedSocket, ListenError, Listener, SocketSource};
use crate::process::readiness::Readiness;
use crate::process::sandbox::supervisor::ParentLink;
use crate::process::sandbox::{self, Confined, Role, SandboxError, SandboxSettings, SharedDir};
use crate::process::seccomp::{self, SeccompAction, SeccompError, Uses};
use crate::process::shutdown::{Arrival, Watch, accept_or_signal};
use crate::server::Server;
use crate::server::gate_read_only::ReadOnlyGate;
use crate::sys::descriptors::{Inherited, close_on_exec_beyond_stdio};
use crate::sys::errno::Errno;
use crate::sys::fork::ChildEnd;
use crate::sys::process::{ignore_file_size_signal, set_umask};
use crate::sys::signals::{Signal, Signals};
use crate::transport::{self, Counters, DeviceSettings, Ended, TransportError};
use crate::wire::opcode::Opcode;

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
    /// The daemon cannot go into the background.
    Background(BackgroundError),
    /// The signals that ask for the end cannot be heard.
    Signals(Errno),
    /// The daemon cannot be confined.
    Sandbox(SandboxError),
    /// Capabilities cannot be given up.
    Capabilities(CapabilityError),
    /// There is no filter of system calls.
    Seccomp(SeccompError),
    /// The directory cannot be shared.
    Share(SetupError),
    /// There is no socket, or nobody came through it.
    Listen(ListenError),
    /// No thread can wait for signals.
    Watch(io::Error),
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
            DaemonError::Background(error) => error.fmt(f),
            DaemonError::Signals(_) => f.write_str("cannot wait for signals"),
            DaemonError::Sandbox(error) => error.fmt(f),
            DaemonError::Capabilities(error) => error.fmt(f),
            DaemonError::Seccomp(error) => error.fmt(f),
            DaemonError::Share(error) => error.fmt(f),
            DaemonError::Listen(error) => error.fmt(f),
            DaemonError::Watch(_) => f.write_str("cannot start a thread that waits for signals"),
            DaemonError::Transport(error) => error.fmt(f),
        }
    }
}

impl Error for DaemonError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            DaemonError::Limit(error) => error.source(),
            DaemonError::FewDescriptors { .. } => None,
            DaemonError::Background(error) => error.source(),
            DaemonError::Signals(errno) => Some(errno),
            DaemonError::Sandbox(error) => error.source(),
            DaemonError::Capabilities(error) => error.source(),
            DaemonError::Seccomp(error) => error.source(),
            DaemonError::Share(error) => error.source(),
            DaemonError::Listen(error) => error.source(),
            DaemonError::Watch(error) => Some(error),
            DaemonError::Transport(error) => error.source(),
        }
    }
}

/// How a run has ended when nothing was wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The front end has disconnected.
    Disconnected,
    /// A signal asked for the end.
    Stopped(Signal),
    /// This process watched over the one that served, which has ended like this.
    Watched(ChildEnd),
}

impl Outcome {
    /// The exit status: 0 after a clean end, 1 after SIGHUP, that of a child that served, and
    /// for a child that a signal killed 256 less its number.
    pub fn exit_status(self) -> u8 {
        match self {
            Outcome::Disconnected | Outcome::Stopped(Signal::Term | Signal::Int) => 0,
            Outcome::Stopped(Signal::Hup | Signal::Chld | Signal::Usr1) => 1,
            Outcome::Watched(ChildEnd::Exited(status)) => status,
            Outcome::Watched(ChildEnd::Signalled(number)) => {
                u8::try_from(number).unwrap_or(1).wrapping_neg()
            }
        }
    }
}

/// Serves `config.shared_dir` to one front end and returns when it has disconnected. Call it
/// from the main thread before others are started: it forks, and it returns in both processes. In
/// a sandbox the one that serves closes what is `inherited`, but for [`SocketSource::Fd`].
///
/// # Errors
/// [`DaemonError`], whose text names the cause and, where there is one, the remedy.
pub fn run(config: &DaemonConfig, inherited: Inherited) -> Result<Outcome, DaemonError> {
    if let Err(error) = close_on_exec_beyond_stdio() {
        log::warn!("programs that the daemon starts inherit its descriptors: {error}");
    }
    if let Err(error) = ignore_file_size_signal() {
        log::warn!("writing beyond the file size limit will end the daemon: {error}");
    }
    let mut readiness = Readiness::from_environment();
    if config.daemonize {
        match background::detach().map_err(DaemonError::Background)? {
            Detached::Starter(end) => return Ok(Outcome::Watched(end)),
            Detached::Daemon(background) => readiness = readiness.with_background(background),
        }
    }
    let signals = Signals::block().map_err(DaemonError::Signals)?;
    let shared_dir = SharedDir::open(&config.shared_dir).map_err(DaemonError::Sandbox)?;
    let listener = Listener::open(&config.socket, config.socket_group.as_deref())
        .map_err(DaemonError::Listen)?;
    let limit = limit_open_files(config.rlimit_nofile).map_err(DaemonError::Limit)?;
    let share = share_settings(config, limit)?;
    // The guest's modes are final: its kernel has applied the caller's mask already.
    set_umask(0);
    let (socket, files) = listener.into_parts();
    let prepared = capabilities::prepare().map_err(DaemonError::Capabilities)?;
    let role = sandbox::enter(&config.sandbox, shared_dir, prepared);
    match role.map_err(DaemonError::Sandbox)? {
        Role::Supervisor(child) => {
            drop(socket);
            let end = child
                .watch(&signals, || readiness.announce())
                .map_err(DaemonError::Sandbox)?;
            if let ChildEnd::Signalled(number) = end {
                log::error!("the process that serves was killed by signal {number}");
            }
            // Now nobody serves the socket.
            drop(files);
            Ok(Outcome::Watched(end))
        }
        Role::Server(confined) => {
            // First of all: an error after this must not remove what is the parent's.
            let files = match (files, &confined.parent) {
                // The parent removes them; here their paths may lead elsewhere.
                (Some(files), Some(_)) => {
                    files.disown();
                    None
                }
                (files, _) => files,
            };
            if confined.parent.is_some() {
                inherited.close_but(socket.as_fd());
            }
            lock_down(config, &share, prepared)?;
            ServingProcess {
                config,
                signals,
                socket,
                files,
                readiness,
            }
            .run(share, confined)
        }
    }
}

/// Takes from the process what serving does not need, as far as it is not a matter of paths.
/// Threads that are started from here on have no more.
fn lock_down(
    config: &DaemonConfig,
    share: &ShareSettings,
    prepared: Prepared,
) -> Result<(), DaemonError> {
    let file_handles = !share.pins_every_node();
    let needs = Needs {
        file_handles,
        immutable: share.ioctl_rights.immutable,
    };
    capabilities::restrict(prepared, needs, &config.capability_changes)
        .map_err(DaemonError::Capabilities)?;
    let uses = Uses {
        file_handles,
        background: config.daemonize,
    };
    seccomp::enter(config.seccomp, uses).map_err(DaemonError::Seccomp)
}

/// The process that serves, before it has a front end.
struct ServingProcess<'config> {
    config: &'config DaemonConfig,
    signals: Signals,
    socket: UnixListener,
    /// Unless another process keeps them.
    files: Option<CreatedSocket>,
    readiness: Readiness,
}

impl ServingProcess<'_> {
    fn run(self, share: ShareSettings, confined: Confined) -> Result<Outcome, DaemonError> {
        let config = self.config;
        let Confined {
            root,
            proc_fd,
            parent,
        } = confined;
        let on_ready = match parent {
            Some(parent) => OnReady::TellParent(parent, self.readiness.leave_to_parent()),
            None => OnReady::Announce(self.readiness),
        };
        let share = PassthroughFs::from_fd(share, root, proc_fd, &config.shared_dir)
            .map_err(DaemonError::Share)?;
        log::info!(
            "sharing {}, waiting for the front end to connect",
            config.shared_dir.display()
        );
        // The link to the parent is kept: its end says that this process has ended.
        let _parent = on_ready.tell();
        let stream =
            match accept_or_signal(&self.socket, &self.signals).map_err(DaemonError::Listen)? {
                Arrival::FrontEnd(stream) => stream,
                Arrival::Signal(signal) => {
                    log::info!("{}, ending", signal.name());
                    return Ok(Outcome::Stopped(signal));
                }
            };
        // A second front end is refused by the kernel at once instead of waiting for an answer
        // that never comes.
        drop(self.socket);
        log::info!("front end connected");
        let files = Arc::new(Mutex::new(self.files));
        let tally = Tally::default();
        let watch = watch(self.signals, &stream, &tally, &files).map_err(DaemonError::Watch)?;
        let mut server = Server::new(share).with_metrics(Arc::clone(&tally.operations));
        if config.read_only {
            server = server.with_gate(Box::new(ReadOnlyGate));
        }
        let connection = &tally.connection;
        let served = transport::serve(stream, &config.device, Arc::new(server), connection);
        remove(&files);
        tally.tell(log::Level::Debug);
        if let Some(signal) = watch.heard() {
            return Ok(Outcome::Stopped(signal));
        }
        let Ended::Disconnected = served.map_err(DaemonError::Transport)?;
        log::info!("front end disconnected, ending");
        Ok(Outcome::Disconnected)
    }
}

/// What the process that serves does when it is ready.
enum OnReady {
    /// It tells its parent, which announces it, and leaves the standard streams.
    TellParent(ParentLink, Silence),
    /// It announces it itself.
    Announce(Readiness),
}

impl OnReady {
    fn tell(self) -> Option<ParentLink> {
        match self {
            OnReady::TellParent(parent, streams) => {
                streams.fall();
                parent.ready();
                Some(parent)
            }
            OnReady::Announce(readiness) => {
                readiness.announce();
                None
            }
        }
    }
}

/// All that is counted while a front end is served.
#[derive(Clone, Debug, Default)]
struct Tally {
    operations: Arc<Metrics>,
    connection: Arc<Counters>,
}

impl Tally {
    /// Logs it, each line marked as what it is; README describes the columns.
    fn tell(&self, level: log::Level) {
        if !log::log_enabled!(level) {
            return;
        }
        let name_of = |number| Opcode::from_raw(number).name();
        for line in self.operations.report(name_of) {
            log::log!(level, "counters: {line}");
        }
        log::log!(level, "counters: transport: {}", self.connection);
    }
}

/// Files to remove at the end, by whoever gets there first.
type FilesAtTheEnd = Arc<Mutex<Option<CreatedSocket>>>;

fn watch(
    signals: Signals,
    stream: &UnixStream,
    tally: &Tally,
    files: &FilesAtTheEnd,
) -> io::Result<Watch> {
    let (tally, files) = (tally.clone(), Arc::clone(files));
    let tell = move || tally.tell(log::Level::Info);
    Watch::start(signals, stream.try_clone()?, tell, move || remove(&files))
}

fn remove(files: &FilesAtTheEnd) {
    let files = files.lock().unwrap_or_else(PoisonError::into_inner).take();
    drop(files);
}

/// How the directory is served when `limit` files can be open at once.
fn share_settings(config: &DaemonConfig, limit: u64) -> Result<ShareSettings, DaemonError> {
    let guest_fds = guest_fds_for_limit(limit, config.device.execution.pool_threads_max())
        .ok_or(DaemonError::FewDescriptors { limit })?;
    if limit < NOFILE_FEW {
        log::warn!(
            "only {limit} files can be open at once, which leaves very few for the guest, \
             {guest_fds}; raise the limit with --rlimit-nofile or ulimit -n"
        );
    }
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
