//! What: the balance of lookups, handles and descriptors: after any sequence of requests with its
//! FORGETs and RELEASEs the daemon holds what it held before.

mod common;

use std::collections::BTreeMap;
use std::thread;

use common::Rng;
use common::client::Client;
use common::frontend::Setup;
use common::request::{ROOT, SetAttr, init};
use common::session_data::At;
use common::share::Share;
use common::sys;

const REG: u32 = libc::S_IFREG;
const NAMES: [&str; 12] = [
    "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "dir", "link",
];

/// What the guest owes the daemon.
#[derive(Debug, Default)]
struct Ledger {
    lookups: BTreeMap<u64, u64>,
    handles: Vec<(u64, u64)>,
    dir_handles: Vec<u64>,
}

impl Ledger {
    fn granted(&mut self, node: u64) {
        *self.lookups.entry(node).or_default() += 1;
    }

    fn some_node(&self, rng: &mut Rng) -> u64 {
        let index = rng.below(self.lookups.len() + 1);
        self.lookups.keys().nth(index).copied().unwrap_or(ROOT)
    }

    /// Pays everything back, in several instalments.
    fn settle(&mut self, client: &mut Client) {
        for (node, fh) in self.handles.drain(..) {
            client.release(node, fh).expect("RELEASE of an open handle");
        }
        for fh in self.dir_handles.drain(..) {
            client.releasedir(ROOT, fh).expect("RELEASEDIR");
        }
        let mut batch = Vec::new();
        for (node, count) in std::mem::take(&mut self.lookups) {
            if node % 3 == 0 {
                batch.push((node, count));
            } else if count > 1 {
                client.forget(node, 1);
                client.forget(node, count - 1);
            } else {
                client.forget(node, count);
            }
        }
        client.batch_forget(&batch);
    }
}

/// One random operation, noted in the ledger.
fn step(client: &mut Client, ledger: &mut Ledger, rng: &mut Rng) {
    let name = *rng.pick(&NAMES);
    let other = *rng.pick(&NAMES);
    match rng.below(20) {
        0..=4 => {
            if let Ok(entry) = client.lookup(ROOT, name) {
                ledger.granted(entry.node);
            }
        }
        5..=6 => create(client, ledger, name, rng),
        7 => {
            if let Ok(entry) = client.mknod(ROOT, name, REG | 0o644, 0) {
                ledger.granted(entry.node);
            }
        }
        8 => {
            if let Ok(entry) = client.mkdir(ROOT, name, 0o755) {
                ledger.granted(entry.node);
            }
        }
        9 => {
            if let Ok(entry) = client.symlink(ROOT, name, other) {
                ledger.granted(entry.node);
            }
        }
        10 => {
            let node = ledger.some_node(rng);
            if let Ok(entry) = client.link(node, ROOT, name) {
                ledger.granted(entry.node);
            }
        }
        11 => drop(client.unlink(ROOT, name)),
        12 => drop(client.rmdir(ROOT, name)),
        13 => drop(client.rename2((ROOT, name), (ROOT, other), [0, 1, 2][rng.below(3)])),
        14 => {
            let node = ledger.some_node(rng);
            if let Ok(opened) = client.open(node, libc::O_RDWR) {
                ledger.handles.push((node, opened.fh));
            }
        }
        15 => release(client, ledger, rng),
        16 => list(client, ledger, rng),
        17 => forget(client, ledger, rng),
        18 => {
            let node = ledger.some_node(rng);
            let _ = client.getattr(node, None);
            let _ = client.setattr(node, &SetAttr::default());
        }
        _ => {
            if let Ok((entry, opened)) = client.tmpfile(ROOT, REG | 0o600, libc::O_RDWR) {
                ledger.granted(entry.node);
                ledger.handles.push((entry.node, opened.fh));
            }
        }
    }
}

fn create(client: &mut Client, ledger: &mut Ledger, name: &str, rng: &mut Rng) {
    let flags = libc::O_RDWR | [0, libc::O_EXCL, libc::O_TRUNC][rng.below(3)];
    if let Ok((entry, opened)) = client.create(ROOT, name, REG | 0o644, flags) {
        ledger.granted(entry.node);
        ledger.handles.push((entry.node, opened.fh));
    }
}

fn release(client: &mut Client, ledger: &mut Ledger, rng: &mut Rng) {
    if ledger.handles.len() > 20 || rng.below(4) == 0 {
        for (node, fh) in ledger.handles.drain(..) {
            client.release(node, fh).expect("RELEASE of an open handle");
        }
    }
}

