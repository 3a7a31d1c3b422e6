//! What: the first steps: from a path to a share that can be served.
//!
//! In: the operator's path, or descriptors that a sandbox has prepared. Out: [`PassthroughFs`],
//! or which step failed and on what. Everything that would fail for every request later is tried
//! once here, where a person sees the message.

use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;

use super::PassthroughFs;
use super::dir_streams::DirStreams;
use super::file_systems::FileSystems;
use super::locks::Locks;
use super::settings::{HandlePolicy, Negotiation, Settings};
use super::store::Root;
use super::store::handles::HandleStore;
use super::store::idle_readers::IdleReaders;
use super::store::inodes::InodeStore;
use super::store::unopened_files::UnopenedFiles;
use crate::ids::error::{RoundTripLoss, RuleError};
use crate::ids::translator::Translator;
use crate::sys::errno::Errno;
use crate::sys::kernel;
use crate::sys::meta::{self, FileType};
use crate::sys::open::{self, HostOpenFlags};
use crate::sys::proc_fd::ProcFd;
use crate::sys::thread::FsThread;

/// Why files of a file system cannot be reached by file handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandleProblem {
    /// Nothing on it can be opened for reading, which opening by handle takes.
    Open(Errno),
    /// It gives no handles.
    None(Errno),
    /// Its handles lead only to files that happen to be in its cache.
    Volatile,
    /// Files cannot be opened by handle.
    Pin(Errno),
}

impl fmt::Display for HandleProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandleProblem::Open(errno) => {
                write!(f, "nothing there can be opened for reading ({errno})")
            }
            HandleProblem::None(errno) => write!(f, "the file system has none ({errno})"),
            HandleProblem::Volatile => {
                f.write_str("those of FUSE and FAT file systems do not last")
            }
            HandleProblem::Pin(Errno::EPERM) => f.write_str(
                "opening files by handle takes CAP_DAC_READ_SEARCH in the initial user namespace",
            ),
            HandleProblem::Pin(errno) => write!(f, "no file can be opened by handle ({errno})"),
        }
    }
}

impl Error for HandleProblem {}

/// The step that failed while a share was prepared.
#[derive(Debug)]
pub enum SetupError {
    /// `/proc/self/fd` cannot be opened.
    OpenProc(Errno),
    /// The share is not there, or out of reach.
    OpenShare {
        /// The share.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// The share's attributes cannot be read.
    StatShare {
        /// The share.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// The share is neither a directory nor a regular file.
    ShareType {
        /// The share.
        path: PathBuf,
    },
    /// The share is there but its contents cannot be read.
    ReadShare {
        /// The share.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// File handles are mandatory and cannot be used.
    FileHandles {
        /// The share.
        path: PathBuf,
        /// Why.
        source: HandleProblem,
    },
    /// No thread can be started.
    StartThread(io::Error),
    /// A thread cannot get a working directory of its own.
    PrepareThread(Errno),
    /// The rules about ids contradict each other.
    IdRules(RuleError),
    /// The rules about ids do not keep apart those that an access control list names.
    AclIds(RoundTripLoss),
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetupError::OpenProc(_) => f.write_str("cannot open /proc/self/fd; is /proc mounted?"),
            SetupError::OpenShare { path, .. } => {
                write!(f, "cannot open shared directory {path:?}")
            }
            SetupError::StatShare { path, .. } => {
                write!(f, "cannot read the attributes of shared directory {path:?}")
            }
            SetupError::ShareType { path } => {
                write!(f, "{path:?} is neither a directory nor a regular file")
            }
            SetupError::ReadShare { path, .. } => {
                write!(f, "cannot read shared directory {path:?}")
            }
            SetupError::FileHandles { path, .. } => write!(
                f,
                "file handles are mandatory but cannot be used in {path:?}"
            ),
            SetupError::StartThread(_) => f.write_str("cannot start a thread"),
            SetupError::PrepareThread(_) => f.write_str(
                "cannot give a thread its own working directory: unshare(CLONE_FS) or fchdir is \
                 refused, perhaps by the container's seccomp filter",
            ),
            SetupError::IdRules(error) => error.fmt(f),
            SetupError::AclIds(loss) => write!(
                f,
                "--posix-acl does not go together with these rules of --translate-uid and \
                 --translate-gid: {loss}, so an ACL that the guest reads and writes back would \
                 name somebody else; doc/id-translation.md says which rules go together"
            ),
        }
    }
}

impl Error for SetupError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            SetupError::OpenProc(source) | SetupError::PrepareThread(source) => Some(source),
            SetupError::OpenShare { source, .. }
            | SetupError::StatShare { source, .. }
            | SetupError::ReadShare { source, .. } => Some(source),
            SetupError::ShareType { .. } | SetupError::AclIds(_) => None,
            SetupError::FileHandles { source, .. } => Some(source),
            SetupError::IdRules(error) => error.source(),
            SetupError::StartThread(source) => Some(source),
        }
    }
}

