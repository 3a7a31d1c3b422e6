//! What: one daemon under measurement.
//!
//! In: its command line and a share. Out: a mounted client, and for each run of a test the CPU time
//! that all processes of the daemon took, the rate, and latencies. A daemon that has fewer request
//! queues than wanted is driven on those that it has.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::common::client::Client;
use crate::common::daemon::Daemon;
use crate::common::frontend::{Setup, Vm};
use crate::common::memory::MemoryLayout;
use crate::common::queue::Queue;
use crate::common::usize_of64;

use super::driver::{Actor, Driver, SlotBuffers, Slots, Tally};
use super::host;
use super::options::{DEPTH_MAX, Habits};
use super::places::Place;
use super::script::{Script, State};
use super::tests::Test;

/// Guest memory of its own: rings, and what the set-up sends.
const MEMORY_LEN: u64 = 8 << 20;

/// What works on a queue.
type Actors = Vec<(Box<dyn Actor>, SlotBuffers)>;

/// One daemon with its share, mounted.
pub(crate) struct Side {
    pub(crate) client: Client,
    /// Request queues in use.
    pub(crate) queues: usize,
    command: String,
    places: Vec<Arc<Place>>,
    slots: Slots,
}

/// One run of one test on one daemon.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) operations: f64,
    /// CPU time of the daemon for one operation, in microseconds.
    pub(crate) cpu_us: f64,
    /// Operations in a second.
    pub(crate) rate: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// Starts a daemon by a command line, in which `{socket}` and `{share}` stand for the two paths;
/// they are added as options when neither does.
pub(crate) fn spawn(command: &str, share: &Path) -> Daemon {
    let mut words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
    if !command.contains("{socket}") && !command.contains("{share}") {
        words.extend(["--socket-path={socket}", "--shared-dir={share}"].map(str::to_owned));
    }
    Daemon::spawn_words(&words, share)
}

/// Connects, starts up to `queues` request queues and mounts.
pub(crate) fn mount(
    daemon: Daemon,
    stream: UnixStream,
    queues: usize,
    slots: &Slots,
) -> (Client, usize) {
    let setup = Setup::default()
        .queues(queues)
        .queue_size(256)
        .memory(MemoryLayout::one(MEMORY_LEN))
        .common(Arc::clone(&slots.0));
    let mut vm = Vm::new(&setup, daemon, stream);
    // The first is for requests that nobody waits for.
    let offered = usize_of64(vm.queue_num).saturating_sub(1).max(1);
    let queues = queues.min(offered);
    for index in 0..=queues {
        vm.start(index, 0);
    }
    let mut client = Client::attach(vm);
    client.session.init();
    (client, queues)
}

impl Side {
    /// Starts a daemon on a share that was filled.
    pub(crate) fn new(command: &str, share: &Path, queues: usize, slots: &Slots) -> Self {
        let mut daemon = spawn(command, share);
        let stream = daemon.connect();
        let (mut client, queues) = mount(daemon, stream, queues, slots);
        let places = (0..DEPTH_MAX.max(queues))
            .map(|slot| Arc::new(Place::find(&mut client, slot)))
            .collect();
        Side {
            client,
            queues,
            command: command.to_owned(),
            places,
            slots: slots.clone(),
        }
    }

    /// Does one test for `period`, with `depth` requests under way.
    pub(crate) fn run(
        &mut self,
        test: &Test,
        depth: usize,
        period: Duration,
        habits: Habits,
    ) -> Sample {
        let slots = depth.max(self.queues);
        let mut actors: Vec<Actors> = (0..self.queues).map(|_| Vec::new()).collect();
        let mut handles = Vec::new();
        for slot in 0..slots {
            let place = Arc::clone(&self.places[slot]);
            let mut fh = 0;
            if test.needs_open {
                let opened = self.client.open(place.full, libc::O_RDWR);
                let opened = opened.unwrap_or_else(|errno| {
                    panic!("{}: OPEN for {}: errno {errno}", self.command, test.name)
                });
                fh = opened.fh;
                handles.push((place.full, fh));
            }
            let script = Script::new(test.steps, State::new(place, fh));
            actors[slot % self.queues].push((Box::new(script), self.slots.buffers(slot)));
        }
        let pid = self.client.vm.daemon.main_pid();
        let cpu = host::cpu_time_of_tree(pid);
        let tally = self.drive(actors, period, habits);
        let cpu = host::cpu_time_of_tree(pid) - cpu;
        for (node, fh) in handles {
            self.client.release(node, fh).expect("RELEASE");
        }
        sample(tally, cpu)
    }

    /// Runs the queues at the same time.
    fn drive(&mut self, actors: Vec<Actors>, period: Duration, habits: Habits) -> Tally {
        let mut others: Vec<Queue> = (2..=actors.len())
            .map(|index| self.client.vm.take_queue(index))
            .collect();
        let mut total = Tally::default();
        thread::scope(|scope| {
            let queues = std::iter::once(&mut self.client.session.queue).chain(&mut others);
            let running: Vec<_> = queues
                .zip(actors)
                .map(|(queue, actors)| {
                    let region = Arc::clone(&self.slots.0);
                    let driver = Driver::new(queue, actors, region, habits);
                    scope.spawn(move || driver.run(period))
                })
                .collect();
            for thread in running {
                let tally = thread
                    .join()
                    .unwrap_or_else(|_| panic!("{}: see above", self.command));
                total.operations += tally.operations;
                total.latencies.extend(tally.latencies);
                total.wall = total.wall.max(tally.wall);
            }
        });
        for queue in others {
            self.client.vm.return_queue(queue);
        }
        total
    }
}

/// `time` for each of `operations`.
pub(crate) fn micros(time: Duration, operations: u64) -> f64 {
    let operations = u32::try_from(operations.max(1)).expect("fewer than 2^32 operations");
    time.as_secs_f64() * 1e6 / f64::from(operations)
}

fn sample(mut tally: Tally, cpu: Duration) -> Sample {
    tally.latencies.sort_unstable();
    let at = |part: usize| {
        let last = tally.latencies.len().saturating_sub(1);
        let latency = tally.latencies.get(tally.latencies.len() * part / 100);
        let latency = latency.or_else(|| tally.latencies.get(last));
        latency.map_or(0.0, |nanos| {
            Duration::from_nanos(*nanos).as_secs_f64() * 1e6
        })
    };
    let operations = u32::try_from(tally.operations).expect("fewer than 2^32 operations");
    Sample {
        operations: f64::from(operations),
        cpu_us: micros(cpu, tally.operations),
        rate: 1e6 / micros(tally.wall, tally.operations),
        p50_us: at(50),
        p99_us: at(99),
    }
}
