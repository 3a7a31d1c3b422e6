//! What: files from open to close: open, create, tmpfile, flush, release, fsync.
//!
//! In: nodes and `O_*` flags of the guest. Out: handles. Invariants: only regular files are
//! opened, and their type is known from the pinned descriptor before; of the guest's flags only
//! those on the list in [`host_flags`] reach the host; what was just made is identified by the
//! descriptor it was made with.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::SystemTime;

use super::PassthroughFs;
use super::cache_policy::{Access, CachedPages, OpenedFile, file_reply_flags, looks_at_contents};
use super::killpriv::SetIds;
use super::privilege::{AsCaller, CallerUmask, GroupKnowledge, HostCaller};
use super::settings::Settings;
use super::store::contents::{ContentsStamp, WaitingStamp};
use super::store::fd_budget::HeldFd;
use super::store::handles::Open;
use super::store::inode::Inode;
use super::store::unopened_files::Purpose;
use crate::fs::filesystem::{CreateIntent, CreateRequest, OpenNode, SyncScope, TmpfileRequest};
use crate::fs::types::{Caller, Entry, HandleRef, NodeId, Opened};
use crate::sys::data;
use crate::sys::errno::{Errno, Result};
use crate::sys::meta::{self, FileStat, FileType};
use crate::sys::open::{self, HostOpenFlags};
use crate::sys::path_ops::PlaceAt;
use crate::sys::thread::FsThread;
use crate::wire::flags::{OpenFlags, SessionFlags};

/// How often CREATE looks again when somebody else makes and removes the name in turns.
const CREATE_ATTEMPTS_MAX: u32 = 4;

/// The bits of the access mode, `O_ACCMODE`.
const ACCESS_MODE: u32 = 3;

