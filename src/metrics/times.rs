//! What: how long requests took, in buckets.
//!
//! In: durations. Out: how many fell into each of [`BUCKET_COUNT`] buckets, two for each power of
//! two: up to 0.125 us, 0.25, 0.375, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12, ... So a bound is at
//! most half more than the time that it stands for, from 0.25 us up to minutes. Invariant: one
//! thread writes a [`Times`], any may read it. Does not: keep single times.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets; the last one, from 402 seconds on, takes everything beyond.
const BUCKET_COUNT: usize = 64;

/// Width of the first buckets.
const UNIT_NS: u64 = 125;

/// The bucket for `elapsed`.
fn bucket_of(elapsed: Duration) -> usize {
    let units = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX) / UNIT_NS;
    let index = match units.checked_ilog2() {
        None | Some(0) => units,
        Some(octave) => {
            let upper_half = (units >> (octave - 1)) & 1;
            2 * u64::from(octave) + upper_half
        }
    };
    let last = BUCKET_COUNT - 1;
    usize::try_from(index).map_or(last, |index| index.min(last))
}

/// Where bucket `index` ends, in nanoseconds: every time in it is shorter.
fn bucket_end_ns(index: usize) -> u64 {
    let next = u64::try_from(index.min(BUCKET_COUNT - 1)).map_or(0, |index| index + 1);
    let units = match next {
        0 | 1 => next,
        _ => (2 + next % 2) << (next / 2 - 1),
    };
    units * UNIT_NS
}

/// A histogram that one thread writes.
#[derive(Debug)]
pub(super) struct Times {
    buckets: [AtomicU64; BUCKET_COUNT],
}

impl Default for Times {
    fn default() -> Self {
        Times {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Times {
    /// Counts the time of one request, which stands for `weight` of them.
    pub(super) fn note(&self, elapsed: Duration, weight: u64) {
        if let Some(bucket) = self.buckets.get(bucket_of(elapsed)) {
            super::add(bucket, weight);
        }
    }
}

/// A histogram at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeCounts {
    buckets: [u64; BUCKET_COUNT],
}

impl Default for TimeCounts {
    fn default() -> Self {
        TimeCounts {
            buckets: [0; BUCKET_COUNT],
        }
    }
}

impl TimeCounts {
    /// Adds what `times` has counted.
    pub(super) fn add(&mut self, times: &Times) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&times.buckets) {
            *sum += bucket.load(Ordering::Relaxed);
        }
    }

    /// Requests that it stands for.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// What `permille` in 1000 of the times stay below, as the end of a bucket. `None` when
    /// nothing was timed.
    pub fn below(&self, permille: u64) -> Option<Duration> {
        let rank = self.count().saturating_mul(permille).div_ceil(1000).max(1);
        let mut seen = 0;
        let index = self.buckets.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(Duration::from_nanos(bucket_end_ns(index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A histogram of times in nanoseconds.
    fn counts_of(times_ns: &[u64]) -> TimeCounts {
        let times = Times::default();
        for &ns in times_ns {
            times.note(Duration::from_nanos(ns), 1);
        }
        let mut counts = TimeCounts::default();
        counts.add(&times);
        counts
    }

    #[test]
    fn buckets_end_where_the_next_one_begins() {
        for index in 0..BUCKET_COUNT - 1 {
            let end = bucket_end_ns(index);
            assert_eq!(bucket_of(Duration::from_nanos(end - 1)), index, "{end}");
            assert_eq!(bucket_of(Duration::from_nanos(end)), index + 1, "{end}");
        }
        let ends: Vec<u64> = (0..12).map(bucket_end_ns).collect();
        let expected = [
            125, 250, 375, 500, 750, 1000, 1500, 2000, 3000, 4000, 6000, 8000,
        ];
        assert_eq!(ends, expected);
    }

    #[test]
    fn times_without_end_fall_into_the_last_bucket() {
        for elapsed in [Duration::from_secs(403), Duration::MAX] {
            assert_eq!(bucket_of(elapsed), BUCKET_COUNT - 1, "{elapsed:?}");
        }
        assert_eq!(bucket_of(Duration::from_secs(402)), BUCKET_COUNT - 2);
        assert_eq!(bucket_of(Duration::ZERO), 0);
    }

    #[test]
    fn percentiles_are_the_end_of_the_bucket_with_that_rank() {
        let mut times = vec![900; 98];
        times.extend([5_000, 70_000]);
        let counts = counts_of(&times);
        let below_ns = |permille| counts.below(permille).map(|bound| bound.as_nanos());
        assert_eq!(counts.count(), 100);
        assert_eq!(below_ns(500), Some(1000));
        assert_eq!(below_ns(980), Some(1000));
        // The 99th of 100 is the one of 5 us, the 100th that of 70.
        assert_eq!(below_ns(990), Some(6000));
        assert_eq!(below_ns(991), Some(96_000));
        assert_eq!(below_ns(1000), Some(96_000));
    }

    #[test]
    fn time_with_a_weight_counts_as_so_many() {
        let times = Times::default();
        times.note(Duration::from_nanos(400), 2);
        times.note(Duration::from_nanos(800), 31);
        let mut counts = TimeCounts::default();
        counts.add(&times);
        assert_eq!(counts.count(), 33);
        // Two in 33 are 61 in 1000.
        assert_eq!(counts.below(60), Some(Duration::from_nanos(500)));
        assert_eq!(counts.below(61), Some(Duration::from_nanos(1000)));
    }

    #[test]
    fn percentiles_of_one_time_are_that_and_of_none_are_nothing() {
        let one = counts_of(&[1_200]);
        for permille in [0, 1, 500, 990, 1000] {
            assert_eq!(one.below(permille), Some(Duration::from_nanos(1500)));
            assert_eq!(counts_of(&[]).below(permille), None);
        }
    }
}