impl PassthroughFs {
    /// Serves what is at `path`, following links in it: a directory, or a single regular file.
    ///
    /// # Errors
    /// The step that failed.
    pub fn new(settings: Settings, path: &Path) -> Result<Self, SetupError> {
        let proc_fd = ProcFd::open().map_err(SetupError::OpenProc)?;
        let root = open::pin_path(path).map_err(|source| SetupError::OpenShare {
            path: path.to_owned(),
            source,
        })?;
        Self::from_fd(settings, root, proc_fd, path)
    }

    /// Serves what `root` holds, in a process that cannot reach it by path any more. `shown` is
    /// its name in messages.
    ///
    /// # Errors
    /// The step that failed.
    pub fn from_fd(
        settings: Settings,
        root: OwnedFd,
        proc_fd: ProcFd,
        shown: &Path,
    ) -> Result<Self, SetupError> {
        let translator = translator(&settings)?;
        let stat = meta::stat_fd(root.as_fd()).map_err(|source| SetupError::StatShare {
            path: shown.to_owned(),
            source,
        })?;
        let none = HostOpenFlags::empty();
        let readable = match stat.file_type() {
            FileType::Directory => open::reopen_directory(&proc_fd, root.as_fd(), none),
            FileType::Regular => open::reopen(&proc_fd, root.as_fd(), none),
            _ => {
                return Err(SetupError::ShareType {
                    path: shown.to_owned(),
                });
            }
        };
        let readable = readable.map_err(|source| SetupError::ReadShare {
            path: shown.to_owned(),
            source,
        })?;
        try_fs_thread(&proc_fd)?;
        // Asked here so that no request pays for it, perhaps while it acts for a caller.
        let openat2 = kernel::has_openat2();
        log::debug!(
            "openat2 is {}",
            if openat2 { "used" } else { "not available" }
        );
        let root = Root {
            pinned: root,
            readable,
            stat,
        };
        // A file handle does not keep a file that has no name; somebody has to have it open.
        let policy = match settings.pins_every_node() {
            true => HandlePolicy::Never,
            false => settings.inode_file_handles,
        };
        let store = InodeStore::new(root, policy, settings.guest_fds_max).map_err(|source| {
            SetupError::FileHandles {
                path: shown.to_owned(),
                source,
            }
        })?;
        let proc_fd = Arc::new(proc_fd);
        let idle_readers = IdleReaders::new(settings.guest_fds_max);
        Ok(PassthroughFs {
            settings,
            translator,
            store,
            handles: HandleStore::new(),
            locks: Locks::new(Arc::clone(&proc_fd)),
            idle_readers,
            unopened_files: UnopenedFiles::new(),
            dir_streams: DirStreams::default(),
            file_systems: FileSystems::default(),
            proc_fd,
            session: AtomicU64::new(0),
        })
    }
}

/// Who is who, if the settings can be followed.
fn translator(settings: &Settings) -> Result<Translator, SetupError> {
    let translator = Translator::new(&settings.uid_rules, &settings.gid_rules);
    let translator = translator.map_err(SetupError::IdRules)?;
    match (settings.posix_acl, translator.round_trip_loss()) {
        (Negotiation::Auto | Negotiation::Always, Some(loss)) => Err(SetupError::AclIds(loss)),
        (Negotiation::Auto | Negotiation::Always | Negotiation::Never, _) => Ok(translator),
    }
}

/// Finds out whether threads can become FsThreads, in a thread that ends at once: the calling
/// one keeps its working directory, and may yet fork or change its credentials.
fn try_fs_thread(proc_fd: &ProcFd) -> Result<(), SetupError> {
    thread::scope(|scope| {
        let started = thread::Builder::new()
            .name("fs-probe".to_owned())
            .spawn_scoped(scope, || FsThread::current(proc_fd).map(drop));
        let probe = started.map_err(SetupError::StartThread)?;
        // A panic there would be a broken thread start too.
        probe
            .join()
            .unwrap_or(Err(Errno::EIO))
            .map_err(SetupError::PrepareThread)
    })
}
