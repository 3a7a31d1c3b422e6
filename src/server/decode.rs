//! What: from the bytes of a request to an [`Operation`].
//!
//! In: the header and the private copy of the body. Out: an operation whose values are checked,
//! or the errno for the guest. Invariants: never panics, never allocates, and accepts only lengths
//! that are really there. Fixed arguments may be longer than known here (layouts of FUSE grow at
//! their end); after a last name nothing may follow. The operations on attributes are in
//! `decode_meta`. Does not: know whether nodes and handles exist.

use crate::fs::filesystem::{
    CopyRangeRequest, CreateIntent, CreateRequest, FallocateRequest, FlushRequest, NewObject,
    OpenNode, ReadDirRequest, ReadRequest, ReleaseRequest, RenameRequest, SyncScope,
    TmpfileRequest, Waiting, WriteRequest,
};
use crate::fs::types::{
    Caller, FileName, HandleId, LockOwner, Negotiated, NodeId, SecurityContexts,
};
use crate::ids::types::{GuestGid, GuestUid};
use crate::server::body::{DIR_SIZE_MAX, SYMLINK_TARGET_LEN_MAX};
use crate::server::cursor::Cursor;
use crate::server::decode_ext::{ExtensionForm, decode_extensions};
use crate::server::operation::Operation;
use crate::sys::errno::{Errno, Result};
use crate::wire::flags::{
    FsyncFlags, OpenFlags, OpenRequestFlags, ReleaseFlags, SEEK_DATA, SEEK_HOLE, SessionFlags,
    WriteFlags,
};
use crate::wire::header::InHeader;
use crate::wire::opcode::Opcode;
use crate::wire::pod::Plain;
use crate::wire::request::{
    BatchForgetIn, CopyFileRangeIn, CreateIn, FallocateIn, FlushIn, ForgetIn, FsyncIn,
    INIT_IN_LEN_MIN, InitIn, LinkIn, LseekIn, MkdirIn, MknodIn, OpenIn, ReadIn, ReleaseIn,
    Rename2In, RenameIn, SyncfsIn, WriteIn,
};

/// Most bytes that COPY_FILE_RANGE copies, because its reply has 32 bits: the largest count of
/// whole 4 KiB pages, so that a long copy stays aligned.
const COPY_LEN_MAX_32: u64 = 0xffff_f000;

/// Everything that an operation is made of.
#[derive(Debug)]
pub(super) struct Decoder<'a> {
    /// The header of the request.
    pub(super) header: &'a InHeader,
    /// The arguments.
    pub(super) args: Cursor<'a>,
    /// The extensions behind them.
    pub(super) extensions: &'a [u8],
    /// Bytes of the body that stay in the request.
    pub(super) left_len: usize,
    /// What INIT settled.
    pub(super) session: &'a Negotiated,
}

