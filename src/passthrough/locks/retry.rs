//! What: the thread that tries again for those who are blocked from outside.
//!
//! In: files on which somebody waits for a process of the host, or for another guest: nobody tells
//! us when such a lock is given back. Out: calls that try. Invariants: the thread exists only
//! while there is such a file; a file is tried after 1 ms, then after twice as long each time, up
//! to 100 ms, and from the start when somebody got what they waited for; trying takes at most a
//! tenth of the time, however many wait, unless a round of tries takes longer than a ninth of a
//! second: the rest after it is never longer than a second.
//!
//! Why not a blocked thread for each: a guest may have thousands of waiters.
//!
//! ```text
//!   watch -> [list] --due--> taken out, tried --somebody still waits--> back, later
//!                                 |
//!                                 +-- nobody waits any more: gone     list empty: the thread ends
//! ```
//!
//! Lock: the list's, never held while a file is tried.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{Shared, Site};
use crate::fs::types::NodeId;

const DELAY_MIN: Duration = Duration::from_millis(1);
const DELAY_MAX: Duration = Duration::from_millis(100);

/// A round of tries that took so long is followed by this many times as long without any.
const REST_FACTOR: u32 = 9;

/// The longest such rest: a round may have taken long because the machine had no time for it.
const REST_MAX: Duration = Duration::from_secs(1);

/// What came of trying a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nobody there waits for the clock any more.
    Done,
    /// Some do, and somebody was answered.
    Some,
    /// Some do, and nobody was answered.
    None,
}

/// See the file head.
#[derive(Debug, Default)]
pub(super) struct Retrier {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    list: HashMap<NodeId, Watched>,
    is_running: bool,
}

#[derive(Debug)]
struct Watched {
    site: Arc<Site>,
    due: Instant,
    delay: Duration,
}

impl Retrier {
    /// Takes a file up unless it is watched already.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn watch(shared: &Arc<Shared>, site: &Arc<Site>) -> io::Result<()> {
        let retrier = &shared.retrier;
        let mut state = retrier.lock();
        state.take_up(Arc::clone(site));
        if !state.is_running {
            let shared = Arc::clone(shared);
            let started = thread::Builder::new()
                .name("virtiofsd-locks".to_owned())
                .spawn(move || run(&shared));
            if let Err(error) = started {
                state.list.clear();
                return Err(error);
            }
            state.is_running = true;
        }
        retrier.changed.notify_one();
        Ok(())
    }

    /// Watches nothing any more, so that the thread ends.
    pub(super) fn clear(&self) {
        self.lock().list.clear();
        self.changed.notify_one();
    }

    /// Waits until files are due, and takes them out; none when the thread shall end.
    fn next(&self, not_before: Instant) -> Option<Vec<Watched>> {
        let mut state = self.lock();
        loop {
            let Some(due) = state.list.values().map(|watched| watched.due).min() else {
                state.is_running = false;
                return None;
            };
            let now = Instant::now();
            let wait = due.max(not_before).saturating_duration_since(now);
            if wait.is_zero() {
                let is_due = |_: &NodeId, watched: &mut Watched| watched.due <= now;
                let due = state.list.extract_if(is_due);
                return Some(due.map(|(_, watched)| watched).collect());
            }
            (state, _) = self
                .changed
                .wait_timeout(state, wait)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Somebody has just begun to wait at a site, which is the one that its node has now.
    fn take_up(&mut self, site: Arc<Site>) {
        let known = self.list.get(&site.node);
        if !known.is_some_and(|watched| Arc::ptr_eq(&watched.site, &site)) {
            self.list.insert(site.node, Watched::new(site, DELAY_MIN));
        }
    }

    /// A site was tried, and somebody waited there. If its node is in the list again, then by a
    /// site that is as new or newer; this one may be gone by now.
    fn put_back(&mut self, site: Arc<Site>, delay: Duration) {
        self.list
            .entry(site.node)
            .or_insert_with(|| Watched::new(site, delay));
    }
}

impl Watched {
    fn new(site: Arc<Site>, delay: Duration) -> Self {
        let due = Instant::now() + delay;
        Watched { site, due, delay }
    }
}

fn run(shared: &Arc<Shared>) {
    let mut not_before = Instant::now();
    while let Some(due) = shared.retrier.next(not_before) {
        let start = Instant::now();
        for watched in due {
            let delay = match shared.retry_outside(&watched.site) {
                Progress::Done => continue,
                Progress::Some => DELAY_MIN,
                Progress::None => watched.delay.saturating_mul(2).min(DELAY_MAX),
            };
            shared.retrier.lock().put_back(watched.site, delay);
        }
        let rest = start.elapsed().saturating_mul(REST_FACTOR);
        not_before = Instant::now() + rest.min(REST_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(node: u64) -> Arc<Site> {
        Arc::new(Site {
            node: NodeId::new(node),
            state: Mutex::new(None),
        })
    }

    fn watches(state: &State, site: &Arc<Site>) -> bool {
        let watched = state.list.get(&site.node);
        watched.is_some_and(|watched| Arc::ptr_eq(&watched.site, site))
    }

    #[test]
    fn site_that_was_tried_never_takes_the_place_of_a_newer_one() {
        let (old, new) = (site(7), site(7));
        let mut state = State::default();
        state.take_up(Arc::clone(&new));
        state.put_back(Arc::clone(&old), DELAY_MAX);
        assert!(watches(&state, &new));
        state.list.clear();
        state.put_back(Arc::clone(&old), DELAY_MAX);
        state.take_up(Arc::clone(&new));
        assert!(watches(&state, &new));
    }
}
