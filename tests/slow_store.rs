//! What a daemon without `--thread-pool-size` does while its store is slow: requests of one queue
//! that wait for it wait together, and nobody waits with them; and what is in the host's memory
//! goes the short way, whole.
//!
//! `figures` is a measurement; it prints rates at depth 32 with nothing in memory and times at depth
//! 1 with all of it there, without a pool and by default:
//! `VIRTIOFSD_UNDER_TEST=target/release/virtiofsd cargo test --test slow_store -- --ignored --nocapture`

mod common;

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use common::client::Client;
use common::daemon::Daemon;
use common::frontend::Setup;
use common::request::{OUT_HEADER, op};
use common::session_data::At;
use common::share::Share;
use common::slow_store::{SlowStore, byte_at, node_of};
use common::{Rng, sys, u64_of};

const PAGE: u64 = 4096;

/// As users have it, and without what may not be had everywhere.
const MODES: [&[&str]; 2] = [&[], &["--sandbox", "none", "--seccomp", "none"]];

fn client_on(path: &Path, args: &[&str]) -> Client {
    let setup = Setup::default().queue_size(256).args(args);
    let mut client = Client::attach(setup.boot(path));
    client.session.init();
    client
}

/// Threads of the pool.
fn pool_threads(daemon: &Daemon) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("it lives");
    let names = tasks
        .flatten()
        .map(|task| std::fs::read_to_string(task.path().join("comm")));
    names
        .filter(|name| {
            name.as_ref()
                .is_ok_and(|name| name.starts_with("virtiofsd-pool"))
        })
        .count()
}

/// READs of these pages, all put in line before the first is waited for.
fn read_at_once(client: &mut Client, at: At, pages: std::ops::Range<u64>) {
    let heads: Vec<(u64, u16)> = pages
        .map(|page| {
            let offset = page * PAGE;
            (offset, client.start_read(At { offset, ..at }, 4096))
        })
        .collect();
    for (offset, head) in heads {
        let reply = client.queue.wait_for(head).reply;
        let contents: Vec<u8> = (offset..offset + PAGE).map(|at| byte_at(0, at)).collect();
        assert!(reply[OUT_HEADER..] == contents, "page at {offset}");
    }
}

fn open_first(client: &mut Client) -> At {
    let node = client.node("f0");
    let fh = client.open(node, libc::O_RDONLY).expect("it opens").fh;
    At {
        node,
        fh,
        offset: 0,
    }
}

#[test]
fn uncached_reads_of_one_queue_overlap_by_default() {
    for args in MODES {
        let test = "uncached_reads_of_one_queue_overlap_by_default";
        let Some(store) = SlowStore::mount_or_skip(test, true) else {
            return;
        };
        let mut client = client_on(&store.path(), args);
        let at = open_first(&mut client);
        assert_eq!(pool_threads(&client.vm.daemon), 0);
        store.counts.reads.set_delay(Duration::from_millis(100));
        read_at_once(&mut client, at, 0..16);
        assert!(store.counts.reads.take_most() >= 2);
        assert!(pool_threads(&client.vm.daemon) >= 2);

        // In memory now, whether alone or not.
        let total = store.counts.reads.total();
        read_at_once(&mut client, at, 0..16);
        for page in 0..16 {
            read_at_once(&mut client, at, page..page + 1);
        }
        assert_eq!(store.counts.reads.total(), total);
        assert!(client.shut_down().success());
    }
}

#[test]
fn uncached_reads_of_one_queue_wait_for_each_other_without_a_pool() {
    let test = "uncached_reads_of_one_queue_wait_for_each_other_without_a_pool";
    let Some(store) = SlowStore::mount_or_skip(test, true) else {
        return;
    };
    let mut client = client_on(&store.path(), &["--thread-pool-size", "0"]);
    let at = open_first(&mut client);
    store.counts.reads.set_delay(Duration::from_millis(20));
    read_at_once(&mut client, at, 0..8);
    assert_eq!(store.counts.reads.take_most(), 1);
    assert_eq!(pool_threads(&client.vm.daemon), 0);
}

#[test]
fn uncached_lookups_of_one_queue_overlap_by_default() {
    for args in MODES {
        let test = "uncached_lookups_of_one_queue_overlap_by_default";
        let Some(store) = SlowStore::mount_or_skip(test, false) else {
            return;
        };
        let mut client = client_on(&store.path(), args);
        store.counts.looks.set_delay(Duration::from_millis(50));
        let heads: Vec<u16> = (0..24)
            .map(|number| {
                let name = format!("f{number}\0");
                let (message, _) = client.message(op::LOOKUP, 1, name.as_bytes());
                client.queue.submit(&message, OUT_HEADER + 128)
            })
            .collect();
        for head in heads {
            let reply = client.queue.wait_for(head).reply;
            assert_eq!(reply.len(), OUT_HEADER + 128);
            let node = u64::from_le_bytes(reply[16..24].try_into().expect("eight bytes"));
            client.forget(node, 1);
        }
        assert!(store.counts.looks.take_most() >= 2);
    }
}

