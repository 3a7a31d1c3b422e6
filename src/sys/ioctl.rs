//! What: the ioctl(2) commands on files and directories of any file system: inode flags, project
//! ids and fs-verity.
//!
//! In: an open descriptor and plain values. Out: plain values. Invariant: every command here is
//! called with memory of the size that the kernel reads or writes for it. Does not: know which of
//! them a guest may use, or what the values mean beyond the names given here.
#![expect(unsafe_code, reason = "system calls")]

use std::ffi::{c_int, c_long};
use std::os::fd::{AsRawFd, BorrowedFd};

use bitflags::bitflags;

use crate::sys::errno::Result;
use crate::sys::{check, retry};

/// Longest digest in bytes (`FS_VERITY_MAX_DIGEST_SIZE`).
pub const DIGEST_LEN_MAX: usize = 64;
/// Longest salt in bytes (`FS_VERITY_MAX_SALT_SIZE`).
pub const SALT_LEN_MAX: usize = 32;
/// Longest signature in bytes (`FS_VERITY_MAX_SIGNATURE_SIZE`).
pub const SIGNATURE_LEN_MAX: usize = 16128;

/// A command on an inode, by its number. Some have two numbers, because their argument was
/// declared a `long` that only 32 bits of are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InodeCommand {
    /// `FS_IOC_GETFLAGS`, `FS_IOC32_GETFLAGS`.
    GetFlags,
    /// `FS_IOC_SETFLAGS`, `FS_IOC32_SETFLAGS`.
    SetFlags,
    /// `FS_IOC_FSGETXATTR`.
    GetExtended,
    /// `FS_IOC_FSSETXATTR`.
    SetExtended,
    /// `FS_IOC_ENABLE_VERITY`.
    EnableVerity,
    /// `FS_IOC_MEASURE_VERITY`.
    MeasureVerity,
}

pub(crate) const GET_FLAGS: libc::Ioctl = libc::_IOR::<c_long>(b'f' as u32, 1);
const GET_FLAGS_32: libc::Ioctl = libc::_IOR::<c_int>(b'f' as u32, 1);
pub(crate) const SET_FLAGS: libc::Ioctl = libc::_IOW::<c_long>(b'f' as u32, 2);
const SET_FLAGS_32: libc::Ioctl = libc::_IOW::<c_int>(b'f' as u32, 2);
pub(crate) const GET_EXTENDED: libc::Ioctl = libc::_IOR::<ExtendedFlags>(b'X' as u32, 31);
pub(crate) const SET_EXTENDED: libc::Ioctl = libc::_IOW::<ExtendedFlags>(b'X' as u32, 32);
pub(crate) const ENABLE_VERITY: libc::Ioctl = libc::_IOW::<EnableVerityArg>(b'f' as u32, 133);
pub(crate) const MEASURE_VERITY: libc::Ioctl = libc::_IOWR::<VerityDigestHeader>(b'f' as u32, 134);

impl InodeCommand {
    /// The command with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        [
            (GET_FLAGS, InodeCommand::GetFlags),
            (GET_FLAGS_32, InodeCommand::GetFlags),
            (SET_FLAGS, InodeCommand::SetFlags),
            (SET_FLAGS_32, InodeCommand::SetFlags),
            (GET_EXTENDED, InodeCommand::GetExtended),
            (SET_EXTENDED, InodeCommand::SetExtended),
            (ENABLE_VERITY, InodeCommand::EnableVerity),
            (MEASURE_VERITY, InodeCommand::MeasureVerity),
        ]
        .into_iter()
        .find_map(|(command, name)| (number_of(command) == number).then_some(name))
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a command has 32 bits; glibc passes it as unsigned long, musl as int"
)]
pub(crate) const fn number_of(command: libc::Ioctl) -> u32 {
    command as u32
}

bitflags! {
    /// Inode flags (`FS_*_FL`) of which somebody has to know the meaning; all others pass.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct InodeFlags: u32 {
        /// Nobody may change the file.
        const IMMUTABLE = 0x10;
        /// The file may only grow.
        const APPEND = 0x20;
        /// New files in the directory get its project id.
        const PROJECT_INHERIT = 0x2000_0000;
        const _ = !0;
    }
}

bitflags! {
    /// The same as they are called in [`ExtendedFlags`] (`FS_XFLAG_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ExtendedInodeFlags: u32 {
        /// Nobody may change the file.
        const IMMUTABLE = 0x8;
        /// The file may only grow.
        const APPEND = 0x10;
        /// New files in the directory get its project id.
        const PROJECT_INHERIT = 0x200;
        const _ = !0;
    }
}

/// `struct fsxattr`: flags, extent sizes and project id of an inode.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtendedFlags {
    flags: u32,
    extent_size: u32,
    extent_count: u32,
    /// Project id.
    pub project_id: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

/// Length of [`ExtendedFlags`] in bytes.
pub const EXTENDED_FLAGS_LEN: usize = size_of::<ExtendedFlags>();

