//! A request and the room for its reply, on plain bytes.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use virtiofsd::wire::channel::{ChannelError, FileSpan, LateReply, ReplySink, RequestSource};

/// A request on plain bytes; `reachable` of them can be read, the rest is out of reach.
#[derive(Debug)]
pub(crate) struct SliceSource<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) reachable: usize,
    position: usize,
}

impl<'a> SliceSource<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        SliceSource {
            bytes,
            reachable: bytes.len(),
            position: 0,
        }
    }
}

impl RequestSource for SliceSource<'_> {
    fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    fn read_exact(&mut self, buf: &mut [u8]) -> std::result::Result<(), ChannelError> {
        let end = self.position.checked_add(buf.len()).ok_or(ChannelError)?;
        if end > self.reachable {
            return Err(ChannelError);
        }
        buf.copy_from_slice(self.bytes.get(self.position..end).ok_or(ChannelError)?);
        self.position = end;
        Ok(())
    }

    fn write_to_file(&mut self, file: BorrowedFd<'_>, span: FileSpan) -> io::Result<usize> {
        let bytes = self.bytes[self.position..]
            .get(..span.len)
            .ok_or(io::ErrorKind::InvalidInput)?;
        File::from(file.try_clone_to_owned()?).write_all_at(bytes, span.offset)?;
        self.position += span.len;
        Ok(span.len)
    }
}

/// Room for a reply, filled with a pattern so that stray writes show.
#[derive(Debug)]
pub(crate) struct SliceSink {
    pub(crate) bytes: Vec<u8>,
    /// Offset and length of every write.
    pub(crate) writes: Vec<(usize, usize)>,
    /// Writes beyond this many fail, as if the memory had gone.
    pub(crate) write_count_max: usize,
    /// Writes that end beyond this fail, as if the memory were not there.
    pub(crate) reachable: usize,
}

/// What a reply's room holds before anything is written.
pub(crate) const PATTERN: u8 = 0xee;

impl SliceSink {
    pub(crate) fn new(capacity: usize) -> Self {
        SliceSink {
            bytes: vec![PATTERN; capacity],
            writes: Vec::new(),
            write_count_max: usize::MAX,
            reachable: capacity,
        }
    }
}

impl ReplySink for SliceSink {
    fn capacity(&self) -> usize {
        self.bytes.len()
    }

    fn write_at(&mut self, offset: usize, bytes: &[u8]) -> std::result::Result<(), ChannelError> {
        if self.writes.len() >= self.write_count_max {
            return Err(ChannelError);
        }
        let end = offset.checked_add(bytes.len()).ok_or(ChannelError)?;
        if end > self.reachable {
            return Err(ChannelError);
        }
        let room = self.bytes.get_mut(offset..end).ok_or(ChannelError)?;
        room.copy_from_slice(bytes);
        self.writes.push((offset, bytes.len()));
        Ok(())
    }

    fn read_from_file(
        &mut self,
        reply_offset: usize,
        file: BorrowedFd<'_>,
        span: FileSpan,
    ) -> io::Result<usize> {
        let room = self.bytes.get_mut(reply_offset..).unwrap_or_default();
        let len = span.len.min(room.len());
        File::from(file.try_clone_to_owned()?).read_at(&mut room[..len], span.offset)
    }

    fn park(&mut self) -> Option<Box<dyn LateReply>> {
        None
    }
}

/// Room for a reply that may come later, but once.
#[derive(Debug)]
pub(crate) struct ParkingSink {
    pub(crate) now: SliceSink,
    /// What came later.
    pub(crate) later: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl ParkingSink {
    pub(crate) fn new(capacity: usize) -> Self {
        ParkingSink {
            now: SliceSink::new(capacity),
            later: Arc::default(),
        }
    }
}

impl ReplySink for ParkingSink {
    fn capacity(&self) -> usize {
        self.now.capacity()
    }

    fn write_at(&mut self, offset: usize, bytes: &[u8]) -> std::result::Result<(), ChannelError> {
        self.now.write_at(offset, bytes)
    }

    fn read_from_file(
        &mut self,
        reply_offset: usize,
        file: BorrowedFd<'_>,
        span: FileSpan,
    ) -> io::Result<usize> {
        self.now.read_from_file(reply_offset, file, span)
    }

    fn park(&mut self) -> Option<Box<dyn LateReply>> {
        self.now.reachable = 0;
        Some(Box::new(SliceLateReply(Arc::clone(&self.later))))
    }
}

#[derive(Debug)]
struct SliceLateReply(Arc<Mutex<Vec<Vec<u8>>>>);

impl LateReply for SliceLateReply {
    fn finish(self: Box<Self>, reply: &[u8]) {
        self.0.lock().expect("no panic").push(reply.to_vec());
    }
}
