//! What: the listening socket to which the VMM connects.
//!
//! In: a path, or a descriptor that the parent opened. Out: a [`Listener`] that accepts exactly
//! one front end. A socket file is replaced only when nobody serves it: the pid file next to it
//! tells our own kind, and /proc/net/unix any other process that listens there. (Connecting to
//! find out would use up the one connection that a waiting daemon accepts.)

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::process::pid_file::{PidFile, PidFileError};
use crate::sys::group::group_id;
use crate::sys::process::with_umask;
use crate::sys::socket::{InheritError, inherited_listener, share_with_group};

/// Longest path of a UNIX socket in bytes (`sun_path` less its NUL, unix(7)).
const SOCKET_PATH_LEN_MAX: usize = 107;

/// Mask for the socket file: mode 0700, as the launchers expect. A group gets its 0770 later, when
/// the file belongs to it.
const SOCKET_UMASK: u32 = 0o077;

/// `__SO_ACCEPTCON` in the flags column of /proc/net/unix: the socket is listening.
const FLAG_ACCEPTING: u32 = 0x0001_0000;

/// Where the front end connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketSource {
    /// A socket file to create.
    Path(PathBuf),
    /// A listening socket inherited under this number.
    Fd(RawFd),
}

/// A listening socket; the socket file and the pid file go away with it.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    created: Option<CreatedSocket>,
}

/// The files that belong to a socket of our own. Removed in order: socket, then the pid file
/// whose lock protects it.
#[derive(Debug)]
pub struct CreatedSocket {
    socket_file: SocketFile,
    pid_file: PidFile,
}

/// The name of a socket in the file system; removed when dropped, if it is still the same.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode number; `None` when they could not be learned, or the file is not ours
    /// to remove.
    identity: Option<(u64, u64)>,
}

/// Why there is no socket.
#[derive(Debug)]
pub enum ListenError {
    /// The path is empty.
    NoPath,
    /// The path does not fit into a socket address.
    PathTooLong(PathBuf),
    /// The directory of the socket is missing.
    NoDirectory(PathBuf, PathBuf),
    /// Something that is not a socket stands at the path.
    NotASocket(PathBuf),
    /// A living process listens there.
    InUse(PathBuf),
    /// The pid file says that a living daemon owns it, or cannot be written.
    PidFile(PidFileError),
    /// The socket cannot be made.
    Bind(PathBuf, io::Error),
    /// There is no such group.
    NoGroup(String),
    /// The group could not be looked up.
    GroupLookup(String, io::Error),
    /// The socket cannot be given to the group.
    Group(String, io::Error),
    /// The inherited descriptor does not serve.
    Inherit(RawFd, InheritError),
    /// No connection could be taken.
    Accept(io::Error),
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenError::NoPath => {
                f.write_str("the socket path is empty; give the path of a socket to create")
            }
            ListenError::PathTooLong(path) => write!(
                f,
                "socket path {} is longer than {SOCKET_PATH_LEN_MAX} bytes; choose a shorter one",
                path.display()
            ),
            ListenError::NoDirectory(path, directory) => write!(
                f,
                "cannot create socket {}: directory {} does not exist; create it first",
                path.display(),
                directory.display()
            ),
            ListenError::NotASocket(path) => write!(
                f,
                "{} exists and is not a socket; remove it or choose another socket path",
                path.display()
            ),
            ListenError::InUse(path) => write!(
                f,
                "socket {} is in use by a running process; stop it or choose another socket path",
                path.display()
            ),
            ListenError::PidFile(error) => error.fmt(f),
            ListenError::Bind(path, _) => write!(f, "cannot create socket {}", path.display()),
            ListenError::NoGroup(group) => write!(
                f,
                "there is no group {group:?} (--socket-group); create it (groupadd), or give \
                 another one by name or number"
            ),
            ListenError::GroupLookup(group, _) => write!(
                f,
                "cannot look up group {group:?} (--socket-group); try its number instead"
            ),
            ListenError::Group(group, _) => write!(
                f,
                "cannot give the socket to group {group:?} (--socket-group); run the daemon as \
                 root or as a member of that group"
            ),
            ListenError::Inherit(number, _) => write!(
                f,
                "file descriptor {number} (--fd) cannot be used as the listening socket"
            ),
            ListenError::Accept(_) => f.write_str("cannot accept the connection of the front end"),
        }
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ListenError::PidFile(error) => error.source(),
            ListenError::Bind(_, error)
            | ListenError::GroupLookup(_, error)
            | ListenError::Group(_, error)
            | ListenError::Accept(error) => Some(error),
            ListenError::Inherit(_, error) => Some(error),
            ListenError::NoPath
            | ListenError::PathTooLong(_)
            | ListenError::NoDirectory(..)
            | ListenError::NotASocket(_)
            | ListenError::NoGroup(_)
            | ListenError::InUse(_) => None,
        }
    }
}

