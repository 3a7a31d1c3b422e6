//! What: a request that is written again and again into the same buffer, and a look at its reply.
//!
//! In: the fields of a request in the order of fuse.h. Out: its bytes, how much payload follows
//! on the slot's pages, and how much room the reply needs. Allocates nothing once it is warm.

use crate::common::request::{IN_HEADER, OUT_HEADER};
use crate::common::u32_of;

/// Bytes of a reply, header included, that an actor sees unless it wants more or less.
const LOOKS_AT: usize = 512;

/// See the module head.
#[derive(Debug, Default)]
pub(crate) struct Message {
    bytes: Vec<u8>,
    payload: usize,
    room: Option<usize>,
    looks_at: usize,
}

impl Message {
    /// Starts a request with a reply of up to `room` bytes behind its header.
    pub(crate) fn ask(&mut self, opcode: u32, node: u64, room: usize) -> &mut Self {
        self.begin(opcode, node);
        self.room = Some(room);
        self
    }

    /// Starts a request without a reply.
    pub(crate) fn tell(&mut self, opcode: u32, node: u64) -> &mut Self {
        self.begin(opcode, node);
        self
    }

    fn begin(&mut self, opcode: u32, node: u64) {
        self.bytes.clear();
        self.bytes.resize(IN_HEADER, 0);
        self.bytes[4..8].copy_from_slice(&opcode.to_le_bytes());
        self.bytes[16..24].copy_from_slice(&node.to_le_bytes());
        self.payload = 0;
        self.room = None;
        self.looks_at = LOOKS_AT;
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Open flags, which libc has as signed numbers.
    pub(crate) fn i32(&mut self, value: i32) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A name with its NUL.
    pub(crate) fn name(&mut self, name: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
        self
    }

    /// Fields that stay zero.
    pub(crate) fn zeros(&mut self, len: usize) -> &mut Self {
        self.bytes.resize(self.bytes.len() + len, 0);
        self
    }

    /// Ends with what lies on the slot's pages.
    pub(crate) fn with_payload(&mut self, len: usize) -> &mut Self {
        self.payload = len;
        self
    }

    /// How many bytes behind the reply's header the actor wants to see.
    pub(crate) fn look_at(&mut self, len: usize) -> &mut Self {
        self.looks_at = OUT_HEADER + len;
        self
    }

    /// Gives the request its number and its length, when it is complete.
    pub(crate) fn finish(&mut self, unique: u64) {
        let len = u32_of(self.bytes.len() + self.payload);
        self.bytes[0..4].copy_from_slice(&len.to_le_bytes());
        self.bytes[8..16].copy_from_slice(&unique.to_le_bytes());
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn payload(&self) -> usize {
        self.payload
    }

    pub(crate) fn room(&self) -> Option<usize> {
        self.room
    }

    pub(crate) fn looks_at(&self) -> usize {
        self.looks_at
    }
}

/// A reply, of which the first bytes were looked at.
#[derive(Debug)]
pub(crate) struct Reply<'a> {
    bytes: &'a [u8],
    len: usize,
    /// The positive errno, or 0.
    pub(crate) errno: i32,
}

impl<'a> Reply<'a> {
    /// `bytes` are the first of `len`. A request without a reply has one of length 0.
    pub(crate) fn new(bytes: &'a [u8], len: usize, is_due: bool) -> Self {
        if !is_due {
            assert_eq!(len, 0, "a reply to a request that has none");
            return Reply {
                bytes: &[],
                len: 0,
                errno: 0,
            };
        }
        let word = bytes.get(4..8).and_then(|word| word.first_chunk());
        let errno = word.map(|word| -i32::from_le_bytes(*word));
        Reply {
            bytes: bytes.get(OUT_HEADER..).unwrap_or(&[]),
            len: len.saturating_sub(OUT_HEADER),
            errno: errno.expect("a reply has a header"),
        }
    }

    /// Panics unless the request succeeded.
    pub(crate) fn done(&self) -> &Self {
        assert_eq!(self.errno, 0, "a request failed");
        self
    }

    /// What was looked at, behind the header.
    pub(crate) fn payload(&self) -> &'a [u8] {
        self.done();
        self.bytes
    }

    /// Length of the whole payload.
    pub(crate) fn payload_len(&self) -> usize {
        self.done();
        self.len
    }

    /// The eight bytes at `at` of the payload.
    pub(crate) fn word(&self, at: usize) -> u64 {
        let word = self.payload()[at..].first_chunk();
        u64::from_le_bytes(*word.expect("a reply as long as that"))
    }
}
