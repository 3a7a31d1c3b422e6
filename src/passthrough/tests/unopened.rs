//! Files that the guest uses without opening them.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use super::share::{
    Guest, NOTHING_LEFT, ROOT, Share, create_request, flushed, keep, own_caller, released,
};
use crate::fs::filesystem::{
    AttrChanges, CopyRangeRequest, CreateRequest, FallocateRequest, FileSystem, IoctlRequest,
    OpenNode, SyncScope, TmpfileRequest,
};
use crate::fs::types::{HandleId, NodeId, SecurityContexts};
use crate::passthrough::settings::{CachePolicy, Settings};
use crate::sys::errno::Errno;
use crate::wire::flags::{OpenFlags, SessionFlags};

const NO_HANDLE: HandleId = HandleId::new(0);
const O_TRUNC: u32 = 0o1000;

fn settings() -> Settings {
    Settings {
        no_open: true,
        ..Settings::new(CachePolicy::Auto)
    }
}

/// A guest that opens nothing, with one file that it knows.
fn guest_with(contents: &[u8]) -> (Guest, OpenNode) {
    // A local file system, wherever this test runs.
    let share = Share::in_directory(Path::new("/dev/shm"));
    let guest = Guest::on(share, settings());
    guest.share.write("file", contents);
    let node = guest.lookup(ROOT, c"file");
    (guest, unopened(node))
}

fn unopened(node: NodeId) -> OpenNode {
    OpenNode {
        node,
        handle: NO_HANDLE,
    }
}

