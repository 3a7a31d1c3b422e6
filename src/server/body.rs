//! What: which bytes of a request are copied into private memory, by lengths alone.
//!
//! In: the header and the number of readable bytes. Out: a [`BodyPlan`], or the errno for the
//! guest. Invariants: the plan adds up to `len` of the header and never exceeds what is readable;
//! what is copied is bounded for each opcode, so that no length in a header makes us allocate.
//! Does not: read the body.

use crate::server::decode_ext::{EXTENSIONS_LEN_MAX, ExtensionForm, takes_extensions};
use crate::sys::errno::{Errno, Result};
use crate::wire::extension::LEN_UNIT_BYTES;
use crate::wire::header::{IN_HEADER_LEN, InHeader};
use crate::wire::opcode::Opcode;
use crate::wire::request::{
    AccessIn, BatchForgetIn, CopyFileRangeIn, CreateIn, FallocateIn, FlushIn, ForgetIn, FsyncIn,
    GetattrIn, GetxattrIn, InitIn, InterruptIn, IoctlIn, LinkIn, LkIn, LseekIn, MkdirIn, MknodIn,
    OpenIn, ReadIn, ReleaseIn, Rename2In, RenameIn, SetattrIn, SetxattrIn, StatxIn, SyncfsIn,
    WriteIn,
};

/// Longest name of an extended attribute in bytes, without its NUL (`XATTR_NAME_MAX`).
pub(super) const XATTR_NAME_LEN_MAX: usize = 255;

/// Largest value, and longest list of names, in bytes (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`). Linux
/// itself cuts larger buffers to this.
pub(super) const XATTR_SIZE_MAX: usize = 64 * 1024;

/// Most bytes that one READDIR or READDIRPLUS gives, which bounds the buffer of each thread.
pub(super) const DIR_SIZE_MAX: usize = 1024 * 1024;

/// Longest target of a symbolic link in bytes, without its NUL (`PATH_MAX` - 1).
pub(super) const SYMLINK_TARGET_LEN_MAX: usize = 4095;

/// Most bytes of data with an ioctl, each way: what `_IOC` numbers can say.
pub(super) const IOCTL_DATA_LEN_MAX: usize = (1 << 14) - 1;

/// Bytes that are copied for one name. Names end at 255; the rest is for telling a name that is
/// too long from a name with something behind it.
const NAME_FIELD_LEN_MAX: usize = 4096;

/// How much of a body is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BodyLimit {
    /// Most bytes of arguments without extensions.
    args_len_max: usize,
    /// What a body with more means: an error, or (`None`) bytes that stay where they are.
    oversize: Option<Errno>,
}

impl BodyLimit {
    /// The rest of the body is payload that stays in the request, or is ignored.
    const fn fixed(args_len: usize) -> Self {
        BodyLimit {
            args_len_max: args_len,
            oversize: None,
        }
    }

    const fn names(fixed_len: usize, count: usize) -> Self {
        BodyLimit {
            args_len_max: fixed_len + count * NAME_FIELD_LEN_MAX,
            oversize: Some(Errno::ENAMETOOLONG),
        }
    }

    const fn xattr(fixed_len: usize, value_len_max: usize, oversize: Errno) -> Self {
        BodyLimit {
            args_len_max: fixed_len + NAME_FIELD_LEN_MAX + value_len_max,
            oversize: Some(oversize),
        }
    }

