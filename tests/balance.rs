//! What: the balance of lookups, handles, descriptors and memory when operations fail half-way.
//!
//! In: 100,000 random requests to daemons that lack something: descriptors, space, file size,
//! capabilities. Out: a panic when an operation that has to fail does not, when a node or handle
//! outlives its last FORGET or RELEASE or dies before, when descriptors are left over, or when
//! memory has grown by more than [`RSS_GROWTH_MAX_KIB`].

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::client::Client;
use common::frontend::Setup;
use common::request::{Entry, Opened, ROOT, SetAttr, op};
use common::session::Reply;
use common::session_data::{At, CopyRange};
use common::share::Share;
use common::{Rng, is_root_or_skip, sys, u32_of, u64_of};

/// Requests without a fault, after which all caches and tables have their size.
const WARM_UP: usize = 3000;
/// Requests with it.
const STEPS: usize = 25_000;
/// What may be left of them: thread stacks and the allocator's own ways, far below one leaked
/// node or handle of 400 bytes for each request.
const RSS_GROWTH_MAX_KIB: u64 = 4 * 1024;
/// Nodes that the guest knows at once.
const NODES_MAX: usize = 300;
/// Handles that it has open at once.
const HANDLES_MAX: usize = 40;

const REG: u32 = libc::S_IFREG;
/// The operations that make something, on the host or in the daemon.
const CREATING: [u32; 9] = [
    op::LOOKUP,
    op::CREATE,
    op::TMPFILE,
    op::MKNOD,
    op::MKDIR,
    op::SYMLINK,
    op::LINK,
    op::OPEN,
    op::OPENDIR,
];

/// What the daemon lacks.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Nothing (in the warm-up).
    None,
    /// Descriptors: as many as are open, or one or two more.
    Descriptors,
    /// File size: 8 KiB.
    FileSize,
    /// What was arranged before it started.
    Inherited,
}

/// A guest, what it owes the daemon, and how its requests ended.
#[derive(Debug)]
struct Guest {
    client: Client,
    rng: Rng,
    lookups: BTreeMap<u64, u64>,
    files: Vec<(u64, u64)>,
    dirs: Vec<(u64, u64)>,
    /// By opcode and errno; 0 is success.
    ends: BTreeMap<(u32, i32), usize>,
}

impl Guest {
    fn new(client: Client, seed: u64) -> Self {
        Guest {
            client,
            rng: Rng::new(seed),
            lookups: BTreeMap::new(),
            files: Vec::new(),
            dirs: Vec::new(),
            ends: BTreeMap::new(),
        }
    }

    fn node(&mut self) -> u64 {
        let index = self.rng.below(self.lookups.len() + 1);
        self.lookups.keys().nth(index).copied().unwrap_or(ROOT)
    }

    /// The root, or a directory that it holds under one of two names.
    fn parent(&mut self) -> u64 {
        let name = ["dir0", "dir1"][self.rng.below(2)];
        match self.rng.below(3) {
            0 => ROOT,
            1 => self.node(),
            _ => {
                let reply = self.client.lookup(ROOT, name);
                self.granted(op::LOOKUP, &reply).unwrap_or(ROOT)
            }
        }
    }

    fn file(&mut self) -> At {
        let (node, fh) = match self.files.len() {
            0 => (ROOT, u64::MAX),
            len => self.files[self.rng.below(len)],
        };
        let offset = u64_of(self.rng.below(32_768));
        At { node, fh, offset }
    }

    fn note<T>(&mut self, opcode: u32, reply: &Reply<T>) {
        let errno = reply.as_ref().err().copied().unwrap_or(0);
        *self.ends.entry((opcode, errno)).or_default() += 1;
    }

    fn granted(&mut self, opcode: u32, reply: &Reply<Entry>) -> Option<u64> {
        self.note(opcode, reply);
        // A name that is known to be missing has no node, and grants nothing.
        let node = reply.as_ref().ok().map(|entry| entry.node);
        let node = node.filter(|node| *node != 0)?;
        *self.lookups.entry(node).or_default() += 1;
        Some(node)
    }

    fn created(&mut self, opcode: u32, reply: Reply<(Entry, Opened)>) {
        if let Ok((entry, opened)) = &reply {
            self.files.push((entry.node, opened.fh));
        }
        self.granted(opcode, &reply.map(|(entry, _)| entry));
    }

