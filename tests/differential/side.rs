//! What: a daemon with what a guest holds of it, and what a step on it came to.
//!
//! In: a [`Step`]. Out: an [`Outcome`] without anything in which two right daemons may differ:
//! node and handle numbers, inode numbers, the present time, time-outs, open flags.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use crate::common::client::Client;
use crate::common::request::{Attr, Bytes, Entry, Opened, ROOT, init, op};
use crate::common::session::Reply;
use crate::common::session_data::{At, CopyRange};
use crate::common::u64_of;
use crate::steps::Step;

/// Link targets; one is absolute and one leads out of the share, which must matter to nobody.
const TARGETS: [&str; 4] = ["a", "dir/b", "/etc/passwd", "../../outside/victim"];
const XATTRS: [&str; 4] = ["user.one", "user.two", "trusted.t", "strange"];
/// A handle or node that no daemon has given out.
const NOBODY: u64 = 0x7fff_ffff;
/// Earlier times were set by a step (in seconds), later ones by a clock.
const CLOCK_BEGINS: u64 = 1_000_000_000;

/// What a guest sees of an object, and what the two daemons must agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// The first place in the side's table that is the same node; `None` outside the table.
    same_as: Option<usize>,
    mode: u32,
    nlink: u32,
    owner: (u32, u32),
    rdev: u32,
    size: u64,
    /// Unless a clock has set it. The atime is left out: reading sets it, or not, as the host
    /// was mounted.
    mtime: Option<(u64, u32)>,
    flags: u32,
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Errno(i32),
    Seen(Look),
    Number(u64),
    Data { len: usize, hash: u64 },
    Names(Vec<(Vec<u8>, u32, Option<Look>)>),
}

/// A daemon and what its guest holds of it.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) client: Client,
    /// One lookup each, and whether it is a directory; the first is the root.
    nodes: Vec<(u64, bool)>,
    /// Nodes that were forgotten, if only once of several times.
    forgotten: Vec<u64>,
    /// Node and handle.
    files: Vec<(u64, u64)>,
    dirs: Vec<(u64, u64)>,
    /// Both sides offer READDIRPLUS.
    plus: bool,
}

/// What a file system says of data and holes depends on what it has written out so far, so only
/// other errors than "there is no more" are compared.
fn settled(whence: i32, found: Reply<u64>) -> Reply<u64> {
    match (whence, found) {
        (libc::SEEK_DATA | libc::SEEK_HOLE, Ok(_) | Err(libc::ENXIO)) => Ok(0),
        (_, found) => found,
    }
}

impl Side {
    pub(crate) fn new(client: Client) -> Self {
        Side {
            client,
            nodes: vec![(ROOT, true)],
            forgotten: Vec::new(),
            files: Vec::new(),
            dirs: Vec::new(),
            plus: false,
        }
    }

    pub(crate) fn offers_plus(&self) -> bool {
        self.client.flags & init::DO_READDIRPLUS != 0
    }

    pub(crate) fn use_plus(&mut self, plus: bool) {
        self.plus = plus;
    }

    /// The node that a step means; now and then one that is gone.
    fn node(&self, place: usize) -> u64 {
        match (place % 64, self.forgotten.last()) {
            (0, Some(gone)) => *gone,
            (1, _) => NOBODY,
            _ => self.nodes[place % self.nodes.len()].0,
        }
    }

    /// The directory that a step means; now and then something else.
    fn parent(&self, place: usize) -> u64 {
        if place.is_multiple_of(8) {
            return self.node(place / 8);
        }
        let dirs: Vec<u64> = self
            .nodes
            .iter()
            .filter(|node| node.1)
            .map(|node| node.0)
            .collect();
        dirs[place % dirs.len()]
    }

    fn handle(table: &[(u64, u64)], place: usize) -> (u64, u64) {
        if table.is_empty() || place.is_multiple_of(64) {
            return (ROOT, NOBODY);
        }
        table[place % table.len()]
    }

    fn file(&self, step: &Step, offset: u64) -> At {
        let (node, fh) = Self::handle(&self.files, step.first);
        At { node, fh, offset }
    }

    fn other_file(&self, step: &Step, offset: u64) -> At {
        let (node, fh) = Self::handle(&self.files, step.second);
        At { node, fh, offset }
    }

