//! What: steps that mean the same to any daemon.
//!
//! In: a seed. Out: [`Step`]s. A step names nodes and handles by place in the tables of the side
//! that it is done on, modulo their length, so that each subsequence of steps is a run of its
//! own: that is what makes a failure shrink.

use crate::common::request::{SetAttr, op};
use crate::common::{Rng, u32_of, u64_of};

/// Where names come from; few, so that they meet.
const NAMES: [&str; 9] = ["a", "b", "c", "d", "e", "dir", "sub", "link", "fifo"];
/// What nothing can be called.
const BAD_NAMES: [&str; 3] = [".", "..", "x/y"];
/// Owners that a share without root may refuse: then it does so twice.
const IDS: [u32; 3] = [0, 1000, 65534];
/// Files stay smaller than twice this.
const SPAN: u64 = 150_000;

/// An opcode with how often it is chosen among all.
const WEIGHTS: [(u32, usize); 43] = [
    (op::LOOKUP, 12),
    (op::FORGET, 5),
    (op::BATCH_FORGET, 1),
    (op::GETATTR, 5),
    (op::SETATTR, 8),
    (op::READLINK, 3),
    (op::SYMLINK, 3),
    (op::MKNOD, 4),
    (op::MKDIR, 4),
    (op::UNLINK, 4),
    (op::RMDIR, 2),
    (op::RENAME, 3),
    (op::RENAME2, 4),
    (op::LINK, 4),
    (op::OPEN, 8),
    (op::READ, 8),
    (op::WRITE, 12),
    (op::STATFS, 1),
    (op::RELEASE, 5),
    (op::FSYNC, 1),
    (op::SETXATTR, 4),
    (op::GETXATTR, 3),
    (op::LISTXATTR, 3),
    (op::REMOVEXATTR, 2),
    (op::FLUSH, 2),
    (op::OPENDIR, 4),
    (op::READDIR, 4),
    (op::READDIRPLUS, 4),
    (op::RELEASEDIR, 3),
    (op::FSYNCDIR, 1),
    (op::ACCESS, 2),
    (op::CREATE, 10),
    (op::FALLOCATE, 4),
    (op::LSEEK, 4),
    (op::COPY_FILE_RANGE, 3),
    (op::COPY_FILE_RANGE_64, 2),
    (op::SYNCFS, 1),
    (op::TMPFILE, 3),
    (op::STATX, 3),
    (op::GETLK, 1),
    (op::IOCTL, 1),
    (op::BMAP, 1),
    (op::POLL, 1),
];

/// One request, with more numbers than any single opcode needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) opcode: u32,
    pub(crate) uid: u32,
    pub(crate) first: usize,
    pub(crate) second: usize,
    pub(crate) name: &'static str,
    pub(crate) other: &'static str,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) dice: usize,
}

impl Step {
    pub(crate) fn random(rng: &mut Rng) -> Self {
        let total: usize = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let mut at = rng.below(total);
        let mut opcode = op::LOOKUP;
        for (candidate, weight) in WEIGHTS {
            opcode = candidate;
            if at < weight {
                break;
            }
            at -= weight;
        }
        Step {
            opcode,
            // Mostly root, or little would succeed.
            uid: [0, 0, 0, 0, 0, 1000][rng.below(6)],
            first: rng.below(1 << 20),
            second: rng.below(1 << 20),
            name: random_name(rng),
            other: random_name(rng),
            offset: rng.next() % SPAN,
            len: rng.next() % (SPAN / 2),
            dice: rng.below(1 << 20),
        }
    }

    /// One of `choices`, always the same for this step.
    pub(crate) fn choose<T: Copy>(&self, choices: &[T]) -> T {
        choices[self.dice % choices.len()]
    }

    /// Another choice, independent of the first.
    pub(crate) fn choose_other<T: Copy>(&self, choices: &[T]) -> T {
        choices[self.dice / 1024 % choices.len()]
    }

    pub(crate) fn data(&self) -> Vec<u8> {
        let mut data = vec![0; crate::common::usize_of64(self.len)];
        Rng::new(u64_of(self.dice)).fill(&mut data);
        data
    }

    pub(crate) fn set_attr(&self, fh: Option<u64>) -> SetAttr {
        let time = (self.offset, u32_of(self.dice) % 1_000_000_000);
        let valid = self.choose(&[1, 2, 4, 6, 7, 8, 8, 16, 32, 48, 48 | 384, 8 | 2048, 9, 0]);
        SetAttr {
            valid: valid | if fh.is_some() { 64 } else { 0 },
            fh: fh.unwrap_or(0),
            size: self.len,
            atime: time,
            mtime: time,
            mode: self.choose_other(&[0o644, 0o600, 0o755, 0o4755, 0o2770, 0o1777, 0o000]),
            uid: self.choose_other(&IDS),
            gid: self.choose_other(&IDS),
        }
    }
}

fn random_name(rng: &mut Rng) -> &'static str {
    if rng.below(40) == 0 {
        BAD_NAMES[rng.below(BAD_NAMES.len())]
    } else {
        NAMES[rng.below(NAMES.len())]
    }
}