#[test]
fn read_that_is_cached_in_part_comes_back_whole() {
    let len = 64 * PAGE;
    let share = Share::new();
    let contents: Vec<u8> = (0..len).map(|at| byte_at(3, at)).collect();
    let path = share.at("partly");
    let mut file = File::create_new(&path).expect("a fresh share");
    file.write_all(&contents).expect("room");
    file.sync_all().expect("a disk");
    let file = File::open(&path).expect("it is there");
    sys::read_nothing_ahead(&file);
    for pool in [&[][..], &["--thread-pool-size", "0"]] {
        let mut client = client_on(&share.path(), pool);
        let node = client.node("partly");
        let fh = client.open(node, libc::O_RDONLY).expect("it opens").fh;
        for cached_pages in [0, 1, 5, 63] {
            for depth in [1, 8] {
                sys::drop_pages(&file, 0, 0);
                let mut page = [0; 4096];
                for cached in 0..cached_pages {
                    file.read_exact_at(&mut page, cached * PAGE)
                        .expect("a page");
                }
                let at = At {
                    node,
                    fh,
                    offset: 0,
                };
                let size = u32::try_from(len + PAGE).expect("small");
                let heads: Vec<u16> = (0..depth).map(|_| client.start_read(at, size)).collect();
                for head in heads {
                    let reply = client.queue.wait_for(head).reply;
                    assert!(reply[OUT_HEADER..] == contents, "{cached_pages} {depth}");
                }
            }
        }
    }
}

#[test]
fn partly_cached_read_of_a_slow_store_comes_back_whole() {
    let test = "partly_cached_read_of_a_slow_store_comes_back_whole";
    let Some(store) = SlowStore::mount_or_skip(test, true) else {
        return;
    };
    let mut client = client_on(&store.path(), &[]);
    let at = open_first(&mut client);
    read_at_once(&mut client, at, 2..3);
    let reply = client.read(at, 8 * 4096).expect("it reads");
    let contents: Vec<u8> = (0..8 * PAGE).map(|at| byte_at(0, at)).collect();
    assert!(reply == contents);
    let end = At {
        offset: common::slow_store::FILE_LEN - PAGE,
        ..at
    };
    assert_eq!(client.read(end, 8 * 4096).expect("it reads").len(), 4096);
    let behind = At {
        offset: common::slow_store::FILE_LEN,
        ..at
    };
    assert_eq!(client.read(behind, 4096).expect("it reads").len(), 0);
}

/// What a reply has to hold.
enum Expected {
    Page(u64),
    File(u64),
    Missing,
    Done,
}

/// A request at random, and what it must bring.
fn random_request(client: &mut Client, at: At, rng: &mut Rng) -> (u16, Expected) {
    let number = u64_of(rng.below(4000));
    let (opcode, node, body, room, expected) = match rng.below(8) {
        0..4 => {
            let offset = number * PAGE;
            let head = client.start_read(At { offset, ..at }, 4096);
            return (head, Expected::Page(offset));
        }
        4 | 5 => {
            let name = format!("f{number}\0").into_bytes();
            (op::LOOKUP, 1, name, 128, Expected::File(number))
        }
        6 => (op::LOOKUP, 1, b"missing\0".to_vec(), 128, Expected::Missing),
        _ => {
            let body = [at.fh.to_le_bytes(), [0; 8]].concat();
            (op::FSYNC, at.node, body, 0, Expected::Done)
        }
    };
    let (message, _) = client.message(opcode, node, &body);
    (client.queue.submit(&message, OUT_HEADER + room), expected)
}

/// The node that it grants, if it does.
fn check(reply: &[u8], expected: &Expected) -> Option<u64> {
    let error = i32::from_le_bytes(reply[4..8].try_into().expect("four bytes"));
    let payload = &reply[OUT_HEADER..];
    match expected {
        Expected::Page(offset) => {
            let page: Vec<u8> = (*offset..offset + PAGE).map(|at| byte_at(0, at)).collect();
            assert!(error == 0 && payload == page, "page at {offset}: {error}");
            None
        }
        Expected::File(number) => {
            let node = u64::from_le_bytes(payload[..8].try_into().expect("eight bytes"));
            let ino = u64::from_le_bytes(payload[40..48].try_into().expect("eight bytes"));
            assert!(error == 0 && node != 0, "f{number}: {error}");
            assert_eq!(ino, node_of(*number), "f{number}");
            Some(node)
        }
        Expected::Missing => {
            let node = payload.first_chunk().map(|node| u64::from_le_bytes(*node));
            assert!(
                error == -libc::ENOENT || error == 0 && node == Some(0),
                "{error}"
            );
            None
        }
        Expected::Done => {
            assert_eq!((error, payload.len()), (0, 0));
            None
        }
    }
}

