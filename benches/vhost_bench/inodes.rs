//! What: what a daemon has to keep for each inode that a guest knows, and whether it gets slower
//! with their number.
//!
//! In: commands, and numbers of files. Out: for each number and daemon the CPU time of the first
//! LOOKUP of a file and of further ones (in an order that no cache likes, the kernel's included, so
//! there is a floor for them), memory and descriptors that came with them, and what of that is left
//! when all is forgotten.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::request::{ENTRY_OUT, op};
use crate::common::{u64_of, usize_of64};

use super::Shares;
use super::driver::{Actor, Driver, Slots};
use super::host::{self, Footprint};
use super::message::{Message, Reply};
use super::options::{Habits, Options};
use super::report;
use super::side::{self, micros};

/// Files in one directory.
const DIRECTORY: usize = 1000;
/// Requests under way.
const DEPTH: usize = 8;
/// LOOKUPs of files that are known, in one round.
const AGAIN: usize = 200_000;
/// A prime: the order in which files are looked up again.
const STRIDE: usize = 104_729;

/// Files, and what the daemon said about them.
#[derive(Debug)]
struct Files {
    directories: Vec<u64>,
    names: Vec<String>,
    nodes: Vec<AtomicU64>,
    lookups: Vec<AtomicU32>,
}

/// What a walk over the files does with each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Lookup,
    Forget,
}

/// One slot's part of a walk: every [`DEPTH`]th step.
#[derive(Debug)]
struct Walk {
    files: Arc<Files>,
    what: What,
    step: usize,
    steps: usize,
    stride: usize,
    begun: bool,
}

impl Walk {
    fn file(&self) -> usize {
        self.step * self.stride % self.files.nodes.len()
    }

    fn take(&mut self, reply: &Reply<'_>) {
        let file = self.file();
        if self.what == What::Lookup && reply.errno == 0 {
            // Relaxed: read when the queue has run dry.
            self.files.nodes[file].store(reply.word(0), Ordering::Relaxed);
            self.files.lookups[file].fetch_add(1, Ordering::Relaxed);
        }
        self.step += DEPTH;
    }
}

impl Actor for Walk {
    fn next(&mut self, reply: Option<&Reply<'_>>, message: &mut Message) -> u64 {
        if let Some(reply) = reply {
            self.take(reply);
        }
        let (file, files) = (self.file(), &self.files);
        match self.what {
            What::Lookup => {
                let parent = files.directories[file / DIRECTORY];
                let name = files.names[file % DIRECTORY].as_bytes();
                message.ask(op::LOOKUP, parent, ENTRY_OUT).name(name);
            }
            What::Forget => {
                let node = files.nodes[file].load(Ordering::Relaxed);
                let lookups = files.lookups[file].load(Ordering::Relaxed);
                message.tell(op::FORGET, node).u64(u64::from(lookups));
            }
        }
        message.finish(u64_of(2 * self.step) + (1 << 40));
        u64::from(std::mem::replace(&mut self.begun, true))
    }

    fn is_last(&self, _: bool) -> bool {
        self.step + DEPTH >= self.steps
    }
}

/// One daemon with `count` files known or to be known to it.
struct Subject {
    client: crate::common::client::Client,
    files: Arc<Files>,
    slots: Slots,
}

impl Subject {
    fn new(command: &str, share: &Path, count: usize) -> Self {
        let mut daemon = side::spawn(command, share);
        let stream = daemon.connect();
        let slots = Slots::new(DEPTH);
        let (mut client, _) = side::mount(daemon, stream, 1, &slots);
        let directories = (0..count.div_ceil(DIRECTORY))
            .map(|number| client.node(&format!("dir-{number}")))
            .collect();
        Subject {
            client,
            files: Arc::new(Files {
                directories,
                names: (0..DIRECTORY)
                    .map(|number| format!("file-{number}"))
                    .collect(),
                nodes: (0..count).map(|_| AtomicU64::new(0)).collect(),
                lookups: (0..count).map(|_| AtomicU32::new(0)).collect(),
            }),
            slots,
        }
    }

    fn footprint(&self) -> Footprint {
        host::footprint_of_tree(self.client.vm.daemon.main_pid())
    }

