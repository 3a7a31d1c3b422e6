//! What: extended attributes of nodes of any type.
//!
//! In: names and values of the guest. Out: those of the host, unchanged. Invariant: with the
//! setting off every call says `ENOSYS`, after which a guest does not ask again. Does not: map
//! or hide names.

use std::ffi::CStr;
use std::os::fd::AsFd;

use super::PassthroughFs;
use super::store::inode::NodeFd;
use crate::fs::filesystem::SetXattrRequest;
use crate::fs::types::NodeId;
use crate::sys::errno::{Errno, Result};
use crate::sys::thread::FsThread;
use crate::sys::xattr::{self, VALUE_LEN_MAX, XattrFlags};

impl PassthroughFs {
    /// Sets an attribute. `kill_sgid` is of no weight: guests send it only with POSIX_ACL.
    ///
    /// # Errors
    /// `ENOSYS`, `EBADF`, `E2BIG` for a value over 64 KiB, `EINVAL` for unknown flags, and what
    /// setxattr(2) says.
    pub(super) fn set_node_xattr(&self, request: &SetXattrRequest<'_>) -> Result<()> {
        self.with_target(request.node, |thread, pinned| {
            if request.value.len() > VALUE_LEN_MAX {
                return Err(Errno::E2BIG);
            }
            let flags = XattrFlags::from_bits(request.flags).ok_or(Errno::EINVAL)?;
            xattr::set(thread, pinned.as_fd(), request.name, request.value, flags)
        })
    }

    /// Reads an attribute; with an empty `buf`, only its length.
    ///
    /// # Errors
    /// `ENOSYS`, `EBADF`, `ENODATA`, `ERANGE` when it is longer than `buf`.
    pub(super) fn node_xattr(&self, node: NodeId, name: &CStr, buf: &mut [u8]) -> Result<usize> {
        self.with_target(node, |thread, pinned| {
            xattr::get(thread, pinned.as_fd(), name, buf)
        })
    }

    /// Lists the names; with an empty `buf`, only the length of the list.
    ///
    /// # Errors
    /// `ENOSYS`, `EBADF`, `ERANGE` when it is longer than `buf`.
    pub(super) fn list_node_xattrs(&self, node: NodeId, buf: &mut [u8]) -> Result<usize> {
        self.with_target(node, |thread, pinned| {
            xattr::list(thread, pinned.as_fd(), buf)
        })
    }

    /// Removes an attribute.
    ///
    /// # Errors
    /// `ENOSYS`, `EBADF`, `ENODATA`.
    pub(super) fn remove_node_xattr(&self, node: NodeId, name: &CStr) -> Result<()> {
        self.with_target(node, |thread, pinned| {
            xattr::remove(thread, pinned.as_fd(), name)
        })
    }

    fn with_target<T>(
        &self,
        node: NodeId,
        step: impl FnOnce(&FsThread, NodeFd<'_>) -> Result<T>,
    ) -> Result<T> {
        if !self.settings.xattr {
            return Err(Errno::ENOSYS);
        }
        let inode = self.store.get(node)?;
        let thread = FsThread::current(&self.proc_fd)?;
        step(&thread, inode.reach()?)
    }
}
