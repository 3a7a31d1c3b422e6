//! Compares daemons, or one with itself, without a guest: the front end of the tests sends requests
//! of one kind at a fixed depth, to one daemon after the other in turn, and prints medians.
//!
//! ```text
//! cargo bench --bench vhost_bench -- --a 'target/release/virtiofsd --sandbox none' --b 'OTHER'
//! ```
//!
//! `--socket-path` and `--shared-dir` are added to a command line, unless `{socket}` or `{share}`
//! in it say where the two paths go. Times are CPU time of the daemon (all its processes) for one
//! operation; rates are what the front end saw, which waits as a guest does, so they have its own
//! work in them. "native" is CPU time of the same work by direct system calls. Run it on a quiet
//! machine, and look at ratios. doc/performance.md has the commands.
//!
//! ```text
//! options  the command line                         report  medians, ratios, tables
//! places   what lies on the shares                  native  the same work without a daemon
//! tests    the requests of each test                host    /proc and system calls
//! script   an Actor that repeats a test's steps     message requests without allocation
//! side     one daemon: start, mount, run a test     driver  keeps a queue busy
//! syscalls what strace counts
//! inodes   memory and descriptors for known inodes  start   time to the first reply
//! ```

mod driver;
mod host;
mod inodes;
mod message;
mod native;
mod options;
mod places;
mod report;
mod script;
mod side;
mod start;
mod syscalls;
mod tests;

#[path = "../../tests/common/mod.rs"]
mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use driver::Slots;
use native::Native;
use options::{DEPTH_MAX, Mode, Options};
use report::Ratios;
use side::{Sample, Side};
use tests::{TESTS, Test};

/// The shares of a run, which go when it ends, also by a panic.
struct Shares {
    root: PathBuf,
}

impl Shares {
    fn new(parent: &Path) -> Self {
        Shares {
            root: parent.join(format!("vhost-bench-{}", std::process::id())),
        }
    }

    /// An empty directory for the daemon with this number.
    fn make(&self, index: usize) -> PathBuf {
        let share = self.root.join(report::letter(index).to_string());
        fs::create_dir_all(&share).expect("a directory for a share");
        share
    }
}

impl Drop for Shares {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.root) {
            eprintln!("{} is left over: {error}", self.root.display());
        }
    }
}

fn main() {
    let options = Options::parse();
    for (index, command) in options.commands.iter().enumerate() {
        println!("{}: {command}", report::letter(index));
    }
    match options.mode {
        Mode::Tests | Mode::Syscalls => run_tests(&options),
        Mode::Inodes => inodes::run(&options),
        Mode::Start => start::run(&options),
    }
}

fn run_tests(options: &Options) {
    for queues in &options.queues {
        let shares = Shares::new(&options.share);
        // One share, and one piece of memory for buffers: see driver::Slots.
        let share = shares.make(0);
        let count = DEPTH_MAX.max(*queues);
        places::fill(&share, count);
        let slots = Slots::new(count);
        let commands = options.commands.iter();
        let mut sides: Vec<Side> = commands
            .map(|command| Side::new(command, &share, *queues, &slots))
            .collect();
        for depth in &options.depths {
            if options.mode == Mode::Syscalls {
                syscalls::run(&mut sides, *depth, options, &shares.root);
                continue;
            }
            print_queues(&sides, *depth);
            let mut native = Native::new(&share, *depth, &slots);
            let mut ratios = Ratios::begin(sides.len());
            for test in TESTS.iter().filter(|test| options.wants(test.name)) {
                let (floor, samples) = measure(test, &mut sides, *depth, &mut native, options);
                ratios.line(test.name, floor, &samples);
            }
            ratios.end();
        }
    }
}

fn print_queues(sides: &[Side], depth: usize) {
    let queues: Vec<String> = sides.iter().map(|side| side.queues.to_string()).collect();
    println!("\nrequest queues {}, depth {depth}", queues.join(", "));
}

/// Runs a test directly and on the daemons, in turn, and returns the median of the former and all
/// samples of the latter.
fn measure(
    test: &Test,
    sides: &mut [Side],
    depth: usize,
    native: &mut Native,
    options: &Options,
) -> (f64, Vec<Vec<Sample>>) {
    let mut samples = vec![Vec::new(); sides.len()];
    let mut floors = Vec::new();
    for _ in 0..options.rounds {
        floors.push(floor(test, native, options.period / 4));
        for (side, samples) in sides.iter_mut().zip(&mut samples) {
            samples.push(side.run(test, depth, options.period, options.habits));
        }
    }
    (report::median(floors), samples)
}

/// CPU time of one operation by direct system calls, in microseconds.
fn floor(test: &Test, native: &mut Native, period: Duration) -> f64 {
    let end = Instant::now() + period;
    let before = host::own_cpu_time();
    let (mut turn, mut operations) = (0, 0);
    while turn % 16 != 0 || Instant::now() < end {
        operations += (test.native)(native, turn);
        turn += 1;
    }
    side::micros(host::own_cpu_time() - before, operations)
}
