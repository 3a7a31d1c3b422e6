//! What: the mounts on which files can be opened by handle, each with the descriptor that takes.
//!
//! In: the first object met on a mount. Out: a [`Mount`], shared by all nodes on it. Invariants:
//! a mount is told by the number that statx(2) gives, never by its name or by parsing tables, so
//! names with spaces or newlines are of no concern; it is kept open only while the guest holds a
//! node on it, so that the host can unmount it afterwards. Where handles cannot be used the log
//! says so once, and nodes stay pinned. Locks: the table's, never held across a system call.
//!
//! Handles of file systems that find files by handle only as long as they are cached (FUSE, FAT)
//! are taken for none: a file that the guest holds would be lost.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::fd_budget::{FdBudget, FdTicket};
use super::inode::FileSystemPlace;
use crate::log_limit::guest_log;
use crate::passthrough::file_systems::{dates_births, keeps_handles};
use crate::passthrough::settings::HandlePolicy;
use crate::passthrough::setup::HandleProblem;
use crate::sys::errno::{Errno, Result};
use crate::sys::file_handle::FileHandle;
use crate::sys::fs_type::{self, FsType};
use crate::sys::meta::{DeviceNumber, FileType};
use crate::sys::open::{self, HostOpenFlags};
use crate::sys::proc_fd::ProcFd;

/// Mounts that the log may complain of in the life of the daemon.
const COMPLAINTS_MAX: usize = 64;
/// Mounts that are gone are cleared away when the table has grown beyond this.
const TABLE_LEN_KEPT: usize = 16;

/// A mount, and how to open files on it by handle, if that is possible.
#[derive(Debug)]
pub(in crate::passthrough) struct Mount {
    budget: Arc<FdBudget>,
    /// Closed before its ticket is given back. The root's has none: there is room for it.
    opened: Option<(OwnedFd, Option<FdTicket>)>,
    /// Whether no two of its files are born at once, one after the other.
    dates_births: bool,
}

impl Mount {
    /// Whether its files can be opened by handle.
    pub(super) fn has_handles(&self) -> bool {
        self.opened.is_some()
    }

    /// Whether a file's time of birth tells it from all others that ever had its inode number.
    pub(super) fn dates_births(&self) -> bool {
        self.dates_births
    }

    /// The descriptors of all mounts.
    pub(super) fn budget(&self) -> &Arc<FdBudget> {
        &self.budget
    }

    /// Pins a file by its handle.
    ///
    /// # Errors
    /// `ESTALE` when there is no such file, or no handles; what open_by_handle_at(2) says.
    pub(super) fn pin(&self, handle: &FileHandle) -> Result<OwnedFd> {
        let (opened, _) = self.opened.as_ref().ok_or(Errno::ESTALE)?;
        handle.pin(opened.as_fd())
    }
}

/// What is known of an object when its mount is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Object<'a> {
    /// The object, pinned or open.
    pub(super) fd: BorrowedFd<'a>,
    /// Where it is.
    pub(super) place: FileSystemPlace,
    /// Its type.
    pub(super) file_type: FileType,
}

/// The mounts on which the guest holds nodes.
#[derive(Debug)]
pub(super) struct MountTable {
    policy: HandlePolicy,
    budget: Arc<FdBudget>,
    /// Stands for all mounts without handles.
    plain: Arc<Mount>,
    mounts: Mutex<HashMap<MountKey, Weak<Mount>>>,
    complained: Mutex<HashSet<MountKey>>,
}

/// A mount. Before Linux 5.8 there is no number for it; then a file system stands for its mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct MountKey(FileSystemPlace);

impl MountKey {
    fn of(place: FileSystemPlace) -> Self {
        match place.mount_id {
            0 => MountKey(place),
            mount_id => MountKey(FileSystemPlace {
                mount_id,
                // One mount shows several devices on btrfs and overlayfs; handles lead to all.
                dev: DeviceNumber::default(),
            }),
        }
    }
}

impl MountTable {
    /// A table for a share, and the mount of its root, which `readable` has open. When that has
    /// no handles nothing has.
    ///
    /// # Errors
    /// Why file handles cannot be used, if they are mandatory.
    pub(super) fn new(
        policy: HandlePolicy,
        budget: &Arc<FdBudget>,
        root: FileSystemPlace,
        readable: OwnedFd,
    ) -> std::result::Result<(Self, Arc<Mount>), HandleProblem> {
        let mut table = MountTable {
            policy,
            budget: Arc::clone(budget),
            plain: Arc::new(Mount {
                budget: Arc::clone(budget),
                opened: None,
                dates_births: false,
            }),
            mounts: Mutex::default(),
            complained: Mutex::default(),
        };
        let probed = match policy {
            HandlePolicy::Never => return Ok(table.without_handles()),
            HandlePolicy::Prefer | HandlePolicy::Mandatory => probe(readable.as_fd()),
        };
        let kind = match (probed, policy) {
            (Ok(kind), _) => kind,
            (Err(problem), HandlePolicy::Mandatory) => return Err(problem),
            (Err(problem), HandlePolicy::Never | HandlePolicy::Prefer) => {
                log::warn!(
                    "file handles are not used, because {problem}; each file that the guest knows \
                     takes a descriptor"
                );
                table.policy = HandlePolicy::Never;
                return Ok(table.without_handles());
            }
        };
        let mount = Arc::new(Mount {
            budget: Arc::clone(budget),
            opened: Some((readable, None)),
            dates_births: dates_births(kind),
        });
        table
            .lock()
            .insert(MountKey::of(root), Arc::downgrade(&mount));
        Ok((table, mount))
    }

