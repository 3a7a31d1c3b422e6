//! What: keeps guests and front ends from filling the log.
//!
//! In: lines that somebody outside can cause, at whatever speed. Out: at most
//! [`LINES_PER_SECOND`] of them in the long run and [`BURST_LINES`] at once, for the whole
//! process, and of each place in the program at most [`SITE_LINES`] in [`SITE_PERIOD`]; the next
//! one that passes says how many did not.
//!
//! Invariants: no caller waits for another; control characters in a line are escaped, so that it
//! stays one line whatever was put into it. Lines that are switched off by level cost nothing and
//! count for nothing. Does not: limit what only the operator can cause, or the trace of each
//! request, which has to be asked for.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, TryLockError};
use std::time::{Duration, Instant};

use log::Level;

/// Lines of all places together, in the long run.
const LINES_PER_SECOND: u32 = 10;

/// Lines of all places together that may come at once.
const BURST_LINES: u32 = 50;

/// Lines of one place in [`SITE_PERIOD`]. One place says the same again and again, so few are
/// enough, and they leave room for the others.
const SITE_LINES: u32 = 5;

/// After this long a place may write its lines again.
const SITE_PERIOD: Duration = Duration::from_secs(10);

/// Places that are told apart; there are fewer in the program. More would share one account.
const SITE_COUNT: usize = 64;

/// Longest line. What a guest names is shorter, except by intent.
const LINE_BYTES_MAX: usize = 1024;

/// The limiter of the process.
pub(crate) static GUEST: LogLimit = LogLimit::new();

/// Logs a line that a guest or a front end can cause, within the limits of [`LogLimit`].
macro_rules! guest_log {
    ($level:expr, $($text:tt)+) => {{
        let level: log::Level = $level;
        if log::log_enabled!(level) {
            $crate::log_limit::GUEST.say(
                level,
                $crate::log_limit::Site { module: module_path!(), line: line!() },
                format_args!($($text)+),
            );
        }
    }};
}
pub(crate) use guest_log;

/// A place in the program that writes lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    pub(crate) module: &'static str,
    pub(crate) line: u32,
}

/// See the file head.
#[derive(Debug)]
pub(crate) struct LogLimit {
    accounts: Mutex<Accounts>,
    suppressed: AtomicU64,
    start: OnceLock<Instant>,
}

#[derive(Debug)]
struct Accounts {
    /// In thousandths of a line, so that a refill of a millisecond is not lost.
    credit: u64,
    refilled_at: Duration,
    sites: [Option<SiteAccount>; SITE_COUNT],
}

#[derive(Clone, Copy, Debug)]
struct SiteAccount {
    site: Site,
    since: Duration,
    line_count: u32,
}

impl LogLimit {
    const fn new() -> Self {
        LogLimit {
            accounts: Mutex::new(Accounts {
                credit: Accounts::CREDIT_MAX,
                refilled_at: Duration::ZERO,
                sites: [None; SITE_COUNT],
            }),
            suppressed: AtomicU64::new(0),
            start: OnceLock::new(),
        }
    }

    /// Writes the line or counts it.
    pub(crate) fn say(&self, level: Level, site: Site, text: fmt::Arguments<'_>) {
        let now = self.start.get_or_init(Instant::now).elapsed();
        if !self.admits_at(site, now) {
            return;
        }
        let mut line = OneLine::default();
        // Stops at the line's end, which is no failure.
        let _ = line.write_fmt(text);
        let suppressed = self.suppressed.swap(0, Ordering::Relaxed);
        let line = line.0;
        match suppressed {
            0 => log::log!(target: site.module, level, "{line}"),
            count => {
                log::log!(target: site.module, level, "{line} (lines suppressed before this: {count})");
            }
        }
    }

    /// Says how many lines did not pass, if any, for a log that ends here.
    pub(crate) fn settle(&self) {
        let count = self.suppressed.swap(0, Ordering::Relaxed);
        if count > 0 {
            log::warn!("log lines suppressed: {count}");
        }
    }

    /// Whether a line of this place may be written now; counts it if not.
    fn admits_at(&self, site: Site, now: Duration) -> bool {
        let admitted = match self.accounts.try_lock() {
            Ok(mut accounts) => accounts.admit(site, now),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().admit(site, now),
            // Somebody else is about to write a line: one is enough.
            Err(TryLockError::WouldBlock) => false,
        };
        if !admitted {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }
}

impl Accounts {
    const LINE_CREDIT: u64 = 1000;
    const CREDIT_MAX: u64 = BURST_LINES as u64 * Self::LINE_CREDIT;

