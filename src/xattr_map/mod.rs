//! Under which names of the host the guest's extended attributes live, and which it may use at
//! all. Pure.
//!
//! ```text
//! ":map::user.virtiofs.:" --syntax--> XattrMap
//!                                        |
//! get, set, remove:  guest's name ----apply----> Verdict: host's name, or a refusal
//! list:              guest's names <--apply----- host's names, the hidden ones left out
//! ```
//!
//! The rules are tried in their order, and the first that matches decides. Invariant: every name
//! of either side is matched by some rule; [`XattrMap::parse`] refuses anything else, so nothing
//! is left to be found out while a guest is running. Does not: touch files, or know which names
//! have a meaning (ACLs, capabilities).

mod apply;
mod rule;
mod syntax;

pub use apply::{NAME_LEN_MAX, NameBuffer, Verdict};
pub use syntax::{OpenEnd, SyntaxError};

use rule::Rule;

/// The rules of `--xattrmap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XattrMap {
    rules: Vec<Rule>,
}
