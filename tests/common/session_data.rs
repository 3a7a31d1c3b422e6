//! What: the operations of a [`Session`] on open files and directories.
//!
//! In: arguments. Out: decoded replies, or the positive errno.

use super::request::{Bytes, Dirent, Fields, OUT_HEADER, Opened, op, parse_dirents};
use super::ring::{Descriptor, WRITE};
use super::session::{Reply, Session};
use super::{u32_of, u64_of, usize_of};

/// Where READ and WRITE act.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) node: u64,
    pub(crate) fh: u64,
    pub(crate) offset: u64,
}

/// Both ends of a copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CopyRange {
    pub(crate) from: At,
    pub(crate) to: At,
    pub(crate) len: u64,
    pub(crate) flags: u64,
}

impl CopyRange {
    pub(crate) fn body(&self) -> Vec<u8> {
        Bytes::new()
            .u64(self.from.fh)
            .u64(self.from.offset)
            .u64(self.to.node)
            .u64(self.to.fh)
            .u64(self.to.offset)
            .u64(self.len)
            .u64(self.flags)
            .done()
    }
}

pub(crate) fn read_body(at: At, size: u32, flags: i32) -> Vec<u8> {
    Bytes::new()
        .u64(at.fh)
        .u64(at.offset)
        .u32(size)
        .u32(0)
        .u64(0)
        .i32(flags)
        .u32(0)
        .done()
}

pub(crate) fn write_body(at: At, data: &[u8], write_flags: u32, flags: i32) -> Vec<u8> {
    Bytes::new()
        .u64(at.fh)
        .u64(at.offset)
        .u32(u32_of(data.len()))
        .u32(write_flags)
        .u64(0)
        .i32(flags)
        .u32(0)
        .raw(data)
        .done()
}

impl Session {
    pub(crate) fn open(&mut self, node: u64, flags: i32) -> Reply<Opened> {
        self.open_with(node, flags, 0)
    }

    /// OPEN with `open_flags` of the request (`FUSE_OPEN_KILL_SUIDGID`).
    pub(crate) fn open_with(&mut self, node: u64, flags: i32, open_flags: u32) -> Reply<Opened> {
        let body = Bytes::new().i32(flags).u32(open_flags);
        self.opened(op::OPEN, node, &body.done())
    }

    pub(crate) fn opendir(&mut self, node: u64) -> Reply<Opened> {
        let body = Bytes::new().i32(libc::O_DIRECTORY).u32(0);
        self.opened(op::OPENDIR, node, &body.done())
    }

    fn opened(&mut self, opcode: u32, node: u64, body: &[u8]) -> Reply<Opened> {
        let reply = self.call(opcode, node, body, 16)?;
        let mut fields = Fields::new(&reply);
        let opened = Opened::parse(&mut fields);
        fields.end();
        Ok(opened)
    }

    pub(crate) fn read(&mut self, at: At, size: u32) -> Reply<Vec<u8>> {
        let body = read_body(at, size, libc::O_RDONLY);
        let data = self.call(op::READ, at.node, &body, usize_of(size))?;
        assert!(
            data.len() <= usize_of(size),
            "READ gave more than asked for"
        );
        Ok(data)
    }

    pub(crate) fn write(&mut self, at: At, data: &[u8]) -> Reply<usize> {
        self.write_with(at, data, 0, libc::O_WRONLY)
    }

    /// WRITE with `write_flags` (`FUSE_WRITE_*`) and the guest's open flags.
    pub(crate) fn write_with(
        &mut self,
        at: At,
        data: &[u8],
        write_flags: u32,
        flags: i32,
    ) -> Reply<usize> {
        let body = write_body(at, data, write_flags, flags);
        let reply = self.call(op::WRITE, at.node, &body, 8)?;
        Ok(written(&reply))
    }

