//! File data in more pieces than one system call takes.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::super::chain::{Chain, DescriptorTable};
use super::super::reply_writer::ReplyWriter;
use super::super::request_reader::RequestReader;
use super::super::test_guest::{
    Driver, INDIRECT, MODES, NEXT, TestMemory, USER_BASE, WRITE, descriptor, memory_file,
};
use super::*;
use crate::wire::channel::{ReplySink, RequestSource};

/// More than the 1024 areas of one system call.
const PIECES: usize = 2500;
const PIECE: usize = 3;
const BYTES: usize = PIECES * PIECE;
const TABLE: u64 = 0x8_0000;
const DATA: u64 = 0x2_0000;

/// Memory and a chain of many pieces that cannot be merged, some of it across two regions.
fn pieces(write: u16) -> (TestMemory, GuestRam, Chain) {
    let memory = TestMemory::new(&[(0, DATA + 0x1001), (DATA + 0x1001, 0x10_0000)]);
    let driver = Driver::new(&memory, 0, 4, MODES[0], 0);
    for index in 0..PIECES {
        let at = u64::try_from(index).expect("small");
        let next = u16::try_from(index + 1).expect("small");
        let flags = if index + 1 == PIECES {
            write
        } else {
            write | NEXT
        };
        memory
            .window(TABLE + at * 16, 16)
            .write(0, descriptor(DATA + at * 4, 3, flags, next))
            .expect("in range");
    }
    let len = u32::try_from(PIECES * 16).expect("small");
    driver.describe(0, (TABLE, len, INDIRECT, 0));
    let ram = memory.share();
    let table = DescriptorTable {
        window: ram.user_window(USER_BASE, 64).expect("the table"),
        size: 4,
        indirect: true,
    };
    let mut chain = Chain::default();
    chain.load_from(0, &table, &ram).expect("a good chain");
    assert_eq!(chain.defect(), None);
    (memory, ram, chain)
}

fn pattern() -> Vec<u8> {
    (0..BYTES)
        .map(|n| u8::try_from(n % 251).expect("small"))
        .collect()
}

fn span(offset: u64, len: usize) -> FileSpan {
    FileSpan {
        offset,
        len,
        rwf_flags: 0,
    }
}

fn content(file: &File) -> Vec<u8> {
    let len = usize::try_from(file.metadata().expect("fstat").len()).expect("small");
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0).expect("pread");
    bytes
}

#[test]
fn write_to_file_of_more_pieces_than_one_call_takes_writes_all_in_order() {
    let (memory, ram, chain) = pieces(0);
    let bytes = pattern();
    for (index, piece) in (0..).zip(bytes.chunks(PIECE)) {
        memory.put(DATA + index * 4, piece);
    }
    let file = memory_file(0);
    let mut reader = RequestReader::new(&ram, &chain);
    let mut first = [0; 7];
    reader.read_exact(&mut first).expect("enough");
    assert_eq!(first, bytes[..7]);

    let rest = reader.remaining();
    assert_eq!(rest, BYTES - 7);
    let done = reader.write_to_file(file.as_fd(), span(5, rest));

    assert_eq!(done.expect("room"), rest);
    assert_eq!(reader.remaining(), 0);
    assert_eq!(content(&file)[5..], bytes[7..]);
    assert!(reader.read_exact(&mut [0]).is_err());
}

#[test]
fn write_to_file_of_more_than_remains_is_invalid_and_consumes_nothing() {
    let (_memory, ram, chain) = pieces(0);
    let mut reader = RequestReader::new(&ram, &chain);
    let file = memory_file(0);
    let error = reader.write_to_file(file.as_fd(), span(0, BYTES + 1));
    assert_eq!(
        error.expect_err("too much").raw_os_error(),
        Some(libc::EINVAL)
    );
    assert_eq!(reader.remaining(), BYTES);
    let read_only = File::open("/dev/null").expect("/dev/null");
    let error = reader.write_to_file(read_only.as_fd(), span(0, 3));
    assert_eq!(
        error.expect_err("not writable").raw_os_error(),
        Some(libc::EBADF)
    );
}

