//! What: a split virtqueue, VIRTIO 1.2 section 2.7, seen from the device.
//!
//! In: the addresses and the size that the front end gave. Out: [`AvailRing`], which one worker
//! pops requests from, and [`UsedRing`], which completed requests are returned by.
//!
//! Invariants: every part of a ring lies inside one memory region and is aligned, checked when
//! the ring starts; indices wrap at 65536; never more than the queue's size is believed to be
//! available. The two halves share no state: the used ring may be fed by several threads (under
//! a lock of the caller) while one thread pops.
//!
//! Ordering, with its partner in the driver:
//!
//! ```text
//!  driver: write descriptors, ring[i]; release; avail.idx     us: avail.idx Acquire; read them
//!  us: write used elements; used.idx Release                  driver: used.idx; acquire; read
//!  us: used.idx; fence SeqCst; read used_event or flags       driver: write used_event; fence;
//!                                                                     read used.idx
//!  us: avail_event or flags; fence SeqCst; read avail.idx     driver: avail.idx; fence; read
//!                                                                     avail_event or flags
//! ```
//! In the last two pairs each side writes, fences, then reads what the other wrote: at least one
//! of them sees the other's write, so a wake-up is never lost.

use std::fmt;
use std::sync::atomic::Ordering;

use super::chain::{BrokenRing, Chain, DescriptorTable, RawDescriptor};
use super::memory::{GuestRam, Window};
use super::ring_sync::fence;

/// Largest queue, VIRTIO 1.2 section 2.7.
pub(super) const QUEUE_SIZE_MAX: u16 = 32768;

/// Smallest queue: a request with a reply takes two descriptors, so a queue of one entry could
/// carry none by itself.
const QUEUE_SIZE_MIN: u16 = 2;

const FLAG_NO_INTERRUPT: u16 = 1;
const FLAG_NO_NOTIFY: u16 = 1;
/// `flags` and `idx` come before the elements of both rings.
const FLAGS: usize = 0;
const IDX: usize = 2;
const ELEMENTS: usize = 4;

/// What the driver accepted of the features that change a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RingFeatures {
    pub(super) event_idx: bool,
    pub(super) indirect: bool,
}

/// The three parts of a ring in front-end addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RingAddresses {
    pub(super) descriptors: u64,
    pub(super) avail: u64,
    pub(super) used: u64,
}

/// Why a ring cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RingError {
    /// No power of two, below [`QUEUE_SIZE_MIN`] or above [`QUEUE_SIZE_MAX`].
    Size(u32),
    /// Descriptors not at 16, available ring not at 2 or used ring not at 4 bytes.
    Alignment(&'static str),
    /// The part is not inside one memory region.
    Address(&'static str),
    /// There is no guest memory at all.
    NoMemory,
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RingError::Size(size) => write!(
                f,
                "queue size {size} is not a power of two from {QUEUE_SIZE_MIN} to {QUEUE_SIZE_MAX}"
            ),
            RingError::Alignment(part) => write!(f, "the {part} is not aligned"),
            RingError::Address(part) => {
                write!(f, "the {part} is not inside one region of guest memory")
            }
            RingError::NoMemory => f.write_str(
                "the front end shares no guest memory: add share=on to its memory backend",
            ),
        }
    }
}

/// Checks the size of SET_VRING_NUM.
pub(super) fn check_size(size: u32) -> Result<u16, RingError> {
    match u16::try_from(size) {
        Ok(good) if good.is_power_of_two() && (QUEUE_SIZE_MIN..=QUEUE_SIZE_MAX).contains(&good) => {
            Ok(good)
        }
        _ => Err(RingError::Size(size)),
    }
}

/// A ring's parts, translated and checked.
#[derive(Debug)]
pub(super) struct Ring {
    size: u16,
    features: RingFeatures,
    descriptors: Window,
    avail: Window,
    used: Window,
}