impl ExtendedFlags {
    /// The flags.
    pub fn flags(&self) -> ExtendedInodeFlags {
        ExtendedInodeFlags::from_bits_retain(self.flags)
    }

    /// Its bytes, which are those of the guest's: both are Linux on one machine.
    pub fn from_bytes(bytes: &[u8; EXTENDED_FLAGS_LEN]) -> Self {
        let [
            f0,
            f1,
            f2,
            f3,
            s0,
            s1,
            s2,
            s3,
            n0,
            n1,
            n2,
            n3,
            p0,
            p1,
            p2,
            p3,
            rest @ ..,
        ] = *bytes;
        let [c0, c1, c2, c3, padding @ ..] = rest;
        ExtendedFlags {
            flags: u32::from_ne_bytes([f0, f1, f2, f3]),
            extent_size: u32::from_ne_bytes([s0, s1, s2, s3]),
            extent_count: u32::from_ne_bytes([n0, n1, n2, n3]),
            project_id: u32::from_ne_bytes([p0, p1, p2, p3]),
            cow_extent_size: u32::from_ne_bytes([c0, c1, c2, c3]),
            padding,
        }
    }

    /// The inverse of [`Self::from_bytes`].
    pub fn to_bytes(&self) -> [u8; EXTENDED_FLAGS_LEN] {
        let mut bytes = [0; EXTENDED_FLAGS_LEN];
        let words = [
            self.flags,
            self.extent_size,
            self.extent_count,
            self.project_id,
            self.cow_extent_size,
        ];
        let all = words.iter().flat_map(|word| word.to_ne_bytes());
        for (place, byte) in bytes.iter_mut().zip(all.chain(self.padding)) {
            *place = byte;
        }
        bytes
    }
}

/// `struct fsverity_enable_arg`.
#[repr(C)]
struct EnableVerityArg {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt_ptr: u64,
    sig_size: u32,
    reserved1: u32,
    sig_ptr: u64,
    reserved2: [u64; 11],
}

/// Length of `struct fsverity_enable_arg` in bytes.
pub const ENABLE_VERITY_ARG_LEN: usize = size_of::<EnableVerityArg>();

/// The beginning of `struct fsverity_digest`, behind which the digest stands.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct VerityDigestHeader {
    algorithm: u16,
    size: u16,
}

/// `struct fsverity_digest` with the largest digest.
#[repr(C)]
struct VerityDigest {
    header: VerityDigestHeader,
    digest: [u8; DIGEST_LEN_MAX],
}

const _: () = assert!(EXTENDED_FLAGS_LEN == 28);
const _: () = assert!(ENABLE_VERITY_ARG_LEN == 128);
const _: () = assert!(size_of::<VerityDigest>() == 4 + DIGEST_LEN_MAX);

/// Inode flags (`FS_IOC_GETFLAGS`).
///
/// # Errors
/// `ENOTTY`, `EOPNOTSUPP` where the file system has none.
pub fn inode_flags(file: BorrowedFd<'_>) -> Result<InodeFlags> {
    let mut flags: c_int = 0;
    retry(|| {
        // SAFETY: the kernel writes an int for this command, whatever its number says, and
        // `flags` is one that outlives the call.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), GET_FLAGS, &raw mut flags) };
        check(done)
    })?;
    Ok(InodeFlags::from_bits_retain(flags.cast_unsigned()))
}

/// Sets inode flags (`FS_IOC_SETFLAGS`).
///
/// # Errors
/// `EPERM` for who does not own the file, and for [`InodeFlags::IMMUTABLE`] and
/// [`InodeFlags::APPEND`] without `CAP_LINUX_IMMUTABLE`; `ENOTTY`, `EOPNOTSUPP`.
pub fn set_inode_flags(file: BorrowedFd<'_>, flags: InodeFlags) -> Result<()> {
    let flags: c_int = flags.bits().cast_signed();
    retry(|| {
        // SAFETY: the kernel reads an int for this command, whatever its number says, and
        // `flags` is one that outlives the call.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), SET_FLAGS, &raw const flags) };
        check(done)
    })?;
    Ok(())
}

/// Flags and project id (`FS_IOC_FSGETXATTR`).
///
/// # Errors
/// `ENOTTY`, `EOPNOTSUPP` where the file system has none.
pub fn extended_flags(file: BorrowedFd<'_>) -> Result<ExtendedFlags> {
    let mut flags = ExtendedFlags::default();
    retry(|| {
        // SAFETY: the kernel writes one struct fsxattr, which `flags` is; it outlives the call.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), GET_EXTENDED, &raw mut flags) };
        check(done)
    })?;
    Ok(flags)
}

/// Sets flags and project id (`FS_IOC_FSSETXATTR`).
///
/// # Errors
/// As `set_inode_flags`; `EINVAL` for a project id outside the initial user namespace.
pub fn set_extended_flags(file: BorrowedFd<'_>, flags: &ExtendedFlags) -> Result<()> {
    retry(|| {
        // SAFETY: the kernel reads one struct fsxattr, which `flags` is; it outlives the call.
        let done = unsafe {
            libc::ioctl(
                file.as_raw_fd(),
                SET_EXTENDED,
                std::ptr::from_ref::<ExtendedFlags>(flags),
            )
        };
        check(done)
    })?;
    Ok(())
}

