//! What: shared memory that its owner may cut short. Touching a page beyond the end of the file
//! behind a mapping raises SIGBUS, mmap(2), which ends a process that does not handle it.
//!
//! In: the ranges of mappings, each with the unit in which it is mapped. Out: [`Watch`], which
//! says whether a page of its range was found missing. The handler puts zero pages of our own in
//! place of the page and of all behind it in the range, notes that, and lets the access go on;
//! what was read means nothing then, and what was written is lost, so whoever accesses such
//! memory asks afterwards. A fault outside all ranges ends the process, as ever.
//!
//! ```text
//!   access -> SIGBUS -> in a watched range? -- yes --> zeros from the page to the range's end,
//!                            | no                      is_lost() is true, access goes on
//!                            v
//!                       default action, access again -> killed
//! ```
//!
//! All behind the page: files are cut at the end, so one fault is enough for what is cut off, and
//! a range never falls into more than two mappings however often it is cut. (A file with a hole
//! that cannot be filled loses what comes after it; the range is lost anyway.)
//!
//! Invariants: the handler uses atomics and raw system calls only, see signal-safety(7), and
//! leaves errno as it was: no call sets it that does not fail. A range is given back before its
//! addresses can be mapped anew. Does not: map or unmap for its callers; handle memory errors of
//! the hardware.
#![expect(unsafe_code, reason = "a signal handler")]

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::sys::check;
use crate::sys::errno::Errno;

/// Most ranges at once. A table of guest memory has at most 509, and two of them may exist while
/// one takes the other's place.
const SLOT_COUNT: usize = 2048;

/// `BUS_ADRERR`: there is no such page in the file. See sigaction(2).
const BUS_ADRERR: c_int = 2;

/// One range. `start` is zero where there is none; the others mean something only between two
/// equal looks at `start`.
#[derive(Debug)]
struct Slot {
    taken: AtomicBool,
    start: AtomicUsize,
    len: AtomicUsize,
    page: AtomicUsize,
    lost: AtomicBool,
}

static SLOTS: [Slot; SLOT_COUNT] = [const {
    Slot {
        taken: AtomicBool::new(false),
        start: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        page: AtomicUsize::new(0),
        lost: AtomicBool::new(false),
    }
}; SLOT_COUNT];

/// A range that is watched for as long as this lives. Drop it before the range is unmapped.
#[derive(Debug)]
pub struct Watch(&'static Slot);

impl Watch {
    /// Watches `len` bytes at `start`, mapped readable and writable. `unit` is what the file calls
    /// its block size: on hugetlbfs the size of its pages, in which alone it can be mapped; on
    /// others it means nothing, and where the range shows that it is ignored.
    ///
    /// # Errors
    /// As sigaction(2), the first time; `ENOMEM` when too many ranges are watched, and `EINVAL`
    /// for a range that is none.
    pub fn new(start: *const u8, len: usize, unit: usize) -> io::Result<Watch> {
        let start = start.addr();
        let is_unit = |unit: usize| {
            unit.is_power_of_two() && start.is_multiple_of(unit) && len.is_multiple_of(unit)
        };
        let page = [unit.max(page_size()), page_size()]
            .into_iter()
            .find(|unit| is_unit(*unit))
            .filter(|_| start != 0 && len != 0 && start.checked_add(len).is_some())
            .ok_or(Errno::EINVAL)?;
        handle_signal()?;
        let slot = SLOTS
            .iter()
            .find(|slot| !slot.taken.swap(true, Ordering::Acquire))
            .ok_or(Errno::ENOMEM)?;
        slot.len.store(len, Ordering::Relaxed);
        slot.page.store(page, Ordering::Relaxed);
        slot.lost.store(false, Ordering::Relaxed);
        // Pairs with the Acquire in `hit`: who sees the start sees the rest.
        slot.start.store(start, Ordering::Release);
        Ok(Watch(slot))
    }

    /// Whether an access, by any thread, has found a page missing. The thread that did so knows
    /// at once: its own access came before this.
    pub fn is_lost(&self) -> bool {
        self.0.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.start.store(0, Ordering::Release);
        // Pairs with the Acquire in `new`: the next one finds the start at zero.
        self.0.taken.store(false, Ordering::Release);
    }
}

/// The kernel's smallest unit of a mapping.
fn page_size() -> usize {
    // SAFETY: takes no pointers.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// Installs the handler, once.
fn handle_signal() -> io::Result<()> {
    static INSTALLED: OnceLock<std::result::Result<(), Errno>> = OnceLock::new();
    Ok((*INSTALLED.get_or_init(|| {
        let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_bus_error;
        // The standard library gives its threads a stack of their own for signals.
        set_action(handler as usize, libc::SA_SIGINFO | libc::SA_ONSTACK)
    }))?)
}

fn set_action(handler: usize, flags: c_int) -> std::result::Result<(), Errno> {
    // SAFETY: all zeros are a valid sigaction: no flags, an empty mask, the default action.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY: `action` is one struct sigaction, only read; the handler it names has the signature
    // that SA_SIGINFO asks for and keeps to signal-safety(7), or it is the default action.
    let set = unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) };
    check(set)?;
    Ok(())
}

