//! What: a virtual machine and a mounted file system in one, for tests of operations.
//!
//! In: a [`Setup`] and a share. Out: a [`Session`] after INIT on the first request queue, with
//! FORGET going to the hiprio queue.

use std::ops::{Deref, DerefMut};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};

use super::frontend::{Setup, Vm};
use super::oracle::Oracle;
use super::queue::Queue;
use super::session::Session;
use super::share::Share;

/// A mounted guest.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) vm: Vm,
    pub(crate) session: Session,
    pub(crate) hiprio: Arc<Mutex<Queue>>,
}

impl Client {
    /// Boots and mounts.
    pub(crate) fn mount(setup: &Setup, share: &Share) -> Self {
        let mut client = Self::attach(setup.boot(&share.path()));
        client.session.init();
        client
    }

    /// Boots and mounts with these arguments for the daemon.
    pub(crate) fn with_args(share: &Share, args: &[&str]) -> Self {
        Self::mount(&Setup::default().args(args), share)
    }

    /// The same without INIT.
    pub(crate) fn attach(mut vm: Vm) -> Self {
        let hiprio = Arc::new(Mutex::new(vm.take_queue(0)));
        let queue = vm.take_queue(1);
        let log = Arc::clone(&vm.daemon.log);
        Client {
            session: Session::new(queue, Some(Arc::clone(&hiprio)), log),
            vm,
            hiprio,
        }
    }

    /// A session of its own on another queue, which must be started.
    pub(crate) fn session_on(&mut self, index: usize) -> Session {
        let queue = self.vm.take_queue(index);
        let log = Arc::clone(&self.vm.daemon.log);
        let mut session = Session::new(queue, Some(Arc::clone(&self.hiprio)), log);
        session.flags = self.session.flags;
        session
    }

    /// Stops the first request queue, empties its ring and starts it again.
    pub(crate) fn restart_queue(&mut self) {
        self.vm.stop(1);
        self.session.queue.reset();
        self.start_queue();
    }

    /// Starts the first request queue again, with an empty ring.
    pub(crate) fn start_queue(&mut self) {
        self.vm.start_queue(&self.session.queue, 0);
    }

    /// What a front end does after RESET_DEVICE: features again, empty rings, start.
    pub(crate) fn recover_from_reset(&mut self) {
        self.vm.set_features();
        self.session.queue.reset();
        self.start_queue();
        let mut hiprio = self.hiprio.lock().expect("no panic on the hiprio queue");
        hiprio.reset();
        self.vm.start_queue(&hiprio, 0);
    }

    /// What must still hold later.
    pub(crate) fn oracle(&mut self) -> Oracle {
        Oracle::new(&mut self.vm, &mut self.session)
    }

    /// Panics unless the daemon serves on as it did when `oracle` was made.
    pub(crate) fn assert_sound(&mut self, oracle: &Oracle, case: &str) {
        oracle.check(&mut self.vm, &mut self.session, case);
    }

    pub(crate) fn shut_down(self) -> ExitStatus {
        drop(self.session);
        self.vm.shut_down()
    }
}

impl Deref for Client {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.session
    }
}