    fn look(&self, node: Option<u64>, attr: &Attr) -> Look {
        let is_dir = attr.mode & libc::S_IFMT == libc::S_IFDIR;
        Look {
            same_as: node.and_then(|node| self.nodes.iter().position(|known| known.0 == node)),
            mode: attr.mode,
            nlink: attr.nlink,
            owner: (attr.uid, attr.gid),
            rdev: attr.rdev,
            // How big a directory is, is its file system's own business.
            size: if is_dir { 0 } else { attr.size },
            mtime: (attr.mtime.0 < CLOCK_BEGINS).then_some(attr.mtime),
            flags: attr.flags,
        }
    }

    fn entry(&mut self, reply: Reply<Entry>) -> Outcome {
        match reply {
            // A name that the guest may remember as missing; of no node, and no lookup.
            Ok(entry) if entry.node == 0 => Outcome::Errno(libc::ENOENT),
            Ok(entry) => {
                let is_dir = entry.attr.mode & libc::S_IFMT == libc::S_IFDIR;
                self.nodes.push((entry.node, is_dir));
                Outcome::Seen(self.look(Some(entry.node), &entry.attr))
            }
            Err(errno) => Outcome::Errno(errno),
        }
    }

    fn created(&mut self, reply: Reply<(Entry, Opened)>) -> Outcome {
        if let Ok((entry, opened)) = &reply {
            self.files.push((entry.node, opened.fh));
        }
        self.entry(reply.map(|(entry, _)| entry))
    }

    /// Does the step and says what it came to.
    pub(crate) fn apply(&mut self, step: &Step) -> Outcome {
        self.client.session.uid = step.uid;
        self.client.session.gid = step.uid;
        match step.opcode {
            op::SYMLINK | op::MKNOD | op::MKDIR | op::LINK | op::CREATE | op::TMPFILE => {
                self.apply_creating(step)
            }
            op::LOOKUP..=op::RENAME
            | op::RENAME2
            | op::ACCESS
            | op::STATFS
            | op::STATX
            | op::BATCH_FORGET
            | op::SYNCFS => self.apply_to_names(step),
            op::SETXATTR..=op::REMOVEXATTR => self.apply_to_xattrs(step),
            op::OPENDIR | op::READDIR | op::READDIRPLUS | op::RELEASEDIR | op::FSYNCDIR => {
                self.apply_to_dirs(step)
            }
            _ => self.apply_to_files(step),
        }
    }

    fn apply_to_names(&mut self, step: &Step) -> Outcome {
        let node = self.node(step.first);
        let (parent, target) = (self.parent(step.first), self.parent(step.second));
        let client = &mut self.client;
        match step.opcode {
            op::LOOKUP => {
                let reply = client.lookup(parent, step.name);
                self.entry(reply)
            }
            op::FORGET | op::BATCH_FORGET => {
                if let Some(node) = self.take_node(step.first) {
                    if step.opcode == op::FORGET {
                        self.client.forget(node, 1);
                    } else {
                        self.client.batch_forget(&[(node, 1), (NOBODY, 1)]);
                    }
                }
                Outcome::Done
            }
            op::GETATTR => {
                let reply = client.getattr(node, None).map(|out| out.attr);
                self.seen(node, reply)
            }
            op::SETATTR => self.set_attr(step, node),
            op::READLINK => data(&client.readlink(node, 4096)),
            op::UNLINK => done(client.unlink(parent, step.name)),
            op::RMDIR => done(client.rmdir(parent, step.name)),
            op::RENAME => done(client.rename((parent, step.name), (target, step.other))),
            op::RENAME2 => {
                let flags = step.choose(&[0, 1, 2, 2, 3, 4, 8]);
                done(client.rename2((parent, step.name), (target, step.other), flags))
            }
            op::ACCESS => done(client.access(node, step.choose(&[0, 1, 2, 4, 7, 8]))),
            op::SYNCFS => done(client.syncfs(node)),
            op::STATFS => {
                number(client.statfs(node).map(|statfs| {
                    u64::from(statfs.block_size) << 32 | u64::from(statfs.name_len_max)
                }))
            }
            // The attributes proper are GETATTR's; here only those that are not.
            op::STATX => number(client.statx(node, 0x0fff).map(|out| {
                u64::from(out.mask) << 32 | u64::from(out.mode) << 16 | u64::from(out.nlink)
            })),
            opcode => panic!("opcode {opcode} works on no name"),
        }
    }

