//! What: the only reader of request arguments.
//!
//! In: the private copy of a request's body. Out: values, front to back. Invariants: total (any
//! bytes give a value or an errno, never a panic) and bounded by the bytes that are there.
//! Does not: know operations.

use std::ffi::CStr;

use crate::fs::types::FileName;
use crate::sys::errno::{Errno, Result};
use crate::wire::pod::Plain;

/// Bytes that are not read yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Cursor { rest: bytes }
    }

    /// The next fixed layout. Errors: `EINVAL` too few bytes.
    pub(super) fn take<T: Plain>(&mut self) -> Result<T> {
        let (value, rest) = T::split_from(self.rest).ok_or(Errno::EINVAL)?;
        self.rest = rest;
        Ok(value)
    }

    /// The next `len` bytes. Errors: `EINVAL` too few bytes.
    pub(super) fn take_bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(Errno::EINVAL)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Everything up to the next NUL. Errors: `EINVAL` no NUL.
    pub(super) fn take_c_str(&mut self) -> Result<&'a CStr> {
        let text = CStr::from_bytes_until_nul(self.rest).map_err(|_| Errno::EINVAL)?;
        self.take_bytes(text.to_bytes_with_nul().len())?;
        Ok(text)
    }

    /// The next name of a path component. Errors: those of [`FileName::new`], `EINVAL` no NUL.
    pub(super) fn take_name(&mut self) -> Result<FileName<'a>> {
        FileName::new(self.take_c_str()?)
    }

    /// Everything that is left.
    pub(super) const fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Nothing may be left. Errors: `EINVAL` something is.
    pub(super) const fn finish(self) -> Result<()> {
        match self.rest {
            [] => Ok(()),
            [_, ..] => Err(Errno::EINVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::request::MkdirIn;

    #[test]
    fn takes_stop_at_the_end_and_consume_nothing_when_they_fail() {
        let mut cursor = Cursor::new(&[1, 0, 0, 0, 2, 0, 0, 0, b'a', 0, b'b', 0, 7]);
        let fixed: MkdirIn = cursor.take().expect("eight bytes");
        assert_eq!((fixed.mode, fixed.umask), (1, 2));
        assert_eq!(cursor.take_c_str(), Ok(c"a"));
        assert_eq!(cursor.take_name().map(FileName::as_bytes), Ok(&b"b"[..]));
        assert_eq!(cursor.finish(), Err(Errno::EINVAL));
        assert_eq!(cursor.take_c_str(), Err(Errno::EINVAL));
        assert_eq!(cursor.take_bytes(2), Err(Errno::EINVAL));
        assert_eq!(cursor.take::<MkdirIn>(), Err(Errno::EINVAL));
        assert_eq!(cursor.take_bytes(1), Ok(&[7][..]));
        assert_eq!(cursor.finish(), Ok(()));
    }
}