    fn admit(&mut self, site: Site, now: Duration) -> bool {
        self.refill(now);
        if self.credit < Self::LINE_CREDIT || !self.admit_site(site, now) {
            return false;
        }
        self.credit = self.credit.saturating_sub(Self::LINE_CREDIT);
        true
    }

    fn refill(&mut self, now: Duration) {
        let millis = now.saturating_sub(self.refilled_at).as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        if millis == 0 {
            return;
        }
        let refill = millis.saturating_mul(u64::from(LINES_PER_SECOND));
        self.credit = self.credit.saturating_add(refill).min(Self::CREDIT_MAX);
        self.refilled_at = now;
    }

    fn admit_site(&mut self, site: Site, now: Duration) -> bool {
        let known = |entry: &Option<SiteAccount>| entry.is_none_or(|known| known.site == site);
        let index = self.sites.iter().position(known).unwrap_or(0);
        let Some(entry) = self.sites.get_mut(index) else {
            return false;
        };
        let account = entry.get_or_insert(SiteAccount {
            site,
            since: now,
            line_count: 0,
        });
        if now.saturating_sub(account.since) >= SITE_PERIOD {
            account.since = now;
            account.line_count = 0;
        }
        let admitted = account.line_count < SITE_LINES;
        account.line_count = account.line_count.saturating_add(1);
        admitted
    }
}

/// Text without control characters, of bounded length.
#[derive(Debug, Default)]
struct OneLine(String);

impl fmt::Write for OneLine {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            if self.0.len() >= LINE_BYTES_MAX {
                return Err(fmt::Error);
            }
            if letter.is_control() {
                self.0.extend(letter.escape_debug());
            } else {
                self.0.push(letter);
            }
        }
        Ok(())
    }
}

/// Sends what a panic says to the log, within the limits: a guest that has found a way to cause
/// panics could fill the log by them. Without this they go to standard error, several lines each.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        guest_log!(Level::Error, "a bug in this program: {info}");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn site(line: u32) -> Site {
        Site { module: "m", line }
    }

    fn admitted(limit: &LogLimit, lines: std::ops::Range<u32>, now: Duration) -> usize {
        lines
            .filter(|line| limit.admits_at(site(*line), now))
            .count()
    }

    #[test]
    fn all_places_together_have_a_burst_of_50_then_10_per_second() {
        let limit = LogLimit::new();
        assert_eq!(admitted(&limit, 0..60, Duration::ZERO), 50);
        assert_eq!(limit.suppressed.load(Ordering::Relaxed), 10);
        assert_eq!(admitted(&limit, 0..60, SECOND / 20), 0);
        assert_eq!(admitted(&limit, 0..60, SECOND / 10), 1);
        assert_eq!(admitted(&limit, 0..60, SECOND), 9);
        assert_eq!(admitted(&limit, 0..60, SECOND * 3600), 50);
    }

    #[test]
    fn one_place_has_5_lines_in_10_seconds() {
        let limit = LogLimit::new();
        let flood = |now| (0..1000).filter(|_| limit.admits_at(site(7), now)).count();
        assert_eq!(flood(Duration::ZERO), 5);
        assert_eq!(flood(SECOND * 9), 0);
        assert_eq!(flood(SECOND * 10), 5);
        assert!(limit.admits_at(site(8), SECOND * 10), "others go on");
        assert_eq!(limit.suppressed.load(Ordering::Relaxed), 995 + 1000 + 995);
    }

    #[test]
    fn more_places_than_are_told_apart_share_one_account() {
        let limit = LogLimit::new();
        for line in 0..1000 {
            limit.admits_at(site(line), SECOND * 10 * line);
        }
        let now = SECOND * 10_000;
        assert_eq!(admitted(&limit, 500..600, now), 5);
    }

    #[test]
    fn clock_that_stands_still_or_goes_back_gives_nothing() {
        let limit = LogLimit::new();
        assert_eq!(admitted(&limit, 0..60, SECOND * 5), 50);
        assert_eq!(admitted(&limit, 0..60, SECOND * 5), 0);
        assert_eq!(admitted(&limit, 0..60, SECOND), 0);
    }

    #[test]
    fn control_characters_and_long_texts_stay_one_line() {
        let mut line = OneLine::default();
        write!(line, "a\n\x1b[31m{:?}\u{85}", "b\r").unwrap();
        assert_eq!(line.0, "a\\n\\u{1b}[31m\"b\\r\"\\u{85}");
        let mut line = OneLine::default();
        assert!(write!(line, "{}", "x".repeat(5000)).is_err());
        assert_eq!(line.0.len(), LINE_BYTES_MAX);
    }
}
