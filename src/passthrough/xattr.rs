//! What: extended attributes of nodes of any type.
//!
//! In: names and values of the guest. Out: those of the host, under the names that the rules of
//! the operator give them. Invariants: with the setting off every call says `ENOSYS`, after which
//! a guest does not ask again; what a listing shows is what can be asked for, and its length with
//! size 0 is that of the list that the guest gets. Does not: give names a meaning, but for the
//! access control lists, which exist only for guests that agreed on POSIX_ACL (see `acl`).

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::PassthroughFs;
use super::acl::{ACCESS_ACL, is_acl};
use super::store::inode::{Inode, NodeFd};
use crate::fs::filesystem::SetXattrRequest;
use crate::fs::types::NodeId;
use crate::sys::errno::{Errno, Result};
use crate::sys::thread::FsThread;
use crate::sys::xattr::{self, LIST_LEN_MAX, VALUE_LEN_MAX, XattrFlags};
use crate::xattr_map::{NameBuffer, Verdict};

/// Room for the host's list of names of most files.
const SHORT_LIST_LEN: usize = 1024;

/// By what a node's attributes are read.
enum Source<'a> {
    /// A file that is open, however.
    Open(BorrowedFd<'a>),
    /// The node's own descriptor, by way of /proc/self/fd.
    Pinned(&'a FsThread, NodeFd<'a>),
}

impl Source<'_> {
    fn get(&self, name: &CStr, buf: &mut [u8]) -> Result<usize> {
        match self {
            Source::Open(file) => xattr::get_of_open(*file, name, buf),
            Source::Pinned(thread, pinned) => xattr::get(thread, pinned.as_fd(), name, buf),
        }
    }

    fn list(&self, buf: &mut [u8]) -> Result<usize> {
        match self {
            Source::Open(file) => xattr::list_of_open(*file, buf),
            Source::Pinned(thread, pinned) => xattr::list(thread, pinned.as_fd(), buf),
        }
    }
}

impl PassthroughFs {
    /// Sets an attribute.
    ///
    /// # Errors
    /// `ENOSYS`, `EBADF`, `EPERM` and `EOPNOTSUPP` by the rules, `E2BIG` for a value over 64 KiB,
    /// `EINVAL` for unknown flags, and what setxattr(2) says.
    pub(super) fn set_node_xattr(&self, request: &SetXattrRequest<'_>) -> Result<()> {
        self.with_target(request.node, |thread, pinned| {
            if request.value.len() > VALUE_LEN_MAX {
                return Err(Errno::E2BIG);
            }
            let flags = XattrFlags::from_bits(request.flags).ok_or(Errno::EINVAL)?;
            let mut room = NameBuffer::new();
            let name = self.host_xattr_name(request.name, &mut room, Errno::EPERM)?;
            let guest_name = request.name.to_bytes();
            if !is_acl(guest_name) {
                return xattr::set(thread, pinned.as_fd(), name, request.value, flags);
            }
            let value = self.acl_to_host(request.value)?;
            let set = || xattr::set(thread, pinned.as_fd(), name, &value, flags);
            if request.kill_sgid && guest_name == ACCESS_ACL {
                self.clearing_set_group_id(pinned.as_fd(), set)
            } else {
                set()
            }
        })
    }

    /// Reads an attribute; with an empty `buf`, only its length.
    ///
    /// # Errors
    /// `ENOSYS`, `EBADF`, `ENODATA` also by the rules, and for an access control list that cannot
    /// be there; `EOPNOTSUPP` by the rules, `ERANGE` when it is longer than `buf`.
    pub(super) fn node_xattr(&self, node: NodeId, name: &CStr, buf: &mut [u8]) -> Result<usize> {
        self.with_source(node, |source| {
            let mut room = NameBuffer::new();
            let is_list = is_acl(name.to_bytes()) && self.has_acl();
            let got = self
                .host_xattr_name(name, &mut room, Errno::ENODATA)
                .and_then(|host_name| source.get(host_name, buf));
            let len = match got {
                // A guest with lists asks for them to check permissions, and would refuse
                // everything for any other reason why there is none.
                Err(Errno::EOPNOTSUPP) if is_list => return Err(Errno::ENODATA),
                got => got?,
            };
            if is_list && let Some(value) = buf.get_mut(..len) {
                self.acl_to_guest(value)?;
            }
            Ok(len)
        })
    }

