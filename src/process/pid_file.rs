//! What: the file next to the socket that tells which daemon owns it.
//!
//! In: the path of the socket. Out: `SOCKET.pid`, locked for as long as the daemon lives, with
//! its process id and a newline. The lock is what counts: it vanishes with its process, so a
//! file that a killed daemon left behind is no obstacle. Invariants: the locked file is the one
//! that stands at the path (someone may have replaced it between open and lock); only a regular
//! file of our own user with no other name is ever written, since whoever may write to the
//! directory of the socket could otherwise choose what a daemon run by root overwrites.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::sys::credentials::effective_uid;
use crate::sys::open::open_or_create_private;

/// Tries before giving up on a pid file that keeps being replaced.
const ATTEMPTS_MAX: usize = 8;

/// A locked pid file; removed when dropped.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    locked: File,
    is_ours: bool,
}

/// Why there is no pid file.
#[derive(Debug)]
pub enum PidFileError {
    /// Another process holds the lock.
    InUse(PathBuf),
    /// Something stands there that is not for us to write to.
    NotOurs(PathBuf, &'static str),
    /// It cannot be opened, locked or written.
    Io(PathBuf, io::Error),
}

impl fmt::Display for PidFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PidFileError::InUse(path) => write!(
                f,
                "another daemon is serving this socket ({} is locked); stop it or choose another \
                 socket path",
                path.display()
            ),
            PidFileError::NotOurs(path, what) => write!(
                f,
                "pid file {} is {what}; remove it or choose another socket path",
                path.display()
            ),
            PidFileError::Io(path, _) => write!(
                f,
                "cannot write pid file {}; choose a socket path in a directory in which the \
                 daemon may create files",
                path.display()
            ),
        }
    }
}

impl std::error::Error for PidFileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            PidFileError::InUse(_) | PidFileError::NotOurs(..) => None,
            PidFileError::Io(_, error) => Some(error),
        }
    }
}

impl PidFile {
    /// Creates and locks the pid file of `socket_path`.
    ///
    /// # Errors
    /// [`PidFileError::InUse`] when a living daemon holds it.
    pub fn create(socket_path: &Path) -> Result<Self, PidFileError> {
        // Absolute, because the working directory may be another one when it is removed.
        let mut name = std::path::absolute(socket_path)
            .unwrap_or_else(|_| socket_path.to_owned())
            .into_os_string();
        name.push(".pid");
        let path = PathBuf::from(name);
        for _ in 0..ATTEMPTS_MAX {
            let mut file =
                open_or_create_private(&path).map_err(|error| match classify(&path) {
                    Some(what) => PidFileError::NotOurs(path.clone(), what),
                    None => PidFileError::Io(path.clone(), error),
                })?;
            let io_error = |error| PidFileError::Io(path.clone(), error);
            let metadata = file.metadata().map_err(io_error)?;
            match foreign(&metadata) {
                // Somebody has just removed it.
                _ if metadata.nlink() == 0 => continue,
                Some(what) => return Err(PidFileError::NotOurs(path, what)),
                None => (),
            }
            match file.try_lock() {
                Ok(()) => (),
                Err(TryLockError::WouldBlock) => return Err(PidFileError::InUse(path)),
                Err(TryLockError::Error(error)) => return Err(PidFileError::Io(path, error)),
            }
            if !is_at_path(&file, &path) {
                continue;
            }
            file.set_len(0)
                .and_then(|()| writeln!(file, "{}", std::process::id()))
                .map_err(io_error)?;
            return Ok(PidFile {
                path,
                locked: file,
                is_ours: true,
            });
        }
        Err(PidFileError::InUse(path))
    }

    /// Leaves the file to another process that has it open, too: it is not removed when this
    /// value is dropped, and the lock stays with the other one.
    pub fn disown(&mut self) {
        self.is_ours = false;
    }
}

/// What of another kind stands at a path that cannot be opened as a pid file.
fn classify(path: &Path) -> Option<&'static str> {
    fs::symlink_metadata(path)
        .ok()
        .and_then(|found| foreign(&found))
}

/// Why a file must not be written to, in words that go on "pid file X is".
fn foreign(found: &fs::Metadata) -> Option<&'static str> {
    let reasons = [
        (found.is_symlink(), "a symbolic link"),
        (!found.is_file(), "not a regular file"),
        (found.uid() != effective_uid(), "owned by another user"),
        (found.nlink() > 1, "a hard link to another file"),
    ];
    reasons
        .into_iter()
        .find(|(applies, _)| *applies)
        .map(|(_, what)| what)
}

fn is_at_path(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(opened), Ok(named)) => (opened.dev(), opened.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if !self.is_ours || !is_at_path(&self.locked, &self.path) {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            log::debug!("cannot remove {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn create_twice_is_refused_until_the_first_is_gone() {
        let socket = std::env::temp_dir().join(format!("virtiofsd-pid-{}", std::process::id()));
        let first = PidFile::create(&socket).unwrap();
        let second = PidFile::create(&socket);
        drop(first);
        let third = PidFile::create(&socket);
        assert!(matches!(second, Err(PidFileError::InUse(_))));
        assert!(third.is_ok());
    }

    #[test]
    fn create_where_something_else_stands_is_refused_and_changes_nothing() {
        let base = std::env::temp_dir().join(format!("virtiofsd-alien-{}", std::process::id()));
        fs::create_dir_all(&base).unwrap();
        let socket = base.join("s");
        let path = base.join("s.pid");
        let precious = base.join("precious");
        fs::write(&precious, "precious").unwrap();
        let refused = || PidFile::create(&socket).unwrap_err().to_string();
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        let link = refused();
        fs::remove_file(&path).unwrap();
        fs::hard_link(&precious, &path).unwrap();
        let hard_link = refused();
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let directory = refused();
        fs::remove_dir(&path).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let special = refused();
        drop(listener);
        let text = fs::read_to_string(&precious).unwrap();
        fs::remove_dir_all(&base).unwrap();
        assert_eq!(text, "precious");
        for (said, expected) in [
            (link, "is a symbolic link"),
            (hard_link, "is a hard link"),
            (directory, "is not a regular file"),
            (special, "is not a regular file"),
        ] {
            assert!(said.contains(expected), "{said}");
            assert!(said.contains("remove it"), "{said}");
        }
    }

    #[test]
    fn create_over_a_stale_longer_file_leaves_only_our_pid() {
        let socket = std::env::temp_dir().join(format!("virtiofsd-stale-{}", std::process::id()));
        let path = PathBuf::from(format!("{}.pid", socket.display()));
        fs::write(&path, "99999999999999999999\n").unwrap();
        let pid_file = PidFile::create(&socket).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        drop(pid_file);
        assert_eq!(text, format!("{}\n", std::process::id()));
        assert!(!path.exists());
    }
}
