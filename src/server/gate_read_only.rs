//! What: the gate of a share that the guest may only read (`--readonly`).
//!
//! In: an [`Operation`]. Out: the same operation, or one that cannot change anything, or `EROFS`,
//! as Linux answers on a file system that is mounted read-only:
//!
//! | request | answer |
//! |---|---|
//! | anything that changes names, attributes or contents | `EROFS`, also where nothing would change |
//! | OPEN for writing, or with `O_TRUNC` | `EROFS` |
//! | CREATE for reading of a name that is there | it is opened |
//! | CREATE with `O_EXCL` of a name that is there | `EEXIST` |
//! | CREATE for writing, with `O_TRUNC`, or of a name that is missing | `EROFS` |
//! | ACCESS for writing | `EROFS` |
//! | IOCTL that is known to change something, or not known | `EROFS`, `ENOTTY` |
//! | locks, syncing, and all that reads | as ever |
//!
//! Invariant: the match is exhaustive, so that a new operation does not compile until somebody
//! has decided about it. Access times still move, as the host has its file systems mounted. Does
//! not: say whether a name is there. CREATE is passed on with the intent to open only, so that
//! look-up and open stay one operation; `dispatch` turns its `ENOENT` into `EROFS`.

use crate::fs::filesystem::{CreateIntent, CreateRequest};
use crate::server::gate::Gate;
use crate::server::operation::Operation;
use crate::sys::errno::{Errno, Result};
use crate::wire::flags::{AccessMask, OpenFlags};

/// Lets nothing pass that changes the share.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOnlyGate;

/// With one of these an open changes the file, or lets the guest do so.
///
/// Access mode 3 counts as writing, as open(2) has it. `O_TRUNC` is `EROFS` with any access mode,
/// as on Linux; the existing daemon says `EINVAL`.
const CHANGING: OpenFlags = OpenFlags::WRONLY
    .union(OpenFlags::RDWR)
    .union(OpenFlags::TRUNC);

/// Commands that only ask, as x86, Arm, RISC-V and s390 number them, for tasks of 64 and 32 bits.
const ASKING_IOCTLS: [u32; 7] = [
    0x8008_6601, // FS_IOC_GETFLAGS
    0x8004_6601,
    0x8008_7601, // FS_IOC_GETVERSION
    0x8004_7601,
    0x801c_581f, // FS_IOC_FSGETXATTR
    0xc004_6686, // FS_IOC_MEASURE_VERITY
    0xc028_6687, // FS_IOC_READ_VERITY_METADATA
];

/// Commands that change something. Any other is `ENOTTY`, so that a program that asks whether a
/// file is a terminal does not learn of a read-only file system instead.
const CHANGING_IOCTLS: [u32; 6] = [
    0x4008_6602, // FS_IOC_SETFLAGS
    0x4004_6602,
    0x4008_7602, // FS_IOC_SETVERSION
    0x4004_7602,
    0x401c_5820, // FS_IOC_FSSETXATTR
    0x4080_6685, // FS_IOC_ENABLE_VERITY
];

impl Gate for ReadOnlyGate {
    fn admit<'a>(&self, operation: Operation<'a>) -> Result<Operation<'a>> {
        use Operation as Op;

        match operation {
            Op::Setattr { .. }
            | Op::Symlink { .. }
            | Op::Mknod { .. }
            | Op::Mkdir { .. }
            | Op::Unlink { .. }
            | Op::Rmdir { .. }
            | Op::Rename(_)
            | Op::Rename2(_)
            | Op::Link { .. }
            | Op::Tmpfile(_)
            | Op::Write(..)
            | Op::Fallocate(_)
            | Op::CopyFileRange(_)
            | Op::CopyFileRange64(_)
            | Op::Setxattr(_)
            | Op::Removexattr { .. } => Err(Errno::EROFS),
            Op::Open { node, flags, .. } => {
                refuse_changing(flags)?;
                Ok(Op::Open {
                    node,
                    flags,
                    // It goes with `O_TRUNC`; whoever sends it without must not get it either.
                    kill_suid_sgid: false,
                })
            }
            Op::Opendir { flags, .. } => refuse_changing(flags).map(|()| operation),
            Op::Create(request) => only_open(request).map(Op::Create),
            Op::Access { mask, .. } => {
                match AccessMask::from_bits_retain(mask).contains(AccessMask::WRITE) {
                    true => Err(Errno::EROFS),
                    false => Ok(operation),
                }
            }
            Op::Ioctl { request, .. } => admit_ioctl(request.command).map(|()| operation),
            // They ask.
            Op::Lookup { .. }
            | Op::LookupSelf { .. }
            | Op::LookupParent { .. }
            | Op::Getattr { .. }
            | Op::Statx { .. }
            | Op::Readlink { .. }
            | Op::Read(_)
            | Op::Lseek { .. }
            | Op::Readdir(..)
            | Op::Readdirplus(..)
            | Op::Getxattr { .. }
            | Op::Listxattr { .. }
            | Op::Statfs { .. }
            // They give back what the guest holds.
            | Op::Forget { .. }
            | Op::BatchForget { .. }
            | Op::Flush(_)
            | Op::Release(_)
            | Op::Releasedir(_)
            // They make durable what somebody else has changed.
            | Op::Fsync(..)
            | Op::Fsyncdir(..)
            | Op::Syncfs { .. }
            // Readers lock, too.
            | Op::Getlk(_)
            | Op::Setlk(_)
            | Op::Setlkw(_)
            | Op::Interrupt { .. }
            | Op::Unsupported(_) => Ok(operation),
        }
    }
}

/// Errors: `EROFS`.
fn refuse_changing(flags: OpenFlags) -> Result<()> {
    match flags.intersects(CHANGING) {
        true => Err(Errno::EROFS),
        false => Ok(()),
    }
}

/// CREATE without the right to make anything. With `O_EXCL` nothing will be opened either, so
/// then it is of no weight what for: only whether the name is there.
///
/// Errors: `EROFS`.
fn only_open(request: CreateRequest<'_>) -> Result<CreateRequest<'_>> {
    if !request.flags.contains(OpenFlags::EXCL) {
        refuse_changing(request.flags)?;
    }
    Ok(CreateRequest {
        flags: request.flags.difference(CHANGING),
        intent: CreateIntent::OpenExisting,
        kill_suid_sgid: false,
        ..request
    })
}

/// Errors: `EROFS`, `ENOTTY`.
fn admit_ioctl(command: u32) -> Result<()> {
    if ASKING_IOCTLS.contains(&command) {
        Ok(())
    } else if CHANGING_IOCTLS.contains(&command) {
        Err(Errno::EROFS)
    } else {
        Err(Errno::ENOTTY)
    }
}

#[cfg(test)]
mod tests;
