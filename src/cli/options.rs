//! What: exactly what the user typed. The help text lives here.
//!
//! In: the arguments. Out: [`Options`], every value checked for its form only; what goes with
//! what is decided in `settings`. Spellings are those of the existing daemon, so that launchers
//! need no change. Options of that daemon which this one does not have yet are known by name,
//! so that they are refused with a reason instead of a guess at a typing mistake.

use std::path::PathBuf;

use clap::{ArgAction, ArgGroup, Parser, ValueEnum};

/// Most threads that `--thread-pool-size` may ask for: far beyond any use, but low enough that
/// a slip of the finger does not exhaust the host's process ids.
const POOL_THREADS_MAX: u64 = 1024;

/// Longest tag in bytes (VIRTIO 1.2, 5.11.4).
const TAG_LEN_MAX: usize = 36;

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

/// How the daemon is confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SandboxMode {
    /// Own namespaces with the shared directory as root (not available yet).
    Namespace,
    /// Shared directory as root by chroot(2) (not available yet).
    Chroot,
    /// No confinement beyond the checks of the daemon itself.
    None,
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
    group(ArgGroup::new("socket-source").args(["socket_path", "socket", "fd"]))
)]
pub(crate) struct Options {
    /// Directory to share with the guest
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "print_capabilities"
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
        required_unless_present_any = ["socket", "fd", "print_capabilities"]
    )]
    pub(crate) socket_path: Option<PathBuf>,

    /// Deprecated spelling of --socket-path
    #[arg(long, value_name = "PATH", hide = true)]
    pub(crate) socket: Option<PathBuf>,

    /// Number of an inherited descriptor that is a listening UNIX socket
    #[arg(long, value_name = "FD", value_parser = clap::value_parser!(i32).range(0..))]
    pub(crate) fd: Option<i32>,

    /// Threads in the pool that serves requests; 0 serves each request in the thread of its queue
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(0..=POOL_THREADS_MAX)
    )]
    pub(crate) thread_pool_size: u64,

    /// Let the guest use extended attributes
    #[arg(long)]
    pub(crate) xattr: bool,

    /// How much the guest may cache
    #[arg(long, value_enum, ignore_case = true, default_value_t = Cache::Auto)]
    pub(crate) cache: Cache,

    /// Let the guest cache writes; it then owns sizes and times of files that it writes
    #[arg(long)]
    pub(crate) writeback: bool,

    /// Never return attributes along with directory listings
    #[arg(long)]
    pub(crate) no_readdirplus: bool,

    /// Honour O_DIRECT of the guest: file contents bypass the host's page cache
    #[arg(long)]
    pub(crate) allow_direct_io: bool,

    /// Honour O_NOATIME of the guest instead of dropping it
    #[arg(long)]
    pub(crate) preserve_noatime: bool,

    /// Confinement of the daemon. Only "none" is available in this version, and it has to be
    /// asked for
    #[arg(long, value_enum, ignore_case = true, default_value_t = SandboxMode::Namespace)]
    pub(crate) sandbox: SandboxMode,

    /// Which log lines to print: error, warn, info, debug, trace or off. The environment variable
    /// RUST_LOG, if set, is used instead
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: log::LevelFilter,

    /// Print a JSON description of this program for launchers, and end
    #[arg(long)]
    pub(crate) print_capabilities: bool,

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
    socket_group "--socket-group" (long),
    posix_acl "--posix-acl" (long),
    security_label "--security-label" (long),
    xattrmap "--xattrmap" (long),
    readonly "--readonly" (long),
    seccomp "--seccomp" (long),
    announce_submounts "--announce-submounts" (long),
    no_announce_submounts "--no-announce-submounts" (long),
    inode_file_handles "--inode-file-handles" (long),
    allow_mmap "--allow-mmap" (long),
    modcaps "--modcaps" (long),
    syslog "--syslog" (long),
    rlimit_nofile "--rlimit-nofile" (long),
    compat_option "-o" (short = 'o'),
    compat_debug "-d" (short = 'd'),
    compat_foreground "-f" (short = 'f'),
    killpriv_v2 "--killpriv-v2" (long),
    no_killpriv_v2 "--no-killpriv-v2" (long),
    uid_map "--uid-map" (long),
    gid_map "--gid-map" (long),
    translate_uid "--translate-uid" (long),
    translate_gid "--translate-gid" (long),
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
