//! What: bytes to operations and back: the FUSE server.
//!
//! In: a request as [`RequestSource`] and the room for its reply as [`ReplySink`]. Out: a reply in
//! that room and an [`Outcome`]. The way of a request, each step with its own file:
//!
//! ```text
//! header -> body (what to copy) -> decode -> Operation -> gate -> dispatch -> Reply -> encode
//! ```
//!
//! Invariants: header and arguments are copied once into memory of the thread, and only the copy
//! is believed; the contents of a WRITE are never copied. Any bytes lead to a reply, to silence
//! where the protocol asks for it, to a reply that comes later, to [`Outcome::Deferred`] where that
//! is welcome (see `pace`), or to [`Outcome::Dropped`]; never to a panic. An operation that
//! fails, or whose reply cannot be written, grants the guest nothing. Does not: know rings, or
//! what a file is.

mod body;
mod cursor;
mod decode;
mod decode_ext;
mod decode_lock;
mod decode_meta;
mod dispatch;
mod encode;
pub mod gate;
pub mod gate_read_only;
mod late;
pub mod operation;
mod pace;
mod payload;
mod readdir;
mod scratch;
mod session;

use std::sync::Arc;

use crate::fs::filesystem::FileSystem;
use crate::log_limit::guest_log;
use crate::metrics::{Ending, Metrics};
use crate::server::body::BodyPlan;
use crate::server::cursor::Cursor;
use crate::server::decode::{Decoder, decode_init};
use crate::server::decode_ext::ExtensionForm;
use crate::server::dispatch::{Surroundings, dispatch};
use crate::server::encode::{Reply, write_error, write_reply};
use crate::server::gate::{Gate, GateChain};
use crate::server::pace::{Estimates, Turn};
use crate::server::scratch::{Buffer, Scratch, with_scratch};
use crate::server::session::{Alone, InitAnswer, Names, Refusal, Session, negotiate};
use crate::sys::errno::{Errno, Result};
use crate::wire::channel::{ChannelError, Outcome, Pace, ReplySink, RequestHandler, RequestSource};
use crate::wire::flags::SessionFlags;
use crate::wire::header::{InHeader, OUT_HEADER_LEN};
use crate::wire::opcode::Opcode;
use crate::wire::request::InitIn;
use crate::wire::response::InitOut;
use crate::wire::{MAJOR_VERSION, MINOR_VERSION};

/// Serves a file system to one guest.
#[derive(Debug)]
pub struct Server<F> {
    fs: F,
    gates: GateChain,
    session: Session,
    metrics: Arc<Metrics>,
    estimates: Estimates,
}

/// The two ends of one request, and how it is served.
struct Ends<'a> {
    source: &'a mut dyn RequestSource,
    sink: &'a mut dyn ReplySink,
    /// Bytes of contents that went from one to the other, or between either and a file.
    moved_len: usize,
    turn: Turn,
}

impl<F: FileSystem> Server<F> {
    /// A server without gates that waits for INIT.
    pub fn new(fs: F) -> Self {
        Server {
            fs,
            gates: GateChain::default(),
            session: Session::default(),
            metrics: Arc::new(Metrics::new()),
            estimates: Estimates::new(),
        }
    }

    /// Adds a gate behind those that are there.
    #[must_use]
    pub fn with_gate(mut self, gate: Box<dyn Gate>) -> Self {
        self.gates.push(gate);
        self
    }

