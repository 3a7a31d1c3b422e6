//! What: what the process can still see and reach while it serves a guest.
//!
//! In: [`SandboxSettings`] and the shared directory. Out: [`Role`]: the process that serves,
//! confined and with all it needs as descriptors, or the one that watches over it.
//!
//! ```text
//!   namespace, chroot:                                 none: serves itself, no child
//!
//!   parent ----fork----> child (process 1 of its pid namespace)
//!     | id maps            | waits for the id maps
//!     |------- go -------->|
//!     | no capabilities    | mounts, root, ids           (this room)
//!     | waits              | capabilities, seccomp       (its neighbours)
//!     |<------ ready ------|
//!     | tells whoever      | serves
//!     | started it         |
//!     |--- SIGTERM etc. -->| ends cleanly
//!     |<--- exit status ---|
//!     | removes socket and pid file, ends with that status
//!   parent ends -- SIGTERM by the kernel --> child ends
//! ```
//!
//! The child cannot reach the socket file any more, so the parent, which is outside but has no
//! capabilities, removes it. It stays in the namespaces that it was started in.
//!
//! Invariant: between fork and the end of this room the child has one thread. Does not: drop
//! capabilities or filter system calls.

pub mod error;
pub mod id_maps;
mod namespace;
pub mod supervisor;

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::process::capabilities::Prepared;
use crate::sys::credentials;
use crate::sys::errno::Errno;
use crate::sys::fork::Namespaces;
use crate::sys::mount;
use crate::sys::open;
use crate::sys::proc_fd::ProcFd;

pub use error::SandboxError;
use id_maps::IdMapEntry;
use supervisor::{ParentLink, Supervisor};

/// How the daemon is confined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SandboxMode {
    /// Own mount, pid and network namespaces with the shared directory as root; for an ordinary
    /// user, and where ids are mapped, an own user namespace too.
    #[default]
    Namespace,
    /// The shared directory as root by chroot(2).
    Chroot,
    /// Nothing beyond the checks of the daemon itself.
    None,
}

/// What the operator wants of the sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxSettings {
    /// The kind.
    pub mode: SandboxMode,
    /// User ids of the user namespace; empty for the usual ones.
    pub uid_map: Vec<IdMapEntry>,
    /// Group ids of the user namespace; empty for the usual ones.
    pub gid_map: Vec<IdMapEntry>,
}

/// The shared directory, pinned before anything is confined: a link that leads to it, and a path
/// below /proc/self/fd that a parent handed down, are followed this once.
#[derive(Debug)]
pub struct SharedDir {
    pinned: OwnedFd,
    /// Where it really is.
    real_path: PathBuf,
}

impl SharedDir {
    /// Pins what is at `path`.
    ///
    /// # Errors
    /// [`SandboxError::OpenShare`], [`SandboxError::OpenProc`].
    pub fn open(path: &Path) -> Result<Self, SandboxError> {
        let pinned = open::pin_path(path).map_err(|source| SandboxError::OpenShare {
            path: path.to_owned(),
            source,
        })?;
        let link = format!("/proc/self/fd/{}", pinned.as_raw_fd());
        let real_path =
            std::fs::read_link(link).map_err(|error| SandboxError::OpenProc(Errno::from(error)))?;
        Ok(SharedDir { pinned, real_path })
    }

    /// What is pinned.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.pinned.as_fd()
    }
}

/// What the process that serves needs, as descriptors: paths may lead nowhere any more.
#[derive(Debug)]
pub struct Confined {
    /// The root of the share.
    pub root: OwnedFd,
    /// `/proc/self/fd`.
    pub proc_fd: ProcFd,
    /// The way to the process that watches, if there is one.
    pub parent: Option<ParentLink>,
}

/// Who the caller of [`enter`] is when it returns.
#[derive(Debug)]
pub enum Role {
    /// The one that serves.
    Server(Confined),
    /// The one that watches over it.
    Supervisor(Supervisor),
}

/// Confines the process as `settings` say. Call it with one thread only.
///
/// # Errors
/// [`SandboxError`], in the process where the step failed.
pub fn enter(
    settings: &SandboxSettings,
    share: SharedDir,
    prepared: Prepared,
) -> Result<Role, SandboxError> {
    let is_root = credentials::effective_uid() == 0;
    if settings.mode != SandboxMode::Namespace
        && !(settings.uid_map.is_empty() && settings.gid_map.is_empty())
    {
        return Err(SandboxError::MapsWithoutNamespace);
    }
    if is_root {
        drop_groups()?;
    }
    match settings.mode {
        SandboxMode::Namespace => namespace::enter(settings, &share, prepared),
        SandboxMode::Chroot if is_root => enter_chroot(&share, prepared),
        SandboxMode::Chroot => Err(SandboxError::ChrootNeedsRoot),
        SandboxMode::None => stay_outside(share, is_root),
    }
}

fn stay_outside(share: SharedDir, is_root: bool) -> Result<Role, SandboxError> {
    if is_root {
        log::warn!(
            "root without a sandbox: names are confined to the share, but a fault in the daemon \
             would have the whole host before it. Use --sandbox namespace if you can, or chroot"
        );
    }
    Ok(Role::Server(Confined {
        root: share.pinned,
        proc_fd: ProcFd::open().map_err(SandboxError::OpenProc)?,
        parent: None,
    }))
}

fn enter_chroot(share: &SharedDir, prepared: Prepared) -> Result<Role, SandboxError> {
    let parent = match supervisor::split(Namespaces::empty())? {
        supervisor::Split::Parent(waiting) => return waiting.go(prepared).map(Role::Supervisor),
        supervisor::Split::Child(link) => link,
    };
    parent.wait_for_go();
    let proc_fd = private_proc_fd()?;
    mount::enter(share.as_fd()).map_err(|source| SandboxError::OpenShare {
        path: share.real_path.clone(),
        source,
    })?;
    mount::chroot_here().map_err(SandboxError::Chroot)?;
    Ok(Role::Server(Confined {
        root: root_of_process()?,
        proc_fd,
        parent: Some(parent),
    }))
}

/// `/proc/self/fd` as the root of a mount that stands nowhere: nothing can be reached through it
/// but the descriptors. Where that takes a right that is missing, the directory itself.
fn private_proc_fd() -> Result<ProcFd, SandboxError> {
    let shared = ProcFd::open().map_err(SandboxError::OpenProc)?;
    match mount::clone_tree(shared.as_fd(), mount::Submounts::LeftOut) {
        Ok(private) => Ok(ProcFd::from_fd(private)),
        Err(errno) => {
            log::debug!("/proc/self/fd is used where it is: it cannot be cloned ({errno})");
            Ok(shared)
        }
    }
}

fn root_of_process() -> Result<OwnedFd, SandboxError> {
    open::directory(Path::new(OsStr::new("/"))).map_err(SandboxError::OpenRoot)
}

/// Root's supplementary groups must not help a guest.
fn drop_groups() -> Result<(), SandboxError> {
    if credentials::groups().is_ok_and(|groups| groups.is_empty()) {
        return Ok(());
    }
    match credentials::set_groups(&[]) {
        Ok(()) => Ok(()),
        // Root of a user namespace that one user made for himself: user_namespaces(7).
        Err(Errno::EPERM) if setgroups_is_denied() => {
            log::debug!("supplementary groups stay: /proc/self/setgroups says deny");
            Ok(())
        }
        Err(source) => Err(SandboxError::DropGroups(source)),
    }
}

fn setgroups_is_denied() -> bool {
    std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny")
}
