//! What: hostile bytes in requests: every truncation of every operation, seeded mutations, wrong
//! sizes, extensions and rooms. After each, the daemon must be as sound as before.

mod common;

use common::Rng;
use common::client::Client;
use common::frontend::Setup;
use common::mutate::{mutate, opcode_of, tame};
use common::queue::Completion;
use common::request::{Bytes, Fields, IN_HEADER, OUT_HEADER, ROOT, op, out_header};
use common::session::Init;
use common::share::Share;
use common::templates::{Things, WITHOUT_REPLY, open_things, templates};

fn fill(share: &Share) {
    std::os::unix::fs::symlink("target", share.at("link")).expect("an empty share");
}

/// Mounted, with nothing looked up or open.
fn mounted_bare() -> (Share, Client) {
    let share = Share::new();
    fill(&share);
    let setup = Setup::default().queues(2).args(&["--xattr"]);
    let client = Client::mount(&setup, &share);
    (share, client)
}

fn mounted() -> (Share, Client, Things) {
    let (share, mut client) = mounted_bare();
    let things = open_things(&mut client);
    (share, client, things)
}

/// Checks what every completion must hold, whatever the request was; returns the error.
fn check(opcode: u32, unique: u64, completion: &Completion, case: &str) -> Option<i32> {
    if completion.used_len == 0 {
        return None;
    }
    assert!(
        !WITHOUT_REPLY.contains(&opcode),
        "{case}: opcode {opcode} was answered"
    );
    assert!(completion.used_len >= OUT_HEADER, "{case}: {completion:?}");
    let (len, error, answered) = out_header(&completion.reply);
    assert_eq!((len, answered), (completion.used_len, unique), "{case}");
    assert!((-511..=0).contains(&error), "{case}: error {error}");
    assert!(
        error == 0 || len == OUT_HEADER,
        "{case}: error with {len} bytes"
    );
    Some(-error)
}

#[test]
fn every_truncation_of_every_operation_is_refused() {
    let (share, mut client, things) = mounted();
    let oracle = client.oracle();
    let mut canary = client.session_on(2);
    for (opcode, node, body) in templates(things, client.flags) {
        for len in 0..IN_HEADER + body.len() {
            // Once with the header's own length as it was, once with the true one.
            for honest in [false, true] {
                let (mut message, unique) = client.message(opcode, node, &body);
                message.truncate(len);
                if honest && len >= 4 {
                    let true_len = u32::try_from(len).unwrap();
                    message[..4].copy_from_slice(&true_len.to_le_bytes());
                }
                let case = format!("opcode {opcode} cut to {len} bytes, honest {honest}");
                let completion = if message.is_empty() {
                    client.send_raw(&[0], OUT_HEADER + 400)
                } else {
                    client.send_raw(&message, OUT_HEADER + 400)
                };
                let error = check(opcode, unique, &completion, &case);
                if len < IN_HEADER || WITHOUT_REPLY.contains(&opcode) {
                    assert_eq!(error, None, "{case}: dropped");
                } else {
                    assert_eq!(error, Some(libc::EINVAL), "{case}");
                }
            }
        }
        oracle.check(
            &mut client.vm,
            &mut canary,
            &format!("opcode {opcode} truncated"),
        );
    }
    share.assert_outside_unchanged();
}

#[test]
fn well_formed_templates_succeed() {
    let (share, mut client, things) = mounted();
    for (opcode, node, body) in templates(things, client.flags) {
        let (message, unique) = client.message(opcode, node, &body);
        let completion = client.send_raw(&message, OUT_HEADER + 600);
        let error = check(opcode, unique, &completion, "well-formed");
        let expected = match opcode {
            _ if WITHOUT_REPLY.contains(&opcode) => None,
            op::RELEASE | op::RELEASEDIR => Some(libc::EBADF),
            _ => Some(0),
        };
        assert_eq!(error, expected, "opcode {opcode}");
    }
    share.assert_outside_unchanged();
}

#[test]
fn init_of_every_length_is_answered_or_refused() {
    let (_share, mut client, _) = mounted();
    let body = Init::default().body();
    for len in 0..body.len() {
        let result = client.call(op::INIT, 0, &body[..len], 64);
        assert!(
            len >= 8 || result == Err(libc::EINVAL),
            "INIT with {len} bytes: {result:?}"
        );
    }
    client.init();
    client.canary();
}