    fn step(&mut self) {
        // Mostly root, or little would be made.
        let id = [0, 0, 0, 1000][self.rng.below(4)];
        self.client.session.uid = id;
        self.client.session.gid = id;
        match self.rng.below(10) {
            0..=3 => self.step_that_makes(),
            4..=5 => self.step_on_data(),
            6 => self.step_that_opens(),
            7 => self.step_that_lists(),
            _ => self.step_that_removes(),
        }
        while self.lookups.len() > NODES_MAX {
            self.forget_one();
        }
        while self.files.len() + self.dirs.len() > HANDLES_MAX {
            self.release_one();
        }
    }

    fn step_that_makes(&mut self) {
        let parent = self.parent();
        let name = format!("n{}", self.rng.below(60));
        let dir = format!("dir{}", self.rng.below(4));
        let node = self.node();
        let kind = [REG, libc::S_IFIFO, libc::S_IFCHR][self.rng.below(3)];
        let flags = libc::O_RDWR | [0, libc::O_EXCL, libc::O_TRUNC][self.rng.below(3)];
        let client = &mut self.client;
        match self.rng.below(8) {
            0 => {
                let reply = client.lookup(parent, &name);
                self.granted(op::LOOKUP, &reply);
            }
            1 => {
                let reply = client.mknod(parent, &name, kind | 0o644, 0x0103);
                self.granted(op::MKNOD, &reply);
            }
            2 => {
                let (parent, name) =
                    [(ROOT, &dir), (parent, &name)][usize::from(node.is_multiple_of(2))];
                let reply = client.mkdir(parent, name, 0o777);
                self.granted(op::MKDIR, &reply);
            }
            3 => {
                let reply = client.symlink(parent, &name, "target");
                self.granted(op::SYMLINK, &reply);
            }
            4 => {
                let reply = client.link(node, parent, &name);
                self.granted(op::LINK, &reply);
            }
            5 => {
                let reply = client.tmpfile(parent, REG | 0o600, libc::O_RDWR);
                self.created(op::TMPFILE, reply);
            }
            _ => {
                let reply = client.create(parent, &name, REG | 0o644, flags);
                self.created(op::CREATE, reply);
            }
        }
    }

    fn step_that_opens(&mut self) {
        let node = self.node();
        if self.rng.below(3) == 0 {
            let node = self.parent();
            let reply = self.client.opendir(node);
            self.note(op::OPENDIR, &reply);
            self.dirs.extend(reply.map(|opened| (node, opened.fh)));
        } else {
            let flags = [libc::O_RDONLY, libc::O_RDWR][self.rng.below(2)];
            let reply = self.client.open(node, flags);
            self.note(op::OPEN, &reply);
            self.files.extend(reply.map(|opened| (node, opened.fh)));
        }
    }

    fn step_on_data(&mut self) {
        let at = self.file();
        let other = self.file();
        let size = self.rng.below(20_000);
        let client = &mut self.client;
        match self.rng.below(6) {
            0..=1 => {
                let reply = client.write(at, &vec![7; size]);
                self.note(op::WRITE, &reply);
            }
            2 => {
                let reply = client.fallocate(at, u64_of(size) + 1, 0);
                self.note(op::FALLOCATE, &reply);
            }
            3 => {
                let changes = SetAttr {
                    valid: 8,
                    size: u64_of(size),
                    ..SetAttr::default()
                };
                let reply = client.setattr(at.node, &changes);
                self.note(op::SETATTR, &reply);
            }
            4 => {
                let reply = client.copy_file_range(&CopyRange {
                    from: at,
                    to: other,
                    len: u64_of(size),
                    flags: 0,
                });
                self.note(op::COPY_FILE_RANGE, &reply);
            }
            _ => {
                let reply = client.setxattr(at.node, "user.one", &vec![7; size % 3000], 0);
                self.note(op::SETXATTR, &reply);
            }
        }
    }

    /// READDIRPLUS in a size that often cuts an entry off.
    fn step_that_lists(&mut self) {
        let Some((node, fh)) = self.dirs.last().copied() else {
            return;
        };
        let at = At {
            node,
            fh,
            offset: 0,
        };
        let size = 200 + u32_of(self.rng.below(3000));
        let reply = self.client.readdir_once(at, size, true);
        self.note(op::READDIRPLUS, &reply);
        for entry in reply
            .into_iter()
            .flatten()
            .filter_map(|dirent| dirent.entry)
        {
            if entry.node != 0 {
                *self.lookups.entry(entry.node).or_default() += 1;
            }
        }
    }

