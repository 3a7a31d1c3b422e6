//! What: open directories: opendir, readdir, readdirplus, releasedir, fsyncdir.
//!
//! In: handles and cookies. Out: entries, into the sink of the reply. A guest reads a directory
//! in many small messages; the host is read in large ones, and what a message leaves over is
//! kept for the next. Invariants: cookies are the host's, opaque, 64 bits; offset 0 always reads
//! afresh; an entry that was not taken is presented again. One message at a time reads a handle:
//! its stream is locked, over the host's calls too, since the descriptor has one position.
//!
//! ```text
//!   buffer: [ taken | left over ]   position = cookie before `left over`
//!                   ^start      ^end
//!   message at `position`: go on here; at 0: rewind; elsewhere: lseek
//! ```

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::PassthroughFs;
use super::cache_policy::directory_reply_flags;
use super::lookup::Directory;
use super::open::sync;
use super::store::fd_budget::HeldFd;
use super::store::handles::Open;
use super::store::inode::Inode;
use super::store::unopened_files::Purpose;
use crate::fs::filesystem::{OpenNode, ReadDirRequest, SyncScope};
use crate::fs::types::{
    DirEntry, DirPlusSink, DirSink, Entry, FileName, HandleRef, NodeId, Opened, Packed,
};
use crate::sys::dirent::{self, HostDirent};
use crate::sys::errno::{Errno, Result};
use crate::sys::meta::FileType;
use crate::sys::open;
use crate::wire::flags::OpenFlags;

/// How much of a directory is read at once: about 1,000 names, as glibc does.
const BUFFER_LEN: usize = 32 * 1024;

/// A directory that the guest has open.
#[derive(Debug)]
pub(super) struct OpenDirectory {
    directory: HeldFd,
    inode: Arc<Inode>,
    stream: Mutex<Stream>,
}

impl OpenDirectory {
    fn new(directory: HeldFd, inode: Arc<Inode>) -> Self {
        OpenDirectory {
            directory,
            inode,
            stream: Mutex::default(),
        }
    }

    /// The cookie at which it stands; `None` after a failed call.
    pub(super) fn position(&self) -> Option<u64> {
        self.lock().position
    }

