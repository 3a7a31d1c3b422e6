//! What: which requests a thread that has a queue to serve should rather leave to another.
//!
//! In: a request before it is served, and how long it took. Out: serve it, or defer it.
//!
//! Handing a request to another thread costs 10 to 50 us, and most requests take 1 to 10, so they
//! are served where they are. What waits (for a disk, for a server) makes all that stand behind it
//! wait, too, and 32 of them that could wait at the same time wait one after the other. Nothing
//! tells before which it will be, but requests of one kind are much alike for a while. So for
//! each opcode there is an estimate: the mean of the last times, weighed by age. READ is two kinds:
//! with contents in the host's page cache, which the file system can tell ([`Waiting`]), and
//! without.
//!
//! ```text
//!   estimate        nobody waits behind it     others wait
//!   > 500 us        defer                      defer
//!   > 100 us        serve                      defer
//!   less            serve                      serve (fsync and its kin: only if next to nothing)
//! ```
//!
//! A thread that had to leave its CPU to another for some milliseconds has not waited for anything,
//! and more threads would only make that worse. So one long time is a suspicion, by which the next
//! ones are looked at closely: what was long without giving up the CPU counts for nothing. fsync
//! and its kin are deferred for their length, whatever makes it.
//!
//! What moves many bytes takes its time without waiting for anybody, so each byte has an allowance
//! that does not count. Deferred requests are measured, too, so an estimate comes down again. They
//! never raise it: many threads at once wait for each other and for a CPU, and a pool that took that
//! for a slow store would keep itself busy for ever. A time counts at most [`SAMPLE_MAX_NS`], so one
//! that was stuck for minutes is soon forgotten.
//!
//! Never deferred: FORGET and BATCH_FORGET (nobody waits for them, they come by the hundreds, and
//! they only give back); INTERRUPT, and SETLKW, which it may be about: a lock that is taken parks
//! the request and no thread, and one that was not asked for yet could not be interrupted; INIT
//! and DESTROY, which wait for all others. Everything else may be overtaken by what came after it,
//! as on several queues: a guest does not send what depends on a reply before it has that.
//!
//! Invariants: lock-free; nothing here is exact, and lost updates do no harm. Estimates are
//! written only while an operation is slow, so threads that serve fast ones share cache lines
//! that nobody writes.
//!
//! Does not: know rings or file systems.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::fs::filesystem::Waiting;
use crate::sys::waits;
use crate::wire::channel::Pace;
use crate::wire::opcode::Opcode;

/// Above this a request is deferred in any case: ten times what that costs at worst.
const LIMIT_ALONE_NS: u32 = 500_000;

/// Above this it is deferred when others wait.
const LIMIT_OTHERS_NS: u32 = 100_000;

/// Below this a time says nothing: faster than handing it over could ever be.
const NOTICEABLE_NS: u32 = 20_000;

/// The most that one time counts.
const SAMPLE_MAX_NS: u32 = 8_000_000;

/// The estimate after a first long time: deferred for it is nothing, but the next ones are watched,
/// some ten if they are fast.
const SUSPICION_NS: u32 = 60_000;

/// What is taken for slow until it has shown how fast it is.
const PRIOR_SLOW_NS: u32 = 1_000_000;

/// Share of the latest time in an estimate: one of so many.
const WEIGHT: u32 = 8;

/// The same of the time of a deferred request, which can only lower it.
const WEIGHT_DEFERRED: u32 = 16;

/// Of requests that are fast so far, one of so many is measured: a look at the clock costs 25 ns,
/// and some requests take no more than 500.
const SAMPLED: u8 = 8;

/// Opcodes that have an estimate of their own; the others are not served at all.
const OPCODE_COUNT: usize = 64;

/// READ without the contents in the page cache, behind those of opcodes.
const READ_MISS: usize = OPCODE_COUNT;

