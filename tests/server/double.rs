//! Test double: a file system that keeps accounts.
//!
//! [`FakeFs`] says of each call what it was, in one line, and counts what it granted and what was
//! taken back; what is outstanding must be exactly what replies told the guest.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use virtiofsd::fs::data::{DataSink, DataSource};
use virtiofsd::fs::filesystem::{
    AttrChanges, CopyRangeRequest, CreateRequest, FallocateRequest, FileSystem, FlushRequest,
    IoctlRequest, LockRequest, NewObject, OpenNode, ReadDirRequest, ReadRequest, ReleaseRequest,
    RenameRequest, SetXattrRequest, SyncScope, TmpfileRequest, Waiting, WriteRequest,
};
use virtiofsd::fs::late::{LateAnswer, RequestId, Waited, WaitingRoom};
use virtiofsd::fs::types::{
    Attr, AttrReply, Caller, DirEntry, DirPlusSink, DirSink, Entry, ExtendedAttr, FileName,
    FsTotals, GrantOwner, HandleId, HandleRef, HeldLock, LockOwner, LockRange, LockType, Lookup,
    LookupRef, Negotiated, NodeId, Opened, Packed, SecurityContext, SecurityContexts,
    SessionWishes, Timestamp,
};
use virtiofsd::ids::types::{GuestGid, GuestUid};
use virtiofsd::sys::errno::{Errno, Result};
use virtiofsd::wire::flags::{OpenFlags, OpenReplyFlags, SessionFlags};
use vmm_sys_util::tempfile::TempFile;

/// Contents of the only file.
pub(crate) const CONTENTS: &[u8] = b"0123456789abcdef";
/// Target of every symbolic link.
pub(crate) const TARGET: &[u8] = b"../over/there";
/// Value of every extended attribute, and every list of names.
pub(crate) const XATTR: &[u8] = b"user.x\0";
/// The only name that is missing.
pub(crate) const MISSING: &[u8] = b"missing";
/// What every ioctl answers.
pub(crate) const IOCTL_OUTPUT: &[u8] = b"ioctl-ed";
/// Names in every directory; the first two carry no node with READDIRPLUS.
pub(crate) const NAMES: [&[u8]; 5] = [b".", b"..", b"a", b"eightlen", b"longer-name"];
/// Attributes of every node.
pub(crate) const ATTR: Attr = Attr {
    ino: 0x1112,
    size: 0x2122,
    blocks: 0x3132,
    atime: Timestamp {
        secs: -1,
        nanos: 41,
    },
    mtime: Timestamp { secs: 2, nanos: 42 },
    ctime: Timestamp { secs: 3, nanos: 43 },
    mode: 0o100_644,
    nlink: 5,
    uid: GuestUid::ROOT,
    gid: GuestGid::ROOT,
    rdev: 0x0801,
    blksize: 4096,
    is_submount: true,
};

/// Everything that a fake file system wants, but for the one flag that makes names of `.` and `..`.
pub(crate) const WANTED: SessionFlags =
    SessionFlags::all().difference(SessionFlags::EXPORT_SUPPORT);

/// A file system that does nothing but keep accounts.
#[derive(Debug)]
pub(crate) struct FakeFs {
    pub(crate) wishes: SessionWishes,
    pub(crate) fail: Mutex<Option<Errno>>,
    /// The next call panics.
    pub(crate) panic_next: AtomicBool,
    /// The contents of files are far away: who would not wait gets EAGAIN.
    pub(crate) is_slow: AtomicBool,
    pub(crate) file: File,
    last_call: Mutex<String>,
    pub(crate) call_count: AtomicU64,
    pub(crate) lookups: AtomicI64,
    pub(crate) handles: AtomicI64,
    pub(crate) forgotten: AtomicU64,
    pub(crate) starts: AtomicU64,
    pub(crate) ends: AtomicU64,
    /// Requests that were set aside.
    pub(crate) late: Mutex<Vec<Box<dyn LateAnswer>>>,
    next_id: AtomicU64,
}

impl FakeFs {
    pub(crate) fn new() -> Self {
        let file = TempFile::new().expect("a temporary file").into_file();
        file.write_all_at(CONTENTS, 0).expect("room for 16 bytes");
        FakeFs {
            wishes: SessionWishes {
                wanted: WANTED,
                required: SessionFlags::empty(),
                missed: SessionFlags::empty(),
                dependencies: &[],
            },
            fail: Mutex::new(None),
            panic_next: AtomicBool::new(false),
            is_slow: AtomicBool::new(false),
            file,
            last_call: Mutex::default(),
            call_count: AtomicU64::new(0),
            lookups: AtomicI64::new(0),
            handles: AtomicI64::new(0),
            forgotten: AtomicU64::new(0),
            starts: AtomicU64::new(0),
            ends: AtomicU64::new(0),
            late: Mutex::default(),
            next_id: AtomicU64::new(100),
        }
    }

