//! What: FUSE operations as a guest's kernel would send them, typed, over one queue.
//!
//! In: arguments. Out: decoded replies, or the positive errno.
//!
//! Invariants (a violation panics): every reply carries the request's unique number;
//! `out.len == used.len`; an error is between -511 and -1 and its reply exactly 16 bytes; the
//! replies of fixed length have it. Data operations are in `session_data`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::daemon::DaemonLog;
use super::queue::{Completion, Queue};
use super::request::{
    Attr, AttrOut, Bytes, ENTRY_OUT, Entry, Fields, Header, InitOut, OUT_HEADER, Opened, ROOT,
    SetAttr, Statfs, Statx, init, op, out_header,
};

/// What the daemon says: a value or a positive errno.
pub(crate) type Reply<T> = Result<T, i32>;

/// Everything that a Linux 6.18 guest can offer on virtiofs: all bits but FILE_OPS,
/// MAP_ALIGNMENT and HAS_INODE_DAX (no DAX window), the unused bit 31, and OVER_IO_URING.
pub(crate) const LINUX_OFFERS: u64 =
    ((1 << 43) - 1) & !(1 << 2 | 1 << 26 | 1 << 31 | 1 << 33 | init::OVER_IO_URING);

/// How a guest introduces itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Init {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) max_readahead: u32,
    pub(crate) flags: u64,
}

impl Default for Init {
    fn default() -> Self {
        Init {
            major: 7,
            minor: 45,
            max_readahead: 131_072,
            flags: LINUX_OFFERS,
        }
    }
}

impl Init {
    pub(crate) fn body(&self) -> Vec<u8> {
        let half = |shift: u32| {
            u32::try_from(self.flags >> shift & 0xffff_ffff).expect("32 bits are left")
        };
        Bytes::new()
            .u32(self.major)
            .u32(self.minor)
            .u32(self.max_readahead)
            .u32(half(0))
            .u32(half(32))
            .raw(&[0; 44])
            .done()
    }
}

/// One queue on which a guest's kernel works, one request at a time.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) queue: Queue,
    /// Where FORGET goes; the request queue when there is none.
    pub(crate) hiprio: Option<Arc<Mutex<Queue>>>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Appended to every creating request.
    pub(crate) extension: Vec<u8>,
    pub(crate) umask: u32,
    /// What INIT settled.
    pub(crate) flags: u64,
    minor: u32,
    unique: u64,
    log: Arc<DaemonLog>,
}

impl Session {
    pub(crate) fn new(
        queue: Queue,
        hiprio: Option<Arc<Mutex<Queue>>>,
        log: Arc<DaemonLog>,
    ) -> Self {
        let unique = 1000 * (1 + super::u64_of(queue.index));
        Session {
            queue,
            hiprio,
            uid: 0,
            gid: 0,
            extension: Vec::new(),
            umask: 0o022,
            flags: 0,
            minor: Init::default().minor,
            unique,
            log,
        }
    }

    /// Two apart, as Linux does (the lowest bit marks an INTERRUPT).
    pub(crate) fn next_unique(&mut self) -> u64 {
        self.unique += 2;
        self.unique
    }

    fn header(&mut self, opcode: u32, node: u64, extension: usize) -> Header {
        Header {
            opcode,
            unique: self.next_unique(),
            node,
            uid: self.uid,
            gid: self.gid,
            extension_words: u16::try_from(extension / 8).expect("extensions in tests are short"),
        }
    }

    /// The message of a request, ready for a queue, and its unique number.
    pub(crate) fn message(&mut self, opcode: u32, node: u64, body: &[u8]) -> (Vec<u8>, u64) {
        let header = self.header(opcode, node, 0);
        (header.message(body), header.unique)
    }

    /// Sends a message as it is.
    pub(crate) fn send_raw(&mut self, message: &[u8], room: usize) -> Completion {
        self.queue.round_trip(message, room)
    }

    /// A request with `payload` bytes of room for what follows the reply header.
    pub(crate) fn call(
        &mut self,
        opcode: u32,
        node: u64,
        body: &[u8],
        payload: usize,
    ) -> Reply<Vec<u8>> {
        let (message, unique) = self.message(opcode, node, body);
        let completion = self.queue.round_trip(&message, OUT_HEADER + payload);
        self.decode(opcode, unique, &completion)
    }

    /// A creating request: with the extensions that were agreed on.
    fn call_creating(
        &mut self,
        opcode: u32,
        node: u64,
        body: &[u8],
        payload: usize,
    ) -> Reply<Vec<u8>> {
        let extension = self.extension.clone();
        // Before FUSE 7.38 the header has no length of them.
        let counted = if self.minor < 38 { 0 } else { extension.len() };
        let header = self.header(opcode, node, counted);
        let message = header.message(&[body, &extension].concat());
        let completion = self.queue.round_trip(&message, OUT_HEADER + payload);
        self.decode(opcode, header.unique, &completion)
    }