    fn without_handles(self) -> (Self, Arc<Mount>) {
        let plain = Arc::clone(&self.plain);
        (self, plain)
    }

    /// The mount that an object is on.
    ///
    /// # Errors
    /// `EIO` where file handles are mandatory and cannot be used; `ENFILE` when there is no
    /// descriptor left for it.
    pub(super) fn of(&self, proc_fd: &ProcFd, object: &Object<'_>) -> Result<Arc<Mount>> {
        if self.policy == HandlePolicy::Never {
            return Ok(Arc::clone(&self.plain));
        }
        let key = MountKey::of(object.place);
        if let Some(mount) = self.lock().get(&key).and_then(Weak::upgrade) {
            return Ok(mount);
        }
        let (opened, dates_births) = match self.open(proc_fd, object) {
            Ok((opened, kind)) => (Some(opened), dates_births(kind)),
            // That says nothing of the mount.
            Err(HandleProblem::Open(errno @ (Errno::ENFILE | Errno::EMFILE))) => return Err(errno),
            Err(problem) => {
                self.complain(key, object, &problem);
                if self.policy == HandlePolicy::Mandatory {
                    return Err(Errno::EIO);
                }
                (None, false)
            }
        };
        // What cannot be opened at all says nothing of its mount: the next object may tell.
        let is_verdict = opened.is_some() || can_be_opened(object.file_type);
        let mount = Arc::new(Mount {
            budget: Arc::clone(&self.budget),
            opened,
            dates_births,
        });
        if !is_verdict {
            return Ok(mount);
        }
        let mut mounts = self.lock();
        if let Some(present) = mounts.get(&key).and_then(Weak::upgrade) {
            // Somebody was faster; ours is closed after the lock is released.
            drop(mounts);
            return Ok(present);
        }
        if mounts.len() >= TABLE_LEN_KEPT && mounts.len() == mounts.capacity() {
            mounts.retain(|_, mount| mount.strong_count() != 0);
        }
        mounts.insert(key, Arc::downgrade(&mount));
        Ok(mount)
    }

    fn open(
        &self,
        proc_fd: &ProcFd,
        object: &Object<'_>,
    ) -> std::result::Result<((OwnedFd, Option<FdTicket>), FsType), HandleProblem> {
        let ticket = self.budget.take().map_err(HandleProblem::Open)?;
        let readable = self
            .budget
            .with_room(|| match object.file_type {
                FileType::Directory => {
                    open::reopen_directory(proc_fd, object.fd, HostOpenFlags::empty())
                }
                // A lease of somebody else on the host must not hold the guest up.
                FileType::Regular => open::reopen(proc_fd, object.fd, HostOpenFlags::NONBLOCK),
                FileType::Symlink
                | FileType::Fifo
                | FileType::Socket
                | FileType::CharDevice
                | FileType::BlockDevice
                | FileType::Unknown => Err(Errno::ENXIO),
            })
            .map_err(HandleProblem::Open)?;
        let kind = probe(readable.as_fd())?;
        Ok(((readable, Some(ticket)), kind))
    }

    fn complain(&self, key: MountKey, object: &Object<'_>, problem: &HandleProblem) {
        let mut complained = self
            .complained
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if complained.len() >= COMPLAINTS_MAX || !complained.insert(key) {
            return;
        }
        drop(complained);
        let FileSystemPlace { mount_id, dev } = object.place;
        let consequence = match self.policy {
            HandlePolicy::Mandatory => "the guest gets EIO",
            HandlePolicy::Never | HandlePolicy::Prefer => {
                "each of its files that the guest knows takes a descriptor"
            }
        };
        guest_log!(
            log::Level::Warn,
            "file handles are not used on device {}:{} (mount {mount_id}) below the shared \
             directory, because {problem}; {consequence}",
            dev.major,
            dev.minor
        );
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<MountKey, Weak<Mount>>> {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the root's file system has handles that are used.
    pub(super) fn has_handles(&self) -> bool {
        self.policy != HandlePolicy::Never
    }

    /// How many mounts are kept open.
    #[cfg(test)]
    pub(super) fn open_count(&self) -> usize {
        let mounts = self.lock();
        let present = mounts.values().filter_map(Weak::upgrade);
        present.filter(|mount| mount.has_handles()).count()
    }
}

fn can_be_opened(file_type: FileType) -> bool {
    matches!(file_type, FileType::Directory | FileType::Regular)
}

/// Tries on one file what will be done with all, and says on what kind of file system.
fn probe(readable: BorrowedFd<'_>) -> std::result::Result<FsType, HandleProblem> {
    let kind = fs_type::fs_type(readable).map_err(HandleProblem::Open)?;
    if !keeps_handles(kind) {
        return Err(HandleProblem::Volatile);
    }
    let handle = FileHandle::of_fd(readable).map_err(HandleProblem::None)?;
    handle.pin(readable).map_err(HandleProblem::Pin)?;
    Ok(kind)
}
