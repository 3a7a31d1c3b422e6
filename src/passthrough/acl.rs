//! What: what access control lists need beyond other attributes: ids of the right side, and the
//! set-group-id bit that a new list may cost a file.
//!
//! In: values of a guest that agreed on POSIX_ACL. Out: values of the host, which is the one that
//! keeps list and mode in step. Does not: check a list; the host's kernel does.

use std::borrow::Cow;
use std::os::fd::BorrowedFd;

use super::PassthroughFs;
use crate::ids::acl::{self, AclError};
use crate::sys::errno::{Errno, Result};
use crate::sys::meta::{self, FileStat};
use crate::wire::flags::SessionFlags;

/// The name under which Linux keeps the list that says who may use a file.
pub(super) const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
/// The name of the list that new files in a directory get.
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// Everything that a guest must be capable of to interpret lists: it must leave the umask to the
/// host, which knows whether there is a default list, and must say when to clear set-group-id.
pub(super) const ACL_CAPABILITIES: SessionFlags = SessionFlags::POSIX_ACL
    .union(SessionFlags::DONT_MASK)
    .union(SessionFlags::SETXATTR_EXT);

const SET_GROUP_ID: u32 = 0o2000;

/// Whether an attribute of this name is an access control list.
pub(super) fn is_acl(name: &[u8]) -> bool {
    name == ACCESS_ACL || name == DEFAULT_ACL
}

impl PassthroughFs {
    /// Whether the guest interprets access control lists.
    pub(super) fn has_acl(&self) -> bool {
        self.negotiated().contains(SessionFlags::POSIX_ACL)
    }

    /// A list with the ids of the host.
    ///
    /// # Errors
    /// `EINVAL` for what is no list, `EPERM` for ids that the policy forbids.
    pub(super) fn acl_to_host<'a>(&self, value: &'a [u8]) -> Result<Cow<'a, [u8]>> {
        if self.translator.is_identity() {
            return Ok(Cow::Borrowed(value));
        }
        let mut value = value.to_vec();
        acl::to_host(&self.translator, &mut value).map_err(|error| match error {
            AclError::Malformed => Errno::EINVAL,
            AclError::Forbidden => Errno::EPERM,
        })?;
        Ok(Cow::Owned(value))
    }

    /// Puts the ids of the guest into a list of the host.
    ///
    /// # Errors
    /// `EIO` for what is no list, which the host would not have kept.
    pub(super) fn acl_to_guest(&self, value: &mut [u8]) -> Result<()> {
        if self.translator.is_identity() {
            return Ok(());
        }
        acl::to_guest(&self.translator, value).map_err(|_| Errno::EIO)
    }

    /// Runs `set`, which gives the file that `pinned` holds a new list, for a caller who is not
    /// in the file's group: its set-group-id goes, as chmod(2) would have it. First the bit, then
    /// the list, because the list may let the group run the file. If that fails the bit comes
    /// back, unless somebody has touched the inode by then.
    ///
    /// # Errors
    /// As chmod(2); those of `set`.
    pub(super) fn clearing_set_group_id(
        &self,
        pinned: BorrowedFd<'_>,
        set: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let before = meta::stat_fd(pinned)?;
        if before.mode & SET_GROUP_ID == 0 {
            return set();
        }
        meta::set_mode(&self.proc_fd, pinned, before.mode & !SET_GROUP_ID)?;
        let cleared = meta::stat_fd(pinned)?;
        set().inspect_err(|_| {
            let is_ours = |now: &FileStat| {
                let inode = |stat: &FileStat| (stat.ctime, stat.mode, stat.uid, stat.gid);
                inode(now) == inode(&cleared)
            };
            if meta::stat_fd(pinned).is_ok_and(|now| is_ours(&now)) {
                let _ = meta::set_mode(&self.proc_fd, pinned, before.mode);
            }
        })
    }
}
