//! What: privileges that a file loses when its contents or its size change: set-user-id,
//! set-group-id and file capabilities.
//!
//! In: a file, and whether the change is one that costs it those (the flag of HANDLE_KILLPRIV_V2,
//! or who asks). Out: the change, made on a file that has lost them already: first clear, then
//! change, so that nobody can run foreign contents with the owner's rights.
//!
//! The host's kernel would clear set-id bits by itself if the daemon had no `CAP_FSETID`, but
//! then for the guest's root, too, and for chmod(2). A guest asks for it with nearly each write of
//! an ordinary user, so it must cost next to nothing where there is nothing to clear, which is
//! nearly always. Measured on Linux 6.18, ext4: taking `CAP_FSETID` away and giving it back (two
//! capset(2)) 3.5 us; asking for the mode 0.4 us; a write of 4 KiB 2.0 us. So the mode is asked
//! for, and if need be `meta::drop_set_ids` clears the bits in one step.
//!
//! File capabilities are removed by the host's kernel with each change, whoever makes it, but
//! only under their own name. Where the rules for names of attributes give them another one, it
//! is removed here, with a change of owner, too.
//!
//! What this leaves: another guest or the host that sets the bits between the question and the
//! write keeps them, as if it had come after the write. One guest cannot do that to itself,
//! because Linux holds the inode's lock over either.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::PassthroughFs;
use super::store::inode::Inode;
use crate::fs::types::Caller;
use crate::ids::types::GuestUid;
use crate::sys::data;
use crate::sys::errno::{Errno, Result};
use crate::sys::meta;
use crate::sys::open::HostOpenFlags;
use crate::sys::thread::FsThread;
use crate::sys::xattr;
use crate::wire::flags::SessionFlags;
use crate::xattr_map::{NameBuffer, Verdict};

/// The attribute that holds file capabilities.
const CAPABILITIES: &CStr = c"security.capability";

const SET_USER_ID: u32 = 0o4000;
const SET_GROUP_ID: u32 = 0o2000;
const GROUP_EXECUTE: u32 = 0o010;

/// What becomes of set-id bits with a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SetIds {
    /// They stay: the guest's root changes the file, or its kernel clears them by itself.
    Keep,
    /// They go.
    Clear,
}

impl PassthroughFs {
    /// What the flag of a request means in this session.
    pub(super) fn set_ids_by_flag(&self, is_set: bool) -> SetIds {
        if is_set && self.clears_set_ids() {
            SetIds::Clear
        } else {
            SetIds::Keep
        }
    }

    /// The same where the protocol has no flag. A guest that may have idmapped mounts does not
    /// say who asks; then the safe guess is: not root.
    pub(super) fn set_ids_by_caller(&self, caller: &Caller) -> SetIds {
        self.set_ids_by_flag(caller.uid != Some(GuestUid::ROOT))
    }

    fn clears_set_ids(&self) -> bool {
        self.negotiated().contains(SessionFlags::HANDLE_KILLPRIV_V2)
    }

    /// Runs `change`, which changes contents or size of the regular file that `file` holds.
    ///
    /// # Errors
    /// `EPERM` and others when something cannot be cleared, and nothing has changed then; those
    /// of `change`.
    pub(super) fn changing<T>(
        &self,
        file: BorrowedFd<'_>,
        set_ids: SetIds,
        change: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        if set_ids == SetIds::Clear && self.has_set_ids(file)? {
            meta::drop_set_ids(file)?;
        }
        self.drop_renamed_capabilities(file)?;
        change()
    }

    /// Removes the capabilities of the regular file that `file` holds, if the host's kernel does
    /// not know them for what they are.
    ///
    /// # Errors
    /// As removexattr(2).
    pub(super) fn drop_renamed_capabilities(&self, file: BorrowedFd<'_>) -> Result<()> {
        let mut room = NameBuffer::new();
        let Some(name) = self.renamed_capabilities(&mut room) else {
            return Ok(());
        };
        let thread = FsThread::current(&self.proc_fd)?;
        match xattr::remove(&thread, file, name) {
            Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(()),
            removed => removed,
        }
    }

    /// The name of file capabilities on the host, if it is not their own.
    fn renamed_capabilities<'a>(&self, room: &'a mut NameBuffer) -> Option<&'a CStr> {
        let map = self.settings.xattr_map.as_ref()?;
        match map.to_host(CAPABILITIES, room) {
            Verdict::Pass(name) => (name != CAPABILITIES).then_some(name),
            Verdict::Deny | Verdict::Unsupported | Verdict::TooLong => None,
        }
    }

    /// Opens a regular file by `open`, which may be called twice. With `O_TRUNC` it changes; but a
    /// file that cannot be opened must not lose anything, so if there is something to lose it is
    /// opened as it is, and emptied afterwards.
    ///
    /// # Errors
    /// Those of `open` and ftruncate(2); as `changing`.
    pub(super) fn open_changing(
        &self,
        inode: &Inode,
        flags: HostOpenFlags,
        set_ids: SetIds,
        open: impl Fn(HostOpenFlags) -> Result<OwnedFd>,
    ) -> Result<OwnedFd> {
        let truncates = flags.contains(HostOpenFlags::TRUNC);
        if !truncates || !self.may_lose(inode.reach()?.as_fd(), set_ids)? {
            return open(flags);
        }
        let opened = open(flags.difference(HostOpenFlags::TRUNC))?;
        if flags.intersects(HostOpenFlags::WRONLY | HostOpenFlags::RDWR) {
            self.truncate(opened.as_fd(), set_ids)?;
        } else {
            // O_RDONLY | O_TRUNC empties the file for who may write it.
            let writable = open(HostOpenFlags::WRONLY)?;
            self.truncate(writable.as_fd(), set_ids)?;
        }
        Ok(opened)
    }

    fn truncate(&self, file: BorrowedFd<'_>, set_ids: SetIds) -> Result<()> {
        self.changing(file, set_ids, || data::truncate_open(file, 0))
    }

    /// Whether a change of the file can cost it anything that the host's kernel would leave.
    fn may_lose(&self, file: BorrowedFd<'_>, set_ids: SetIds) -> Result<bool> {
        let mut room = NameBuffer::new();
        if self.renamed_capabilities(&mut room).is_some() {
            return Ok(true);
        }
        Ok(set_ids == SetIds::Clear && self.has_set_ids(file)?)
    }

    /// Whether there are bits to clear that the host's kernel would leave.
    fn has_set_ids(&self, file: BorrowedFd<'_>) -> Result<bool> {
        let thread = FsThread::current(&self.proc_fd)?;
        if !thread.own().capabilities.has_fsetid() {
            return Ok(false);
        }
        let mode = meta::mode_of(file)?;
        let runs_as_group = SET_GROUP_ID | GROUP_EXECUTE;
        Ok(mode & SET_USER_ID != 0 || mode & runs_as_group == runs_as_group)
    }
}