    /// Writes all of `data` in one request; the daemon must not write less.
    pub(crate) fn write_all(&mut self, at: At, data: &[u8]) {
        let count = self.write(at, data);
        assert_eq!(count, Ok(data.len()), "bytes written");
    }

    fn release_body(fh: u64) -> Vec<u8> {
        Bytes::new().u64(fh).u32(0).u32(0).u64(0).done()
    }

    pub(crate) fn release(&mut self, node: u64, fh: u64) -> Reply<()> {
        self.plain(op::RELEASE, node, &Self::release_body(fh))
    }

    pub(crate) fn releasedir(&mut self, node: u64, fh: u64) -> Reply<()> {
        self.plain(op::RELEASEDIR, node, &Self::release_body(fh))
    }

    pub(crate) fn flush(&mut self, node: u64, fh: u64) -> Reply<()> {
        let body = Bytes::new().u64(fh).u32(0).u32(0).u64(0).done();
        self.plain(op::FLUSH, node, &body)
    }

    fn sync_body(fh: u64, data_only: bool) -> Vec<u8> {
        Bytes::new().u64(fh).u32(u32::from(data_only)).u32(0).done()
    }

    pub(crate) fn fsync(&mut self, node: u64, fh: u64) -> Reply<()> {
        self.plain(op::FSYNC, node, &Self::sync_body(fh, false))
    }

    pub(crate) fn fdatasync(&mut self, node: u64, fh: u64) -> Reply<()> {
        self.plain(op::FSYNC, node, &Self::sync_body(fh, true))
    }

    pub(crate) fn fsyncdir(&mut self, node: u64, fh: u64) -> Reply<()> {
        self.plain(op::FSYNCDIR, node, &Self::sync_body(fh, false))
    }

    pub(crate) fn lseek(&mut self, at: At, whence: i32) -> Reply<u64> {
        let body = Bytes::new().u64(at.fh).u64(at.offset).i32(whence).u32(0);
        let reply = self.call(op::LSEEK, at.node, &body.done(), 8)?;
        Ok(one_u64(&reply))
    }

    pub(crate) fn fallocate(&mut self, at: At, len: u64, mode: i32) -> Reply<()> {
        let body = Bytes::new()
            .u64(at.fh)
            .u64(at.offset)
            .u64(len)
            .i32(mode)
            .u32(0);
        self.plain(op::FALLOCATE, at.node, &body.done())
    }

    pub(crate) fn copy_file_range(&mut self, copy: &CopyRange) -> Reply<usize> {
        let reply = self.call(op::COPY_FILE_RANGE, copy.from.node, &copy.body(), 8)?;
        Ok(written(&reply))
    }

    pub(crate) fn copy_file_range_64(&mut self, copy: &CopyRange) -> Reply<u64> {
        let reply = self.call(op::COPY_FILE_RANGE_64, copy.from.node, &copy.body(), 8)?;
        Ok(one_u64(&reply))
    }

    /// IOCTL with the argument `input` and room for `room` bytes of answer.
    pub(crate) fn ioctl(
        &mut self,
        at: At,
        command: u32,
        input: &[u8],
        room: usize,
    ) -> Reply<Vec<u8>> {
        let body = Bytes::new()
            .u64(at.fh)
            .u32(0)
            .u32(command)
            .u64(0)
            .u32(u32_of(input.len()))
            .u32(u32_of(room))
            .raw(input);
        let reply = self.call(op::IOCTL, at.node, &body.done(), 16 + room)?;
        let mut fields = Fields::new(&reply);
        // The result of the command, flags, and two counts that only CUSE has.
        fields.zeros(16);
        Ok(fields.take(reply.len() - 16).to_vec())
    }

    /// One READDIR or READDIRPLUS.
    pub(crate) fn readdir_once(&mut self, at: At, size: u32, plus: bool) -> Reply<Vec<Dirent>> {
        let opcode = if plus { op::READDIRPLUS } else { op::READDIR };
        let body = read_body(at, size, 0);
        let reply = self.call(opcode, at.node, &body, usize_of(size))?;
        Ok(parse_dirents(&reply, plus))
    }

