//! What: ending when somebody asks for it: SIGTERM, SIGINT, SIGHUP; and answering SIGUSR1.
//!
//! In: [`Signals`], and what the daemon is waiting for. Out: the connection or the signal,
//! whichever comes first; later a thread that closes the connection for reading when a signal
//! comes, so that the daemon ends as if the front end had gone: nothing new is taken, what is
//! under way is finished. If that takes longer than [`DRAIN_SECONDS_MAX`] the process ends
//! without it: a request may hang in a file system for ever. At SIGUSR1 the same thread says what
//! the daemon has counted, and nobody else waits for that.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crate::process::listener::{ListenError, accept_on};
use crate::sys::errno::Result;
use crate::sys::fork;
use crate::sys::poll;
use crate::sys::signals::{Signal, Signals};

/// How long requests under way may take after the signal, in seconds: long for a file system on
/// this machine, short for whoever waits for a machine to shut down.
pub const DRAIN_SECONDS_MAX: u64 = 10;

/// What came first.
#[derive(Debug)]
pub enum Arrival {
    /// The front end.
    FrontEnd(UnixStream),
    /// A signal that asks to end.
    Signal(Signal),
}

/// Waits for the front end or a signal.
///
/// # Errors
/// [`ListenError::Accept`].
pub fn accept_or_signal(
    socket: &UnixListener,
    signals: &Signals,
) -> std::result::Result<Arrival, ListenError> {
    loop {
        let [calling, signalled] =
            poll::wait_readable([Some(socket.as_fd()), Some(signals.as_fd())])
                .map_err(ListenError::Accept)?;
        if signalled.readable {
            match wish(signals).map_err(|errno| ListenError::Accept(io::Error::from(errno)))? {
                Wish::End(signal) => return Ok(Arrival::Signal(signal)),
                Wish::Tell => log::info!("counters: no front end has connected yet"),
                Wish::Nothing => (),
            }
        }
        if calling.readable || calling.hung_up {
            match accept_on(socket) {
                // It has gone again, and the socket is one that does not wait.
                Err(ListenError::Accept(error)) if error.kind() == io::ErrorKind::WouldBlock => (),
                accepted => return accepted.map(Arrival::FrontEnd),
            }
        }
    }
}

/// What a signal asks for.
enum Wish {
    /// The end.
    End(Signal),
    /// The counters.
    Tell,
    /// Nothing: a process has ended that is no concern of this one.
    Nothing,
}

/// What the next signal asks for.
fn wish(signals: &Signals) -> Result<Wish> {
    Ok(match signals.next()? {
        Signal::Chld => Wish::Nothing,
        Signal::Usr1 => Wish::Tell,
        signal @ (Signal::Term | Signal::Int | Signal::Hup) => Wish::End(signal),
    })
}

/// Knows whether a signal has asked to end.
#[derive(Debug)]
pub struct Watch(Arc<OnceLock<Signal>>);

impl Watch {
    /// Starts the thread that waits for signals while the front end is served through `stream`.
    /// At SIGUSR1 it calls `tell`, and before it ends the process for want of patience `clean_up`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        signals: Signals,
        stream: UnixStream,
        tell: impl Fn() + Send + 'static,
        clean_up: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let heard = Arc::new(OnceLock::new());
        let heard_there = Arc::clone(&heard);
        thread::Builder::new()
            .name("virtiofsd-sig".to_owned())
            .spawn(move || {
                let Some(signal) = wait_for_ending(&signals, tell) else {
                    return;
                };
                log::info!("{}: finishing the requests under way", signal.name());
                // Nobody else sets it.
                let _ = heard_there.set(signal);
                if let Err(error) = stream.shutdown(Shutdown::Read) {
                    log::debug!("the connection cannot be closed: {error}");
                }
                thread::sleep(Duration::from_secs(DRAIN_SECONDS_MAX));
                log::error!(
                    "requests of the guest are still under way {DRAIN_SECONDS_MAX} seconds after \
                     {}; ending without them. A file system below the share may be stuck",
                    signal.name()
                );
                clean_up();
                fork::end_at_once(1);
            })?;
        Ok(Watch(heard))
    }

    /// The signal, if there was one.
    pub fn heard(&self) -> Option<Signal> {
        self.0.get().copied()
    }
}

fn wait_for_ending(signals: &Signals, tell: impl Fn()) -> Option<Signal> {
    loop {
        match wish(signals) {
            Ok(Wish::End(signal)) => return Some(signal),
            Ok(Wish::Tell) => tell(),
            Ok(Wish::Nothing) => (),
            Err(errno) => {
                log::error!(
                    "signals cannot be read any more ({errno}); end the daemon with SIGKILL"
                );
                return None;
            }
        }
    }
}
