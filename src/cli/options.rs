//! What: exactly what the user typed. The help text lives here.
//!
//! In: the arguments. Out: [`Options`], every value checked for its form only; what goes with
//! what is decided in `settings`. Spellings are those of the existing daemon, so that launchers
//! need no change. Options of that daemon which this one does not have yet are known by name,
//! so that they are refused with a reason instead of a guess at a typing mistake.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgAction, Parser, ValueEnum};

use super::process_options::ProcessOptions;
use super::share_options::{CachingOptions, DescriptorOptions, MetadataOptions, SemanticsOptions};

/// Most threads that `--thread-pool-size` may ask for: far beyond any use, but low enough that
/// a slip of the finger does not exhaust the host's process ids.
const POOL_THREADS_MAX: u64 = 1024;

/// Far more than a wake-up takes; beyond it a typing mistake is more likely than a wish.
const POLL_US_MAX: u64 = 10_000;

/// Longest tag in bytes (VIRTIO 1.2, 5.11.4).
const TAG_LEN_MAX: usize = 36;

/// What stands below the options in the help text.
const SIGNALS: &str = "\
Signals:
  SIGTERM, SIGINT  Finish the requests under way and end with status 0
  SIGHUP           The same with status 1
  SIGUSR1          Log how often each operation was asked for, its errors, bytes and times (level
                   info); at the end this is logged, too, with --log-level debug";

/// How long and how much the guest may cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cache {
    /// Cache metadata for a second, contents until the file is opened again or changes.
    Auto,
    /// Cache everything for a day: only for a directory that nobody else changes.
    Always,
    /// Cache metadata for a day, contents not at all.
    Metadata,
    /// Cache nothing.
    Never,
}

/// Whether something is asked of the guest that not every guest can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Negotiation {
    /// Do not use it.
    Never,
    /// Use it with guests that can.
    Auto,
    /// Refuse to be mounted by guests that cannot.
    Always,
}

/// How nodes are reached that the guest holds but does not use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InodeFileHandles {
    /// Keep a descriptor for each file that the guest knows.
    Never,
    /// Use file handles where descriptors run out, if the file system and the rights of the
    /// daemon allow it.
    Prefer,
    /// The same, but fail to start where that is not possible.
    Mandatory,
    /// Deprecated spelling of "prefer".
    #[value(hide = true)]
    Fallback,
}

