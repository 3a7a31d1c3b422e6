//! What: one front end's connection, message by message.
//!
//! In: bytes and descriptors from a socket whose other end may be hostile. Out: whole, well-framed
//! messages for the `vhost` crate's message layer, and an answer to each one that asks for one.
//!
//! Why an airlock: the message layer ends at its first error, answers some refusals and not
//! others, loses its place in the stream when descriptors come with a message that takes none,
//! and spins when there are more than 32. So it does not get the front end's socket, but one end
//! of a pair of our own; we put one checked message in, let it work, and take out what it
//! answered. When it refused without an answer, we send the one that REPLY_ACK promises.
//!
//! ```text
//!   front end <== Message::receive / answers ==> airlock <== socket pair ==> BackendReqHandler
//! ```
//!
//! Invariants: what is wrong with one message never touches the next; descriptors nobody took
//! are closed; broken framing ends the connection with a reason. One refused message, one log
//! line, up to a bound. Does not: know what a message does, see device.rs.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vhost::vhost_user::message::FrontendReq;
use vhost::vhost_user::{BackendReqHandler, Error};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::log_limit::guest_log;
use crate::sys::{control_socket, poll};

use super::counters::Counters;
use super::device::{Device, SharedDevice};
use super::error::TransportError;

const HEADER_SIZE: usize = 12;
/// Longest body; the protocol has none nearly as long.
const BODY_SIZE_MAX: usize = 4096;
/// Most descriptors that the message layer takes.
const DESCRIPTORS_MAX: usize = 32;

const FLAG_VERSION_MASK: u32 = 3;
const VERSION: u32 = 1;
const FLAG_REPLY: u32 = 4;
const FLAG_NEED_REPLY: u32 = 8;
const FLAGS_RESERVED: u32 = !0xf;

type Result<T> = std::result::Result<T, TransportError>;

/// One message of the front end, framed but not understood.
#[derive(Debug)]
struct Message {
    header: [u8; HEADER_SIZE],
    request: FrontendReq,
    needs_reply: bool,
    body: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Message {
    /// The next message; none when the front end has closed the connection between two.
    fn receive(socket: &UnixStream) -> Result<Option<Message>> {
        let mut header = [0; HEADER_SIZE];
        let mut descriptors = Vec::new();
        let got = fill(socket, &mut header, &mut descriptors)?;
        if got == 0 {
            return Ok(None);
        }
        if got < HEADER_SIZE {
            return Err(cut_off());
        }
        let [code, flags, size] = [word(&header, 0), word(&header, 4), word(&header, 8)];
        if flags & FLAG_VERSION_MASK != VERSION || flags & (FLAGS_RESERVED | FLAG_REPLY) != 0 {
            return Err(TransportError::Framing(format!(
                "message {code} has flags {flags:#x}"
            )));
        }
        let request = FrontendReq::try_from(code)
            .map_err(|_| TransportError::Framing(format!("there is no message {code}")))?;
        let size = usize::try_from(size)
            .ok()
            .filter(|size| *size <= BODY_SIZE_MAX)
            .ok_or_else(|| {
                TransportError::Framing(format!("message {request:?} claims {size} bytes"))
            })?;
        let mut body = vec![0; size];
        if fill(socket, &mut body, &mut descriptors)? < size {
            return Err(cut_off());
        }
        Ok(Some(Message {
            header,
            request,
            needs_reply: flags & FLAG_NEED_REPLY != 0,
            body,
            descriptors,
        }))
    }

    /// Why the message layer must not see this message.
    fn objection(&self) -> Option<String> {
        let count = self.descriptors.len();
        if count > DESCRIPTORS_MAX {
            return Some(format!("{count} descriptors, at most {DESCRIPTORS_MAX}"));
        }
        if count > 0 && !takes_descriptors(self.request) {
            return Some(format!("{count} descriptors where none belong"));
        }
        // The message layer refuses this, too, but does not know the remedy.
        if self.request == FrontendReq::SET_MEM_TABLE && word(&self.body, 0) == 0 {
            return Some(super::memory::MemoryError::NoRegions.to_string());
        }
        None
    }
}

fn takes_descriptors(request: FrontendReq) -> bool {
    matches!(
        request,
        FrontendReq::SET_MEM_TABLE
            | FrontendReq::SET_VRING_CALL
            | FrontendReq::SET_VRING_KICK
            | FrontendReq::SET_VRING_ERR
            | FrontendReq::SET_LOG_BASE
            | FrontendReq::SET_LOG_FD
            | FrontendReq::SET_BACKEND_REQ_FD
            | FrontendReq::SET_INFLIGHT_FD
            | FrontendReq::ADD_MEM_REG
            | FrontendReq::REM_MEM_REG
            | FrontendReq::SET_DEVICE_STATE_FD
            | FrontendReq::GPU_SET_SOCKET
    )
}

/// Messages whose answer has contents of its own, so that a plain refusal would be misread.
/// SET_LOG_BASE is not among them: without LOG_SHMFD it has no answer of its own.
fn has_own_answer(request: FrontendReq) -> bool {
    matches!(
        request,
        FrontendReq::GET_FEATURES
            | FrontendReq::GET_VRING_BASE
            | FrontendReq::GET_PROTOCOL_FEATURES
            | FrontendReq::GET_QUEUE_NUM
            | FrontendReq::GET_CONFIG
            | FrontendReq::CREATE_CRYPTO_SESSION
            | FrontendReq::POSTCOPY_ADVISE
            | FrontendReq::GET_INFLIGHT_FD
            | FrontendReq::GET_MAX_MEM_SLOTS
            | FrontendReq::GET_STATUS
            | FrontendReq::GET_SHARED_OBJECT
            | FrontendReq::SET_DEVICE_STATE_FD
            | FrontendReq::CHECK_DEVICE_STATE
            | FrontendReq::GET_SHMEM_CONFIG
    )
}

/// The word at `at` in the byte order of the machine; zero where there is none.
fn word(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |word| u32::from_ne_bytes(*word))
}