    /// What was called last, and forgets it.
    pub(crate) fn take_last_call(&self) -> String {
        std::mem::take(&mut *self.last_call.lock().expect("no panic"))
    }

    pub(crate) fn outstanding(&self) -> (i64, i64) {
        (
            self.lookups.load(Ordering::Relaxed),
            self.handles.load(Ordering::Relaxed),
        )
    }

    fn called(&self, call: String) -> Result<()> {
        self.call_count.fetch_add(1, Ordering::Relaxed);
        *self.last_call.lock().expect("no panic") = call;
        assert!(
            !self.panic_next.swap(false, Ordering::Relaxed),
            "as the test asked"
        );
        self.fail.lock().expect("no panic").map_or(Ok(()), Err)
    }

    fn entry(&self) -> Entry<'_> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let node = NodeId::new(self.next_id.fetch_add(1, Ordering::Relaxed));
        Entry {
            lookup: LookupRef::new(self, node),
            generation: 9,
            attr: ATTR,
            attr_valid: Duration::new(6, 66),
            entry_valid: Duration::new(7, 77),
        }
    }

    fn opened(&self, node: NodeId) -> Opened<'_> {
        self.handles.fetch_add(1, Ordering::Relaxed);
        let handle = HandleId::new(self.next_id.fetch_add(1, Ordering::Relaxed));
        Opened {
            handle: HandleRef::new(self, node, handle),
            flags: OpenReplyFlags::KEEP_CACHE,
        }
    }
}

impl GrantOwner for FakeFs {
    fn take_back_lookup(&self, _: NodeId) {
        self.lookups.fetch_sub(1, Ordering::Relaxed);
    }

    fn take_back_handle(&self, _: NodeId, _: HandleId) {
        self.handles.fetch_sub(1, Ordering::Relaxed);
    }
}

fn who(caller: &Caller) -> String {
    let uid = caller.uid.map(GuestUid::raw);
    let gid = caller.gid.map(GuestGid::raw);
    let group = caller.supplementary_gid.map(GuestGid::raw);
    format!("by {uid:?} {gid:?} {group:?}")
}

fn place(new: &NewObject<'_>) -> String {
    let (parent, name, umask) = (new.parent.raw(), new.name, new.umask);
    let labels = labels(&new.security_contexts);
    format!(
        "{parent} {name:?} umask {umask:o} {}{labels}",
        who(&new.caller)
    )
}

/// Names and lengths; nothing if there are none.
fn labels(contexts: &SecurityContexts<'_>) -> String {
    let shown = |context: SecurityContext<'_>| {
        format!(" label {:?} of {}", context.name, context.value.len())
    };
    contexts.iter().map(shown).collect()
}

fn raw(handle: Option<HandleId>) -> Option<u64> {
    handle.map(HandleId::raw)
}

fn both(open: OpenNode) -> String {
    format!("{} {}", open.node.raw(), open.handle.raw())
}

fn released(request: &ReleaseRequest) -> String {
    let owner = request.flock_owner.map(LockOwner::raw);
    format!("{} flock {owner:?}", both(request.open))
}

fn lock(request: &LockRequest) -> String {
    let (node, handle, owner) = (
        request.node.raw(),
        request.handle.raw(),
        request.owner.raw(),
    );
    let (kind, lock_type) = (request.kind, request.lock_type);
    let (start, end, pid) = (request.range.start(), request.range.end(), request.pid);
    format!("{node} {handle} owner {owner} {kind:?} {lock_type:?} {start} {end} by {pid}")
}

fn copied(value: &[u8], buf: &mut [u8]) -> Result<usize> {
    if !buf.is_empty() {
        let room = buf.get_mut(..value.len()).ok_or(Errno::ERANGE)?;
        room.copy_from_slice(value);
    }
    Ok(value.len())
}

fn dir_entry(index: usize) -> DirEntry<'static> {
    DirEntry {
        ino: 1000 + index as u64,
        next_offset: index as u64 + 1,
        kind: 8,
        name: NAMES[index],
    }
}