    /// Counts in `metrics` instead of in counters of its own.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Arc<Metrics>) -> Self {
        self.metrics = metrics;
        self
    }

    /// The file system.
    pub fn file_system(&self) -> &F {
        &self.fs
    }

    /// The counters.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Serves one request up to its reply; errors are for the guest.
    fn serve(
        &self,
        header: &InHeader,
        opcode: Opcode,
        scratch: &mut Scratch,
        ends: &mut Ends<'_>,
    ) -> Result<Outcome> {
        if let Opcode::Unknown(_) = opcode {
            // Also before INIT: a guest of the other byte order learns so from its INIT.
            return Err(Errno::ENOSYS);
        }
        if opcode == Opcode::Init || opcode == Opcode::Destroy {
            return self.change_session(header, opcode, scratch, ends);
        }
        // Held until the reply is written, so that a session ends with no request under way.
        let running = self.session.enter(scratch.thread).ok_or(Errno::EIO)?;
        let form = ExtensionForm::of(running.negotiated());
        let plan = BodyPlan::new(header, opcode, ends.source.remaining(), form)?;
        let (args, extensions) = copy_body(&plan, &mut scratch.args, ends.source)?;
        let decoder = Decoder {
            header,
            args,
            extensions,
            left_len: plan.left_len,
            session: running.negotiated(),
        };
        // By reference from here on: an operation is large, and this is done for every request.
        let mut decoded = decoder.decode(opcode);
        if opcode.has_reply() && !self.gates.is_empty() {
            decoded = decoded.and_then(|operation| self.gates.admit(operation));
        }
        let operation = decoded.as_ref().map_err(|errno| *errno)?;
        let mut around = Surroundings {
            source: ends.source,
            left_len: plan.left_len,
            unique: header.unique,
            sink: ends.sink,
            buffer: &mut scratch.reply,
            metrics: &self.metrics,
            turn: &mut ends.turn,
        };
        if operation.fixed_payload_len() > around.payload_room() {
            return Err(Errno::EINVAL);
        }
        let dispatched = dispatch(&self.fs, operation, &mut around);
        let reply = dispatched.as_ref().map_err(|errno| *errno)?;
        ends.moved_len = reply.content_len();
        let outcome = write_reply(ends.sink, header.unique, reply, &scratch.reply)
            .map_err(|ChannelError| Errno::EIO)?;
        if let Ok(reply) = dispatched {
            reply.commit();
        }
        Ok(outcome)
    }

    /// INIT and DESTROY. Errors: `EIO` nothing to destroy, or another INIT is under way; `EINVAL`
    /// malformed, or no room for the reply, and then nothing has changed; `EPROTO` refused.
    fn change_session(
        &self,
        header: &InHeader,
        opcode: Opcode,
        scratch: &mut Scratch,
        ends: &mut Ends<'_>,
    ) -> Result<Outcome> {
        let (readable_len, form) = (ends.source.remaining(), ExtensionForm::Counted);
        let plan = BodyPlan::new(header, opcode, readable_len, form)?;
        let (args, _) = copy_body(&plan, &mut scratch.args, ends.source)?;
        if opcode == Opcode::Destroy {
            let mut alone = self.session.wait_until_alone();
            alone.current().ok_or(Errno::EIO)?;
            self.end_session(&mut alone);
            return reply_without_buffer(ends.sink, header.unique, Reply::Empty);
        }
        let init = decode_init(args)?;
        let reply_len = OUT_HEADER_LEN.saturating_add(size_of::<InitOut>());
        if reply_len > ends.sink.capacity() {
            return Err(Errno::EINVAL);
        }
        self.begin_session(header.unique, &init, ends.sink)
    }

    fn begin_session(
        &self,
        unique: u64,
        init: &InitIn,
        sink: &mut dyn ReplySink,
    ) -> Result<Outcome> {
        let _turn = self.session.take_init_turn().ok_or(Errno::EIO)?;
        let mut alone = self.session.wait_until_alone();
        // Without a DESTROY the guest was reset or rebooted.
        self.end_session(&mut alone);
        let wishes = self.fs.session_wishes();
        let answer = negotiate(init, &wishes);
        self.log_init(init, &answer, wishes.missed);
        let out = match answer.map_err(|_| Errno::EPROTO)? {
            InitAnswer::VersionOnly(out) => out,
            InitAnswer::Session(out, negotiated) => {
                self.fs.start_session(&negotiated);
                alone.set(Some(negotiated));
                out
            }
        };
        let outcome = reply_without_buffer(sink, unique, Reply::Init(out));
        if outcome.is_err() {
            self.end_session(&mut alone);
        }
        outcome
    }

    fn end_session(&self, alone: &mut Alone<'_>) {
        if alone.current().is_some() {
            alone.set(None);
            self.fs.end_session();
        }
    }

    /// A mount is a rare event of life, unless a guest makes it a frequent one.
    fn log_init(
        &self,
        init: &InitIn,
        answer: &std::result::Result<InitAnswer, Refusal>,
        missed: SessionFlags,
    ) {
        let guest = (init.major, init.minor);
        match answer {
            Ok(InitAnswer::Session(_, negotiated)) => {
                guest_log!(
                    log::Level::Info,
                    "a guest mounts: it speaks FUSE {}.{}, agreed on {MAJOR_VERSION}.{} with {:?}",
                    guest.0,
                    guest.1,
                    negotiated.minor,
                    negotiated.flags,
                );
                let lacking = missed.difference(negotiated.flags);
                if !lacking.is_empty() {
                    guest_log!(
                        log::Level::Warn,
                        "the guest cannot do {}: it goes on without",
                        Names(lacking)
                    );
                }
            }
            Ok(InitAnswer::VersionOnly(_)) => guest_log!(
                log::Level::Info,
                "a guest speaks FUSE {}.{}: told it to use {MAJOR_VERSION}.{MINOR_VERSION}",
                guest.0,
                guest.1,
            ),
            Err(refusal) => guest_log!(
                log::Level::Warn,
                "refused to be mounted by a guest that speaks FUSE {}.{} and offers {:#x} {:#x}: \
                 {refusal}",
                guest.0,
                guest.1,
                init.flags,
                init.flags2,
            ),
        }
    }

    fn drop_request(&self, scratch: &mut Scratch, why: &str) -> Outcome {
        scratch.meter(&self.metrics).count_dropped();
        guest_log!(
            log::Level::Warn,
            "dropped a request that cannot be answered: {why}"
        );
        Outcome::Dropped
    }
}

