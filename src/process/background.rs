//! What: `--daemonize`: the daemon in the background, and its starter waiting until it is ready.
//!
//! In: nothing. Out: [`Detached`], twice.
//!
//! ```text
//!   starter ---fork---> daemon, in a session of its own
//!     | waits             | starts; standard streams are still those of the starter
//!     |                   | standard streams go to /dev/null, working directory to /
//!     |<----- ready ------| (or the end of the pipe: it has ended)
//!     | ends: 0, or the daemon's status
//! ```
//!
//! /dev/null and / are opened before the fork, for a daemon that cannot reach them when it is ready
//! or may open nothing by its path any more. Does not: log
//! anywhere else. Log lines of a daemon in the background are lost, unless they go to the syslog.

use std::error::Error;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::logging::remember_process_id;
use crate::sys::detach::{new_session, replace_stdio};
use crate::sys::errno::Errno;
use crate::sys::fork::{self, ChildEnd, Forked, Namespaces};
use crate::sys::mount::enter;
use crate::sys::open::directory;

/// What goes through the pipe; what it is does not matter.
const TOKEN: [u8; 1] = [b'.'];

/// Who the caller of [`detach`] is when it returns.
#[derive(Debug)]
pub enum Detached {
    /// The process that was started, when the daemon is ready (this is then
    /// `ChildEnd::Exited(0)`) or has ended without (this is how). It has nothing left to do.
    Starter(ChildEnd),
    /// The daemon.
    Daemon(Background),
}

/// What the daemon owes its starter, and what it will have instead of its standard streams.
#[derive(Debug)]
pub struct Background {
    starter: PipeWriter,
    streams: Silence,
    root: OwnedFd,
}

/// Takes the place of the standard streams.
#[derive(Debug)]
pub struct Silence(Option<File>);

/// Why the daemon cannot go into the background.
#[derive(Debug)]
pub enum BackgroundError {
    /// /dev/null cannot be opened.
    Null(io::Error),
    /// The root directory cannot be opened.
    Root(Errno),
    /// There is no pipe.
    Pipe(io::Error),
    /// There is no child.
    Fork(Errno),
    /// There is no session of its own.
    Session(Errno),
    /// The end of the child cannot be heard of.
    Wait(Errno),
}

impl fmt::Display for BackgroundError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            BackgroundError::Null(_) => "/dev/null cannot be opened",
            BackgroundError::Root(_) => "the root directory cannot be opened",
            BackgroundError::Pipe(_) => "a pipe cannot be made",
            BackgroundError::Fork(_) => "a process cannot be made",
            BackgroundError::Session(_) => "a session cannot be made",
            BackgroundError::Wait(_) => "the process in the background cannot be waited for",
        };
        write!(
            f,
            "cannot go into the background: {what}; without --daemonize this is not needed"
        )
    }
}

impl Error for BackgroundError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            BackgroundError::Null(error) | BackgroundError::Pipe(error) => Some(error),
            BackgroundError::Root(errno)
            | BackgroundError::Fork(errno)
            | BackgroundError::Session(errno)
            | BackgroundError::Wait(errno) => Some(errno),
        }
    }
}

/// Goes into the background. Call it before anything is made that belongs to one process (a pid
/// file, blocked signals, threads).
///
/// # Errors
/// [`BackgroundError`], in the process where the step failed.
pub fn detach() -> Result<Detached, BackgroundError> {
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(BackgroundError::Null)?;
    let root = directory(Path::new("/")).map_err(BackgroundError::Root)?;
    let (reader, writer) = pipe().map_err(BackgroundError::Pipe)?;
    match fork::fork(Namespaces::empty()).map_err(BackgroundError::Fork)? {
        Forked::Parent(daemon) => {
            drop(writer);
            match wait(reader) {
                Wait::Ready => Ok(Detached::Starter(ChildEnd::Exited(0))),
                Wait::Ended => fork::wait_end(daemon)
                    .map(Detached::Starter)
                    .map_err(BackgroundError::Wait),
            }
        }
        Forked::Child => {
            drop(reader);
            remember_process_id();
            new_session().map_err(BackgroundError::Session)?;
            Ok(Detached::Daemon(Background {
                starter: writer,
                streams: Silence(Some(null)),
                root,
            }))
        }
    }
}

enum Wait {
    Ready,
    /// All who could have said so are gone.
    Ended,
}

fn wait(mut reader: PipeReader) -> Wait {
    let mut token = TOKEN;
    match reader.read_exact(&mut token) {
        Ok(()) => Wait::Ready,
        Err(_) => Wait::Ended,
    }
}

impl Background {
    /// Leaves the starter's streams and its directory, and lets it end.
    pub fn release(mut self) {
        self.streams.fall();
        if let Err(errno) = enter(self.root.as_fd()) {
            log::debug!("the working directory stays as it is: {errno}");
        }
        if let Err(error) = self.starter.write_all(&TOKEN) {
            log::debug!("nobody waits for the daemon to be ready: {error}");
        }
    }

    /// For a child that serves in a sandbox, whose parent will release the starter.
    #[must_use]
    pub fn leave_to_parent(self) -> Silence {
        self.streams
    }
}

impl Silence {
    /// For a daemon in the foreground: the streams stay.
    pub const NONE: Silence = Silence(None);

    /// Puts /dev/null in the place of the standard streams.
    pub fn fall(self) {
        let Some(null) = self.0 else {
            return;
        };
        if let Err(errno) = replace_stdio(null.as_fd()) {
            log::warn!("the standard streams stay open in the background: {errno}");
        }
    }
}
