//! What: the arguments of GETLK, SETLK, SETLKW, INTERRUPT and IOCTL.
//!
//! In: the private copy of the body. Out: ranges that are not empty and fit `off_t`; data of an
//! ioctl that is really there. Does not: know which ioctls are harmless.

use crate::fs::filesystem::{IoctlRequest, LockRequest};
use crate::fs::late::RequestId;
use crate::fs::types::{LockKind, LockOwner, LockRange, LockType};
use crate::server::body::IOCTL_DATA_LEN_MAX;
use crate::server::decode::{Decoder, size_at_most};
use crate::server::operation::Operation;
use crate::sys::errno::{Errno, Result};
use crate::wire::flags::{IoctlFlags, LockFlags};
use crate::wire::request::{F_RDLCK, F_UNLCK, F_WRLCK, InterruptIn, IoctlIn, LkIn};

impl<'a> Decoder<'a> {
    /// Errors: fcntl(2): `EINVAL` for an unknown type or an empty range.
    pub(super) fn lock(&mut self) -> Result<LockRequest> {
        let lock: LkIn = self.args.take()?;
        let lock_type = match lock.lk.type_ {
            F_RDLCK => LockType::Read,
            F_WRLCK => LockType::Write,
            F_UNLCK => LockType::Unlock,
            _ => return Err(Errno::EINVAL),
        };
        let is_flock = LockFlags::from_bits_truncate(lock.lk_flags).contains(LockFlags::FLOCK);
        let (kind, range) = match is_flock {
            true => (LockKind::Flock, LockRange::WHOLE_FILE),
            false => {
                let end = lock.lk.end.min(LockRange::WHOLE_FILE.end());
                (LockKind::Posix, LockRange::new(lock.lk.start, end)?)
            }
        };
        let open = self.open_node(lock.fh);
        Ok(LockRequest {
            node: open.node,
            handle: open.handle,
            owner: LockOwner::new(lock.owner),
            kind,
            lock_type,
            range,
            pid: lock.lk.pid,
        })
    }

    pub(super) fn interrupt(&mut self) -> Result<Operation<'a>> {
        let interrupt: InterruptIn = self.args.take()?;
        Ok(Operation::Interrupt {
            request: RequestId::new(interrupt.unique),
        })
    }

    /// Errors: `EINVAL` less data than claimed; `ENOTTY` for an argument that is an address:
    /// nobody but the guest can follow it, and Linux sends none.
    pub(super) fn ioctl(&mut self) -> Result<Operation<'a>> {
        let ioctl: IoctlIn = self.args.take()?;
        let flags = IoctlFlags::from_bits_truncate(ioctl.flags);
        if flags.contains(IoctlFlags::UNRESTRICTED) {
            return Err(Errno::ENOTTY);
        }
        let input_len = usize::try_from(ioctl.in_size).map_err(|_| Errno::EINVAL)?;
        let open = self.open_node(ioctl.fh);
        Ok(Operation::Ioctl {
            request: IoctlRequest {
                node: open.node,
                handle: open.handle,
                caller: self.caller(),
                command: ioctl.cmd,
                is_32_bit: flags.contains(IoctlFlags::IOCTL_32BIT),
            },
            input: self.args.take_bytes(input_len)?,
            output_len_max: size_at_most(ioctl.out_size, IOCTL_DATA_LEN_MAX),
        })
    }
}