/// A virtio-fs vhost-user device: serves a host directory to a virtual machine.
///
/// The daemon listens on a UNIX socket for one VMM (QEMU, libvirt, Cloud Hypervisor, crosvm) and
/// ends when the VMM disconnects. The virtual machine's memory must be shared with it: with QEMU,
/// "-object memory-backend-memfd,id=mem,size=4G,share=on -numa node,memdev=mem".
#[derive(Debug, Parser)]
#[command(
    name = "virtiofsd",
    version,
    max_term_width = 100,
    args_override_self = true,
    arg_required_else_help = true,
    override_usage = "virtiofsd --shared-dir <DIR> <--socket-path <PATH>|--fd <FD>> [OPTIONS]",
    after_help = SIGNALS
)]
pub(crate) struct Options {
    /// Directory to share with the guest
    #[arg(
        long,
        value_name = "DIR",
        value_parser = OsStringValueParser::new().map(PathBuf::from),
        required_unless_present_any = ["print_capabilities", "compat"]
    )]
    pub(crate) shared_dir: Option<PathBuf>,

    /// Name by which the guest mounts the share, 1 to 36 bytes, for VMMs that ask the daemon for
    /// it (QEMU takes it from its own command line instead)
    #[arg(long, value_name = "TAG", value_parser = parse_tag)]
    pub(crate) tag: Option<String>,

    /// Path of the UNIX socket to create for the VMM
    #[arg(
        long,
        value_name = "PATH",
        value_parser = OsStringValueParser::new().map(PathBuf::from),
        required_unless_present_any = ["socket", "fd", "print_capabilities"]
    )]
    pub(crate) socket_path: Option<PathBuf>,

    /// Deprecated spelling of --socket-path
    #[arg(long, value_name = "PATH", hide = true)]
    pub(crate) socket: Option<PathBuf>,

    /// Group of the socket, by name or number, whose members may connect, too (mode 0770 instead
    /// of 0700)
    #[arg(
        long,
        value_name = "GROUP",
        conflicts_with_all = ["fd", "print_capabilities"]
    )]
    pub(crate) socket_group: Option<String>,

    /// Number of an inherited descriptor that is a listening UNIX socket; 3 with a socket unit of
    /// systemd
    #[arg(long, value_name = "FD", conflicts_with_all = ["socket_path", "socket"])]
    pub(crate) fd: Option<i32>,

    /// Threads in the pool that serves requests; 0 serves each request in the thread of its queue
    /// [default: in the thread of its queue, but in a pool what waits for a disk or a server]
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(0..=POOL_THREADS_MAX)
    )]
    pub(crate) thread_pool_size: Option<u64>,

    /// Microseconds to look for the next request before sleeping, which saves the guest a wake-up;
    /// 0 to sleep at once. By default as long as it pays for this guest, up to 50, and never on
    /// more than half of the CPUs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=POLL_US_MAX))]
    pub(crate) poll_us: Option<u64>,

    /// Refuse every change: the guest sees a read-only file system, whatever it was mounted as
    #[arg(long)]
    pub(crate) readonly: bool,

    #[command(flatten, next_help_heading = "Caching")]
    pub(crate) caching: CachingOptions,

    #[command(flatten, next_help_heading = "Extended attributes and ids")]
    pub(crate) metadata: MetadataOptions,

    #[command(flatten, next_help_heading = "Semantics")]
    pub(crate) semantics: SemanticsOptions,

    #[command(flatten, next_help_heading = "Descriptors")]
    pub(crate) descriptors: DescriptorOptions,

    #[command(flatten, next_help_heading = "Process")]
    pub(crate) process: ProcessOptions,

    /// Options in the form of the C daemon, like "source=/srv,cache=always"; a comma within a value
    /// is doubled (deprecated)
    #[arg(short = 'o', value_name = "OPTION[,OPTION...]", action = ArgAction::Append, help_heading = "Deprecated")]
    pub(crate) compat: Vec<OsString>,

    /// Same as --log-level debug (deprecated)
    #[arg(short = 'd', help_heading = "Deprecated")]
    pub(crate) compat_debug: bool,

    /// Stay in the foreground, as without --daemonize (deprecated)
    #[arg(short = 'f', overrides_with = "daemonize", help_heading = "Deprecated")]
    pub(crate) compat_foreground: bool,

    #[command(flatten)]
    pub(crate) unbuilt: Unbuilt,
}

macro_rules! unbuilt_options {
    ($($field:ident $shown:literal ($($name:tt)*)),* $(,)?) => {
        /// Options of the existing daemon that this version does not have. They are accepted
        /// with any value, only to be refused by name.
        #[derive(Debug, clap::Args)]
        pub(crate) struct Unbuilt {
            $(
                #[arg(
                    $($name)*, hide = true, num_args = 0..=1, action = ArgAction::Append,
                    allow_hyphen_values = true, default_missing_value = ""
                )]
                $field: Vec<String>,
            )*
        }

        impl Unbuilt {
            /// The first of these options that was given, as it is typed.
            pub(crate) fn first_given(&self) -> Option<&'static str> {
                $(
                    if !self.$field.is_empty() {
                        return Some($shown);
                    }
                )*
                None
            }
        }
    };
}

unbuilt_options!(
    migration_mode "--migration-mode" (long),
    migration_on_error "--migration-on-error" (long),
    migration_verify_handles "--migration-verify-handles" (long),
    migration_confirm_paths "--migration-confirm-paths" (long),
);

fn parse_tag(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > TAG_LEN_MAX {
        return Err(format!(
            "a tag has 1 to {TAG_LEN_MAX} bytes, not {}",
            text.len()
        ));
    }
    if text.contains(['\n', '\0']) {
        return Err("a tag cannot contain a newline or NUL: Linux guests refuse it".to_owned());
    }
    Ok(text.to_owned())
}
