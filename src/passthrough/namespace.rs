//! What: names: mkdir, mknod, symlink, link, unlink, rmdir, rename, readlink.
//!
//! In: directories and names that are one component. Out: entries. Invariants: what is made is
//! made as the caller, with its umask where the guest leaves that to the host; what is removed or
//! moved is so as the daemon, since the guest's kernel has checked that (`default_permissions`).

use std::ffi::CStr;
use std::os::fd::AsFd;

use super::PassthroughFs;
use super::attr::decode_device;
use super::secctx::remove_unpinned;
use crate::fs::filesystem::{NewObject, RenameRequest};
use crate::fs::types::{Entry, FileName, NodeId};
use crate::sys::errno::{Errno, Result};
use crate::sys::meta::{self, FileType};
use crate::sys::path_ops::{self, PlaceAt, RenameFlags};

/// The type bits and the permission bits of a mode.
const TYPE_BITS: u32 = 0o170_000;
const REGULAR_BITS: u32 = 0o100_000;
const PERMISSION_BITS: u32 = 0o7777;

impl PassthroughFs {
    /// Makes a directory.
    ///
    /// # Errors
    /// As `make`.
    pub(super) fn make_directory(&self, new: &NewObject<'_>, mode: u32) -> Result<Entry<'_>> {
        self.make(new, FileType::Directory, |at| {
            path_ops::make_directory(at, mode & PERMISSION_BITS)
        })
    }

    /// Makes a file, FIFO, socket or device node. None of the latter is ever opened here.
    ///
    /// # Errors
    /// As `make`; `EPERM` for device nodes without `CAP_MKNOD`; `EINVAL` for other types.
    pub(super) fn make_node(&self, new: &NewObject<'_>, mode: u32, rdev: u32) -> Result<Entry<'_>> {
        // mknod(2) takes no type for a regular file.
        let type_bits = match mode & TYPE_BITS {
            0 => REGULAR_BITS,
            bits => bits,
        };
        let file_type = FileType::of_mode(type_bits);
        match file_type {
            FileType::Regular
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharDevice
            | FileType::BlockDevice => {}
            FileType::Directory => return Err(Errno::EPERM),
            FileType::Symlink | FileType::Unknown => return Err(Errno::EINVAL),
        }
        let device = decode_device(rdev);
        self.make(new, file_type, |at| {
            path_ops::make_node(at, type_bits | mode & PERMISSION_BITS, device)
        })
    }

    /// Makes a symbolic link. Its target is text for the guest; the host never follows it.
    ///
    /// # Errors
    /// As `make`.
    pub(super) fn make_symlink(&self, new: &NewObject<'_>, target: &CStr) -> Result<Entry<'_>> {
        self.make(new, FileType::Symlink, |at| {
            path_ops::make_symlink(at, target)
        })
    }

    /// Runs `step` as the caller, looks the new name up and labels what it finds. Linux gives no
    /// descriptor for what these calls make, so the name may lead to something else by then; that
    /// something is refused if it is not of the type that was made.
    ///
    /// # Errors
    /// `EOVERFLOW` for a caller without ids, `EPERM` for one that the policy forbids, `EBADF`,
    /// `ESTALE` when the name led elsewhere at once; what the host says.
    fn make(
        &self,
        new: &NewObject<'_>,
        file_type: FileType,
        step: impl FnOnce(PlaceAt<'_>) -> Result<()>,
    ) -> Result<Entry<'_>> {
        let caller = self.host_caller(&new.caller)?;
        let contexts = &new.security_contexts;
        self.check_labels(contexts)?;
        let parent = self.store.get(new.parent)?;
        let directory = parent.reach()?;
        self.relieved(|| self.store.check_room_for_new(&parent))?;
        let at = PlaceAt {
            directory: directory.as_fd(),
            name: new.name.as_c_str(),
        };
        self.make_as(&caller, new.umask, || step(at))?;
        // Without its labels it must not stay.
        let undo = || {
            if !contexts.is_empty() {
                remove_unpinned(at, file_type);
            }
        };
        let entry = self.pin_in(&parent, new.name).inspect_err(|_| undo())?;
        if FileType::of_mode(entry.attr.mode) != file_type {
            return Err(Errno::ESTALE);
        }
        if !contexts.is_empty() {
            let inode = self.inode_of(&entry)?;
            let made = inode.reach().inspect_err(|_| undo())?;
            self.label_or_remove(at, made.as_fd(), contexts)?;
        }
        Ok(entry)
    }

    /// Gives a node another name. The entry is that of the node: it need not be looked up.
    ///
    /// # Errors
    /// `EBADF`, `ENOENT` when the node has no name left, and what link(2) says.
    pub(super) fn make_link(
        &self,
        node: NodeId,
        new_parent: NodeId,
        new_name: FileName<'_>,
    ) -> Result<Entry<'_>> {
        let inode = self.store.get(node)?;
        let parent = self.store.get(new_parent)?;
        let pinned = inode.reach()?;
        let directory = parent.reach()?;
        let at = PlaceAt {
            directory: directory.as_fd(),
            name: new_name.as_c_str(),
        };
        path_ops::make_link(&self.proc_fd, pinned.as_fd(), at)?;
        self.entry_of_known(&inode)
    }

    /// Removes a name of anything but a directory.
    ///
    /// # Errors
    /// `EBADF`, and what unlink(2) says.
    pub(super) fn remove_file(&self, parent: NodeId, name: FileName<'_>) -> Result<()> {
        let parent = self.store.get(parent)?;
        path_ops::remove_file(PlaceAt {
            directory: parent.reach()?.as_fd(),
            name: name.as_c_str(),
        })
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `EBADF`, and what rmdir(2) says.
    pub(super) fn remove_directory(&self, parent: NodeId, name: FileName<'_>) -> Result<()> {
        let parent = self.store.get(parent)?;
        path_ops::remove_directory(PlaceAt {
            directory: parent.reach()?.as_fd(),
            name: name.as_c_str(),
        })
    }

    /// Renames.
    ///
    /// # Errors
    /// `EINVAL` for flags other than NOREPLACE, EXCHANGE and WHITEOUT, `EBADF`, and what
    /// rename(2) says.
    pub(super) fn rename_entry(&self, request: &RenameRequest<'_>) -> Result<()> {
        let flags = RenameFlags::from_bits(request.flags).ok_or(Errno::EINVAL)?;
        let parent = self.store.get(request.parent)?;
        let new_parent = self.store.get(request.new_parent)?;
        let (from, to) = (parent.reach()?, new_parent.reach()?);
        let from = PlaceAt {
            directory: from.as_fd(),
            name: request.name.as_c_str(),
        };
        let to = PlaceAt {
            directory: to.as_fd(),
            name: request.new_name.as_c_str(),
        };
        path_ops::rename(from, to, flags)
    }

    /// Reads the target of a symbolic link.
    ///
    /// # Errors
    /// `EBADF`, `EINVAL` for anything else, `ENAMETOOLONG` when `buf` is too short.
    pub(super) fn read_symlink(&self, node: NodeId, buf: &mut [u8]) -> Result<usize> {
        let inode = self.store.get(node)?;
        if inode.file_type != FileType::Symlink {
            return Err(Errno::EINVAL);
        }
        if buf.is_empty() {
            return Err(Errno::ENAMETOOLONG);
        }
        let pinned = inode.reach()?;
        let len = path_ops::read_symlink(pinned.as_fd(), buf)?;
        // readlink(2) cuts without notice, so a full buffer proves nothing.
        if len == buf.len() {
            let target_len = meta::stat_fd(pinned.as_fd())?.size;
            if usize::try_from(target_len).unwrap_or(usize::MAX) > len {
                return Err(Errno::ENAMETOOLONG);
            }
        }
        Ok(len)
    }
}
