//! What happens when the host runs out of descriptors, in a process of its own.

use std::process::Command;

use super::share::{
    Guest, NOTHING_LEFT, NamesPlus, ROOT, create_request, file_name, flushed, released,
};
use crate::fs::filesystem::{FileSystem, ReadDirRequest, SyncScope};
use crate::sys::errno::Errno;

const INNER: &str = "passthrough::tests::limits::inside_a_process_with_few_descriptors";
/// Set in the environment of the process that has few descriptors.
const STARTED: &str = "VIRTIOFSD_TEST_HAS_FEW_DESCRIPTORS";
const FILES: usize = 200;

#[test]
fn running_out_of_descriptors_loses_no_name_and_heals() {
    let tests = std::env::current_exe().unwrap();
    let done = Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" --exact \"$1\""])
        .arg(tests)
        .arg(INNER)
        .env(STARTED, "")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn inside_a_process_with_few_descriptors() {
    if std::env::var_os(STARTED).is_none() {
        println!("skipped here: running_out_of_descriptors_loses_no_name_and_heals runs it");
        return;
    }
    let guest = Guest::new();
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
