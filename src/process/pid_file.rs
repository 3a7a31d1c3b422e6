//! What: the file next to the socket that tells which daemon owns it.
//!
//! In: the path of the socket. Out: `SOCKET.pid`, locked for as long as the daemon lives, with
//! its process id and a newline. The lock is what counts: it vanishes with its process, so a
//! file that a killed daemon left behind is no obstacle. Invariant: the locked file is the one
//! that stands at the path (someone may have replaced it between open and lock).

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Tries before giving up on a pid file that keeps being replaced.
const ATTEMPTS_MAX: usize = 8;

/// A locked pid file; removed when dropped.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    _locked: File,
    is_ours: bool,
}

/// Why there is no pid file.
#[derive(Debug)]
pub enum PidFileError {
    /// Another process holds the lock.
    InUse(PathBuf),
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
            PidFileError::Io(path, _) => write!(f, "cannot write pid file {}", path.display()),
        }
    }
}

impl std::error::Error for PidFileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            PidFileError::InUse(_) => None,
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
        let mut name = socket_path.as_os_str().to_owned();
        name.push(".pid");
        let path = PathBuf::from(name);
        for _ in 0..ATTEMPTS_MAX {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false) // not ours before it is locked
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path)
                .map_err(|error| PidFileError::Io(path.clone(), error))?;
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
                .map_err(|error| PidFileError::Io(path.clone(), error))?;
            return Ok(PidFile {
                path,
                _locked: file,
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

fn is_at_path(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(opened), Ok(named)) => (opened.dev(), opened.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if !self.is_ours {
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
