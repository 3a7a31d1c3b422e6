//! What: INIT, and who may be at work while a session begins or ends.
//!
//! In: the arguments of INIT and the wishes of the file system. Out: the reply, and one immutable
//! [`Negotiated`] that every request sees. Invariants: a bit is acknowledged only if the guest
//! offered it, somebody here wants it, and this server can keep the promise.
//!
//! ```text
//!            INIT ok                 INIT ok (the old session ends first)
//!   none ---------------> running ---------------+
//!    ^  ^                  |   ^                 |
//!    |  +--- INIT refused -+   +-----------------+
//!    +------ DESTROY, reset
//! ```
//!
//! Requests hold a read lock for as long as they are served; INIT, DESTROY and reset take the
//! write locks, so they wait for requests under way and run alone. The lock is split into shards,
//! because workers of several queues would otherwise pull one cache line back and forth for each
//! request. Lock order: shards by index; a thread that serves a request holds one shard and never
//! asks for another. Does not: call the file system.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::fs::types::{Negotiated, SessionWishes};
use crate::wire::flags::SessionFlags;
use crate::wire::pod::Plain;
use crate::wire::request::InitIn;
use crate::wire::response::InitOut;
use crate::wire::{
    MAJOR_VERSION, MINOR_VERSION, MINOR_VERSION_CONTEXTS, MINOR_VERSION_EXTENSIONS,
    MINOR_VERSION_MIN, PAGE_SIZE_BYTES,
};

/// Most pages of one request. A guest takes what its queue and its settings allow: 1020 with a
/// queue of 1024.
const MAX_PAGES: u16 = 1024;

/// Largest WRITE in bytes: all [`MAX_PAGES`] of a request (4 MiB).
const MAX_WRITE_BYTES: u32 = 1024 * PAGE_SIZE_BYTES;

/// Most background requests under way. A guest's own default of 12 would throttle read-ahead,
/// asynchronous direct I/O and write-back.
const MAX_BACKGROUND: u16 = u16::MAX;

/// From so many on the guest holds back: three quarters of [`MAX_BACKGROUND`].
const CONGESTION_THRESHOLD: u16 = MAX_BACKGROUND / 4 * 3;

/// Resolution of times in nanoseconds.
const TIME_GRAN_NS: u32 = 1;

/// Wanted for the protocol's own sake, whatever the file system thinks: larger requests, the
/// upper half of the flags, and the longer SETXATTR, which `decode` understands.
const WANTED_BY_SERVER: SessionFlags = SessionFlags::INIT_EXT
    .union(SessionFlags::MAX_PAGES)
    .union(SessionFlags::BIG_WRITES)
    .union(SessionFlags::SETXATTR_EXT);

/// Promises that this server cannot keep, whoever wants them: there is no DAX window, no
/// /dev/fuse, and no queue for notifications; an aborted connection would cost the mount.
const NEVER: SessionFlags = SessionFlags::MAP_ALIGNMENT
    .union(SessionFlags::HAS_INODE_DAX)
    .union(SessionFlags::SPLICE_WRITE)
    .union(SessionFlags::SPLICE_MOVE)
    .union(SessionFlags::SPLICE_READ)
    .union(SessionFlags::ABORT_ERROR)
    .union(SessionFlags::PASSTHROUGH)
    .union(SessionFlags::OVER_IO_URING)
    .union(SessionFlags::HAS_EXPIRE_ONLY)
    .union(SessionFlags::HAS_RESEND)
    .union(SessionFlags::REQUEST_TIMEOUT);

/// What a guest can mean only from a minor version on, whatever it offers.
const SINCE: [(u32, SessionFlags); 2] = [
    (MINOR_VERSION_CONTEXTS, SessionFlags::SECURITY_CTX),
    (MINOR_VERSION_EXTENSIONS, SessionFlags::CREATE_SUPP_GROUP),
];

/// What an INIT leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InitAnswer {
    /// The guest speaks a newer major version: it learns ours and asks again.
    VersionOnly(InitOut),
    /// A session begins.
    Session(InitOut, Negotiated),
}

/// Why there is no session (`EPROTO`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The guest is too old.
    Version,
    /// It does not offer what the file system requires.
    Lacks(SessionFlags),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Version => write!(
                f,
                "it is older than {MAJOR_VERSION}.{MINOR_VERSION_MIN} (Linux 4.16)"
            ),
            Refusal::Lacks(capabilities) => write!(
                f,
                "it cannot do {}, which the options of this daemon require",
                Names(*capabilities)
            ),
        }
    }
}

/// Capabilities as a person reads them.
pub(super) struct Names(pub(super) SessionFlags);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, _)) in self.0.iter_names().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{name}")?;
        }
        Ok(())
    }
}

