//! What: an actor that goes through the same few requests again and again.
//!
//! In: steps, each a function that makes a request of the state and one that takes its reply.
//! Out: an [`Actor`]. Invariant: a reply that is not what the step expects ends the benchmark: a
//! daemon that fails quickly is not fast.

use std::sync::Arc;

use crate::common::u64_of;

use super::driver::Actor;
use super::message::{Message, Reply};
use super::places::Place;

/// What one slot knows.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) place: Arc<Place>,
    /// The handle that the set-up opened.
    pub(crate) fh: u64,
    /// What the last look-up or creation gave.
    pub(crate) node: u64,
    /// What the last OPEN gave.
    pub(crate) opened: u64,
    /// Where a listing goes on.
    pub(crate) offset: u64,
    /// How often the steps were gone through.
    pub(crate) turn: usize,
    /// Which file of a directory is next.
    pub(crate) file: usize,
    /// Operations that the round has done so far.
    pub(crate) done: u64,
    /// Steps to go back: 1 does the same step again.
    pub(crate) back: usize,
}

impl State {
    pub(crate) fn new(place: Arc<Place>, fh: u64) -> Self {
        State {
            place,
            fh,
            node: 0,
            opened: 0,
            offset: 0,
            turn: 0,
            file: 0,
            done: 0,
            back: 0,
        }
    }
}

/// One request.
pub(crate) struct Step {
    pub(crate) ask: fn(&State, &mut Message),
    pub(crate) take: fn(&mut State, &Reply<'_>),
}

/// See the module head.
pub(crate) struct Script {
    steps: &'static [Step],
    at: usize,
    state: State,
    unique: u64,
}

impl Script {
    pub(crate) fn new(steps: &'static [Step], state: State) -> Self {
        Script {
            steps,
            at: 0,
            // Far from what the set-up used.
            unique: (1 << 40) * (1 + u64_of(state.place.slot)),
            state,
        }
    }

    fn take(&mut self, reply: &Reply<'_>) -> u64 {
        (self.steps[self.at].take)(&mut self.state, reply);
        self.at += 1;
        self.at -= std::mem::take(&mut self.state.back);
        if self.at < self.steps.len() {
            return 0;
        }
        self.at = 0;
        self.state.turn += 1;
        std::mem::take(&mut self.state.done).max(1)
    }
}

impl Actor for Script {
    fn next(&mut self, reply: Option<&Reply<'_>>, message: &mut Message) -> u64 {
        let completes = reply.map_or(0, |reply| self.take(reply));
        (self.steps[self.at].ask)(&self.state, message);
        self.unique += 2;
        message.finish(self.unique);
        completes
    }

    fn is_last(&self, is_over: bool) -> bool {
        is_over && self.at + 1 == self.steps.len()
    }
}