impl PassthroughFs {
    /// Opens a node.
    ///
    /// # Errors
    /// `ENOSYS` if the guest shall open nothing; `EISDIR`, `ELOOP`, `ENXIO` by the type of the
    /// node, and what open(2) says.
    pub(super) fn open_node(
        &self,
        node: NodeId,
        flags: OpenFlags,
        set_ids: SetIds,
    ) -> Result<Opened<'_>> {
        if self.opens_no_files() {
            // The last that it sends in this session.
            return Err(Errno::ENOSYS);
        }
        let inode = self.store.get(node)?;
        let host = self.host_flags(flags)?;
        if let Some((file, stat)) = self.closed_lately(node, host) {
            return self.opened_file(&inode, file, flags, Some(stat));
        }
        let ticket = self.ticket()?;
        let pinned = inode.reach()?;
        let reopen = |host| self.reopen(inode.file_type, pinned.as_fd(), host);
        let open = |host| open_as_asked(host, flags, reopen);
        let file = self.open_changing(&inode, host, set_ids, open)?;
        self.opened_file(&inode, HeldFd::new(file, ticket), flags, None)
    }

    /// Makes a file unless it is there, and opens it.
    ///
    /// # Errors
    /// `EEXIST` with `O_EXCL`; `EOVERFLOW` and `EPERM` for who may not be acted for; `ESTALE`
    /// when the name comes and goes faster than it can be opened; what open(2) says.
    pub(super) fn create_file(
        &self,
        request: &CreateRequest<'_>,
    ) -> Result<(Entry<'_>, Opened<'_>)> {
        let caller = HostCaller::resolve(&self.translator, &request.new.caller)?;
        let parent = self.store.get(request.new.parent)?;
        let flags = self.host_flags(request.flags)?;
        let is_exclusive = request.flags.contains(OpenFlags::EXCL);
        match request.intent {
            CreateIntent::OpenExisting if is_exclusive => {
                self.lookup_in(&parent, request.new.name)?;
                return Err(Errno::EEXIST);
            }
            CreateIntent::OpenExisting => {
                return self.open_existing(&parent, request, flags, &caller);
            }
            CreateIntent::CreateOrOpen => {}
        }
        for _ in 0..CREATE_ATTEMPTS_MAX {
            match self.create_new(&parent, request, flags, &caller) {
                Err(Errno::EEXIST) if !is_exclusive => {}
                done => return done,
            }
            match self.open_existing(&parent, request, flags, &caller) {
                Err(Errno::ENOENT) => {}
                done => return done,
            }
        }
        Err(Errno::ESTALE)
    }

    fn create_new(
        &self,
        parent: &Inode,
        request: &CreateRequest<'_>,
        flags: HostOpenFlags,
        caller: &HostCaller,
    ) -> Result<(Entry<'_>, Opened<'_>)> {
        let contexts = &request.new.security_contexts;
        self.check_labels(contexts)?;
        let directory = parent.reach()?;
        let name = request.new.name.as_c_str();
        let ticket = self.relieved(|| self.store.ticket_for_new(parent))?;
        let flags = self.flags_for_new(flags);
        let file = self.make_as(caller, request.new.umask, || {
            self.store
                .budget()
                .with_room(|| open::create_new(directory.as_fd(), name, flags, request.mode))
        })?;
        let at = PlaceAt {
            directory: directory.as_fd(),
            name,
        };
        self.label_or_remove(at, file.as_fd(), contexts)?;
        self.grant_new(parent, HeldFd::new(file, ticket), Some(at), request.flags)
    }

    /// Opens what was there already. The guest believed that it was not, so it has checked no
    /// permissions of it: that is left to the host, as the caller.
    fn open_existing(
        &self,
        parent: &Inode,
        request: &CreateRequest<'_>,
        flags: HostOpenFlags,
        caller: &HostCaller,
    ) -> Result<(Entry<'_>, Opened<'_>)> {
        let entry = self.lookup_in(parent, request.new.name)?;
        let inode = self.inode_of(&entry)?;
        let set_ids = self.set_ids_by_flag(request.kill_suid_sgid);
        let known = self.group_knowledge();
        let ticket = self.ticket()?;
        // Before acting as the caller, who may not open files by handle.
        let pinned = inode.reach()?;
        let reopen = |flags| self.reopen(inode.file_type, pinned.as_fd(), flags);
        let open = |flags| {
            self.as_caller(caller, known, || {
                open_as_asked(flags, request.flags, reopen)
            })
        };
        let file = self.open_changing(&inode, flags, set_ids, open)?;
        let opened = self.opened_file(&inode, HeldFd::new(file, ticket), request.flags, None)?;
        Ok((entry, opened))
    }

    /// Makes a file without a name, and opens it. `O_EXCL` is not passed on: it would forbid
    /// linkat(2) on the host, which guests forbid or allow by themselves.
    ///
    /// # Errors
    /// `EINVAL` unless it is opened for writing; as `create_file`.
    pub(super) fn create_unnamed(
        &self,
        request: &TmpfileRequest<'_>,
    ) -> Result<(Entry<'_>, Opened<'_>)> {
        let caller = HostCaller::resolve(&self.translator, &request.caller)?;
        let parent = self.store.get(request.parent)?;
        let flags = self.host_flags(request.flags)?;
        let directory = parent.reach()?;
        let ticket = self.relieved(|| self.store.ticket_for_new(&parent))?;
        let flags = self.flags_for_new(flags);
        let file = self.make_as(&caller, request.umask, || {
            self.store
                .budget()
                .with_room(|| open::create_unnamed(directory.as_fd(), flags, request.mode))
        })?;
        self.label(file.as_fd(), &request.security_contexts)?;
        self.grant_new(&parent, HeldFd::new(file, ticket), None, request.flags)
    }

    /// Runs one step that makes something, as a caller and with its umask. Without DONT_MASK the
    /// guest has applied that already, which is all that can be done without access control
    /// lists.
    pub(super) fn make_as<T>(
        &self,
        caller: &HostCaller,
        umask: u32,
        step: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let thread = FsThread::current(&self.proc_fd)?;
        let umask = match self.negotiated().contains(SessionFlags::DONT_MASK) {
            true => umask,
            false => 0,
        };
        let _umask = CallerUmask::set(&thread, umask);
        // A list of the directory may let the caller in by any of its groups, and the guest names
        // only the directory's own.
        let known = match self.has_acl() {
            true => GroupKnowledge::None,
            false => self.group_knowledge(),
        };
        self.as_caller(caller, known, step)
    }

    /// Runs one step as a caller. Nothing but the system call that makes or opens something
    /// belongs into `step`.
    pub(super) fn as_caller<T>(
        &self,
        caller: &HostCaller,
        known: GroupKnowledge,
        step: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let thread = FsThread::current(&self.proc_fd)?;
        let _acting = AsCaller::become_caller(&thread, caller, known)?;
        step()
    }

    /// Who a caller is on the host.
    pub(super) fn host_caller(&self, caller: &Caller) -> Result<HostCaller> {
        HostCaller::resolve(&self.translator, caller)
    }

    fn grant_new(
        &self,
        parent: &Inode,
        file: HeldFd,
        place: Option<PlaceAt<'_>>,
        flags: OpenFlags,
    ) -> Result<(Entry<'_>, Opened<'_>)> {
        let entry = self.entry_of_new(parent, file.as_fd(), place)?;
        let inode = self.inode_of(&entry)?;
        let flags = match self.opens_no_files() {
            true => OpenFlags::RDWR,
            false => flags,
        };
        // As if it had been emptied: there are no pages of it to keep.
        let opened = self.opened_file(&inode, file, flags | OpenFlags::TRUNC, None)?;
        Ok((entry, opened))
    }

    /// How a file is made: one that all requests share must do for all of them.
    fn flags_for_new(&self, flags: HostOpenFlags) -> HostOpenFlags {
        match self.opens_no_files() {
            true => flags.difference(HostOpenFlags::WRONLY) | HostOpenFlags::RDWR,
            false => flags,
        }
    }

    /// Opens the file that a node pins, if it is one that may be opened.
    pub(super) fn reopen(
        &self,
        file_type: FileType,
        pinned: BorrowedFd<'_>,
        flags: HostOpenFlags,
    ) -> Result<OwnedFd> {
        match file_type {
            FileType::Regular => self
                .store
                .budget()
                .with_room(|| open::reopen(&self.proc_fd, pinned, flags)),
            FileType::Directory => Err(Errno::EISDIR),
            FileType::Symlink => Err(Errno::ELOOP),
            FileType::Fifo
            | FileType::Socket
            | FileType::CharDevice
            | FileType::BlockDevice
            | FileType::Unknown => Err(Errno::ENXIO),
        }
    }

    /// A handle for a file that was opened; `stat` if it was looked at since.
    fn opened_file(
        &self,
        inode: &Arc<Inode>,
        file: HeldFd,
        flags: OpenFlags,
        stat: Option<FileStat>,
    ) -> Result<Opened<'_>> {
        let fs_type = self.file_systems.kind(inode.identity.place, file.as_fd());
        let keeps_pages = looks_at_contents(self.settings.cache, flags, fs_type);
        let host = self.host_flags(flags)?;
        let is_reusable = Self::is_reusable(host, fs_type);
        // Without it, which is no error, the guest reads the file once more.
        let stat = match stat {
            None if keeps_pages || is_reusable => meta::stat_fd(file.as_fd()).ok(),
            known => known,
        };
        let stamp = stat.filter(|_| keeps_pages);
        let stamp = stamp.and_then(|stat| self.contents_stamp(&stat));
        let is_known = stamp.is_some_and(|stamp| inode.known_contents.are(stamp));
        let access = Access::of(flags);
        let opened = OpenedFile {
            access,
            fs_type,
            pages: match is_known {
                true => CachedPages::Valid,
                false => CachedPages::Unknown,
            },
        };
        let waiting = stamp.filter(|_| !is_known);
        let waiting = waiting.map(|stamp| WaitingStamp::new(Arc::clone(inode), stamp));
        let reusable_in = stat.filter(|_| is_reusable);
        let reusable_in = reusable_in.and_then(|stat| Self::state_for_reuse(&stat));
        let handle = match self.opens_no_files() {
            true => self.keep_unopened(inode.id, file, access),
            false => self
                .handles
                .insert_file(inode.id, Open::File(file), waiting, reusable_in)?,
        };
        Ok(Opened {
            handle: HandleRef::new(self, inode.id, handle),
            flags: file_reply_flags(self.settings.cache, self.negotiated(), opened),
        })
    }

    /// The state of a file's contents, if it can be told from a later one.
    fn contents_stamp(&self, stat: &FileStat) -> Option<ContentsStamp> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        ContentsStamp::of(stat, now.ok()?, self.settings.keep_cache_after)
    }

    fn host_flags(&self, flags: OpenFlags) -> Result<HostOpenFlags> {
        let flags = host_flags(flags, &self.settings, self.has_writeback())?;
        Ok(match self.opens_no_files() {
            true => Self::flags_of_shared(flags),
            false => flags,
        })
    }

    /// Whether the guest holds back writes, and so owns the end of each file.
    pub(super) fn has_writeback(&self) -> bool {
        self.negotiated().contains(SessionFlags::WRITEBACK_CACHE)
    }

    /// A descriptor of the guest was closed: lets the host's file system see a close(2), since
    /// some report there what they could not write. That takes a descriptor; when there is none
    /// left, writing out reports the same.
    ///
    /// # Errors
    /// `EBADF`, `EISDIR`, and what close(2) says.
    pub(super) fn flush_file(&self, open: OpenNode) -> Result<()> {
        if self.is_unopened(open.handle) {
            return self.flush_unopened(open.node);
        }
        let handle = self.handles.get(open)?;
        let file = handle.file()?;
        match data::close_duplicate(file) {
            Err(Errno::EMFILE | Errno::ENFILE) => data::sync_contents(file),
            done => done,
        }
    }

    /// Closes a file.
    ///
    /// # Errors
    /// `EBADF`; `EISDIR` for a directory, which stays open.
    pub(super) fn close_file(&self, open: OpenNode) -> Result<()> {
        if self.is_unopened(open.handle) {
            // Some guests release what they got from CREATE.
            return Ok(());
        }
        let handle = self
            .handles
            .remove(open, |handle| handle.file().map(drop))?;
        self.keep_or_close(handle);
        Ok(())
    }

    /// Makes a file durable.
    ///
    /// # Errors
    /// `EBADF`, `EISDIR`, and what fsync(2) says.
    pub(super) fn sync_file(&self, open: OpenNode, scope: SyncScope) -> Result<()> {
        let handle = self.opened(open, Purpose::Look)?;
        sync(handle.file()?, scope)
    }

    /// Makes the whole file system of a node durable. It has to be opened for that, so special
    /// files do not do; guests name the root of a mount.
    ///
    /// # Errors
    /// `EBADF` for an unknown node and for special files, as syncfs(2) says of what it cannot use.
    pub(super) fn sync_fs_of(&self, node: NodeId) -> Result<()> {
        let inode = self.store.get(node)?;
        let pinned = inode.reach()?;
        let file = match inode.file_type {
            FileType::Regular => {
                open::reopen(&self.proc_fd, pinned.as_fd(), HostOpenFlags::empty())?
            }
            FileType::Directory => {
                open::reopen_directory(&self.proc_fd, pinned.as_fd(), HostOpenFlags::empty())?
            }
            FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharDevice
            | FileType::BlockDevice
            | FileType::Unknown => return Err(Errno::EBADF),
        };
        data::sync_file_system(file.as_fd())
    }
}

