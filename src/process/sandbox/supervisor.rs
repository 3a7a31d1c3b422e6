//! What: the two processes of a sandbox, and what they say to each other.
//!
//! In: namespaces for the child. Out: a `Split`. Two pipes: by the first the parent says "go" and
//! then keeps it open, so that its end of file tells the child that the parent is gone; by the
//! second the child says "ready". The kernel sends the child SIGTERM when the parent ends, and the
//! parent passes on the signals that ask it to end or to tell its counters.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::AsFd;

use super::error::SandboxError;
use crate::process::capabilities::{self, Prepared};
use crate::sys::errno::Errno;
use crate::sys::fork::{self, ChildEnd, ChildPid, Forked, Namespaces};
use crate::sys::poll;
use crate::sys::signals::{self, Signal, Signals};

/// What is sent through the pipes; what it is does not matter.
const TOKEN: [u8; 1] = [b'.'];

/// Who the caller of [`split`] is when it returns.
#[derive(Debug)]
pub(super) enum Split {
    /// The old process, which has something to do before the child goes on.
    Parent(WaitingChild),
    /// The new one.
    Child(ParentLink),
}

/// A child that waits for [`WaitingChild::go`]. It ends when this is dropped instead.
#[derive(Debug)]
pub(super) struct WaitingChild {
    pid: ChildPid,
    go: PipeWriter,
    ready: PipeReader,
}

/// The parent's side of a sandbox.
#[derive(Debug)]
pub struct Supervisor {
    pid: ChildPid,
    /// Open for as long as this process lives.
    _alive: PipeWriter,
    ready: PipeReader,
}

/// The child's side.
#[derive(Debug)]
pub struct ParentLink {
    go: PipeReader,
    ready: PipeWriter,
}

/// Makes a child in `namespaces`.
///
/// # Errors
/// [`SandboxError::Namespaces`], [`SandboxError::Pipe`].
pub(super) fn split(namespaces: Namespaces) -> Result<Split, SandboxError> {
    let (go_reader, go_writer) = pipe().map_err(SandboxError::Pipe)?;
    let (ready_reader, ready_writer) = pipe().map_err(SandboxError::Pipe)?;
    let forked =
        fork::fork(namespaces).map_err(|source| SandboxError::Fork { namespaces, source })?;
    match forked {
        Forked::Parent(pid) => Ok(Split::Parent(WaitingChild {
            pid,
            go: go_writer,
            ready: ready_reader,
        })),
        Forked::Child => {
            drop(go_writer);
            fork::end_with_parent().map_err(SandboxError::DeathSignal)?;
            Ok(Split::Child(ParentLink {
                go: go_reader,
                ready: ready_writer,
            }))
        }
    }
}

impl WaitingChild {
    /// The child, for its id maps.
    pub(super) fn pid(&self) -> ChildPid {
        self.pid
    }

    /// Lets the child go on, and gives up all capabilities.
    ///
    /// # Errors
    /// [`SandboxError::Pipe`], [`SandboxError::DropCapabilities`].
    pub(super) fn go(mut self, prepared: Prepared) -> Result<Supervisor, SandboxError> {
        capabilities::drop_all(prepared).map_err(SandboxError::DropCapabilities)?;
        // A child that has ended already says by its status what went wrong.
        if let Err(error) = self.go.write_all(&TOKEN) {
            log::debug!("the child did not wait: {error}");
        }
        Ok(Supervisor {
            pid: self.pid,
            _alive: self.go,
            ready: self.ready,
        })
    }
}

impl Supervisor {
    /// Waits for the end of the child and returns it. `on_ready` is called when the child says
    /// that it is ready, if it ever does; what comes through `signals` is passed on.
    ///
    /// # Errors
    /// [`SandboxError::Watch`].
    pub fn watch(
        mut self,
        signals: &Signals,
        on_ready: impl FnOnce(),
    ) -> Result<ChildEnd, SandboxError> {
        let mut on_ready = Some(on_ready);
        loop {
            if let Some(end) = fork::ended(self.pid).map_err(SandboxError::Watch)? {
                return Ok(end);
            }
            let ready = on_ready.is_some().then(|| self.ready.as_fd());
            let [signalled, said] = poll::wait_readable([Some(signals.as_fd()), ready])
                .map_err(|error| SandboxError::Watch(Errno::from(error)))?;
            if said.readable || said.hung_up {
                let call = on_ready.take();
                let mut token = TOKEN;
                // The end of the pipe without the token is the end of the child, heard of soon.
                if let (Some(call), Ok(())) = (call, self.ready.read_exact(&mut token)) {
                    call();
                }
            }
            if signalled.readable {
                self.pass_on(signals.next().map_err(SandboxError::Watch)?);
            }
        }
    }

    fn pass_on(&self, signal: Signal) {
        match signal {
            Signal::Chld => (),
            Signal::Term | Signal::Int | Signal::Hup | Signal::Usr1 => {
                if let Err(errno) = signals::send(self.pid, signal) {
                    log::warn!("cannot pass {} on: {errno}", signal.name());
                }
            }
        }
    }
}

impl ParentLink {
    /// Waits until the parent has done its part. If that has failed the process ends: the parent
    /// says why.
    pub(super) fn wait_for_go(&self) {
        let mut token = TOKEN;
        let mut go = &self.go;
        if go.read_exact(&mut token).is_err() {
            fork::end_at_once(1);
        }
    }

    /// Asks once more to end with the parent, after a change of ids.
    ///
    /// # Errors
    /// [`SandboxError::DeathSignal`], [`SandboxError::ParentGone`].
    pub(super) fn follow(&self) -> Result<(), SandboxError> {
        fork::end_with_parent().map_err(SandboxError::DeathSignal)?;
        // It may have gone in between.
        match poll::is_hung_up(self.go.as_fd()) {
            true => Err(SandboxError::ParentGone),
            false => Ok(()),
        }
    }

    /// Says that everything is set up.
    pub fn ready(&self) {
        let mut ready = &self.ready;
        if let Err(error) = ready.write_all(&TOKEN) {
            log::debug!("nobody wants to know that the daemon is ready: {error}");
        }
    }
}