    /// Goes over files; returns CPU time for each step, in microseconds.
    fn walk(&mut self, what: What, steps: usize, stride: usize) -> f64 {
        let actors = (0..DEPTH).map(|step| {
            let files = Arc::clone(&self.files);
            let walk = Walk {
                files,
                what,
                step,
                steps,
                stride,
                begun: false,
            };
            (Box::new(walk) as Box<dyn Actor>, self.slots.buffers(step))
        });
        let actors = actors.collect();
        let pid = self.client.vm.daemon.main_pid();
        let before = host::cpu_time_of_tree(pid);
        let queue = &mut self.client.session.queue;
        let region = Arc::clone(&self.slots.0);
        Driver::new(queue, actors, region, Habits::default()).run(Duration::ZERO);
        micros(host::cpu_time_of_tree(pid) - before, u64_of(steps))
    }
}

/// Measures all daemons with all numbers of files.
pub(crate) fn run(options: &Options) {
    let shares = Shares::new(&options.share);
    let share = shares.make(0);
    let most = options.inodes.iter().copied().max().unwrap_or_default();
    fill(&share, most);
    println!(
        "{:>9} {:>6} {:>8} {:>8} {:>11} {:>8} {:>11} {:>10}",
        "inodes", "daemon", "first us", "again us", "bytes each", "fds", "forget us", "bytes left"
    );
    for count in &options.inodes {
        println!(
            "{count:>9} native {:>8} {:>8.2}",
            "",
            native(&share, *count)
        );
        for (index, command) in options.commands.iter().enumerate() {
            measure(command, &share, *count, report::letter(index));
        }
    }
}

/// CPU time of statx(2) on files in the order in which they are looked up again: the kernel's
/// caches miss, too.
fn native(share: &Path, count: usize) -> f64 {
    let directories: Vec<File> = (0..count.div_ceil(DIRECTORY))
        .map(|number| File::open(share.join(format!("dir-{number}"))).expect("it was made"))
        .collect();
    let names = (0..DIRECTORY).map(|number| CString::new(format!("file-{number}")));
    let names: Vec<CString> = names.collect::<Result<_, _>>().expect("no NUL in a name");
    let rounds = (0..3).map(|_| {
        let before = host::own_cpu_time();
        for step in 0..AGAIN {
            let file = step * STRIDE % count;
            let directory = directories[file / DIRECTORY].as_fd();
            host::stat_at(directory, &names[file % DIRECTORY]);
        }
        micros(host::own_cpu_time() - before, u64_of(AGAIN))
    });
    report::median(rounds.collect())
}

/// How long a daemon may take to give memory back.
const MEMORY_PATIENCE: Duration = Duration::from_secs(3);

fn measure(command: &str, share: &Path, count: usize, side: char) {
    let mut subject = Subject::new(command, share, count);
    let before = subject.footprint();
    let first = subject.walk(What::Lookup, count, 1);
    let known = subject.files.nodes.iter();
    let known = known
        .filter(|node| node.load(Ordering::Relaxed) != 0)
        .count();
    let with_all = subject.footprint();
    // The first rounds may still bring a daemon to keep descriptors for these.
    let again = (0..7).map(|_| subject.walk(What::Lookup, AGAIN, STRIDE));
    let again = report::median(again.collect());
    let forget = subject.walk(What::Forget, count, 1);
    thread::sleep(MEMORY_PATIENCE);
    let after = subject.footprint();
    let each = |now: Footprint| {
        let more = usize_of64(now.memory.saturating_sub(before.memory));
        more / known.max(1)
    };
    if known < count {
        // What refusals cost is not what was asked for.
        println!("{count:>9} {side:>6} knows no more than {known}");
        return;
    }
    println!(
        "{count:>9} {side:>6} {first:>8.2} {again:>8.2} {:>11} {:>8} {forget:>11.2} {:>10}",
        each(with_all),
        with_all.descriptors,
        each(after),
    );
}

fn fill(share: &Path, count: usize) {
    for number in 0..count.div_ceil(DIRECTORY) {
        let directory = share.join(format!("dir-{number}"));
        fs::create_dir(&directory).expect("a directory");
        for file in 0..DIRECTORY.min(count - number * DIRECTORY) {
            fs::write(directory.join(format!("file-{file}")), "").expect("an empty file");
        }
    }
}
