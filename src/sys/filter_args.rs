//! What: numbers that system calls get as arguments, as a filter of system calls compares them:
//! 64-bit words, of which the kernel looks at the lower half where the argument is an int.
//!
//! In: nothing. Out: constants. Invariant: what is listed here is what this program, the standard
//! library and the C libraries pass; whoever adds a use adds it here. Does not: make any call.

use std::ffi::c_int;

use crate::sys::ioctl;

/// Compares what the kernel takes for an int: a C library may or may not have extended its sign.
pub const INT_MASK: u64 = 0xffff_ffff;

/// Compares all 64 bits.
pub const FULL_MASK: u64 = u64::MAX;

/// Bits of mmap(2) and mprotect(2) that make memory executable.
pub const EXECUTABLE: u64 = word(libc::PROT_EXEC);

/// The bits of clone(2) that decide whether a new thread is made, and nothing else: besides the
/// four of [`THREAD_FLAGS`], those that make a namespace, a process group of tracers, or a
/// descriptor for the child, and the signal of a child that is a process.
pub const THREAD_MASK: u64 = THREAD_FLAGS
    | word(libc::CLONE_NEWNS)
    | word(libc::CLONE_NEWCGROUP)
    | word(libc::CLONE_NEWUTS)
    | word(libc::CLONE_NEWIPC)
    | word(libc::CLONE_NEWUSER)
    | word(libc::CLONE_NEWPID)
    | word(libc::CLONE_NEWNET)
    | word(libc::CLONE_PTRACE)
    | word(libc::CLONE_VFORK)
    | word(libc::CLONE_PARENT)
    | word(libc::CLONE_PIDFD)
    | word(libc::CLONE_UNTRACED)
    | 0xff;

/// What every C library passes to clone(2) for a thread.
pub const THREAD_FLAGS: u64 = word(libc::CLONE_VM)
    | word(libc::CLONE_FILES)
    | word(libc::CLONE_SIGHAND)
    | word(libc::CLONE_THREAD);

/// unshare(2): a working directory, root and umask of its own.
pub const OWN_FS_STATE: u64 = word(libc::CLONE_FS);

/// prctl(2): the name of the calling thread.
pub const SET_THREAD_NAME: u64 = word(libc::PR_SET_NAME);

/// fcntl(2): the commands that are called.
pub const FCNTL_DUPLICATE: u64 = word(libc::F_DUPFD_CLOEXEC);
/// See [`FCNTL_DUPLICATE`].
pub const FCNTL_GET_DESCRIPTOR_FLAGS: u64 = word(libc::F_GETFD);
/// See [`FCNTL_DUPLICATE`].
pub const FCNTL_SET_DESCRIPTOR_FLAGS: u64 = word(libc::F_SETFD);
/// See [`FCNTL_DUPLICATE`].
pub const FCNTL_GET_STATUS_FLAGS: u64 = word(libc::F_GETFL);
/// See [`FCNTL_DUPLICATE`].
pub const FCNTL_SET_STATUS_FLAGS: u64 = word(libc::F_SETFL);
/// See [`FCNTL_DUPLICATE`].
pub const FCNTL_SET_LOCK: u64 = word(libc::F_OFD_SETLK);
/// See [`FCNTL_DUPLICATE`].
pub const FCNTL_GET_LOCK: u64 = word(libc::F_OFD_GETLK);

/// ioctl(2): whether a socket blocks.
pub const IOCTL_NONBLOCKING: u64 = ioctl::number_of(libc::FIONBIO) as u64;
/// ioctl(2): a command of [`ioctl`].
pub const IOCTL_GET_FLAGS: u64 = ioctl::number_of(ioctl::GET_FLAGS) as u64;
/// ioctl(2): a command of [`ioctl`].
pub const IOCTL_SET_FLAGS: u64 = ioctl::number_of(ioctl::SET_FLAGS) as u64;
/// ioctl(2): a command of [`ioctl`].
pub const IOCTL_GET_EXTENDED: u64 = ioctl::number_of(ioctl::GET_EXTENDED) as u64;
/// ioctl(2): a command of [`ioctl`].
pub const IOCTL_SET_EXTENDED: u64 = ioctl::number_of(ioctl::SET_EXTENDED) as u64;
/// ioctl(2): a command of [`ioctl`].
pub const IOCTL_ENABLE_VERITY: u64 = ioctl::number_of(ioctl::ENABLE_VERITY) as u64;
/// ioctl(2): a command of [`ioctl`].
pub const IOCTL_MEASURE_VERITY: u64 = ioctl::number_of(ioctl::MEASURE_VERITY) as u64;

/// socketpair(2): sockets that reach no network.
pub const LOCAL_SOCKETS: u64 = word(libc::AF_UNIX);
/// socketpair(2): the bits of the type that are no flags.
pub const SOCKET_TYPE_MASK: u64 = 0xf;
/// socketpair(2): sockets that send to their other end only.
pub const STREAM_SOCKETS: u64 = word(libc::SOCK_STREAM);

/// getsockopt(2): the level of the options below.
pub const SOCKET_LEVEL: u64 = word(libc::SOL_SOCKET);
/// getsockopt(2): which family.
pub const SOCKET_OPTION_DOMAIN: u64 = word(libc::SO_DOMAIN);
/// getsockopt(2): stream or datagrams.
pub const SOCKET_OPTION_TYPE: u64 = word(libc::SO_TYPE);

/// The signal of abort(3).
pub const ABORT_SIGNAL: u64 = word(libc::SIGABRT);

const fn word(number: c_int) -> u64 {
    // None of the constants is negative, so nothing is lost and no sign extended.
    number.unsigned_abs() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Flags of pthread_create as glibc 2.36 and musl 1.2.5 pass them.
    #[test]
    fn thread_flags_of_both_c_libraries_pass_and_forks_do_not() {
        for (flags, passes) in [
            (0x003d_0f00, true),
            (0x007d_0f00, true),
            // fork(3), vfork(2), and a thread in a user namespace of its own.
            (0x0120_0011, false),
            (0x0000_4111, false),
            (0x103d_0f00, false),
        ] {
            assert_eq!(flags & THREAD_MASK == THREAD_FLAGS, passes, "{flags:#x}");
        }
    }
}
