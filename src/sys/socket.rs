//! What: UNIX sockets that another process made and handed to this one (unix(7), socket(7)).
//!
//! In: the number of a descriptor from the command line. Out: an owned listening socket, or the
//! reason why it is none. And: who may connect to a socket file. Does not: bind or accept; the
//! standard library does that.
#![expect(
    unsafe_code,
    reason = "getsockopt, fcntl and taking over a descriptor by number"
)]

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::sys::errno::Errno;

/// Why a descriptor cannot be the listening socket.
#[derive(Debug)]
pub enum InheritError {
    /// No such descriptor is open.
    NotOpen(Errno),
    /// It is open, but not a socket.
    NotASocket,
    /// It is a socket, but not a UNIX stream socket.
    NotUnixStream,
    /// It is a UNIX stream socket on which nobody called listen(2).
    NotListening,
    /// The kernel would not say.
    Query(Errno),
}

impl fmt::Display for InheritError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InheritError::NotOpen(_) => f.write_str(
                "it is not open; the parent must leave it open across exec (no close-on-exec)",
            ),
            InheritError::NotASocket => f.write_str("it is not a socket"),
            InheritError::NotUnixStream => f.write_str("it is not a UNIX stream socket"),
            InheritError::NotListening => {
                f.write_str("it is not listening; the parent must bind(2) and listen(2) first")
            }
            InheritError::Query(errno) => write!(f, "its type cannot be read: {errno}"),
        }
    }
}

impl std::error::Error for InheritError {}

/// Takes over descriptor `number` as the listening socket and sets close-on-exec on it.
///
/// # Errors
/// [`InheritError`]; the descriptor is then left as it was.
pub fn inherited_listener(number: RawFd) -> Result<UnixListener, InheritError> {
    // SAFETY: F_GETFD takes no further argument and fails with EBADF on anything not open.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 {
        return Err(InheritError::NotOpen(Errno::last()));
    }
    // SAFETY: the call above has shown that `number` is open, and the program has started no
    // thread yet that could close it while it is borrowed.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    if socket_option(borrowed, libc::SO_DOMAIN)? != libc::AF_UNIX
        || socket_option(borrowed, libc::SO_TYPE)? != libc::SOCK_STREAM
    {
        return Err(InheritError::NotUnixStream);
    }
    if socket_option(borrowed, libc::SO_ACCEPTCONN)? == 0 {
        return Err(InheritError::NotListening);
    }
    // SAFETY: `number` is open (above); setting FD_CLOEXEC changes nothing but that flag.
    if unsafe { libc::fcntl(number, libc::F_SETFD, flags | libc::FD_CLOEXEC) } < 0 {
        return Err(InheritError::Query(Errno::last()));
    }
    // SAFETY: `number` is an open socket that the parent process handed over for this very use;
    // nothing else in this process owns it.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    Ok(UnixListener::from(owned))
}

/// Lets the members of `group` connect to the socket file at `path`: the file's group, and mode
/// 0770. The file is held while it changes, so nothing that takes its place is touched; the group
/// comes first, so nobody of the old one gets in.
///
/// # Errors
/// `EINVAL` when something else stands at the path, and as chown(2): `EPERM` for who is neither
/// root nor a member.
pub fn share_with_group(path: &Path, group: u32) -> io::Result<()> {
    let pinned = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
        .open(path)?;
    if !pinned.metadata()?.file_type().is_socket() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let held = format!("/proc/self/fd/{}", pinned.as_raw_fd());
    chown(&held, None, Some(group))?;
    fs::set_permissions(&held, fs::Permissions::from_mode(0o770))
}

fn socket_option(fd: BorrowedFd<'_>, name: libc::c_int) -> Result<libc::c_int, InheritError> {
    let mut value: libc::c_int = 0;
    #[expect(clippy::cast_possible_truncation, reason = "the size of an int")]
    let mut len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is a live c_int and `len` holds its size, so the kernel writes within it;
    // `fd` is borrowed and therefore open.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    if result == 0 {
        return Ok(value);
    }
    match Errno::last() {
        Errno::EBADF => Err(InheritError::NotOpen(Errno::EBADF)),
        errno if errno.raw() == libc::ENOTSOCK => Err(InheritError::NotASocket),
        errno => Err(InheritError::Query(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::IntoRawFd;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream;

    #[test]
    fn inherited_listener_that_is_none_says_why() {
        let file = File::open("/dev/null").unwrap();
        let (stream, _peer) = UnixStream::pair().unwrap();
        let cases: [(RawFd, &str); 3] = [
            (1_000_000, "not open"),
            (file.as_raw_fd(), "not a socket"),
            (stream.as_raw_fd(), "not listening"),
        ];
        for (number, expected) in cases {
            let error = inherited_listener(number).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn share_with_group_opens_a_socket_and_nothing_else() {
        let path = std::env::temp_dir().join(format!("virtiofsd-group-{}", std::process::id()));
        let _socket = UnixListener::bind(&path).unwrap();
        // The group it has already: anybody may give away a file to the own group.
        let group = fs::metadata(&path).unwrap().gid();
        share_with_group(&path, group).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        fs::remove_file(&path).unwrap();
        let target = path.with_extension("target");
        fs::write(&target, "").unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        let linked = share_with_group(&path, group);
        fs::remove_file(&path).unwrap();
        fs::remove_file(&target).unwrap();
        assert_eq!(mode, 0o770);
        assert_eq!(linked.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn inherited_listener_takes_over_a_listening_socket() {
        let path = std::env::temp_dir().join(format!("virtiofsd-sys-{}", std::process::id()));
        let number = UnixListener::bind(&path).unwrap().into_raw_fd();
        let listener = inherited_listener(number).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(listener.accept().is_ok());
    }
}
