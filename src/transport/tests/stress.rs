//! Lost wake-ups: drivers that sleep on their call descriptor whenever they have to, and would
//! sleep for ever if one signal or one kick were missing.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::bench::{Bench, ECHO, FORGET};
use crate::transport::test_guest::{Driver, MODES, TestMemory};

const REQUESTS: u32 = 12_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// What one driver thread has.
struct Side {
    driver: Driver,
    memory: Arc<TestMemory>,
    kick: File,
    call: File,
    opcode: u32,
}

impl Side {
    /// Keeps a changing number of requests under way until all are done.
    fn drive(mut self) {
        let slots = self.driver.size / 2;
        let mut free: Vec<u16> = (0..slots).map(|slot| slot * 2).collect();
        let (mut sent, mut done) = (0_u32, 0_u32);
        let mut expected = vec![0_u64; usize::from(self.driver.size)];
        let mut replies = vec![0_u64; usize::from(self.driver.size)];
        let mut random = 0x9e37_79b9_u32;
        while done < REQUESTS {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let burst = (random >> 16) % 17 + 1;
            for _ in 0..burst {
                let Some(head) = free.pop().filter(|_| sent < REQUESTS) else {
                    break;
                };
                sent += 1;
                let room = if self.opcode == FORGET { 0 } else { 64 };
                let unique = u64::from(sent);
                let index = usize::from(head);
                replies[index] =
                    self.driver
                        .request(&self.memory, head, (self.opcode, unique), room);
                expected[index] = unique;
            }
            if self.driver.publish() {
                self.kick.write_all(&1_u64.to_ne_bytes()).expect("room");
            }
            done += self.collect(&mut free, &expected, &replies);
            let idle = free.is_empty() || sent == REQUESTS || random & 1 == 0;
            if idle && sent > done && !self.driver.request_signals() {
                let mut count = [0; 8];
                self.call.read_exact(&mut count).expect("a signal");
            }
        }
    }

    fn collect(&mut self, free: &mut Vec<u16>, expected: &[u64], replies: &[u64]) -> u32 {
        let mut done = 0;
        while let Some((head, len)) = self.driver.collect() {
            let index = usize::from(head);
            if self.opcode == FORGET {
                assert_eq!(len, 0);
            } else {
                assert_eq!(len, 16);
                let window = self.memory.window(replies[index] + 8, 8);
                let unique = window.read::<8>(0).map(u64::from_le_bytes);
                assert_eq!(unique, Some(expected[index]));
            }
            free.push(head);
            done += 1;
        }
        done
    }
}

fn stress(mode: usize, threads: usize) {
    let mut bench = Bench::new(MODES[mode], threads, 3);
    bench.start_all();
    let drivers = std::mem::take(&mut bench.drivers);
    let (finished, all) = mpsc::channel();
    let memory = std::mem::replace(&mut bench.memory, TestMemory::new(&[(0, 4096)]));
    let memory = Arc::new(memory);
    let queues = drivers.len();
    for (index, driver) in drivers.into_iter().enumerate() {
        let (kick, call) = bench.descriptors(index);
        let side = Side {
            driver,
            memory: Arc::clone(&memory),
            kick,
            call,
            opcode: if index == 0 { FORGET } else { ECHO },
        };
        let finished = finished.clone();
        thread::spawn(move || {
            side.drive();
            finished.send(index).expect("the test waits");
        });
    }
    drop(finished);
    for _ in 0..queues {
        let end = all.recv_timeout(PATIENCE);
        assert!(end.is_ok(), "a wake-up was lost: {end:?}");
    }
    let served = bench.handler.served();
    assert_eq!(served, REQUESTS * u32::try_from(queues).expect("few"));
}

#[test]
fn requests_on_three_queues_without_event_idx_all_come_back() {
    stress(0, 0);
}

#[test]
fn requests_on_three_queues_with_event_idx_all_come_back() {
    stress(1, 0);
}

#[test]
fn requests_on_three_queues_with_a_pool_all_come_back() {
    stress(0, 2);
    stress(1, 2);
}
