//! What: the lock operations of a [`Session`]: fcntl(2) and flock(2) as a guest's kernel sends
//! them, and requests that are left waiting.
//!
//! In: a [`Lock`]. Out: decoded replies, or the positive errno; for SETLKW a [`Waiting`].

use super::request::{Bytes, Fields, OUT_HEADER, op};
use super::session::{Reply, Session};

pub(crate) const READ: u32 = 0;
pub(crate) const WRITE: u32 = 1;
pub(crate) const UNLOCK: u32 = 2;
/// `OFFSET_MAX`.
pub(crate) const LAST: u64 = i64::MAX.unsigned_abs();

const LK_FLOCK: u32 = 1;
const RELEASE_FLOCK_UNLOCK: u32 = 2;

/// `fuse_lk_in`; the process has the owner's number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lock {
    pub(crate) node: u64,
    pub(crate) fh: u64,
    pub(crate) owner: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) kind: u32,
    pub(crate) flags: u32,
}

impl Lock {
    /// A POSIX lock on everything.
    pub(crate) fn new((node, fh): (u64, u64), owner: u64, kind: u32) -> Self {
        Lock {
            node,
            fh,
            owner,
            start: 0,
            end: LAST,
            kind,
            flags: 0,
        }
    }

    /// A lock of flock(2).
    pub(crate) fn flock(open: (u64, u64), owner: u64, kind: u32) -> Self {
        Lock {
            flags: LK_FLOCK,
            ..Self::new(open, owner, kind)
        }
    }

    pub(crate) fn range(self, start: u64, end: u64) -> Self {
        Lock { start, end, ..self }
    }

    fn body(&self) -> Vec<u8> {
        Bytes::new()
            .u64(self.fh)
            .u64(self.owner)
            .u64(self.start)
            .u64(self.end)
            .u32(self.kind)
            .u32(super::u32_of(super::usize_of64(self.owner)))
            .u32(self.flags)
            .u32(0)
            .done()
    }
}

/// A SETLKW that was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) head: u16,
    pub(crate) unique: u64,
}

impl Session {
    /// GETLK: start, end, type and process of what is in the way.
    pub(crate) fn getlk(&mut self, lock: &Lock) -> Reply<(u64, u64, u32, u32)> {
        let reply = self.call(op::GETLK, lock.node, &lock.body(), 24)?;
        let mut fields = Fields::new(&reply);
        let found = (fields.u64(), fields.u64(), fields.u32(), fields.u32());
        fields.end();
        Ok(found)
    }

    pub(crate) fn setlk(&mut self, lock: &Lock) -> Reply<()> {
        self.plain(op::SETLK, lock.node, &lock.body())
    }

    /// Sends SETLKW without waiting for its reply.
    pub(crate) fn start_setlkw(&mut self, lock: &Lock) -> Waiting {
        let (message, unique) = self.message(op::SETLKW, lock.node, &lock.body());
        let head = self.queue.submit(&message, OUT_HEADER);
        Waiting { head, unique }
    }

    /// Waits for the reply to a SETLKW.
    pub(crate) fn finish(&mut self, waiting: Waiting) -> Reply<()> {
        let completion = self.queue.wait_for(waiting.head);
        self.decode(op::SETLKW, waiting.unique, &completion)
            .map(drop)
    }

    /// FLUSH by the process that owns these locks.
    pub(crate) fn flush_as(&mut self, (node, fh): (u64, u64), owner: u64) -> Reply<()> {
        let body = Bytes::new().u64(fh).u32(0).u32(0).u64(owner).done();
        self.plain(op::FLUSH, node, &body)
    }

    /// RELEASE of an open file with a lock of flock(2).
    pub(crate) fn release_flock(&mut self, (node, fh): (u64, u64), owner: u64) -> Reply<()> {
        let body = Bytes::new()
            .u64(fh)
            .u32(0)
            .u32(RELEASE_FLOCK_UNLOCK)
            .u64(owner)
            .done();
        self.plain(op::RELEASE, node, &body)
    }

    /// INTERRUPT, which has no reply.
    pub(crate) fn interrupt(&mut self, waiting: Waiting) {
        let body = Bytes::new().u64(waiting.unique).done();
        let (message, _) = self.message(op::INTERRUPT, 0, &body);
        self.send_without_reply(&message);
    }
}