    /// Passes entries from `offset` on to `take` until it is full or the directory ends. Says
    /// whether there was anything left to pass.
    ///
    /// # Errors
    /// What lseek(2) and getdents64(2) say, but only before the first entry: later the guest
    /// gets what there is, and the error with its next message.
    fn for_each(
        &self,
        offset: u64,
        mut take: impl FnMut(&HostDirent<'_>) -> Packed,
    ) -> Result<Filled> {
        let mut stream = self.lock();
        stream.move_to(self.as_fd(), offset)?;
        let mut took_any = false;
        loop {
            match stream.fill(self.as_fd()) {
                Ok(Filled::Entries) => {}
                Ok(Filled::End) if took_any => return Ok(Filled::Entries),
                Ok(Filled::End) => return Ok(Filled::End),
                Err(_) if took_any => return Ok(Filled::Entries),
                Err(errno) => return Err(errno),
            }
            let Some((entry, record_len)) = dirent::first_entry(stream.left_over()) else {
                // The kernel writes whole records only.
                return Err(Errno::EIO);
            };
            match take(&entry) {
                Packed::Yes => took_any = true,
                Packed::Full => return Ok(Filled::Entries),
            }
            let next_offset = entry.next_offset;
            stream.advance(record_len, next_offset);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Stream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for OpenDirectory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Whether there is anything left to read.
enum Filled {
    Entries,
    End,
}

/// Where the reading of a directory stands.
#[derive(Debug)]
struct Stream {
    /// Empty until the first message, so that opening a directory costs no memory.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// The cookie at `start`; `None` when a failed call left the descriptor who knows where.
    position: Option<u64>,
}

impl Default for Stream {
    fn default() -> Self {
        Stream {
            buffer: Box::default(),
            start: 0,
            end: 0,
            position: Some(0),
        }
    }
}

impl Stream {
    fn left_over(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    fn advance(&mut self, record_len: usize, next_offset: u64) {
        self.start = self.start.saturating_add(record_len);
        self.position = Some(next_offset);
    }

    /// Makes sure that there is an entry in the buffer.
    fn fill(&mut self, directory: BorrowedFd<'_>) -> Result<Filled> {
        if self.start < self.end {
            return Ok(Filled::Entries);
        }
        if self.buffer.is_empty() {
            self.buffer = vec![0; BUFFER_LEN].into_boxed_slice();
        }
        (self.start, self.end) = (0, 0);
        self.end = dirent::read_entries(directory, &mut self.buffer)?;
        Ok(if self.end == 0 {
            Filled::End
        } else {
            Filled::Entries
        })
    }

    /// Goes to a cookie, without a system call when the stream is there already.
    fn move_to(&mut self, directory: BorrowedFd<'_>, offset: u64) -> Result<()> {
        let is_fresh = self.buffer.is_empty();
        if self.position == Some(offset) && (offset != 0 || is_fresh) {
            return Ok(());
        }
        (self.start, self.end, self.position) = (0, 0, None);
        match dirent::seek_entries(directory, offset) {
            Err(Errno::EINVAL) if i64::try_from(offset).is_err() => {
                self.scan_to(directory, offset)?
            }
            moved => moved?,
        }
        self.position = Some(offset);
        Ok(())
    }

    /// Goes to a cookie by reading from the beginning: for file systems whose cookies use all 64
    /// bits, which lseek(2) refuses as negative offsets. Bounded by the size of the directory.
    ///
    /// # Errors
    /// `EINVAL` when no entry has this cookie.
    fn scan_to(&mut self, directory: BorrowedFd<'_>, offset: u64) -> Result<()> {
        dirent::seek_entries(directory, 0)?;
        while let Filled::Entries = self.fill(directory)? {
            let (entry, record_len) = dirent::first_entry(self.left_over()).ok_or(Errno::EIO)?;
            let next_offset = entry.next_offset;
            self.advance(record_len, next_offset);
            if next_offset == offset {
                return Ok(());
            }
        }
        self.position = None;
        Err(Errno::EINVAL)
    }
}

impl PassthroughFs {
    /// Opens a directory, always for reading; of the flags only `O_NOATIME` has a meaning.
    ///
    /// # Errors
    /// `ENOSYS` if the guest shall open nothing; `EBADF`, `ENOTDIR`, and what open(2) says.
    pub(super) fn open_directory(&self, node: NodeId, flags: OpenFlags) -> Result<Opened<'_>> {
        if self.opens_no_directories() {
            // The last that it sends in this session.
            return Err(Errno::ENOSYS);
        }
        let inode = self.store.get(node)?;
        let mut passing = open::HostOpenFlags::empty();
        passing.set(open::HostOpenFlags::NOATIME, self.settings.preserve_noatime);
        let flags = open::HostOpenFlags::from_bits_truncate(flags.bits()).intersection(passing);
        let opened = self.directory_of(inode, flags)?;
        let handle = self.handles.insert(node, Open::Directory(opened))?;
        Ok(Opened {
            handle: HandleRef::new(self, node, handle),
            flags: directory_reply_flags(self.settings.cache),
        })
    }

    /// Opens the directory that a node pins.
    ///
    /// # Errors
    /// `ENOTDIR`, and what open(2) says.
    pub(super) fn directory_of(
        &self,
        inode: Arc<Inode>,
        flags: open::HostOpenFlags,
    ) -> Result<OpenDirectory> {
        if inode.file_type != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        let ticket = self.ticket()?;
        let reached = inode.reach()?;
        let directory = self.relieved(|| {
            let budget = self.store.budget();
            budget.with_room(|| open::reopen_directory(&self.proc_fd, reached.as_fd(), flags))
        })?;
        drop(reached);
        Ok(OpenDirectory::new(HeldFd::new(directory, ticket), inode))
    }

    /// Lets `read` have the directory that a request is about, unless directories look empty.
    fn with_directory(
        &self,
        request: &ReadDirRequest,
        read: impl FnOnce(&OpenDirectory) -> Result<Filled>,
    ) -> Result<()> {
        let (node, handle) = (request.node, request.handle);
        if self.settings.no_readdir {
            let opened = self.opened(OpenNode { node, handle }, Purpose::Look)?;
            return opened.directory().map(drop);
        }
        if !self.is_unopened_directory(handle) {
            let opened = self.handles.get(OpenNode { node, handle })?;
            return read(opened.directory()?).map(drop);
        }
        let directory = match self.dir_streams.take(node, request.offset) {
            Some(directory) => directory,
            None => self.directory_of(self.store.get(node)?, open::HostOpenFlags::empty())?,
        };
        if let Filled::Entries = read(&directory)? {
            self.dir_streams.put(node, directory);
            self.drop_unopened_if_forgotten(node);
        }
        Ok(())
    }

    /// Reads a directory.
    ///
    /// # Errors
    /// `EBADF`, `ENOTDIR`, and what getdents64(2) says before the first entry.
    pub(super) fn read_directory(
        &self,
        request: &ReadDirRequest,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        self.with_directory(request, |directory| {
            directory.for_each(request.offset, |entry| {
                sink.add(self.dir_entry(directory, entry))
            })
        })
    }

    /// Reads a directory with attributes. An entry that cannot be looked up, because it is gone
    /// or the daemon has reached a limit, is passed on without them: a name is never left out.
    ///
    /// # Errors
    /// As `read_directory`.
    pub(super) fn read_directory_plus<'fs>(
        &'fs self,
        request: &ReadDirRequest,
        sink: &mut dyn DirPlusSink<'fs>,
    ) -> Result<()> {
        self.with_directory(request, |directory| {
            directory.for_each(request.offset, |entry| {
                if !sink.fits(entry.name.to_bytes().len()) {
                    return Packed::Full;
                }
                sink.add(
                    self.dir_entry(directory, entry),
                    self.lookup_entry(directory, entry),
                )
            })
        })
    }

    fn lookup_entry(&self, parent: &OpenDirectory, entry: &HostDirent<'_>) -> Option<Entry<'_>> {
        // `.` and `..` are no FileNames: guests resolve them by themselves.
        let name = FileName::new(entry.name).ok()?;
        let directory = Directory {
            inode: &parent.inode,
            fd: parent.as_fd(),
        };
        self.lookup_listed(directory, name, entry.ino).ok()
    }

    /// An entry as the guest shall see it. Its inode number is that of the directory's place
    /// also where another file system is mounted on it, as on the host.
    fn dir_entry<'a>(&self, parent: &OpenDirectory, entry: &HostDirent<'a>) -> DirEntry<'a> {
        let whereabouts = parent.inode.whereabouts;
        DirEntry {
            ino: whereabouts.guest_ino(entry.ino, self.submounts()),
            next_offset: entry.next_offset,
            kind: entry.kind,
            name: entry.name.to_bytes(),
        }
    }

    /// Closes a directory.
    ///
    /// # Errors
    /// `EBADF`; `ENOTDIR` for a file, which stays open.
    pub(super) fn close_directory(&self, open: OpenNode) -> Result<()> {
        if self.is_unopened_directory(open.handle) {
            return Ok(());
        }
        self.handles
            .remove(open, |handle| handle.directory().map(drop))
            .map(drop)
    }

    /// Makes a directory durable.
    ///
    /// # Errors
    /// `EBADF`, `ENOTDIR`, and what fsync(2) says.
    pub(super) fn sync_directory(&self, open: OpenNode, scope: SyncScope) -> Result<()> {
        let handle = self.opened(open, Purpose::Look)?;
        sync(handle.directory()?.as_fd(), scope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passthrough::tests::share::Share;
    use crate::sys::proc_fd::ProcFd;

    #[test]
    fn scan_to_finds_the_place_that_lseek_would() {
        let share = Share::new();
        for index in 0..1_200 {
            share.write(&format!("file-{index}"), b"");
        }
        let proc_fd = ProcFd::open().unwrap();
        let pinned = open::directory(share.path()).unwrap();
        let none = open::HostOpenFlags::empty();
        let directory = open::reopen_directory(&proc_fd, pinned.as_fd(), none).unwrap();
        let mut stream = Stream::default();
        let mut names = Vec::new();
        while let Filled::Entries = stream.fill(directory.as_fd()).unwrap() {
            let (entry, len) = dirent::first_entry(stream.left_over()).unwrap();
            let (name, next_offset) = (entry.name.to_owned(), entry.next_offset);
            names.push((name, next_offset));
            stream.advance(len, next_offset);
        }
        assert_eq!(names.len(), 1_202);
        for index in [0, 1, 999, 1_200] {
            stream.scan_to(directory.as_fd(), names[index].1).unwrap();
            stream.fill(directory.as_fd()).unwrap();
            let (entry, _) = dirent::first_entry(stream.left_over()).unwrap();
            assert_eq!(entry.name, names[index + 1].0.as_c_str());
        }
        let nowhere = stream.scan_to(directory.as_fd(), u64::MAX - 5);
        assert_eq!(nowhere, Err(Errno::EINVAL));
        assert_eq!(stream.position, None);
    }
}
