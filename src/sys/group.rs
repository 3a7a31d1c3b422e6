//! What: groups of the host by name (getgrnam(3)).
//!
//! In: a name. Out: its number. The look-up may read files and ask services of the host, so it
//! belongs to the start of the program, before any sandbox.
#![expect(unsafe_code, reason = "getgrnam_r(3)")]

use std::ffi::{CString, c_char};
use std::io;
use std::ptr;

/// First size of the memory for a group's strings: its members' names, mostly.
const STRINGS_SIZE_START: usize = 4096;

/// Where growing ends; a group with more members than fit is an error, not a reason to use up all
/// memory.
const STRINGS_SIZE_MAX: usize = 1 << 24;

/// The number of the group `name`; none when there is no such group.
///
/// # Errors
/// A name with a NUL, or what the look-up reported.
pub fn group_id(name: &str) -> io::Result<Option<u32>> {
    let name = CString::new(name)?;
    let mut size = STRINGS_SIZE_START;
    loop {
        let mut strings: Vec<c_char> = vec![0; size];
        // SAFETY: struct group is plain data, and all zeros (null pointers) is a valid value.
        let mut group: libc::group = unsafe { std::mem::zeroed() };
        let mut found = ptr::null_mut();
        // SAFETY: `name` ends with a NUL; `group` and `found` are valid for writes; `strings` is
        // valid for writes of `strings.len()` characters; all of them live until after the call.
        let failed = unsafe {
            libc::getgrnam_r(
                name.as_ptr(),
                &raw mut group,
                strings.as_mut_ptr(),
                strings.len(),
                &raw mut found,
            )
        };
        match failed {
            0 if found.is_null() => return Ok(None),
            0 => return Ok(Some(group.gr_gid)),
            libc::ERANGE if size < STRINGS_SIZE_MAX => size = size.saturating_mul(2),
            libc::EINTR => (),
            // getgrnam(3): some systems report a missing group by one of these.
            libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => return Ok(None),
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_id_finds_root_and_nobody_else() {
        assert_eq!(group_id("root").unwrap(), Some(0));
        assert_eq!(group_id("no such group").unwrap(), None);
        assert_eq!(group_id("").unwrap(), None);
        assert!(group_id("a\0b").is_err());
    }
}
