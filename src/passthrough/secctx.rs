//! What: labels of new objects, which the guest's security modules send along (SECURITY_CTX).
//!
//! In: what was just made, and its labels. Out: the same with all of them, or gone again.
//! Invariant: the guest that makes an object cannot see it without its labels, because its
//! kernel holds the directory's lock until the reply. For the host and for other guests there is
//! a moment in which it has none; security modules give nobody more for that, but less. An
//! unnamed file that gets its name when it is labelled (`O_TMPFILE`) would spare that moment,
//! but to watchers on the host all writes to it would have happened to a file without a name,
//! and there is no such thing for what is not a regular file.

use std::os::fd::{AsFd, BorrowedFd};

use super::PassthroughFs;
use super::store::inode::Identity;
use crate::fs::types::SecurityContexts;
use crate::log_limit::guest_log;
use crate::sys::errno::{Errno, Result};
use crate::sys::meta::{self, FileType};
use crate::sys::path_ops::{self, PlaceAt};
use crate::sys::thread::FsThread;
use crate::sys::xattr::{self, XattrFlags};
use crate::xattr_map::NameBuffer;

impl PassthroughFs {
    /// Whether the labels could be stored, before anything is made.
    ///
    /// # Errors
    /// `EPERM` and others for names that the rules do not let pass.
    pub(super) fn check_labels(&self, contexts: &SecurityContexts<'_>) -> Result<()> {
        for context in contexts.iter() {
            let mut room = NameBuffer::new();
            self.host_xattr_name(context.name, &mut room, Errno::EPERM)?;
        }
        Ok(())
    }

    /// Labels what `made` holds.
    ///
    /// # Errors
    /// As setxattr(2); some labels may be there already.
    pub(super) fn label(
        &self,
        made: BorrowedFd<'_>,
        contexts: &SecurityContexts<'_>,
    ) -> Result<()> {
        for context in contexts.iter() {
            let mut room = NameBuffer::new();
            let name = self.host_xattr_name(context.name, &mut room, Errno::EPERM)?;
            let thread = FsThread::current(&self.proc_fd)?;
            xattr::set(&thread, made, name, context.value, XattrFlags::empty())?;
        }
        Ok(())
    }

    /// Labels what `made` holds, or removes it where it was made.
    ///
    /// # Errors
    /// As `label`.
    pub(super) fn label_or_remove(
        &self,
        at: PlaceAt<'_>,
        made: BorrowedFd<'_>,
        contexts: &SecurityContexts<'_>,
    ) -> Result<()> {
        self.label(made, contexts)
            .inspect_err(|_| remove_if_there(at, made))
    }
}

/// Removes the name of what `made` holds, if the name still leads there.
fn remove_if_there(at: PlaceAt<'_>, made: BorrowedFd<'_>) {
    let Ok(stat) = meta::stat_fd(made) else {
        return;
    };
    let is_made = |now: &meta::FileStat| Identity::of(now) == Identity::of(&stat);
    if meta::stat_at(at.directory.as_fd(), at.name).is_ok_and(|now| is_made(&now)) {
        remove(at, stat.file_type());
    }
}

/// Removes what was just made and could not even be pinned, if it looks like it.
pub(super) fn remove_unpinned(at: PlaceAt<'_>, file_type: FileType) {
    let is_made = |now: &meta::FileStat| now.file_type() == file_type;
    if meta::stat_at(at.directory.as_fd(), at.name).is_ok_and(|now| is_made(&now)) {
        remove(at, file_type);
    }
}

/// There is nobody left to tell of a failure: the guest gets the error that led here.
fn remove(at: PlaceAt<'_>, file_type: FileType) {
    let removed = match file_type {
        FileType::Directory => path_ops::remove_directory(at),
        FileType::Regular
        | FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharDevice
        | FileType::BlockDevice
        | FileType::Unknown => path_ops::remove_file(at),
    };
    if let Err(errno) = removed {
        guest_log!(
            log::Level::Debug,
            "what could not be labelled cannot be removed either: {errno}"
        );
    }
}
