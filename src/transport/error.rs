//! What: why a connection could not be served or had to be closed, for the one line that the
//! operator reads. Lower case, cause first, remedy where there is one.

use std::fmt;
use std::io;

/// Why [`serve`](super::serve) ended otherwise than by the front end's leaving.
#[derive(Debug)]
pub enum TransportError {
    /// The tag is empty, longer than 36 bytes, or has a newline or NUL in it.
    Tag(String),
    /// The pool's threads could not be started.
    ThreadPool(io::Error),
    /// The sockets between us and the message layer could not be made.
    Channel(io::Error),
    /// The socket to the front end failed.
    Socket(io::Error),
    /// The front end sent something that is no vhost-user message.
    Framing(String),
    /// The front end asked for something that cannot be answered, not even with a refusal.
    Unanswerable(String),
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransportError::Tag(tag) => write!(
                f,
                "tag {tag:?} is not usable: it needs 1 to 36 bytes without newline or NUL"
            ),
            TransportError::ThreadPool(_) => f.write_str("cannot start the thread pool"),
            TransportError::Channel(_) => f.write_str("cannot set up the message channel"),
            TransportError::Socket(_) => f.write_str("the connection to the front end failed"),
            TransportError::Framing(what) => {
                write!(f, "the front end does not speak vhost-user: {what}")
            }
            TransportError::Unanswerable(what) => {
                write!(f, "the front end's request cannot be answered: {what}")
            }
        }
    }
}

impl std::error::Error for TransportError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            TransportError::ThreadPool(error)
            | TransportError::Channel(error)
            | TransportError::Socket(error) => Some(error),
            TransportError::Tag(_)
            | TransportError::Framing(_)
            | TransportError::Unanswerable(_) => None,
        }
    }
}
