//! What: attributes: getattr, statx, setattr, access, statfs.
//!
//! In: a node, and the handle when the guest has it open. Out: values with guest ids. Invariant:
//! every id that leaves here went through the translator. Does not: undo what was changed before
//! an error; neither does any local file system.

use std::os::fd::AsFd;
use std::time::Duration;

use super::PassthroughFs;
use super::store::guest_ino::Whereabouts;
use super::store::unopened_files::Purpose;
use crate::fs::filesystem::{AttrChanges, OpenNode, SetTime};
use crate::fs::types::{
    Attr, AttrReply, Caller, ExtendedAttr, FsTotals, HandleId, NodeId, Timestamp,
};
use crate::ids::types::{GuestGid, GuestUid, HostGid, HostUid};
use crate::sys::data;
use crate::sys::errno::{Errno, Result};
use crate::sys::meta::{self, DeviceNumber, FileStat, FileType, HostTime, TimeChange};
use crate::sys::thread::FsThread;

/// Who owns what has no owner that could be named (`/proc/sys/kernel/overflowuid`).
const OVERFLOW_ID: u32 = 65534;
/// `X_OK`, `R_OK | W_OK | X_OK` of access(2).
const EXECUTE: u32 = 1;
const READ_WRITE_EXECUTE: u32 = 7;

impl PassthroughFs {
    /// Attributes of a node.
    ///
    /// # Errors
    /// `EBADF`.
    #[inline(always)]
    pub(super) fn node_attr(
        &self,
        node: NodeId,
        handle: Option<HandleId>,
    ) -> Result<AttrReply<Attr>> {
        let (stat, whereabouts) = self.stat_node(node, handle)?;
        Ok(AttrReply {
            attr: self.attr_of(&stat, whereabouts),
            valid: self.attr_valid(),
        })
    }

    /// Attributes of a node with those that only statx(2) tells. They are all there at no extra
    /// cost, whichever of them the guest asked for.
    ///
    /// # Errors
    /// `EBADF`.
    pub(super) fn node_extended_attr(
        &self,
        node: NodeId,
        handle: Option<HandleId>,
    ) -> Result<AttrReply<ExtendedAttr>> {
        let (stat, whereabouts) = self.stat_node(node, handle)?;
        Ok(AttrReply {
            attr: ExtendedAttr {
                attr: self.attr_of(&stat, whereabouts),
                btime: stat.btime.map(timestamp),
                attributes: stat.attributes,
                attributes_mask: stat.attributes_mask,
                mask: stat.mask & meta::STATX_ATTRIBUTES,
                dev: (stat.dev.major, stat.dev.minor),
            },
            valid: self.attr_valid(),
        })
    }

    // Always, as in `sys::meta`.
    #[inline(always)]
    fn stat_node(&self, node: NodeId, handle: Option<HandleId>) -> Result<(FileStat, Whereabouts)> {
        let inode = self.store.get(node)?;
        let stat = match handle.filter(|handle| !self.is_unopened(*handle)) {
            Some(handle) => {
                let open = self.handles.get(OpenNode { node, handle })?;
                meta::stat_fd(open.any())?
            }
            None => meta::stat_fd(inode.reach()?.as_fd())?,
        };
        Ok((stat, inode.whereabouts))
    }

    /// Changes attributes in the order mode, owner, size, times, so that the new owner does not
    /// get set-id bits that chown(2) clears, and the times stay as they were asked for.
    ///
    /// A change of owner clears set-id bits on the host by itself, for whomever it is made.
    ///
    /// # Errors
    /// `EBADF`, `EPERM` for ids that the policy forbids, `EISDIR` and `EINVAL` for the size of
    /// what is no regular file, and what the host says.
    pub(super) fn change_attr(
        &self,
        node: NodeId,
        handle: Option<HandleId>,
        changes: &AttrChanges,
    ) -> Result<AttrReply<Attr>> {
        let inode = self.store.get(node)?;
        // Only a change of size needs an open file.
        let needs_file =
            |handle: &HandleId| !self.is_unopened(*handle) || changes.size_bytes.is_some();
        let handle = match handle.filter(needs_file) {
            Some(handle) => Some(self.opened(OpenNode { node, handle }, Purpose::Change)?),
            None => None,
        };
        // Before anything is changed: a guest that names a forbidden id gets nothing done.
        let (uid, gid) = (self.host_uid(changes.uid)?, self.host_gid(changes.gid)?);
        let pinned = inode.reach()?;
        if let Some(mode) = changes.mode {
            meta::set_mode(&self.proc_fd, pinned.as_fd(), mode)?;
        }
        if uid.is_some() || gid.is_some() {
            if inode.file_type == FileType::Regular {
                self.drop_renamed_capabilities(pinned.as_fd())?;
            }
            meta::set_owner(pinned.as_fd(), uid, gid)?;
        }
        if let Some(size) = changes.size_bytes {
            let open = handle.as_ref().map(|open| open.file()).transpose()?;
            let change = || match open {
                Some(file) => data::truncate_open(file, size),
                None => {
                    let thread = FsThread::current(&self.proc_fd)?;
                    data::truncate_pinned(&thread, pinned.as_fd(), size)
                }
            };
            if inode.file_type == FileType::Regular {
                let set_ids = self.set_ids_by_flag(changes.kill_suid_sgid);
                self.changing(pinned.as_fd(), set_ids, change)?;
            } else {
                // The host says what is wrong with that.
                change()?;
            }
        }
        if changes.atime.is_some() || changes.mtime.is_some() {
            let (atime, mtime) = (time_change(changes.atime), time_change(changes.mtime));
            meta::set_times(&self.proc_fd, pinned.as_fd(), atime, mtime)?;
        }
        let stat = meta::stat_fd(pinned.as_fd())?;
        Ok(AttrReply {
            attr: self.attr_of(&stat, inode.whereabouts),
            valid: self.attr_valid(),
        })
    }

