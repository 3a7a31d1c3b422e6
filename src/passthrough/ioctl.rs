//! What: ioctls on files and directories that the guest has open: inode flags (lsattr, chattr),
//! project ids, fs-verity.
//!
//! In: a command and its argument as bytes. Out: the answer as bytes. Invariants: nothing but
//! the commands of [`InodeCommand`] reaches the host; no address of the guest's is followed; the
//! immutable and append-only flags and project ids change only if the settings say so.
//!
//! Linux sends the first four from its own code for file attributes, where it has checked that
//! the caller owns the file; here the same is checked again if the guest says who asks. With
//! idmapped mounts (Linux 6.12) it does not: ids come with requests that make something only.
//!
//! fs-verity makes a file read-only for ever. The host's kernel asks its caller for the right to
//! write, which the daemon always has, and the guest's kernel asks nothing. So somebody who says
//! who he is must be allowed to write the file, and for others the operator must have trusted
//! the guest with the immutable flag, which is as much.

use std::os::fd::BorrowedFd;

use super::PassthroughFs;
use super::privilege::AsOrdinaryOwner;
use super::store::unopened_files::Purpose;
use crate::fs::filesystem::{IoctlRequest, OpenNode};
use crate::ids::types::GuestUid;
use crate::sys::errno::{Errno, Result};
use crate::sys::ioctl::{
    self, DIGEST_LEN_MAX, ENABLE_VERITY_ARG_LEN, EXTENDED_FLAGS_LEN, ExtendedFlags,
    ExtendedInodeFlags, InodeCommand, InodeFlags, SALT_LEN_MAX, SIGNATURE_LEN_MAX,
    VerityParameters,
};
use crate::sys::thread::FsThread;

/// `W_OK` of access(2).
const WRITE: u32 = 2;
/// The only version of `struct fsverity_enable_arg`.
const VERITY_VERSION: u32 = 1;

