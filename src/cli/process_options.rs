//! What: the options that say how the daemon runs as a process, as they are typed.
//!
//! In: the arguments. Out: a group of options, which `options` joins; every value is checked for
//! its form only.

use clap::{ArgAction, Args, ValueEnum};
use virtiofsd::IdMapEntry;

/// How the daemon is confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SandboxMode {
    /// Own mount, process id and network namespaces with the shared directory as root. An
    /// ordinary user gets an own user namespace, too.
    Namespace,
    /// The shared directory as root by chroot(2), for containers that allow no namespaces. Only
    /// for root.
    Chroot,
    /// No confinement beyond the checks of the daemon itself.
    None,
}

/// What happens at a system call that the daemon has no use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Seccomp {
    /// It is made: there is no filter.
    None,
    /// The daemon is killed.
    Kill,
    /// It is made, and the kernel logs it.
    Log,
    /// The daemon gets the signal SIGSYS, of which it dies, too, but which a debugger can catch.
    Trap,
}

/// Rights, log and place of the process.
#[derive(Debug, Args)]
pub(crate) struct ProcessOptions {
    /// Confinement of the daemon
    #[arg(
        long,
        value_enum,
        value_name = "MODE",
        ignore_case = true,
        default_value_t = SandboxMode::Namespace
    )]
    pub(crate) sandbox: SandboxMode,

    /// User ids of the daemon's own user namespace: :INSIDE:OUTSIDE:COUNT: gives COUNT ids from
    /// INSIDE on, as the guest has them, those of the host from OUTSIDE on. May be repeated. Needs
    /// --sandbox namespace
    #[arg(long, value_name = "MAP", action = ArgAction::Append)]
    pub(crate) uid_map: Vec<IdMapEntry>,

    /// The same for group ids
    #[arg(long, value_name = "MAP", action = ArgAction::Append)]
    pub(crate) gid_map: Vec<IdMapEntry>,

    /// What happens at a system call that the daemon has no use for
    #[arg(long, value_enum, value_name = "ACTION", default_value_t = Seccomp::Kill)]
    pub(crate) seccomp: Seccomp,

    /// Capabilities to keep beside the usual ones (+) or to give up (-), like
    /// "--modcaps=+sys_admin:-chown"
    #[arg(long, value_name = "CHANGES")]
    pub(crate) modcaps: Option<String>,

    /// Go into the background: the command returns when a front end can connect. Log lines go on
    /// only with --syslog
    #[arg(long, overrides_with = "compat_foreground")]
    pub(crate) daemonize: bool,

    /// Log to syslog (facility "user") instead of standard error. RUST_LOG has no effect then
    #[arg(long)]
    pub(crate) syslog: bool,

    /// Which log lines to print: error, warn, info, debug, trace or off. The environment variable
    /// RUST_LOG, if set, is used instead
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: log::LevelFilter,

    /// Print a JSON description of this program for launchers, and end
    #[arg(long)]
    pub(crate) print_capabilities: bool,
}