    /// Checks a completion strictly and takes the reply header off.
    pub(crate) fn decode(
        &self,
        opcode: u32,
        unique: u64,
        completion: &Completion,
    ) -> Reply<Vec<u8>> {
        check_reply(&self.log, opcode, unique, completion)
    }

    /// A request whose reply has exactly `len` bytes after the header.
    fn fixed(&mut self, opcode: u32, node: u64, body: &[u8], len: usize) -> Reply<Vec<u8>> {
        let reply = self.call(opcode, node, body, len)?;
        assert_eq!(reply.len(), len, "length of the reply to opcode {opcode}");
        Ok(reply)
    }

    /// A request whose reply is the header alone.
    pub(crate) fn plain(&mut self, opcode: u32, node: u64, body: &[u8]) -> Reply<()> {
        self.fixed(opcode, node, body, 0).map(drop)
    }

    fn entry(&mut self, opcode: u32, node: u64, body: &[u8]) -> Reply<Entry> {
        let reply = self.fixed(opcode, node, body, ENTRY_OUT)?;
        Ok(Entry::parse(&mut Fields::new(&reply)))
    }

    fn new_entry(&mut self, opcode: u32, node: u64, body: &[u8]) -> Reply<Entry> {
        let reply = self.call_creating(opcode, node, body, ENTRY_OUT)?;
        assert_eq!(
            reply.len(),
            ENTRY_OUT,
            "length of the reply to opcode {opcode}"
        );
        Ok(Entry::parse(&mut Fields::new(&reply)))
    }

    /// INIT as a Linux guest sends it.
    pub(crate) fn init(&mut self) -> InitOut {
        self.init_with(&Init::default())
            .unwrap_or_else(|errno| panic!("INIT: errno {errno}\n{}", self.log.describe()))
    }

    pub(crate) fn init_with(&mut self, init: &Init) -> Reply<InitOut> {
        let reply = self.fixed(op::INIT, 0, &init.body(), 64)?;
        let out = InitOut::parse(&reply);
        self.flags = out.flags;
        self.minor = init.minor;
        Ok(out)
    }

    /// Whether the guest leaves it to the daemon to clear set-id bits; otherwise says that
    /// `test` has nothing to test.
    pub(crate) fn kills_set_ids_or_skip(&self, test: &str) -> bool {
        let negotiated = self.flags & init::HANDLE_KILLPRIV_V2 != 0;
        if !negotiated {
            eprintln!("skipped {test}: the daemon leaves set-id bits to the guest");
        }
        negotiated
    }

    pub(crate) fn destroy(&mut self) -> Reply<()> {
        self.plain(op::DESTROY, 0, &[])
    }

    pub(crate) fn lookup(&mut self, parent: u64, name: &str) -> Reply<Entry> {
        self.lookup_bytes(parent, name.as_bytes())
    }

    pub(crate) fn lookup_bytes(&mut self, parent: u64, name: &[u8]) -> Reply<Entry> {
        self.entry(op::LOOKUP, parent, &Bytes::new().name(name).done())
    }

    /// Node of `name` in the root; the name must exist.
    pub(crate) fn node(&mut self, name: &str) -> u64 {
        self.lookup(ROOT, name)
            .unwrap_or_else(|errno| panic!("LOOKUP {name}: errno {errno}"))
            .node
    }

    /// Gives lookups back: no reply, but a used entry of length 0.
    pub(crate) fn forget(&mut self, node: u64, count: u64) {
        let body = Bytes::new().u64(count).done();
        let (message, _) = self.message(op::FORGET, node, &body);
        self.send_without_reply(&message);
    }

    pub(crate) fn batch_forget(&mut self, forgets: &[(u64, u64)]) {
        let mut body = Bytes::new().u32(super::u32_of(forgets.len())).u32(0);
        for (node, count) in forgets {
            body = body.u64(*node).u64(*count);
        }
        let (message, _) = self.message(op::BATCH_FORGET, 0, &body.done());
        self.send_without_reply(&message);
    }

    /// Sends what is never answered, by the hiprio queue if there is one.
    pub(crate) fn send_without_reply(&mut self, message: &[u8]) {
        let completion = match &self.hiprio {
            Some(hiprio) => hiprio
                .lock()
                .expect("no panic on the hiprio queue")
                .round_trip(message, 0),
            None => self.queue.round_trip(message, 0),
        };
        assert_eq!(
            completion.used_len, 0,
            "used.len of a request without a reply"
        );
    }

