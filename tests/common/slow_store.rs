//! What: a file system that takes its time, for what a daemon does while it waits.
//!
//! In: a directory to mount on, and how long each READ and each LOOKUP or GETATTR shall take. Out:
//! a mounted file system of FUSE, served by threads of this process, the host's page cache on
//! top, without any read-ahead; and counts of what reached it, and of how much at once.
//!
//! The tree: a directory with files `f0`, `f1`, ... of [`FILE_LEN`] bytes, as many as anybody
//! asks for. Byte `n` of file `k` is what [`byte_at`] says.
//!
//! Invariant: unmounted, and nobody is kept waiting, when dropped.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::share::TempDir;
use super::{sys, u64_of, usize_of};

/// Length of each file.
pub(crate) const FILE_LEN: u64 = 64 << 20;

/// Threads that serve, so that they are never what is waited for.
const THREADS: usize = 80;

const ROOT: u64 = 1;
/// Node of `f0`.
const FIRST: u64 = 16;
/// For ever.
const LONG: u64 = 1 << 20;

/// What reached the store.
#[derive(Debug, Default)]
pub(crate) struct Count {
    delay_us: AtomicU64,
    now: AtomicUsize,
    most: AtomicUsize,
    total: AtomicUsize,
}

impl Count {
    /// How long each one takes from now on.
    pub(crate) fn set_delay(&self, delay: Duration) {
        let delay = u64::try_from(delay.as_micros()).expect("a short delay");
        self.delay_us.store(delay, Ordering::SeqCst);
    }

    /// The most that were under way at once, since the last time.
    pub(crate) fn take_most(&self) -> usize {
        self.most.swap(0, Ordering::SeqCst)
    }

    /// All there were.
    pub(crate) fn total(&self) -> usize {
        self.total.load(Ordering::SeqCst)
    }

    fn take_time(&self) {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        self.total.fetch_add(1, Ordering::SeqCst);
        let delay = self.delay_us.load(Ordering::SeqCst);
        if delay > 0 {
            thread::sleep(Duration::from_micros(delay));
        }
        self.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How the store counts.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) reads: Count,
    /// LOOKUP and GETATTR.
    pub(crate) looks: Count,
}

/// A mounted store.
#[derive(Debug)]
pub(crate) struct SlowStore {
    directory: TempDir,
    pub(crate) counts: Arc<Counts>,
    threads: Vec<JoinHandle<()>>,
}

/// What the file number `file` has at `offset`.
pub(crate) fn byte_at(file: u64, offset: u64) -> u8 {
    let mixed = (offset / 512).wrapping_mul(7).wrapping_add(file);
    u8::try_from(mixed % 251).expect("below 251")
}

/// Inode number of the file with this number.
pub(crate) fn node_of(file: u64) -> u64 {
    FIRST + file
}

impl SlowStore {
    /// Mounts one; none, with a word about why, where that is not allowed. With `remembers` the
    /// kernel keeps names and attributes.
    pub(crate) fn mount_or_skip(test: &str, remembers: bool) -> Option<Self> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let directory = TempDir::new("slow");
        let mounted = device.and_then(|device| {
            sys::mount_fuse(&device, directory.path())?;
            Ok(device)
        });
        let device = match mounted {
            Ok(device) => Arc::new(device),
            Err(error) => {
                println!("{test}: skipped, no file system of FUSE can be mounted: {error}");
                return None;
            }
        };
        let counts = Arc::new(Counts::default());
        let valid = if remembers { LONG } else { 0 };
        let threads = (0..THREADS).map(|_| {
            let (device, counts) = (Arc::clone(&device), Arc::clone(&counts));
            thread::spawn(move || serve(&device, &counts, valid))
        });
        Some(SlowStore {
            directory,
            counts: Arc::clone(&counts),
            threads: threads.collect(),
        })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }
}

impl Drop for SlowStore {
    fn drop(&mut self) {
        let path: &Path = self.directory.path();
        sys::unmount(path);
        for thread in self.threads.drain(..) {
            // One that has panicked has said so.
            let _ = thread.join();
        }
    }
}

