//! Compares two daemons, or one with itself, without a guest: the front end of the tests sends
//! requests of one kind at a fixed depth, to one daemon and the other in turn, and prints medians.
//!
//! ```text
//! cargo bench --bench vhost_bench -- --a 'target/release/virtiofsd --sandbox none' --b 'OTHER'
//! ```
//!
//! `--socket-path` and `--shared-dir` are added to both command lines. Times are CPU time of the
//! daemon (all its processes) for one operation; rates are what the front end saw, which waits as
//! a guest does, so they have its own work in them. "native" is CPU time of the same work by
//! direct system calls. Run it on a quiet machine, and look at ratios.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed benchmark")]

#[path = "../../tests/common/mod.rs"]
mod common;
mod driver;
mod host;
mod options;
mod script;
mod tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use common::client::Client;
use common::daemon::Daemon;
use common::frontend::{Setup, Vm};
use common::memory::MemoryLayout;
use common::queue::Queue;
use common::u64_of;
use driver::{Actor, Driver, Tally};
use options::Options;
use script::{Script, State};
use tests::{FILE_LEN, FILES, FULL_FILES, LONG, LONG_ENTRIES, Needs, TESTS, Test};

/// Guest memory: room for the buffers of the deepest test on every queue.
const MEMORY_LEN: u64 = 1 << 30;

/// One daemon with its share, mounted.
struct Side {
    client: Client,
    share: PathBuf,
}

/// One run of one test on one daemon.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    /// CPU time of the daemon for one operation, in microseconds.
    cpu_us: f64,
    /// Operations in a second.
    rate: f64,
    p50_us: f64,
    p99_us: f64,
}

fn main() {
    let options = Options::parse();
    let root = options
        .share
        .join(format!("vhost-bench-{}", std::process::id()));
    for queues in &options.queues {
        let mut sides: Vec<Side> = options
            .commands
            .iter()
            .enumerate()
            .map(|(index, command)| Side::new(command, &root.join(index.to_string()), *queues))
            .collect();
        for depth in &options.depths {
            println!("\n{queues} queue(s), depth {depth}");
            print_head(sides.len());
            let mut ratios = Vec::new();
            for test in TESTS.iter().filter(|test| options.wants(test.name)) {
                ratios.extend(compare(test, &mut sides, *depth, &options));
            }
            if !ratios.is_empty() {
                let sum: f64 = ratios.iter().map(|ratio: &f64| ratio.ln()).sum();
                let count = f64::from(u32::try_from(ratios.len()).unwrap());
                println!(
                    "geometric mean of b/a in CPU time: {:.2}",
                    (sum / count).exp()
                );
            }
        }
        drop(sides);
        fs::remove_dir_all(&root).unwrap();
    }
}

fn print_head(sides: usize) {
    print!("{:<28} {:>8}", "test (us of CPU each)", "native");
    for side in ["a", "b"].iter().take(sides) {
        print!(" {side:>8} {:>9} {:>7} {:>7}", "ops/s", "p50 us", "p99 us");
    }
    println!("{}", if sides > 1 { "   b/a" } else { "" });
}

/// Runs a test on the daemons in turn, prints a line, and returns the ratio of CPU times.
fn compare(test: &Test, sides: &mut [Side], depth: usize, options: &Options) -> Option<f64> {
    let mut samples = vec![Vec::new(); sides.len()];
    for _ in 0..options.rounds {
        for (side, samples) in sides.iter_mut().zip(&mut samples) {
            samples.push(side.run(test, depth, options.period));
        }
    }
    let native = test
        .native
        .map(|work| native(work, &sides[0].share, options.period));
    print!(
        "{:<28} {:>8}",
        test.name,
        native.map_or_else(String::new, |us| format!("{us:.2}"))
    );
    let middle: Vec<Sample> = samples.iter().map(|samples| median(samples)).collect();
    for sample in &middle {
        print!(
            " {:>8.2} {:>9.0} {:>7.1} {:>7.1}",
            sample.cpu_us, sample.rate, sample.p50_us, sample.p99_us
        );
    }
    let ratio = match middle.as_slice() {
        [a, b] => Some(b.cpu_us / a.cpu_us),
        _ => None,
    };
    println!(
        "{}",
        ratio.map_or_else(String::new, |ratio| format!(" {ratio:>5.2}"))
    );
    ratio
}

