//! What: looking at a ring for a while before sleeping, as long as that pays.
//!
//! In: that the ring is empty, and later that a kick came. Out: how long to look next time. To sleep and be woken costs some 20 us on both sides, a kick included; a guest
//! that sends its next request sooner than that is served without.
//!
//! ```text
//!    a look of ADAPTIVE_MAX would have seen the request: double (from 0 to START)
//!   0 ------------------------------------------------------------------------> ADAPTIVE_MAX
//!     <------------------------------------------------------------------------
//!    it came later: halve (below START to 0)
//! ```
//!
//! So a guest that is quiet costs one look for each time it was not, and none later. With a fixed
//! time there is no adapting.
//!
//! A look without use is not only lost time: on a machine with more work than CPUs the guest may
//! be waiting for this very CPU. So after one there is none for a while, which doubles from one
//! such occasion to the next until looks are of use again; the same after one during which the
//! thread did not run all the time.
//!
//! After work that took long there is no look either: the time that a wake-up takes is no part of
//! it worth saving, and two processors that copy at the same time may hinder each other more than
//! that (1 MiB at depth 8, on one machine: 135 us one after the other, 230 us side by side).
//!
//! Invariants: at most half of the CPUs look at the rings of one daemon at once, and one if there is
//! one CPU only. Other daemons are not counted: what they take shows as looks without use.
//! Kicks stay suppressed meanwhile, and the ring is looked at once more after they are asked for,
//! see drain.rs. Does not: know rings.

use std::hint;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The longest look when the time is adapted. About two wake-ups: beyond that the CPU time is
/// worth more than the delay.
const ADAPTIVE_MAX: Duration = Duration::from_micros(50);

/// The first look after one that had no use.
const START: Duration = Duration::from_micros(10);

/// Work after which a wake-up does not matter, about ten of them.
const LONG_WORK: Duration = Duration::from_micros(200);

/// Looks at the ring between two looks at the clock, with a pause each.
const LOOKS_PER_TICK: u32 = 16;

/// Two looks at the clock that are further apart were not made by a running thread: about a
/// hundred times what they take.
const LOST_CPU: Duration = Duration::from_micros(100);

/// Looks in a row that have to be of use before the next one without use is an exception.
const HITS_FOR_TRUST: u32 = 32;

/// No looks for this long after one without use, at first and at last.
const BACK_OFF_MIN: Duration = Duration::from_millis(1);
const BACK_OFF_MAX: Duration = Duration::from_millis(256);

/// How long workers look at their rings before they sleep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Polling {
    /// As long as experience says that it pays, at most 50 us.
    #[default]
    Adaptive,
    /// Always this long; zero for never.
    Fixed(Duration),
}

/// How many threads may do the same thing at the same time: look, or copy (copiers.rs).
#[derive(Debug)]
pub(super) struct Seats {
    count: usize,
    taken: AtomicUsize,
}

impl Seats {
    /// Seats for half of the CPUs that this process may use.
    pub(super) fn for_this_machine() -> Arc<Self> {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        Self::new((cpus / 2).max(1))
    }

    /// So many seats.
    pub(super) fn new(count: usize) -> Arc<Self> {
        let taken = AtomicUsize::new(0);
        Arc::new(Seats { count, taken })
    }
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat<S: Deref<Target = Seats>>(S);

impl<S: Deref<Target = Seats>> Seat<S> {
    /// A seat, if one is free.
    pub(super) fn take(seats: S) -> Option<Self> {
        // Relaxed here and below: the number is all that counts.
        let before = seats.taken.fetch_add(1, Ordering::Relaxed);
        let is_free = before < seats.count;
        let seat = Seat(seats);
        is_free.then_some(seat)
    }
}

impl<S: Deref<Target = Seats>> Drop for Seat<S> {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What came of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Hit,
    Miss,
    LostCpu,
}

/// The looks of one worker.
#[derive(Debug)]
pub(super) struct Poller {
    polling: Polling,
    seats: Arc<Seats>,
    window: Duration,
    back_off: Duration,
    not_before: Option<Instant>,
    /// Looks in a row that were of use.
    hits: u32,
    /// When the ring was found empty; none if that does not matter.
    idle_since: Option<Instant>,
    /// When it was found not to be.
    busy_since: Option<Instant>,
}

impl Poller {
    /// One that has no experience yet.
    pub(super) fn new(polling: Polling, seats: Arc<Seats>) -> Self {
        let window = match polling {
            Polling::Adaptive => Duration::ZERO,
            Polling::Fixed(window) => window,
        };
        Poller {
            polling,
            seats,
            window,
            back_off: BACK_OFF_MIN,
            not_before: None,
            hits: 0,
            idle_since: None,
            busy_since: None,
        }
    }

    /// The ring is empty: looks until `found` says that there is something, or it is time to
    /// sleep. True when something is there.
    pub(super) fn look(&mut self, mut found: impl FnMut() -> bool) -> bool {
        if self.polling == Polling::Fixed(Duration::ZERO) {
            return false;
        }
        let begun = Instant::now();
        self.idle_since = Some(begun);
        let busy_since = self.busy_since.take();
        if busy_since.is_some_and(|since| begun.duration_since(since) > LONG_WORK) {
            return false;
        }
        if self.window.is_zero() || self.not_before.is_some_and(|instant| begun < instant) {
            return false;
        }
        let Some(_seat) = Seat::take(&*self.seats) else {
            return false;
        };
        match look_for(begun, self.window, &mut found) {
            Look::Hit => {
                self.busy_since = Some(Instant::now());
                self.hits = self.hits.saturating_add(1);
                if self.hits >= HITS_FOR_TRUST {
                    self.back_off = BACK_OFF_MIN;
                }
                true
            }
            // Whoever should have sent something may be waiting for this very CPU.
            Look::Miss | Look::LostCpu if self.polling == Polling::Adaptive => {
                self.hits = 0;
                self.not_before = begun.checked_add(self.back_off);
                self.back_off = self.back_off.saturating_mul(2).min(BACK_OFF_MAX);
                false
            }
            Look::Miss | Look::LostCpu => false,
        }
    }

