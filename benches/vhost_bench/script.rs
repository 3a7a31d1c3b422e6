//! What: an actor that goes through the same few requests again and again.
//!
//! In: steps, each a function that makes a request of the state and one that takes its reply.
//! Out: an [`Actor`]. Invariant: a reply that is not what the step expects ends the benchmark: a
//! daemon that fails quickly is not fast.

use crate::common::request::{Header, OUT_HEADER};
use crate::common::u64_of;

use super::driver::{Actor, Request, payload};

/// What a step asks for.
pub(crate) struct Ask {
    pub(crate) opcode: u32,
    pub(crate) node: u64,
    pub(crate) body: Vec<u8>,
    /// Room behind the reply header; `None` for a request without reply.
    pub(crate) room: Option<usize>,
}

/// What one slot knows.
#[derive(Debug)]
pub(crate) struct State {
    /// Number of the slot, over all queues.
    pub(crate) slot: usize,
    /// The directory that belongs to the slot.
    pub(crate) dir: u64,
    /// Nodes of the files in it, by number.
    pub(crate) files: Vec<u64>,
    /// The handle that the set-up opened.
    pub(crate) fh: u64,
    /// What the last look-up or creation gave.
    pub(crate) node: u64,
    /// What the last OPEN gave.
    pub(crate) opened: u64,
    /// Where a listing goes on.
    pub(crate) offset: u64,
    /// Which file is next.
    pub(crate) turn: usize,
    /// Operations that the round has done so far.
    pub(crate) done: u64,
    /// Go on with the same step.
    pub(crate) again: bool,
}

/// One request.
pub(crate) struct Step {
    pub(crate) ask: fn(&State) -> Ask,
    pub(crate) take: fn(&mut State, Result<&[u8], i32>),
}

/// See the module head.
pub(crate) struct Script {
    steps: &'static [Step],
    at: usize,
    state: State,
    unique: u64,
    waits: bool,
}

impl Script {
    pub(crate) fn new(steps: &'static [Step], state: State) -> Self {
        Script {
            steps,
            at: 0,
            // Far from what the set-up used.
            unique: (1 << 40) * (1 + u64_of(state.slot)),
            state,
            waits: false,
        }
    }

    fn take(&mut self, reply: &[u8]) -> u64 {
        let step = &self.steps[self.at];
        let reply = match (step.ask)(&self.state).room {
            Some(_) => payload(reply),
            None => Ok(&[][..]),
        };
        (step.take)(&mut self.state, reply);
        if std::mem::take(&mut self.state.again) {
            return 0;
        }
        self.at += 1;
        if self.at < self.steps.len() {
            return 0;
        }
        self.at = 0;
        self.state.turn += 1;
        std::mem::take(&mut self.state.done).max(1)
    }
}

impl Actor for Script {
    fn next(&mut self, reply: &[u8]) -> Request {
        let completes = if self.waits { self.take(reply) } else { 0 };
        self.waits = true;
        let ask = (self.steps[self.at].ask)(&self.state);
        self.unique += 2;
        let header = Header {
            opcode: ask.opcode,
            unique: self.unique,
            node: ask.node,
            uid: 0,
            gid: 0,
            extension_words: 0,
        };
        Request {
            message: header.message(&ask.body),
            room: ask.room.map_or(0, |room| OUT_HEADER + room),
            completes,
        }
    }

    fn may_stop(&self) -> bool {
        self.at + 1 == self.steps.len()
    }
}