    /// Lists the names that the guest may see; with an empty `buf`, only the length of the list.
    ///
    /// # Errors
    /// `ENOSYS`, `EBADF`, `ERANGE` when it is longer than `buf`.
    pub(super) fn list_node_xattrs(&self, node: NodeId, buf: &mut [u8]) -> Result<usize> {
        self.with_source(node, |source| {
            if self.settings.xattr_map.is_none() && self.has_acl() {
                return source.list(buf);
            }
            // The host's list may be longer than what the guest may see of it, so it is read in
            // full even if the guest has less room.
            let mut short = [0; SHORT_LIST_LEN];
            let mut long = Vec::new();
            let host_list = match source.list(&mut short) {
                Ok(len) => short.get(..len),
                Err(Errno::ERANGE) => {
                    long.resize(LIST_LEN_MAX, 0);
                    let len = source.list(&mut long)?;
                    long.get(..len)
                }
                Err(errno) => return Err(errno),
            };
            self.guest_list(host_list.unwrap_or_default(), buf)
        })
    }

    /// Removes an attribute.
    ///
    /// # Errors
    /// `ENOSYS`, `EBADF`, `EPERM` and `EOPNOTSUPP` by the rules, `ENODATA`.
    pub(super) fn remove_node_xattr(&self, node: NodeId, name: &CStr) -> Result<()> {
        self.with_target(node, |thread, pinned| {
            let mut room = NameBuffer::new();
            let name = self.host_xattr_name(name, &mut room, Errno::EPERM)?;
            xattr::remove(thread, pinned.as_fd(), name)
        })
    }

    /// Runs a step that reads attributes. They are most often asked for while the file is open: by
    /// execve(2), and by the first write(2).
    fn with_source<T>(
        &self,
        node: NodeId,
        step: impl FnOnce(&Source<'_>) -> Result<T>,
    ) -> Result<T> {
        let inode = self.target(node)?;
        if let Some(handle) = self.handles.any_file_of(node) {
            return step(&Source::Open(handle.file()?));
        }
        if let Some(reader) = self.reader_of(&inode) {
            let done = step(&Source::Open(reader.file.as_fd()));
            self.keep_reader(node, reader);
            return done;
        }
        let thread = FsThread::current(&self.proc_fd)?;
        step(&Source::Pinned(&thread, inode.reach()?))
    }

    fn with_target<T>(
        &self,
        node: NodeId,
        step: impl FnOnce(&FsThread, NodeFd<'_>) -> Result<T>,
    ) -> Result<T> {
        let inode = self.target(node)?;
        let thread = FsThread::current(&self.proc_fd)?;
        step(&thread, inode.reach()?)
    }

    fn target(&self, node: NodeId) -> Result<Arc<Inode>> {
        match self.settings.xattr {
            true => self.store.get(node),
            false => Err(Errno::ENOSYS),
        }
    }

    /// The host's name of an attribute. `denied` is what the guest gets for a name that the rules
    /// forbid.
    ///
    /// # Errors
    /// `denied`; `EOPNOTSUPP` by the rules, and for access control lists without POSIX_ACL;
    /// `ERANGE` for a name that is too long on the host.
    pub(super) fn host_xattr_name<'a>(
        &self,
        guest_name: &'a CStr,
        room: &'a mut NameBuffer,
        denied: Errno,
    ) -> Result<&'a CStr> {
        if self.is_hidden(guest_name.to_bytes()) {
            return Err(Errno::EOPNOTSUPP);
        }
        let Some(map) = &self.settings.xattr_map else {
            return Ok(guest_name);
        };
        match map.to_host(guest_name, room) {
            Verdict::Pass(name) => Ok(name),
            Verdict::Deny => Err(denied),
            Verdict::Unsupported => Err(Errno::EOPNOTSUPP),
            Verdict::TooLong => Err(Errno::ERANGE),
        }
    }

    /// Writes what the guest may see of the host's list to `buf`, if that is not empty, and gives
    /// its length.
    fn guest_list(&self, host_list: &[u8], buf: &mut [u8]) -> Result<usize> {
        let names = host_list.split(|byte| *byte == 0);
        let mut list_len = 0_usize;
        for host_name in names.filter(|name| !name.is_empty()) {
            let guest_name = match &self.settings.xattr_map {
                Some(map) => map.to_guest(host_name),
                None => Some(host_name),
            };
            let Some(name) = guest_name.filter(|name| !self.is_hidden(name)) else {
                continue;
            };
            let end = list_len.saturating_add(name.len());
            if !buf.is_empty() {
                buf.get_mut(list_len..end)
                    .ok_or(Errno::ERANGE)?
                    .copy_from_slice(name);
                *buf.get_mut(end).ok_or(Errno::ERANGE)? = 0;
            }
            list_len = end.saturating_add(1);
        }
        Ok(list_len)
    }

    /// A guest that does not interpret access control lists would change them as if they were
    /// plain values, and lose what they say: without POSIX_ACL there are none for it.
    fn is_hidden(&self, guest_name: &[u8]) -> bool {
        is_acl(guest_name) && !self.has_acl()
    }
}
