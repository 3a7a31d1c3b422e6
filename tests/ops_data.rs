//! What: READ, WRITE, FSYNC, LSEEK, FALLOCATE, COPY_FILE_RANGE, SYNCFS over a real socket.

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use common::Rng;
use common::client::Client;
use common::frontend::Setup;
use common::memory::MemoryLayout;
use common::queue::Cut;
use common::request::{OUT_HEADER, ROOT, op};
use common::session_data::{At, CopyRange, read_body, write_body};
use common::share::Share;

const WRITE_CACHE: u32 = 1 << 0;
const WRITE_KILL_SUIDGID: u32 = 1 << 2;
const MIB: usize = 1 << 20;

fn at(node: u64, fh: u64, offset: u64) -> At {
    At { node, fh, offset }
}

fn noise(len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    Rng::new(42).fill(&mut data);
    data
}

#[test]
fn read_at_within_across_and_beyond_the_end_gives_what_is_there() {
    let share = Share::new();
    let data = noise(10_000);
    share.write("file", &data);
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("file");
    let fh = client.open(node, libc::O_RDONLY).unwrap().fh;
    assert_eq!(client.read(at(node, fh, 0), 10_000).unwrap(), data);
    assert_eq!(client.read(at(node, fh, 0), 65_536).unwrap(), data);
    assert_eq!(
        client.read(at(node, fh, 5000), 17).unwrap(),
        data[5000..5017]
    );
    assert_eq!(
        client.read(at(node, fh, 9_990), 100).unwrap(),
        data[9_990..]
    );
    assert_eq!(client.read(at(node, fh, 10_000), 100).unwrap(), b"");
    assert_eq!(client.read(at(node, fh, 1 << 40), 100).unwrap(), b"");
    assert_eq!(client.read(at(node, fh, 0), 0).unwrap(), b"");
}

#[test]
fn large_reads_that_are_under_way_together_give_each_its_own() {
    const READS: usize = 8;
    let share = Share::new();
    let data = noise(READS * MIB);
    share.write("file", &data);
    let setup = Setup::default()
        .queue_size(1024)
        .memory(MemoryLayout::one(48 << 20));
    let mut client = Client::mount(&setup, &share);
    let node = client.node("file");
    let fh = client.open(node, libc::O_RDONLY).unwrap().fh;
    for round in 0..10 {
        let heads: Vec<_> = (0..READS)
            .map(|index| {
                let offset = u64::try_from(index * MIB).unwrap();
                let size = u32::try_from(MIB).unwrap();
                let body = read_body(at(node, fh, offset), size, 0);
                let (message, _) = client.message(op::READ, node, &body);
                client.queue.add(&message, OUT_HEADER + MIB)
            })
            .collect();
        client.queue.publish();
        for (head, expected) in heads.into_iter().zip(data.chunks(MIB)) {
            let completion = client.queue.wait_for(head);
            assert_eq!(completion.used_len, OUT_HEADER + MIB, "round {round}");
            assert!(completion.reply[OUT_HEADER..] == *expected, "round {round}");
        }
    }
}

#[test]
fn read_leaves_reply_memory_after_the_end_of_file_alone() {
    let share = Share::new();
    share.write("file", b"short");
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("file");
    let fh = client.open(node, libc::O_RDONLY).unwrap().fh;
    let body = read_body(at(node, fh, 0), 4096, 0);
    let (message, _) = client.message(op::READ, node, &body);
    let completion = client.send_raw(&message, OUT_HEADER + 4096);
    assert_eq!(completion.used_len, OUT_HEADER + 5);
    common::queue::assert_canary(&completion.rest);
}