extern "C" fn on_bus_error(_signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo_t to a handler with SA_SIGINFO.
    let info = unsafe { &*info };
    // SAFETY: `si_addr` is set for SIGBUS; for one sent by kill(2) it is some number, which the
    // code tells apart.
    let address = unsafe { info.si_addr() }.addr();
    let hit = if info.si_code == BUS_ADRERR {
        SLOTS.iter().find_map(|slot| slot.hit(address))
    } else {
        None
    };
    let patched = hit.is_some_and(|(slot, start, len)| {
        // Before the access goes on, so that its thread sees it afterwards.
        slot.lost.store(true, Ordering::SeqCst);
        map_zeros(start, len)
    });
    if !patched {
        // The access is tried again when this returns, and ends the process.
        let _ = set_action(libc::SIG_DFL, 0);
    }
}

impl Slot {
    /// The rest of the range from the page of `address` on, if that lies in it.
    fn hit(&'static self, address: usize) -> Option<(&'static Slot, usize, usize)> {
        let start = self.start.load(Ordering::Acquire);
        let len = self.len.load(Ordering::Acquire);
        let page = self.page.load(Ordering::Acquire);
        // The mapping that a thread has just touched stays watched until it is done with it; only
        // another one can have changed meanwhile.
        if start == 0 || self.start.load(Ordering::Acquire) != start {
            return None;
        }
        let offset = address.checked_sub(start).filter(|offset| *offset < len)?;
        let skip = offset & !page.wrapping_sub(1);
        Some((self, start.checked_add(skip)?, len.checked_sub(skip)?))
    }
}

