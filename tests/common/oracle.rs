//! What: the question that follows every hostile case: is the daemon as sound as before?
//!
//! In: the state before. Out: a panic naming the case when
//! - the process is another one or gone,
//! - GETATTR of the root is not answered within a second,
//! - descriptors have leaked, or memory has exploded,
//! - the tree beside the share has changed,
//! - the case has written more than [`LOG_LINES_MAX`] lines to the log,
//! - the daemon uses a CPU although nothing is asked of it.

use std::fmt::Write;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use super::frontend::Vm;
use super::session::Session;
use super::share::{TreeState, tree_state};

/// Growth of resident memory that no case may cause, in KiB.
const RSS_GROWTH_MAX_KIB: u64 = 64 * 1024;

/// Lines that one case may write to the log.
const LOG_LINES_MAX: usize = 10;

/// The answer to the canary takes no longer, unless the machine is busy with something else, and
/// then not again and again.
const CANARY_MAX: Duration = Duration::from_secs(1);
const CANARY_TRIES: usize = 3;

/// How long the daemon is watched doing nothing, and how often; a thread that spins would be on a
/// CPU for most of each.
const IDLE_WINDOW: Duration = Duration::from_millis(20);
const IDLE_TRIES: usize = 10;
/// Between two such watches, for cases that come by the thousand.
const IDLE_EVERY: Duration = Duration::from_millis(300);

/// No message takes as long to be done with after it was answered.
const SETTLING: Duration = Duration::from_millis(10);

/// The state before a case.
#[derive(Debug)]
pub(crate) struct Oracle {
    pid: u32,
    fds: usize,
    rss_kib: u64,
    root_ino: u64,
    outside: Option<TreeState>,
    since: Mutex<Since>,
}

/// What changes from case to case.
#[derive(Debug)]
struct Since {
    log_lines: usize,
    idle_at: Option<Instant>,
}

/// How many descriptors are open, once those of the last message are closed, which may be a moment
/// after its answer.
fn settled_descriptors(vm: &Vm) -> usize {
    let mut before = vm.daemon.fd_count();
    loop {
        thread::sleep(SETTLING);
        let now = vm.daemon.fd_count();
        if now == before {
            return now;
        }
        before = now;
    }
}

fn log_lines(vm: &Vm) -> usize {
    vm.daemon.log.text().lines().count()
}

impl Oracle {
    pub(crate) fn new(vm: &mut Vm, session: &mut Session) -> Self {
        let root_ino = session.canary().ino;
        Oracle {
            pid: vm.daemon.pid(),
            fds: settled_descriptors(vm),
            rss_kib: vm.daemon.rss_kib(),
            root_ino,
            outside: vm.daemon.outside.as_deref().map(tree_state),
            since: Mutex::new(Since {
                log_lines: log_lines(vm),
                idle_at: None,
            }),
        }
    }

    /// Lines so far are no fault of the next case.
    pub(crate) fn excuse_lines(&self, vm: &Vm) {
        self.since.lock().expect("no panic in an oracle").log_lines = log_lines(vm);
    }

    /// Asks the question for `case`.
    pub(crate) fn check(&self, vm: &mut Vm, session: &mut Session, case: &str) {
        assert!(
            vm.daemon.is_alive() && vm.daemon.pid() == self.pid,
            "{case}: the daemon has ended\n{}",
            vm.daemon.log.describe()
        );
        self.check_canary(session, case);
        self.check_descriptors(vm, case);
        let rss_kib = vm.daemon.rss_kib();
        assert!(
            rss_kib < self.rss_kib + RSS_GROWTH_MAX_KIB,
            "{case}: resident memory went from {} to {rss_kib} KiB",
            self.rss_kib
        );
        if let (Some(before), Some(outside)) = (&self.outside, &vm.daemon.outside) {
            assert_eq!(tree_state(outside), *before, "{case}: outside the share");
        }
        let mut since = self.since.lock().expect("no panic in an oracle");
        let lines = log_lines(vm);
        assert!(
            lines <= since.log_lines + LOG_LINES_MAX,
            "{case}: {} lines in the log\n{}",
            lines - since.log_lines,
            vm.daemon.log.describe()
        );
        since.log_lines = lines;
        if since.idle_at.is_none_or(|at| at.elapsed() > IDLE_EVERY) {
            check_idle(vm, case);
            since.idle_at = Some(Instant::now());
        }
    }

    fn check_canary(&self, session: &mut Session, case: &str) {
        let mut taken = String::new();
        for _ in 0..CANARY_TRIES {
            let begin = Instant::now();
            assert_eq!(session.canary().ino, self.root_ino, "{case}: the root");
            if begin.elapsed() < CANARY_MAX {
                return;
            }
            write!(taken, "{:?} ", begin.elapsed()).expect("a string takes all");
        }
        panic!("{case}: the canary took {taken}");
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

/// Nothing is in flight, so no thread has a reason to run.
fn check_idle(vm: &Vm, case: &str) {
    let mut used = Duration::ZERO;
    for _ in 0..IDLE_TRIES {
        let before = vm.daemon.cpu_time();
        thread::sleep(IDLE_WINDOW);
        used = vm.daemon.cpu_time().saturating_sub(before);
        if used < IDLE_WINDOW / 4 {
            return;
        }
    }
    panic!(
        "{case}: {used:?} on a CPU within {IDLE_WINDOW:?} of doing nothing\n{}",
        vm.daemon.log.describe()
    );
}