#[test]
fn write_and_read_back_in_every_cut_are_the_same() {
    let share = Share::new();
    let setup = Setup::default().queue_size(1024);
    let mut client = Client::mount(&setup, &share);
    let (node, fh) = client.make_file(ROOT, "file", b"");
    let cuts = [
        Cut::Whole,
        Cut::Linux,
        Cut::Every(1),
        Cut::Every(7),
        Cut::Every(39),
        Cut::Random(Rng::new(7)),
    ];
    for cut in cuts {
        let data = noise(700);
        client.queue.cut = cut.clone();
        client.write_all(at(node, fh, 13), &data);
        assert_eq!(client.read(at(node, fh, 13), 700).unwrap(), data, "{cut:?}");
        assert_eq!(&share.read("file")[13..], data, "{cut:?}");
    }
}

#[test]
fn write_of_a_mebibyte_over_direct_descriptors_is_whole() {
    let share = Share::new();
    let setup = Setup::default().queue_size(1024).direct();
    let mut client = Client::mount(&setup, &share);
    let (node, fh) = client.make_file(ROOT, "file", b"");
    let data = noise(MIB);
    client.write_all(at(node, fh, 0), &data);
    assert!(share.read("file") == data, "what the host sees");
    assert!(
        client.read(at(node, fh, 0), 1 << 20).unwrap() == data,
        "what is read back"
    );
}

#[test]
fn write_of_max_write_is_accepted_and_more_refused() {
    let share = Share::new();
    let setup = Setup::default().memory(MemoryLayout::one(48 << 20));
    let mut client = Client::attach(setup.boot(&share.path()));
    let max_write = common::usize_of(client.init().max_write);
    assert!(max_write >= MIB, "max_write {max_write}");
    let (node, fh) = client.make_file(ROOT, "file", b"");
    client.queue.cut = Cut::Every(65_536);
    let data = noise(max_write);
    client.write_all(at(node, fh, 0), &data);
    assert!(share.read("file") == data);
    let body = write_body(at(node, fh, 0), &noise(max_write + 1), 0, libc::O_WRONLY);
    let result = client.call(op::WRITE, node, &body, 8);
    assert!(
        matches!(result, Err(libc::EINVAL | libc::E2BIG)),
        "{result:?}"
    );
}

#[test]
fn write_with_more_payload_than_size_writes_just_size() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    let (node, fh) = client.make_file(ROOT, "file", b"");
    let mut body = write_body(at(node, fh, 0), b"four", 0, libc::O_WRONLY);
    body.extend_from_slice(b"and more that does not count");
    let reply = client.call(op::WRITE, node, &body, 8).unwrap();
    assert_eq!(common::session_data::written(&reply), 4);
    assert_eq!(share.read("file"), b"four");
}

#[test]
fn write_with_less_payload_than_size_returns_einval() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    let (node, fh) = client.make_file(ROOT, "file", b"");
    let mut body = write_body(at(node, fh, 0), b"0123456789", 0, libc::O_WRONLY);
    body.truncate(body.len() - 3);
    assert_eq!(client.call(op::WRITE, node, &body, 8), Err(libc::EINVAL));
    assert_eq!(share.read("file"), b"");
}

#[test]
fn write_with_o_append_goes_to_the_end_unless_it_comes_from_the_cache() {
    let share = Share::new();
    share.write("file", b"0123456789");
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("file");
    let flags = libc::O_WRONLY | libc::O_APPEND;
    let fh = client.open(node, flags).unwrap().fh;
    let count = client.write_with(at(node, fh, 0), b"abc", 0, flags);
    assert_eq!(count, Ok(3));
    assert_eq!(share.read("file"), b"0123456789abc");
    let count = client.write_with(at(node, fh, 2), b"XY", WRITE_CACHE, flags);
    assert_eq!(count, Ok(2));
    assert_eq!(share.read("file"), b"01XY456789abc");
}

#[test]
fn write_with_kill_suidgid_clears_set_id_bits() {
    let share = Share::new();
    let path = share.write("file", b"data");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).unwrap();
    let mut client = Client::with_args(&share, &["--xattr"]);
    if !client.kills_set_ids_or_skip("write_with_kill_suidgid_clears_set_id_bits") {
        return;
    }
    let node = client.node("file");
    let fh = client.open(node, libc::O_WRONLY).unwrap().fh;
    let place = at(node, fh, 0);
    let count = client.write_with(place, b"x", WRITE_KILL_SUIDGID, libc::O_WRONLY);
    assert_eq!(count, Ok(1));
    assert_eq!(share.stat("file").mode() & 0o7777, 0o755);
}

