//! What: the steps into a sandbox that can fail, in words: which one, what it takes, and what
//! works without.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::process::capabilities::CapabilityError;
use crate::sys::errno::Errno;
use crate::sys::fork::Namespaces;

/// A step on the way to a root of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountStep {
    /// Nothing that is mounted here shows up elsewhere.
    Slave,
    /// A private copy of the share's mounts.
    Clone,
    /// No devices and no set-user-id there.
    Attributes,
    /// Put over the share.
    Put,
    /// Going there.
    Enter,
    /// Making it the root.
    Pivot,
    /// Leaving the old root.
    Detach,
}

/// Why there is no sandbox.
#[derive(Debug)]
pub enum SandboxError {
    /// The share is not there, or out of reach.
    OpenShare {
        /// The share.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// The share cannot be found again by its path in the new mount namespace.
    FindShare {
        /// Its real path.
        path: PathBuf,
        /// Why; `ESTALE` when something else is there.
        source: Errno,
    },
    /// The share is a file, which cannot be a root.
    NotADirectory(PathBuf),
    /// `/proc/self/fd` cannot be used.
    OpenProc(Errno),
    /// The new root cannot be opened.
    OpenRoot(Errno),
    /// Id maps, but no namespace to have them.
    MapsWithoutNamespace,
    /// An ordinary user cannot change his root.
    ChrootNeedsRoot,
    /// chroot(2) failed.
    Chroot(Errno),
    /// Supplementary groups cannot be given up.
    DropGroups(Errno),
    /// No pipe between the two processes.
    Pipe(io::Error),
    /// No child process in these namespaces.
    Fork {
        /// Which.
        namespaces: Namespaces,
        /// Why.
        source: Errno,
    },
    /// The kernel will not tell the child of the parent's end.
    DeathSignal(Errno),
    /// The parent has ended in the meantime.
    ParentGone,
    /// The parent could not give up its capabilities.
    DropCapabilities(CapabilityError),
    /// The parent cannot watch the child any more.
    Watch(Errno),
    /// A map of ids cannot be written.
    WriteMap {
        /// `uid_map`, `gid_map` or `setgroups`.
        file: &'static str,
        /// Why.
        source: io::Error,
    },
    /// `newuidmap` or `newgidmap` is missing or cannot be executed.
    RunMapper {
        /// Which.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// `newuidmap` or `newgidmap` refused.
    Mapper {
        /// Which.
        program: &'static str,
        /// What it said.
        said: String,
    },
    /// The ids of the user namespace cannot be taken.
    SetIds(Errno),
    /// The mounts of the share cannot become the root.
    Mount {
        /// How far it came.
        step: MountStep,
        /// Why.
        source: Errno,
    },
}

impl fmt::Display for MountStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MountStep::Slave => "make mounts private (mount MS_SLAVE on /)",
            MountStep::Clone => "copy the share's mounts (open_tree)",
            MountStep::Attributes => "make the share nodev and nosuid (mount_setattr)",
            MountStep::Put => "mount the share's copy (move_mount)",
            MountStep::Enter => "enter the share (fchdir)",
            MountStep::Pivot => "make the share the root (pivot_root)",
            MountStep::Detach => "leave the old root (umount2)",
        })
    }
}