#[test]
fn read_from_file_fills_the_pieces_and_stops_at_the_end_of_the_file() {
    let bytes = pattern();
    let file = memory_file(0);
    file.write_all_at(&bytes, 0).expect("pwrite");
    // (offset in the reply, offset in the file, length asked, length expected)
    let cases = [
        (0, 0, BYTES, BYTES),
        (16, 0, BYTES, BYTES - 16),
        (16, 100, 4000, 4000),
        (1, 6000, BYTES, BYTES - 6000),
        (0, 7500, 10, 0),
        (BYTES, 0, 10, 0),
    ];
    for (reply_offset, offset, len, expected) in cases {
        let (memory, ram, chain) = pieces(WRITE);
        let lot = Arc::default();
        let mut writer = ReplyWriter::new(&ram, &chain, &lot);
        let got = writer.read_from_file(reply_offset, file.as_fd(), span(offset, len));
        assert_eq!(got.expect("readable"), expected);
        let mut seen = Vec::new();
        for index in (0..).take(PIECES) {
            seen.extend(memory.get(DATA + index * 4, PIECE));
            let gap = memory.get(DATA + index * 4 + 3, 1);
            assert_eq!(gap, [0], "nothing outside the pieces is written");
        }
        let from = usize::try_from(offset).expect("small");
        let mut wanted = vec![0; BYTES];
        wanted[reply_offset..reply_offset + expected]
            .copy_from_slice(&bytes[from..from + expected]);
        assert_eq!(seen, wanted);
    }
}

#[test]
fn write_at_beyond_the_room_is_refused() {
    let (_memory, ram, chain) = pieces(WRITE);
    let lot = Arc::default();
    let mut writer = ReplyWriter::new(&ram, &chain, &lot);
    assert_eq!(writer.capacity(), BYTES);
    assert!(writer.write_at(BYTES - 4, b"abcd").is_ok());
    assert!(writer.write_at(BYTES - 3, b"abcd").is_err());
    assert!(writer.write_at(usize::MAX, b"a").is_err());
    assert!(writer.write_at(BYTES, b"").is_ok());
}

#[test]
fn read_from_file_whose_rest_is_not_in_memory_is_eagain_for_all_of_it() {
    // Not at the start of the file, where Linux may read more pages than it is asked for.
    const START: u64 = 8 * 4096;
    let path = std::env::temp_dir().join(format!("nowait-{}", std::process::id()));
    std::fs::write(&path, pattern().repeat(8)).expect("room");
    let file = File::open(&path).expect("it is there");
    std::fs::remove_file(&path).expect("it is there");
    file.sync_all().expect("a disk");
    let (memory, ram, chain) = pieces(WRITE);
    let lot = Arc::default();
    let mut sink = ReplyWriter::new(&ram, &chain, &lot);
    let mut read = |rwf_flags| {
        let span = FileSpan {
            // The second call begins with the second page from there.
            offset: START + 4096 - 1024 * 3,
            len: BYTES,
            rwf_flags,
        };
        sink.read_from_file(0, file.as_fd(), span)
            .map_err(Errno::from)
    };
    if read(libc::RWF_NOWAIT) == Err(Errno::EOPNOTSUPP) {
        println!("skipped: {} has no RWF_NOWAIT", path.display());
        return;
    }
    assert_eq!(read(0), Ok(BYTES));
    // Linux begins to read what is missing all the same, and a fast disk may be done at once; and a
    // journal keeps pages in memory for a while.
    let is_refused = (0..1000).any(|_| {
        crate::sys::page_cache::drop_all(file.as_fd());
        file.read_exact_at(&mut [0; 4096], START).expect("a page");
        match read(libc::RWF_NOWAIT) {
            Err(Errno::EAGAIN) => true,
            other => {
                assert_eq!(other, Ok(BYTES), "all or nothing");
                std::thread::sleep(std::time::Duration::from_millis(10));
                false
            }
        }
    });
    assert!(is_refused);
    assert_eq!(read(0), Ok(BYTES));
    drop(memory);
}