fn list(client: &mut Client, ledger: &mut Ledger, rng: &mut Rng) {
    let fh = client.opendir(ROOT).expect("OPENDIR of the root").fh;
    let at = At {
        node: ROOT,
        fh,
        offset: 0,
    };
    // Odd sizes, so that an entry often does not fit and its lookup must be taken back.
    let size = 200 + u32::try_from(rng.below(1800)).expect("small");
    for dirent in client.readdir_once(at, size, true).expect("READDIRPLUS") {
        if let Some(entry) = dirent.entry.filter(|entry| entry.node != 0) {
            ledger.granted(entry.node);
        }
    }
    ledger.dir_handles.push(fh);
    if ledger.dir_handles.len() > 10 {
        for fh in ledger.dir_handles.drain(..) {
            client.releasedir(ROOT, fh).expect("RELEASEDIR");
        }
    }
}

fn forget(client: &mut Client, ledger: &mut Ledger, rng: &mut Rng) {
    let node = ledger.some_node(rng);
    let is_open = ledger.handles.iter().any(|(open, _)| *open == node);
    if node == ROOT || is_open {
        return;
    }
    if let Some(count) = ledger.lookups.remove(&node) {
        client.forget(node, count);
        assert_eq!(
            client.getattr(node, None),
            Err(libc::EBADF),
            "node {node} lives on after its {count} lookups were given back"
        );
    }
}

fn run(args: &[&str], seed: u64, steps: usize) {
    let share = Share::new();
    let mut client = Client::mount(&Setup::default().args(args), &share);
    let oracle = client.oracle();
    let mut ledger = Ledger::default();
    let mut rng = Rng::new(seed);
    for number in 0..steps {
        step(&mut client, &mut ledger, &mut rng);
        if number % 5000 == 4999 {
            ledger.settle(&mut client);
            client.assert_sound(&oracle, &format!("seed {seed}, {number} steps"));
        }
    }
    ledger.settle(&mut client);
    client.assert_sound(&oracle, &format!("seed {seed}, at the end"));
    share.assert_outside_unchanged();
}

#[test]
fn random_operations_balance() {
    run(&[], 1, 50_000);
}

#[test]
fn random_operations_balance_with_a_pool_and_no_caching() {
    run(&["--thread-pool-size", "2", "--cache", "never"], 2, 50_000);
}

#[test]
fn every_error_path_grants_nothing() {
    let share = Share::new();
    share.write("file", b"");
    share.mkdir("dir");
    share.write("dir/inner", b"");
    let mut client = Client::mount(&Setup::default(), &share);
    let oracle = client.oracle();
    for _ in 0..20 {
        let file = client.node("file");
        let dir = client.node("dir");
        let excl = libc::O_RDWR | libc::O_EXCL;
        assert!(client.lookup(file, "x").is_err());
        assert!(client.lookup(ROOT, "nothing").is_err());
        assert!(client.create(ROOT, "file", REG | 0o600, excl).is_err());
        assert!(
            client
                .create(ROOT, "dir", REG | 0o600, libc::O_RDWR)
                .is_err()
        );
        assert!(client.create(file, "x", REG | 0o600, libc::O_RDWR).is_err());
        assert!(client.mkdir(ROOT, "dir", 0o755).is_err());
        assert!(client.mknod(ROOT, "file", REG | 0o600, 0).is_err());
        assert!(client.symlink(ROOT, "file", "x").is_err());
        assert!(client.link(file, ROOT, "file").is_err());
        assert!(client.link(dir, ROOT, "x").is_err());
        assert!(client.tmpfile(file, REG | 0o600, libc::O_RDWR).is_err());
        assert!(client.open(dir, libc::O_RDONLY).is_err());
        assert!(client.opendir(file).is_err());
        client.forget(file, 1);
        client.forget(dir, 1);
        client.assert_sound(&oracle, "error paths");
    }
}

#[test]
fn ten_thousand_nodes_come_and_go() {
    let share = Share::new();
    for index in 0..10_000 {
        share.write(&format!("file{index}"), b"");
    }
    let mut client = Client::mount(&Setup::default(), &share);
    let oracle = client.oracle();
    for plus_size in [4096, 32_768] {
        let listed = client.list(ROOT, plus_size, true);
        assert_eq!(listed.len(), 10_002);
        client.assert_sound(&oracle, "10,000 nodes");
    }
}

