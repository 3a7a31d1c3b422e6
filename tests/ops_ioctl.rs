//! What: IOCTL over a real socket: inode flags, project ids, fs-verity, and nothing else.

mod common;

use common::client::Client;
use common::request::{Bytes, ROOT, op};
use common::session_data::At;
use common::share::Share;

const GET_FLAGS: u32 = 0x8008_6601;
const GET_FLAGS_32: u32 = 0x8004_6601;
const SET_FLAGS: u32 = 0x4008_6602;
const SET_FLAGS_32: u32 = 0x4004_6602;
const GET_EXTENDED: u32 = 0x801c_581f;
const SET_EXTENDED: u32 = 0x401c_5820;
const ENABLE_VERITY: u32 = 0x4080_6685;
const MEASURE_VERITY: u32 = 0xc004_6686;
const FIEMAP: u32 = 0xc020_660b;
const NODUMP: u32 = 0x40;
const NOATIME: u32 = 0x80;
const IMMUTABLE: u32 = 0x10;
const APPEND: u32 = 0x20;

/// A mounted guest with an open file; `None`, and a line that says why, where the host's file
/// system has no inode flags.
fn mounted(share: &Share, args: &[&str], test: &str) -> Option<(Client, At)> {
    let mut client = Client::with_args(share, args);
    let (node, fh) = client.make_file(ROOT, "file", b"data");
    let at = At {
        node,
        fh,
        offset: 0,
    };
    let answer = client.ioctl(at, GET_FLAGS, &[], 4);
    if answer.is_err() {
        eprintln!("skipped {test}: no inode flags in the temporary directory: {answer:?}");
        return None;
    }
    Some((client, at))
}

fn flags(client: &mut Client, at: At) -> u32 {
    let answer = client.ioctl(at, GET_FLAGS, &[], 4);
    let answer = answer.unwrap_or_else(|errno| panic!("FS_IOC_GETFLAGS: errno {errno}"));
    u32::from_le_bytes(answer.try_into().expect("4 bytes of flags"))
}

#[test]
fn flags_are_read_and_set_by_both_numbers() {
    let share = Share::new();
    let test = "flags_are_read_and_set_by_both_numbers";
    let Some((mut client, at)) = mounted(&share, &[], test) else {
        return;
    };
    let before = flags(&mut client, at);
    // Linux sends 4 bytes with the number that says 8; 32-bit programs have a number of their own.
    let wanted = (before | NODUMP).to_le_bytes();
    assert_eq!(client.ioctl(at, SET_FLAGS, &wanted, 0), Ok(vec![]));
    assert_eq!(client.ioctl(at, GET_FLAGS_32, &[], 4), Ok(wanted.to_vec()));
    let wanted = (before | NOATIME).to_le_bytes();
    assert_eq!(client.ioctl(at, SET_FLAGS_32, &wanted, 0), Ok(vec![]));
    assert_eq!(client.ioctl(at, GET_FLAGS, &[], 8), Ok(wanted.to_vec()));
    let extended = client.ioctl(at, GET_EXTENDED, &[], 28).unwrap();
    assert_eq!(extended.len(), 28);
    assert_eq!(client.ioctl(at, SET_EXTENDED, &extended, 0), Ok(vec![]));
}

#[test]
fn directories_have_flags_too() {
    let share = Share::new();
    let Some((mut client, _)) = mounted(&share, &[], "directories_have_flags_too") else {
        return;
    };
    let at = At {
        node: ROOT,
        fh: client.opendir(ROOT).unwrap().fh,
        offset: 0,
    };
    let wanted = (flags(&mut client, at) | NODUMP).to_le_bytes();
    assert_eq!(client.ioctl(at, SET_FLAGS, &wanted, 0), Ok(vec![]));
    assert_eq!(client.ioctl(at, GET_FLAGS, &[], 4), Ok(wanted.to_vec()));
}