impl Ring {
    /// Finds the parts in guest memory.
    pub(super) fn translate(
        ram: &GuestRam,
        size: u16,
        addresses: RingAddresses,
        features: RingFeatures,
    ) -> Result<Ring, RingError> {
        if ram.is_empty() {
            return Err(RingError::NoMemory);
        }
        let entries = usize::from(size);
        // The event word stands behind the elements, and only drivers with EVENT_IDX reserve it.
        let event = if features.event_idx { 2 } else { 0 };
        let part = |name, address: u64, align: u64, per_entry: usize, fixed: usize| {
            if !address.is_multiple_of(align) {
                return Err(RingError::Alignment(name));
            }
            let len = entries.saturating_mul(per_entry).saturating_add(fixed);
            let window = ram.user_window(address, len);
            // A region may lie in its mapping otherwise than in the front end's addresses.
            match window.ok_or(RingError::Address(name))? {
                window if window.is_aligned(align) => Ok(window),
                _ => Err(RingError::Alignment(name)),
            }
        };
        Ok(Ring {
            size,
            features,
            descriptors: part("descriptor table", addresses.descriptors, 16, 16, 0)?,
            avail: part("available ring", addresses.avail, 2, 2, 4 + event)?,
            used: part("used ring", addresses.used, 4, 8, 4 + event)?,
        })
    }

    /// The two halves: requests from `next_avail` on, completions from where the used ring is.
    pub(super) fn split(self, next_avail: u16) -> Result<(AvailRing, UsedRing), BrokenRing> {
        let broken = BrokenRing::RingMemory;
        let next_used = self.used.load_u16(IDX, Ordering::Relaxed).ok_or(broken)?;
        // With EVENT_IDX the flags must be zero; without, zero is where we start from.
        self.used
            .store_u16(FLAGS, 0, Ordering::Relaxed)
            .ok_or(broken)?;
        let returns = UsedRing {
            size: self.size,
            event_idx: self.features.event_idx,
            used: self.used.clone(),
            avail: self.avail.clone(),
            next: next_used,
            asked: next_used,
            signalled: None,
        };
        let requests = AvailRing {
            size: self.size,
            event_idx: self.features.event_idx,
            table: DescriptorTable {
                window: self.descriptors,
                size: self.size,
                indirect: self.features.indirect,
            },
            avail: self.avail,
            used: self.used,
            next: next_avail,
            seen: next_avail,
            ahead: [Ahead::default(); READ_AHEAD],
            ahead_count: 0,
            ahead_taken: 0,
            taken: 0,
            taken_with: vec![0; usize::from(self.size)],
        };
        Ok((requests, returns))
    }
}

/// Where element `index` of `width` bytes is; masking keeps it inside the ring.
fn element(index: u16, size: u16, width: usize) -> usize {
    let slot = index & size.saturating_sub(1);
    usize::from(slot)
        .saturating_mul(width)
        .saturating_add(ELEMENTS)
}

/// Where the event word is, behind the elements.
fn event_word(size: u16, width: usize) -> usize {
    usize::from(size)
        .saturating_mul(width)
        .saturating_add(ELEMENTS)
}

/// Most entries that are read at once. The driver writes new ones into the same cache lines all the
/// time, and each look of ours takes the line from it, for some 100 ns on both sides.
const READ_AHEAD: usize = 16;

/// An entry of the available ring that was read before its turn.
#[derive(Clone, Copy, Debug, Default)]
struct Ahead {
    head: u16,
    descriptor: RawDescriptor,
}

/// The half that requests come from.
#[derive(Debug)]
pub(super) struct AvailRing {
    size: u16,
    event_idx: bool,
    table: DescriptorTable,
    avail: Window,
    used: Window,
    /// The next request to take.
    next: u16,
    /// avail.idx as last read: requests before it are there.
    seen: u16,
    /// Entries that were read: `ahead_count`, of which the one after `ahead_taken` is `next`.
    ahead: [Ahead; READ_AHEAD],
    ahead_count: usize,
    ahead_taken: usize,
    /// Requests taken so far: `next`, but never the same again.
    taken: u64,
    /// For each head, what `taken` becomes when all requests are taken that were there when it was
    /// taken, or when it went back, if it was served at once.
    taken_with: Vec<u64>,
}