#[test]
fn fallocate_and_copy_clear_set_id_bits_for_who_is_not_root() {
    if !common::is_root_or_skip("fallocate_and_copy_clear_set_id_bits_for_who_is_not_root") {
        return;
    }
    let share = Share::new();
    let mut client = Client::with_args(&share, &["--killpriv-v2"]);
    let (node, fh) = client.make_file(ROOT, "file", b"data");
    let set_mode = || {
        let permissions = fs::Permissions::from_mode(0o6755);
        fs::set_permissions(share.at("file"), permissions).unwrap();
    };
    let copy = CopyRange {
        from: at(node, fh, 0),
        to: at(node, fh, 4096),
        len: 4,
        flags: 0,
    };
    // A Linux guest names nobody (0xffffffff) where mounts may be idmapped.
    for (uid, mode) in [(0, 0o6755), (1000, 0o755), (u32::MAX, 0o755)] {
        client.uid = uid;
        set_mode();
        client.fallocate(at(node, fh, 0), 8192, 0).unwrap();
        assert_eq!(share.stat("file").mode() & 0o7777, mode, "uid {uid}");
        set_mode();
        assert_eq!(client.copy_file_range(&copy), Ok(4));
        assert_eq!(share.stat("file").mode() & 0o7777, mode, "uid {uid}");
    }
}

#[test]
fn file_capabilities_go_with_any_write() {
    if !common::is_root_or_skip("file_capabilities_go_with_any_write") {
        return;
    }
    // Version 2, cap_net_bind_service effective and permitted.
    let capability = [1_u32 | 0x0200_0000, 1 << 10, 0, 0, 0].map(u32::to_le_bytes);
    let share = Share::new();
    let mut client = Client::with_args(&share, &["--xattr"]);
    let (node, fh) = client.make_file(ROOT, "file", b"data");
    let path = share.at("file");
    common::sys::set_xattr(&path, c"security.capability", capability.as_flattened()).unwrap();
    client.write_all(at(node, fh, 0), b"x");
    let left = common::sys::get_xattr(&path, c"security.capability");
    assert_eq!(left.unwrap_err().raw_os_error(), Some(libc::ENODATA));
}

#[test]
fn offsets_beyond_what_a_file_can_have_return_einval() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    let (node, fh) = client.make_file(ROOT, "file", b"data");
    for offset in [1 << 63, u64::MAX, u64::MAX - 4095] {
        let place = at(node, fh, offset);
        assert_eq!(client.read(place, 4096), Err(libc::EINVAL), "{offset:x}");
        assert_eq!(client.write(place, b"x"), Err(libc::EINVAL), "{offset:x}");
        assert_eq!(client.fallocate(place, 1, 0), Err(libc::EINVAL));
        let sought = client.lseek(place, libc::SEEK_DATA);
        assert!(
            matches!(sought, Err(libc::EINVAL | libc::ENXIO)),
            "{offset:x}: {sought:?}"
        );
    }
    assert_eq!(share.read("file"), b"data");
}

#[test]
fn read_and_write_on_unknown_handles_return_ebadf() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    let (node, fh) = client.make_file(ROOT, "file", b"data");
    let (other, _) = client.make_file(ROOT, "other", b"");
    for place in [at(node, 4711, 0), at(node, u64::MAX, 0), at(other, fh, 0)] {
        assert_eq!(client.read(place, 4), Err(libc::EBADF), "{place:?}");
        assert_eq!(client.write(place, b"x"), Err(libc::EBADF), "{place:?}");
        assert_eq!(client.lseek(place, libc::SEEK_DATA), Err(libc::EBADF));
        assert_eq!(client.fallocate(place, 1, 0), Err(libc::EBADF));
        assert_eq!(client.fsync(place.node, place.fh), Err(libc::EBADF));
        assert_eq!(client.flush(place.node, place.fh), Err(libc::EBADF));
    }
}