    fn step_that_removes(&mut self) {
        let parent = self.parent();
        let name = format!("n{}", self.rng.below(60));
        let other = format!("n{}", self.rng.below(60));
        let dir = format!("dir{}", self.rng.below(4));
        match self.rng.below(20) {
            0..=8 => drop(self.client.unlink(parent, &name)),
            9 => drop(self.client.rmdir(ROOT, &dir)),
            13..=16 => drop(self.client.rmdir(parent, &name)),
            10 => drop(self.client.rename((parent, &name), (ROOT, &other))),
            11..=12 => self.forget_one(),
            _ => self.release_one(),
        }
    }

    /// In two parts, and the node lives exactly as long as one is left.
    fn forget_one(&mut self) {
        let index = self.rng.below(self.lookups.len().max(1));
        let Some(node) = self.lookups.keys().nth(index).copied() else {
            return;
        };
        // A file that is open stays with its handle, whatever the guest forgets.
        let is_open = self
            .files
            .iter()
            .chain(&self.dirs)
            .any(|open| open.0 == node);
        if node == ROOT || is_open {
            self.release_one();
            return;
        }
        let count = self.lookups.remove(&node).expect("it is a key of the map");
        if count > 1 {
            self.client.forget(node, count - 1);
            let alive = self.client.getattr(node, None);
            assert_ne!(alive.err(), Some(libc::EBADF), "node {node} died too early");
        }
        self.client.forget(node, 1);
        let gone = self.client.getattr(node, None).err();
        assert_eq!(
            gone,
            Some(libc::EBADF),
            "node {node} after {count} lookups and forgets"
        );
    }

    fn release_one(&mut self) {
        let from_files = !self.files.is_empty() && (self.dirs.is_empty() || self.rng.below(2) == 0);
        if from_files {
            let (node, fh) = self.files.swap_remove(self.rng.below(self.files.len()));
            self.client
                .release(node, fh)
                .expect("RELEASE of an open file");
        } else if !self.dirs.is_empty() {
            let (node, fh) = self.dirs.swap_remove(self.rng.below(self.dirs.len()));
            self.client
                .releasedir(node, fh)
                .expect("RELEASEDIR of an open directory");
        }
    }

    /// Gives back everything.
    fn settle(&mut self) {
        while !self.files.is_empty() || !self.dirs.is_empty() {
            self.release_one();
        }
        // The root has a lookup for ever; what the guest gives back are others.
        if let Some(count) = self.lookups.remove(&ROOT) {
            self.client.forget(ROOT, count);
        }
        while !self.lookups.is_empty() {
            self.forget_one();
        }
    }

    fn run(&mut self, fault: Fault, steps: usize) {
        let pid = self.client.vm.daemon.pid();
        for number in 0..steps {
            match fault {
                Fault::Descriptors if number.is_multiple_of(10) => {
                    let open = u64_of(self.client.vm.daemon.fd_count());
                    sys::limit_descriptors(pid, open + u64_of(self.rng.below(3)));
                }
                Fault::FileSize if number == 0 => sys::limit_file_size(pid, 8192),
                Fault::None | Fault::Inherited | Fault::Descriptors | Fault::FileSize => (),
            }
            self.step();
        }
    }

    /// How often these opcodes ended with one of these errors, which must be at least once each.
    fn assert_failed(&self, opcodes: &[u32], errnos: &[i32]) {
        for opcode in opcodes {
            let count: usize = errnos
                .iter()
                .filter_map(|errno| self.ends.get(&(*opcode, *errno)))
                .sum();
            assert!(
                count > 0,
                "opcode {opcode} never failed with {errnos:?}: {:?}",
                self.ends
            );
        }
    }
}

