//! What: medians and ratios of several daemons as a table.
//!
//! In: for each test the samples of each daemon. Out: a line for each test, and the geometric means
//! of the ratios to the first daemon.

use super::side::Sample;

/// What the ratios of a table come to.
#[derive(Debug, Default)]
pub(crate) struct Ratios {
    /// For each daemon after the first: CPU time and rate.
    cpu: Vec<Vec<f64>>,
    rate: Vec<Vec<f64>>,
}

/// `a`, `b`, and so on.
pub(crate) fn letter(index: usize) -> char {
    "abcdefgh".chars().nth(index).unwrap_or('?')
}

/// The middle of the values of one part of the samples.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The sample with the medians of each part.
fn middle(samples: &[Sample]) -> Sample {
    let part = |part: fn(&Sample) -> f64| median(samples.iter().map(part).collect());
    Sample {
        operations: part(|sample| sample.operations),
        cpu_us: part(|sample| sample.cpu_us),
        rate: part(|sample| sample.rate),
        p50_us: part(|sample| sample.p50_us),
        p99_us: part(|sample| sample.p99_us),
    }
}

fn median_ratio(samples: &[Sample], to: &[Sample], part: fn(&Sample) -> f64) -> f64 {
    let pairs = samples.iter().zip(to);
    median(pairs.map(|(one, other)| part(one) / part(other)).collect())
}

impl Ratios {
    /// Prints the head of a table.
    pub(crate) fn begin(sides: usize) -> Self {
        print!("{:<28} {:>7}", "us of CPU each", "native");
        for side in 0..sides {
            let side = letter(side);
            print!(" |{side:>7} {:>8} {:>6} {:>7}", "ops/s", "p50", "p99");
        }
        print!(" | a/native");
        for what in ["cpu", "rate"] {
            for side in 1..sides {
                print!("{:>9}", format!("{what} {}/a", letter(side)));
            }
        }
        println!();
        Ratios {
            cpu: vec![Vec::new(); sides.saturating_sub(1)],
            rate: vec![Vec::new(); sides.saturating_sub(1)],
        }
    }

    /// Prints the line of one test, given the samples of each daemon. A ratio is the median of the
    /// ratios of each round: what disturbs a round disturbs all daemons in it.
    pub(crate) fn line(&mut self, name: &str, native: f64, samples: &[Vec<Sample>]) {
        print!("{name:<28} {native:>7.2}");
        for sample in samples.iter().map(|samples| middle(samples)) {
            print!(
                " |{:>7.2} {:>8.0} {:>6.1} {:>7.1}",
                sample.cpu_us, sample.rate, sample.p50_us, sample.p99_us
            );
        }
        let Some((first, others)) = samples.split_first() else {
            return;
        };
        print!(" | {:>8.2}", middle(first).cpu_us / native);
        for (other, ratios) in others.iter().zip(&mut self.cpu) {
            let ratio = median_ratio(other, first, |sample| sample.cpu_us);
            ratios.push(ratio);
            print!("{ratio:>9.2}");
        }
        for (other, ratios) in others.iter().zip(&mut self.rate) {
            let ratio = median_ratio(other, first, |sample| sample.rate);
            ratios.push(ratio);
            print!("{ratio:>9.2}");
        }
        println!();
    }

    /// Prints the geometric means.
    pub(crate) fn end(&self) {
        for (index, (cpu, rate)) in self.cpu.iter().zip(&self.rate).enumerate() {
            let side = letter(index + 1);
            println!(
                "geometric mean: {side}/a in CPU time {:.2}, {side}/a in rate {:.2}, \
                 a/{side} in rate {:.2}",
                geometric_mean(cpu),
                geometric_mean(rate),
                1.0 / geometric_mean(rate)
            );
        }
    }
}

fn geometric_mean(values: &[f64]) -> f64 {
    let count = u32::try_from(values.len().max(1)).expect("a few tests");
    let sum: f64 = values.iter().map(|value| value.ln()).sum();
    (sum / f64::from(count)).exp()
}