    const fn of(opcode: Opcode) -> Self {
        match opcode {
            Opcode::Lookup | Opcode::Unlink | Opcode::Rmdir => Self::names(0, 1),
            Opcode::Mknod => Self::names(size_of::<MknodIn>(), 1),
            Opcode::Mkdir => Self::names(size_of::<MkdirIn>(), 1),
            Opcode::Link => Self::names(size_of::<LinkIn>(), 1),
            Opcode::Create | Opcode::Tmpfile => Self::names(size_of::<CreateIn>(), 1),
            // A name and a target of at most 4096 bytes with its NUL.
            Opcode::Symlink => Self::names(0, 2),
            Opcode::Rename => Self::names(size_of::<RenameIn>(), 2),
            Opcode::Rename2 => Self::names(size_of::<Rename2In>(), 2),
            // setxattr(2): E2BIG for the value, ERANGE for the name.
            Opcode::Setxattr => Self::xattr(size_of::<SetxattrIn>(), XATTR_SIZE_MAX, Errno::E2BIG),
            Opcode::Getxattr => Self::xattr(size_of::<GetxattrIn>(), 0, Errno::ERANGE),
            Opcode::Removexattr => Self::xattr(0, 0, Errno::ERANGE),
            Opcode::Listxattr => Self::fixed(size_of::<GetxattrIn>()),
            Opcode::Forget => Self::fixed(size_of::<ForgetIn>()),
            Opcode::BatchForget => Self::fixed(size_of::<BatchForgetIn>()),
            Opcode::Getattr => Self::fixed(size_of::<GetattrIn>()),
            Opcode::Statx => Self::fixed(size_of::<StatxIn>()),
            Opcode::Setattr => Self::fixed(size_of::<SetattrIn>()),
            Opcode::Open | Opcode::Opendir => Self::fixed(size_of::<OpenIn>()),
            Opcode::Read | Opcode::Readdir | Opcode::Readdirplus => {
                Self::fixed(size_of::<ReadIn>())
            }
            Opcode::Write => Self::fixed(size_of::<WriteIn>()),
            Opcode::Release | Opcode::Releasedir => Self::fixed(size_of::<ReleaseIn>()),
            Opcode::Flush => Self::fixed(size_of::<FlushIn>()),
            Opcode::Fsync | Opcode::Fsyncdir => Self::fixed(size_of::<FsyncIn>()),
            Opcode::Access => Self::fixed(size_of::<AccessIn>()),
            Opcode::Init => Self::fixed(size_of::<InitIn>()),
            Opcode::Interrupt => Self::fixed(size_of::<InterruptIn>()),
            Opcode::Fallocate => Self::fixed(size_of::<FallocateIn>()),
            Opcode::Lseek => Self::fixed(size_of::<LseekIn>()),
            Opcode::CopyFileRange | Opcode::CopyFileRange64 => {
                Self::fixed(size_of::<CopyFileRangeIn>())
            }
            Opcode::Syncfs => Self::fixed(size_of::<SyncfsIn>()),
            Opcode::Readlink | Opcode::Statfs | Opcode::Destroy => Self::fixed(0),
            Opcode::Getlk | Opcode::Setlk | Opcode::Setlkw => Self::fixed(size_of::<LkIn>()),
            Opcode::Ioctl => BodyLimit {
                args_len_max: size_of::<IoctlIn>() + IOCTL_DATA_LEN_MAX,
                oversize: Some(Errno::EINVAL),
            },
            // Not served: nobody looks at the arguments.
            Opcode::Bmap
            | Opcode::Poll
            | Opcode::NotifyReply
            | Opcode::Setupmapping
            | Opcode::Removemapping
            | Opcode::Unknown(_) => Self::fixed(0),
        }
    }
}

/// Which bytes of a body are copied, by the lengths in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BodyPlan {
    /// Bytes of arguments to copy.
    pub(super) args_len: usize,
    /// Bytes of extensions to copy behind them.
    pub(super) extensions_len: usize,
    /// Bytes of the body that stay in the request.
    pub(super) left_len: usize,
}

impl BodyPlan {
    /// Splits a body; `readable_len` is how much follows the header in the request.
    ///
    /// Errors: `EINVAL` lengths that contradict each other, extensions where none belong or too
    /// many of them; `ENAMETOOLONG`, `E2BIG`, `ERANGE` arguments beyond every valid length.
    pub(super) fn new(
        header: &InHeader,
        opcode: Opcode,
        readable_len: usize,
        form: ExtensionForm,
    ) -> Result<Self> {
        let claimed_len = usize::try_from(header.len).map_err(|_| Errno::EINVAL)?;
        let body_len = claimed_len
            .checked_sub(IN_HEADER_LEN)
            .filter(|&len| len <= readable_len)
            .ok_or(Errno::EINVAL)?;
        let extensions_len = usize::try_from(u32::from(header.total_extlen) * LEN_UNIT_BYTES)
            .map_err(|_| Errno::EINVAL)?;
        let counted = form == ExtensionForm::Counted;
        let allowed = extensions_len == 0 || counted && takes_extensions(opcode);
        if !allowed || extensions_len > EXTENSIONS_LEN_MAX {
            return Err(Errno::EINVAL);
        }
        let all_args_len = body_len.checked_sub(extensions_len).ok_or(Errno::EINVAL)?;
        let limit = BodyLimit::of(opcode);
        // Where extensions cannot be told from arguments, they are copied along with them.
        let args_len_max = match !counted && takes_extensions(opcode) {
            true => limit.args_len_max.saturating_add(EXTENSIONS_LEN_MAX),
            false => limit.args_len_max,
        };
        let args_len = all_args_len.min(args_len_max);
        let left_len = all_args_len.saturating_sub(args_len);
        match limit.oversize {
            Some(errno) if left_len > 0 => Err(errno),
            Some(_) | None => Ok(BodyPlan {
                args_len,
                extensions_len,
                left_len,
            }),
        }
    }
}