    /// A kick woke the worker.
    pub(super) fn woken(&mut self) {
        if let Some(since) = self.idle_since.take() {
            let now = Instant::now();
            self.busy_since = Some(now);
            self.adapt(now.duration_since(since));
        }
    }

    fn adapt(&mut self, idle: Duration) {
        if self.polling != Polling::Adaptive {
            return;
        }
        self.window = if idle <= ADAPTIVE_MAX {
            self.window.saturating_mul(2).clamp(START, ADAPTIVE_MAX)
        } else {
            let half = Some(self.window / 2);
            half.filter(|half| *half >= START).unwrap_or_default()
        };
    }
}

fn look_for(begun: Instant, window: Duration, found: &mut impl FnMut() -> bool) -> Look {
    let mut last = begun;
    loop {
        for _ in 0..LOOKS_PER_TICK {
            if found() {
                return Look::Hit;
            }
            hint::spin_loop();
        }
        let now = Instant::now();
        if now.duration_since(last) > LOST_CPU {
            return Look::LostCpu;
        }
        if now.duration_since(begun) >= window {
            return Look::Miss;
        }
        last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adaptive() -> Poller {
        Poller::new(Polling::Adaptive, Seats::new(1))
    }

    #[test]
    fn window_grows_while_requests_come_soon_and_goes_when_they_do_not() {
        let mut poller = adaptive();
        assert_eq!(poller.window, Duration::ZERO);
        let windows = [1, 50, 50, 50, 51, 51, 51].map(|idle| {
            poller.adapt(Duration::from_micros(idle));
            poller.window.as_micros()
        });
        assert_eq!(windows, [10, 20, 40, 50, 25, 12, 0]);
    }

    #[test]
    fn fixed_window_does_not_change() {
        let window = Duration::from_micros(7);
        let mut poller = Poller::new(Polling::Fixed(window), Seats::new(1));
        poller.adapt(Duration::from_micros(1));
        poller.adapt(Duration::from_secs(1));
        assert_eq!(poller.window, window);
    }

    #[test]
    fn look_without_experience_does_not_look() {
        assert!(!adaptive().look(|| unreachable!("no look")));
    }

    #[test]
    fn look_ends_with_what_is_found_or_with_the_window() {
        let mut poller = Poller::new(Polling::Fixed(START), Seats::new(1));
        let mut looks = 0;
        let found = poller.look(|| {
            looks += 1;
            looks == 3
        });
        assert!(found);
        assert!(!poller.look(|| false));
    }

    #[test]
    fn look_is_left_out_after_long_work() {
        let mut poller = Poller::new(Polling::Fixed(START), Seats::new(1));
        assert!(poller.look(|| true));
        poller.busy_since = Instant::now().checked_sub(LONG_WORK * 2);
        assert!(!poller.look(|| unreachable!("after long work")));
        assert!(poller.look(|| true), "and once only");
    }

    #[test]
    fn seats_are_given_out_until_none_is_left_and_come_back() {
        let seats = Seats::new(2);
        let first = Seat::take(Arc::clone(&seats)).expect("one of two");
        let second = Seat::take(Arc::clone(&seats)).expect("two of two");
        assert!(Seat::take(Arc::clone(&seats)).is_none());
        drop(first);
        let third = Seat::take(Arc::clone(&seats)).expect("one came back");
        drop((second, third));
        assert_eq!(seats.taken.load(Ordering::Relaxed), 0);
        assert!(Seat::take(Seats::new(0)).is_none());
    }

    #[test]
    fn look_needs_a_seat() {
        let seats = Seats::new(1);
        let seat = Seat::take(&*seats).expect("the only one");
        assert!(Seat::take(&*seats).is_none());
        let mut poller = Poller::new(Polling::Fixed(START), Arc::clone(&seats));
        assert!(!poller.look(|| unreachable!("no seat")));
        drop(seat);
        assert!(poller.look(|| true));
        assert_eq!(seats.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn look_without_use_puts_the_next_ones_off_for_longer_each_time() {
        let slow = || {
            thread::sleep(LOST_CPU * 2);
            false
        };
        let mut poller = adaptive();
        for back_off in [1, 2, 4] {
            poller.adapt(START);
            poller.not_before = None;
            assert_eq!(poller.back_off, BACK_OFF_MIN * back_off);
            assert!(!poller.look(|| false));
            poller.not_before = Some(Instant::now() + Duration::from_secs(60));
            assert!(!poller.look(|| unreachable!("put off")));
        }
        poller.not_before = None;
        assert!(!poller.look(slow));
        assert_eq!(poller.back_off, BACK_OFF_MIN * 16);
        poller.not_before = None;
        for _ in 0..HITS_FOR_TRUST {
            assert!(poller.look(|| true));
        }
        assert_eq!(poller.back_off, BACK_OFF_MIN);
    }
}