/// See the file head.
#[derive(Debug)]
pub(super) struct Estimates {
    by_class: [AtomicU32; OPCODE_COUNT + 1],
}

/// How one request is served.
#[derive(Debug)]
pub(super) struct Turn {
    class: Option<usize>,
    begun: Option<Instant>,
    /// How often the thread had waited before, if it is watched.
    waits: Option<u64>,
    is_prompt: bool,
    is_unbounded: bool,
    allowance_per_byte_ns: u32,
    request_len: u32,
    waiting: Waiting,
    may_wait_after_all: bool,
}

impl Turn {
    /// Whether the file system may wait for contents.
    pub(super) fn waiting(&self) -> Waiting {
        self.waiting
    }

    /// The file system would have to wait. True when it may, after all; else the request is to be
    /// deferred.
    pub(super) fn may_wait_after_all(&mut self) -> bool {
        if !self.may_wait_after_all || self.waiting == Waiting::Allowed {
            return false;
        }
        self.waiting = Waiting::Allowed;
        self.class = Some(READ_MISS);
        self.begun.get_or_insert_with(Instant::now);
        self.waits.get_or_insert_with(waits::of_this_thread);
        true
    }
}

impl Estimates {
    /// Nothing is known yet.
    pub(super) fn new() -> Self {
        let estimates = Estimates {
            by_class: std::array::from_fn(|_| AtomicU32::new(0)),
        };
        let numbers = 0..u32::try_from(OPCODE_COUNT).unwrap_or(0);
        let opcodes = numbers.map(Opcode::from_raw);
        for opcode in opcodes.filter(|&opcode| opcode.has_no_bound()) {
            estimates.set(class_of(opcode), PRIOR_SLOW_NS);
        }
        estimates.set(Some(READ_MISS), PRIOR_SLOW_NS);
        estimates
    }

    /// How to serve a request of `request_len` bytes; `None`: not now, and not on this thread.
    /// `tick` counts the requests of the thread.
    pub(super) fn begin(
        &self,
        opcode: Opcode,
        request_len: u32,
        pace: Pace,
        tick: &mut u8,
    ) -> Option<Turn> {
        let mut turn = Turn {
            class: class_of(opcode),
            begun: None,
            waits: None,
            is_prompt: pace != Pace::Patient,
            is_unbounded: opcode.has_no_bound(),
            allowance_per_byte_ns: allowance_per_byte_ns(opcode),
            request_len,
            waiting: Waiting::Allowed,
            may_wait_after_all: false,
        };
        let is_read = opcode == Opcode::Read;
        match pace {
            Pace::Patient if is_read => turn.class = Some(READ_MISS),
            Pace::Patient => {}
            Pace::Prompt { others_wait } => {
                let limit = limit_ns(opcode, others_wait);
                if self.get(turn.class) > limit {
                    if is_read {
                        self.wear(turn.class);
                    }
                    return None;
                }
                if is_read {
                    turn.waiting = self.waiting_of_read(others_wait);
                    turn.may_wait_after_all = self.get(Some(READ_MISS)) <= limit;
                }
            }
        }
        *tick = tick.wrapping_add(1);
        let is_watched = self.get(turn.class) > 0;
        if is_watched && !turn.is_unbounded {
            turn.waits = Some(waits::of_this_thread());
        }
        if is_watched || tick.is_multiple_of(SAMPLED) {
            turn.begun = Some(Instant::now());
        }
        Some(turn)
    }

    /// The request was served; its reply has so many bytes.
    pub(super) fn end(&self, turn: &Turn, reply_len: u32) {
        if let (Some(begun), Some(_)) = (turn.begun, turn.class) {
            self.note(turn, reply_len, begun.elapsed(), waits::of_this_thread);
        }
    }