    /// A whole directory in replies of `size` bytes; gives the lookups of READDIRPLUS back.
    pub(crate) fn list(&mut self, node: u64, size: u32, plus: bool) -> Vec<Dirent> {
        let opened = self
            .opendir(node)
            .unwrap_or_else(|errno| panic!("OPENDIR: errno {errno}"));
        let mut all: Vec<Dirent> = Vec::new();
        loop {
            let at = At {
                node,
                fh: opened.fh,
                offset: all.last().map_or(0, |dirent| dirent.offset),
            };
            let part = self
                .readdir_once(at, size, plus)
                .unwrap_or_else(|errno| panic!("READDIR: errno {errno}"));
            if part.is_empty() {
                break;
            }
            all.extend(part);
        }
        for entry in all.iter().filter_map(|dirent| dirent.entry) {
            if entry.node != 0 {
                self.forget(entry.node, 1);
            }
        }
        self.releasedir(node, opened.fh)
            .unwrap_or_else(|errno| panic!("RELEASEDIR: errno {errno}"));
        all
    }

    /// Makes a file of `data` and leaves it open for reading and writing.
    pub(crate) fn make_file(&mut self, parent: u64, name: &str, data: &[u8]) -> (u64, u64) {
        let (entry, opened) = self
            .create(parent, name, libc::S_IFREG | 0o644, libc::O_RDWR)
            .unwrap_or_else(|errno| panic!("CREATE {name}: errno {errno}"));
        let at = At {
            node: entry.node,
            fh: opened.fh,
            offset: 0,
        };
        if !data.is_empty() {
            self.write_all(at, data);
        }
        (entry.node, opened.fh)
    }

    /// Puts a READ in line and kicks, without waiting.
    pub(crate) fn start_read(&mut self, at: At, size: u32) -> u16 {
        let body = read_body(at, size, 0);
        let (message, _) = self.message(op::READ, at.node, &body);
        self.queue.submit(&message, room(usize_of(size)))
    }

    /// A READ whose reply goes to `gpa`, an address of the test's choice.
    pub(crate) fn read_into(&mut self, at: At, gpa: u64, size: u32) -> u16 {
        let body = read_body(at, size, 0);
        let (message, _) = self.message(op::READ, at.node, &body);
        let request = self.queue.scratch(message.len());
        self.queue.memory.write(request, &message);
        let segments = [
            Descriptor {
                addr: request,
                len: u32_of(message.len()),
                flags: 0,
                next: 0,
            },
            Descriptor {
                addr: gpa,
                len: u32_of(room(usize_of(size))),
                flags: WRITE,
                next: 0,
            },
        ];
        let head = self.queue.add_raw(&segments);
        self.queue.publish();
        head
    }

    /// The whole file behind a handle, for files of at most 1 MiB.
    pub(crate) fn read_all(&mut self, node: u64, fh: u64) -> Vec<u8> {
        let at = At {
            node,
            fh,
            offset: 0,
        };
        self.read(at, 1 << 20)
            .unwrap_or_else(|errno| panic!("READ: errno {errno}"))
    }
}

/// `fuse_write_out`.
pub(crate) fn written(reply: &[u8]) -> usize {
    let mut fields = Fields::new(reply);
    let count = usize_of(fields.u32());
    fields.zeros(4);
    fields.end();
    count
}

fn one_u64(reply: &[u8]) -> u64 {
    let mut fields = Fields::new(reply);
    let value = fields.u64();
    fields.end();
    value
}

/// Room for a reply with `payload` bytes.
pub(crate) fn room(payload: usize) -> usize {
    debug_assert!(u64_of(payload) < 1 << 32, "replies are shorter than 4 GiB");
    OUT_HEADER + payload
}