#[test]
fn read_on_a_directory_handle_returns_eisdir() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    let fh = client.opendir(ROOT).unwrap().fh;
    assert_eq!(client.read(at(ROOT, fh, 0), 100), Err(libc::EISDIR));
    let written = client.write(at(ROOT, fh, 0), b"x");
    assert!(
        matches!(written, Err(libc::EBADF | libc::EISDIR)),
        "{written:?}"
    );
}

#[test]
fn read_larger_than_the_reply_room_is_cut_to_it() {
    let share = Share::new();
    share.write("file", &noise(20_000));
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("file");
    let fh = client.open(node, libc::O_RDONLY).unwrap().fh;
    for size in [8192, u32::MAX] {
        let body = read_body(at(node, fh, 0), size, 0);
        let data = client.call(op::READ, node, &body, 4096).unwrap();
        assert_eq!(data, noise(20_000)[..4096], "size {size}");
    }
}

#[test]
fn fsync_flush_and_syncfs_succeed() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    let (node, fh) = client.make_file(ROOT, "file", b"data");
    client.fsync(node, fh).unwrap();
    client.fdatasync(node, fh).unwrap();
    client.flush(node, fh).unwrap();
    client.syncfs(ROOT).unwrap();
    client.syncfs(node).unwrap();
    assert_eq!(client.syncfs(4711), Err(libc::EBADF));
}

#[test]
fn lseek_finds_data_and_holes() {
    let share = Share::new();
    let file = fs::File::create(share.at("file")).unwrap();
    file.write_all_at(&[1; 65_536], 1 << 20).unwrap();
    file.set_len(3 << 20).unwrap();
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("file");
    let fh = client.open(node, libc::O_RDONLY).unwrap().fh;
    let hole = (1 << 20) + 65_536;
    assert_eq!(client.lseek(at(node, fh, 0), libc::SEEK_DATA), Ok(1 << 20));
    assert_eq!(client.lseek(at(node, fh, 0), libc::SEEK_HOLE), Ok(0));
    assert_eq!(
        client.lseek(at(node, fh, 1 << 20), libc::SEEK_HOLE),
        Ok(hole)
    );
    let beyond = client.lseek(at(node, fh, hole), libc::SEEK_DATA);
    assert_eq!(beyond, Err(libc::ENXIO));
    let beyond = client.lseek(at(node, fh, 3 << 20), libc::SEEK_HOLE);
    assert_eq!(beyond, Err(libc::ENXIO));
    let unknown = client.lseek(at(node, fh, 0), 99);
    assert_eq!(unknown, Err(libc::EINVAL));
}

#[test]
fn fallocate_modes_do_what_the_host_does() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    let (node, fh) = client.make_file(ROOT, "file", &[7; 65_536]);
    client.fallocate(at(node, fh, 0), 131_072, 0).unwrap();
    assert_eq!(share.stat("file").size(), 131_072);
    let keep = libc::FALLOC_FL_KEEP_SIZE;
    client
        .fallocate(at(node, fh, 131_072), 65_536, keep)
        .unwrap();
    assert_eq!(share.stat("file").size(), 131_072);
    let punch = libc::FALLOC_FL_PUNCH_HOLE | keep;
    client.fallocate(at(node, fh, 4096), 8192, punch).unwrap();
    let zero = libc::FALLOC_FL_ZERO_RANGE;
    client.fallocate(at(node, fh, 16_384), 4096, zero).unwrap();
    let data = share.read("file");
    assert!(data[4096..12_288].iter().all(|byte| *byte == 0));
    assert!(data[16_384..20_480].iter().all(|byte| *byte == 0));
    assert_eq!((data[0], data[12_288], data[20_480]), (7, 7, 7));
    let collapse = libc::FALLOC_FL_COLLAPSE_RANGE;
    client.fallocate(at(node, fh, 0), 4096, collapse).unwrap();
    assert_eq!(share.stat("file").size(), 131_072 - 4096);
}

