//! What: telling whoever started the daemon that a front end can connect now: a service manager
//! by sd_notify(3), and the waiting starter of `--daemonize`.
//!
//! In: the environment variable `NOTIFY_SOCKET`, perhaps a [`Background`]. Out: one message,
//! `READY=1`. The socket is connected at the start, while its path can still be reached, and the
//! variable is removed, so that no helper program can speak for the daemon. Does not: send keep-alives
//! or take sockets over (`LISTEN_FDS`); the latter are named by `--fd`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use super::background::{Background, Silence};
use crate::sys::detach::take_variable;

/// The variable of sd_notify(3).
const VARIABLE: &str = "NOTIFY_SOCKET";

/// How long the service manager may leave its socket full.
const PATIENCE: Duration = Duration::from_secs(5);

/// Those who wait for the daemon to be ready.
#[derive(Debug, Default)]
pub struct Readiness {
    manager: Option<UnixDatagram>,
    background: Option<Background>,
}

impl Readiness {
    /// Connects to the service manager that the environment names, if it names one. Call it while
    /// the process has one thread; otherwise the variable stays. A socket that cannot be reached
    /// is a warning: the daemon can serve all the same.
    pub fn from_environment() -> Self {
        let address = take_variable(OsStr::new(VARIABLE)).filter(|address| !address.is_empty());
        let manager = address.and_then(|address| match connect(&address) {
            Ok(socket) => Some(socket),
            Err(error) => {
                log::warn!(
                    "cannot tell the service manager when the daemon is ready, {VARIABLE} is \
                     {address:?}: {error}; unset it or use Type=simple if nobody waits"
                );
                None
            }
        });
        Readiness {
            manager,
            background: None,
        }
    }

    /// Lets the starter of a daemon in the background wait, too.
    #[must_use]
    pub fn with_background(self, background: Background) -> Self {
        Readiness {
            background: Some(background),
            ..self
        }
    }

    /// Says that a front end can connect, and leaves the starter's standard streams.
    pub fn announce(self) {
        if let Some(manager) = self.manager {
            let message = "READY=1\nSTATUS=Waiting for the front end to connect\n";
            if let Err(error) = send(&manager, message.as_bytes()) {
                log::warn!("cannot tell the service manager that the daemon is ready: {error}");
            }
        }
        if let Some(background) = self.background {
            background.release();
        }
    }

    /// For a child that serves in a sandbox: gives up what its parent will say, and returns what
    /// is left to do when the child is ready. Call it early, so that the guest's process never
    /// holds a way to the service manager.
    #[must_use]
    pub fn leave_to_parent(self) -> Silence {
        self.background
            .map_or(Silence::NONE, Background::leave_to_parent)
    }
}

/// One message, again if a signal interrupts it.
fn send(manager: &UnixDatagram, message: &[u8]) -> io::Result<usize> {
    loop {
        match manager.send(message) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            done => return done,
        }
    }
}

/// Connects to an absolute path, or to an abstract name behind `@`.
fn connect(address: &OsString) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(address)?,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is neither a path from / on nor an abstract name with @",
            ));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_takes_paths_and_abstract_names_only() {
        let name = format!("virtiofsd-notify-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let by_path = UnixDatagram::bind(&path).unwrap();
        let abstract_address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let by_name = UnixDatagram::bind_addr(&abstract_address).unwrap();
        for (address, manager) in [
            (path.as_os_str().to_owned(), by_path),
            (OsString::from(format!("@{name}")), by_name),
        ] {
            let readiness = Readiness {
                manager: Some(connect(&address).unwrap()),
                background: None,
            };
            readiness.announce();
            let mut message = [0; 64];
            let len = manager.recv(&mut message).unwrap();
            assert!(message[..len].starts_with(b"READY=1\n"));
        }
        std::fs::remove_file(&path).unwrap();
        for wrong in [
            "vsock:2:1",
            "relative",
            "/no/such/socket",
            "@no such socket",
        ] {
            assert!(connect(&OsString::from(wrong)).is_err(), "{wrong}");
        }
    }
}
