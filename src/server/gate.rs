//! What: policy between understanding a request and carrying it out.
//!
//! In: an [`Operation`]. Out: the operation that shall be carried out, or the errno for the
//! guest. A gate matches on `Operation` without a wildcard, so that a new operation does not
//! compile until somebody has decided about it. Requests without a reply (FORGET, BATCH_FORGET,
//! INTERRUPT) pass no gate: nobody would learn of the refusal, and the accounts would be wrong.
//! Does not: touch the file system.

use std::fmt;

use crate::server::operation::Operation;
use crate::sys::errno::Result;

/// Decides about operations.
pub trait Gate: Send + Sync + fmt::Debug {
    /// Lets `operation` pass, changes it, or refuses it.
    ///
    /// # Errors
    /// The errno for the guest.
    fn admit<'a>(&self, operation: Operation<'a>) -> Result<Operation<'a>>;
}

/// Gates in a row; the first refusal counts.
#[derive(Debug, Default)]
pub(super) struct GateChain {
    gates: Vec<Box<dyn Gate>>,
}

impl GateChain {
    pub(super) fn push(&mut self, gate: Box<dyn Gate>) {
        self.gates.push(gate);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.gates.is_empty()
    }

    pub(super) fn admit<'a>(&self, mut operation: Operation<'a>) -> Result<Operation<'a>> {
        for gate in &self.gates {
            operation = gate.admit(operation)?;
        }
        Ok(operation)
    }
}
