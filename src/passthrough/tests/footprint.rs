//! What the guest's nodes cost the daemon in memory, in processes of their own. Nothing is
//! asserted of bytes and times: they are printed, for a release build to be judged by.

use std::ffi::CString;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::limits::{STARTED, run_with_descriptors};
use super::share::{Guest, NOTHING_LEFT, ROOT, Share};
use crate::fs::types::NodeId;
use crate::passthrough::settings::{CachePolicy, Settings, guest_fds_for_limit};

const INNER: &str = "passthrough::tests::footprint::inside_a_process_that_holds_many_nodes";
/// How many files, if not as many as the test likes.
const FILES: &str = "VIRTIOFSD_TEST_FILES";
/// How many descriptors the process has.
const DESCRIPTORS: &str = "VIRTIOFSD_TEST_DESCRIPTORS";
const FILES_PER_DIRECTORY: usize = 1_000;
/// What a few nodes are, to which many are compared.
const FEW: usize = 1_000;

#[test]
#[ignore = "takes some minutes and a million inodes below /dev/shm"]
fn million_cold_nodes_say_what_they_cost() {
    run_inner(2_048, 1_000_000);
}

#[test]
#[ignore = "takes as many descriptors as there are"]
fn many_pinned_nodes_say_what_they_cost() {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let hard: u32 = line.split_whitespace().nth(4).unwrap().parse().unwrap();
    let descriptors = hard.min(1_002_000);
    run_inner(descriptors, usize::try_from(descriptors).unwrap() - 1_000);
}

fn run_inner(descriptors: u32, files: usize) {
    let files = std::env::var(FILES).unwrap_or(files.to_string());
    let environment = [(FILES, files), (DESCRIPTORS, descriptors.to_string())];
    run_with_descriptors(descriptors, INNER, &environment);
}

#[test]
#[ignore = "the others run it"]
fn inside_a_process_that_holds_many_nodes() {
    if std::env::var_os(STARTED).is_none() {
        println!("skipped here: million_cold_nodes_say_what_they_cost runs it");
        return;
    }
    let number = |name| std::env::var(name).unwrap().parse::<usize>().unwrap();
    let files = number(FILES);
    let share = Share::in_directory(Path::new("/dev/shm"));
    make_files(&share, files);
    let settings = Settings {
        guest_fds_max: guest_fds_for_limit(u64::try_from(number(DESCRIPTORS)).unwrap(), 0).unwrap(),
        ..Settings::new(CachePolicy::Auto)
    };
    let guest = Guest::on(share, settings);
    let directories: Vec<_> = (0..files.div_ceil(FILES_PER_DIRECTORY))
        .map(|index| guest.lookup(ROOT, &CString::new(format!("d{index}")).unwrap()))
        .collect();
    let find = |index: usize| {
        let name = CString::new(format!("f{index}")).unwrap();
        guest.lookup(directories[index / FILES_PER_DIRECTORY], &name)
    };
    let mut held = vec![NodeId::ROOT; files];
    for (index, node) in held.iter_mut().enumerate().take(FEW) {
        *node = find(index);
    }
    let few = time_of_a_known_name(&guest, &find, FEW);
    let before = private_bytes();
    let started = cpu_time_ns();
    for (index, node) in held.iter_mut().enumerate().skip(FEW) {
        *node = find(index);
    }
    let found_in = (cpu_time_ns() - started) / (files - FEW);
    let each = |bytes: usize| bytes.saturating_sub(before) / (files - FEW);
    println!(
        "{files} nodes, {} descriptors: {} bytes each, found in {found_in} ns",
        guest.fs.store.budget().used(),
        each(private_bytes())
    );
    let still_few = time_of_a_known_name(&guest, &find, FEW);
    let many = time_of_a_known_name(&guest, &find, files);
    println!("lookup of one of {FEW} names: {few} ns, {still_few} ns among {files}");
    println!("lookup of one of {files} names: {many} ns");
    let started = cpu_time_ns();
    for node in held.into_iter().chain(directories) {
        guest.forget(node);
    }
    let forgotten_in = (cpu_time_ns() - started) / files;
    println!("forgotten in {forgotten_in} ns each");
    println!("left at once: {} bytes each", each(private_bytes()));
    thread::sleep(Duration::from_secs(4));
    println!("left after a while: {} bytes each", each(private_bytes()));
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

fn make_files(share: &Share, files: usize) {
    for index in 0..files {
        let dir = share.join(&format!("d{}", index / FILES_PER_DIRECTORY));
        if index % FILES_PER_DIRECTORY == 0 {
            fs::create_dir(&dir).unwrap();
        }
        fs::write(dir.join(format!("f{index}")), b"").unwrap();
    }
}

/// Nanoseconds for a name whose node is known, of `files` names in an order that no cache likes.
fn time_of_a_known_name(guest: &Guest, find: &impl Fn(usize) -> NodeId, files: usize) -> usize {
    const LOOKUPS: usize = 200_000;
    let mut index = 0;
    let started = cpu_time_ns();
    for _ in 0..LOOKUPS {
        index = (index + 7_368_787) % files;
        guest.forget(find(index));
    }
    (cpu_time_ns() - started) / LOOKUPS
}

/// What this thread has had of a CPU: other programs shall not count.
fn cpu_time_ns() -> usize {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split_whitespace().next().unwrap().parse().unwrap()
}

/// What this process has for itself, without what the kernel keeps for it.
fn private_bytes() -> usize {
    let smaps = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let of = |field: &str| -> usize {
        let line = smaps.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (of("Private_Dirty:") + of("Private_Clean:")) * 1024
}