/// Makes an open file or directory durable.
pub(super) fn sync(file: BorrowedFd<'_>, scope: SyncScope) -> Result<()> {
    match scope {
        SyncScope::Everything => data::sync_everything(file),
        SyncScope::ContentsOnly => data::sync_contents(file),
    }
}

/// Opens by `open` with `flags`, to which the `guest`'s have become. What a guest opens for writing
/// only is opened for reading, too, if it holds back writes; but who may only write a file shall
/// not be worse off for that. Such a guest can still write whole pages and beyond the end; where
/// it has to read the rest of a page first, its write fails with `EBADF`.
fn open_as_asked(
    flags: HostOpenFlags,
    guest: OpenFlags,
    open: impl Fn(HostOpenFlags) -> Result<OwnedFd>,
) -> Result<OwnedFd> {
    let reads_too = guest.contains(OpenFlags::WRONLY) && flags.contains(HostOpenFlags::RDWR);
    match open(flags) {
        Err(Errno::EACCES) if reads_too => {
            open(flags.difference(HostOpenFlags::RDWR) | HostOpenFlags::WRONLY)
        }
        opened => opened,
    }
}

/// What a guest's flags become on the host. What is not named here does not pass:
///
/// | flag | why it stays behind |
/// |---|---|
/// | `O_CREAT`, `O_EXCL`, `O_NOFOLLOW`, `O_DIRECTORY`, `O_TMPFILE`, `O_PATH` | they would change what is opened, and that is settled |
/// | `O_APPEND` | every write says it itself (RWF_APPEND), so that several guests can append |
/// | `O_ASYNC`, `O_NOCTTY`, `O_LARGEFILE`, `O_CLOEXEC` | they concern the guest's own process |
/// | `O_DIRECT`, `O_NOATIME` | unless the settings say so |
///
/// A guest that holds back writes reads the rest of a page that it writes a part of, so a file
/// opened for writing must be readable for it.
///
/// # Errors
/// `EINVAL` for the access mode 3, which on Linux opens for neither reading nor writing.
pub(super) fn host_flags(
    guest: OpenFlags,
    settings: &Settings,
    has_writeback: bool,
) -> Result<HostOpenFlags> {
    let mut passing =
        HostOpenFlags::TRUNC | HostOpenFlags::NONBLOCK | HostOpenFlags::DSYNC | HostOpenFlags::SYNC;
    passing.set(HostOpenFlags::DIRECT, settings.allow_direct_io);
    passing.set(HostOpenFlags::NOATIME, settings.preserve_noatime);
    let access = match guest.bits() & ACCESS_MODE {
        0 => HostOpenFlags::empty(),
        1 if has_writeback => HostOpenFlags::RDWR,
        1 => HostOpenFlags::WRONLY,
        2 => HostOpenFlags::RDWR,
        _ => return Err(Errno::EINVAL),
    };
    let asked = HostOpenFlags::from_bits_truncate(guest.bits() & !ACCESS_MODE);
    Ok(access | asked.intersection(passing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passthrough::settings::CachePolicy;

    const WRONLY: u32 = 1;
    const RDWR: u32 = 2;
    const SYNC: u32 = HostOpenFlags::SYNC.bits();
    const DIRECT: u32 = HostOpenFlags::DIRECT.bits();
    const NOATIME: u32 = HostOpenFlags::NOATIME.bits();
    const TRUNC: u32 = HostOpenFlags::TRUNC.bits();
    const NONBLOCK: u32 = HostOpenFlags::NONBLOCK.bits();

    fn open_all() -> Settings {
        Settings {
            allow_direct_io: true,
            preserve_noatime: true,
            ..Settings::new(CachePolicy::Auto)
        }
    }

    fn host(guest: u32, settings: &Settings, has_writeback: bool) -> Result<u32> {
        host_flags(OpenFlags::from_bits_retain(guest), settings, has_writeback)
            .map(|flags| flags.bits())
    }

    #[test]
    fn host_flags_of_every_single_bit_pass_by_the_list_only() {
        let plain = Settings::new(CachePolicy::Auto);
        let always = TRUNC | NONBLOCK | SYNC;
        for bit in (2..32).map(|shift| 1_u32 << shift) {
            assert_eq!(host(bit, &plain, false), Ok(bit & always), "{bit:#o}");
            let wide = always | DIRECT | NOATIME;
            assert_eq!(host(bit, &open_all(), false), Ok(bit & wide), "{bit:#o}");
        }
        assert_eq!(host(!1, &plain, false), Ok(RDWR | always));
        assert_eq!(host(!2, &plain, false), Ok(WRONLY | always));
    }

    #[test]
    fn host_flags_of_access_modes_follow_writeback() {
        let plain = Settings::new(CachePolicy::Auto);
        for (guest, direct, held_back) in [
            (0, Ok(0), Ok(0)),
            (WRONLY, Ok(WRONLY), Ok(RDWR)),
            (RDWR, Ok(RDWR), Ok(RDWR)),
            (3, Err(Errno::EINVAL), Err(Errno::EINVAL)),
            (WRONLY | 0o2000, Ok(WRONLY), Ok(RDWR)),
        ] {
            assert_eq!(host(guest, &plain, false), direct, "{guest}");
            assert_eq!(host(guest, &plain, true), held_back, "{guest}");
        }
    }
}
