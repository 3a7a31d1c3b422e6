//! What: OPEN without open(2): a file that the guest has closed and opens again; and attributes
//! without a way through /proc.
//!
//! In: files opened for reading and nothing else, as they are released; nodes to be opened so
//! again, or whose attributes are asked for. Out: the same descriptor, if open(2) would give an
//! equal one; for attributes, any that is open. Invariants: only on file
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
use super::store::inode::Inode;
use crate::fs::types::NodeId;
use crate::sys::fs_type::FsType;
use crate::sys::meta::{self, FileStat, FileType};
use crate::sys::open::{self, HostOpenFlags};

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
        let now = state_of(&stat, Duration::ZERO);
        let is_unchanged = now.is_some() && now == reader.state;
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
            let state = Some(state);
            self.keep_reader(node, IdleReader { file, state });
        }
    }

    /// A file of this node that the guest has not open, to read attributes by. Whoever asks for
    /// them more than once (overlayfs, Samba) mostly does so again, so then one is opened; the way
    /// through /proc takes three times as long as asking an open file, and opening one five times.
    pub(super) fn reader_of(&self, inode: &Inode) -> Option<IdleReader> {
        if let Some(reader) = self.idle_readers.take(inode.id) {
            return Some(reader);
        }
        if inode.file_type != FileType::Regular || !self.idle_readers.is_asked_again(inode.id) {
            return None;
        }
        let pinned = inode.reach().ok()?;
        // Not for an OPEN of the guest, which would wait for whoever has a lease on the file.
        let flags = HostOpenFlags::NONBLOCK;
        let place = inode.identity.place;
        let kind = self.file_systems.kind(place, pinned.as_fd());
        if !file_systems::reports_nothing_at_close(kind) {
            return None;
        }
        // What was changed a moment ago is being made, moved, or removed: not to be held.
        let stat = meta::stat_fd(pinned.as_fd()).ok()?;
        Self::state_for_reuse(&stat)?;
        let ticket = self.store.budget().try_take()?;
        let file = open::reopen(&self.proc_fd, pinned.as_fd(), flags).ok()?;
        Some(IdleReader {
            file: HeldFd::new(file, ticket),
            state: None,
        })
    }

    /// Keeps a file that nobody uses now.
    pub(super) fn keep_reader(&self, node: NodeId, reader: IdleReader) {
        self.idle_readers.put(node, reader);
        // It may have been forgotten meanwhile, and then nobody else would take it out.
        self.drop_reader_if_forgotten(node);
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
