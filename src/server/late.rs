//! What: requests that a file system sets aside, on their way back.
//!
//! In: a result. Out: a reply of one header through the transport's late reply. Does not: know
//! when, or which thread that is.

use std::sync::Arc;

use crate::fs::late::{LateAnswer, RequestId, WaitingRoom};
use crate::metrics::Metrics;
use crate::sys::errno::Result;
use crate::wire::channel::{LateReply, ReplySink};
use crate::wire::header::{OUT_HEADER_LEN, OutHeader};
use crate::wire::opcode::Opcode;
use crate::wire::pod::Plain;

/// The request under way, to be set aside.
pub(super) struct Aside<'a> {
    pub(super) sink: &'a mut dyn ReplySink,
    pub(super) unique: u64,
    pub(super) opcode: Opcode,
    pub(super) metrics: &'a Arc<Metrics>,
}

impl WaitingRoom for Aside<'_> {
    fn park(&mut self) -> Option<Box<dyn LateAnswer>> {
        Some(Box::new(Answer {
            late: self.sink.park()?,
            unique: self.unique,
            opcode: self.opcode,
            metrics: Arc::clone(self.metrics),
        }))
    }
}

/// The answer to a request that was set aside.
#[derive(Debug)]
struct Answer {
    late: Box<dyn LateReply>,
    unique: u64,
    opcode: Opcode,
    metrics: Arc<Metrics>,
}

impl LateAnswer for Answer {
    fn request(&self) -> RequestId {
        RequestId::new(self.unique)
    }

    fn answer(self: Box<Self>, result: Result<()>) {
        let header = match result {
            Ok(()) => OutHeader {
                len: HEADER_LEN,
                error: 0,
                unique: self.unique,
            },
            Err(errno) => {
                self.metrics.count_late_error(self.opcode.raw());
                OutHeader::failure(self.unique, errno.raw())
            }
        };
        self.late.finish(header.as_wire());
    }
}

/// A reply without a payload, in bytes.
const HEADER_LEN: u32 = 16;
const _: () = assert!(OUT_HEADER_LEN == 16, "see HEADER_LEN");
