//! What: user, groups and capabilities of the calling thread alone.
//!
//! In: host ids as numbers. Out: nothing but success. Everything here is a raw system call: the
//! functions of libc of the same names change all threads at once. Real and saved ids stay, so
//! a thread can always come back. Does not: decide when to switch (see `passthrough::privilege`).
#![expect(unsafe_code, reason = "system calls")]

use std::ffi::{c_int, c_long};

use crate::sys::check_long;
use crate::sys::errno::{Errno, Result};

/// `_LINUX_CAPABILITY_VERSION_3`: two words per set.
const CAPABILITY_VERSION: u32 = 0x2008_0522;
/// `CAP_DAC_OVERRIDE`, a bit of the first word.
const DAC_OVERRIDE_BIT: u32 = 1 << 1;
/// `CAP_FSETID`, a bit of the first word.
const FSETID_BIT: u32 = 1 << 4;
/// `CAP_LINUX_IMMUTABLE` and `CAP_SYS_RESOURCE`, bits of the first word.
const INODE_RIGHTS_BITS: u32 = 1 << 9 | 1 << 24;
/// The kernel's "leave this id unchanged".
const UNCHANGED: c_long = -1;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CapabilityWord {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The capability sets of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapabilitySets([CapabilityWord; 2]);

impl CapabilitySets {
    /// Whether `CAP_FSETID` is effective: the kernel then leaves set-id bits alone on files that
    /// are written or cut.
    pub fn has_fsetid(&self) -> bool {
        let [low, _] = &self.0;
        low.effective & FSETID_BIT != 0
    }

    /// Every permitted capability, as the bit of its number.
    pub fn permitted_bits(&self) -> u64 {
        self.bits_of(|word| word.permitted)
    }

    /// Every effective capability, as the bit of its number.
    pub fn effective_bits(&self) -> u64 {
        self.bits_of(|word| word.effective)
    }

    /// Every inheritable capability, as the bit of its number.
    pub fn inheritable_bits(&self) -> u64 {
        self.bits_of(|word| word.inheritable)
    }

    fn bits_of(&self, set: impl Fn(&CapabilityWord) -> u32) -> u64 {
        let [low, high] = &self.0;
        u64::from(set(high)) << u32::BITS | u64::from(set(low))
    }

    /// The same sets without what lets more be done to inode flags than their owner may:
    /// `CAP_LINUX_IMMUTABLE` for the immutable and append-only flags, `CAP_SYS_RESOURCE` for the
    /// journalling of contents. They stay permitted.
    #[must_use]
    pub fn without_inode_rights(self) -> Self {
        let [mut low, high] = self.0;
        low.effective &= !INODE_RIGHTS_BITS;
        CapabilitySets([low, high])
    }

    /// The same sets with nothing effective but `CAP_DAC_OVERRIDE`, or `None` when that is not
    /// permitted.
    pub fn only_dac_override(self) -> Option<Self> {
        let [mut low, mut high] = self.0;
        if low.permitted & DAC_OVERRIDE_BIT == 0 {
            return None;
        }
        low.effective = DAC_OVERRIDE_BIT;
        high.effective = 0;
        Some(CapabilitySets([low, high]))
    }
}

#[cfg(test)]
impl CapabilitySets {
    /// `CAP_SETGID`.
    pub(crate) const SETGID: u32 = 6;
    /// `CAP_SETUID`.
    pub(crate) const SETUID: u32 = 7;

    /// The same sets without one capability of the first word, for good.
    pub(crate) fn lacking(self, capability: u32) -> Self {
        let [mut low, high] = self.0;
        low.effective &= !(1 << capability);
        low.permitted &= !(1 << capability);
        CapabilitySets([low, high])
    }
}

/// The effective user id of the calling thread.
pub fn effective_uid() -> u32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// The effective group id of the calling thread.
pub fn effective_gid() -> u32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::getegid() }
}

/// The supplementary groups of the calling thread.
///
/// # Errors
/// As getgroups(2).
pub fn groups() -> Result<Box<[u32]>> {
    // SAFETY: with a size of 0 nothing is written, and the count is returned.
    let count = unsafe { libc::syscall(libc::SYS_getgroups, 0, std::ptr::null_mut::<u32>()) };
    let count = usize::try_from(check_long(count)?).map_err(|_| Errno::EIO)?;
    if count == 0 {
        return Ok(Box::default());
    }
    let mut groups = vec![0_u32; count];
    // SAFETY: `groups` is writable for `count` ids; only this thread could change the count.
    let read = unsafe { libc::syscall(libc::SYS_getgroups, count, groups.as_mut_ptr()) };
    let read = usize::try_from(check_long(read)?).map_err(|_| Errno::EIO)?;
    groups.truncate(read);
    Ok(groups.into_boxed_slice())
}

/// Sets the supplementary groups of the calling thread.
///
/// # Errors
/// As setgroups(2): `EPERM` without `CAP_SETGID`.
pub fn set_groups(groups: &[u32]) -> Result<()> {
    // SAFETY: `groups` is readable for the count that is passed.
    let done = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    check_long(done).map(drop)
}

/// Sets the effective group id of the calling thread.
///
/// # Errors
/// As setresgid(2): `EPERM`, and `EINVAL` for an id without a mapping in the user namespace.
pub fn set_effective_gid(gid: u32) -> Result<()> {
    // SAFETY: takes no pointers.
    let done =
        unsafe { libc::syscall(libc::SYS_setresgid, UNCHANGED, c_long::from(gid), UNCHANGED) };
    check_long(done).map(drop)
}

/// Sets the effective user id of the calling thread. Leaving 0 empties the effective capability
/// set; coming back to 0 makes all permitted capabilities effective.
///
/// # Errors
/// As setresuid(2): `EPERM`, and `EINVAL` for an id without a mapping in the user namespace.
pub fn set_effective_uid(uid: u32) -> Result<()> {
    // SAFETY: takes no pointers.
    let done =
        unsafe { libc::syscall(libc::SYS_setresuid, UNCHANGED, c_long::from(uid), UNCHANGED) };
    check_long(done).map(drop)
}

/// Makes the calling thread user and group `id` in every respect (real, effective and saved), for
/// a process that is alone in a new user namespace. With one thread that is the whole process.
///
/// # Errors
/// As setresuid(2) and setresgid(2): `EINVAL` for an id without a mapping, `EPERM`.
pub fn become_for_good(uid: u32, gid: u32) -> Result<()> {
    let (uid, gid) = (c_long::from(uid), c_long::from(gid));
    // SAFETY: takes no pointers.
    let done = unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) };
    check_long(done)?;
    // SAFETY: takes no pointers.
    let done = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
    check_long(done).map(drop)
}

/// The capability sets of the calling thread.
///
/// # Errors
/// As capget(2).
pub fn capabilities() -> Result<CapabilitySets> {
    let mut header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let mut sets = CapabilitySets::default();
    // SAFETY: the header is writable, and version 3 writes two words, which `sets` has.
    let done = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.0.as_mut_ptr()) };
    check_long(done)?;
    Ok(sets)
}

/// Sets the capability sets of the calling thread.
///
/// # Errors
/// As capset(2): `EPERM` when a set would grow beyond what is permitted.
pub fn set_capabilities(sets: &CapabilitySets) -> Result<()> {
    let mut header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    // SAFETY: the header is writable, and version 3 reads two words, which `sets` has.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.0.as_ptr()) };
    check_long(done).map(drop)
}
