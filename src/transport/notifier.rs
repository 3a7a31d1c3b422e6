//! What: the descriptors that wake somebody: kick (the driver wakes us), call and err (we wake
//! the front end).
//!
//! In: descriptors of any kind that the front end chose. Out: [`Kick`], read without blocking;
//! [`Signal`], written without blocking. Invariants: nothing here blocks or panics; a kick
//! descriptor that is always readable (a file, a closed pipe) is refused or given up, so that it
//! cannot keep a thread busy.
//!
//! Does not: decide when to signal.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;

use crate::sys::poll;

/// What a read of a kick descriptor found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kicked {
    /// At least one kick.
    Yes,
    /// None; somebody else was faster, or a signal came.
    No,
    /// There will never be one.
    Never,
}

/// Wakes a queue's worker.
#[derive(Debug)]
pub(super) struct Kick {
    file: File,
}

impl Kick {
    /// Takes a descriptor of SET_VRING_KICK.
    ///
    /// # Errors
    /// A kind of file that cannot wait (it would be readable all the time), or fcntl(2)'s error.
    pub(super) fn new(file: File) -> io::Result<Kick> {
        if !can_wait(&file)? {
            return Err(io::Error::other(
                "it is neither an eventfd nor a pipe nor a socket",
            ));
        }
        // Another reader may take what poll(2) promised us; then read(2) must not block.
        poll::set_nonblocking(file.as_fd())?;
        Ok(Kick { file })
    }

    /// Takes all kicks that are there.
    pub(super) fn take(&self) -> Kicked {
        // An eventfd gives 8 bytes at once whatever the size of the buffer, a pipe gives more.
        let mut bytes = [0; 512];
        match (&self.file).read(&mut bytes) {
            Ok(0) => Kicked::Never,
            Ok(_) => Kicked::Yes,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Kicked::No,
                _ => Kicked::Never,
            },
        }
    }

    /// To wait for.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Wakes the front end. User Mode Linux passes a pipe here, all others an eventfd.
#[derive(Debug)]
pub(super) struct Signal {
    file: File,
    usable: bool,
    may_block: bool,
}

impl Signal {
    /// Takes a descriptor of SET_VRING_CALL or SET_VRING_ERR. Its flags are left alone: the front
    /// end shares them, and may want to block when it reads.
    pub(super) fn new(file: File) -> Signal {
        let usable = can_wait(&file).unwrap_or(false);
        let may_block = !poll::is_nonblocking(file.as_fd());
        Signal {
            file,
            usable,
            may_block,
        }
    }

    /// Sends one; false when it did not arrive.
    pub(super) fn send(&self) -> bool {
        if !self.usable || (self.may_block && !poll::is_writable(self.file.as_fd())) {
            return false;
        }
        loop {
            match (&self.file).write(&1_u64.to_ne_bytes()) {
                Ok(count) => return count == 8,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }
}

/// Whether the file is of a kind that one can wait for: an eventfd has no file type at all.
fn can_wait(file: &File) -> io::Result<bool> {
    let kind = file.metadata()?.file_type();
    Ok(!(kind.is_file() || kind.is_dir() || kind.is_char_device() || kind.is_block_device()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    fn eventfd_pair() -> (File, File) {
        let eventfd = poll::eventfd().expect("eventfd");
        let copy = eventfd.try_clone().expect("dup");
        (eventfd, copy)
    }

    #[test]
    fn send_to_a_full_eventfd_fails_without_blocking() {
        let (mut eventfd, file) = eventfd_pair();
        let full = u64::MAX - 1;
        eventfd.write_all(&full.to_ne_bytes()).expect("room");
        assert!(!Signal::new(file.try_clone().expect("dup")).send());
        poll::set_nonblocking(eventfd.as_fd()).expect("fcntl");
        assert!(!Signal::new(file).send());
    }

    #[test]
    fn send_to_a_free_eventfd_arrives() {
        let (mut eventfd, file) = eventfd_pair();
        assert!(Signal::new(file).send());
        let mut count = [0; 8];
        eventfd.read_exact(&mut count).expect("a signal");
        assert_eq!(u64::from_ne_bytes(count), 1);
    }

    #[test]
    fn send_to_a_closed_peer_or_a_regular_file_fails() {
        let (one, other) = UnixStream::pair().expect("a socket pair");
        drop(other);
        assert!(!Signal::new(File::from(OwnedFd::from(one))).send());
        let null = File::open("/dev/null").expect("/dev/null");
        assert!(!Signal::new(null).send());
    }

    #[test]
    fn kick_that_is_always_readable_is_refused_or_given_up() {
        assert!(Kick::new(File::open("/dev/zero").expect("/dev/zero")).is_err());
        let (one, other) = UnixStream::pair().expect("a socket pair");
        let kick = Kick::new(File::from(OwnedFd::from(one))).expect("a socket can wait");
        assert_eq!(kick.take(), Kicked::No);
        drop(other);
        assert_eq!(kick.take(), Kicked::Never);
    }
}
