//! What: which file system holds a file: statfs(2).
//!
//! In: a pinned or open descriptor. Out: one of the few file systems that this program knows
//! something about. Does not: say what follows from it (see `passthrough::file_systems`).
#![expect(unsafe_code, reason = "system calls")]

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::sys::errno::Result;
use crate::sys::{check, retry};

/// A kind of file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsType {
    /// ext2, ext3 and ext4, which share a number.
    Ext,
    /// XFS.
    Xfs,
    /// Btrfs.
    Btrfs,
    /// F2FS.
    F2fs,
    /// Bcachefs.
    Bcachefs,
    /// ZFS.
    Zfs,
    /// tmpfs.
    Tmpfs,
    /// FUSE: any program of this machine or another.
    Fuse,
    /// FAT in all its sizes.
    Fat,
    /// Any other: on this machine or on another, nobody here knows.
    Other,
}

impl FsType {
    /// By the number in `f_type`, all of which have 32 bits: see statfs(2), and the sources of
    /// bcachefs and ZFS for the two that the page does not list.
    const fn of_magic(magic: u32) -> Self {
        match magic {
            0x0000_ef53 => FsType::Ext,
            0x5846_5342 => FsType::Xfs,
            0x9123_683e => FsType::Btrfs,
            0xf2f5_2010 => FsType::F2fs,
            0xca45_1a4e => FsType::Bcachefs,
            0x2fc1_2fc1 => FsType::Zfs,
            0x0102_1994 => FsType::Tmpfs,
            0x6573_5546 => FsType::Fuse,
            0x0000_4d44 => FsType::Fat,
            _ => FsType::Other,
        }
    }
}

/// The kind of file system that holds `fd`.
///
/// # Errors
/// As statfs(2).
pub fn fs_type(fd: BorrowedFd<'_>) -> Result<FsType> {
    let mut raw = MaybeUninit::<libc::statfs>::uninit();
    retry(|| {
        // SAFETY: `raw` is writable memory for one struct statfs and outlives the call.
        let done = unsafe { libc::fstatfs(fd.as_raw_fd(), raw.as_mut_ptr()) };
        check(done)
    })?;
    // SAFETY: fstatfs(2) has succeeded, so the kernel has written the whole struct.
    let raw = unsafe { raw.assume_init_ref() };
    // The type of the field differs between libraries; the mask makes the conversion sure.
    let magic = u32::try_from(raw.f_type & 0xffff_ffff).unwrap_or(0);
    Ok(FsType::of_magic(magic))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::open;
    use std::os::fd::AsFd;
    use std::path::Path;

    #[test]
    fn fs_type_tells_known_file_systems_from_others() {
        let of = |path: &str| fs_type(open::pin_path(Path::new(path)).unwrap().as_fd());
        assert_eq!(of("/proc"), Ok(FsType::Other));
        assert_eq!(of("/dev/shm"), Ok(FsType::Tmpfs));
    }

    #[test]
    fn of_magic_knows_the_numbers_of_libc() {
        for (magic, kind) in [
            (libc::EXT4_SUPER_MAGIC, FsType::Ext),
            (libc::XFS_SUPER_MAGIC, FsType::Xfs),
            (libc::BTRFS_SUPER_MAGIC, FsType::Btrfs),
            (libc::F2FS_SUPER_MAGIC, FsType::F2fs),
            (libc::BCACHEFS_SUPER_MAGIC, FsType::Bcachefs),
            (libc::TMPFS_MAGIC, FsType::Tmpfs),
            (libc::FUSE_SUPER_MAGIC, FsType::Fuse),
            (libc::MSDOS_SUPER_MAGIC, FsType::Fat),
            (libc::NFS_SUPER_MAGIC, FsType::Other),
            (libc::OVERLAYFS_SUPER_MAGIC, FsType::Other),
        ] {
            let magic = u32::try_from(magic & 0xffff_ffff).unwrap();
            assert_eq!(FsType::of_magic(magic), kind, "{magic:#x}");
        }
    }
}
