//! What: a vhost-user front end without manners: any bytes, any descriptors, in any order.
//!
//! In: messages as bytes. Out: what the daemon answers, or that it closed the connection.
#![allow(
    unsafe_code,
    reason = "reads of the vmm-sys-util socket extension are unsafe"
)]

use std::io::{Read, Write};
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use super::TIMEOUT;
use super::request::{Bytes, Fields};

/// Request numbers.
pub(crate) mod msg {
    pub(crate) const GET_FEATURES: u32 = 1;
    pub(crate) const SET_FEATURES: u32 = 2;
    pub(crate) const SET_OWNER: u32 = 3;
    pub(crate) const SET_MEM_TABLE: u32 = 5;
    pub(crate) const SET_LOG_BASE: u32 = 6;
    pub(crate) const SET_LOG_FD: u32 = 7;
    pub(crate) const SET_VRING_NUM: u32 = 8;
    pub(crate) const SET_VRING_ADDR: u32 = 9;
    pub(crate) const SET_VRING_BASE: u32 = 10;
    pub(crate) const GET_VRING_BASE: u32 = 11;
    pub(crate) const SET_VRING_KICK: u32 = 12;
    pub(crate) const SET_VRING_CALL: u32 = 13;
    pub(crate) const SET_VRING_ERR: u32 = 14;
    pub(crate) const GET_PROTOCOL_FEATURES: u32 = 15;
    pub(crate) const SET_PROTOCOL_FEATURES: u32 = 16;
    pub(crate) const GET_QUEUE_NUM: u32 = 17;
    pub(crate) const SET_VRING_ENABLE: u32 = 18;
    pub(crate) const ADD_MEM_REG: u32 = 37;
    pub(crate) const REM_MEM_REG: u32 = 38;
}

/// Version 1.
pub(crate) const VERSION: u32 = 1;
/// Asks for an acknowledgement.
pub(crate) const NEED_REPLY: u32 = 1 << 3;

/// No control message takes longer, even on a slow machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A reply with this body.
    Body(Vec<u8>),
    /// The daemon closed the connection.
    Closed,
    /// Nothing, for as long as we waited.
    Silence,
}

impl Answer {
    /// The acknowledgement: 0 is success.
    pub(crate) fn status(&self) -> Option<u64> {
        match self {
            Answer::Body(body) if body.len() == 8 => Some(Fields::new(body).u64()),
            Answer::Body(_) | Answer::Closed | Answer::Silence => None,
        }
    }

    /// NAK or CONN of security.md 2.1.
    pub(crate) fn is_refusal(&self) -> bool {
        *self == Answer::Closed || self.status().is_some_and(|status| status != 0)
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct RawFrontend(UnixStream);

impl RawFrontend {
    pub(crate) fn new(stream: UnixStream) -> Self {
        stream
            .set_read_timeout(Some(TIMEOUT))
            .unwrap_or_else(|error| panic!("read timeout: {error}"));
        RawFrontend(stream)
    }

    /// The header of a message.
    pub(crate) fn header(request: u32, flags: u32, size: u32) -> Vec<u8> {
        Bytes::new().u32(request).u32(flags).u32(size).done()
    }

    /// Sends bytes with descriptors. False when the daemon has closed the connection.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8], fds: &[RawFd]) -> bool {
        if fds.is_empty() {
            self.0.write_all(bytes).is_ok()
        } else {
            self.0.send_with_fds(&[bytes], fds).is_ok()
        }
    }

    /// Sends a well-formed message that asks for an acknowledgement.
    pub(crate) fn send(&mut self, request: u32, body: &[u8], fds: &[RawFd]) -> bool {
        let mut bytes = Self::header(request, VERSION | NEED_REPLY, super::u32_of(body.len()));
        bytes.extend_from_slice(body);
        self.send_bytes(&bytes, fds)
    }

    /// Waits for an answer.
    pub(crate) fn receive(&mut self, timeout: Duration) -> Answer {
        self.0
            .set_read_timeout(Some(timeout))
            .unwrap_or_else(|error| panic!("read timeout: {error}"));
        let mut header = [0; 12];
        match self.0.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Answer::Silence,
            Err(_) => return Answer::Closed,
        }
        let mut fields = Fields::new(&header);
        let (_, _, size) = (fields.u32(), fields.u32(), fields.u32());
        let mut body = vec![0; super::usize_of(size)];
        match self.0.read_exact(&mut body) {
            Ok(()) => Answer::Body(body),
            Err(_) => Answer::Closed,
        }
    }

    /// Sends a message and waits for its answer.
    pub(crate) fn ask(&mut self, request: u32, body: &[u8], fds: &[RawFd]) -> Answer {
        if !self.send(request, body, fds) {
            return Answer::Closed;
        }
        self.receive(ANSWER_TIMEOUT)
    }

    /// A question whose answer is one number.
    pub(crate) fn ask_u64(&mut self, request: u32) -> u64 {
        let answer = self.ask(request, &[], &[]);
        answer
            .status()
            .unwrap_or_else(|| panic!("message {request} was answered with {answer:?}"))
    }

    /// Owner, features and REPLY_ACK, so that refusals can be seen.
    pub(crate) fn greet(&mut self) {
        let features = self.ask_u64(msg::GET_FEATURES);
        let protocol = self.ask_u64(msg::GET_PROTOCOL_FEATURES);
        let header = Self::header(msg::SET_PROTOCOL_FEATURES, VERSION, 8);
        let body = Bytes::new().u64(protocol & (1 | 1 << 3 | 1 << 15)).done();
        assert!(
            self.send_bytes(&[header, body].concat(), &[]),
            "connection lost"
        );
        assert_eq!(
            self.ask(msg::SET_OWNER, &[], &[]).status(),
            Some(0),
            "SET_OWNER"
        );
        let wanted = features & (1 << 32 | 1 << 30 | 1 << 29 | 1 << 28);
        let answer = self.ask(msg::SET_FEATURES, &Bytes::new().u64(wanted).done(), &[]);
        assert_eq!(answer.status(), Some(0), "SET_FEATURES");
    }

    pub(crate) fn into_stream(self) -> UnixStream {
        self.0
    }
}