fn median(samples: &[Sample]) -> Sample {
    let middle = |part: fn(&Sample) -> f64| {
        let mut values: Vec<f64> = samples.iter().map(part).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Sample {
        cpu_us: middle(|sample| sample.cpu_us),
        rate: middle(|sample| sample.rate),
        p50_us: middle(|sample| sample.p50_us),
        p99_us: middle(|sample| sample.p99_us),
    }
}

/// CPU time of one operation by direct system calls, in microseconds.
fn native(work: fn(&Path, usize), share: &Path, period: Duration) -> f64 {
    let dir = share.join("slot-0");
    let end = Instant::now() + period;
    let before = host::own_cpu_time();
    let mut turn = 0;
    while turn % 64 != 0 || Instant::now() < end {
        work(&dir, turn);
        turn += 1;
    }
    micros(host::own_cpu_time() - before, u64_of(turn))
}

fn micros(time: Duration, operations: u64) -> f64 {
    let operations = u32::try_from(operations.max(1)).unwrap();
    time.as_secs_f64() * 1e6 / f64::from(operations)
}

impl Side {
    /// Fills a share, starts a daemon on it by `command`, and mounts it.
    fn new(command: &str, share: &Path, queues: usize) -> Self {
        fill(share, queues * options::DEPTH_MAX);
        // The front end of the tests puts its own binary and the two options behind the wrapper.
        let script = format!("exec {command} --socket-path \"$3\" --shared-dir \"$5\"");
        let wrapper = ["sh", "-c", &script, "sh"].map(str::to_owned);
        let mut daemon = Daemon::spawn_through(&wrapper, share, &[]);
        let setup = Setup::default()
            .queues(queues)
            .queue_size(256)
            .memory(MemoryLayout::one(MEMORY_LEN));
        let stream = daemon.connect();
        let mut vm = Vm::new(&setup, daemon, stream);
        vm.start_all();
        let mut client = Client::attach(vm);
        client.session.init();
        Side {
            client,
            share: share.to_owned(),
        }
    }

    fn run(&mut self, test: &Test, depth: usize, period: Duration) -> Sample {
        let queues = self.client.vm.setup.request_queues;
        let slots = depth.max(queues);
        let mut actors: Vec<Vec<Box<dyn Actor>>> = (0..queues).map(|_| Vec::new()).collect();
        let mut handles = Vec::new();
        for slot in 0..slots {
            let state = self.state(test, slot);
            handles.push((state.files[0], state.fh));
            actors[slot % queues].push(Box::new(Script::new(test.steps, state)));
        }
        let pid = self.client.vm.daemon.main_pid();
        let (cpu, begin) = (host::cpu_time_of_tree(pid), Instant::now());
        let tally = self.drive(actors, period);
        let (cpu, wall) = (host::cpu_time_of_tree(pid) - cpu, begin.elapsed());
        if test.needs == Needs::OpenFile {
            for (node, fh) in handles {
                self.client.release(node, fh).unwrap();
            }
        }
        sample(tally, cpu, wall)
    }

    /// Runs the queues at the same time, the first in this thread's session.
    fn drive(&mut self, actors: Vec<Vec<Box<dyn Actor>>>, period: Duration) -> Tally {
        let mut others: Vec<Queue> = (2..=actors.len())
            .map(|index| self.client.vm.take_queue(index))
            .collect();
        let mut total = Tally::default();
        thread::scope(|scope| {
            let queues = std::iter::once(&mut self.client.session.queue).chain(&mut others);
            let running: Vec<_> = queues
                .zip(actors)
                .map(|(queue, actors)| scope.spawn(move || Driver::new(queue, actors).run(period)))
                .collect();
            for thread in running {
                let tally = thread.join().unwrap();
                total.operations += tally.operations;
                total.latencies.extend(tally.latencies);
            }
        });
        for queue in others {
            self.client.vm.return_queue(queue);
        }
        total
    }

    /// Looks the files of a slot up, and opens what the test needs.
    fn state(&mut self, test: &Test, slot: usize) -> State {
        let dir = self.client.node(&format!("slot-{slot}"));
        let mut find = |name: &str| self.client.lookup(dir, name).unwrap().node;
        let files: Vec<u64> = (0..FILES).map(|turn| find(&tests::name(turn))).collect();
        let node = match test.needs {
            Needs::LongDirectory => self.client.lookup(1, LONG).unwrap().node,
            Needs::Nothing | Needs::OpenFile => 0,
        };
        let fh = match test.needs {
            Needs::OpenFile => self.client.open(files[0], libc::O_RDWR).unwrap().fh,
            Needs::Nothing | Needs::LongDirectory => 0,
        };
        State {
            slot,
            dir,
            files,
            fh,
            node,
            opened: 0,
            offset: 0,
            turn: 0,
            done: 0,
            again: false,
        }
    }
}

fn sample(mut tally: Tally, cpu: Duration, wall: Duration) -> Sample {
    tally.latencies.sort();
    let at = |part: usize| {
        let index = tally.latencies.len() * part / 100;
        let latency = tally
            .latencies
            .get(index.min(tally.latencies.len().saturating_sub(1)));
        latency.map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
    };
    let operations = f64::from(u32::try_from(tally.operations).unwrap());
    Sample {
        cpu_us: micros(cpu, tally.operations),
        rate: operations / wall.as_secs_f64(),
        p50_us: at(50),
        p99_us: at(99),
    }
}

/// A directory for each slot, and one with many entries.
fn fill(share: &Path, slots: usize) {
    fs::create_dir_all(share.join(LONG)).unwrap();
    for number in 0..LONG_ENTRIES {
        fs::write(share.join(LONG).join(format!("entry-{number}")), "").unwrap();
    }
    let contents = vec![7; FILE_LEN];
    for slot in 0..slots {
        let dir = share.join(format!("slot-{slot}"));
        fs::create_dir_all(&dir).unwrap();
        for turn in 0..FILES {
            let contents: &[u8] = if turn < FULL_FILES { &contents } else { &[] };
            let path = dir.join(tests::name(turn));
            fs::write(&path, contents).unwrap();
            common::sys::set_xattr(&path, c"user.bench", b"some value").unwrap();
        }
        fs::write(dir.join("moving"), "").unwrap();
        std::os::unix::fs::symlink("target", dir.join("link")).unwrap();
    }
}
