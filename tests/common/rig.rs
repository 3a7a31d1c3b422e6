//! What: a guest that attacks the ring of its first request queue, while the second one goes on.
//!
//! In: a [`Setup`]. Out: the outcomes of security.md 2.1 as assertions: BROKEN (the error event of
//! queue 1 is signalled, nothing else, and it works again after a restart), DROP (a used entry of
//! length 0), and the oracle on queue 2.

use std::time::Duration;

use super::client::Client;
use super::frontend::Setup;
use super::oracle::Oracle;
use super::queue::Queue;
use super::request::{ROOT, op};
use super::ring::Descriptor;
use super::session::Session;
use super::share::Share;
use super::u32_of;

/// What a GETATTR takes.
pub(crate) const REPLY_ROOM: u32 = 120;

/// A guest that attacks queue 1 while queue 2 goes on.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) client: Client,
    pub(crate) canary: Session,
    pub(crate) oracle: Oracle,
    pub(crate) share: Share,
}

impl Rig {
    /// Mounted, with two request queues.
    pub(crate) fn new(setup: Setup) -> Self {
        let share = Share::new();
        let mut client = Client::mount(&setup.queues(2), &share);
        let mut canary = client.session_on(2);
        let oracle = Oracle::new(&mut client.vm, &mut canary);
        Rig {
            client,
            canary,
            oracle,
            share,
        }
    }

    /// The attacked queue.
    pub(crate) fn queue(&mut self) -> &mut Queue {
        &mut self.client.session.queue
    }

    /// Guest memory with a GETATTR of the root in it.
    pub(crate) fn request(&mut self) -> (u64, u32) {
        let (message, _) = self.client.message(op::GETATTR, ROOT, &[0; 16]);
        let gpa = self.queue().scratch(message.len());
        self.queue().memory.write(gpa, &message);
        (gpa, u32_of(message.len()))
    }

    /// Guest memory for a reply.
    pub(crate) fn reply_room(&mut self) -> u64 {
        self.queue().scratch(4096)
    }

    /// BROKEN: the queue must stop with an error, and all else go on.
    pub(crate) fn expect_broken(mut self, case: &str) {
        assert!(
            self.queue().error_signalled(Duration::from_secs(5)),
            "{case}: no error event\n{}",
            self.client.vm.daemon.log.describe()
        );
        assert!(!self.queue().ring.has_used(), "{case}: a used entry");
        self.finish(case);
    }

    /// The queue may stop, or answer with an error.
    pub(crate) fn expect_broken_or_error(mut self, case: &str) {
        let completion = self.queue().next_within(Duration::from_secs(1));
        if completion.is_none() {
            return self.expect_broken(case);
        }
        self.finish(case);
    }

    /// DROP: the next completion has no reply.
    pub(crate) fn expect_drop(mut self, case: &str) {
        let completion = self.queue().next();
        assert_eq!(completion.used_len, 0, "{case}");
        self.finish(case);
    }

    /// Asks the oracle, before and after queue 1 is started anew.
    pub(crate) fn finish(mut self, case: &str) {
        self.oracle
            .check(&mut self.client.vm, &mut self.canary, case);
        self.client.restart_queue();
        self.client.canary();
        self.oracle
            .check(&mut self.client.vm, &mut self.canary, case);
        self.share.assert_outside_unchanged();
    }
}

/// One descriptor, without a link.
pub(crate) fn descriptor(addr: u64, len: u32, flags: u16) -> Descriptor {
    Descriptor {
        addr,
        len,
        flags,
        next: 0,
    }
}
