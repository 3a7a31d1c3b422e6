//! What: a virtual machine monitor and a guest for tests, small enough to read.
//!
//! In: a test's wishes (options, queues, memory layout, requests). Out: the real binary running
//! on a temporary share, driven over a real socket, and every answer checked against what
//! virtio 1.2, the vhost-user protocol and fuse.h promise.
//!
//! ```text
//! share    a directory to serve and a canary tree beside it that must never change
//! daemon   the binary as a process: socket, exit status, words, /proc          (Daemon)
//! frontend speaks vhost-user, negotiates, sets up memory and rings             (Setup, Vm)
//! raw      the same socket without manners, for hostile front ends             (RawFrontend)
//! memory   guest memory in memfd regions, with or without holes                (GuestMemory)
//! ring     the driver's half of a split virtqueue                              (Ring)
//! queue    buffers with canaries, chains cut to any size, strict completions   (Queue)
//! request  FUSE messages as bytes, laid out from uapi/linux/fuse.h             (Bytes, Fields)
//! session  typed FUSE operations over a queue; more in session_data and _lock  (Session)
//! client   a Vm and a Session in one, for tests of operations                  (Client)
//! rig      a guest that attacks one queue while another goes on (Rig)
//! oracle   is the daemon as sound as before a hostile case?                    (Oracle)
//! child    parts of a test in a process of its own                             (Child)
//! slow_store a file system of FUSE that takes its time                          (SlowStore)
//! mutate   requests damaged at random, and names that lead elsewhere
//! templates a well-formed request of every operation, to be damaged
//! ```
//!
//! `VIRTIOFSD_UNDER_TEST` names another binary to test, `VIRTIOFSD_UNDER_TEST_ARGS` what that
//! needs on its command line. `VIRTIOFSD_TEST_SANDBOX` and `VIRTIOFSD_TEST_POOL` choose the mode
//! of all daemons whose test does not.
//!
//! Invariants: nothing here uses the layouts or the ring code of the program under test; every
//! wait ends after [`TIMEOUT`] with the daemon's own words in the panic message; nothing is
//! shared between two tests.

#![allow(
    dead_code,
    reason = "every test binary compiles this module and uses a part of it"
)]

pub(crate) mod child;
pub(crate) mod client;
pub(crate) mod daemon;
pub(crate) mod frontend;
pub(crate) mod memory;
pub(crate) mod mutate;
pub(crate) mod oracle;
pub(crate) mod queue;
pub(crate) mod raw;
pub(crate) mod request;
pub(crate) mod rig;
pub(crate) mod ring;
pub(crate) mod session;
pub(crate) mod session_data;
pub(crate) mod session_lock;
pub(crate) mod share;
pub(crate) mod slow_store;
pub(crate) mod sys;
pub(crate) mod templates;

use std::time::Duration;

/// No step of a test takes longer unless something hangs; generous because CI machines are slow.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// A small number that must fit: `what` it is appears in the panic.
pub(crate) fn u32_of(number: usize) -> u32 {
    u32::try_from(number).expect("a length in a test is below 4 GiB")
}

/// A length or index as the wire has it, for use in memory.
pub(crate) fn usize_of(number: u32) -> usize {
    usize::try_from(number).expect("usize has at least 32 bits")
}

/// A length or offset of 64 bits, for use in memory.
pub(crate) fn usize_of64(number: u64) -> usize {
    usize::try_from(number).expect("a 64-bit host")
}

/// A length in memory as the wire has it.
pub(crate) fn u64_of(number: usize) -> u64 {
    u64::try_from(number).expect("usize has at most 64 bits")
}

/// Numbers that look random and are the same in every run (xorshift64*).
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        // Zero is the one state that xorshift never leaves.
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize_of64(self.next() % u64_of(bound))
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }

    pub(crate) fn fill(&mut self, buf: &mut [u8]) {
        for byte in buf {
            *byte = self.byte();
        }
    }

    /// One of `choices`.
    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

/// True when the tests run as root; otherwise says on stderr which test is skipped and why.
pub(crate) fn is_root_or_skip(test: &str) -> bool {
    let is_root = sys::effective_uid() == 0;
    if !is_root {
        eprintln!("skipped {test}: it needs root, to create files for other users");
    }
    is_root
}