impl<F: FileSystem> RequestHandler for Server<F> {
    fn handle(
        &self,
        source: &mut dyn RequestSource,
        sink: &mut dyn ReplySink,
        pace: Pace,
    ) -> Outcome {
        with_scratch(|scratch| {
            let Some(header) = source.read_header() else {
                return self.drop_request(scratch, "it has no whole header");
            };
            let opcode = Opcode::from_raw(header.opcode);
            if opcode.has_reply() && sink.capacity() < OUT_HEADER_LEN {
                return self.drop_request(scratch, "it has no room for a reply");
            }
            let tick = &mut scratch.tick;
            let Some(turn) = self.estimates.begin(opcode, header.len, pace, tick) else {
                return Outcome::Deferred;
            };
            let begun = scratch.meter(&self.metrics).begin(opcode.raw());
            let mut ends = Ends {
                source,
                sink,
                moved_len: 0,
                turn,
            };
            let result = self.serve(&header, opcode, scratch, &mut ends);
            let ending = match result {
                Ok(Outcome::Deferred) => Ending::Postponed,
                Ok(_) => Ending::Done {
                    bytes: ends.moved_len,
                },
                Err(_) => Ending::Failed,
            };
            scratch.meter(&self.metrics).end(begun, ending);
            if result == Ok(Outcome::Deferred) {
                return Outcome::Deferred;
            }
            log_request(&header, opcode, &result);
            let outcome = result.unwrap_or_else(|errno| refuse(&header, opcode, errno, ends.sink));
            self.estimates.end(&ends.turn, outcome.reply_len());
            outcome
        })
    }

    fn reset(&self) {
        self.end_session(&mut self.session.wait_until_alone());
    }
}

/// Copies arguments and extensions. Errors: `EIO` the guest's memory is out of reach.
fn copy_body<'s>(
    plan: &BodyPlan,
    buffer: &'s mut Buffer,
    source: &mut dyn RequestSource,
) -> Result<(Cursor<'s>, &'s [u8])> {
    let len = plan.args_len.saturating_add(plan.extensions_len);
    let bytes = buffer.room(len);
    if len > 0 {
        source.read_exact(bytes).map_err(|_| Errno::EIO)?;
    }
    let (args, extensions) = bytes.split_at_checked(plan.args_len).ok_or(Errno::EINVAL)?;
    Ok((Cursor::new(args), extensions))
}

/// What becomes of a request that failed.
fn refuse(header: &InHeader, opcode: Opcode, errno: Errno, sink: &mut dyn ReplySink) -> Outcome {
    match opcode.has_reply() {
        true => write_error(sink, header.unique, errno),
        false => Outcome::NoReply,
    }
}

fn reply_without_buffer(
    sink: &mut dyn ReplySink,
    unique: u64,
    reply: Reply<'_>,
) -> Result<Outcome> {
    // It grants nothing, so there is nothing to commit.
    write_reply(sink, unique, &reply, &Buffer::default()).map_err(|ChannelError| Errno::EIO)
}

/// Names and contents are not logged; opcode, node and result are.
fn log_request(header: &InHeader, opcode: Opcode, result: &Result<Outcome>) {
    if log::log_enabled!(log::Level::Trace) {
        let (name, unique, node) = (opcode.name(), header.unique, header.nodeid);
        log::trace!(
            "{name} ({}) #{unique} node {node}: {result:?}",
            header.opcode
        );
    }
}
