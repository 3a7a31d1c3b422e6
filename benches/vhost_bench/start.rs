//! What: how long it takes until a guest is served: from the start of the process to the reply to
//! INIT, the first request.
//!
//! In: commands. Out: medians in ms. The front end tries to connect all the time, so what it adds
//! is its share of the negotiation, the same for every daemon.

use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use super::Shares;
use super::driver::Slots;
use super::options::Options;
use super::report;
use super::side;

/// Starts of each daemon.
const STARTS: usize = 20;
/// Longest wait for a socket.
const PATIENCE: Duration = Duration::from_secs(20);

/// Starts each daemon [`STARTS`] times, in turn, and prints medians.
pub(crate) fn run(options: &Options) {
    let shares = Shares::new(&options.share);
    let slots = Slots::new(1);
    let mut times = vec![Vec::new(); options.commands.len()];
    for _ in 0..STARTS {
        for (index, (command, times)) in options.commands.iter().zip(&mut times).enumerate() {
            let share = shares.make(index);
            let begin = Instant::now();
            let daemon = side::spawn(command, &share);
            let stream = loop {
                match UnixStream::connect(&daemon.socket) {
                    Ok(stream) => break stream,
                    Err(error) => assert!(begin.elapsed() < PATIENCE, "connect: {error}"),
                }
                thread::sleep(Duration::from_micros(50));
            };
            let (client, _) = side::mount(daemon, stream, 1, &slots);
            times.push(begin.elapsed().as_secs_f64() * 1e3);
            drop(client);
        }
    }
    println!("start to the INIT reply, {STARTS} times, in ms: median, fastest");
    for (index, times) in times.into_iter().enumerate() {
        let fastest = times.iter().copied().fold(f64::INFINITY, f64::min);
        let (side, median) = (report::letter(index), report::median(times));
        println!("{side} {median:>8.2} {fastest:>8.2}");
    }
}
