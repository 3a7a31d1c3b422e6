//! What: OPEN without open(2): a file that the guest has closed and opens again.
//!
//! In: files opened for reading and nothing else, as they are released; nodes to be opened so
//! again. Out: the same descriptor, if open(2) would give an equal one. Invariants: only on file
//! systems of this host, where an open file means nothing to anybody else; only as long as the
//! time of the last change (ctime) is the same, so that a change of mode, owner or access control
//! list by the host is obeyed at the next OPEN. Does not: keep files that may be written: while
//! they are open the host cannot execute them.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::PassthroughFs;
use super::file_systems;
use super::store::contents::ContentsStamp;
use super::store::fd_budget::HeldFd;
use super::store::handles::Handle;
use super::store::idle_readers::IdleReader;
use crate::fs::types::NodeId;
use crate::sys::fs_type::FsType;
use crate::sys::meta::{self, FileStat};
use crate::sys::open::HostOpenFlags;

/// How old the last change has to be. File systems date in ticks of at most 10 ms, so any change
/// after that has another time. Tests cannot wait for so long each time.
const LEFT_ALONE: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1000 });

impl PassthroughFs {
    /// A file of this node that was closed lately, if it is as open(2) with `flags` would give it.
    pub(super) fn closed_lately(
        &self,
        node: NodeId,
        flags: HostOpenFlags,
    ) -> Option<(HeldFd, FileStat)> {
        if !flags.is_empty() {
            return None;
        }
        let reader = self.idle_readers.take(node)?;
        let stat = meta::stat_fd(reader.file.as_fd()).ok()?;
        let is_unchanged = state_of(&stat, Duration::ZERO) == Some(reader.state);
        is_unchanged.then_some((reader.file, stat))
    }

    /// Whether a file opened with `flags` on such a file system may be used again.
    pub(super) fn is_reusable(flags: HostOpenFlags, kind: FsType) -> bool {
        flags.is_empty() && file_systems::reports_nothing_at_close(kind)
    }

    /// The state that has to be the same when a file is used again; none if it was changed too
    /// lately.
    pub(super) fn state_for_reuse(stat: &FileStat) -> Option<ContentsStamp> {
        state_of(stat, LEFT_ALONE)
    }

    /// The guest has closed a file: keeps it for the next time, or closes it.
    pub(super) fn keep_or_close(&self, handle: Arc<Handle>) {
        // Somebody may still read through it; then it is closed when that has ended.
        let Some(handle) = Arc::into_inner(handle) else {
            return;
        };
        let node = handle.node();
        if let Some((file, state)) = handle.into_reusable() {
            self.idle_readers.put(node, IdleReader { file, state });
            // It may have been forgotten meanwhile, and then nobody else would take it out.
            self.drop_reader_if_forgotten(node);
        }
    }

    /// The guest has given lookups of a node back: a file of it that it does not hold any more is
    /// closed, so that its space is free once it is deleted.
    pub(super) fn drop_reader_if_forgotten(&self, node: NodeId) {
        if self.idle_readers.may_hold(node) && self.store.get(node).is_err() {
            drop(self.idle_readers.take(node));
        }
    }
}

fn state_of(stat: &FileStat, left_alone: Duration) -> Option<ContentsStamp> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    ContentsStamp::of(stat, now.ok()?, left_alone)
}
