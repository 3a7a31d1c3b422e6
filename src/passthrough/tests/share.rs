//! What: a share of its own for each test with a canary beside it, and a guest to drive it.

use std::ffi::CStr;
use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::fs::data::{DataSink, DataSource};
use crate::fs::filesystem::{
    CreateIntent, CreateRequest, FileSystem, FlushRequest, NewObject, OpenNode, ReadRequest,
    ReleaseRequest, Waiting, WriteRequest,
};
use crate::fs::types::{
    Caller, DirEntry, DirPlusSink, DirSink, Entry, FileName, HandleId, LockOwner, Lookup,
    Negotiated, NodeId, Packed, SecurityContexts,
};
use crate::ids::types::{GuestGid, GuestUid};
use crate::passthrough::PassthroughFs;
use crate::passthrough::settings::{CachePolicy, Settings};
use crate::sys::credentials::{effective_gid, effective_uid};
use crate::sys::errno::{Errno, Result};
use crate::wire::flags::{OpenFlags, SessionFlags};

pub(in crate::passthrough) const ROOT: NodeId = NodeId::ROOT;
const CANARY: &[u8] = b"do not touch";

/// A fresh directory to share, and a file beside it that must stay as it is.
#[derive(Debug)]
pub(in crate::passthrough) struct Share {
    base: PathBuf,
    path: PathBuf,
}

impl Share {
    pub(in crate::passthrough) fn new() -> Self {
        Self::in_directory(&std::env::temp_dir())
    }

    /// On another file system than usual.
    pub(super) fn in_directory(directory: &Path) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let unique = format!("virtiofsd-passthrough-{}-{number}", std::process::id());
        let base = directory.join(unique);
        let path = base.join("share");
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(base.join("canary"), CANARY).unwrap();
        let base = base.canonicalize().unwrap();
        let path = base.join("share");
        Share { base, path }
    }

    pub(in crate::passthrough) fn path(&self) -> &Path {
        &self.path
    }

    pub(in crate::passthrough) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(in crate::passthrough) fn write(&self, name: &str, contents: &[u8]) {
        fs::write(self.join(name), contents).unwrap();
    }

    fn open_descriptors(&self) -> usize {
        let base = self.base.as_os_str().as_bytes();
        fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|fd| fs::read_link(fd.ok()?.path()).ok())
            .filter(|target| target.as_os_str().as_bytes().starts_with(base))
            .count()
    }

    fn is_outside_intact(&self) -> bool {
        let mut names: Vec<_> = fs::read_dir(&self.base)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names == ["canary", "share"] && fs::read(self.base.join("canary")).unwrap() == CANARY
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.base);
    }
}

/// What a test leaves behind.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Leftovers {
    nodes: (usize, usize),
    handles: usize,
    descriptors: usize,
    is_outside_intact: bool,
}

/// What it must be in the end: the only descriptor is the root's, apart from that of its mount.
pub(super) const NOTHING_LEFT: Leftovers = Leftovers {
    nodes: (0, 0),
    handles: 0,
    descriptors: 1,
    is_outside_intact: true,
};

/// A guest with a session on a share of its own.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) fs: PassthroughFs,
    pub(super) share: Share,
}

impl Guest {
    pub(super) fn new() -> Self {
        Self::with(Settings::new(CachePolicy::Auto))
    }

    pub(super) fn with(settings: Settings) -> Self {
        Self::on(Share::new(), settings)
    }

    pub(super) fn on(share: Share, settings: Settings) -> Self {
        let fs = PassthroughFs::new(settings, share.path()).unwrap();
        let guest = Guest { fs, share };
        let wishes = guest.fs.session_wishes();
        guest.mount(wishes.wanted | wishes.required);
        guest
    }

    pub(super) fn mount(&self, flags: SessionFlags) {
        self.fs.start_session(&Negotiated {
            minor: 38,
            flags,
            max_write_bytes: 1 << 20,
        });
    }