impl FileSystem for FakeFs {
    fn session_wishes(&self) -> SessionWishes {
        self.wishes
    }

    fn start_session(&self, _: &Negotiated) {
        self.starts.fetch_add(1, Ordering::Relaxed);
    }

    fn end_session(&self) {
        self.ends.fetch_add(1, Ordering::Relaxed);
        self.lookups.store(0, Ordering::Relaxed);
        self.handles.store(0, Ordering::Relaxed);
    }

    fn lookup(&self, parent: NodeId, name: FileName<'_>) -> Result<Lookup<'_>> {
        self.called(format!("lookup {} {name:?}", parent.raw()))?;
        if name.as_bytes() == MISSING {
            return Ok(Lookup::Missing {
                valid: Duration::new(8, 88),
            });
        }
        Ok(Lookup::Found(self.entry()))
    }

    fn lookup_self(&self, node: NodeId) -> Result<Entry<'_>> {
        self.called(format!("lookup_self {}", node.raw()))?;
        Ok(self.entry())
    }

    fn lookup_parent(&self, node: NodeId) -> Result<Entry<'_>> {
        self.called(format!("lookup_parent {}", node.raw()))?;
        Ok(self.entry())
    }

    fn forget(&self, node: NodeId, count: u64) {
        let _ = self.called(format!("forget {} {count}", node.raw()));
        self.forgotten.fetch_add(count, Ordering::Relaxed);
    }

    fn getattr(&self, node: NodeId, handle: Option<HandleId>) -> Result<AttrReply<Attr>> {
        self.called(format!("getattr {} {:?}", node.raw(), raw(handle)))?;
        Ok(AttrReply {
            attr: ATTR,
            valid: Duration::new(6, 66),
        })
    }

    fn statx(
        &self,
        node: NodeId,
        handle: Option<HandleId>,
        mask: u32,
    ) -> Result<AttrReply<ExtendedAttr>> {
        let handle = raw(handle);
        self.called(format!("statx {} {handle:?} {mask:#x}", node.raw()))?;
        Ok(AttrReply {
            attr: ExtendedAttr {
                attr: ATTR,
                btime: Some(Timestamp { secs: 4, nanos: 44 }),
                attributes: 0x10,
                attributes_mask: 0x30,
                mask: 0x7ff,
                dev: (8, 2),
            },
            valid: Duration::new(6, 66),
        })
    }

    fn setattr(
        &self,
        node: NodeId,
        handle: Option<HandleId>,
        changes: &AttrChanges,
    ) -> Result<AttrReply<Attr>> {
        let handle = raw(handle);
        self.called(format!("setattr {} {handle:?} {changes:?}", node.raw()))?;
        Ok(AttrReply {
            attr: ATTR,
            valid: Duration::new(6, 66),
        })
    }

    fn access(&self, caller: &Caller, node: NodeId, mask: u32) -> Result<()> {
        self.called(format!("access {} {mask} {}", node.raw(), who(caller)))
    }

    fn statfs(&self, node: NodeId) -> Result<FsTotals> {
        self.called(format!("statfs {}", node.raw()))?;
        Ok(FsTotals::default())
    }

    fn readlink(&self, node: NodeId, buf: &mut [u8]) -> Result<usize> {
        self.called(format!("readlink {}", node.raw()))?;
        copied(TARGET, buf)
    }

    fn symlink(&self, new: &NewObject<'_>, target: &CStr) -> Result<Entry<'_>> {
        self.called(format!("symlink {} {target:?}", place(new)))?;
        Ok(self.entry())
    }

    fn mknod(&self, new: &NewObject<'_>, mode: u32, rdev: u32) -> Result<Entry<'_>> {
        self.called(format!("mknod {} {mode:o} {rdev}", place(new)))?;
        Ok(self.entry())
    }

    fn mkdir(&self, new: &NewObject<'_>, mode: u32) -> Result<Entry<'_>> {
        self.called(format!("mkdir {} {mode:o}", place(new)))?;
        Ok(self.entry())
    }

    fn unlink(&self, parent: NodeId, name: FileName<'_>) -> Result<()> {
        self.called(format!("unlink {} {name:?}", parent.raw()))
    }

    fn rmdir(&self, parent: NodeId, name: FileName<'_>) -> Result<()> {
        self.called(format!("rmdir {} {name:?}", parent.raw()))
    }

    fn rename(&self, request: &RenameRequest<'_>) -> Result<()> {
        let from = (request.parent.raw(), request.name);
        let to = (request.new_parent.raw(), request.new_name);
        self.called(format!("rename {from:?} {to:?} {}", request.flags))
    }

    fn link(&self, node: NodeId, new_parent: NodeId, new_name: FileName<'_>) -> Result<Entry<'_>> {
        let (node, parent) = (node.raw(), new_parent.raw());
        self.called(format!("link {node} {parent} {new_name:?}"))?;
        Ok(self.entry())
    }

    fn open(&self, node: NodeId, flags: OpenFlags, kill_suid_sgid: bool) -> Result<Opened<'_>> {
        let (number, bits) = (node.raw(), flags.bits());
        self.called(format!("open {number} {bits:#o} {kill_suid_sgid}"))?;
        Ok(self.opened(node))
    }

    fn create(&self, request: &CreateRequest<'_>) -> Result<(Entry<'_>, Opened<'_>)> {
        let (place, mode) = (place(&request.new), request.mode);
        let (bits, kill) = (request.flags.bits(), request.kill_suid_sgid);
        self.called(format!("create {place} {mode:o} {bits:#o} {kill}"))?;
        let entry = self.entry();
        let node = entry.lookup.node();
        Ok((entry, self.opened(node)))
    }

    fn tmpfile(&self, request: &TmpfileRequest<'_>) -> Result<(Entry<'_>, Opened<'_>)> {
        let (parent, caller) = (request.parent.raw(), who(&request.caller));
        let (mode, umask, bits) = (request.mode, request.umask, request.flags.bits());
        let call = format!("tmpfile {parent} umask {umask:o} {caller} {mode:o} {bits:#o}");
        self.called(call)?;
        let entry = self.entry();
        let node = entry.lookup.node();
        Ok((entry, self.opened(node)))
    }

    fn read(&self, request: &ReadRequest, sink: &mut dyn DataSink) -> Result<usize> {
        let (node, handle) = (request.node.raw(), request.handle.raw());
        let (offset, size) = (request.offset, request.size_bytes);
        self.called(format!("read {node} {handle} at {offset} {size}"))?;
        assert!(sink.capacity() >= size as usize, "room for what is asked");
        if self.is_slow.load(Ordering::Relaxed) && request.waiting != Waiting::Allowed {
            // As when only a part is near: that it was written must not matter.
            sink.read_from(self.file.as_fd(), offset, 1, 0)?;
            return Err(Errno::EAGAIN);
        }
        sink.read_from(self.file.as_fd(), offset, size as usize, 0)
    }

    fn write(&self, request: &WriteRequest, source: &mut dyn DataSource) -> Result<usize> {
        let (node, handle, offset) = (request.node.raw(), request.handle.raw(), request.offset);
        let (cache, kill) = (request.from_cache, request.kill_suid_sgid);
        let len = source.len();
        let call = format!("write {node} {handle} at {offset} {len} cache {cache} kill {kill}");
        self.called(call)?;
        // A mutated offset would make the file large; where bytes go is not the question here.
        source.write_to(self.file.as_fd(), offset.min(4096), 0)
    }

    fn flush(&self, request: &FlushRequest) -> Result<()> {
        let owner = request.owner.raw();
        self.called(format!("flush {} owner {owner}", both(request.open)))
    }

    fn release(&self, request: &ReleaseRequest) -> Result<()> {
        self.called(format!("release {}", released(request)))
    }

    fn fsync(&self, open: OpenNode, scope: SyncScope) -> Result<()> {
        self.called(format!("fsync {} {scope:?}", both(open)))
    }

    fn lseek(&self, open: OpenNode, offset: u64, whence: u32) -> Result<u64> {
        self.called(format!("lseek {} {offset} {whence}", both(open)))?;
        Ok(offset)
    }

    fn fallocate(&self, request: &FallocateRequest) -> Result<()> {
        let (node, handle) = (request.node.raw(), request.handle.raw());
        let (offset, len, mode) = (request.offset, request.len_bytes, request.mode);
        self.called(format!(
            "fallocate {node} {handle} {mode} at {offset} {len}"
        ))
    }

    fn copy_file_range(&self, request: &CopyRangeRequest) -> Result<u64> {
        let from = (
            request.node_in.raw(),
            request.handle_in.raw(),
            request.offset_in,
        );
        let to = (
            request.node_out.raw(),
            request.handle_out.raw(),
            request.offset_out,
        );
        self.called(format!(
            "copy {from:?} {to:?} {:#x} {}",
            request.len_bytes, request.flags
        ))?;
        Ok(request.len_bytes)
    }

    fn opendir(&self, node: NodeId, flags: OpenFlags) -> Result<Opened<'_>> {
        self.called(format!("opendir {} {:#o}", node.raw(), flags.bits()))?;
        Ok(self.opened(node))
    }

    fn readdir(&self, request: &ReadDirRequest, sink: &mut dyn DirSink) -> Result<()> {
        let (node, handle, offset) = (request.node.raw(), request.handle.raw(), request.offset);
        self.called(format!("readdir {node} {handle} at {offset}"))?;
        for index in usize::try_from(offset).unwrap_or(usize::MAX).min(5)..5 {
            if sink.add(dir_entry(index)) == Packed::Full {
                break;
            }
        }
        Ok(())
    }

    fn readdirplus<'fs>(
        &'fs self,
        request: &ReadDirRequest,
        sink: &mut dyn DirPlusSink<'fs>,
    ) -> Result<()> {
        let (node, handle, offset) = (request.node.raw(), request.handle.raw(), request.offset);
        self.called(format!("readdirplus {node} {handle} at {offset}"))?;
        for index in usize::try_from(offset).unwrap_or(usize::MAX).min(5)..5 {
            // On purpose without asking `fits`: what does not fit must be taken back.
            let found = (index >= 2).then(|| self.entry());
            if sink.add(dir_entry(index), found) == Packed::Full {
                break;
            }
        }
        Ok(())
    }

    fn releasedir(&self, request: &ReleaseRequest) -> Result<()> {
        self.called(format!("releasedir {}", released(request)))
    }

    fn fsyncdir(&self, open: OpenNode, scope: SyncScope) -> Result<()> {
        self.called(format!("fsyncdir {} {scope:?}", both(open)))
    }

    fn setxattr(&self, request: &SetXattrRequest<'_>) -> Result<()> {
        let (node, name, value) = (request.node.raw(), request.name, request.value.len());
        let (flags, kill) = (request.flags, request.kill_sgid);
        self.called(format!("setxattr {node} {name:?} {value} {flags} {kill}"))
    }

    fn getxattr(&self, node: NodeId, name: &CStr, buf: &mut [u8]) -> Result<usize> {
        self.called(format!("getxattr {} {name:?} {}", node.raw(), buf.len()))?;
        copied(XATTR, buf)
    }

    fn listxattr(&self, node: NodeId, buf: &mut [u8]) -> Result<usize> {
        self.called(format!("listxattr {} {}", node.raw(), buf.len()))?;
        copied(XATTR, buf)
    }

    fn removexattr(&self, node: NodeId, name: &CStr) -> Result<()> {
        self.called(format!("removexattr {} {name:?}", node.raw()))
    }

    fn getlk(&self, request: &LockRequest) -> Result<Option<HeldLock>> {
        self.called(format!("getlk {}", lock(request)))?;
        // Whoever asks for everything learns that nobody is in the way.
        let is_free = request.range == LockRange::WHOLE_FILE;
        Ok((!is_free).then_some(HeldLock {
            range: LockRange::WHOLE_FILE,
            lock_type: LockType::Write,
            pid: 99,
        }))
    }

    fn setlk(&self, request: &LockRequest) -> Result<()> {
        self.called(format!("setlk {}", lock(request)))
    }

    fn setlkw(&self, request: &LockRequest, room: &mut dyn WaitingRoom) -> Result<Waited> {
        self.called(format!("setlkw {}", lock(request)))?;
        let Some(answer) = room.park() else {
            return Ok(Waited::Settled);
        };
        self.late.lock().expect("no panic").push(answer);
        Ok(Waited::Parked)
    }

    fn interrupt(&self, request: RequestId) {
        // It has no way to say that it failed.
        let _ = self.called(format!("interrupt {}", request.raw()));
    }

    fn ioctl(&self, request: &IoctlRequest, input: &[u8], output: &mut [u8]) -> Result<usize> {
        let (node, handle, command) = (request.node.raw(), request.handle.raw(), request.command);
        let (width, by) = (request.is_32_bit, who(&request.caller));
        self.called(format!(
            "ioctl {node} {handle} {command:#x} 32 bit {width} {by} {input:?} {}",
            output.len()
        ))?;
        copied(IOCTL_OUTPUT, output)
    }

    fn syncfs(&self, node: NodeId) -> Result<()> {
        self.called(format!("syncfs {}", node.raw()))
    }
}