impl PassthroughFs {
    /// Runs a command; returns how much of `output` is the answer.
    ///
    /// # Errors
    /// `ENOTTY` for a command that is not served; `EBADF`; `EINVAL` for an argument that is not
    /// its, or room that is too short; `EPERM` and `EACCES` for who may not; and what ioctl(2)
    /// says on the host.
    pub(super) fn run_ioctl(
        &self,
        request: &IoctlRequest,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<usize> {
        let command = InodeCommand::from_number(request.command).ok_or(Errno::ENOTTY)?;
        let open = OpenNode {
            node: request.node,
            handle: request.handle,
        };
        let handle = self.opened(open, Purpose::Look)?;
        let file = handle.any();
        match command {
            InodeCommand::GetFlags => {
                let flags = ioctl::inode_flags(file)?;
                put(output, &flags.bits().to_ne_bytes())
            }
            InodeCommand::SetFlags => self.set_flags(request, file, input),
            InodeCommand::GetExtended => put(output, &ioctl::extended_flags(file)?.to_bytes()),
            InodeCommand::SetExtended => self.set_extended(request, file, input),
            InodeCommand::EnableVerity => self.enable_verity(request, file, input),
            InodeCommand::MeasureVerity => measure_verity(file, input, output),
        }
    }

    fn set_flags(
        &self,
        request: &IoctlRequest,
        file: BorrowedFd<'_>,
        input: &[u8],
    ) -> Result<usize> {
        let flags = InodeFlags::from_bits_retain(word_at(input, 0)?);
        let changed = ioctl::inode_flags(file)?.symmetric_difference(flags);
        let special = Special {
            seals: changed.intersects(InodeFlags::IMMUTABLE | InodeFlags::APPEND),
            projects: changed.contains(InodeFlags::PROJECT_INHERIT),
        };
        self.check_rights(request, special)?;
        self.as_owner(|| ioctl::set_inode_flags(file, flags))?;
        Ok(0)
    }

    fn set_extended(
        &self,
        request: &IoctlRequest,
        file: BorrowedFd<'_>,
        input: &[u8],
    ) -> Result<usize> {
        let bytes = input.first_chunk::<EXTENDED_FLAGS_LEN>();
        let wanted = ExtendedFlags::from_bytes(bytes.ok_or(Errno::EINVAL)?);
        let old = ioctl::extended_flags(file)?;
        let changed = old.flags().symmetric_difference(wanted.flags());
        let seals = ExtendedInodeFlags::IMMUTABLE | ExtendedInodeFlags::APPEND;
        let special = Special {
            seals: changed.intersects(seals),
            projects: changed.contains(ExtendedInodeFlags::PROJECT_INHERIT)
                || old.project_id != wanted.project_id,
        };
        self.check_rights(request, special)?;
        self.as_owner(|| ioctl::set_extended_flags(file, &wanted))?;
        Ok(0)
    }

    /// Whether the caller may change the inode, and in this way.
    fn check_rights(&self, request: &IoctlRequest, special: Special) -> Result<()> {
        let rights = self.settings.ioctl_rights;
        if special.seals && !rights.immutable || special.projects && !rights.project_id {
            return Err(Errno::EPERM);
        }
        match request.caller.uid {
            None | Some(GuestUid::ROOT) => Ok(()),
            Some(uid) => {
                let attr = self.node_attr(request.node, None)?.attr;
                if attr.uid == uid {
                    Ok(())
                } else {
                    Err(Errno::EPERM)
                }
            }
        }
    }

    /// Runs `step` with no more rights to change an inode than its owner has, unless the settings
    /// give more. The host's kernel then holds what `check_rights` has found out, even if
    /// somebody changes the flags in between.
    fn as_owner<T>(&self, step: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.settings.ioctl_rights.immutable {
            return step();
        }
        let thread = FsThread::current(&self.proc_fd)?;
        let _acting = AsOrdinaryOwner::on(&thread)?;
        step()
    }

    /// Linux before 6.10 sends the structure alone, and then salt and signature cannot be had;
    /// later ones send both behind it.
    fn enable_verity(
        &self,
        request: &IoctlRequest,
        file: BorrowedFd<'_>,
        input: &[u8],
    ) -> Result<usize> {
        match request.caller.uid {
            Some(_) => self.check_access(&request.caller, request.node, WRITE)?,
            None if self.settings.ioctl_rights.immutable => {}
            None => return Err(Errno::EPERM),
        }
        ioctl::enable_verity(file, &verity_parameters(input)?)?;
        Ok(0)
    }
}

/// Which changes of an inode need more than its ownership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Special {
    /// The immutable or the append-only flag.
    seals: bool,
    /// The project id, or whether it is inherited.
    projects: bool,
}

/// `struct fsverity_enable_arg`, with salt and signature behind it and not at the addresses that
/// it names.
fn verity_parameters(input: &[u8]) -> Result<VerityParameters<'_>> {
    let (fixed, behind) = input
        .split_at_checked(ENABLE_VERITY_ARG_LEN)
        .ok_or(Errno::EINVAL)?;
    let reserved = fixed.get(40..).unwrap_or_default();
    if word_at(fixed, 0)? != VERITY_VERSION
        || word_at(fixed, 28)? != 0
        || reserved.iter().any(|byte| *byte != 0)
    {
        return Err(Errno::EINVAL);
    }
    let salt_len = usize::try_from(word_at(fixed, 12)?).map_err(|_| Errno::EMSGSIZE)?;
    let signature_len = usize::try_from(word_at(fixed, 24)?).map_err(|_| Errno::EMSGSIZE)?;
    if salt_len > SALT_LEN_MAX || signature_len > SIGNATURE_LEN_MAX {
        return Err(Errno::EMSGSIZE);
    }
    let (salt, signature) = behind.split_at_checked(salt_len).ok_or(Errno::EINVAL)?;
    if signature.len() != signature_len {
        return Err(Errno::EINVAL);
    }
    Ok(VerityParameters {
        hash_algorithm: word_at(fixed, 4)?,
        block_size_bytes: word_at(fixed, 8)?,
        salt,
        signature,
    })
}

