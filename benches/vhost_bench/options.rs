//! What: the command line of the benchmark.

use std::path::PathBuf;
use std::time::Duration;

/// Requests that all queues together may have under way.
pub(crate) const DEPTH_MAX: usize = 32;

const USAGE: &str = "usage: vhost_bench --a COMMAND [--b COMMAND [--c COMMAND]] [--share DIR]
       [--ms PERIOD] [--rounds N] [--depth N[,N...]] [--queues N[,N...]] [--pages]
       [--halt-poll-us N] [TEST...]
       vhost_bench --syscalls --a COMMAND ... [TEST...]
       vhost_bench --inodes N[,N...] --a COMMAND ...
       vhost_bench --start --a COMMAND ...

COMMAND: a daemon with its options. --socket-path and --shared-dir are added, unless it has
{socket} or {share}, which stand for the two paths.
DIR: where the shares are made (/dev/shm). PERIOD: of each run, in ms (300).
N: 5 rounds, depths 1,8,32, queues 1. --pages: payload in single pages of 4 KiB, as guests
without large folios send it. --halt-poll-us: for so long the client looks for a reply before
it sleeps (200), as KVM does for a processor of a guest. TEST: a name or a part of it.
--syscalls: the system calls of one operation, by strace.
--inodes: memory, descriptors and CPU time for so many known files.
--start: time from the start of a daemon to its first reply.";

/// What is to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Tests,
    Syscalls,
    Inodes,
    Start,
}

/// What the client has in common with a guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// Payload comes in single pages.
    pub(crate) pages: bool,
    /// How long it looks for a reply before it sleeps.
    pub(crate) halt_poll: Duration,
}

impl Default for Habits {
    fn default() -> Self {
        Habits {
            pages: false,
            halt_poll: Duration::from_micros(200),
        }
    }
}

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) mode: Mode,
    pub(crate) inodes: Vec<usize>,
    pub(crate) commands: Vec<String>,
    pub(crate) share: PathBuf,
    pub(crate) period: Duration,
    pub(crate) rounds: usize,
    pub(crate) depths: Vec<usize>,
    pub(crate) queues: Vec<usize>,
    pub(crate) habits: Habits,
    tests: Vec<String>,
}

impl Options {
    /// Reads the command line; ends the program when it makes no sense.
    pub(crate) fn parse() -> Self {
        let mut options = Options {
            mode: Mode::Tests,
            inodes: Vec::new(),
            commands: Vec::new(),
            share: PathBuf::from("/dev/shm"),
            period: Duration::from_millis(300),
            rounds: 5,
            depths: vec![1, 8, 32],
            queues: vec![1],
            habits: Habits::default(),
            tests: Vec::new(),
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| usage());
            match word.as_str() {
                "--a" | "--b" | "--c" => options.commands.push(value()),
                "--share" => options.share = PathBuf::from(value()),
                "--ms" => options.period = Duration::from_millis(u64::from(number(&value()))),
                "--rounds" => options.rounds = usize::from(number(&value())),
                "--depth" => options.depths = numbers(&value()),
                "--queues" => options.queues = numbers(&value()),
                "--inodes" => {
                    options.mode = Mode::Inodes;
                    options.inodes = value().split(',').map(count).collect();
                }
                "--syscalls" => options.mode = Mode::Syscalls,
                "--start" => options.mode = Mode::Start,
                "--pages" => options.habits.pages = true,
                "--halt-poll-us" => {
                    options.habits.halt_poll = Duration::from_micros(u64::from(number(&value())));
                }
                "--help" | "-h" => help(),
                // Cargo passes it on.
                "--bench" => {}
                word if word.starts_with('-') => usage(),
                test => options.tests.push(test.to_owned()),
            }
        }
        if options.commands.is_empty() || options.rounds == 0 {
            usage();
        }
        options
    }

    /// Whether a test was asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.tests.is_empty() || self.tests.iter().any(|part| name.contains(part.as_str()))
    }
}

fn numbers(list: &str) -> Vec<usize> {
    let numbers = list.split(',').map(|text| usize::from(number(text)));
    numbers
        .map(|number| {
            if (1..=DEPTH_MAX).contains(&number) {
                number
            } else {
                usage()
            }
        })
        .collect()
}

fn count(text: &str) -> usize {
    text.parse()
        .ok()
        .filter(|count| *count > 0)
        .unwrap_or_else(|| usage())
}

fn number(text: &str) -> u16 {
    text.parse().unwrap_or_else(|_| usage())
}

#[expect(
    clippy::exit,
    reason = "a program that measures, not a part of the daemon"
)]
fn help() -> ! {
    println!("{USAGE}");
    std::process::exit(0);
}

#[expect(
    clippy::exit,
    reason = "a program that measures, not a part of the daemon"
)]
fn usage() -> ! {
    eprintln!("{USAGE}");
    std::process::exit(2);
}