impl Listener {
    /// Makes or takes over the listening socket. `group` is the group, by name or number, whose
    /// members may connect to a socket that is made. Call it before any thread is started: it
    /// changes the umask for a moment.
    ///
    /// # Errors
    /// [`ListenError`] names what stands in the way; nothing is left behind then.
    pub fn open(source: &SocketSource, group: Option<&str>) -> Result<Self, ListenError> {
        match source {
            SocketSource::Path(path) => Self::bind(path, group),
            SocketSource::Fd(number) => inherited_listener(*number)
                .map(|socket| Listener {
                    socket,
                    created: None,
                })
                .map_err(|error| ListenError::Inherit(*number, error)),
        }
    }

    fn bind(path: &Path, group: Option<&str>) -> Result<Self, ListenError> {
        if path.as_os_str().is_empty() {
            // The kernel would choose an abstract name that nobody knows.
            return Err(ListenError::NoPath);
        }
        if path.as_os_str().len() > SOCKET_PATH_LEN_MAX {
            return Err(ListenError::PathTooLong(path.to_owned()));
        }
        if let Some(directory) = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            && !directory.is_dir()
        {
            return Err(ListenError::NoDirectory(
                path.to_owned(),
                directory.to_owned(),
            ));
        }
        // Looked up before anything is made.
        let group = group
            .map(|name| resolve_group(name).map(|number| (name, number)))
            .transpose()?;
        let pid_file = PidFile::create(path).map_err(ListenError::PidFile)?;
        make_way(path)?;
        let socket = with_umask(SOCKET_UMASK, || UnixListener::bind(path))
            .map_err(|error| ListenError::Bind(path.to_owned(), error))?;
        let created = CreatedSocket {
            socket_file: SocketFile::new(path),
            pid_file,
        };
        if let Some((name, number)) = group {
            share_with_group(path, number)
                .map_err(|error| ListenError::Group(name.to_owned(), error))?;
        }
        Ok(Listener {
            socket,
            created: Some(created),
        })
    }

    /// The socket, and the files that were made for it (none with an inherited socket). A
    /// process that serves in a child keeps the files itself, so that they are removed at the
    /// end whatever the child can still reach.
    #[must_use]
    pub fn into_parts(self) -> (UnixListener, Option<CreatedSocket>) {
        (self.socket, self.created)
    }
}

/// Waits for the front end. Drop the socket then: a second front end is refused by the kernel at
/// once instead of waiting for an answer that never comes.
///
/// # Errors
/// [`ListenError::Accept`].
pub fn accept_on(socket: &UnixListener) -> Result<UnixStream, ListenError> {
    loop {
        match socket.accept() {
            Ok((stream, _)) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(ListenError::Accept(error)),
        }
    }
}

/// The number of a group that is given by name or by number. A name that looks like a number is
/// still a name, as with chown(1).
fn resolve_group(group: &str) -> Result<u32, ListenError> {
    let by_number = || group.parse().ok().filter(|number| *number != u32::MAX);
    match group_id(group) {
        Ok(Some(number)) => Ok(number),
        Ok(None) => by_number().ok_or_else(|| ListenError::NoGroup(group.to_owned())),
        Err(error) => by_number().ok_or_else(|| ListenError::GroupLookup(group.to_owned(), error)),
    }
}

impl CreatedSocket {
    /// Forgets the files without removing them, for a forked child whose parent keeps them. The
    /// descriptor of the pid file is closed, so that the child cannot write to it; the lock stays
    /// with the parent.
    pub fn disown(mut self) {
        self.socket_file.identity = None;
        self.pid_file.disown();
    }
}