#[test]
fn fallocate_with_bad_arguments_returns_the_hosts_error() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    let (node, fh) = client.make_file(ROOT, "file", b"data");
    assert_eq!(client.fallocate(at(node, fh, 0), 0, 0), Err(libc::EINVAL));
    let unknown = client.fallocate(at(node, fh, 0), 1, 1 << 30);
    assert_eq!(unknown, Err(libc::EOPNOTSUPP));
    let beyond = client.fallocate(at(node, fh, 1 << 62), 1 << 62, 0);
    assert!(
        matches!(beyond, Err(libc::EFBIG | libc::EINVAL)),
        "{beyond:?}"
    );
    let read_only = client.open(node, libc::O_RDONLY).unwrap().fh;
    let refused = client.fallocate(at(node, read_only, 0), 1, 0);
    assert_eq!(refused, Err(libc::EBADF));
}

#[test]
fn copy_file_range_copies_between_files_both_ways_of_asking() {
    let share = Share::new();
    let data = noise(100_000);
    let mut client = Client::with_args(&share, &[]);
    let (from, from_fh) = client.make_file(ROOT, "from", &data);
    let (to, to_fh) = client.make_file(ROOT, "to", b"");
    let copy = CopyRange {
        from: at(from, from_fh, 1000),
        to: at(to, to_fh, 10),
        len: 50_000,
        flags: 0,
    };
    assert_eq!(client.copy_file_range(&copy), Ok(50_000));
    assert!(share.read("to")[10..] == data[1000..51_000]);
    let tail = CopyRange {
        from: at(from, from_fh, 90_000),
        to: at(to, to_fh, 0),
        len: 1 << 40,
        flags: 0,
    };
    assert_eq!(client.copy_file_range_64(&tail), Ok(10_000));
    assert!(share.read("to")[..10_000] == data[90_000..]);
}

#[test]
fn copy_file_range_with_bad_arguments_fails() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    let (from, from_fh) = client.make_file(ROOT, "from", &noise(1000));
    let (to, to_fh) = client.make_file(ROOT, "to", b"");
    let good = CopyRange {
        from: at(from, from_fh, 0),
        to: at(to, to_fh, 0),
        len: 100,
        flags: 0,
    };
    let flags = CopyRange { flags: 1, ..good };
    assert_eq!(client.copy_file_range(&flags), Err(libc::EINVAL));
    assert_eq!(client.copy_file_range_64(&flags), Err(libc::EINVAL));
    let bad_from = CopyRange {
        from: at(from, 4711, 0),
        ..good
    };
    let bad_to = CopyRange {
        to: at(to, 4711, 0),
        ..good
    };
    for bad in [bad_from, bad_to] {
        assert_eq!(client.copy_file_range(&bad), Err(libc::EBADF));
        assert_eq!(client.copy_file_range_64(&bad), Err(libc::EBADF));
    }
    let overlap = CopyRange {
        to: at(from, from_fh, 50),
        ..good
    };
    assert_eq!(client.copy_file_range(&overlap), Err(libc::EINVAL));
    assert_eq!(share.read("to"), b"");
}

#[test]
fn direct_io_reads_and_writes_aligned_pages() {
    let share = Share::new();
    let data = noise(16_384);
    share.write("file", &data);
    let mut client = Client::with_args(&share, &["--allow-direct-io"]);
    let node = client.node("file");
    let fh = client.open(node, libc::O_RDWR | libc::O_DIRECT).unwrap().fh;
    // Guest buffers here are not aligned: the host may refuse them, but only with EINVAL.
    let result = client.read(at(node, fh, 4096), 4096);
    assert!(
        result == Err(libc::EINVAL) || result.as_deref() == Ok(&data[4096..8192]),
        "{result:?}"
    );
}
