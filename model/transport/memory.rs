//! What: guest memory for loom: the three parts of a ring as words of 16 bits.
//!
//! In and out: as `memory.rs` of the daemon.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU16, Ordering};

pub(super) const DESCRIPTORS: u64 = 0x1000;
pub(super) const AVAIL: u64 = 0x2000;
pub(super) const USED: u64 = 0x3000;

/// Where the event word is, behind the elements.
pub(super) fn event_word(size: u16, width: usize) -> usize {
    4 + width * usize::from(size)
}

#[derive(Clone, Debug)]
pub(super) struct Window(Arc<Vec<AtomicU16>>);

impl Window {
    fn new(bytes: usize) -> Self {
        let words = std::iter::repeat_with(|| AtomicU16::new(0)).take(bytes / 2);
        Window(Arc::new(words.collect()))
    }

    pub(super) fn get(&self, offset: usize, order: Ordering) -> u16 {
        self.0[offset / 2].load(order)
    }

    pub(super) fn put(&self, offset: usize, value: u16, order: Ordering) {
        self.0[offset / 2].store(value, order);
    }

    pub(super) fn is_aligned(&self, _align: u64) -> bool {
        true
    }

    pub(super) fn load_u16(&self, offset: usize, order: Ordering) -> Option<u16> {
        Some(self.get(offset, order))
    }

    pub(super) fn store_u16(&self, offset: usize, value: u16, order: Ordering) -> Option<()> {
        self.put(offset, value, order);
        Some(())
    }

    pub(super) fn read<const N: usize>(&self, _offset: usize) -> Option<[u8; N]> {
        None
    }

    pub(super) fn store_2_u32(&self, offset: usize, first: u32, second: u32) -> Option<()> {
        let words = [first, first >> 16, second, second >> 16];
        for (index, word) in words.into_iter().enumerate() {
            let value = u16::try_from(word & 0xffff).expect("16 bits");
            self.put(offset + 2 * index, value, Ordering::Relaxed);
        }
        Some(())
    }
}

#[derive(Debug)]
pub(super) struct GuestRam {
    descriptors: Window,
    pub(super) avail: Window,
    pub(super) used: Window,
}

impl GuestRam {
    pub(super) fn new(size: u16) -> Self {
        GuestRam {
            descriptors: Window::new(16),
            avail: Window::new(event_word(size, 2) + 2),
            used: Window::new(event_word(size, 8) + 2),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        false
    }

    pub(super) fn user_window(&self, address: u64, _len: usize) -> Option<Window> {
        match address {
            DESCRIPTORS => Some(self.descriptors.clone()),
            AVAIL => Some(self.avail.clone()),
            USED => Some(self.used.clone()),
            _ => None,
        }
    }
}