    pub(crate) fn getattr(&mut self, node: u64, fh: Option<u64>) -> Reply<AttrOut> {
        let body = Bytes::new()
            .u32(u32::from(fh.is_some()))
            .u32(0)
            .u64(fh.unwrap_or(0))
            .done();
        let reply = self.fixed(op::GETATTR, node, &body, 104)?;
        Ok(parse_attr_out(&reply))
    }

    pub(crate) fn setattr(&mut self, node: u64, changes: &SetAttr) -> Reply<AttrOut> {
        let reply = self.fixed(op::SETATTR, node, &changes.body(), 104)?;
        Ok(parse_attr_out(&reply))
    }

    pub(crate) fn statx(&mut self, node: u64, mask: u32) -> Reply<Statx> {
        let body = Bytes::new().u32(0).u32(0).u64(0).u32(0).u32(mask).done();
        let reply = self.fixed(op::STATX, node, &body, 288)?;
        Ok(Statx::parse(&reply))
    }

    pub(crate) fn statfs(&mut self, node: u64) -> Reply<Statfs> {
        let reply = self.fixed(op::STATFS, node, &[], 80)?;
        Ok(Statfs::parse(&reply))
    }

    pub(crate) fn access(&mut self, node: u64, mask: u32) -> Reply<()> {
        self.plain(op::ACCESS, node, &Bytes::new().u32(mask).u32(0).done())
    }

    pub(crate) fn readlink(&mut self, node: u64, room: usize) -> Reply<Vec<u8>> {
        self.call(op::READLINK, node, &[], room)
    }

    pub(crate) fn symlink(&mut self, parent: u64, name: &str, target: &str) -> Reply<Entry> {
        let body = Bytes::new().name(name.as_bytes()).name(target.as_bytes());
        self.new_entry(op::SYMLINK, parent, &body.done())
    }

    pub(crate) fn mknod(&mut self, parent: u64, name: &str, mode: u32, rdev: u32) -> Reply<Entry> {
        let body = Bytes::new().u32(mode).u32(rdev).u32(self.umask).u32(0);
        self.new_entry(op::MKNOD, parent, &body.name(name.as_bytes()).done())
    }

    pub(crate) fn mkdir(&mut self, parent: u64, name: &str, mode: u32) -> Reply<Entry> {
        let body = Bytes::new().u32(mode).u32(self.umask).name(name.as_bytes());
        self.new_entry(op::MKDIR, parent, &body.done())
    }

    pub(crate) fn unlink(&mut self, parent: u64, name: &str) -> Reply<()> {
        self.plain(
            op::UNLINK,
            parent,
            &Bytes::new().name(name.as_bytes()).done(),
        )
    }

    pub(crate) fn rmdir(&mut self, parent: u64, name: &str) -> Reply<()> {
        self.plain(
            op::RMDIR,
            parent,
            &Bytes::new().name(name.as_bytes()).done(),
        )
    }

    pub(crate) fn rename(&mut self, from: (u64, &str), to: (u64, &str)) -> Reply<()> {
        let body = Bytes::new()
            .u64(to.0)
            .name(from.1.as_bytes())
            .name(to.1.as_bytes());
        self.plain(op::RENAME, from.0, &body.done())
    }

    pub(crate) fn rename2(&mut self, from: (u64, &str), to: (u64, &str), flags: u32) -> Reply<()> {
        let body = Bytes::new()
            .u64(to.0)
            .u32(flags)
            .u32(0)
            .name(from.1.as_bytes())
            .name(to.1.as_bytes());
        self.plain(op::RENAME2, from.0, &body.done())
    }

    pub(crate) fn link(&mut self, node: u64, parent: u64, name: &str) -> Reply<Entry> {
        let body = Bytes::new().u64(node).name(name.as_bytes());
        self.entry(op::LINK, parent, &body.done())
    }

    pub(crate) fn create(
        &mut self,
        parent: u64,
        name: &str,
        mode: u32,
        flags: i32,
    ) -> Reply<(Entry, Opened)> {
        self.create_like(op::CREATE, parent, name, (mode, flags))
    }

    pub(crate) fn tmpfile(&mut self, parent: u64, mode: u32, flags: i32) -> Reply<(Entry, Opened)> {
        self.create_like(op::TMPFILE, parent, "/", (mode, flags))
    }

    fn create_like(
        &mut self,
        opcode: u32,
        parent: u64,
        name: &str,
        (mode, flags): (u32, i32),
    ) -> Reply<(Entry, Opened)> {
        let body = Bytes::new()
            .i32(flags)
            .u32(mode)
            .u32(self.umask)
            .u32(0)
            .name(name.as_bytes());
        let reply = self.call_creating(opcode, parent, &body.done(), ENTRY_OUT + 16)?;
        assert_eq!(
            reply.len(),
            ENTRY_OUT + 16,
            "length of the reply to opcode {opcode}"
        );
        let mut fields = Fields::new(&reply);
        Ok((Entry::parse(&mut fields), Opened::parse(&mut fields)))
    }

