//! What: counters as a table that people read and programs take apart.
//!
//! In: names and counts. Out: lines of columns with one blank between two. Invariant: the order of
//! the columns and the name of each line never change, new columns come at the end; README
//! describes them. Does not: print.

use std::cmp::Reverse;
use std::time::Duration;

use super::{OperationCount, TIMED_EVERY};

/// The columns, and a note after them.
fn header() -> String {
    format!(
        "operation requests errors bytes p50_us p99_us max_us \
         (each thread times {TIMED_EVERY} requests, then one in {TIMED_EVERY})"
    )
}

/// See [`super::Metrics::report`].
pub(super) fn lines(counts: impl Iterator<Item = (&'static str, OperationCount)>) -> Vec<String> {
    let mut counts: Vec<_> = counts.filter(|(_, count)| count.requests > 0).collect();
    // Stable, so equal counts stay in the order of the numbers.
    counts.sort_by_key(|(_, count)| Reverse(count.requests));
    let lines = counts.iter().map(|(name, count)| line(name, count));
    std::iter::once(header()).chain(lines).collect()
}

fn line(name: &str, count: &OperationCount) -> String {
    let [p50, p99, max] = [500, 990, 1000].map(|permille| micros(count.times.below(permille)));
    format!(
        "{name} {} {} {} {p50} {p99} {max}",
        count.requests, count.errors, count.bytes
    )
}

/// In microseconds, with as many decimals as it takes (three at most).
fn micros(time: Option<Duration>) -> String {
    let Some(time) = time else {
        return "-".to_owned();
    };
    let (whole, rest_ns) = (time.as_micros(), time.subsec_nanos() % 1000);
    match rest_ns {
        0 => whole.to_string(),
        _ => format!("{whole}.{rest_ns:03}")
            .trim_end_matches('0')
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn micros_have_no_more_decimals_than_they_need() {
        for (ns, text) in [
            (125, "0.125"),
            (500, "0.5"),
            (750, "0.75"),
            (1000, "1"),
            (1500, "1.5"),
            (96_000, "96"),
            (3_000_000_000, "3000000"),
        ] {
            assert_eq!(micros(Some(Duration::from_nanos(ns))), text);
        }
        assert_eq!(micros(None), "-");
    }

    #[test]
    fn lines_have_the_most_frequent_first_and_leave_out_what_was_never_asked() {
        let count = |requests, errors, bytes| OperationCount {
            requests,
            errors,
            bytes,
            ..OperationCount::default()
        };
        let counts = [
            ("LOOKUP", count(3, 1, 0)),
            ("GETATTR", count(0, 0, 0)),
            ("READ", count(40, 0, 4096)),
            ("WRITE", count(3, 0, 1)),
        ];
        let lines = lines(counts.into_iter());
        let expected = [
            "operation requests errors bytes p50_us p99_us max_us (each thread times 31 requests, \
             then one in 31)",
            "READ 40 0 4096 - - -",
            "LOOKUP 3 1 0 - - -",
            "WRITE 3 0 1 - - -",
        ];
        assert_eq!(lines, expected);
    }
}
