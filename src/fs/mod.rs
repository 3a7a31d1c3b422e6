//! The contract between the FUSE server and a file system.
//!
//! **Nodes.** A [`types::NodeId`] comes into being when an operation returns an
//! [`types::Entry`], and lives until the guest has given back every lookup it was granted
//! (`forget`). Each granted lookup is a guard, [`types::LookupRef`]: if the reply never reaches
//! the guest, dropping the guard takes the lookup back. Node 1 is the root and never goes away.
//!
//! **Handles.** A [`types::HandleId`] comes from `open`, `opendir`, `create` or `tmpfile`, is
//! guarded by [`types::HandleRef`] until the reply is written, and lives until `release` or
//! `releasedir`. A handle belongs to one node: presenting it with another is `EBADF`.
//!
//! **Waiting.** An operation that would wait for somebody else sets its request aside
//! ([`late::WaitingRoom`]) and returns; no thread of the server ever waits for another request.
//!
//! **Threads.** Every method takes `&self` and is called from many threads at once, in any
//! order; only `start_session` and `end_session` are called alone.

pub mod data;
pub mod filesystem;
pub mod late;
pub mod types;