#[test]
fn mixed_requests_of_a_store_that_is_slow_at_times_each_get_their_own_answer() {
    let test = "mixed_requests_of_a_store_that_is_slow_at_times_each_get_their_own_answer";
    let Some(store) = SlowStore::mount_or_skip(test, false) else {
        return;
    };
    let mut client = client_on(&store.path(), &[]);
    let at = open_first(&mut client);
    let mut rng = Rng::new(11);
    for turn in 0..40 {
        for count in [&store.counts.reads, &store.counts.looks] {
            let delay = [0, 0, 200, 3000][rng.below(4)];
            count.set_delay(Duration::from_micros(delay));
        }
        let mut waiting = HashMap::new();
        for _ in 0..100 {
            while waiting.len() > turn % 32 {
                let completion = client.queue.next();
                let expected = waiting.remove(&completion.head).expect("it was asked");
                if let Some(node) = check(&completion.reply, &expected) {
                    client.forget(node, 1);
                }
            }
            let (head, expected) = random_request(&mut client, at, &mut rng);
            waiting.insert(head, expected);
        }
        for (head, expected) in waiting {
            let reply = client.queue.wait_for(head).reply;
            if let Some(node) = check(&reply, &expected) {
                client.forget(node, 1);
            }
        }
    }
    assert!(client.shut_down().success());
}

/// Requests in a second, from one queue at this depth, made by `start`.
fn rate(client: &mut Client, depth: usize, mut start: impl FnMut(&mut Client) -> u16) -> f64 {
    let begun = Instant::now();
    let mut count = 0_u32;
    for _ in 0..depth {
        start(client);
    }
    while begun.elapsed() < Duration::from_secs(3) {
        client.queue.next();
        count += 1;
        start(client);
    }
    let elapsed = begun.elapsed();
    for _ in 0..depth {
        client.queue.next();
    }
    f64::from(count) / elapsed.as_secs_f64()
}

#[test]
#[ignore = "a measurement"]
fn figures() {
    let inline = [
        "--sandbox",
        "none",
        "--seccomp",
        "none",
        "--thread-pool-size",
        "0",
    ];
    let default = &inline[..4];
    let Some(store) = SlowStore::mount_or_skip("figures", true) else {
        return;
    };
    store.counts.reads.set_delay(Duration::from_millis(5));
    let mut page = 1000;
    let mut rates = [&inline[..], default].map(|args| {
        let mut client = client_on(&store.path(), args);
        let at = open_first(&mut client);
        rate(&mut client, 32, |client| {
            page += 1;
            let offset = page * PAGE;
            client.start_read(At { offset, ..at }, 4096)
        })
    });
    println!(
        "uncached 4 KiB READ, 5 ms, depth 32: inline {:.0}/s, default {:.0}/s, ratio {:.1}",
        rates[0],
        rates[1],
        rates[1] / rates[0]
    );
    cached_figures(&store, &inline, default);

    let Some(store) = SlowStore::mount_or_skip("figures", false) else {
        return;
    };
    store.counts.looks.set_delay(Duration::from_millis(5));
    let mut number = 0;
    rates = [&inline[..], default].map(|args| {
        let mut client = client_on(&store.path(), args);
        rate(&mut client, 32, |client| {
            number += 1;
            let name = format!("f{number}\0");
            let (message, _) = client.message(op::LOOKUP, 1, name.as_bytes());
            client.queue.submit(&message, OUT_HEADER + 128)
        })
    });
    println!(
        "uncached LOOKUP, 5 ms for each look, depth 32: inline {:.0}/s, default {:.0}/s, ratio {:.1}",
        rates[0],
        rates[1],
        rates[1] / rates[0]
    );
}

/// Depth 1 on what is in memory, the two in turn.
fn cached_figures(store: &SlowStore, inline: &[&str], default: &[&str]) {
    let mut sides = [inline, default].map(|args| {
        let mut client = client_on(&store.path(), args);
        let at = open_first(&mut client);
        read_at_once(&mut client, at, 0..64);
        (client, at, Vec::new(), Vec::new())
    });
    const COUNT: u32 = 20_000;
    for _ in 0..15 {
        for (client, at, times, loads) in &mut sides {
            let (begun, load) = (Instant::now(), client.vm.daemon.cpu_time());
            for turn in 0..u64::from(COUNT) {
                let offset = turn % 64 * PAGE;
                let head = client.start_read(At { offset, ..*at }, 4096);
                client.queue.wait_for(head);
            }
            times.push(begun.elapsed() / COUNT);
            loads.push((client.vm.daemon.cpu_time() - load) / COUNT);
        }
    }
    let [inline, default] = sides.map(|(_, _, mut times, mut loads)| {
        times.sort();
        loads.sort();
        (times[7], loads[7], times[0], loads[0])
    });
    let ratio = |a: Duration, b: Duration| b.as_secs_f64() / a.as_secs_f64();
    println!(
        "cached 4 KiB READ there, depth 1, median of 15: inline {:?} ({:?} CPU), default {:?} ({:?} CPU), ratio {:.3} ({:.3}), of the best {:.3} ({:.3})",
        inline.0,
        inline.1,
        default.0,
        default.1,
        ratio(inline.0, default.0),
        ratio(inline.1, default.1),
        ratio(inline.2, default.2),
        ratio(inline.3, default.3)
    );
}
