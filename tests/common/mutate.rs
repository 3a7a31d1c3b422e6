//! What: damage to well-formed requests, and names that lead elsewhere.
//!
//! In: a message and a source of chance. Out: a message that is mostly well-formed, which reaches
//! further than noise does.

use super::request::{Bytes, IN_HEADER, ROOT, op};
use super::templates::Template;
use super::{Rng, u64_of};

/// Keeps a mutated request from filling the host's disk: offsets and lengths stay below 16 MiB.
pub(crate) fn tame(opcode: u32, message: &mut [u8]) {
    let fields: &[usize] = match opcode {
        op::SETATTR => &[16],
        op::WRITE => &[8],
        op::FALLOCATE => &[8, 16],
        op::COPY_FILE_RANGE | op::COPY_FILE_RANGE_64 => &[8, 32, 40],
        _ => &[],
    };
    for field in fields {
        let start = (IN_HEADER + field + 3).min(message.len());
        let end = (IN_HEADER + field + 8).min(message.len());
        message[start..end].fill(0);
    }
}

/// Damages a message in a few places, and perhaps its length.
pub(crate) fn mutate(rng: &mut Rng, message: &mut Vec<u8>) {
    for _ in 0..1 + rng.below(6) {
        let at = rng.below(message.len());
        // The unique number stays, so that replies can be told apart.
        if (8..16).contains(&at) {
            continue;
        }
        message[at] = match rng.below(4) {
            0 => 0,
            1 => 0xff,
            2 => message[at] ^ 1 << rng.below(8),
            _ => rng.byte(),
        };
    }
    match rng.below(8) {
        0 => message.truncate(1 + rng.below(message.len())),
        1 => message.resize(message.len() + rng.below(64), rng.byte()),
        _ => {}
    }
    if rng.below(4) != 0 && message.len() >= 4 {
        let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
        message[..4].copy_from_slice(&len.to_le_bytes());
    }
}

/// What a message says it is.
pub(crate) fn opcode_of(message: &[u8]) -> u32 {
    message.get(4..8).map_or(0, |bytes| {
        u32::from_le_bytes(bytes.try_into().expect("four"))
    })
}

/// Names that must not work, and some that may.
const NAMES: [&[u8]; 20] = [
    b"..",
    b".",
    b"",
    b"/",
    b"//",
    b"../outside",
    b"../outside/victim",
    b"../../etc",
    b"dir/..",
    b"a/b",
    b"a/",
    b"/etc/passwd",
    b"/proc/self/root",
    b"nul\0inside",
    b"\xff\xfe",
    b"new\nline",
    b"file",
    b"dir",
    b"link",
    b"up",
];

fn name(rng: &mut Rng) -> Vec<u8> {
    match rng.below(12) {
        0 => vec![b'n'; 254 + rng.below(4)],
        1 => vec![b'.'; 1 + rng.below(300)],
        _ => rng.pick(&NAMES).to_vec(),
    }
}

/// A request with one or two names of the wild kind, on a node of `nodes`.
pub(crate) fn wild_names(rng: &mut Rng, nodes: &[u64]) -> Template {
    let node = *rng.pick(nodes);
    let other = *rng.pick(nodes);
    let (one, two) = (name(rng), name(rng));
    let mode = libc::S_IFREG | 0o644;
    let flags = libc::O_RDWR | if rng.below(2) == 0 { libc::O_TRUNC } else { 0 };
    let new = Bytes::new;
    let body = match rng.below(14) {
        0 => (op::LOOKUP, new().name(&one)),
        1 => (op::UNLINK, new().name(&one)),
        2 => (op::RMDIR, new().name(&one)),
        3 => (op::MKDIR, new().u32(0o755).u32(0).name(&one)),
        4 => (op::MKNOD, new().u32(mode).raw(&[0; 12]).name(&one)),
        5 => (op::SYMLINK, new().name(&one).name(&two)),
        6 => (op::RENAME, new().u64(other).name(&one).name(&two)),
        7 => {
            let exchange = u64_of(rng.below(8));
            (
                op::RENAME2,
                new().u64(other).u64(exchange).name(&one).name(&two),
            )
        }
        8 => (op::LINK, new().u64(other).name(&one)),
        9 => (op::CREATE, new().i32(flags).u32(mode).u64(0).name(&one)),
        10 => (op::TMPFILE, new().i32(flags).u32(mode).u64(0).name(&one)),
        11 => (op::GETXATTR, new().u64(100).name(&one)),
        12 => (op::SETXATTR, new().u32(1).u32(0).name(&one).raw(b"v")),
        _ => (op::REMOVEXATTR, new().name(&one)),
    };
    let node = if rng.below(3) == 0 { ROOT } else { node };
    (body.0, node, body.1.done())
}