impl SocketFile {
    fn new(path: &Path) -> Self {
        SocketFile {
            // Absolute, because the working directory may be another one when it is removed.
            path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
            identity: fs::symlink_metadata(path)
                .ok()
                .map(|metadata| (metadata.dev(), metadata.ino())),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let now = fs::symlink_metadata(&self.path)
            .ok()
            .map(|metadata| (metadata.dev(), metadata.ino()));
        if self.identity.is_none() || self.identity != now {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            log::debug!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Removes a socket that nobody serves any more.
fn make_way(path: &Path) -> Result<(), ListenError> {
    let bind_error = |error| ListenError::Bind(path.to_owned(), error);
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(bind_error(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(ListenError::NotASocket(path.to_owned()));
    }
    let table = fs::read("/proc/net/unix").unwrap_or_default();
    if is_listening(&table, path.as_os_str().as_encoded_bytes()) {
        return Err(ListenError::InUse(path.to_owned()));
    }
    fs::remove_file(path).map_err(bind_error)
}

/// Whether /proc/net/unix lists a listening socket under `path`. Columns: address, reference
/// count, protocol, flags, type, state, inode, path (which may hold spaces).
fn is_listening(table: &[u8], path: &[u8]) -> bool {
    table.split(|byte| *byte == b'\n').any(|line| {
        let mut columns = line.splitn(8, |byte| *byte == b' ');
        let flags = columns
            .nth(3)
            .and_then(|flags| std::str::from_utf8(flags).ok())
            .and_then(|flags| u32::from_str_radix(flags, 16).ok());
        // Type, state and inode (padded with spaces) stand between the flags and the path.
        let named = line.strip_suffix(path).is_some_and(|head| {
            let head = head.trim_ascii_end();
            head.split(|byte| *byte == b' ')
                .filter(|column| !column.is_empty())
                .count()
                == 7
        });
        named && flags.is_some_and(|flags| flags & FLAG_ACCEPTING != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temp_path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("virtiofsd-{name}-{}", std::process::id()))
    }

    fn opened(path: &Path) -> (UnixListener, CreatedSocket) {
        let source = SocketSource::Path(path.to_owned());
        let (socket, files) = Listener::open(&source, None).unwrap().into_parts();
        (socket, files.unwrap())
    }

    #[test]
    fn disowned_files_stay_and_owned_ones_go() {
        let path = temp_path("disowned");
        let pid_path = PathBuf::from(format!("{}.pid", path.display()));
        let (_socket, files) = opened(&path);
        files.disown();
        let stayed = (path.exists(), pid_path.exists());
        fs::remove_file(&path).unwrap();
        let (_socket, files) = opened(&path);
        drop(files);
        assert_eq!(stayed, (true, true));
        assert_eq!((path.exists(), pid_path.exists()), (false, false));
    }

    #[test]
    fn groups_are_names_or_numbers() {
        assert_eq!(resolve_group("root").unwrap(), 0);
        assert_eq!(resolve_group("1234567").unwrap(), 1_234_567);
        for unknown in ["no such group", "", "-1", "4294967295", "4294967296"] {
            let said = resolve_group(unknown).unwrap_err().to_string();
            assert!(said.contains("--socket-group"), "{said}");
        }
    }

    #[test]
    fn a_file_that_took_the_place_of_the_socket_stays() {
        let path = temp_path("replaced");
        let (_socket, files) = opened(&path);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "somebody else's").unwrap();
        drop(files);
        let text = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(text, "somebody else's");
    }

    #[test]
    fn accept_on_takes_a_front_end() {
        let path = temp_path("accepted");
        let (socket, _files) = opened(&path);
        let _front_end = UnixStream::connect(&path).unwrap();
        assert!(accept_on(&socket).is_ok());
    }

    const TABLE: &[u8] = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
        0000000000000000: 00000002 00000000 00010000 0001 01 13284 /run/a b.sock\n\
        0000000000000000: 00000002 00000000 00010000 0001 01    84 /run/padded.sock\n\
        0000000000000000: 00000003 00000000 00000000 0001 03 13285 /run/connected.sock\n";

    #[test]
    fn is_listening_finds_exactly_the_accepting_path() {
        let cases: [(&[u8], bool); 6] = [
            (b"/run/a b.sock", true),
            (b"/run/padded.sock", true),
            (b"b.sock", false),
            (b"/run/connected.sock", false),
            (b"/run/none.sock", false),
            (b".sock", false),
        ];
        for (path, expected) in cases {
            assert_eq!(is_listening(TABLE, path), expected, "{path:?}");
        }
    }
}
