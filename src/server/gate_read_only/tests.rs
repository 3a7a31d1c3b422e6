//! One case for each operation, and each flag that counts.

use super::*;
use crate::fs::filesystem::{
    AttrChanges, CopyRangeRequest, FallocateRequest, FlushRequest, IoctlRequest, LockRequest,
    NewObject, OpenNode, ReadDirRequest, ReadRequest, ReleaseRequest, RenameRequest,
    SetXattrRequest, SyncScope, TmpfileRequest, Waiting, WriteRequest,
};
use crate::fs::late::RequestId;
use crate::fs::types::{
    Caller, FileName, HandleId, LockKind, LockOwner, LockRange, LockType, NodeId, SecurityContexts,
};
use crate::ids::types::{GuestGid, GuestUid};
use crate::wire::opcode::Opcode;

const NODE: NodeId = NodeId::new(7);
const HANDLE: HandleId = HandleId::new(8);
const OPEN: OpenNode = OpenNode {
    node: NODE,
    handle: HANDLE,
};
const RDONLY: OpenFlags = OpenFlags::empty();

fn caller() -> Caller {
    Caller {
        uid: Some(GuestUid::ROOT),
        gid: Some(GuestGid::ROOT),
        pid: 1,
        supplementary_gid: None,
    }
}

fn name() -> FileName<'static> {
    FileName::new(c"name").unwrap()
}

fn new_object() -> NewObject<'static> {
    NewObject {
        caller: caller(),
        parent: NODE,
        name: name(),
        umask: 0,
        security_contexts: SecurityContexts::default(),
    }
}

fn create(flags: OpenFlags) -> Operation<'static> {
    Operation::Create(CreateRequest {
        new: new_object(),
        mode: 0o644,
        flags: flags | OpenFlags::CREAT,
        intent: CreateIntent::CreateOrOpen,
        kill_suid_sgid: true,
    })
}

fn open(flags: OpenFlags) -> Operation<'static> {
    Operation::Open {
        node: NODE,
        flags,
        kill_suid_sgid: true,
    }
}

fn access(mask: u32) -> Operation<'static> {
    Operation::Access {
        caller: caller(),
        node: NODE,
        mask,
    }
}

fn ioctl(command: u32) -> Operation<'static> {
    Operation::Ioctl {
        request: IoctlRequest {
            node: NODE,
            handle: HANDLE,
            caller: caller(),
            command,
            is_32_bit: false,
        },
        input: b"",
        output_len_max: 0,
    }
}

fn verdict(operation: Operation<'_>) -> Result<()> {
    ReadOnlyGate.admit(operation).map(drop)
}

fn renaming() -> RenameRequest<'static> {
    RenameRequest {
        parent: NODE,
        name: name(),
        new_parent: NODE,
        new_name: name(),
        flags: 0,
    }
}

fn copying() -> CopyRangeRequest {
    CopyRangeRequest {
        node_in: NODE,
        handle_in: HANDLE,
        offset_in: 0,
        node_out: NODE,
        handle_out: HANDLE,
        offset_out: 0,
        len_bytes: 0,
        flags: 0,
        caller: caller(),
    }
}

/// They change names or attributes.
fn changing_names() -> Vec<Operation<'static>> {
    let new = new_object();
    vec![
        Operation::Setattr {
            node: NODE,
            handle: Some(HANDLE),
            changes: AttrChanges::default(),
        },
        Operation::Symlink { new, target: c"to" },
        Operation::Mknod {
            new,
            mode: 0,
            rdev: 0,
        },
        Operation::Mkdir { new, mode: 0 },
        Operation::Unlink {
            parent: NODE,
            name: name(),
        },
        Operation::Rmdir {
            parent: NODE,
            name: name(),
        },
        Operation::Rename(renaming()),
        Operation::Rename2(renaming()),
        Operation::Link {
            node: NODE,
            new_parent: NODE,
            new_name: name(),
        },
    ]
}