/// Reads until `buf` is full or the stream ends.
fn fill(socket: &UnixStream, buf: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> Result<usize> {
    let mut filled = 0_usize;
    while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match control_socket::receive(socket, rest, descriptors) {
            Ok(0) => break,
            Ok(count) => filled = filled.saturating_add(count),
            // A front end that goes while we talk to it has just gone.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) => return Err(TransportError::Socket(error)),
        }
    }
    Ok(filled)
}

fn cut_off() -> TransportError {
    TransportError::Framing("it left in the middle of a message".to_owned())
}

/// See the file head.
pub(super) struct Connection {
    front: UnixStream,
    /// Our end of the pair.
    airlock: UnixStream,
    /// A second handle of the message layer's end, to clear what it left unread.
    inner: UnixStream,
    layer: BackendReqHandler<Mutex<Device>>,
    device: SharedDevice,
    counters: Arc<Counters>,
}

impl Connection {
    /// Puts the message layer behind its airlock.
    pub(super) fn new(
        front: UnixStream,
        device: SharedDevice,
        counters: Arc<Counters>,
    ) -> Result<Connection> {
        let (airlock, layer_end) = UnixStream::pair().map_err(TransportError::Channel)?;
        let inner = layer_end.try_clone().map_err(TransportError::Channel)?;
        // The daemon may have accepted with a listener that does not block.
        front
            .set_nonblocking(false)
            .map_err(TransportError::Socket)?;
        Ok(Connection {
            front,
            airlock,
            inner,
            layer: BackendReqHandler::from_stream(layer_end, Arc::clone(&device)),
            device,
            counters,
        })
    }