    fn host_uid(&self, uid: Option<GuestUid>) -> Result<Option<u32>> {
        let Some(uid) = uid else { return Ok(None) };
        let uid = self.translator.host_uid(uid).ok_or(Errno::EPERM)?;
        Ok(Some(uid.raw()))
    }

    fn host_gid(&self, gid: Option<GuestGid>) -> Result<Option<u32>> {
        let Some(gid) = gid else { return Ok(None) };
        let gid = self.translator.host_gid(gid).ok_or(Errno::EPERM)?;
        Ok(Some(gid.raw()))
    }

    /// Whether `caller` may do `mask`, by the mode bits that the guest sees. Linux guests never
    /// ask: they check by themselves (`default_permissions`).
    ///
    /// # Errors
    /// `EACCES`; `EINVAL` for bits that access(2) does not know; `EBADF`.
    pub(super) fn check_access(&self, caller: &Caller, node: NodeId, mask: u32) -> Result<()> {
        if mask & !READ_WRITE_EXECUTE != 0 {
            return Err(Errno::EINVAL);
        }
        let attr = self.node_attr(node, None)?.attr;
        if may_access(caller, &attr, mask) {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }

    /// Totals of the file system that holds a node.
    ///
    /// # Errors
    /// `EBADF`.
    pub(super) fn fs_totals(&self, node: NodeId) -> Result<FsTotals> {
        let inode = self.store.get(node)?;
        let host = meta::stat_fs(inode.reach()?.as_fd())?;
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Ok(FsTotals {
            blocks: host.blocks,
            blocks_free: host.blocks_free,
            blocks_available: host.blocks_available,
            files: host.files,
            files_free: host.files_free,
            block_size_bytes: narrow(host.block_size_bytes),
            name_len_max: narrow(host.name_len_max),
            fragment_size_bytes: narrow(host.fragment_size_bytes),
        })
    }

    fn attr_valid(&self) -> Duration {
        self.settings.attr_valid
    }

    /// Attributes as the guest shall see them.
    #[inline(always)]
    pub(super) fn attr_of(&self, stat: &FileStat, whereabouts: Whereabouts) -> Attr {
        let submounts = self.submounts();
        Attr {
            ino: whereabouts.guest_ino(stat.ino, submounts),
            size: stat.size,
            blocks: stat.blocks,
            atime: timestamp(stat.atime),
            mtime: timestamp(stat.mtime),
            ctime: timestamp(stat.ctime),
            mode: stat.mode,
            nlink: stat.nlink,
            uid: self.guest_uid(stat.uid),
            gid: self.guest_gid(stat.gid),
            rdev: encode_device(stat.rdev),
            blksize: stat.blksize,
            is_submount: whereabouts.is_announced(submounts),
        }
    }

    fn guest_uid(&self, raw: u32) -> GuestUid {
        // A file whose owner has no id at all must not look like root's.
        HostUid::new(raw)
            .or(HostUid::new(OVERFLOW_ID))
            .map_or(GuestUid::ROOT, |uid| self.translator.guest_uid(uid))
    }

    fn guest_gid(&self, raw: u32) -> GuestGid {
        HostGid::new(raw)
            .or(HostGid::new(OVERFLOW_ID))
            .map_or(GuestGid::ROOT, |gid| self.translator.guest_gid(gid))
    }
}

/// access(2) by mode bits.
fn may_access(caller: &Caller, attr: &Attr, mask: u32) -> bool {
    if caller.uid == Some(GuestUid::ROOT) {
        // Root may do everything, but runs only what somebody may run.
        let runnable =
            attr.mode & 0o111 != 0 || FileType::of_mode(attr.mode) == FileType::Directory;
        return mask & EXECUTE == 0 || runnable;
    }
    let is_member = caller.gid == Some(attr.gid) || caller.supplementary_gid == Some(attr.gid);
    let granted = if caller.uid == Some(attr.uid) {
        attr.mode >> 6
    } else if is_member {
        attr.mode >> 3
    } else {
        attr.mode
    };
    granted & mask == mask
}

fn timestamp(time: HostTime) -> Timestamp {
    Timestamp {
        secs: time.secs,
        nanos: time.nanos,
    }
}

fn time_change(time: Option<SetTime>) -> TimeChange {
    match time {
        None => TimeChange::Keep,
        Some(SetTime::Now) => TimeChange::Now,
        Some(SetTime::To(time)) => TimeChange::To(HostTime {
            secs: time.secs,
            nanos: time.nanos,
        }),
    }
}

/// A device number in 32 bits, as the protocol has it (`new_encode_dev` of Linux): 12 bits of
/// major, 20 of minor, the low byte of the minor lowest.
pub(super) fn encode_device(device: DeviceNumber) -> u32 {
    (device.minor & 0xff) | ((device.major & 0xfff) << 8) | ((device.minor & 0xf_ff00) << 12)
}

/// The inverse of [`encode_device`].
pub(super) fn decode_device(encoded: u32) -> DeviceNumber {
    DeviceNumber {
        major: (encoded >> 8) & 0xfff,
        minor: (encoded & 0xff) | ((encoded >> 12) & 0xf_ff00),
    }
}
