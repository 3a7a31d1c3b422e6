//! What: carries an [`Operation`] out.
//!
//! In: an admitted operation and the two ends of its request. Out: a [`Reply`], or the errno for
//! the guest. Invariants: the match is exhaustive, so a new operation does not compile until
//! somebody says what it does; buffers offered to the file system are no longer than the reply
//! has room for. Does not: write replies.

use std::sync::Arc;

use crate::fs::filesystem::{
    CopyRangeRequest, CreateIntent, CreateRequest, FileSystem, LockRequest, ReadDirRequest,
    ReadRequest, Waiting, WriteRequest,
};
use crate::fs::late::Waited;
use crate::fs::types::{Entry, Lookup, NodeId, Opened};
use crate::metrics::Metrics;
use crate::server::body::SYMLINK_TARGET_LEN_MAX;
use crate::server::encode::Reply;
use crate::server::late::Aside;
use crate::server::operation::Operation;
use crate::server::pace::Turn;
use crate::server::payload::{ReadRoom, WritePayload};
use crate::server::readdir::{DirPacker, DirPlusPacker};
use crate::server::scratch::Buffer;
use crate::sys::errno::{Errno, Result};
use crate::wire::channel::{ReplySink, RequestSource};
use crate::wire::header::OUT_HEADER_LEN;
use crate::wire::opcode::Opcode;
use crate::wire::pod::Plain;
use crate::wire::request::ForgetOne;
use crate::wire::response::IoctlOut;

/// What an operation may need besides its arguments.
pub(super) struct Surroundings<'a> {
    /// The request behind its arguments.
    pub(super) source: &'a mut dyn RequestSource,
    /// How much of that belongs to the request.
    pub(super) left_len: usize,
    /// The request's number.
    pub(super) unique: u64,
    /// The room for the reply.
    pub(super) sink: &'a mut dyn ReplySink,
    /// Private room for a payload.
    pub(super) buffer: &'a mut Buffer,
    /// Where the error of an answer counts that comes later.
    pub(super) metrics: &'a Arc<Metrics>,
    /// How long the thread may be kept.
    pub(super) turn: &'a mut Turn,
}

impl Surroundings<'_> {
    /// Room for a payload behind the header.
    pub(super) fn payload_room(&self) -> usize {
        self.sink.capacity().saturating_sub(OUT_HEADER_LEN)
    }
}

/// Carries `operation` out. Errors: those of the file system; `EINVAL`, `ERANGE` no room for the
/// answer; `ENOSYS`.
#[expect(
    clippy::too_many_lines,
    reason = "one arm for each operation, and nothing else; in two halves it would not be exhaustive"
)]
pub(super) fn dispatch<'fs, F: FileSystem>(
    fs: &'fs F,
    operation: &Operation<'_>,
    around: &mut Surroundings<'_>,
) -> Result<Reply<'fs>> {
    use Operation as Op;

    match *operation {
        Op::Lookup { parent, name } => fs.lookup(parent, name).map(looked_up),
        Op::LookupSelf { node } => fs.lookup_self(node).map(Reply::Entry),
        Op::LookupParent { node } => fs.lookup_parent(node).map(Reply::Entry),
        Op::Forget { node, count } => forget(fs, node, count),
        Op::BatchForget { entry_count } => batch_forget(fs, entry_count, around),
        Op::Getattr { node, handle } => fs.getattr(node, handle).map(Reply::Attr),
        Op::Statx { node, handle, mask } => fs.statx(node, handle, mask).map(Reply::Statx),
        Op::Setattr {
            node,
            handle,
            ref changes,
        } => fs.setattr(node, handle, changes).map(Reply::Attr),
        Op::Readlink { node } => readlink(fs, node, around),
        Op::Symlink { ref new, target } => fs.symlink(new, target).map(Reply::Entry),
        Op::Mknod {
            ref new,
            mode,
            rdev,
        } => fs.mknod(new, mode, rdev).map(Reply::Entry),
        Op::Mkdir { ref new, mode } => fs.mkdir(new, mode).map(Reply::Entry),
        Op::Unlink { parent, name } => done(fs.unlink(parent, name)),
        Op::Rmdir { parent, name } => done(fs.rmdir(parent, name)),
        Op::Rename(ref request) | Op::Rename2(ref request) => done(fs.rename(request)),
        Op::Link {
            node,
            new_parent,
            new_name,
        } => fs.link(node, new_parent, new_name).map(Reply::Entry),
        Op::Open {
            node,
            flags,
            kill_suid_sgid,
        } => fs.open(node, flags, kill_suid_sgid).map(Reply::Opened),
        Op::Create(ref request) => create(fs, request),
        Op::Tmpfile(ref request) => created(fs.tmpfile(request)),
        Op::Read(request) => read(fs, request, around),
        Op::Write(ref request, size_bytes) => write(fs, request, size_bytes, around),
        Op::Flush(ref request) => done(fs.flush(request)),
        Op::Release(ref request) => done(fs.release(request)),
        Op::Fsync(open, scope) => done(fs.fsync(open, scope)),
        Op::Lseek {
            open,
            offset,
            whence,
        } => fs.lseek(open, offset, whence).map(Reply::Offset),
        Op::Fallocate(ref request) => done(fs.fallocate(request)),
        Op::CopyFileRange(ref request) => copy_32(fs, request),
        Op::CopyFileRange64(ref request) => fs.copy_file_range(request).map(Reply::Copied),
        Op::Opendir { node, flags } => fs.opendir(node, flags).map(Reply::Opened),
        Op::Readdir(ref request, size) => readdir(fs, request, size, around),
        Op::Readdirplus(ref request, size) => readdirplus(fs, request, size, around),
        Op::Releasedir(ref request) => done(fs.releasedir(request)),
        Op::Fsyncdir(open, scope) => done(fs.fsyncdir(open, scope)),
        Op::Setxattr(ref request) => done(fs.setxattr(request)),
        Op::Getxattr {
            node,
            name,
            size_bytes,
        } => xattr(size_bytes, around, |buf| fs.getxattr(node, name, buf)),
        Op::Listxattr { node, size_bytes } => {
            xattr(size_bytes, around, |buf| fs.listxattr(node, buf))
        }
        Op::Removexattr { node, name } => done(fs.removexattr(node, name)),
        Op::Access { caller, node, mask } => done(fs.access(&caller, node, mask)),
        Op::Statfs { node } => fs.statfs(node).map(Reply::Totals),
        Op::Syncfs { node } => done(fs.syncfs(node)),
        Op::Getlk(ref request) => fs.getlk(request).map(|held| Reply::Lock(*request, held)),
        Op::Setlk(ref request) => done(fs.setlk(request)),
        Op::Setlkw(ref request) => setlkw(fs, request, around),
        Op::Ioctl {
            ref request,
            input,
            output_len_max,
        } => ioctl(around, output_len_max, |room| {
            fs.ioctl(request, input, room)
        }),
        Op::Interrupt { request } => {
            fs.interrupt(request);
            Ok(Reply::Silent)
        }
        Op::Unsupported(_) => Err(Errno::ENOSYS),
    }
}