impl fmt::Display for SandboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SandboxError::OpenShare { path, .. } => {
                write!(f, "cannot open shared directory {path:?}")
            }
            SandboxError::FindShare { path, .. } => write!(
                f,
                "cannot enter the sandbox: shared directory {path:?} is not to be found under \
                 that path in the new mount namespace; share it by a path that leads there"
            ),
            SandboxError::NotADirectory(path) => write!(
                f,
                "cannot enter the sandbox: {path:?} is not a directory, and only a directory can \
                 become the root; a single file can be shared with --sandbox none"
            ),
            SandboxError::OpenProc(_) => {
                f.write_str("cannot open /proc/self/fd; is /proc mounted?")
            }
            SandboxError::OpenRoot(_) => f.write_str("cannot open the new root"),
            SandboxError::MapsWithoutNamespace => f.write_str(
                "--uid-map and --gid-map are about a user namespace, which only --sandbox \
                 namespace has; without it --translate-uid and --translate-gid do the like",
            ),
            SandboxError::ChrootNeedsRoot => f.write_str(
                "--sandbox chroot can only be used by root; an ordinary user has --sandbox \
                 namespace",
            ),
            SandboxError::Chroot(_) => f.write_str(
                "cannot make the shared directory the root (chroot), which takes CAP_SYS_CHROOT; \
                 in a container without it use --sandbox none",
            ),
            SandboxError::DropGroups(_) => f.write_str(
                "cannot give up supplementary groups (setgroups), which takes CAP_SETGID; start \
                 the daemon without groups, or give it that capability",
            ),
            SandboxError::Pipe(_) => f.write_str("cannot make a pipe to a child process"),
            SandboxError::Fork { namespaces, source } => fork_text(f, *namespaces, *source),
            SandboxError::DeathSignal(_) => {
                f.write_str("cannot make the daemon end with its parent (PR_SET_PDEATHSIG)")
            }
            SandboxError::ParentGone => f.write_str("the parent process has ended"),
            SandboxError::DropCapabilities(_) => {
                f.write_str("the parent process cannot give up its capabilities")
            }
            SandboxError::Watch(_) => f.write_str("cannot watch the process that serves"),
            SandboxError::WriteMap { file, .. } => write!(
                f,
                "cannot write the {file} of the user namespace; only root with CAP_SETUID and \
                 CAP_SETGID may map other ids than its own. Leave out --uid-map and --gid-map, \
                 or use --translate-uid and --translate-gid"
            ),
            SandboxError::RunMapper { program, .. } => write!(
                f,
                "cannot run {program}, which maps the ids of an ordinary user; install it (Debian \
                 and Ubuntu: uidmap, Fedora: shadow-utils), or leave out --uid-map and --gid-map"
            ),
            SandboxError::Mapper { program, said } => write!(
                f,
                "{program} refused: {said}. The ranges that a user may map stand in /etc/subuid \
                 and /etc/subgid"
            ),
            SandboxError::SetIds(_) => {
                f.write_str("cannot become root of the user namespace (setresuid)")
            }
            SandboxError::Mount { step, source } => mount_text(f, *step, *source),
        }
    }
}

fn fork_text(f: &mut fmt::Formatter<'_>, namespaces: Namespaces, source: Errno) -> fmt::Result {
    if namespaces.is_empty() {
        return f.write_str("cannot make a child process");
    }
    let is_user = namespaces.contains(Namespaces::USER);
    f.write_str("cannot make namespaces for --sandbox namespace: ")?;
    f.write_str(match (source, is_user) {
        (Errno::ENOSPC, true) => {
            "there are too many already; raise user.max_user_namespaces and the other limits in \
             /proc/sys/user"
        }
        (Errno::ENOSPC, false) => "there are too many already; raise the limits in /proc/sys/user",
        (Errno::EINVAL, _) => "the kernel lacks some of them",
        (Errno::EPERM, true) => {
            "this user may not make user namespaces (kernel.unprivileged_userns_clone, \
             kernel.apparmor_restrict_unprivileged_userns, or the container's seccomp filter); \
             allow it, or use --sandbox none"
        }
        (Errno::EPERM, false) => {
            "that takes CAP_SYS_ADMIN; in a container without it use --sandbox chroot (needs \
             CAP_SYS_CHROOT) or --sandbox none"
        }
        _ => "clone(2) failed",
    })
}

fn mount_text(f: &mut fmt::Formatter<'_>, step: MountStep, source: Errno) -> fmt::Result {
    write!(f, "cannot enter the sandbox: cannot {step}")?;
    match (step, source) {
        (_, Errno::EPERM | Errno::EACCES) => f.write_str(
            "; CAP_SYS_ADMIN is missing, or a security module or the container's seccomp filter \
             forbids mounts. Use --sandbox chroot (as root) or --sandbox none there",
        ),
        (_, Errno::ENOSYS) => f.write_str(
            "; --sandbox namespace takes Linux 5.2 and a seccomp filter that lets it mount. Use \
             --sandbox chroot (as root) or --sandbox none",
        ),
        (MountStep::Pivot, Errno::EINVAL) => f.write_str(
            "; the root may be an initramfs, which cannot be left. Use --sandbox chroot there",
        ),
        _ => Ok(()),
    }
}

impl Error for SandboxError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            SandboxError::OpenShare { source, .. }
            | SandboxError::FindShare { source, .. }
            | SandboxError::Fork { source, .. }
            | SandboxError::Mount { source, .. }
            | SandboxError::OpenProc(source)
            | SandboxError::OpenRoot(source)
            | SandboxError::Chroot(source)
            | SandboxError::DropGroups(source)
            | SandboxError::DeathSignal(source)
            | SandboxError::Watch(source)
            | SandboxError::SetIds(source) => Some(source),
            SandboxError::Pipe(source)
            | SandboxError::WriteMap { source, .. }
            | SandboxError::RunMapper { source, .. } => Some(source),
            SandboxError::DropCapabilities(source) => Some(source),
            SandboxError::NotADirectory(_)
            | SandboxError::MapsWithoutNamespace
            | SandboxError::ChrootNeedsRoot
            | SandboxError::ParentGone
            | SandboxError::Mapper { .. } => None,
        }
    }
}