impl AvailRing {
    /// Index of the first request not taken, for GET_VRING_BASE.
    pub(super) fn next(&self) -> u16 {
        self.next
    }

    /// Whether nothing was ever made available, as far as this memory shows.
    pub(super) fn looks_untouched(&self) -> bool {
        self.avail.read::<6>(FLAGS) == Some([0; 6])
    }

    /// Whether a request waits.
    pub(super) fn has_request(&mut self) -> Result<bool, BrokenRing> {
        if self.next == self.seen {
            self.refresh()?;
        }
        Ok(self.next != self.seen)
    }

    /// Whether another request waits behind the next one. A ring that is wrong has none; that is
    /// found out when it is its turn.
    pub(super) fn has_two_requests(&mut self) -> bool {
        if self.seen.wrapping_sub(self.next) < 2 {
            // As it was, if it fails.
            let _ = self.refresh();
        }
        self.seen.wrapping_sub(self.next) >= 2
    }

    /// Takes the next request into `chain`; false when there is none. On an error the request
    /// stays where it was.
    pub(super) fn pop(&mut self, chain: &mut Chain, ram: &GuestRam) -> Result<bool, BrokenRing> {
        if !self.has_request()? {
            return Ok(false);
        }
        if self.ahead_taken >= self.ahead_count {
            self.read_ahead()?;
        }
        let ahead = self.ahead.get(self.ahead_taken).copied();
        let Ahead { head, descriptor } = ahead.ok_or(BrokenRing::RingMemory)?;
        chain.load(head, descriptor, &self.table, ram)?;
        let taken_with = self
            .taken_with
            .get_mut(usize::from(head))
            .ok_or(BrokenRing::IndexOutOfRange(head))?;
        // It was there before the driver could know that the first one was back.
        if self.taken < *taken_with {
            return Err(BrokenRing::InFlight(head));
        }
        let waiting = self.seen.wrapping_sub(self.next);
        *taken_with = self.taken.saturating_add(u64::from(waiting));
        self.taken = self.taken.saturating_add(1);
        self.next = self.next.wrapping_add(1);
        self.ahead_taken = self.ahead_taken.saturating_add(1);
        Ok(true)
    }

    /// Reads the entries that wait, and the first descriptor of each, as many as there is room for
    /// and up to one that is wrong, whose turn may come later.
    fn read_ahead(&mut self) -> Result<(), BrokenRing> {
        let waiting = usize::from(self.seen.wrapping_sub(self.next));
        self.ahead_taken = 0;
        self.ahead_count = 0;
        for (index, ahead) in (0_u16..).zip(self.ahead.iter_mut().take(waiting)) {
            let at = element(self.next.wrapping_add(index), self.size, 2);
            // Relaxed, here and below: ordered by the Acquire load of avail.idx in refresh.
            ahead.head = self
                .avail
                .load_u16(at, Ordering::Relaxed)
                .ok_or(BrokenRing::RingMemory)?;
        }
        for ahead in self.ahead.iter_mut().take(waiting) {
            ahead.descriptor = match self.table.read(ahead.head) {
                Ok(descriptor) => descriptor,
                Err(broken) if self.ahead_count == 0 => return Err(broken),
                Err(_) => break,
            };
            self.ahead_count = self.ahead_count.saturating_add(1);
        }
        Ok(())
    }

    /// Notes that `head`, the request that was taken last, goes back, and that the driver had
    /// made entries up to `available` available before it could see that.
    pub(super) fn note_return(&mut self, head: u16, available: u16) {
        let waiting = available.wrapping_sub(self.next);
        if waiting <= self.size
            && let Some(taken_with) = self.taken_with.get_mut(usize::from(head))
        {
            *taken_with = self.taken.saturating_add(u64::from(waiting));
        }
    }

    /// Gives the request that was taken last back: it counts as never taken.
    pub(super) fn put_back(&mut self) {
        self.next = self.next.wrapping_sub(1);
        self.taken = self.taken.saturating_sub(1);
        self.ahead_count = 0;
    }