fn mutation_run(seed: u64, epochs: usize) {
    const ROOMS: [usize; 10] = [0, 1, 15, 16, 17, 32, 120, 144, 160, 1000];
    let (share, mut client) = mounted_bare();
    let oracle = client.oracle();
    let mut rng = Rng::new(seed);
    for epoch in 0..epochs {
        let case = format!("seed {seed} epoch {epoch}");
        let things = open_things(&mut client);
        let all = templates(things, client.flags);
        for _ in 0..256 {
            let mut sent = Vec::new();
            for _ in 0..16 {
                let (opcode, node, body) = rng.pick(&all).clone();
                let (mut message, unique) = client.message(opcode, node, &body);
                mutate(&mut rng, &mut message);
                let opcode = opcode_of(&message);
                // These would end the session or flush the whole host rather than test it.
                if [op::INIT, op::DESTROY, op::SYNCFS].contains(&opcode) {
                    continue;
                }
                tame(opcode, &mut message);
                let room = *rng.pick(&ROOMS);
                let head = client.queue.add(&message, room);
                sent.push((head, opcode, unique));
            }
            client.queue.publish();
            for completion in client.queue.drain() {
                let of_head = sent.iter().find(|(head, ..)| *head == completion.head);
                let (_, opcode, unique) = of_head.expect("a chain of this round");
                check(*opcode, *unique, &completion, &case);
            }
        }
        // A fresh session frees what the mutations were granted.
        client.init();
        client.assert_sound(&oracle, &case);
        share.clear();
        fill(&share);
    }
    share.assert_outside_unchanged();
}

#[test]
fn mutated_requests_do_no_harm() {
    mutation_run(1, 4);
}

#[test]
fn other_mutated_requests_do_no_harm() {
    mutation_run(0xdead_beef, 4);
}

#[test]
fn random_bytes_are_answered_or_dropped() {
    let (share, mut client, _) = mounted();
    let mut rng = Rng::new(77);
    for _ in 0..3000 {
        let mut message = vec![0; 1 + rng.below(300)];
        rng.fill(&mut message);
        if let Some(opcode) = message.get_mut(4..8) {
            let number = u32::try_from(rng.below(60)).unwrap();
            if number != op::INIT && number != op::DESTROY && number != op::SYNCFS {
                opcode.copy_from_slice(&number.to_le_bytes());
            }
        }
        tame(opcode_of(&message), &mut message);
        let completion = client.send_raw(&message, 200);
        assert!(completion.used_len == 0 || completion.used_len >= OUT_HEADER);
    }
    client.canary();
    share.assert_outside_unchanged();
}

#[test]
fn extensions_that_lie_are_refused() {
    let (_share, mut client, _) = mounted();
    let oracle = client.oracle();
    let words = |list: &[u32]| {
        let mut bytes = Bytes::new();
        for word in list {
            bytes = bytes.u32(*word);
        }
        bytes.done()
    };
    let cases = [
        words(&[0, 32]),
        words(&[7, 32]),
        words(&[4096, 32]),
        words(&[u32::MAX, 32, 1, 0]),
        words(&[16, 32, 65_537, 0]),
        words(&[16, 32, u32::MAX, 0]),
        words(&[16, 32, 1, 0, 16, 32, 1, 0]),
        words(&[16, 99, 1, 0]),
        words(&[16, 1, 16, 1]),
        words(&[24, 1, 16, 1, 0x6161_6161, 0x6161_6161]),
        words(&[8, 32]),
    ];
    for (index, extension) in cases.into_iter().enumerate() {
        client.extension = extension;
        let name = format!("dir{index}");
        let result = client.mkdir(ROOT, &name, 0o755);
        assert_eq!(result, Err(libc::EINVAL), "extension {index}");
        client.assert_sound(&oracle, "a lying extension");
    }
}

#[test]
fn extension_longer_than_the_message_is_refused() {
    let (_share, mut client, _) = mounted();
    for words in [2_u16, 100, u16::MAX] {
        let body = Bytes::new().u32(0o755).u32(0).name(b"dir").done();
        let (mut message, unique) = client.message(op::MKDIR, ROOT, &body);
        message[36..38].copy_from_slice(&words.to_le_bytes());
        let completion = client.send_raw(&message, 200);
        let error = check(op::MKDIR, unique, &completion, "extension");
        assert_eq!(error, Some(libc::EINVAL), "{words} words");
    }
}

#[test]
fn names_with_nul_inside_and_without_nul_are_refused() {
    let (share, mut client, _) = mounted();
    for body in [b"file\0junk\0".as_slice(), b"file", b"\0", b"\0\0", b""] {
        let result = client.call(op::LOOKUP, ROOT, body, 128);
        assert!(
            matches!(result, Err(libc::EINVAL | libc::ENOENT)),
            "{body:?}: {result:?}"
        );
        let result = client.plain(op::UNLINK, ROOT, body);
        assert!(
            matches!(result, Err(libc::EINVAL | libc::ENOENT)),
            "{body:?}: {result:?}"
        );
    }
    assert!(share.exists("file"));
}

#[test]
fn names_of_many_lengths_are_refused_without_harm() {
    let (_share, mut client, _) = mounted();
    let oracle = client.oracle();
    for len in [256, 1024, 4096, 65_535, 1 << 20] {
        let name = vec![b'x'; len];
        let result = client.lookup_bytes(ROOT, &name);
        assert!(
            matches!(result, Err(libc::ENAMETOOLONG | libc::EINVAL)),
            "{len}: {result:?}"
        );
    }
    client.assert_sound(&oracle, "long names");
}