    /// Answers messages until the front end closes the connection.
    ///
    /// # Errors
    /// The socket failed, or the front end sent what cannot be answered.
    pub(super) fn run(&mut self) -> Result<()> {
        while let Some(message) = Message::receive(&self.front)? {
            log::trace!(
                "{:?}: {} bytes, {} descriptors",
                message.request,
                message.body.len(),
                message.descriptors.len()
            );
            let answer = match message.objection().or_else(|| self.objection(&message)) {
                Some(reason) => Answer::Refused(reason),
                None => self.pass(&message)?,
            };
            match answer {
                Answer::Bytes(bytes) => self.send(&bytes)?,
                Answer::RefusedWith(bytes, reason) => {
                    self.log_refusal(&message, &reason);
                    self.send(&bytes)?;
                }
                Answer::Refused(reason) => {
                    self.log_refusal(&message, &reason);
                    self.send_refusal(&message, reason)?;
                }
            }
        }
        Ok(())
    }

    fn objection(&self, message: &Message) -> Option<String> {
        let features = u64::from_ne_bytes(*message.body.first_chunk()?);
        let checked = self.device().check_features(message.request, features);
        checked.err().map(reason)
    }

    /// Lets the message layer work on one message.
    fn pass(&mut self, message: &Message) -> Result<Answer> {
        let descriptors: Vec<RawFd> = message.descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let whole = [message.header.as_slice(), message.body.as_slice()].concat();
        // The pair is empty, so a message of at most a page and a bit goes in at once.
        self.airlock
            .send_with_fds(&[whole.as_slice()], &descriptors)
            .map_err(|error| TransportError::Channel(error.into()))?;
        let handled = self.layer.handle_request();
        take_all(&self.inner)?;
        let bytes = take_all(&self.airlock)?;
        Ok(match handled {
            Ok(()) => Answer::Bytes(bytes),
            Err(error) if bytes.is_empty() => Answer::Refused(reason(error)),
            Err(error) => Answer::RefusedWith(bytes, reason(error)),
        })
    }

    fn log_refusal(&self, message: &Message, reason: &str) {
        Counters::count(&self.counters.refused_messages);
        guest_log!(log::Level::Warn, "refused {:?}: {reason}", message.request);
    }

    fn send_refusal(&mut self, message: &Message, reason: String) -> Result<()> {
        if message.request == FrontendReq::GET_CONFIG {
            // Its refusal is an answer with no contents.
            return self.send(&answer(message.request, &[0; 12]));
        }
        if has_own_answer(message.request) {
            return Err(TransportError::Unanswerable(format!(
                "{:?}: {reason}",
                message.request
            )));
        }
        if message.needs_reply && self.device().acknowledges() {
            return self.send(&answer(message.request, &1_u64.to_ne_bytes()));
        }
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        match self.front.write_all(bytes) {
            // The next read finds the end of the stream.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(TransportError::Socket),
        }
    }

    fn device(&self) -> MutexGuard<'_, Device> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the message layer made of a message.
enum Answer {
    /// Done, with this answer (perhaps none).
    Bytes(Vec<u8>),
    /// Refused, and the layer has said so itself.
    RefusedWith(Vec<u8>, String),
    /// Refused without a word.
    Refused(String),
}

/// The reason without the layer's own words around it.
fn reason(error: Error) -> String {
    match error {
        Error::ReqHandlerError(error) => error.to_string(),
        Error::InactiveOperation(feature) => {
            format!("protocol feature {:#x} was not accepted", feature.bits())
        }
        Error::InactiveFeature(feature) => {
            format!("feature {:#x} was not accepted", feature.bits())
        }
        other => other.to_string(),
    }
}

/// A whole answer to `request`.
fn answer(request: FrontendReq, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len()).unwrap_or(0);
    let mut bytes = Vec::with_capacity(HEADER_SIZE.saturating_add(body.len()));
    for word in [u32::from(request), VERSION | FLAG_REPLY, size] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.extend_from_slice(body);
    bytes
}

/// What waits in one end of the pair, without waiting for more.
fn take_all(mut end: &UnixStream) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut piece = [0; 512];
    while poll::is_readable(end.as_fd()) {
        match end.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(piece.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(TransportError::Channel(error)),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