    pub(super) fn leftovers(&self) -> Leftovers {
        Leftovers {
            nodes: self.fs.store.len(),
            handles: self.fs.handles.len(),
            descriptors: self
                .share
                .open_descriptors()
                .saturating_sub(self.fs.store.mounts_open()),
            is_outside_intact: self.share.is_outside_intact(),
        }
    }

    /// Looks a name up and keeps the lookup.
    pub(super) fn lookup(&self, parent: NodeId, name: &CStr) -> NodeId {
        keep(self.find(parent, file_name(name)).unwrap())
    }

    /// Looks a name up; one that is missing is `ENOENT`, whether or not that may be cached.
    pub(super) fn find(&self, parent: NodeId, name: FileName<'_>) -> Result<Entry<'_>> {
        match self.fs.lookup(parent, name)? {
            Lookup::Found(entry) => Ok(entry),
            Lookup::Missing { .. } => Err(Errno::ENOENT),
        }
    }

    pub(super) fn forget(&self, node: NodeId) {
        self.fs.forget(node, 1);
    }

    /// Makes a file in the root and keeps lookup and handle.
    pub(super) fn create(&self, name: &CStr) -> OpenNode {
        let (entry, opened) = self.fs.create(&create_request(name)).unwrap();
        let node = keep(entry);
        let handle = opened.handle.handle();
        opened.handle.commit();
        OpenNode { node, handle }
    }

    /// Opens a node and keeps the handle.
    pub(super) fn open(&self, node: NodeId, flags: u32) -> OpenNode {
        let flags = OpenFlags::from_bits_retain(flags);
        let opened = self.fs.open(node, flags, false).unwrap();
        let handle = opened.handle.handle();
        opened.handle.commit();
        OpenNode { node, handle }
    }

    /// Opens a directory and keeps the handle.
    pub(super) fn opendir(&self, node: NodeId) -> OpenNode {
        let opened = self.fs.opendir(node, OpenFlags::empty()).unwrap();
        let handle = opened.handle.handle();
        opened.handle.commit();
        OpenNode { node, handle }
    }

    pub(super) fn read(&self, open: OpenNode, offset: u64, size_bytes: u32) -> Result<Vec<u8>> {
        let mut sink = Sink(Vec::new(), 1 << 20);
        let request = ReadRequest {
            waiting: Waiting::Allowed,
            node: open.node,
            handle: open.handle,
            offset,
            size_bytes,
            flags: OpenFlags::empty(),
        };
        self.fs.read(&request, &mut sink)?;
        Ok(sink.0)
    }

    pub(super) fn write(&self, open: OpenNode, offset: u64, bytes: &[u8]) -> Result<usize> {
        let request = write_request(open, offset);
        self.fs.write(&request, &mut Source::new(bytes))
    }

    /// Closes a file and forgets its node.
    pub(super) fn close(&self, open: OpenNode) {
        self.fs.release(&released(open)).unwrap();
        self.forget(open.node);
    }
}

/// The node of an entry, whose lookup the guest keeps.
pub(super) fn keep(entry: Entry<'_>) -> NodeId {
    let node = entry.lookup.node();
    entry.lookup.commit();
    node
}

/// A RELEASE or RELEASEDIR that gives no lock back.
pub(super) fn released(open: OpenNode) -> ReleaseRequest {
    ReleaseRequest {
        open,
        flock_owner: None,
    }
}

/// A FLUSH of an owner that never locked anything.
pub(super) fn flushed(open: OpenNode) -> FlushRequest {
    FlushRequest {
        open,
        owner: LockOwner::new(1),
    }
}

pub(super) fn file_name(name: &CStr) -> FileName<'_> {
    FileName::new(name).unwrap()
}

/// A caller with the daemon's own ids, for whom nothing has to be switched.
pub(super) fn own_caller() -> Caller {
    caller(effective_uid(), effective_gid())
}

pub(super) fn caller(uid: u32, gid: u32) -> Caller {
    Caller {
        uid: GuestUid::new(uid),
        gid: GuestGid::new(gid),
        pid: 1,
        supplementary_gid: None,
    }
}