/// Maps zeros over a part of a watched range.
fn map_zeros(start: usize, len: usize) -> bool {
    let flags = libc::MAP_FIXED | libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE;
    // SAFETY: the range is a part of a mapping that its owner keeps while it is watched, and in
    // which nothing of Rust's lives: guest memory is only ever touched by raw copies and atomics.
    // The raw call needs no lock and no memory, unlike what a library may do around it.
    let mapped = unsafe {
        libc::syscall(
            libc::SYS_mmap,
            start,
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            flags,
            -1,
            0,
        )
    };
    usize::try_from(mapped).is_ok_and(|mapped| mapped == start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::process::ExitStatusExt;
    use std::path::Path;
    use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};
    use vmm_sys_util::tempfile::TempFile;

    const PAGE: usize = 4096;

    fn mapping(pages: usize) -> (File, MmapRegion<()>) {
        let file = TempFile::new_in(Path::new("/dev/shm")).unwrap().into_file();
        file.set_len((pages * PAGE) as u64).unwrap();
        let region = FileOffset::new(file.try_clone().unwrap(), 0);
        (file, MmapRegion::from_file(region, pages * PAGE).unwrap())
    }

    fn watch(region: &MmapRegion<()>) -> Watch {
        Watch::new(region.as_ptr(), region.size(), PAGE).unwrap()
    }

    fn byte(region: &MmapRegion<()>, at: usize) -> u8 {
        region.as_volatile_slice().read_obj(at).unwrap()
    }

    #[test]
    fn access_beyond_the_end_of_the_file_is_lost_and_reads_zeros() {
        let (file, region) = mapping(8);
        let watch = watch(&region);
        region.as_volatile_slice().write_obj(7_u8, 0).unwrap();
        assert!(!watch.is_lost());
        file.set_len(4 * PAGE as u64).unwrap();
        assert_eq!(byte(&region, 3 * PAGE), 0);
        assert!(!watch.is_lost(), "that page is there");
        assert_eq!(byte(&region, 6 * PAGE + 5), 0);
        assert!(watch.is_lost());
        region
            .as_volatile_slice()
            .write_obj(9_u8, 5 * PAGE)
            .unwrap();
        assert_eq!(byte(&region, 5 * PAGE), 9, "memory of our own");
        assert_eq!(byte(&region, 0), 7, "what is there stays");
        file.set_len(0).unwrap();
        assert_eq!(byte(&region, 0), 0);
        assert_eq!(byte(&region, 8 * PAGE - 1), 0);
    }

    #[test]
    fn neighbours_are_told_apart() {
        let (first_file, first) = mapping(2);
        let (_second_file, second) = mapping(2);
        let watches = [watch(&first), watch(&second)];
        first_file.set_len(0).unwrap();
        byte(&first, PAGE);
        assert!(watches[0].is_lost());
        assert!(!watches[1].is_lost());
    }

    #[test]
    fn many_threads_may_fault_at_once() {
        let (file, region) = mapping(64);
        let watch = watch(&region);
        file.set_len(0).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let region = &region;
                scope.spawn(move || {
                    for page in (0..64).rev() {
                        byte(region, page * PAGE + thread);
                    }
                });
            }
        });
        assert!(watch.is_lost());
    }

    #[test]
    fn ranges_that_are_none_are_refused() {
        let (_file, region) = mapping(2);
        let start = region.as_ptr();
        for (len, unit) in [(0, PAGE), (PAGE + 1, PAGE), (1, 1 << 40)] {
            assert!(Watch::new(start, len, unit).is_err(), "{len} {unit}");
        }
        assert!(Watch::new(ptr::null(), PAGE, PAGE).is_err());
    }

    /// NFS, for one, calls a mebibyte its block size, and maps pages all the same.
    #[test]
    fn block_size_that_the_range_does_not_fit_is_ignored() {
        let (file, region) = mapping(3);
        for unit in [0, 3, 512, 1 << 20, 1 << 40] {
            let watch = Watch::new(region.as_ptr(), region.size(), unit).unwrap();
            assert_eq!(watch.0.page.load(Ordering::Relaxed), PAGE, "{unit}");
        }
        let watch = Watch::new(region.as_ptr(), region.size(), 1 << 20).unwrap();
        file.set_len(2 * PAGE as u64).unwrap();
        region.as_volatile_slice().write_obj(7_u8, PAGE).unwrap();
        byte(&region, 2 * PAGE);
        assert!(watch.is_lost());
        assert_eq!(byte(&region, PAGE), 7, "what is there stays");
    }

    /// The process has to die of it, so it is another one: this test again, asked to.
    #[test]
    fn access_outside_watched_ranges_ends_the_process() {
        const ASKED: &str = "VIRTIOFSD_TEST_BUS_ERROR";
        let (file, region) = mapping(2);
        if std::env::var_os(ASKED).is_some() {
            let (_other_file, other) = mapping(2);
            let _watch = watch(&other);
            file.set_len(0).unwrap();
            byte(&region, 0);
            unreachable!("the access came back");
        }
        let name = "sys::sigbus::tests::access_outside_watched_ranges_ends_the_process";
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(ASKED, "1")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(libc::SIGBUS));
    }
}
