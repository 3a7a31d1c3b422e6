//! What: the question that follows every hostile case: is the daemon as sound as before?
//!
//! In: the state before. Out: a panic naming the case when the process is another one or gone,
//! GETATTR of the root is not answered, descriptors have leaked, or memory has exploded.

use std::thread;
use std::time::{Duration, Instant};

use super::frontend::Vm;
use super::session::Session;

/// Growth of resident memory that no case may cause, in KiB.
const RSS_GROWTH_MAX_KIB: u64 = 64 * 1024;

/// The state before a case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Oracle {
    fds: usize,
    rss_kib: u64,
    root_ino: u64,
}

impl Oracle {
    pub(crate) fn new(vm: &mut Vm, session: &mut Session) -> Self {
        let root_ino = session.canary().ino;
        Oracle {
            fds: vm.daemon.fd_count(),
            rss_kib: vm.daemon.rss_kib(),
            root_ino,
        }
    }

    /// Asks the question for `case`.
    pub(crate) fn check(&self, vm: &mut Vm, session: &mut Session, case: &str) {
        assert!(
            vm.daemon.is_alive(),
            "{case}: the daemon has ended\n{}",
            vm.daemon.log.describe()
        );
        assert_eq!(session.canary().ino, self.root_ino, "{case}: the root");
        self.check_descriptors(vm, case);
        let rss_kib = vm.daemon.rss_kib();
        assert!(
            rss_kib < self.rss_kib + RSS_GROWTH_MAX_KIB,
            "{case}: resident memory went from {} to {rss_kib} KiB",
            self.rss_kib
        );
    }

    /// Descriptors may be closed a moment after the reply.
    pub(crate) fn check_descriptors(&self, vm: &Vm, case: &str) {
        let deadline = Instant::now() + Duration::from_secs(2);
        while vm.daemon.fd_count() != self.fds {
            assert!(
                Instant::now() < deadline,
                "{case}: {} descriptors before, now {}: {:#?}",
                self.fds,
                vm.daemon.fd_count(),
                vm.daemon.fd_list()
            );
            thread::sleep(Duration::from_millis(2));
        }
    }
}
