//! What: two daemons with different options are given the same requests, and must not differ.
//!
//! In: pairs of options that change how a share is served and not what is in it. Out: a panic
//! with the seed, the first request that was answered differently and the shortest sequence that
//! shows it; or the first difference between the two directories at the end.
//!
//! Does not: compare what the options are there to change (time-outs, open flags, READDIRPLUS
//! offered or not), nor writeback, which changes what a write-only or appending handle can do.

mod common;
#[path = "differential/side.rs"]
mod side;
#[path = "differential/steps.rs"]
mod steps;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::Rng;
use common::client::Client;
use common::frontend::Setup;
use common::memory::MemoryLayout;
use common::request::init;
use common::session::Init;
use common::share::Share;
use side::{Outcome, Side};
use steps::Step;

/// In each run.
const STEPS: usize = 4000;
/// In each test.
const SEEDS: [u64; 3] = [1, 2, 3];
/// For making a failing sequence shorter, after which the shortest so far is shown.
const SHRINK_LIMIT: Duration = Duration::from_secs(20);

/// Options of the two daemons.
type Pair = [&'static [&'static str]; 2];

/// An object in a directory of the host: all but numbers and times that are the host's own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HostLook {
    mode: u32,
    owner: (u32, u32),
    links: u64,
    rdev: u64,
    contents: Vec<u8>,
}

/// Where two sides part.
#[derive(Debug)]
struct Difference {
    /// Steps up to and with the one that was answered differently.
    steps: usize,
    what: String,
}

fn host_tree(root: &Path) -> BTreeMap<PathBuf, HostLook> {
    let mut looks = BTreeMap::new();
    let mut stack = vec![root.to_path_buf()];
    while let Some(path) = stack.pop() {
        let meta = fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let read = |what: std::io::Result<Vec<u8>>| {
            what.unwrap_or_else(|error| panic!("{path:?}: {error}"))
        };
        let contents = if meta.is_file() {
            read(fs::read(&path))
        } else if meta.is_symlink() {
            read(fs::read_link(&path).map(|target| target.into_os_string().into_encoded_bytes()))
        } else {
            Vec::new()
        };
        if meta.is_dir() {
            let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            stack.extend(entries.flatten().map(|entry| entry.path()));
        }
        let name = path.strip_prefix(root).expect("it is below the root");
        let look = HostLook {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            links: meta.nlink(),
            rdev: meta.rdev(),
            contents,
        };
        looks.insert(name.to_path_buf(), look);
    }
    looks
}

fn difference_of_trees(shares: &[Share; 2]) -> Option<String> {
    let [left, right] = [host_tree(&shares[0].path()), host_tree(&shares[1].path())];
    for (name, look) in &left {
        let other = right.get(name);
        if other != Some(look) {
            let shorten = |look: Option<&HostLook>| {
                look.map(|look| {
                    (
                        look.mode,
                        look.owner,
                        look.links,
                        look.rdev,
                        look.contents.len(),
                    )
                })
            };
            let (here, there) = (shorten(Some(look)), shorten(other));
            return Some(format!("on the host, {name:?}: {here:?} and {there:?}"));
        }
    }
    let more = right.keys().find(|name| !left.contains_key(*name));
    more.map(|name| format!("on the host, {name:?} is only in the second"))
}

/// Runs the steps on two fresh daemons.
fn run(pair: &Pair, steps: &[Step]) -> Result<(), Difference> {
    let shares = [Share::new(), Share::new()];
    let mut sides = [0, 1].map(|index: usize| {
        let setup = Setup::default()
            .args(&["--xattr"])
            .args(pair[index])
            .memory(MemoryLayout::one(8 << 20));
        let mut client = Client::attach(setup.boot(&shares[index].path()));
        // A guest that exports the mount finds what it has forgotten under its old number, if
        // there are file handles; without them it gets a new one.
        let guest = Init {
            flags: Init::default().flags & !init::EXPORT_SUPPORT,
            ..Init::default()
        };
        client.session.init_with(&guest).expect("a session");
        Side::new(client)
    });
    let plus = sides.iter().all(Side::offers_plus);
    sides.iter_mut().for_each(|side| side.use_plus(plus));
    for (number, step) in steps.iter().enumerate() {
        let [left, right]: [Outcome; 2] = sides.each_mut().map(|side| side.apply(step));
        if left != right {
            return Err(Difference {
                steps: number + 1,
                what: format!("{step:?}\n  {left:?}\n  {right:?}"),
            });
        }
    }
    sides.iter_mut().for_each(Side::settle);
    if let Some(what) = difference_of_trees(&shares) {
        return Err(Difference {
            steps: steps.len(),
            what,
        });
    }
    for share in &shares {
        share.assert_outside_unchanged();
    }
    Ok(())
}

/// Leaves out what is not needed for some difference: halves first, then ever smaller parts.
fn shrink(pair: &Pair, mut steps: Vec<Step>, mut found: Difference) -> (Vec<Step>, Difference) {
    let deadline = Instant::now() + SHRINK_LIMIT;
    steps.truncate(found.steps);
    let mut part = steps.len().div_ceil(2);
    while part > 0 {
        let mut begin = 0;
        while begin < steps.len() && Instant::now() < deadline {
            let mut fewer = steps.clone();
            fewer.drain(begin..steps.len().min(begin + part));
            match run(pair, &fewer) {
                Err(difference) => {
                    fewer.truncate(difference.steps);
                    steps = fewer;
                    found = difference;
                }
                Ok(()) => begin += part,
            }
        }
        part /= 2;
    }
    (steps, found)
}

fn must_not_differ(pair: &Pair) {
    for seed in SEEDS {
        let mut rng = Rng::new(seed);
        let steps: Vec<Step> = (0..STEPS).map(|_| Step::random(&mut rng)).collect();
        if let Err(found) = run(pair, &steps) {
            let at = found.steps;
            let (steps, found) = shrink(pair, steps, found);
            let list: Vec<String> = steps.iter().map(|step| format!("  {step:?}")).collect();
            panic!(
                "{pair:?}, seed {seed}: after {at} steps; {} are enough:\n{}\n{}",
                steps.len(),
                list.join("\n"),
                found.what
            );
        }
    }
}

#[test]
fn cache_auto_and_never_do_not_differ() {
    must_not_differ(&[&["--cache", "auto"], &["--cache", "never"]]);
}

#[test]
fn cache_metadata_and_always_do_not_differ() {
    must_not_differ(&[&["--cache", "metadata"], &["--cache", "always"]]);
}

#[test]
fn inline_and_pool_do_not_differ() {
    must_not_differ(&[&["--thread-pool-size", "0"], &["--thread-pool-size", "4"]]);
}

#[test]
fn pool_and_adaptive_do_not_differ() {
    must_not_differ(&[&["--thread-pool-size", "4"], &[]]);
}

#[test]
fn readdirplus_and_none_do_not_differ() {
    must_not_differ(&[&[], &["--no-readdirplus", "--cache", "always"]]);
}

#[test]
fn descriptors_and_file_handles_do_not_differ() {
    must_not_differ(&[
        &["--inode-file-handles=never"],
        &["--inode-file-handles=prefer"],
    ]);
}
