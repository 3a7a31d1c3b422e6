//! What: a request that was understood, before anyone acts on it.
//!
//! In: what `decode` made of the bytes. Out: values that gates look at and `dispatch` carries
//! out. Invariants: names are one path component, offsets and sizes fit a signed 64-bit offset
//! (directory cookies excepted: they are opaque), buffer sizes are bounded. The contents of a
//! WRITE and the entries of a BATCH_FORGET stay in the request and are not part of this. INIT and
//! DESTROY are no operations on a file system: `session` deals with them.

use std::ffi::CStr;

use crate::fs::filesystem::{
    AttrChanges, CopyRangeRequest, CreateRequest, FallocateRequest, FlushRequest, IoctlRequest,
    LockRequest, NewObject, OpenNode, ReadDirRequest, ReadRequest, ReleaseRequest, RenameRequest,
    SetXattrRequest, SyncScope, TmpfileRequest, WriteRequest,
};
use crate::fs::late::RequestId;
use crate::fs::types::{Caller, FileName, HandleId, NodeId};
use crate::wire::flags::OpenFlags;
use crate::wire::opcode::Opcode;
use crate::wire::response::{
    AttrOut, CopyFileRangeOut, CreateOut, EntryOut, GetxattrOut, IoctlOut, LkOut, LseekOut,
    OpenOut, StatfsOut, StatxOut, WriteOut,
};