/// How the tree of hashes of a file is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerityParameters<'a> {
    /// `FS_VERITY_HASH_ALG_*`.
    pub hash_algorithm: u32,
    /// Block size in bytes.
    pub block_size_bytes: u32,
    /// Salt, at most [`SALT_LEN_MAX`] bytes.
    pub salt: &'a [u8],
    /// Signature, at most [`SIGNATURE_LEN_MAX`] bytes.
    pub signature: &'a [u8],
}

/// Makes a file read-only for ever and builds the tree of hashes by which each later read is
/// checked (`FS_IOC_ENABLE_VERITY`). Takes as long as reading the file.
///
/// # Errors
/// As the kernel's documentation of fs-verity says: `EEXIST`, `ETXTBSY` while somebody can
/// write the file, `EOPNOTSUPP`, `ENOTTY`, `EMSGSIZE`.
pub fn enable_verity(file: BorrowedFd<'_>, parameters: &VerityParameters<'_>) -> Result<()> {
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let argument = EnableVerityArg {
        version: 1,
        hash_algorithm: parameters.hash_algorithm,
        block_size: parameters.block_size_bytes,
        salt_size: len(parameters.salt),
        salt_ptr: address_of(parameters.salt),
        sig_size: len(parameters.signature),
        reserved1: 0,
        sig_ptr: address_of(parameters.signature),
        reserved2: [0; 11],
    };
    retry(|| {
        // SAFETY: the kernel reads one struct fsverity_enable_arg, which `argument` is, and from
        // its two addresses as many bytes as stand beside them: those of two borrowed slices.
        // All outlive the call.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), ENABLE_VERITY, &raw const argument) };
        check(done)
    })?;
    Ok(())
}

fn address_of(bytes: &[u8]) -> u64 {
    // Exposed, because the kernel will read there.
    u64::try_from(bytes.as_ptr().expose_provenance()).unwrap_or(0)
}

/// The digest of a file under fs-verity, and which algorithm made it (`FS_IOC_MEASURE_VERITY`);
/// returns the algorithm and the bytes written to `buf`.
///
/// # Errors
/// `ENODATA` for a file without fs-verity, `EOVERFLOW` when the digest is longer than `buf`,
/// `EOPNOTSUPP`, `ENOTTY`.
pub fn measure_verity(file: BorrowedFd<'_>, buf: &mut [u8]) -> Result<(u16, usize)> {
    let size = u16::try_from(buf.len().min(DIGEST_LEN_MAX)).unwrap_or(0);
    let mut measured = VerityDigest {
        header: VerityDigestHeader { algorithm: 0, size },
        digest: [0; DIGEST_LEN_MAX],
    };
    retry(|| {
        // SAFETY: the kernel reads a struct fsverity_digest and writes it with a digest of at
        // most `size` bytes, for which `measured` has room; it outlives the call.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), MEASURE_VERITY, &raw mut measured) };
        check(done)
    })?;
    let len = usize::from(measured.header.size);
    for (place, byte) in buf.iter_mut().zip(measured.digest.iter().take(len)) {
        *place = *byte;
    }
    Ok((measured.header.algorithm, len.min(buf.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of x86 and Arm, from linux/fs.h and linux/fsverity.h.
    #[test]
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn numbers_are_those_of_the_kernel_headers() {
        for (number, command) in [
            (0x8008_6601, Some(InodeCommand::GetFlags)),
            (0x8004_6601, Some(InodeCommand::GetFlags)),
            (0x4008_6602, Some(InodeCommand::SetFlags)),
            (0x4004_6602, Some(InodeCommand::SetFlags)),
            (0x801c_581f, Some(InodeCommand::GetExtended)),
            (0x401c_5820, Some(InodeCommand::SetExtended)),
            (0x4080_6685, Some(InodeCommand::EnableVerity)),
            (0xc004_6686, Some(InodeCommand::MeasureVerity)),
            // FS_IOC_GETVERSION, FS_IOC_FIEMAP, FICLONE, TCGETS, FITRIM.
            (0x8008_7601, None),
            (0xc020_660b, None),
            (0x4004_9409, None),
            (0x5401, None),
            (0xc018_5879, None),
            (0, None),
            (u32::MAX, None),
        ] {
            assert_eq!(InodeCommand::from_number(number), command, "{number:#x}");
        }
    }

    #[test]
    fn extended_flags_keep_every_byte() {
        let bytes: [u8; EXTENDED_FLAGS_LEN] = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let flags = ExtendedFlags::from_bytes(&bytes);
        assert_eq!(flags.to_bytes(), bytes);
        assert_eq!(flags.flags().bits().to_ne_bytes(), [0, 1, 2, 3]);
        assert_eq!(flags.project_id.to_ne_bytes(), [12, 13, 14, 15]);
    }
}