/// `struct fsverity_digest`: two words of 16 bits, the second of which says on the way here how
/// long the digest may be, and on the way back how long it is.
fn measure_verity(file: BorrowedFd<'_>, input: &[u8], output: &mut [u8]) -> Result<usize> {
    let [_, _, low, high] = *input.first_chunk::<4>().ok_or(Errno::EINVAL)?;
    let size_max = usize::from(u16::from_ne_bytes([low, high]));
    let (fixed, room) = output.split_at_mut_checked(4).ok_or(Errno::EINVAL)?;
    let room_len = room.len().min(size_max).min(DIGEST_LEN_MAX);
    let room = room.get_mut(..room_len).ok_or(Errno::EINVAL)?;
    let (algorithm, len) = ioctl::measure_verity(file, room)?;
    let size = u16::try_from(len).map_err(|_| Errno::EIO)?;
    let header = [algorithm.to_ne_bytes(), size.to_ne_bytes()];
    fixed.copy_from_slice(header.as_flattened());
    fixed.len().checked_add(len).ok_or(Errno::EIO)
}

/// A word of 32 bits.
fn word_at(bytes: &[u8], offset: usize) -> Result<u32> {
    let word = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    word.map(|word| u32::from_ne_bytes(*word))
        .ok_or(Errno::EINVAL)
}

fn put(output: &mut [u8], answer: &[u8]) -> Result<usize> {
    let room = output.get_mut(..answer.len()).ok_or(Errno::EINVAL)?;
    room.copy_from_slice(answer);
    Ok(answer.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version, algorithm, block size, then length and content of the salt and the signature.
    fn enable_argument(version: u32, salt: (u32, &[u8]), signature: (u32, &[u8])) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [version, 1, 4096, salt.0] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(0xdead_beef_u64.to_ne_bytes());
        bytes.extend(signature.0.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(0xdead_beef_u64.to_ne_bytes());
        bytes.resize(ENABLE_VERITY_ARG_LEN, 0);
        bytes.extend(salt.1);
        bytes.extend(signature.1);
        bytes
    }

    #[test]
    fn verity_parameters_take_salt_and_signature_from_behind_the_structure() {
        let plain = enable_argument(1, (0, b""), (0, b""));
        let expected = VerityParameters {
            hash_algorithm: 1,
            block_size_bytes: 4096,
            salt: b"",
            signature: b"",
        };
        assert_eq!(verity_parameters(&plain), Ok(expected));
        let full = enable_argument(1, (4, b"salt"), (3, b"sig"));
        let expected = VerityParameters {
            salt: b"salt",
            signature: b"sig",
            ..expected
        };
        assert_eq!(verity_parameters(&full), Ok(expected));
    }

    #[test]
    fn verity_parameters_that_are_not_all_there_are_refused() {
        let mut reserved_1 = enable_argument(1, (0, b""), (0, b""));
        reserved_1[28] = 1;
        let mut reserved_2 = enable_argument(1, (0, b""), (0, b""));
        reserved_2[127] = 1;
        let long = [7; 33];
        for (case, argument, errno) in [
            (
                "version 2",
                enable_argument(2, (0, b""), (0, b"")),
                Errno::EINVAL,
            ),
            ("reserved1", reserved_1, Errno::EINVAL),
            ("reserved2", reserved_2, Errno::EINVAL),
            (
                "salt of 33",
                enable_argument(1, (33, &long), (0, b"")),
                Errno::EMSGSIZE,
            ),
            (
                "salt of 4 GiB",
                enable_argument(1, (u32::MAX, b""), (0, b"")),
                Errno::EMSGSIZE,
            ),
            (
                "signature too long",
                enable_argument(1, (0, b""), (16129, b"")),
                Errno::EMSGSIZE,
            ),
            (
                "salt at an address",
                enable_argument(1, (4, b""), (0, b"")),
                Errno::EINVAL,
            ),
            (
                "signature at an address",
                enable_argument(1, (0, b""), (4, b"")),
                Errno::EINVAL,
            ),
            (
                "bytes too many",
                enable_argument(1, (0, b""), (0, b"x")),
                Errno::EINVAL,
            ),
            ("cut short", vec![1; 127], Errno::EINVAL),
        ] {
            assert_eq!(verity_parameters(&argument), Err(errno), "{case}");
        }
    }
}