/// Runs a daemon into `fault` and gives the guest back when all is balanced.
fn balance(share: &Share, setup: &Setup, fault: Fault, seed: u64) -> Guest {
    let client = Client::mount(&setup.clone().args(&["--xattr"]), share);
    let mut guest = Guest::new(client, seed);
    guest.run(Fault::None, WARM_UP);
    guest.settle();
    let fds = guest.client.vm.daemon.fd_count();
    let rss_kib = guest.client.vm.daemon.rss_kib();
    let oracle = guest.client.oracle();
    guest.ends.clear();

    guest.run(fault, STEPS);
    let made: usize = CREATING
        .iter()
        .filter_map(|opcode| guest.ends.get(&(*opcode, 0)))
        .sum();
    assert!(
        made > STEPS / 50,
        "only {made} operations made something: {:?}",
        guest.ends
    );

    sys::limit_descriptors(guest.client.vm.daemon.pid(), u64::MAX);
    guest.settle();
    guest
        .client
        .assert_sound(&oracle, "after all was given back");
    assert_eq!(guest.client.vm.daemon.fd_count(), fds);
    let now_kib = guest.client.vm.daemon.rss_kib();
    assert!(
        now_kib <= rss_kib + RSS_GROWTH_MAX_KIB,
        "resident memory went from {rss_kib} to {now_kib} KiB"
    );
    guest
}

#[test]
fn descriptors_that_run_out_leave_a_balance() {
    let share = Share::new();
    // With file handles nodes give their descriptors, and hardly anything fails.
    let setup = Setup::default().args(&["--inode-file-handles=never"]);
    let guest = balance(&share, &setup, Fault::Descriptors, 1);
    let not_new = [op::LINK];
    let opcodes: Vec<u32> = CREATING
        .into_iter()
        .filter(|opcode| !not_new.contains(opcode))
        .collect();
    guest.assert_failed(&opcodes, &[libc::EMFILE, libc::ENFILE]);
}

#[test]
fn descriptors_that_run_out_leave_a_balance_of_file_handles() {
    let share = Share::new();
    let guest = balance(&share, &Setup::default(), Fault::Descriptors, 1);
    guest.assert_failed(&[op::OPEN], &[libc::EMFILE, libc::ENFILE]);
}

#[test]
fn file_size_limit_leaves_a_balance() {
    let share = Share::new();
    let guest = balance(&share, &Setup::default(), Fault::FileSize, 2);
    guest.assert_failed(
        &[op::WRITE, op::FALLOCATE, op::SETATTR, op::COPY_FILE_RANGE],
        &[libc::EFBIG],
    );
}

#[test]
fn full_file_system_leaves_a_balance() {
    const TEST: &str = "full_file_system_leaves_a_balance";
    if !is_root_or_skip(TEST) {
        return;
    }
    let share = Share::new();
    // In a mount namespace of the daemon's own: gone with it, whatever becomes of this test.
    let mount = "mount -t tmpfs -o size=256k,nr_inodes=40 tmpfs \"$0\" && exec \"$@\"";
    let path = share.path();
    let path = path.to_str().expect("temporary paths are text");
    let wrapper = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        mount,
        path,
    ];
    let possible = std::process::Command::new(wrapper[0])
        .args(&wrapper[1..])
        .arg("true")
        .status();
    if !possible.is_ok_and(|status| status.success()) {
        eprintln!("skipped {TEST}: no tmpfs can be mounted in a namespace here");
        return;
    }
    let guest = balance(
        &share,
        &Setup::default().through(&wrapper),
        Fault::Inherited,
        3,
    );
    let opcodes = [
        op::CREATE,
        op::TMPFILE,
        op::MKNOD,
        op::MKDIR,
        op::SYMLINK,
        op::LINK,
        op::WRITE,
        op::FALLOCATE,
    ];
    guest.assert_failed(&opcodes, &[libc::ENOSPC]);
    assert_eq!(
        fs::read_dir(share.path())
            .expect("the share is there")
            .count(),
        0,
        "made below the tmpfs"
    );
}

#[test]
fn missing_capabilities_leave_a_balance() {
    const TEST: &str = "missing_capabilities_leave_a_balance";
    if !is_root_or_skip(TEST) {
        return;
    }
    let share = Share::new();
    let without = "--bounding-set=-chown,-dac_override,-dac_read_search,-fowner,-fsetid,-setuid,-setgid,-mknod";
    let setup = Setup::default().through(&["setpriv", without]);
    let guest = balance(&share, &setup, Fault::Inherited, 4);
    let as_others = [op::CREATE, op::TMPFILE, op::MKNOD, op::MKDIR, op::SYMLINK];
    guest.assert_failed(&as_others, &[libc::EPERM]);
}