/// One operation with its arguments, borrowed from the private copy of the request.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'a> {
    /// LOOKUP.
    Lookup {
        /// The directory.
        parent: NodeId,
        /// What to find there.
        name: FileName<'a>,
    },
    /// LOOKUP of `.`, which is the node itself.
    LookupSelf {
        /// The node, perhaps forgotten.
        node: NodeId,
    },
    /// LOOKUP of `..`.
    LookupParent {
        /// A directory.
        node: NodeId,
    },
    /// FORGET.
    Forget {
        /// The node.
        node: NodeId,
        /// How many lookups are given back.
        count: u64,
    },
    /// BATCH_FORGET.
    BatchForget {
        /// How many entries the guest claims to send; those that are there count.
        entry_count: u32,
    },
    /// GETATTR.
    Getattr {
        /// The node.
        node: NodeId,
        /// The open file to ask through.
        handle: Option<HandleId>,
    },
    /// STATX.
    Statx {
        /// The node.
        node: NodeId,
        /// The open file to ask through.
        handle: Option<HandleId>,
        /// `STATX_*` bits that the guest asks for.
        mask: u32,
    },
    /// SETATTR.
    Setattr {
        /// The node.
        node: NodeId,
        /// The open file to act through.
        handle: Option<HandleId>,
        /// What to change.
        changes: AttrChanges,
    },
    /// READLINK.
    Readlink {
        /// The symbolic link.
        node: NodeId,
    },
    /// SYMLINK.
    Symlink {
        /// Where and for whom.
        new: NewObject<'a>,
        /// 1 to 4095 bytes; any path, for the guest alone to follow.
        target: &'a CStr,
    },
    /// MKNOD.
    Mknod {
        /// Where and for whom.
        new: NewObject<'a>,
        /// Type and permission bits.
        mode: u32,
        /// Device number of a device node.
        rdev: u32,
    },
    /// MKDIR.
    Mkdir {
        /// Where and for whom.
        new: NewObject<'a>,
        /// Permission bits.
        mode: u32,
    },
    /// UNLINK.
    Unlink {
        /// The directory.
        parent: NodeId,
        /// What to remove there.
        name: FileName<'a>,
    },
    /// RMDIR.
    Rmdir {
        /// The directory that holds the one to remove.
        parent: NodeId,
        /// What to remove there.
        name: FileName<'a>,
    },
    /// RENAME, which has no flags.
    Rename(RenameRequest<'a>),
    /// RENAME2.
    Rename2(RenameRequest<'a>),
    /// LINK.
    Link {
        /// What gets another name.
        node: NodeId,
        /// The directory for the new name.
        new_parent: NodeId,
        /// The new name.
        new_name: FileName<'a>,
    },
    /// OPEN.
    Open {
        /// The node.
        node: NodeId,
        /// `O_*` flags.
        flags: OpenFlags,
        /// Clear set-id bits along with `O_TRUNC`.
        kill_suid_sgid: bool,
    },
    /// CREATE.
    Create(CreateRequest<'a>),
    /// TMPFILE.
    Tmpfile(TmpfileRequest<'a>),
    /// READ.
    Read(ReadRequest),
    /// WRITE, and how many of the bytes that follow count; they are all there.
    Write(WriteRequest, u32),
    /// FLUSH.
    Flush(FlushRequest),
    /// RELEASE.
    Release(ReleaseRequest),
    /// FSYNC.
    Fsync(OpenNode, SyncScope),
    /// LSEEK.
    Lseek {
        /// The open file.
        open: OpenNode,
        /// Where to start, in bytes.
        offset: u64,
        /// `SEEK_DATA` or `SEEK_HOLE`.
        whence: u32,
    },
    /// FALLOCATE.
    Fallocate(FallocateRequest),
    /// COPY_FILE_RANGE; its length fits the 32 bits of the reply.
    CopyFileRange(CopyRangeRequest),
    /// COPY_FILE_RANGE_64.
    CopyFileRange64(CopyRangeRequest),
    /// OPENDIR.
    Opendir {
        /// The node.
        node: NodeId,
        /// `O_*` flags.
        flags: OpenFlags,
    },
    /// READDIR, and the room in bytes that the guest asks to be used, at most 1 MiB.
    Readdir(ReadDirRequest, usize),
    /// READDIRPLUS, and the room in bytes that the guest asks to be used, at most 1 MiB.
    Readdirplus(ReadDirRequest, usize),
    /// RELEASEDIR.
    Releasedir(ReleaseRequest),
    /// FSYNCDIR.
    Fsyncdir(OpenNode, SyncScope),
    /// SETXATTR.
    Setxattr(SetXattrRequest<'a>),
    /// GETXATTR.
    Getxattr {
        /// The node.
        node: NodeId,
        /// Name of the attribute.
        name: &'a CStr,
        /// Room for the value, at most `XATTR_SIZE_MAX`; 0 asks for its length.
        size_bytes: usize,
    },
    /// LISTXATTR.
    Listxattr {
        /// The node.
        node: NodeId,
        /// Room for the list, at most `XATTR_SIZE_MAX`; 0 asks for its length.
        size_bytes: usize,
    },
    /// REMOVEXATTR.
    Removexattr {
        /// The node.
        node: NodeId,
        /// Name of the attribute.
        name: &'a CStr,
    },
    /// ACCESS.
    Access {
        /// Who asks.
        caller: Caller,
        /// The node.
        node: NodeId,
        /// `R_OK | W_OK | X_OK`.
        mask: u32,
    },
    /// STATFS.
    Statfs {
        /// Any node of the file system.
        node: NodeId,
    },
    /// SYNCFS.
    Syncfs {
        /// Any node of the file system.
        node: NodeId,
    },
    /// GETLK.
    Getlk(LockRequest),
    /// SETLK.
    Setlk(LockRequest),
    /// SETLKW.
    Setlkw(LockRequest),
    /// IOCTL: with what, and how many bytes may come back.
    Ioctl {
        /// On what, and which command.
        request: IoctlRequest,
        /// At most 16383 bytes.
        input: &'a [u8],
        /// Room for the answer, at most 16383 bytes.
        output_len_max: usize,
    },
    /// INTERRUPT: of weight for requests that wait for somebody else; the others end by
    /// themselves.
    Interrupt {
        /// The request that the guest gives up.
        request: RequestId,
    },
    /// An operation that is not served: `ENOSYS`, which is how guests find out.
    Unsupported(Opcode),
}

impl Operation<'_> {
    /// Length of the payload of a successful reply where it is fixed, else 0: an operation whose
    /// answer cannot fit is refused before it has any effect.
    pub(super) const fn fixed_payload_len(&self) -> usize {
        match self {
            Operation::Lookup { .. }
            | Operation::LookupSelf { .. }
            | Operation::LookupParent { .. }
            | Operation::Symlink { .. }
            | Operation::Mknod { .. }
            | Operation::Mkdir { .. }
            | Operation::Link { .. } => size_of::<EntryOut>(),
            Operation::Getattr { .. } | Operation::Setattr { .. } => size_of::<AttrOut>(),
            Operation::Statx { .. } => size_of::<StatxOut>(),
            Operation::Open { .. } | Operation::Opendir { .. } => size_of::<OpenOut>(),
            Operation::Create(_) | Operation::Tmpfile(_) => size_of::<CreateOut>(),
            Operation::Write(..) | Operation::CopyFileRange(_) => size_of::<WriteOut>(),
            Operation::CopyFileRange64(_) => size_of::<CopyFileRangeOut>(),
            Operation::Lseek { .. } => size_of::<LseekOut>(),
            Operation::Statfs { .. } => size_of::<StatfsOut>(),
            Operation::Getlk(_) => size_of::<LkOut>(),
            Operation::Ioctl { .. } => size_of::<IoctlOut>(),
            Operation::Getxattr { size_bytes: 0, .. }
            | Operation::Listxattr { size_bytes: 0, .. } => size_of::<GetxattrOut>(),
            Operation::Getxattr { .. }
            | Operation::Listxattr { .. }
            | Operation::Read(_)
            | Operation::Readdir(..)
            | Operation::Readdirplus(..)
            | Operation::Readlink { .. }
            | Operation::Forget { .. }
            | Operation::BatchForget { .. }
            | Operation::Unlink { .. }
            | Operation::Rmdir { .. }
            | Operation::Rename(_)
            | Operation::Rename2(_)
            | Operation::Flush(_)
            | Operation::Release(_)
            | Operation::Fsync(..)
            | Operation::Fallocate(_)
            | Operation::Releasedir(_)
            | Operation::Fsyncdir(..)
            | Operation::Setxattr(_)
            | Operation::Removexattr { .. }
            | Operation::Access { .. }
            | Operation::Syncfs { .. }
            | Operation::Setlk(_)
            | Operation::Setlkw(_)
            | Operation::Interrupt { .. }
            | Operation::Unsupported(_) => 0,
        }
    }
}