#[test]
fn open_is_unknown_to_a_guest_that_can_do_without() {
    let (guest, file) = guest_with(b"contents");
    let open = |flags| {
        let flags = OpenFlags::from_bits_retain(flags);
        guest.fs.open(file.node, flags, false).unwrap_err()
    };
    for flags in [0, 1, 2, O_TRUNC] {
        assert_eq!(open(flags), Errno::ENOSYS);
    }
    assert_eq!(fs::read(guest.share.join("file")).unwrap(), b"contents");
    guest.forget(file.node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn descriptors_of_unopened_files_give_way_to_nodes() {
    const BUDGET: usize = 6;
    let settings = Settings {
        guest_fds_max: BUDGET,
        ..settings()
    };
    let guest = Guest::on(Share::in_directory(Path::new("/dev/shm")), settings);
    let names = (0..=BUDGET).map(|index| CString::new(format!("f{index}")).unwrap());
    let names: Vec<_> = names.collect();
    for name in &names {
        guest.share.write(name.to_str().unwrap(), b"x");
    }
    // Half of the descriptors are for nodes, half for reading them, until more is asked for.
    let nodes: Vec<_> = names[..BUDGET]
        .iter()
        .map(|name| {
            let node = guest.lookup(ROOT, name);
            let read = guest.read(unopened(node), 0, 9);
            (node, read)
        })
        .collect();
    let (last, others) = nodes.split_last().unwrap();
    assert!(others.iter().all(|(_, read)| read.as_deref() == Ok(b"x")));
    assert_eq!(last.1, Err(Errno::ENFILE));
    let refused = guest.find(ROOT, super::share::file_name(&names[BUDGET]));
    assert_eq!(refused.unwrap_err(), Errno::ENFILE);
    for (node, _) in nodes {
        guest.forget(node);
    }
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
    assert_eq!(guest.fs.store.budget().used(), 0);
}

#[test]
fn guest_that_has_to_open_does_so() {
    let (guest, _) = guest_with(b"contents");
    guest.mount(guest.fs.session_wishes().wanted - SessionFlags::NO_OPEN_SUPPORT);
    let node = guest.lookup(ROOT, c"file");
    let open = guest.open(node, 0);
    assert_ne!(open.handle, NO_HANDLE);
    assert_eq!(guest.read(open, 0, 10).unwrap(), b"contents");
    assert_eq!(guest.read(unopened(node), 0, 10), Err(Errno::EBADF));
    let getattr = guest.fs.getattr(node, Some(NO_HANDLE));
    assert_eq!(getattr.unwrap_err(), Errno::EBADF);
    guest.close(open);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn every_operation_finds_the_file_by_its_node() {
    let (guest, file) = guest_with(b"0123456789");
    assert_eq!(guest.read(file, 2, 3).unwrap(), b"234");
    assert_eq!(guest.write(file, 2, b"xy"), Ok(2));
    assert_eq!(guest.read(file, 0, 10).unwrap(), b"01xy456789");
    guest.fs.fsync(file, SyncScope::Everything).unwrap();
    assert_eq!(guest.fs.lseek(file, 0, 4), Ok(10));
    let request = FallocateRequest {
        node: file.node,
        handle: NO_HANDLE,
        mode: 0,
        offset: 0,
        len_bytes: 20,
        caller: own_caller(),
    };
    guest.fs.fallocate(&request).unwrap();
    let attr = guest.fs.getattr(file.node, Some(NO_HANDLE)).unwrap().attr;
    assert_eq!(attr.size, 20);
    let truncate = AttrChanges {
        size_bytes: Some(4),
        ..AttrChanges::default()
    };
    let set = guest.fs.setattr(file.node, Some(NO_HANDLE), &truncate);
    assert_eq!(set.unwrap().attr.size, 4);
    let to = unopened(keep(guest.fs.create(&create_request(c"to")).unwrap().0));
    let copy = CopyRangeRequest {
        node_in: file.node,
        handle_in: NO_HANDLE,
        offset_in: 0,
        node_out: to.node,
        handle_out: NO_HANDLE,
        offset_out: 0,
        len_bytes: 4,
        flags: 0,
        caller: own_caller(),
    };
    assert_eq!(guest.fs.copy_file_range(&copy), Ok(4));
    assert_eq!(fs::read(guest.share.join("to")).unwrap(), b"01xy");
    let get_flags = IoctlRequest {
        node: file.node,
        handle: NO_HANDLE,
        caller: own_caller(),
        command: 0x8008_6601,
        is_32_bit: false,
    };
    let flags = guest.fs.ioctl(&get_flags, &[], &mut [0; 8]);
    assert_ne!(flags, Err(Errno::EBADF));
    guest.fs.release(&released(file)).unwrap();
    guest.forget(file.node);
    guest.forget(to.node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn file_without_a_name_is_there_until_it_is_forgotten() {
    let (guest, file) = guest_with(b"contents");
    fs::remove_file(guest.share.join("file")).unwrap();
    assert_eq!(guest.read(file, 0, 10).unwrap(), b"contents");
    assert_eq!(guest.write(file, 0, b"C"), Ok(1));
    assert_eq!(guest.read(file, 0, 10).unwrap(), b"Contents");
    guest.forget(file.node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
    assert_eq!(guest.read(file, 0, 10), Err(Errno::EBADF));
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn file_that_is_only_read_can_be_executed_and_then_not_written() {
    let (guest, _) = guest_with(b"");
    fs::copy("/bin/sleep", guest.share.join("program")).unwrap();
    fs::set_permissions(
        guest.share.join("program"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    guest.mount(guest.fs.session_wishes().wanted);
    let program = unopened(guest.lookup(ROOT, c"program"));
    assert_eq!(guest.read(program, 1, 3).unwrap(), b"ELF");
    // With a descriptor for writing in our hands, this would fail with ETXTBSY.
    let mut running = Command::new(guest.share.join("program"))
        .arg("60")
        .spawn()
        .unwrap();
    assert_eq!(guest.write(program, 0, b"x"), Err(Errno::ETXTBSY));
    assert_eq!(guest.read(program, 1, 3).unwrap(), b"ELF");
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!(guest.write(program, 1, b"E"), Ok(1));
    guest.forget(program.node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn create_gives_no_handle_and_a_descriptor_that_does_for_all() {
    let (guest, file) = guest_with(b"old contents");
    for flags in [0, 1, 2, 0o4_010_001] {
        let request = CreateRequest {
            mode: 0o100_000,
            flags: OpenFlags::from_bits_retain(flags),
            ..create_request(c"new")
        };
        let (entry, opened) = guest.fs.create(&request).unwrap();
        assert_eq!(opened.handle.handle(), NO_HANDLE);
        opened.handle.commit();
        let new = unopened(keep(entry));
        assert_eq!(guest.write(new, 0, b"x"), Ok(1), "{flags:o}");
        assert_eq!(guest.read(new, 0, 1).unwrap(), b"x", "{flags:o}");
        guest.forget(new.node);
        fs::remove_file(guest.share.join("new")).unwrap();
    }
    // One that is there: O_TRUNC is part of CREATE, whatever INIT agreed on.
    let request = CreateRequest {
        flags: OpenFlags::from_bits_retain(1 | O_TRUNC),
        ..create_request(c"file")
    };
    let (entry, opened) = guest.fs.create(&request).unwrap();
    assert_eq!(opened.handle.handle(), NO_HANDLE);
    drop((opened, entry));
    assert_eq!(guest.read(file, 0, 10).unwrap(), b"");
    guest.forget(file.node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn tmpfile_gives_no_handle() {
    let (guest, file) = guest_with(b"");
    let request = TmpfileRequest {
        caller: own_caller(),
        parent: ROOT,
        mode: 0o600,
        umask: 0,
        flags: OpenFlags::WRONLY,
        security_contexts: SecurityContexts::default(),
    };
    let (entry, opened) = guest.fs.tmpfile(&request).unwrap();
    assert_eq!(opened.handle.handle(), NO_HANDLE);
    opened.handle.commit();
    let unnamed = unopened(keep(entry));
    assert_eq!(guest.write(unnamed, 0, b"x"), Ok(1));
    assert_eq!(guest.read(unnamed, 0, 2).unwrap(), b"x");
    guest.forget(unnamed.node);
    guest.forget(file.node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn grant_of_create_that_is_dropped_leaves_nothing() {
    let (guest, file) = guest_with(b"");
    drop(guest.fs.create(&create_request(c"new")).unwrap());
    guest.forget(file.node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn flush_is_unknown_where_a_close_means_nothing() {
    let (guest, file) = guest_with(b"");
    assert_eq!(guest.fs.flush(&flushed(file)), Err(Errno::ENOSYS));
    assert_eq!(guest.fs.release(&released(file)), Ok(()));
    let proc = crate::passthrough::PassthroughFs::new(settings(), Path::new("/proc")).unwrap();
    let unknown = Guest {
        fs: proc,
        share: Share::new(),
    };
    unknown.mount(unknown.fs.session_wishes().wanted);
    let version = unopened(unknown.lookup(ROOT, c"version"));
    assert_eq!(unknown.fs.flush(&flushed(version)), Ok(()));
    assert!(!unknown.read(version, 0, 10).unwrap().is_empty());
    assert_eq!(unknown.fs.flush(&flushed(version)), Ok(()));
}

#[test]
fn only_regular_files_are_opened_unasked() {
    let (guest, file) = guest_with(b"");
    symlink("file", guest.share.join("link")).unwrap();
    let link = guest.lookup(ROOT, c"link");
    assert_eq!(guest.read(unopened(link), 0, 1), Err(Errno::ELOOP));
    assert_eq!(guest.read(unopened(ROOT), 0, 1), Err(Errno::EISDIR));
    assert_eq!(guest.write(unopened(ROOT), 0, b"x"), Err(Errno::EISDIR));
    guest.forget(link);
    guest.forget(file.node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn files_beyond_what_is_kept_are_opened_again() {
    let (guest, file) = guest_with(b"");
    let (mut kept, mut others) = (Vec::new(), Vec::new());
    for number in 0..2_000 {
        let name = CString::new(format!("{number}")).unwrap();
        guest.share.write(&format!("{number}"), name.as_bytes());
        let node = guest.lookup(ROOT, &name);
        // Of one shard, so that a few dozen are too many for it.
        if node.raw() % 64 == file.node.raw() % 64 {
            kept.push((node, name));
        } else {
            others.push(node);
        }
    }
    for node in others {
        guest.forget(node);
    }
    assert!(kept.len() > 20, "{}", kept.len());
    for _ in 0..2 {
        for (node, name) in &kept {
            assert_eq!(guest.read(unopened(*node), 0, 9).unwrap(), name.as_bytes());
        }
    }
    for (node, _) in kept {
        guest.forget(node);
    }
    guest.forget(file.node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn next_session_finds_nothing_open() {
    let (guest, file) = guest_with(b"contents");
    assert_eq!(guest.read(file, 0, 1).unwrap(), b"c");
    guest.fs.end_session();
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}
