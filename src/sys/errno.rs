//! What: the error number a system call gave, as a type.
//!
//! In: the value of errno, read on the line after a failed call. Out: [`Errno`], which travels
//! unchanged to the FUSE reply header. Does not: decide which error suits an operation.

use std::fmt;
use std::io;

use crate::log_limit::guest_log;

/// A positive Linux error number between 1 and 511.
///
/// A FUSE reply may carry only this range (Linux refuses errors at or below -512), so anything
/// outside becomes `EIO` when the value is made.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

/// Result of an operation that a guest asked for.
pub type Result<T> = std::result::Result<T, Errno>;

macro_rules! errnos {
    ($($name:ident),* $(,)?) => {
        impl Errno {
            $(
                #[doc = concat!("`", stringify!($name), "`, see errno(3).")]
                pub const $name: Errno = Errno(libc::$name);
            )*

            fn name(self) -> Option<&'static str> {
                match self.0 {
                    $(libc::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

errnos!(
    E2BIG,
    EACCES,
    EAGAIN,
    EBADF,
    EBUSY,
    ECHILD,
    EDEADLK,
    EEXIST,
    EFAULT,
    EFBIG,
    EINTR,
    EINVAL,
    EIO,
    EISDIR,
    ELOOP,
    EMFILE,
    EMLINK,
    EMSGSIZE,
    ENAMETOOLONG,
    ENFILE,
    ENODATA,
    ENODEV,
    ENOENT,
    ENOLCK,
    ENOMEM,
    ENOSPC,
    ENOSYS,
    ENOTDIR,
    ENOTEMPTY,
    ENOTTY,
    ENXIO,
    EOPNOTSUPP,
    EOVERFLOW,
    EPERM,
    EPROTO,
    ERANGE,
    EROFS,
    ESPIPE,
    ESTALE,
    ETXTBSY,
    EXDEV,
);

impl Errno {
    /// The error with this number; numbers that FUSE cannot carry become `EIO`.
    pub const fn from_raw(number: i32) -> Self {
        if number > 0 && number < 512 {
            Errno(number)
        } else {
            Errno(libc::EIO)
        }
    }

    /// The positive error number.
    pub const fn raw(self) -> i32 {
        self.0
    }

    /// The calling thread's errno. Call it on the line after the failed call.
    pub fn last() -> Self {
        Self::from(io::Error::last_os_error())
    }
}

impl From<io::Error> for Errno {
    /// Keeps the operating system's number. An error that has none did not come from a system
    /// call; it is `EIO` for the guest and is logged, so that it is never lost in silence.
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(number) => Errno::from_raw(number),
            None => {
                guest_log!(
                    log::Level::Error,
                    "an error without a number reached the guest as EIO: {error}"
                );
                Errno::EIO
            }
        }
    }
}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        io::Error::from_raw_os_error(errno.0)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&io::Error::from_raw_os_error(self.0), f)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "Errno({})", self.0),
        }
    }
}

impl std::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_raw_outside_the_range_fuse_carries_becomes_eio() {
        for number in [i32::MIN, -5, 0, 512, i32::MAX] {
            assert_eq!(Errno::from_raw(number), Errno::EIO);
        }
        assert_eq!(Errno::from_raw(1), Errno::EPERM);
        assert_eq!(Errno::from_raw(511).raw(), 511);
    }

    #[test]
    fn io_error_round_trip_keeps_the_number() {
        let io_error = io::Error::from(Errno::ENOTEMPTY);
        assert_eq!(Errno::from(io_error), Errno::ENOTEMPTY);
    }
}