    fn note(
        &self,
        turn: &Turn,
        reply_len: u32,
        elapsed: Duration,
        waits_now: impl FnOnce() -> u64,
    ) {
        let moved = turn.request_len.max(reply_len);
        let allowed = moved.saturating_mul(turn.allowance_per_byte_ns) / ALLOWANCE_UNIT;
        let elapsed = u32::try_from(elapsed.as_nanos()).unwrap_or(u32::MAX);
        let mut sample = elapsed.saturating_sub(allowed).min(SAMPLE_MAX_NS);
        let before = self.get(turn.class);
        if sample < NOTICEABLE_NS {
            if before == 0 {
                return;
            }
        } else if !turn.is_unbounded {
            match turn.waits {
                None => return self.set(turn.class, before.max(SUSPICION_NS)),
                Some(waits) if waits == waits_now() => sample = 0,
                Some(_) => {}
            }
        }
        let (up, down) = (sample.saturating_sub(before), before.saturating_sub(sample));
        let after = match turn.is_prompt {
            true => before
                .saturating_add(up / WEIGHT)
                .saturating_sub(down / WEIGHT),
            false => before.saturating_sub(down / WEIGHT_DEFERRED),
        };
        // As good as nothing, and cheaper.
        let is_over = sample < NOTICEABLE_NS && after < NOTICEABLE_NS;
        self.set(turn.class, if is_over { 0 } else { after });
    }

    /// What is found to be fast before it is begun needs no estimate, except to be doubted when
    /// it was wrong: then a READ is deferred by an estimate that no other READ brings down, so
    /// that each one does.
    fn wear(&self, class: Option<usize>) {
        let estimate = self.get(class);
        self.set(class, estimate.saturating_sub(estimate / WEIGHT));
    }

    /// While all is calm it is not worth a system call of its own to find out.
    fn waiting_of_read(&self, others_wait: bool) -> Waiting {
        match others_wait || self.get(class_of(Opcode::Read)) > 0 {
            true => Waiting::Refused,
            false => Waiting::Avoided,
        }
    }

    fn get(&self, class: Option<usize>) -> u32 {
        // Relaxed: an estimate orders nothing.
        let estimate = class.and_then(|class| self.by_class.get(class));
        estimate.map_or(0, |estimate| estimate.load(Ordering::Relaxed))
    }

    fn set(&self, class: Option<usize>, estimate_ns: u32) {
        if let Some(estimate) = class.and_then(|class| self.by_class.get(class)) {
            estimate.store(estimate_ns, Ordering::Relaxed);
        }
    }
}

/// Above which estimate a request is deferred.
const fn limit_ns(opcode: Opcode, others_wait: bool) -> u32 {
    match (others_wait, opcode.has_no_bound()) {
        (false, _) => LIMIT_ALONE_NS,
        (true, false) => LIMIT_OTHERS_NS,
        // However fast the last ones were mostly, the next one may take a second.
        (true, true) => 0,
    }
}

/// Where the estimate of an opcode is; none for what is never deferred.
fn class_of(opcode: Opcode) -> Option<usize> {
    match opcode {
        Opcode::Forget
        | Opcode::BatchForget
        | Opcode::Interrupt
        | Opcode::Setlkw
        | Opcode::Init
        | Opcode::Destroy
        | Opcode::Unknown(_) => None,
        _ => usize::try_from(opcode.raw())
            .ok()
            .filter(|&class| class < OPCODE_COUNT),
    }
}

/// Allowances are in this part of a nanosecond.
const ALLOWANCE_UNIT: u32 = 8;

/// What a byte of the request or of its reply may take, in [`ALLOWANCE_UNIT`]s of a nanosecond:
/// to be copied, and with READDIR and READDIRPLUS to be found (0.3 us for an entry of 40 bytes, 2
/// to 3 us with its attributes, for one of 180).
const fn allowance_per_byte_ns(opcode: Opcode) -> u32 {
    match opcode {
        Opcode::Read | Opcode::Write => 4,
        Opcode::Readdir => 8 * ALLOWANCE_UNIT,
        Opcode::Readdirplus => 20 * ALLOWANCE_UNIT,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