/// Decides about an INIT.
///
/// Errors: see [`Refusal`].
pub(super) fn negotiate(init: &InitIn, wishes: &SessionWishes) -> Result<InitAnswer, Refusal> {
    let version_only = InitOut {
        major: MAJOR_VERSION,
        minor: MINOR_VERSION,
        ..InitOut::zero()
    };
    if init.major > MAJOR_VERSION {
        return Ok(InitAnswer::VersionOnly(version_only));
    }
    if init.major < MAJOR_VERSION || init.minor < MINOR_VERSION_MIN {
        return Err(Refusal::Version);
    }
    let flags = wishes.wanted | wishes.required | WANTED_BY_SERVER;
    let mut flags = (flags & offered_flags(init)).difference(NEVER);
    let lacking = wishes.required.difference(flags);
    if !lacking.is_empty() {
        return Err(Refusal::Lacks(lacking));
    }
    for dependency in wishes.dependencies {
        if !flags.contains(dependency.needs) {
            flags.remove(dependency.capability);
        }
    }
    let (low, high) = flags.halves();
    let max_pages = match flags.contains(SessionFlags::MAX_PAGES) {
        true => MAX_PAGES,
        false => 0,
    };
    let out = InitOut {
        max_readahead: init.max_readahead,
        flags: low,
        max_background: MAX_BACKGROUND,
        congestion_threshold: CONGESTION_THRESHOLD,
        max_write: MAX_WRITE_BYTES,
        time_gran: TIME_GRAN_NS,
        max_pages,
        flags2: high,
        ..version_only
    };
    let negotiated = Negotiated {
        minor: init.minor.min(MINOR_VERSION),
        flags,
        max_write_bytes: MAX_WRITE_BYTES,
    };
    Ok(InitAnswer::Session(out, negotiated))
}

/// What the guest offers and can mean with its version.
fn offered_flags(init: &InitIn) -> SessionFlags {
    let low = SessionFlags::from_halves(init.flags, 0);
    let offered = match low.contains(SessionFlags::INIT_EXT) {
        true => SessionFlags::from_halves(init.flags, init.flags2),
        false => low,
    };
    let too_new = SINCE.iter().filter(|(since, _)| init.minor < *since);
    too_new.fold(offered, |offered, (_, flags)| offered.difference(*flags))
}

/// Shards of the lock. More threads than shards share, which is slower, not wrong.
const SHARD_COUNT: usize = 16;

/// One shard on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    negotiated: RwLock<Option<Negotiated>>,
}

/// The session of a guest, if there is one.
#[derive(Debug, Default)]
pub(super) struct Session {
    shards: [Shard; SHARD_COUNT],
    init_under_way: AtomicBool,
}

/// Proof that a session runs and goes on running.
#[derive(Debug)]
pub(super) struct Running<'a> {
    negotiated: Negotiated,
    _shard: RwLockReadGuard<'a, Option<Negotiated>>,
}

impl Running<'_> {
    /// What INIT settled.
    pub(super) fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }
}

/// Proof that no request is being served.
#[derive(Debug)]
pub(super) struct Alone<'a> {
    shards: Vec<RwLockWriteGuard<'a, Option<Negotiated>>>,
}

impl Alone<'_> {
    /// The session that runs, if any.
    pub(super) fn current(&self) -> Option<Negotiated> {
        self.shards.first().and_then(|shard| **shard)
    }

    /// Begins or ends a session.
    pub(super) fn set(&mut self, negotiated: Option<Negotiated>) {
        for shard in &mut self.shards {
            **shard = negotiated;
        }
    }
}

/// The right to serve the one INIT under way.
#[derive(Debug)]
pub(super) struct InitTurn<'a> {
    init_under_way: &'a AtomicBool,
}

impl Drop for InitTurn<'_> {
    fn drop(&mut self) {
        // Release: pairs with the swap in `take_init_turn`, though the locks order the session.
        self.init_under_way.store(false, Ordering::Release);
    }
}

impl Session {
    /// Begins a request; `None` when no session runs. A panic of a writer leaves a session whole,
    /// because it is set in one step, so poisoning is of no interest.
    pub(super) fn enter(&self, thread: usize) -> Option<Running<'_>> {
        let shard = self.shards.get(thread % SHARD_COUNT)?;
        let shard = shard
            .negotiated
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        Some(Running {
            negotiated: (*shard)?,
            _shard: shard,
        })
    }

    /// Waits for requests under way and keeps new ones out.
    pub(super) fn wait_until_alone(&self) -> Alone<'_> {
        let shards = self.shards.iter().map(|shard| {
            let guard = shard.negotiated.write();
            guard.unwrap_or_else(PoisonError::into_inner)
        });
        Alone {
            shards: shards.collect(),
        }
    }

    /// The right to serve an INIT, unless another one is being served.
    pub(super) fn take_init_turn(&self) -> Option<InitTurn<'_>> {
        // Acquire: pairs with the store in `InitTurn::drop`.
        match self.init_under_way.swap(true, Ordering::AcqRel) {
            true => None,
            false => Some(InitTurn {
                init_under_way: &self.init_under_way,
            }),
        }
    }
}
