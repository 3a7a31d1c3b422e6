//! What: the operations on attributes, plain and extended, from bytes to `Operation`.
//!
//! In, out and invariants are those of `decode`; this is its other half.

use std::ffi::CStr;

use crate::fs::filesystem::{AttrChanges, SetTime, SetXattrRequest};
use crate::fs::types::{HandleId, Timestamp};
use crate::ids::types::{GuestGid, GuestUid};
use crate::server::body::{XATTR_NAME_LEN_MAX, XATTR_SIZE_MAX};
use crate::server::decode::{Decoder, file_offset, size_at_most};
use crate::server::operation::Operation;
use crate::sys::errno::{Errno, Result};
use crate::wire::flags::{AccessMask, GetattrFlags, SessionFlags, SetAttrValid, SetxattrFlags};
use crate::wire::request::{
    AccessIn, GetattrIn, GetxattrIn, SetattrIn, SetxattrIn, SetxattrInCompat, StatxIn,
};

impl<'a> Decoder<'a> {
    pub(super) fn getattr(&mut self) -> Result<Operation<'a>> {
        let getattr: GetattrIn = self.args.take()?;
        Ok(Operation::Getattr {
            node: self.node(),
            handle: handle_if_flagged(getattr.getattr_flags, getattr.fh),
        })
    }

    pub(super) fn statx(&mut self) -> Result<Operation<'a>> {
        let statx: StatxIn = self.args.take()?;
        Ok(Operation::Statx {
            node: self.node(),
            handle: handle_if_flagged(statx.getattr_flags, statx.fh),
            mask: statx.sx_mask,
        })
    }

    /// Errors: `EINVAL` for the ids that are none, nanoseconds of a second or more, and sizes
    /// beyond a signed offset.
    pub(super) fn setattr(&mut self) -> Result<Operation<'a>> {
        let setattr: SetattrIn = self.args.take()?;
        // Bits that are not known mean changes that were not negotiated.
        let valid = SetAttrValid::from_bits_truncate(setattr.valid);
        let uid = match valid.contains(SetAttrValid::UID) {
            true => Some(GuestUid::new(setattr.uid).ok_or(Errno::EINVAL)?),
            false => None,
        };
        let gid = match valid.contains(SetAttrValid::GID) {
            true => Some(GuestGid::new(setattr.gid).ok_or(Errno::EINVAL)?),
            false => None,
        };
        let size_bytes = match valid.contains(SetAttrValid::SIZE) {
            true => Some(file_offset(setattr.size)?),
            false => None,
        };
        let atime = set_time(
            valid.contains(SetAttrValid::ATIME_NOW),
            valid.contains(SetAttrValid::ATIME),
            (setattr.atime, setattr.atimensec),
        )?;
        let mtime = set_time(
            valid.contains(SetAttrValid::MTIME_NOW),
            valid.contains(SetAttrValid::MTIME),
            (setattr.mtime, setattr.mtimensec),
        )?;
        let mode = valid.contains(SetAttrValid::MODE);
        Ok(Operation::Setattr {
            node: self.node(),
            handle: valid
                .contains(SetAttrValid::FH)
                .then(|| HandleId::new(setattr.fh)),
            changes: AttrChanges {
                mode: mode.then_some(setattr.mode & 0o7777),
                uid,
                gid,
                size_bytes,
                atime,
                mtime,
                kill_suid_sgid: valid.contains(SetAttrValid::KILL_SUIDGID),
            },
        })
    }

    /// Errors: setxattr(2): `E2BIG` value too long, `ERANGE` name empty or too long.
    pub(super) fn setxattr(&mut self) -> Result<Operation<'a>> {
        let extended = self.session.flags.contains(SessionFlags::SETXATTR_EXT);
        let (size, flags, setxattr_flags) = if extended {
            let setxattr: SetxattrIn = self.args.take()?;
            (setxattr.size, setxattr.flags, setxattr.setxattr_flags)
        } else {
            let setxattr: SetxattrInCompat = self.args.take()?;
            (setxattr.size, setxattr.flags, 0)
        };
        let name = self.xattr_name()?;
        let size = usize::try_from(size).map_err(|_| Errno::E2BIG)?;
        if size > XATTR_SIZE_MAX {
            return Err(Errno::E2BIG);
        }
        let value = self.args.take_bytes(size)?;
        self.args.finish()?;
        let setxattr_flags = SetxattrFlags::from_bits_truncate(setxattr_flags);
        Ok(Operation::Setxattr(SetXattrRequest {
            node: self.node(),
            name,
            value,
            flags,
            kill_sgid: setxattr_flags.contains(SetxattrFlags::ACL_KILL_SGID),
        }))
    }

    fn xattr_name(&mut self) -> Result<&'a CStr> {
        let name = self.args.take_c_str()?;
        if name.is_empty() || name.count_bytes() > XATTR_NAME_LEN_MAX {
            return Err(Errno::ERANGE);
        }
        Ok(name)
    }

    pub(super) fn getxattr(&mut self) -> Result<Operation<'a>> {
        let getxattr: GetxattrIn = self.args.take()?;
        let name = self.xattr_name()?;
        self.args.finish()?;
        Ok(Operation::Getxattr {
            node: self.node(),
            name,
            size_bytes: size_at_most(getxattr.size, XATTR_SIZE_MAX),
        })
    }

    pub(super) fn listxattr(&mut self) -> Result<Operation<'a>> {
        let listxattr: GetxattrIn = self.args.take()?;
        Ok(Operation::Listxattr {
            node: self.node(),
            size_bytes: size_at_most(listxattr.size, XATTR_SIZE_MAX),
        })
    }

    pub(super) fn removexattr(&mut self) -> Result<Operation<'a>> {
        let name = self.xattr_name()?;
        self.args.finish()?;
        Ok(Operation::Removexattr {
            node: self.node(),
            name,
        })
    }

    /// Errors: access(2): `EINVAL` unknown bits in the mask.
    pub(super) fn access(&mut self) -> Result<Operation<'a>> {
        let access: AccessIn = self.args.take()?;
        let mask = AccessMask::from_bits(access.mask).ok_or(Errno::EINVAL)?;
        Ok(Operation::Access {
            caller: self.caller(),
            node: self.node(),
            mask: mask.bits(),
        })
    }
}

fn handle_if_flagged(getattr_flags: u32, fh: u64) -> Option<HandleId> {
    let flags = GetattrFlags::from_bits_truncate(getattr_flags);
    flags.contains(GetattrFlags::FH).then(|| HandleId::new(fh))
}

/// What a pair of "set it" and "set it to now" bits asks for. Errors: `EINVAL` nanoseconds.
fn set_time(now: bool, given: bool, time: (i64, u32)) -> Result<Option<SetTime>> {
    let (secs, nanos) = time;
    if now {
        return Ok(Some(SetTime::Now));
    }
    if !given {
        return Ok(None);
    }
    if nanos >= 1_000_000_000 {
        return Err(Errno::EINVAL);
    }
    Ok(Some(SetTime::To(Timestamp { secs, nanos })))
}