/// Until the file system is unmounted.
fn serve(device: &File, counts: &Counts, valid: u64) {
    let mut request = vec![0; 256 << 10];
    loop {
        match (&*device).read(&mut request) {
            Ok(len) => {
                let message = &request[..len];
                if let Some(reply) = answer(message, counts, valid) {
                    // Fails only for who has gone meanwhile.
                    let _ = (&*device).write(&reply);
                }
            }
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return,
            // EINTR, EAGAIN; ENOENT for a request that was taken back.
            Err(_) => thread::yield_now(),
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The reply to a request, if it has one.
fn answer(request: &[u8], counts: &Counts, valid: u64) -> Option<Vec<u8>> {
    let (opcode, unique, node) = (word(request, 4), long(request, 8), long(request, 16));
    let body = &request[40..];
    let result = match opcode {
        1 => {
            counts.looks.take_time();
            look_up(body).map(|node| entry(node, valid))
        }
        2 | 36 | 42 => return None,
        3 => {
            counts.looks.take_time();
            Ok([long_words(&[valid, 0]), attr(node)].concat())
        }
        // OPEN: keep the pages. OPENDIR.
        14 => Ok(long_words(&[0, 2])),
        27 => Ok(long_words(&[0, 0])),
        15 => {
            counts.reads.take_time();
            Ok(contents(node - FIRST, long(body, 8), word(body, 16)))
        }
        17 => Ok(vec![0; 80]),
        // RELEASE, FLUSH, RELEASEDIR.
        18 | 25 | 29 => Ok(Vec::new()),
        26 => Ok(init()),
        28 => Ok(Vec::new()),
        _ => Err(libc::ENOSYS),
    };
    let (error, payload) = match result {
        Ok(payload) => (0, payload),
        Err(error) => (-error, Vec::new()),
    };
    let len = u32::try_from(16 + payload.len()).expect("a short reply");
    let mut reply = len.to_ne_bytes().to_vec();
    reply.extend(error.to_ne_bytes());
    reply.extend(unique.to_ne_bytes());
    reply.extend(payload);
    Some(reply)
}

fn look_up(body: &[u8]) -> Result<u64, i32> {
    let name = body
        .strip_suffix(&[0])
        .and_then(|name| name.strip_prefix(b"f"));
    let number = name.and_then(|name| std::str::from_utf8(name).ok()?.parse::<u64>().ok());
    number.map(|number| FIRST + number).ok_or(libc::ENOENT)
}

fn contents(file: u64, offset: u64, size: u32) -> Vec<u8> {
    let end = offset.saturating_add(u64::from(size)).min(FILE_LEN);
    let mut bytes = Vec::with_capacity(usize_of(size));
    let mut at = offset;
    while at < end {
        let next = ((at / 512 + 1) * 512).min(end);
        let len = usize::try_from(next - at).expect("at most 512");
        bytes.resize(bytes.len() + len, byte_at(file, at));
        at = next;
    }
    bytes
}

fn long_words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn attr(node: u64) -> Vec<u8> {
    let (mode, links, size) = match node {
        ROOT => (libc::S_IFDIR | 0o755, 2, 0),
        _ => (libc::S_IFREG | 0o644, 1, FILE_LEN),
    };
    let times = [1_000_000_000; 3];
    let mut bytes = long_words(&[node, size, size / 512, times[0], times[1], times[2]]);
    bytes.extend(words(&[0, 0, 0, mode, links, 0, 0, 0, 4096, 0]));
    bytes
}

fn entry(node: u64, valid: u64) -> Vec<u8> {
    [long_words(&[node, 0, valid, valid, 0]), attr(node)].concat()
}

/// Version 7.31; asynchronous reads, look-ups in one directory at once; no read-ahead; 512 requests
/// in the background; writes of a page.
fn init() -> Vec<u8> {
    const ASYNC_READ: u32 = 1;
    const PARALLEL_DIROPS: u32 = 1 << 18;
    let mut bytes = words(&[7, 31, 0, ASYNC_READ | PARALLEL_DIROPS]);
    bytes.extend(512_u16.to_ne_bytes());
    bytes.extend(512_u16.to_ne_bytes());
    bytes.extend(words(&[4096, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(u64_of(bytes.len()), 64);
    bytes
}