    pub(crate) fn syncfs(&mut self, node: u64) -> Reply<()> {
        self.plain(op::SYNCFS, node, &[0; 8])
    }

    pub(crate) fn setxattr(
        &mut self,
        node: u64,
        name: &str,
        value: &[u8],
        flags: u32,
    ) -> Reply<()> {
        self.setxattr_with(node, name, value, (flags, 0))
    }

    /// SETXATTR with `flags` and `setxattr_flags` (`FUSE_SETXATTR_ACL_KILL_SGID`).
    pub(crate) fn setxattr_with(
        &mut self,
        node: u64,
        name: &str,
        value: &[u8],
        (flags, setxattr_flags): (u32, u32),
    ) -> Reply<()> {
        let mut body = Bytes::new().u32(super::u32_of(value.len())).u32(flags);
        if self.flags & init::SETXATTR_EXT != 0 {
            body = body.u32(setxattr_flags).u32(0);
        }
        let body = body.name(name.as_bytes()).raw(value);
        self.plain(op::SETXATTR, node, &body.done())
    }

    /// `Ok(Err(len))` is the answer to a size of 0.
    pub(crate) fn getxattr(&mut self, node: u64, name: &str, size: u32) -> Reply<Vec<u8>> {
        let body = Bytes::new().u32(size).u32(0).name(name.as_bytes()).done();
        self.xattr_bytes(op::GETXATTR, node, &body, size)
    }

    pub(crate) fn listxattr(&mut self, node: u64, size: u32) -> Reply<Vec<u8>> {
        let body = Bytes::new().u32(size).u32(0).done();
        self.xattr_bytes(op::LISTXATTR, node, &body, size)
    }

    fn xattr_bytes(&mut self, opcode: u32, node: u64, body: &[u8], size: u32) -> Reply<Vec<u8>> {
        let room = if size == 0 { 8 } else { super::usize_of(size) };
        self.call(opcode, node, body, room)
    }

    pub(crate) fn removexattr(&mut self, node: u64, name: &str) -> Reply<()> {
        self.plain(
            op::REMOVEXATTR,
            node,
            &Bytes::new().name(name.as_bytes()).done(),
        )
    }

    /// GETATTR of the root, which must work in every session within a second.
    pub(crate) fn canary(&mut self) -> Attr {
        let body = [0; 16];
        let (message, unique) = self.message(op::GETATTR, ROOT, &body);
        let head = self.queue.submit(&message, OUT_HEADER + 104);
        let completion = self.queue.next_within(Duration::from_secs(5));
        let completion = completion
            .unwrap_or_else(|| panic!("the canary got no answer\n{}", self.log.describe()));
        assert_eq!(completion.head, head, "the canary's chain");
        let reply = self.decode(op::GETATTR, unique, &completion);
        let reply = reply.unwrap_or_else(|errno| panic!("canary GETATTR: errno {errno}"));
        parse_attr_out(&reply).attr
    }
}

/// Length of an xattr as a query of size 0 answers it.
pub(crate) fn xattr_len(reply: &[u8]) -> u32 {
    let mut fields = Fields::new(reply);
    let len = fields.u32();
    fields.zeros(4);
    fields.end();
    len
}

fn parse_attr_out(reply: &[u8]) -> AttrOut {
    let mut fields = Fields::new(reply);
    let valid = (fields.u64(), fields.u32());
    fields.zeros(4);
    let attr = Attr::parse(&mut fields);
    fields.end();
    AttrOut { valid, attr }
}

/// What every reply must hold, whatever the request (protocol.md 2.4).
pub(crate) fn check_reply(
    log: &DaemonLog,
    opcode: u32,
    unique: u64,
    completion: &Completion,
) -> Reply<Vec<u8>> {
    let reply = &completion.reply;
    assert!(
        reply.len() >= OUT_HEADER,
        "opcode {opcode}: used.len {} has no room for a header\n{}",
        completion.used_len,
        log.describe()
    );
    let (len, error, answered) = out_header(reply);
    assert_eq!(
        len, completion.used_len,
        "opcode {opcode}: out.len and used.len"
    );
    assert_eq!(answered, unique, "opcode {opcode}: unique number");
    assert!(
        (-511..=0).contains(&error),
        "opcode {opcode}: error {error}"
    );
    if error == 0 {
        return Ok(reply[OUT_HEADER..].to_vec());
    }
    assert_eq!(len, OUT_HEADER, "opcode {opcode}: length of an error reply");
    Err(-error)
}
