//! What: keeps a guest from filling the log.
//!
//! In: the wish to write a line that a guest can cause. Out: yes, or no for now. Does not: write.

use std::sync::{Mutex, TryLockError};
use std::time::{Duration, Instant};

/// Lines in one period; the threat model promises at most ten for anything a guest does.
const LINE_COUNT_MAX: u32 = 8;

/// After this long, lines are allowed again.
const PERIOD: Duration = Duration::from_secs(60);

/// A budget of log lines.
#[derive(Debug, Default)]
pub(super) struct LogLimit {
    period: Mutex<Option<Period>>,
}

#[derive(Debug)]
struct Period {
    start: Instant,
    line_count: u32,
}

impl LogLimit {
    /// Whether a line may be written now.
    pub(super) fn allows(&self) -> bool {
        self.allows_at(Instant::now())
    }

    fn allows_at(&self, now: Instant) -> bool {
        let mut period = match self.period.try_lock() {
            Ok(period) => period,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Somebody else is about to write a line: one is enough.
            Err(TryLockError::WouldBlock) => return false,
        };
        let fresh = Period {
            start: now,
            line_count: 0,
        };
        let current = period.get_or_insert(fresh);
        if now.saturating_duration_since(current.start) >= PERIOD {
            current.start = now;
            current.line_count = 0;
        }
        let allowed = current.line_count < LINE_COUNT_MAX;
        current.line_count = current.line_count.saturating_add(1);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_refused_beyond_the_budget_until_the_period_ends() {
        let limit = LogLimit::default();
        let start = Instant::now();
        let allowed = (0..1000).filter(|_| limit.allows_at(start)).count();
        assert_eq!(allowed, 8);
        assert!(!limit.allows_at(start + PERIOD - Duration::from_nanos(1)));
        assert!(limit.allows_at(start + PERIOD));
    }
}
