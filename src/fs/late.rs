//! What: requests whose answer has to wait for somebody else.
//!
//! In: the right to set the request under way aside. Out: the duty to answer it later, from any
//! thread. Invariant: a request that was set aside is answered once: dropping a [`LateAnswer`]
//! answers `EIO`, and an answer to a guest that has gone has no effect. Does not: wait.

use std::fmt;

use crate::sys::errno::Result;

/// A request as the guest numbers it (`unique`), by which it can take the request back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(u64);

impl RequestId {
    /// The request with this number.
    pub const fn new(raw: u64) -> Self {
        RequestId(raw)
    }

    /// The number on the wire.
    pub const fn raw(self) -> u64 {
        self.0
    }
}

/// Where the request under way can be set aside.
pub trait WaitingRoom {
    /// Sets it aside; `None` when that cannot be. Whoever has done so returns
    /// [`Waited::Parked`]; anything else that is returned reaches nobody.
    fn park(&mut self) -> Option<Box<dyn LateAnswer>>;
}

/// The answer to a request that was set aside.
pub trait LateAnswer: Send + fmt::Debug {
    /// Which request it answers.
    fn request(&self) -> RequestId;

    /// Answers it, without a payload. Never blocks on the guest.
    fn answer(self: Box<Self>, result: Result<()>);
}

/// How far a request has come that may have to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// It is done.
    Settled,
    /// It was set aside and will be answered.
    Parked,
}