#[test]
fn forgets_of_wild_counts_do_no_harm() {
    let (_share, mut client, things) = mounted();
    client.forget(ROOT, u64::MAX);
    client.forget(ROOT, 1);
    client.canary();
    client.forget(things.link, u64::MAX);
    assert_eq!(client.getattr(things.link, None), Err(libc::EBADF));
    for (count, entries) in [(0, 0), (1, 0), (u32::MAX, 2), (3, 2), (1, 5)] {
        let mut body = Bytes::new().u32(count).u32(0);
        for _ in 0..entries {
            body = body.u64(4711).u64(1);
        }
        let (message, _) = client.message(op::BATCH_FORGET, 0, &body.done());
        let completion = client.send_raw(&message, 0);
        assert_eq!(completion.used_len, 0);
    }
    client.canary();
}

#[test]
fn unsupported_operations_answer_enosys() {
    let (_share, mut client, things) = mounted();
    let oracle = client.oracle();
    let mut rng = Rng::new(5);
    let unsupported = [
        op::BMAP,
        op::POLL,
        op::NOTIFY_REPLY,
        op::SETUPMAPPING,
        op::REMOVEMAPPING,
        op::CUSE_INIT,
        7,
        19,
        54,
        1000,
        op::LOOKUP.swap_bytes(),
        op::INIT.swap_bytes(),
        u32::MAX,
    ];
    for opcode in unsupported {
        let mut body = vec![0; 64];
        rng.fill(&mut body);
        let result = client.call(opcode, things.file, &body, 64);
        assert!(
            matches!(result, Err(libc::ENOSYS | libc::ENOTTY)),
            "opcode {opcode:#x}: {result:?}"
        );
        client.assert_sound(&oracle, "an unsupported operation");
    }
    // Well-formed, but nobody agreed on locks; and no ioctl has this number.
    let lock = [things.file, 1, 0, 1, 0, 0].map(u64::to_ne_bytes).concat();
    let ioctl = [0_u8; 32];
    for (opcode, body) in [
        (op::GETLK, &lock[..]),
        (op::SETLK, &lock),
        (op::SETLKW, &lock),
        (op::IOCTL, &ioctl),
    ] {
        let result = client.call(opcode, things.file, body, 64);
        let expected = match opcode {
            op::IOCTL => Err(libc::ENOTTY),
            _ => Err(libc::ENOSYS),
        };
        assert_eq!(result.map(drop), expected, "opcode {opcode:#x}");
        client.assert_sound(&oracle, "an operation that was not agreed on");
    }
}

#[test]
fn replies_that_do_not_fit_grant_nothing() {
    let (share, mut client) = mounted_bare();
    share.write("file", b"data");
    share.write("unseen", b"data");
    let file = client.node("file");
    let oracle = client.oracle();
    let cases = [
        (op::LOOKUP, ROOT, Bytes::new().name(b"unseen").done(), 128),
        (op::OPEN, file, Bytes::new().u64(0).done(), 16),
        (op::OPENDIR, ROOT, Bytes::new().u64(0).done(), 16),
        (op::GETATTR, ROOT, vec![0; 16], 104),
        (op::STATFS, ROOT, vec![], 80),
    ];
    for (opcode, node, body, len) in cases {
        for room in [0, 1, 15, 16, 17, OUT_HEADER + len - 1] {
            let (message, unique) = client.message(opcode, node, &body);
            let completion = client.send_raw(&message, room);
            let case = format!("opcode {opcode} with {room} bytes of room");
            let error = check(opcode, unique, &completion, &case);
            if room < OUT_HEADER {
                assert_eq!(error, None, "{case}");
            } else {
                assert!(error.is_some_and(|error| error > 0), "{case}: {error:?}");
            }
            client.assert_sound(&oracle, &case);
        }
        let (message, unique) = client.message(opcode, node, &body);
        let completion = client.send_raw(&message, OUT_HEADER + len + 1000);
        let case = format!("opcode {opcode} with more room than needed");
        assert_eq!(completion.used_len, OUT_HEADER + len, "{case}");
        assert_eq!(check(opcode, unique, &completion, &case), Some(0));
        give_back(&mut client, opcode, &completion);
    }
    share.assert_outside_unchanged();
}

/// Returns what a successful reply granted.
fn give_back(client: &mut Client, opcode: u32, completion: &Completion) {
    let granted = Fields::new(&completion.reply[OUT_HEADER..]).u64();
    match opcode {
        op::LOOKUP => client.forget(granted, 1),
        op::OPEN => {
            let file = client.node("file");
            client.release(file, granted).expect("RELEASE");
            client.forget(file, 1);
        }
        op::OPENDIR => client.releasedir(ROOT, granted).expect("RELEASEDIR"),
        _ => {}
    }
}