fn looked_up(lookup: Lookup<'_>) -> Reply<'_> {
    match lookup {
        Lookup::Found(entry) => Reply::Entry(entry),
        Lookup::Missing { valid } => Reply::NegativeEntry(valid),
    }
}

fn done<'fs>(result: Result<()>) -> Result<Reply<'fs>> {
    result.map(|()| Reply::Empty)
}

/// What would have to be made where nothing may be: `EROFS`, as open(2) says.
fn create<'fs, F: FileSystem>(fs: &'fs F, request: &CreateRequest<'_>) -> Result<Reply<'fs>> {
    match (request.intent, fs.create(request)) {
        (CreateIntent::OpenExisting, Err(Errno::ENOENT)) => Err(Errno::EROFS),
        (CreateIntent::OpenExisting | CreateIntent::CreateOrOpen, result) => created(result),
    }
}

fn created<'fs>(result: Result<(Entry<'fs>, Opened<'fs>)>) -> Result<Reply<'fs>> {
    result.map(|(entry, opened)| Reply::Created(opened, entry))
}

fn setlkw<'fs, F: FileSystem>(
    fs: &F,
    request: &LockRequest,
    around: &mut Surroundings<'_>,
) -> Result<Reply<'fs>> {
    let mut aside = Aside {
        sink: around.sink,
        unique: around.unique,
        opcode: Opcode::Setlkw,
        metrics: around.metrics,
    };
    fs.setlkw(request, &mut aside).map(|waited| match waited {
        Waited::Settled => Reply::Empty,
        Waited::Parked => Reply::Later,
    })
}

/// The length was cut to 32 bits, so a count beyond them is a fault of ours.
fn copy_32<'fs, F: FileSystem>(fs: &F, request: &CopyRangeRequest) -> Result<Reply<'fs>> {
    let copied = fs.copy_file_range(request)?;
    u32::try_from(copied)
        .map(Reply::Written)
        .map_err(|_| Errno::EIO)
}

fn forget<'fs, F: FileSystem>(fs: &F, node: NodeId, count: u64) -> Result<Reply<'fs>> {
    fs.forget(node, count);
    Ok(Reply::Silent)
}

/// The entries are bounded by the bytes that the request brought, not by the count it claims.
fn batch_forget<'fs, F: FileSystem>(
    fs: &F,
    entry_count: u32,
    around: &mut Surroundings<'_>,
) -> Result<Reply<'fs>> {
    let mut bytes = [0; size_of::<ForgetOne>()];
    let present_count = around.left_len / bytes.len();
    let claimed_count = usize::try_from(entry_count).unwrap_or(usize::MAX);
    for _ in 0..present_count.min(claimed_count) {
        around
            .source
            .read_exact(&mut bytes)
            .map_err(|_| Errno::EIO)?;
        if let Some((one, _)) = ForgetOne::split_from(&bytes) {
            fs.forget(NodeId::new(one.nodeid), one.nlookup);
        }
    }
    Ok(Reply::Silent)
}