    fn apply_creating(&mut self, step: &Step) -> Outcome {
        let (parent, second) = (self.parent(step.first), self.node(step.second));
        let client = &mut self.client;
        let excl = step.choose(&[0, libc::O_EXCL, libc::O_TRUNC, libc::O_APPEND]);
        match step.opcode {
            op::SYMLINK => {
                let reply = client.symlink(parent, step.name, step.choose(&TARGETS));
                self.entry(reply)
            }
            op::MKNOD => {
                let kinds = [
                    libc::S_IFREG,
                    libc::S_IFIFO,
                    libc::S_IFSOCK,
                    libc::S_IFCHR,
                    0,
                ];
                let reply = client.mknod(parent, step.name, step.choose(&kinds) | 0o644, 0x0103);
                self.entry(reply)
            }
            op::MKDIR => {
                let mode = step.choose(&[0o755, 0o2775, 0o1777, 0o700]);
                let reply = client.mkdir(parent, step.name, mode);
                self.entry(reply)
            }
            op::LINK => {
                let reply = client.link(second, parent, step.name);
                self.entry(reply)
            }
            op::CREATE => {
                let mode = libc::S_IFREG | step.choose_other(&[0o644, 0o600, 0o4755, 0o444]);
                let reply = client.create(parent, step.name, mode, libc::O_RDWR | excl);
                self.created(reply)
            }
            op::TMPFILE => {
                let flags = libc::O_RDWR | (excl & libc::O_EXCL);
                let reply = client.tmpfile(parent, libc::S_IFREG | 0o600, flags);
                self.created(reply)
            }
            opcode => panic!("opcode {opcode} makes nothing"),
        }
    }

    /// A place other than the root's, taken out of the table.
    fn take_node(&mut self, place: usize) -> Option<u64> {
        let others = self.nodes.len() - 1;
        let node = (others > 0).then(|| self.nodes.swap_remove(1 + place % others).0)?;
        self.forgotten.push(node);
        Some(node)
    }

    fn seen(&self, node: u64, reply: Reply<Attr>) -> Outcome {
        match reply {
            Ok(attr) => Outcome::Seen(self.look(Some(node), &attr)),
            Err(errno) => Outcome::Errno(errno),
        }
    }

    fn set_attr(&mut self, step: &Step, node: u64) -> Outcome {
        let with_handle = step.second.is_multiple_of(3) && !self.files.is_empty();
        let (node, fh) = if with_handle {
            let (node, fh) = Self::handle(&self.files, step.second);
            (node, Some(fh))
        } else {
            (node, None)
        };
        let reply = self.client.setattr(node, &step.set_attr(fh));
        self.seen(node, reply.map(|out| out.attr))
    }

    fn apply_to_xattrs(&mut self, step: &Step) -> Outcome {
        let node = self.node(step.first);
        let name = step.choose(&XATTRS);
        let size = step.choose_other(&[0, 4, 64, 4096]);
        let value = step.data();
        let value = &value[..value.len().min(200)];
        match step.opcode {
            op::SETXATTR => {
                done(
                    self.client
                        .setxattr(node, name, value, step.choose_other(&[0, 0, 1, 2])),
                )
            }
            op::GETXATTR => data(&self.client.getxattr(node, name, size)),
            op::LISTXATTR => data(&self.client.listxattr(node, size)),
            _ => done(self.client.removexattr(node, name)),
        }
    }

    fn apply_to_dirs(&mut self, step: &Step) -> Outcome {
        let (node, fh) = Self::handle(&self.dirs, step.first);
        match step.opcode {
            op::OPENDIR => {
                let node = self.parent(step.first);
                let reply = self.client.opendir(node);
                self.dirs.extend(reply.map(|opened| (node, opened.fh)));
                done(reply.map(drop))
            }
            op::RELEASEDIR => {
                self.dirs.retain(|held| *held != (node, fh));
                done(self.client.releasedir(node, fh))
            }
            op::FSYNCDIR => done(self.client.fsyncdir(node, fh)),
            _ => self.list(
                step,
                At {
                    node,
                    fh,
                    offset: 0,
                },
            ),
        }
    }