    /// Asks the driver not to kick while we are at it. With EVENT_IDX there is nothing to do:
    /// avail_event lags behind, and the driver kicks only when it passes that index.
    pub(super) fn suppress_kicks(&self) -> Result<(), BrokenRing> {
        if self.event_idx {
            return Ok(());
        }
        self.used
            .store_u16(FLAGS, FLAG_NO_NOTIFY, Ordering::Relaxed)
            .ok_or(BrokenRing::RingMemory)
    }

    /// Asks for a kick with the next request, then looks once more; true when one has come in
    /// between, for which there may be no kick.
    pub(super) fn request_kicks(&mut self) -> Result<bool, BrokenRing> {
        let stored = if self.event_idx {
            self.used
                .store_u16(event_word(self.size, 8), self.next, Ordering::Relaxed)
        } else {
            self.used.store_u16(FLAGS, 0, Ordering::Relaxed)
        };
        stored.ok_or(BrokenRing::RingMemory)?;
        // See the file head: our store before our load of avail.idx.
        fence(Ordering::SeqCst);
        self.has_request()
    }

    fn refresh(&mut self) -> Result<(), BrokenRing> {
        // Pairs with the driver's release of avail.idx.
        let idx = self
            .avail
            .load_u16(IDX, Ordering::Acquire)
            .ok_or(BrokenRing::RingMemory)?;
        let waiting = idx.wrapping_sub(self.next);
        if waiting > self.size {
            return Err(BrokenRing::AvailJump(waiting));
        }
        self.seen = idx;
        Ok(())
    }
}

/// The half that completed requests go back by.
#[derive(Debug)]
pub(super) struct UsedRing {
    size: u16,
    event_idx: bool,
    used: Window,
    avail: Window,
    /// Where the next element goes.
    next: u16,
    /// `next` when we last asked whether the driver wants a signal.
    asked: u16,
    /// used.idx when we last decided about a signal; none before the first time.
    signalled: Option<u16>,
}

impl UsedRing {
    /// Returns one element: the driver sees it from here on. Whether it wants to be woken for it
    /// is for [`UsedRing::wants_signal`] to say. Gives avail.idx from before: what the driver had
    /// made available when it could not know of this.
    pub(super) fn push(&mut self, head: u16, len: u32) -> Result<u16, BrokenRing> {
        self.used
            .store_2_u32(element(self.next, self.size, 8), head.into(), len)
            .ok_or(BrokenRing::RingMemory)?;
        self.next = self.next.wrapping_add(1);
        // Relaxed: the Release below keeps it before the store.
        let available = self.avail.load_u16(IDX, Ordering::Relaxed);
        // Pairs with the driver's acquire of used.idx.
        self.used
            .store_u16(IDX, self.next, Ordering::Release)
            .ok_or(BrokenRing::RingMemory)?;
        available.ok_or(BrokenRing::RingMemory)
    }

    /// Where the next element goes.
    pub(super) fn next(&self) -> u16 {
        self.next
    }

    /// Whether elements were returned that [`UsedRing::wants_signal`] was not asked about.
    pub(super) fn is_unasked(&self) -> bool {
        self.next != self.asked
    }

    /// Whether the driver wants a signal for what was returned since the last call.
    pub(super) fn wants_signal(&mut self) -> Result<bool, BrokenRing> {
        self.asked = self.next;
        // See the file head: our used.idx before our load of used_event or flags.
        fence(Ordering::SeqCst);
        if self.event_idx {
            let used_event = self
                .avail
                .load_u16(event_word(self.size, 2), Ordering::Relaxed)
                .ok_or(BrokenRing::RingMemory)?;
            let old = self.signalled.replace(self.next);
            return Ok(old.is_none_or(|old| needs_signal(used_event, old, self.next)));
        }
        let flags = self
            .avail
            .load_u16(FLAGS, Ordering::Relaxed)
            .ok_or(BrokenRing::RingMemory)?;
        Ok(flags & FLAG_NO_INTERRUPT == 0)
    }
}

/// Whether `event` is among the elements from `old` to before `new`: VIRTIO 1.2 section 2.7.7.2,
/// `vring_need_event` of Linux.
fn needs_signal(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests;
