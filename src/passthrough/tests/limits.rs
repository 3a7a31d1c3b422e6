//! What happens when the host runs out of descriptors, in a process of its own.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::share::{
    Guest, NOTHING_LEFT, NamesPlus, ROOT, Share, create_request, file_name, flushed, keep, released,
};
use crate::fs::filesystem::{FileSystem, ReadDirRequest, SyncScope};
use crate::passthrough::settings::{CachePolicy, HandlePolicy, Settings, guest_fds_for_limit};
use crate::sys::errno::Errno;

const INNER: &str = "passthrough::tests::limits::inside_a_process_with_few_descriptors";
/// Set in the environment of the process that has few descriptors.
pub(super) const STARTED: &str = "VIRTIOFSD_TEST_HAS_FEW_DESCRIPTORS";
const INNER_WITH_HANDLES: &str =
    "passthrough::tests::limits::inside_a_process_with_few_descriptors_and_file_handles";
const INNER_MILLION: &str =
    "passthrough::tests::limits::inside_a_process_that_walks_a_million_files";
const FILES: usize = 200;

#[test]
fn running_out_of_descriptors_loses_no_name_and_heals() {
    run_with_descriptors(64, INNER, &[]);
}

#[test]
fn running_out_of_descriptors_goes_unnoticed_with_file_handles() {
    run_with_descriptors(64, INNER_WITH_HANDLES, &[]);
}

/// VIRTIOFSD_TEST_FILES says how many files, if not that many.
#[test]
#[ignore = "takes some minutes and a million inodes below /dev/shm"]
fn million_files_are_walked_with_2048_descriptors() {
    run_with_descriptors(2048, INNER_MILLION, &[]);
}

/// Runs one test in a process that may have so many descriptors.
pub(super) fn run_with_descriptors(count: u32, test: &str, environment: &[(&str, String)]) {
    let tests = std::env::current_exe().unwrap();
    let done = Command::new("sh")
        .args([
            "-c",
            "ulimit -n $2 && exec \"$0\" --exact --nocapture --include-ignored \"$1\"",
        ])
        .arg(tests)
        .arg(test)
        .arg(count.to_string())
        .env(STARTED, "")
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
    println!("{said}");
}

#[test]
#[ignore = "million_files_are_walked_with_2048_descriptors runs it"]
fn inside_a_process_that_walks_a_million_files() {
    if std::env::var_os(STARTED).is_none() {
        println!("skipped here: million_files_are_walked_with_2048_descriptors runs it");
        return;
    }
    const FILES_PER_DIRECTORY: usize = 10_000;
    let files = std::env::var("VIRTIOFSD_TEST_FILES").map_or(1_000_000, |n| n.parse().unwrap());
    let share = Share::in_directory(Path::new("/dev/shm"));
    for index in 0..files {
        let dir = share.join(&format!("d{}", index / FILES_PER_DIRECTORY));
        if index % FILES_PER_DIRECTORY == 0 {
            fs::create_dir(&dir).unwrap();
        }
        fs::write(dir.join(format!("f{index}")), b"").unwrap();
    }
    let settings = Settings {
        guest_fds_max: guest_fds_for_limit(2048, 0).unwrap(),
        ..Settings::new(CachePolicy::Auto)
    };
    let guest = Guest::on(share, settings);
    let mut held = Vec::new();
    let started = Instant::now();
    for index in 0..files.div_ceil(FILES_PER_DIRECTORY) {
        let name = std::ffi::CString::new(format!("d{index}")).unwrap();
        let node = guest.lookup(ROOT, &name);
        held.push(node);
        let dir = guest.opendir(node);
        let mut sink = NamesPlus {
            seen: Vec::new(),
            room: usize::MAX,
        };
        let request = ReadDirRequest {
            node,
            handle: dir.handle,
            offset: 0,
        };
        guest.fs.readdirplus(&request, &mut sink).unwrap();
        for (seen, found) in sink.seen {
            if !seen.name.starts_with('.') {
                held.push(keep(found.unwrap()));
            }
        }
        guest.fs.releasedir(&released(dir)).unwrap();
    }
    println!("listed {} nodes in {:?}", held.len(), started.elapsed());
    let started = Instant::now();
    for node in &held {
        guest.fs.getattr(*node, None).unwrap();
    }
    println!("stat(2) of each in {:?}", started.elapsed());
    let status = fs::read_to_string("/proc/self/status").unwrap();
    println!(
        "{:?}",
        status.lines().find(|line| line.starts_with("VmRSS"))
    );
    let started = Instant::now();
    for node in held {
        guest.forget(node);
    }
    println!("forgotten in {:?}", started.elapsed());
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

/// The settings promise more descriptors than the process may have.
#[test]
fn inside_a_process_with_few_descriptors_and_file_handles() {
    if std::env::var_os(STARTED).is_none() {
        println!("skipped here: running_out_of_descriptors_goes_unnoticed runs it");
        return;
    }
    let guest = Guest::new();
    if !guest.fs.store.has_handles() {
        println!("skipped: no file handles here");
        return;
    }
    for index in 0..FILES {
        guest.share.write(&format!("f{index}"), b"");
    }
    let nodes: Vec<_> = (0..FILES)
        .map(|index| {
            let name = std::ffi::CString::new(format!("f{index}")).unwrap();
            guest.lookup(ROOT, &name)
        })
        .collect();
    for node in &nodes {
        assert!(guest.fs.getattr(*node, None).is_ok());
    }
    guest.close(guest.create(c"new"));
    for node in nodes {
        guest.forget(node);
    }
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn inside_a_process_with_few_descriptors() {
    if std::env::var_os(STARTED).is_none() {
        println!("skipped here: running_out_of_descriptors_loses_no_name_and_heals runs it");
        return;
    }
    let guest = Guest::with(Settings {
        inode_file_handles: HandlePolicy::Never,
        ..Settings::new(CachePolicy::Auto)
    });
    for index in 0..FILES {
        guest.share.write(&format!("f{index}"), b"");
    }
    let open = guest.create(c"open");
    let dir = guest.opendir(ROOT);
    let mut sink = NamesPlus {
        seen: Vec::new(),
        room: 1_000,
    };
    let request = ReadDirRequest {
        node: dir.node,
        handle: dir.handle,
        offset: 0,
    };
    guest.fs.readdirplus(&request, &mut sink).unwrap();
    assert_eq!(sink.seen.len(), FILES + 3);
    let found = sink
        .seen
        .iter()
        .filter(|(_, found)| found.is_some())
        .count();
    assert!((20..64).contains(&found), "{found}");
    let (last, _) = sink
        .seen
        .iter()
        .rfind(|(_, found)| found.is_none())
        .unwrap();
    let last = std::ffi::CString::new(last.name.clone()).unwrap();
    let refused = guest.find(ROOT, file_name(&last));
    assert_eq!(refused.unwrap_err(), Errno::EMFILE);
    let refused = guest.fs.create(&create_request(c"new"));
    assert_eq!(refused.unwrap_err(), Errno::EMFILE);
    // What is held already goes on working, and can be given back.
    guest.fs.flush(&flushed(open)).unwrap();
    guest.fs.fsync(open, SyncScope::Everything).unwrap();
    assert!(guest.fs.getattr(open.node, Some(open.handle)).is_ok());
    drop(sink);
    assert!(guest.find(ROOT, file_name(&last)).is_ok());
    guest.fs.releasedir(&released(dir)).unwrap();
    guest.close(open);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}