impl<'a> Decoder<'a> {
    /// Understands a request. Errors: `EINVAL` malformed, and what the single operations say.
    pub(super) fn decode(mut self, opcode: Opcode) -> Result<Operation<'a>> {
        match opcode {
            Opcode::Lookup => self.lookup(),
            Opcode::Forget => self.forget(),
            Opcode::BatchForget => self.batch_forget(),
            Opcode::Getattr => self.getattr(),
            Opcode::Statx => self.statx(),
            Opcode::Setattr => self.setattr(),
            Opcode::Readlink => Ok(Operation::Readlink { node: self.node() }),
            Opcode::Symlink => self.symlink(),
            Opcode::Mknod => self.mknod(),
            Opcode::Mkdir => self.mkdir(),
            Opcode::Unlink => self.unlink(),
            Opcode::Rmdir => self.rmdir(),
            Opcode::Rename => self.rename(),
            Opcode::Rename2 => self.rename2(),
            Opcode::Link => self.link(),
            Opcode::Open => self.open(),
            Opcode::Create => self.create(),
            Opcode::Tmpfile => self.tmpfile(),
            Opcode::Read => self.read(),
            Opcode::Write => self.write(),
            Opcode::Flush => self.flush(),
            Opcode::Release => Ok(Operation::Release(self.release()?)),
            Opcode::Fsync => self
                .synced()
                .map(|(open, scope)| Operation::Fsync(open, scope)),
            Opcode::Lseek => self.lseek(),
            Opcode::Fallocate => self.fallocate(),
            Opcode::CopyFileRange => self.copy_file_range(),
            Opcode::CopyFileRange64 => Ok(Operation::CopyFileRange64(self.copy_range()?)),
            Opcode::Opendir => self.opendir(),
            Opcode::Readdir => self.readdir(),
            Opcode::Readdirplus => self.readdirplus(),
            Opcode::Releasedir => Ok(Operation::Releasedir(self.release()?)),
            Opcode::Fsyncdir => self
                .synced()
                .map(|(open, scope)| Operation::Fsyncdir(open, scope)),
            Opcode::Setxattr => self.setxattr(),
            Opcode::Getxattr => self.getxattr(),
            Opcode::Listxattr => self.listxattr(),
            Opcode::Removexattr => self.removexattr(),
            Opcode::Access => self.access(),
            Opcode::Statfs => Ok(Operation::Statfs { node: self.node() }),
            Opcode::Syncfs => self.syncfs(),
            Opcode::Interrupt => self.interrupt(),
            Opcode::Getlk => self.lock().map(Operation::Getlk),
            Opcode::Setlk => self.lock().map(Operation::Setlk),
            Opcode::Setlkw => self.lock().map(Operation::Setlkw),
            Opcode::Ioctl => self.ioctl(),
            Opcode::Bmap
            | Opcode::Poll
            | Opcode::NotifyReply
            | Opcode::Setupmapping
            | Opcode::Removemapping => Ok(Operation::Unsupported(opcode)),
            // INIT and DESTROY are `session`'s; they do not come here.
            Opcode::Init | Opcode::Destroy | Opcode::Unknown(_) => {
                Ok(Operation::Unsupported(opcode))
            }
        }
    }

    pub(super) fn node(&self) -> NodeId {
        NodeId::new(self.header.nodeid)
    }

    pub(super) fn open_node(&self, fh: u64) -> OpenNode {
        OpenNode {
            node: self.node(),
            handle: HandleId::new(fh),
        }
    }

    pub(super) fn caller(&self) -> Caller {
        Caller {
            uid: GuestUid::new(self.header.uid),
            gid: GuestGid::new(self.header.gid),
            pid: self.header.pid,
            supplementary_gid: None,
        }
    }

    /// The name with which the arguments end.
    fn last_name(&mut self) -> Result<FileName<'a>> {
        let name = self.args.take_name()?;
        self.args.finish()?;
        Ok(name)
    }

    /// Ends the arguments of a creating operation: what follows is nothing, or the extensions.
    fn finish_new(&mut self) -> Result<()> {
        match ExtensionForm::of(self.session) {
            ExtensionForm::Counted => self.args.finish(),
            ExtensionForm::Trailing => {
                self.extensions = self.args.rest();
                Ok(())
            }
        }
    }

    /// The name with which the arguments of a creating operation end.
    fn new_name(&mut self) -> Result<FileName<'a>> {
        let name = self.args.take_name()?;
        self.finish_new()?;
        Ok(name)
    }

    /// The caller of a creating operation and the labels of what it creates, with what the
    /// extensions say.
    fn creator(&self) -> Result<(Caller, SecurityContexts<'a>)> {
        let extensions = decode_extensions(self.extensions, self.session.flags)?;
        let caller = Caller {
            supplementary_gid: extensions.supplementary_gid(),
            ..self.caller()
        };
        Ok((caller, extensions.security_contexts))
    }

    fn new_object(&self, name: FileName<'a>, umask: u32) -> Result<NewObject<'a>> {
        let (caller, security_contexts) = self.creator()?;
        Ok(NewObject {
            caller,
            parent: self.node(),
            name,
            umask: umask & 0o777,
            security_contexts,
        })
    }

    /// `.` and `..` are names only here, and only for a guest that may export the mount.
    fn lookup(&mut self) -> Result<Operation<'a>> {
        let node = self.node();
        if self.session.flags.contains(SessionFlags::EXPORT_SUPPORT) {
            match self.args.rest() {
                b".\0" => return Ok(Operation::LookupSelf { node }),
                b"..\0" => return Ok(Operation::LookupParent { node }),
                _ => {}
            }
        }
        Ok(Operation::Lookup {
            parent: node,
            name: self.last_name()?,
        })
    }

    fn forget(&mut self) -> Result<Operation<'a>> {
        let forget: ForgetIn = self.args.take()?;
        Ok(Operation::Forget {
            node: self.node(),
            count: forget.nlookup,
        })
    }

    fn batch_forget(&mut self) -> Result<Operation<'a>> {
        let batch: BatchForgetIn = self.args.take()?;
        Ok(Operation::BatchForget {
            entry_count: batch.count,
        })
    }

    /// Errors: symlink(2): `ENOENT` empty target, `ENAMETOOLONG`.
    fn symlink(&mut self) -> Result<Operation<'a>> {
        let name = self.args.take_name()?;
        let target = self.args.take_c_str()?;
        self.finish_new()?;
        if target.is_empty() {
            return Err(Errno::ENOENT);
        }
        if target.count_bytes() > SYMLINK_TARGET_LEN_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        // symlink(2) knows no umask.
        let new = self.new_object(name, 0)?;
        Ok(Operation::Symlink { new, target })
    }

    fn mknod(&mut self) -> Result<Operation<'a>> {
        let mknod: MknodIn = self.args.take()?;
        let name = self.new_name()?;
        Ok(Operation::Mknod {
            new: self.new_object(name, mknod.umask)?,
            mode: mknod.mode,
            rdev: mknod.rdev,
        })
    }

    fn mkdir(&mut self) -> Result<Operation<'a>> {
        let mkdir: MkdirIn = self.args.take()?;
        let name = self.new_name()?;
        Ok(Operation::Mkdir {
            new: self.new_object(name, mkdir.umask)?,
            mode: mkdir.mode & 0o7777,
        })
    }

    fn unlink(&mut self) -> Result<Operation<'a>> {
        Ok(Operation::Unlink {
            parent: self.node(),
            name: self.last_name()?,
        })
    }

    fn rmdir(&mut self) -> Result<Operation<'a>> {
        Ok(Operation::Rmdir {
            parent: self.node(),
            name: self.last_name()?,
        })
    }

    fn rename(&mut self) -> Result<Operation<'a>> {
        let rename: RenameIn = self.args.take()?;
        Ok(Operation::Rename(self.renaming(rename.newdir, 0)?))
    }

    fn rename2(&mut self) -> Result<Operation<'a>> {
        let rename: Rename2In = self.args.take()?;
        let request = self.renaming(rename.newdir, rename.flags)?;
        Ok(Operation::Rename2(request))
    }

    fn renaming(&mut self, new_parent: u64, flags: u32) -> Result<RenameRequest<'a>> {
        Ok(RenameRequest {
            parent: self.node(),
            name: self.args.take_name()?,
            new_parent: NodeId::new(new_parent),
            new_name: self.last_name()?,
            flags,
        })
    }

    fn link(&mut self) -> Result<Operation<'a>> {
        let link: LinkIn = self.args.take()?;
        Ok(Operation::Link {
            node: NodeId::new(link.oldnodeid),
            new_parent: self.node(),
            new_name: self.last_name()?,
        })
    }

    fn open(&mut self) -> Result<Operation<'a>> {
        let open: OpenIn = self.args.take()?;
        Ok(Operation::Open {
            node: self.node(),
            flags: OpenFlags::from_bits_retain(open.flags),
            kill_suid_sgid: kills_set_ids(open.open_flags),
        })
    }

    fn create(&mut self) -> Result<Operation<'a>> {
        let create: CreateIn = self.args.take()?;
        let name = self.new_name()?;
        Ok(Operation::Create(CreateRequest {
            new: self.new_object(name, create.umask)?,
            mode: create.mode,
            flags: OpenFlags::from_bits_retain(create.flags),
            intent: CreateIntent::CreateOrOpen,
            kill_suid_sgid: kills_set_ids(create.open_flags),
        }))
    }

    /// The name means nothing (Linux sends "/"), so it is not held to the rules of names.
    fn tmpfile(&mut self) -> Result<Operation<'a>> {
        let create: CreateIn = self.args.take()?;
        self.args.take_c_str()?;
        self.finish_new()?;
        let (caller, security_contexts) = self.creator()?;
        Ok(Operation::Tmpfile(TmpfileRequest {
            caller,
            parent: self.node(),
            mode: create.mode,
            umask: create.umask & 0o777,
            flags: OpenFlags::from_bits_retain(create.flags),
            security_contexts,
        }))
    }

    fn read(&mut self) -> Result<Operation<'a>> {
        let read: ReadIn = self.args.take()?;
        Ok(Operation::Read(ReadRequest {
            waiting: Waiting::Allowed,
            node: self.node(),
            handle: HandleId::new(read.fh),
            offset: file_offset(read.offset)?,
            size_bytes: read.size,
            flags: OpenFlags::from_bits_retain(read.flags),
        }))
    }

    /// Errors: `EINVAL` more bytes than negotiated, or than the request brought.
    fn write(&mut self) -> Result<Operation<'a>> {
        let write: WriteIn = self.args.take()?;
        let size = usize::try_from(write.size).map_err(|_| Errno::EINVAL)?;
        if write.size > self.session.max_write_bytes || size > self.left_len {
            return Err(Errno::EINVAL);
        }
        let flags = WriteFlags::from_bits_truncate(write.write_flags);
        let request = WriteRequest {
            node: self.node(),
            handle: HandleId::new(write.fh),
            offset: file_offset(write.offset)?,
            flags: OpenFlags::from_bits_retain(write.flags),
            from_cache: flags.contains(WriteFlags::CACHE),
            kill_suid_sgid: flags.contains(WriteFlags::KILL_SUIDGID),
        };
        Ok(Operation::Write(request, write.size))
    }

    fn flush(&mut self) -> Result<Operation<'a>> {
        let flush: FlushIn = self.args.take()?;
        Ok(Operation::Flush(FlushRequest {
            open: self.open_node(flush.fh),
            owner: LockOwner::new(flush.lock_owner),
        }))
    }

    fn release(&mut self) -> Result<ReleaseRequest> {
        let release: ReleaseIn = self.args.take()?;
        let flags = ReleaseFlags::from_bits_truncate(release.release_flags);
        let unlocks = flags.contains(ReleaseFlags::FLOCK_UNLOCK);
        Ok(ReleaseRequest {
            open: self.open_node(release.fh),
            flock_owner: unlocks.then(|| LockOwner::new(release.lock_owner)),
        })
    }

    fn synced(&mut self) -> Result<(OpenNode, SyncScope)> {
        let fsync: FsyncIn = self.args.take()?;
        let flags = FsyncFlags::from_bits_truncate(fsync.fsync_flags);
        let scope = match flags.contains(FsyncFlags::FDATASYNC) {
            true => SyncScope::ContentsOnly,
            false => SyncScope::Everything,
        };
        Ok((self.open_node(fsync.fh), scope))
    }

    /// Errors: lseek(2): `EINVAL` whence; the guest does the other kinds by itself.
    fn lseek(&mut self) -> Result<Operation<'a>> {
        let lseek: LseekIn = self.args.take()?;
        if ![SEEK_DATA, SEEK_HOLE].contains(&lseek.whence) {
            return Err(Errno::EINVAL);
        }
        Ok(Operation::Lseek {
            open: self.open_node(lseek.fh),
            offset: file_offset(lseek.offset)?,
            whence: lseek.whence,
        })
    }

    fn fallocate(&mut self) -> Result<Operation<'a>> {
        let fallocate: FallocateIn = self.args.take()?;
        Ok(Operation::Fallocate(FallocateRequest {
            node: self.node(),
            handle: HandleId::new(fallocate.fh),
            mode: fallocate.mode,
            offset: file_offset(fallocate.offset)?,
            len_bytes: file_offset(fallocate.length)?,
            caller: self.caller(),
        }))
    }

    fn copy_file_range(&mut self) -> Result<Operation<'a>> {
        let request = self.copy_range()?;
        Ok(Operation::CopyFileRange(CopyRangeRequest {
            len_bytes: request.len_bytes.min(COPY_LEN_MAX_32),
            ..request
        }))
    }

    fn copy_range(&mut self) -> Result<CopyRangeRequest> {
        let copy: CopyFileRangeIn = self.args.take()?;
        Ok(CopyRangeRequest {
            node_in: self.node(),
            handle_in: HandleId::new(copy.fh_in),
            offset_in: file_offset(copy.off_in)?,
            node_out: NodeId::new(copy.nodeid_out),
            handle_out: HandleId::new(copy.fh_out),
            offset_out: file_offset(copy.off_out)?,
            len_bytes: copy.len,
            flags: copy.flags,
            caller: self.caller(),
        })
    }

    fn opendir(&mut self) -> Result<Operation<'a>> {
        let open: OpenIn = self.args.take()?;
        Ok(Operation::Opendir {
            node: self.node(),
            flags: OpenFlags::from_bits_retain(open.flags),
        })
    }

    fn readdir(&mut self) -> Result<Operation<'a>> {
        let (request, size_bytes) = self.read_dir()?;
        Ok(Operation::Readdir(request, size_bytes))
    }

    fn readdirplus(&mut self) -> Result<Operation<'a>> {
        let (request, size_bytes) = self.read_dir()?;
        Ok(Operation::Readdirplus(request, size_bytes))
    }

    fn read_dir(&mut self) -> Result<(ReadDirRequest, usize)> {
        let read: ReadIn = self.args.take()?;
        let request = ReadDirRequest {
            node: self.node(),
            handle: HandleId::new(read.fh),
            offset: read.offset,
        };
        Ok((request, size_at_most(read.size, DIR_SIZE_MAX)))
    }

    fn syncfs(&mut self) -> Result<Operation<'a>> {
        let _: SyncfsIn = self.args.take()?;
        Ok(Operation::Syncfs { node: self.node() })
    }
}

/// The arguments of INIT, whose older form is shorter. Errors: `EINVAL` shorter than any form.
pub(super) fn decode_init(args: Cursor<'_>) -> Result<InitIn> {
    if args.rest().len() < INIT_IN_LEN_MIN {
        return Err(Errno::EINVAL);
    }
    Ok(InitIn::from_grown(args.rest()))
}

fn kills_set_ids(open_flags: u32) -> bool {
    OpenRequestFlags::from_bits_truncate(open_flags).contains(OpenRequestFlags::KILL_SUIDGID)
}

/// An offset or size that fits `off_t`. Errors: `EINVAL`.
pub(super) fn file_offset(raw: u64) -> Result<u64> {
    match i64::try_from(raw) {
        Ok(_) => Ok(raw),
        Err(_) => Err(Errno::EINVAL),
    }
}

pub(super) fn size_at_most(raw: u32, size_max: usize) -> usize {
    usize::try_from(raw).unwrap_or(usize::MAX).min(size_max)
}