/// A new object in the root, for the daemon itself.
pub(super) fn new_object(name: &CStr) -> NewObject<'_> {
    NewObject {
        caller: own_caller(),
        parent: ROOT,
        name: file_name(name),
        umask: 0o777,
        security_contexts: SecurityContexts::default(),
    }
}

pub(super) fn create_request(name: &CStr) -> CreateRequest<'_> {
    CreateRequest {
        new: new_object(name),
        mode: 0o100_644,
        flags: OpenFlags::RDWR,
        intent: CreateIntent::CreateOrOpen,
        kill_suid_sgid: false,
    }
}

pub(super) fn write_request(open: OpenNode, offset: u64) -> WriteRequest {
    WriteRequest {
        node: open.node,
        handle: open.handle,
        offset,
        flags: OpenFlags::RDWR,
        from_cache: false,
        kill_suid_sgid: false,
    }
}

/// Whether the test may act as others; prints why not.
pub(super) fn is_root_or_says_why_not(test: &str) -> bool {
    let is_root = effective_uid() == 0;
    if !is_root {
        println!("{test}: skipped, because it needs root to act as other users");
    }
    is_root
}

/// A handle that was never given out.
pub(super) const NO_HANDLE: HandleId = HandleId::new(u64::MAX);
/// A node that was never given out.
pub(super) const NO_NODE: NodeId = NodeId::new(u64::MAX);

/// Guest memory for READ.
pub(super) struct Sink(pub(super) Vec<u8>, pub(super) usize);

impl DataSink for Sink {
    fn capacity(&self) -> usize {
        self.1
    }

    fn read_from(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        rwf_flags: i32,
    ) -> Result<usize> {
        assert_eq!(rwf_flags, 0);
        let mut buf = vec![0; len];
        let read = fs::File::from(file.try_clone_to_owned()?).read_at(&mut buf, offset)?;
        buf.truncate(read);
        self.0.extend(buf);
        Ok(read)
    }
}

/// Guest memory for WRITE; remembers with which flags it was written.
pub(super) struct Source<'a> {
    bytes: &'a [u8],
    pub(super) rwf_flags: Option<i32>,
}

impl<'a> Source<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Source {
            bytes,
            rwf_flags: None,
        }
    }
}

impl DataSource for Source<'_> {
    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn write_to(&mut self, file: BorrowedFd<'_>, offset: u64, rwf_flags: i32) -> Result<usize> {
        self.rwf_flags = Some(rwf_flags);
        let file = fs::File::from(file.try_clone_to_owned()?);
        Ok(file.write_at(self.bytes, offset)?)
    }
}

/// One entry as a test keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) name: String,
    pub(super) next_offset: u64,
    pub(super) kind: u8,
}

impl Seen {
    fn of(entry: DirEntry<'_>) -> Self {
        Seen {
            name: String::from_utf8_lossy(entry.name).into_owned(),
            next_offset: entry.next_offset,
            kind: entry.kind,
        }
    }
}

/// Room for so many entries of READDIR.
pub(super) struct Names {
    pub(super) seen: Vec<Seen>,
    pub(super) room: usize,
}

impl DirSink for Names {
    fn add(&mut self, entry: DirEntry<'_>) -> Packed {
        if self.seen.len() == self.room {
            return Packed::Full;
        }
        self.seen.push(Seen::of(entry));
        Packed::Yes
    }
}

/// Room for so many entries of READDIRPLUS.
pub(super) struct NamesPlus<'fs> {
    pub(super) seen: Vec<(Seen, Option<Entry<'fs>>)>,
    pub(super) room: usize,
}

impl<'fs> DirPlusSink<'fs> for NamesPlus<'fs> {
    fn fits(&self, _name_len: usize) -> bool {
        self.seen.len() < self.room
    }

    fn add(&mut self, entry: DirEntry<'_>, found: Option<Entry<'fs>>) -> Packed {
        if self.seen.len() == self.room {
            return Packed::Full;
        }
        self.seen.push((Seen::of(entry), found));
        Packed::Yes
    }
}