#[test]
fn immutable_flag_needs_the_option() {
    if !common::is_root_or_skip("immutable_flag_needs_the_option") {
        return;
    }
    let share = Share::new();
    let Some((mut client, at)) = mounted(&share, &[], "immutable_flag_needs_the_option") else {
        return;
    };
    let before = flags(&mut client, at);
    for flag in [IMMUTABLE, APPEND] {
        let wanted = (before | flag).to_le_bytes();
        assert_eq!(client.ioctl(at, SET_FLAGS, &wanted, 0), Err(libc::EPERM));
    }
    assert_eq!(flags(&mut client, at), before);
    drop(client);
    let share = Share::new();
    let args = ["--allow-immutable"];
    let Some((mut client, at)) = mounted(&share, &args, "immutable_flag_needs_the_option") else {
        return;
    };
    let wanted = (before | IMMUTABLE).to_le_bytes();
    assert_eq!(client.ioctl(at, SET_FLAGS, &wanted, 0), Ok(vec![]));
    assert_eq!(client.unlink(ROOT, "file"), Err(libc::EPERM));
    let again = before.to_le_bytes();
    assert_eq!(client.ioctl(at, SET_FLAGS, &again, 0), Ok(vec![]));
    assert_eq!(client.unlink(ROOT, "file"), Ok(()));
}

#[test]
fn project_id_needs_the_option() {
    let share = Share::new();
    let Some((mut client, at)) = mounted(&share, &[], "project_id_needs_the_option") else {
        return;
    };
    let mut wanted = client.ioctl(at, GET_EXTENDED, &[], 28).unwrap();
    wanted[12] = 7;
    assert_eq!(client.ioctl(at, SET_EXTENDED, &wanted, 0), Err(libc::EPERM));
}

#[test]
fn flags_of_others_are_refused() {
    if !common::is_root_or_skip("flags_of_others_are_refused") {
        return;
    }
    let share = Share::new();
    let Some((mut client, at)) = mounted(&share, &[], "flags_of_others_are_refused") else {
        return;
    };
    let wanted = (flags(&mut client, at) | NODUMP).to_le_bytes();
    client.uid = 1000;
    assert_eq!(client.ioctl(at, SET_FLAGS, &wanted, 0), Err(libc::EPERM));
}

#[test]
fn everything_else_returns_enotty() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &["--allow-immutable", "--allow-project-id"]);
    let (node, fh) = client.make_file(ROOT, "file", b"data");
    let oracle = client.oracle();
    let at = At {
        node,
        fh,
        offset: 0,
    };
    // FICLONE, FS_IOC_GETVERSION, TCGETS, TIOCSTI, FIFREEZE, FS_IOC_SET_ENCRYPTION_POLICY.
    for command in [
        FIEMAP,
        0x4004_9409,
        0x8008_7601,
        0x5401,
        0x5412,
        0xc004_5877,
        0x800c_6613,
    ] {
        let refused = client.ioctl(at, command, &[0; 64], 64);
        assert_eq!(refused, Err(libc::ENOTTY), "{command:#x}");
    }
    client.assert_sound(&oracle, "ioctls that are not served");
}

#[test]
fn arguments_and_answers_of_the_wrong_length_return_einval() {
    let share = Share::new();
    let test = "arguments_and_answers_of_the_wrong_length_return_einval";
    let Some((mut client, at)) = mounted(&share, &[], test) else {
        return;
    };
    let oracle = client.oracle();
    for (command, input, room) in [
        (GET_FLAGS, 0, 3),
        (SET_FLAGS, 3, 0),
        (GET_EXTENDED, 0, 27),
        (SET_EXTENDED, 27, 0),
        (ENABLE_VERITY, 127, 0),
        (ENABLE_VERITY, 128, 0),
        (MEASURE_VERITY, 3, 68),
        (MEASURE_VERITY, 4, 3),
    ] {
        let refused = client.ioctl(at, command, &vec![0; input], room);
        assert_eq!(refused, Err(libc::EINVAL), "{command:#x} {input} {room}");
    }
    client.assert_sound(&oracle, "ioctls of the wrong length");
}

#[test]
fn unknown_handles_return_ebadf_and_addresses_enotty() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    let (node, fh) = client.make_file(ROOT, "file", b"data");
    let strange = At {
        node,
        fh: 4711,
        offset: 0,
    };
    assert_eq!(client.ioctl(strange, GET_FLAGS, &[], 4), Err(libc::EBADF));
    // FUSE_IOCTL_UNRESTRICTED: the argument is an address.
    let body = Bytes::new().u64(fh).u32(2).u32(GET_FLAGS).u64(0xdead_0000);
    let body = body.u32(0).u32(4).done();
    assert_eq!(client.call(op::IOCTL, node, &body, 20), Err(libc::ENOTTY));
}