/// They change or make contents.
fn changing_contents() -> Vec<Operation<'static>> {
    let write = WriteRequest {
        node: NODE,
        handle: HANDLE,
        offset: 0,
        flags: OpenFlags::RDWR,
        from_cache: true,
        kill_suid_sgid: false,
    };
    vec![
        Operation::Tmpfile(TmpfileRequest {
            caller: caller(),
            parent: NODE,
            mode: 0,
            umask: 0,
            flags: RDONLY,
            security_contexts: SecurityContexts::default(),
        }),
        Operation::Write(write, 0),
        Operation::Fallocate(FallocateRequest {
            node: NODE,
            handle: HANDLE,
            mode: 0,
            offset: 0,
            len_bytes: 0,
            caller: caller(),
        }),
        Operation::CopyFileRange(copying()),
        Operation::CopyFileRange64(copying()),
        Operation::Setxattr(SetXattrRequest {
            node: NODE,
            name: c"user.x",
            value: b"",
            flags: 0,
            kill_sgid: false,
        }),
        Operation::Removexattr {
            node: NODE,
            name: c"user.x",
        },
    ]
}

#[test]
fn what_changes_something_is_refused_even_if_it_would_change_nothing() {
    for operation in [changing_names(), changing_contents()].concat() {
        assert_eq!(verdict(operation), Err(Errno::EROFS), "{operation:?}");
    }
}

/// They only ask.
fn asking() -> Vec<Operation<'static>> {
    let directory = ReadDirRequest {
        node: NODE,
        handle: HANDLE,
        offset: 0,
    };
    let handle = Some(HANDLE);
    vec![
        Operation::Lookup {
            parent: NODE,
            name: name(),
        },
        Operation::LookupSelf { node: NODE },
        Operation::LookupParent { node: NODE },
        Operation::Getattr { node: NODE, handle },
        Operation::Statx {
            node: NODE,
            handle,
            mask: 0,
        },
        Operation::Readlink { node: NODE },
        Operation::Read(ReadRequest {
            waiting: Waiting::Allowed,
            node: NODE,
            handle: HANDLE,
            offset: 0,
            size_bytes: 1,
            flags: OpenFlags::RDWR,
        }),
        Operation::Lseek {
            open: OPEN,
            offset: 0,
            whence: 3,
        },
        Operation::Readdir(directory, 1),
        Operation::Readdirplus(directory, 1),
        Operation::Getxattr {
            node: NODE,
            name: c"user.x",
            size_bytes: 1,
        },
        Operation::Listxattr {
            node: NODE,
            size_bytes: 1,
        },
        Operation::Statfs { node: NODE },
    ]
}

/// They lock, make durable, or give back what the guest holds.
fn holding() -> Vec<Operation<'static>> {
    let release = ReleaseRequest {
        open: OPEN,
        flock_owner: None,
    };
    let lock = LockRequest {
        node: NODE,
        handle: HANDLE,
        owner: LockOwner::new(1),
        kind: LockKind::Posix,
        lock_type: LockType::Write,
        range: LockRange::WHOLE_FILE,
        pid: 1,
    };
    vec![
        Operation::Forget {
            node: NODE,
            count: 1,
        },
        Operation::BatchForget { entry_count: 1 },
        Operation::Flush(FlushRequest {
            open: OPEN,
            owner: LockOwner::new(1),
        }),
        Operation::Release(release),
        Operation::Releasedir(release),
        Operation::Fsync(OPEN, SyncScope::Everything),
        Operation::Fsyncdir(OPEN, SyncScope::ContentsOnly),
        Operation::Syncfs { node: NODE },
        Operation::Getlk(lock),
        Operation::Setlk(lock),
        Operation::Setlkw(lock),
        Operation::Interrupt {
            request: RequestId::new(1),
        },
        Operation::Unsupported(Opcode::Bmap),
    ]
}

#[test]
fn what_asks_locks_syncs_or_gives_back_passes() {
    for operation in [asking(), holding()].concat() {
        let admitted = ReadOnlyGate.admit(operation).unwrap();
        assert_eq!(format!("{admitted:?}"), format!("{operation:?}"));
    }
}