/// The file system gets one byte more than the longest target, so that it can tell a target that
/// just fits from one that is cut. Errors: `ERANGE` the target does not fit the reply.
fn readlink<'fs, F: FileSystem>(
    fs: &F,
    node: NodeId,
    around: &mut Surroundings<'_>,
) -> Result<Reply<'fs>> {
    let room_len = around.payload_room().min(SYMLINK_TARGET_LEN_MAX);
    let len = fs.readlink(node, around.buffer.room(SYMLINK_TARGET_LEN_MAX + 1))?;
    buffered(len, room_len)
}

/// A READ without any room is refused: no bytes would mean the end of the file. The second turn of
/// the loop is the last, with waiting allowed.
fn read<'fs, F: FileSystem>(
    fs: &F,
    request: ReadRequest,
    around: &mut Surroundings<'_>,
) -> Result<Reply<'fs>> {
    let room_len = u32::try_from(around.payload_room()).unwrap_or(u32::MAX);
    let size_bytes = request.size_bytes.min(room_len);
    if size_bytes == 0 && request.size_bytes > 0 {
        return Err(Errno::EINVAL);
    }
    let len_max = usize::try_from(size_bytes).map_err(|_| Errno::EINVAL)?;
    loop {
        let mut room = ReadRoom::new(around.sink, len_max);
        let waiting = around.turn.waiting();
        let request = ReadRequest {
            size_bytes,
            waiting,
            ..request
        };
        match fs.read(&request, &mut room) {
            Err(Errno::EAGAIN) if waiting != Waiting::Allowed => {
                if !around.turn.may_wait_after_all() {
                    return Ok(Reply::NotNow);
                }
            }
            // Never more than what was really put there.
            read => return read.map(|len| Reply::InPlace(len.min(room.filled_len()))),
        }
    }
}

fn write<'fs, F: FileSystem>(
    fs: &F,
    request: &WriteRequest,
    size_bytes: u32,
    around: &mut Surroundings<'_>,
) -> Result<Reply<'fs>> {
    let len = usize::try_from(size_bytes).map_err(|_| Errno::EINVAL)?;
    let written = fs.write(request, &mut WritePayload::new(around.source, len))?;
    // Never more than what the guest sent.
    let written = u32::try_from(written).unwrap_or(u32::MAX).min(size_bytes);
    Ok(Reply::Written(written))
}

fn readdir<'fs, F: FileSystem>(
    fs: &F,
    request: &ReadDirRequest,
    size_bytes: usize,
    around: &mut Surroundings<'_>,
) -> Result<Reply<'fs>> {
    let room_len = around.payload_room().min(size_bytes);
    let mut packer = DirPacker::new(around.buffer.room(room_len));
    fs.readdir(request, &mut packer)?;
    packer.finish().map(Reply::Buffered)
}

fn readdirplus<'fs, F: FileSystem>(
    fs: &'fs F,
    request: &ReadDirRequest,
    size_bytes: usize,
    around: &mut Surroundings<'_>,
) -> Result<Reply<'fs>> {
    let room_len = around.payload_room().min(size_bytes);
    let mut packer = DirPlusPacker::new(around.buffer.room(room_len));
    fs.readdirplus(request, &mut packer)?;
    let (len, lookups) = packer.finish()?;
    Ok(Reply::Listing(len, lookups))
}

/// GETXATTR and LISTXATTR; with size 0 only the length is asked for.
/// Errors: `ERANGE` the reply has less room than the guest says.
fn xattr<'fs>(
    size_bytes: usize,
    around: &mut Surroundings<'_>,
    get: impl FnOnce(&mut [u8]) -> Result<usize>,
) -> Result<Reply<'fs>> {
    if size_bytes == 0 {
        let len = get(&mut [])?;
        return u32::try_from(len)
            .map(Reply::XattrLength)
            .map_err(|_| Errno::E2BIG);
    }
    if size_bytes > around.payload_room() {
        return Err(Errno::ERANGE);
    }
    let len = get(around.buffer.room(size_bytes))?;
    buffered(len, size_bytes)
}

/// An ioctl's data follow its fixed reply. Errors: `EINVAL` the reply has less room than claimed.
fn ioctl<'fs>(
    around: &mut Surroundings<'_>,
    output_len_max: usize,
    run: impl FnOnce(&mut [u8]) -> Result<usize>,
) -> Result<Reply<'fs>> {
    let fixed_len = size_of::<IoctlOut>();
    let len_max = fixed_len.saturating_add(output_len_max);
    if len_max > around.payload_room() {
        return Err(Errno::EINVAL);
    }
    let room = around.buffer.room(len_max);
    let (fixed, output) = room.split_at_mut_checked(fixed_len).ok_or(Errno::EINVAL)?;
    output.fill(0);
    let len = run(output)?.min(output_len_max);
    fixed.copy_from_slice(IoctlOut::zero().as_wire());
    Ok(Reply::Buffered(fixed_len.saturating_add(len)))
}

fn buffered<'fs>(len: usize, len_max: usize) -> Result<Reply<'fs>> {
    match len <= len_max {
        true => Ok(Reply::Buffered(len)),
        false => Err(Errno::ERANGE),
    }
}
