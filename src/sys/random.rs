//! What: numbers that nobody can foretell, getrandom(2).
//!
//! In: nothing. Out: a number. Does not: feed cryptography; nothing here needs it.
#![expect(unsafe_code, reason = "system calls")]

use crate::sys::errno::{Errno, Result};
use crate::sys::{check_len, retry};

/// 64 random bits.
///
/// # Errors
/// As getrandom(2): `ENOSYS` before Linux 3.17.
pub fn random_u64() -> Result<u64> {
    let mut bytes = [0; size_of::<u64>()];
    let len = retry(|| {
        // SAFETY: `bytes` is writable memory of the length that is passed and outlives the call.
        let len = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        check_len(len)
    })?;
    // Up to 256 bytes come at once or not at all.
    if len == bytes.len() {
        Ok(u64::from_ne_bytes(bytes))
    } else {
        Err(Errno::EIO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_differ() {
        assert_ne!(random_u64().unwrap(), random_u64().unwrap());
    }
}
