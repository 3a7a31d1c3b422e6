//! READ, WRITE, LSEEK, FALLOCATE, COPY_FILE_RANGE.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::share::{
    Guest, NO_HANDLE, NOTHING_LEFT, ROOT, Source, own_caller, released, write_request,
};
use crate::fs::filesystem::{
    CopyRangeRequest, FallocateRequest, FileSystem, OpenNode, WriteRequest,
};
use crate::passthrough::settings::{CachePolicy, Settings};
use crate::sys::data::{RWF_APPEND, RWF_DSYNC, RWF_SYNC};
use crate::sys::errno::Errno;
use crate::wire::flags::OpenFlags;

/// One beyond the largest offset that Linux knows.
const TOO_FAR: u64 = 1 << 63;
const SEEK_DATA: u32 = 3;
const SEEK_HOLE: u32 = 4;

#[test]
fn write_and_read_move_the_bytes() {
    let guest = Guest::new();
    let open = guest.create(c"file");
    assert_eq!(guest.write(open, 3, b"abc"), Ok(3));
    assert_eq!(guest.read(open, 0, 100).unwrap(), b"\0\0\0abc");
    assert_eq!(guest.read(open, 4, 1).unwrap(), b"b");
    assert_eq!(guest.read(open, 6, 10).unwrap(), b"");
    assert_eq!(guest.read(open, 1 << 40, 1).unwrap(), b"");
    guest.close(open);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn read_is_bounded_by_the_room_in_the_reply() {
    let guest = Guest::new();
    guest.share.write("big", &vec![7; (1 << 20) + 5]);
    let open = guest.open(guest.lookup(ROOT, c"big"), 0);
    assert_eq!(guest.read(open, 0, u32::MAX).unwrap().len(), 1 << 20);
    guest.close(open);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn data_operations_refuse_wrong_handles_and_offsets() {
    let guest = Guest::new();
    let open = guest.create(c"file");
    let dir = guest.opendir(ROOT);
    let strange = OpenNode {
        node: open.node,
        handle: NO_HANDLE,
    };
    let crossed = OpenNode {
        node: ROOT,
        handle: open.handle,
    };
    for (target, offset, errno) in [
        (strange, 0, Errno::EBADF),
        (crossed, 0, Errno::EBADF),
        (dir, 0, Errno::EISDIR),
        (open, TOO_FAR, Errno::EINVAL),
        (open, u64::MAX, Errno::EINVAL),
    ] {
        let fallocate = FallocateRequest {
            node: target.node,
            handle: target.handle,
            mode: 0,
            offset,
            len_bytes: 1,
            caller: own_caller(),
        };
        assert_eq!(guest.read(target, offset, 1), Err(errno));
        assert_eq!(guest.write(target, offset, b"x"), Err(errno));
        assert_eq!(guest.fs.fallocate(&fallocate), Err(errno));
        assert_eq!(guest.fs.lseek(target, offset, SEEK_DATA), Err(errno));
    }
    let read_only = guest.open(open.node, 0);
    assert_eq!(guest.write(read_only, 0, b"x"), Err(Errno::EBADF));
    let write_only = guest.open(open.node, 1);
    assert_eq!(guest.read(write_only, 0, 1), Err(Errno::EBADF));
    assert_eq!(fs::metadata(guest.share.join("file")).unwrap().len(), 0);
    guest.fs.release(&released(read_only)).unwrap();
    guest.fs.release(&released(write_only)).unwrap();
    guest.fs.releasedir(&released(dir)).unwrap();
    guest.close(open);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

fn rwf_flags_of_write(guest: &Guest, flags: u32, from_cache: bool) -> Option<i32> {
    let open = guest.create(c"file");
    let mut source = Source::new(b"x");
    let request = WriteRequest {
        flags: OpenFlags::from_bits_retain(flags),
        from_cache,
        ..write_request(open, 0)
    };
    guest.fs.write(&request, &mut source).unwrap();
    guest.close(open);
    source.rwf_flags
}

const APPEND: u32 = 1 | 0o2000;

#[test]
fn write_is_as_durable_as_its_flags_say() {
    let guest = Guest::new();
    let (dsync, sync) = (0o10_000, 0o4_010_000);
    for (flags, rwf_flags) in [
        (dsync, RWF_DSYNC),
        (sync, RWF_SYNC),
        (sync | APPEND, RWF_SYNC | RWF_APPEND),
    ] {
        assert_eq!(rwf_flags_of_write(&guest, flags, false), Some(rwf_flags));
        assert_eq!(rwf_flags_of_write(&guest, flags, true), Some(0));
    }
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn write_appends_only_what_a_caller_appends() {
    let guest = Guest::new();
    assert_eq!(rwf_flags_of_write(&guest, APPEND, false), Some(RWF_APPEND));
    assert_eq!(rwf_flags_of_write(&guest, APPEND, true), Some(0));
    assert_eq!(rwf_flags_of_write(&guest, 1, false), Some(0));
    let held_back = Guest::with(Settings {
        writeback: true,
        ..Settings::new(CachePolicy::Auto)
    });
    assert_eq!(rwf_flags_of_write(&held_back, APPEND, false), Some(0));
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn lseek_is_left_to_a_guest_that_holds_back_writes() {
    let guest = Guest::with(Settings {
        writeback: true,
        ..Settings::new(CachePolicy::Auto)
    });
    let open = guest.create(c"file");
    for whence in [SEEK_DATA, SEEK_HOLE] {
        assert_eq!(guest.fs.lseek(open, 0, whence), Err(Errno::ENOSYS));
    }
    guest.close(open);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn lseek_finds_data_and_holes() {
    let guest = Guest::new();
    let open = guest.create(c"file");
    guest.write(open, 1 << 20, b"data").unwrap();
    let end = (1 << 20) + 4;
    let seek = |offset, whence| guest.fs.lseek(open, offset, whence);
    let data = seek(0, SEEK_DATA).unwrap();
    assert!(data <= 1 << 20, "{data}");
    assert_eq!(seek(1 << 20, SEEK_DATA), Ok(1 << 20));
    assert_eq!(seek(1 << 20, SEEK_HOLE), Ok(end));
    assert_eq!(seek(end, SEEK_DATA), Err(Errno::ENXIO));
    assert_eq!(seek(0, 2), Ok(end));
    assert_eq!(seek(5, 0), Ok(5));
    for whence in [1, 5, 77, u32::MAX] {
        assert_eq!(seek(0, whence), Err(Errno::EINVAL), "{whence}");
    }
    guest.close(open);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn fallocate_reserves_and_punches() {
    let guest = Guest::new();
    let open = guest.create(c"file");
    let request = |mode, offset, len_bytes| FallocateRequest {
        node: open.node,
        handle: open.handle,
        mode,
        offset,
        len_bytes,
        caller: own_caller(),
    };
    match guest.fs.fallocate(&request(0, 0, 1 << 16)) {
        Err(Errno::EOPNOTSUPP) => println!("skipped: no fallocate on this file system"),
        done => {
            done.unwrap();
            let host = fs::metadata(guest.share.join("file")).unwrap();
            assert_eq!(host.len(), 1 << 16);
            guest.write(open, 0, b"data").unwrap();
            // FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
            guest.fs.fallocate(&request(3, 0, 1 << 16)).unwrap();
            let host = fs::metadata(guest.share.join("file")).unwrap();
            assert_eq!((host.size(), host.blocks()), (1 << 16, 0));
        }
    }
    let error = |mode, offset, len| guest.fs.fallocate(&request(mode, offset, len)).unwrap_err();
    assert_eq!(error(0, 0, 0), Errno::EINVAL);
    assert_eq!(error(0, 0, u64::MAX), Errno::EINVAL);
    assert_eq!(error(u32::MAX, 0, 1), Errno::EOPNOTSUPP);
    assert_eq!(error(1 << 20, 0, 1), Errno::EOPNOTSUPP);
    guest.close(open);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn copy_file_range_copies_on_the_host() {
    let guest = Guest::new();
    guest.share.write("from", b"0123456789");
    let from = guest.open(guest.lookup(ROOT, c"from"), 0);
    let to = guest.create(c"to");
    let request = CopyRangeRequest {
        node_in: from.node,
        handle_in: from.handle,
        offset_in: 2,
        node_out: to.node,
        handle_out: to.handle,
        offset_out: 1,
        len_bytes: 4,
        flags: 0,
        caller: own_caller(),
    };
    assert_eq!(guest.fs.copy_file_range(&request), Ok(4));
    assert_eq!(fs::read(guest.share.join("to")).unwrap(), b"\x002345");
    let error = |request: CopyRangeRequest| guest.fs.copy_file_range(&request).unwrap_err();
    assert_eq!(
        error(CopyRangeRequest {
            flags: 1,
            ..request
        }),
        Errno::EINVAL
    );
    let too_far = CopyRangeRequest {
        offset_in: TOO_FAR,
        ..request
    };
    assert_eq!(error(too_far), Errno::EINVAL);
    let crossed = CopyRangeRequest {
        node_out: ROOT,
        ..request
    };
    assert_eq!(error(crossed), Errno::EBADF);
    let at_end = CopyRangeRequest {
        offset_in: 10,
        ..request
    };
    assert_eq!(guest.fs.copy_file_range(&at_end), Ok(0));
    guest.close(from);
    guest.close(to);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}