/// FORGET of one queue races LOOKUP of the same names on others.
#[test]
fn forget_racing_lookup_balances() {
    let share = Share::new();
    for index in 0..4 {
        share.write(&format!("file{index}"), b"data");
    }
    let mut client = Client::mount(&Setup::default().queues(4), &share);
    let oracle = client.oracle();
    let threads: Vec<_> = (2..=4)
        .map(|index| client.session_on(index))
        .map(|mut session| {
            thread::spawn(move || {
                // Each queue forgets on its own, so that the two really race.
                session.hiprio = None;
                for round in 0..4000 {
                    let name = format!("file{}", round % 4);
                    let entry = session.lookup(ROOT, &name).expect("LOOKUP");
                    let attr = session.getattr(entry.node, None).expect("GETATTR");
                    assert_eq!(attr.attr.ino, entry.attr.ino, "another file");
                    session.forget(entry.node, 1);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("a node was lost or another");
    }
    client.assert_sound(&oracle, "FORGET racing LOOKUP");
}

#[test]
fn ten_thousand_nodes_are_forgotten_in_one_batch() {
    let share = Share::new();
    for index in 0..10_000 {
        share.write(&format!("file{index}"), b"");
    }
    let mut client = Client::mount(&Setup::default(), &share);
    let oracle = client.oracle();
    let batch: Vec<(u64, u64)> = (0..10_000)
        .map(|index| (client.node(&format!("file{index}")), 1))
        .collect();
    client.batch_forget(&batch);
    client.assert_sound(&oracle, "one batch of 10,000");
}

/// With the descriptor table full, names stay listed, handles can be given back, and all comes
/// to life again.
#[test]
fn full_descriptor_table_costs_attributes_and_never_names() {
    let share = Share::new();
    for index in 0..200 {
        share.write(&format!("file{index}"), b"");
    }
    let mut client = Client::mount(&Setup::default(), &share);
    let oracle = client.oracle();
    let dir_fh = client.opendir(ROOT).unwrap().fh;
    let file = client.node("file0");
    let pid = client.vm.daemon.pid();
    let open_now = common::u64_of(client.vm.daemon.fd_count());
    sys::limit_descriptors(pid, open_now + 20);
    let mut handles = Vec::new();
    let refused = loop {
        match client.open(file, libc::O_RDONLY) {
            Ok(opened) => handles.push(opened.fh),
            Err(errno) => break errno,
        }
        assert!(handles.len() < 100, "no limit");
    };
    assert!([libc::EMFILE, libc::ENFILE].contains(&refused), "{refused}");
    let mut names = 0;
    let mut offset = 0;
    loop {
        let at = At {
            node: ROOT,
            fh: dir_fh,
            offset,
        };
        let part = client.readdir_once(at, 8192, true).expect("READDIRPLUS");
        let Some(last) = part.last() else { break };
        offset = last.offset;
        names += part.len();
        for entry in part.iter().filter_map(|dirent| dirent.entry) {
            if entry.node != 0 {
                client.forget(entry.node, 1);
            }
        }
    }
    assert_eq!(names, 202, "names with a full descriptor table");
    client.getattr(file, None).unwrap();
    for fh in handles {
        client.release(file, fh).unwrap();
    }
    let again = client.open(file, libc::O_RDONLY).unwrap().fh;
    client.release(file, again).unwrap();
    client.releasedir(ROOT, dir_fh).unwrap();
    client.forget(file, 1);
    client.assert_sound(&oracle, "a full descriptor table");
}

#[test]
fn nodes_are_found_by_number_alone_and_grant_one_count() {
    let share = Share::new();
    share.mkdir("dir");
    share.write("dir/file", b"data");
    let mut client = Client::mount(&Setup::default(), &share);
    if client.flags & init::EXPORT_SUPPORT == 0 {
        println!("skipped: no file handles here");
        return;
    }
    let oracle = client.oracle();
    let dir = client.node("dir");
    let file = client.lookup(dir, "file").unwrap();
    let itself = client.lookup(file.node, ".").unwrap();
    assert_eq!((itself.node, itself.attr.ino), (file.node, file.attr.ino));
    let above = client.lookup(dir, "..").unwrap();
    assert_eq!(above.node, ROOT);
    assert_eq!(client.lookup(file.node, ".."), Err(libc::ENOTDIR));
    client.forget(file.node, 2);
    let again = client.lookup(file.node, ".").unwrap();
    assert_eq!(again.node, file.node);
    client.forget(again.node, 1);
    client.unlink(dir, "file").unwrap();
    assert_eq!(client.lookup(file.node, "."), Err(libc::ESTALE));
    client.forget(dir, 1);
    client.assert_sound(&oracle, "nodes by number");
}

#[test]
fn forgotten_node_numbers_do_not_lead_to_other_files() {
    let share = Share::new();
    share.write("old", b"old");
    let mut client = Client::mount(&Setup::default(), &share);
    let old = client.node("old");
    client.forget(old, 1);
    client.unlink(ROOT, "old").unwrap();
    for index in 0..100 {
        let (node, fh) = client.make_file(ROOT, &format!("new{index}"), b"new");
        assert_ne!(node, old, "a node number came back");
        client.release(node, fh).unwrap();
        client.forget(node, 1);
    }
    assert_eq!(client.getattr(old, None), Err(libc::EBADF));
}