#[test]
fn open_passes_for_reading_alone() {
    let of = OpenFlags::from_bits_retain;
    for (flags, expected) in [
        (of(0), Ok(())),
        (OpenFlags::WRONLY, Err(Errno::EROFS)),
        (OpenFlags::RDWR, Err(Errno::EROFS)),
        (of(3), Err(Errno::EROFS)),
        (OpenFlags::TRUNC, Err(Errno::EROFS)),
        (OpenFlags::TRUNC | OpenFlags::RDWR, Err(Errno::EROFS)),
        (OpenFlags::APPEND | OpenFlags::NONBLOCK, Ok(())),
        (OpenFlags::CREAT | OpenFlags::EXCL, Ok(())),
        (of(!3 & !OpenFlags::TRUNC.bits()), Ok(())),
    ] {
        assert_eq!(verdict(open(flags)), expected, "{flags:?}");
        let opendir = Operation::Opendir { node: NODE, flags };
        assert_eq!(verdict(opendir), expected, "{flags:?}");
    }
}

#[test]
fn an_open_that_passes_clears_no_set_id_bits() {
    match ReadOnlyGate.admit(open(RDONLY)) {
        Ok(Operation::Open {
            node,
            flags,
            kill_suid_sgid,
        }) => assert_eq!((node, flags, kill_suid_sgid), (NODE, RDONLY, false)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn create_becomes_an_open_for_reading() {
    let excl = OpenFlags::EXCL;
    for (flags, expected) in [
        (RDONLY, Some(OpenFlags::CREAT)),
        (
            OpenFlags::NONBLOCK,
            Some(OpenFlags::CREAT | OpenFlags::NONBLOCK),
        ),
        (OpenFlags::WRONLY, None),
        (OpenFlags::RDWR, None),
        (OpenFlags::TRUNC, None),
        // Whether the name is there decides between two errors, so it has to be looked up.
        (excl, Some(OpenFlags::CREAT | excl)),
        (excl | OpenFlags::WRONLY, Some(OpenFlags::CREAT | excl)),
        (
            excl | OpenFlags::RDWR | OpenFlags::TRUNC,
            Some(OpenFlags::CREAT | excl),
        ),
    ] {
        match (ReadOnlyGate.admit(create(flags)), expected) {
            (Ok(Operation::Create(request)), Some(expected)) => {
                assert_eq!(request.flags, expected, "{flags:?}");
                assert_eq!(request.intent, CreateIntent::OpenExisting, "{flags:?}");
                assert!(!request.kill_suid_sgid, "{flags:?}");
            }
            (admitted, expected) => {
                assert_eq!(admitted.map(drop), Err(Errno::EROFS), "{flags:?}");
                assert_eq!(expected, None, "{flags:?}");
            }
        }
    }
}

#[test]
fn access_for_writing_is_refused() {
    for mask in 0..8 {
        let expected = match mask & 2 {
            0 => Ok(()),
            _ => Err(Errno::EROFS),
        };
        assert_eq!(verdict(access(mask)), expected, "{mask}");
    }
    // What is no mask is for the file system to refuse.
    assert_eq!(verdict(access(0x100)), Ok(()));
}

#[test]
fn ioctls_pass_by_the_list_only() {
    for command in ASKING_IOCTLS {
        assert_eq!(verdict(ioctl(command)), Ok(()), "{command:#x}");
    }
    for command in CHANGING_IOCTLS {
        assert_eq!(verdict(ioctl(command)), Err(Errno::EROFS), "{command:#x}");
    }
    // TCGETS, FICLONE, FITRIM, FS_IOC_FIEMAP.
    for command in [0, 0x5401, 0x4004_9409, 0xc018_5879, 0xc020_660b, u32::MAX] {
        assert_eq!(verdict(ioctl(command)), Err(Errno::ENOTTY), "{command:#x}");
    }
}
