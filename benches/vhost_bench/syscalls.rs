//! What: the system calls that a daemon makes for one operation, by strace: figures that no other
//! load on the machine changes.
//!
//! In: mounted daemons. Out: for each test and daemon the calls of one operation, most frequent
//! first, those fewer than one in a hundred left out. What a daemon does to sleep and to wake its
//! guest is in it, and depends on how fast the other side is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::sys;

use super::host;
use super::options::Options;
use super::report;
use super::side::Side;
use super::tests::{TESTS, Test};

/// Longest wait for strace to begin or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Prints the calls of each test.
pub(crate) fn run(sides: &mut [Side], depth: usize, options: &Options, scratch: &Path) {
    println!("\nsystem calls of one operation, depth {depth}");
    for test in TESTS.iter().filter(|test| options.wants(test.name)) {
        println!("{}", test.name);
        for (index, side) in sides.iter_mut().enumerate() {
            let calls = calls(test, side, depth, options, &scratch.join("strace"));
            let calls: Vec<String> = calls
                .iter()
                .filter(|(_, count)| *count >= 0.01)
                .map(|(name, count)| format!("{name} {count:.2}"))
                .collect();
            println!("  {} {}", report::letter(index), calls.join(", "));
        }
    }
}

fn calls(
    test: &Test,
    side: &mut Side,
    depth: usize,
    options: &Options,
    to: &Path,
) -> Vec<(String, f64)> {
    let mut strace = attach(side.client.vm.daemon.main_pid(), to);
    let sample = side.run(test, depth, options.period, options.habits);
    sys::kill(strace.id(), libc::SIGINT);
    strace.wait().expect("strace ends");
    let table = fs::read_to_string(to).expect("strace wrote its table");
    let mut calls: BTreeMap<String, f64> = BTreeMap::new();
    for line in table.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let count = words.get(3).and_then(|word| word.parse::<f64>().ok());
        if let (Some(count), Some(name)) = (count, words.last())
            && *name != "total"
        {
            *calls.entry((*name).to_owned()).or_default() += count / sample.operations;
        }
    }
    let mut calls: Vec<_> = calls.into_iter().collect();
    calls.sort_by(|one, other| other.1.total_cmp(&one.1));
    calls
}

/// Starts strace on all processes of a daemon; returns when it has all threads.
fn attach(pid: u32, to: &Path) -> Child {
    let pids = host::tree(pid);
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-c", "-o"]).arg(to);
    for pid in &pids {
        command.arg("-p").arg(pid.to_string());
    }
    let strace = command.stdin(Stdio::null()).spawn();
    let strace = strace.expect("strace has to be installed");
    let deadline = Instant::now() + PATIENCE;
    while !pids.iter().all(|pid| host::is_traced(*pid)) {
        assert!(Instant::now() < deadline, "strace does not begin");
        thread::sleep(Duration::from_millis(5));
    }
    strace
}