    /// Names in the order of the file system, which is the same for both. In one reply: how far
    /// a smaller one goes would depend on the numbers in it.
    fn list(&mut self, step: &Step, at: At) -> Outcome {
        let plus = self.plus && step.opcode == op::READDIRPLUS;
        match self.client.readdir_once(at, 65_536, plus) {
            Ok(dirents) => {
                let mut names = Vec::new();
                for dirent in dirents {
                    let entry = dirent.entry.filter(|entry| entry.node != 0);
                    let look = entry.map(|entry| self.look(Some(entry.node), &entry.attr));
                    if let Some(entry) = entry {
                        self.client.forget(entry.node, 1);
                    }
                    names.push((dirent.name, dirent.kind, look));
                }
                names.sort_by(|left, right| left.0.cmp(&right.0));
                Outcome::Names(names)
            }
            Err(errno) => Outcome::Errno(errno),
        }
    }

    fn apply_to_files(&mut self, step: &Step) -> Outcome {
        let at = self.file(step, step.offset);
        let len = step.len;
        match step.opcode {
            op::OPEN => {
                let node = self.node(step.first);
                let access =
                    step.choose(&[libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR, libc::O_RDWR]);
                let extra = step.choose_other(&[
                    0,
                    0,
                    libc::O_TRUNC,
                    libc::O_APPEND,
                    libc::O_DIRECTORY,
                    libc::O_NOFOLLOW,
                ]);
                let reply = self.client.open(node, access | extra);
                self.files.extend(reply.map(|opened| (node, opened.fh)));
                done(reply.map(drop))
            }
            op::READ => data(
                &self
                    .client
                    .read(at, u32::try_from(len).expect("below SPAN")),
            ),
            op::WRITE => {
                let kill = step.choose_other(&[0, 0, 4]);
                let reply = self.client.write_with(at, &step.data(), kill, libc::O_RDWR);
                number(reply.map(u64_of))
            }
            op::RELEASE => {
                self.files.retain(|held| *held != (at.node, at.fh));
                done(self.client.release(at.node, at.fh))
            }
            op::FLUSH => done(self.client.flush(at.node, at.fh)),
            op::FSYNC if step.dice.is_multiple_of(2) => done(self.client.fdatasync(at.node, at.fh)),
            op::FSYNC => done(self.client.fsync(at.node, at.fh)),
            op::FALLOCATE => {
                // Plain, keep size, punch, zero, collapse, insert, and what does not exist.
                let mode = step.choose(&[0, 1, 3, 16, 17, 8, 32, 4096]);
                done(self.client.fallocate(at, len, mode))
            }
            op::LSEEK => {
                let whence = step.choose(&[0, 1, 2, 3, 4, 99]);
                number(settled(whence, self.client.lseek(at, whence)))
            }
            op::COPY_FILE_RANGE | op::COPY_FILE_RANGE_64 => {
                let copy = CopyRange {
                    from: at,
                    to: self.other_file(step, step.offset / 3),
                    len,
                    flags: step.choose(&[0, 0, 0, 1]),
                };
                if step.opcode == op::COPY_FILE_RANGE {
                    number(self.client.copy_file_range(&copy).map(u64_of))
                } else {
                    number(self.client.copy_file_range_64(&copy))
                }
            }
            // What is not built into both, or needs more than a body of zeros: the errno counts.
            opcode => {
                let body = Bytes::new().u64(at.fh).raw(&[0; 40]).done();
                data(&self.client.call(opcode, at.node, &body, 64))
            }
        }
    }

    /// Gives everything back.
    pub(crate) fn settle(&mut self) {
        for (node, fh) in std::mem::take(&mut self.files) {
            self.client
                .release(node, fh)
                .expect("RELEASE of an open file");
        }
        for (node, fh) in std::mem::take(&mut self.dirs) {
            self.client
                .releasedir(node, fh)
                .expect("RELEASEDIR of an open directory");
        }
        let forgets: Vec<_> = self.nodes.drain(1..).map(|(node, _)| (node, 1)).collect();
        self.client.batch_forget(&forgets);
    }
}

fn done(reply: Reply<()>) -> Outcome {
    match reply {
        Ok(()) => Outcome::Done,
        Err(errno) => Outcome::Errno(errno),
    }
}

fn number(reply: Reply<u64>) -> Outcome {
    match reply {
        Ok(number) => Outcome::Number(number),
        Err(errno) => Outcome::Errno(errno),
    }
}

fn data(reply: &Reply<Vec<u8>>) -> Outcome {
    match reply {
        Ok(bytes) => {
            let mut hasher = DefaultHasher::new();
            bytes.hash(&mut hasher);
            Outcome::Data {
                len: bytes.len(),
                hash: hasher.finish(),
            }
        }
        Err(errno) => Outcome::Errno(*errno),
    }
}
