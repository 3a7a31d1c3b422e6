//! What: a table of shared objects by number, which is read without a lock.
//!
//! In: objects. Out: their numbers, and the objects by number for as long as they are there.
//!
//! ```text
//!   number = base + (generation << INDEX_BITS | index of the slot)
//!
//!   chunk 0   [1024 slots]        made when the first of its slots is needed, each as large as
//!   chunk 1   [1024 slots]        all before it; never moved, never freed
//!   chunk 2   [2048 slots] ...
//!
//!   slot: what is in it, its generation, the next free slot
//! ```
//!
//! Invariants:
//!   - a number is never used twice: the generation of a slot goes up when what was in it is
//!     taken out, and a slot that has used up its generations (2^32 - 1) stays empty;
//!   - an object knows its number and is given only to those who ask for that one. Who has got
//!     it keeps it alive, whatever happens to the slot, so a slot can be used again at once: a
//!     thread that still looks for what was there sees a number that it did not ask for;
//!   - who moves the generation on takes the object out, and nobody else does. The slot is free
//!     only after that, so it is never free twice, and what comes next is never taken for it.
//!
//! Locks: one list of free slots at a time, a leaf, for a few instructions; none to read. Does
//! not: know what the objects are. The package in `model/` tries all orders of the steps here.

use super::table_sync::{
    Arc, AtomicU32, Cell, FIRST_CHUNK_BITS, FREE_LIST_COUNT, GENERATIONS, Mutex, OnceLock,
    Ordering, PoisonError, own_list,
};

/// Bits of a number that say which slot. That is more than memory has room for.
pub(super) const INDEX_BITS: u32 = 30;
/// Slots of a table.
const SLOTS_MAX: u32 = 1 << INDEX_BITS;
/// Chunks of a table.
const CHUNK_COUNT: usize = 31;

/// What a table can hold.
pub(super) trait Numbered {
    /// The number that it was made with.
    fn number(&self) -> u64;
}

#[derive(Debug)]
struct Slot<T> {
    object: Cell<T>,
    /// How many objects were taken out.
    generation: AtomicU32,
    /// The next free slot, when this one is free.
    next_free: AtomicU32,
}

/// Free slots, each of which leads to the next. On a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct FreeList {
    first: Mutex<Option<u32>>,
    /// How many there are, to pass by empty lists without locking them.
    len: AtomicU32,
}

/// Shared objects by number. See the module head.
#[derive(Debug)]
pub(super) struct Table<T> {
    base: u64,
    chunks: [OnceLock<Box<[Slot<T>]>>; CHUNK_COUNT],
    free: [FreeList; FREE_LIST_COUNT],
    /// Slots that were ever used.
    used: AtomicU32,
}

impl<T: Numbered> Table<T> {
    /// An empty table whose numbers start at `base`. That must be below 2^62, so that no number
    /// reaches 2^63.
    pub(super) fn new(base: u64) -> Self {
        Table {
            base,
            chunks: std::array::from_fn(|_| OnceLock::new()),
            free: std::array::from_fn(|_| FreeList {
                first: Mutex::new(None),
                len: AtomicU32::new(0),
            }),
            used: AtomicU32::new(0),
        }
    }

    /// Puts in what `make` makes for a number. Nothing when the table is full.
    pub(super) fn insert_with(&self, make: impl FnOnce(u64) -> T) -> Option<Arc<T>> {
        let index = match self.take_free() {
            Some(index) => index,
            None => self.take_unused()?,
        };
        let slot = self.slot_made(index)?;
        // Relaxed: the list's lock came between the thread that changed it and this one.
        let generation = slot.generation.load(Ordering::Relaxed);
        let object = Arc::new(make(self.number(index, generation)));
        slot.object.replace(Some(Arc::clone(&object)));
        Some(object)
    }

    /// The object with a number.
    pub(super) fn get(&self, number: u64) -> Option<Arc<T>> {
        let (index, _) = self.place(number)?;
        let slot = self.slot(index)?;
        slot.object.get_if(|object| object.number() == number)
    }

    /// Takes an object out. False if somebody else has done so.
    pub(super) fn remove(&self, object: &Arc<T>) -> bool {
        let Some((index, generation)) = self.place(object.number()) else {
            return false;
        };
        let Some(slot) = self.slot(index) else {
            return false;
        };
        let next = generation.saturating_add(1);
        // Relaxed: whoever wins publishes the slot by the list's lock.
        let won = slot.generation.compare_exchange(
            generation,
            next,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if won.is_err() {
            return false;
        }
        drop(slot.object.replace(None));
        if next < GENERATIONS {
            self.give_free(index, slot);
        }
        true
    }

    /// All objects, one after another. Those that come or go meanwhile may be among them.
    pub(super) fn iter(&self) -> impl Iterator<Item = Arc<T>> {
        // Acquire: partner of `take_unused`, so that whoever sees an object's number in any
        // other way finds the object here.
        (0..self.used.load(Ordering::Acquire))
            .filter_map(|index| self.slot(index)?.object.get_if(|_| true))
    }

    fn take_free(&self) -> Option<u32> {
        let own = own_list();
        let (before, after) = self.free.split_at_checked(own)?;
        after.iter().chain(before).find_map(|list| {
            // Relaxed here and below: a slot that is missed costs another one.
            if list.len.load(Ordering::Relaxed) == 0 {
                return None;
            }
            let mut first = list.first.lock().unwrap_or_else(PoisonError::into_inner);
            let index = (*first)?;
            let next = self.slot(index)?.next_free.load(Ordering::Relaxed);
            *first = (next < SLOTS_MAX).then_some(next);
            list.len.fetch_sub(1, Ordering::Relaxed);
            Some(index)
        })
    }

    fn give_free(&self, index: u32, slot: &Slot<T>) {
        let Some(list) = self.free.get(own_list()) else {
            return;
        };
        let mut first = list.first.lock().unwrap_or_else(PoisonError::into_inner);
        slot.next_free
            .store(first.unwrap_or(SLOTS_MAX), Ordering::Relaxed);
        *first = Some(index);
        list.len.fetch_add(1, Ordering::Relaxed);
    }

    fn take_unused(&self) -> Option<u32> {
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                (used < SLOTS_MAX).then(|| used.saturating_add(1))
            })
            .ok()
    }

    fn number(&self, index: u32, generation: u32) -> u64 {
        let relative = u64::from(generation) << INDEX_BITS | u64::from(index);
        self.base.wrapping_add(relative)
    }

    /// Index and generation that a number would have.
    fn place(&self, number: u64) -> Option<(u32, u32)> {
        let relative = number.checked_sub(self.base)?;
        let index = u32::try_from(relative & u64::from(SLOTS_MAX - 1)).ok()?;
        let generation = u32::try_from(relative >> INDEX_BITS).ok()?;
        Some((index, generation))
    }

    fn slot(&self, index: u32) -> Option<&Slot<T>> {
        let (chunk, offset, _) = chunk_of(index)?;
        self.chunks.get(chunk)?.get()?.get(offset)
    }

    fn slot_made(&self, index: u32) -> Option<&Slot<T>> {
        let (chunk, offset, len) = chunk_of(index)?;
        let slots = self.chunks.get(chunk)?.get_or_init(|| {
            let slots = (0..len).map(|_| Slot {
                object: Cell::new(),
                generation: AtomicU32::new(0),
                next_free: AtomicU32::new(SLOTS_MAX),
            });
            slots.collect()
        });
        slots.get(offset)
    }
}

/// The chunk of a slot, its place there, and how many slots that chunk has.
fn chunk_of(index: u32) -> Option<(usize, usize, u32)> {
    // The slots before it are as many as the chunk has, but for the first.
    let (chunk, len, before) = match index >> FIRST_CHUNK_BITS {
        0 => (0, 1 << FIRST_CHUNK_BITS, 0),
        multiple => {
            let doubled = multiple.ilog2();
            let len = 1_u32 << FIRST_CHUNK_BITS << doubled;
            (doubled.saturating_add(1), len, len)
        }
    };
    let offset = usize::try_from(index.wrapping_sub(before)).ok()?;
    Some((usize::try_from(chunk).ok()?, offset, len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::thread;

    #[derive(Debug)]
    struct Object(u64);

    impl Numbered for Object {
        fn number(&self) -> u64 {
            self.0
        }
    }

    const BASE: u64 = 77;

    #[test]
    fn object_is_found_by_its_number_until_it_is_removed() {
        let table = Table::new(BASE);
        let objects: Vec<_> = (0..10_000)
            .map(|_| table.insert_with(Object).unwrap())
            .collect();
        assert_eq!(objects[0].0, BASE);
        for object in &objects {
            assert!(Arc::ptr_eq(&table.get(object.0).unwrap(), object));
        }
        assert_eq!(table.iter().count(), 10_000);
        for object in &objects {
            assert!(table.remove(object));
            assert!(!table.remove(object));
            assert!(table.get(object.0).is_none());
        }
        assert_eq!(table.iter().count(), 0);
    }

    #[test]
    fn slot_is_used_again_under_another_number() {
        let table = Table::new(BASE);
        let mut numbers = HashSet::new();
        for _ in 0..5_000 {
            let object = table.insert_with(Object).unwrap();
            assert!(numbers.insert(object.0));
            assert!(table.remove(&object));
        }
        assert!(numbers.iter().all(|number| table.get(*number).is_none()));
        assert_eq!(table.used.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn slot_whose_generations_are_used_up_stays_empty() {
        let table = Table::new(BASE);
        let first = table.insert_with(Object).unwrap();
        assert!(table.remove(&first));
        let slot = table.slot(0).unwrap();
        slot.generation.store(GENERATIONS - 1, Ordering::Relaxed);
        let last = table.insert_with(Object).unwrap();
        assert_eq!(last.0, BASE + (u64::from(GENERATIONS - 1) << INDEX_BITS));
        assert!(table.remove(&last));
        let other = table.insert_with(Object).unwrap();
        assert_eq!(other.0, BASE + 1);
        assert!(table.get(last.0).is_none());
    }

    #[test]
    fn number_that_was_never_given_leads_nowhere() {
        let table = Table::new(BASE);
        let object = table.insert_with(Object).unwrap();
        let next_generation = object.0 + (1 << INDEX_BITS);
        for number in [
            0,
            1,
            BASE - 1,
            BASE + 1,
            BASE + 5_000,
            next_generation,
            u64::MAX,
        ] {
            assert!(table.get(number).is_none(), "{number}");
        }
    }

    #[test]
    fn chunks_hold_every_index_once() {
        let mut expected = (0, 0);
        for index in 0..100_000 {
            let (chunk, offset, len) = chunk_of(index).unwrap();
            assert_eq!((chunk, offset), expected, "{index}");
            expected = match offset + 1 == usize::try_from(len).unwrap() {
                true => (chunk + 1, 0),
                false => (chunk, offset + 1),
            };
        }
        let (chunk, offset, len) = chunk_of(SLOTS_MAX - 1).unwrap();
        assert!(chunk < CHUNK_COUNT);
        assert_eq!(offset + 1, usize::try_from(len).unwrap());
    }

    #[test]
    fn table_of_many_threads_loses_and_doubles_nothing() {
        let table = Table::new(BASE);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut held = Vec::new();
                    for round in 0..20_000_u32 {
                        held.push(table.insert_with(Object).unwrap());
                        if round % 3 != 0 {
                            let object = held.swap_remove(held.len() / 2);
                            assert!(Arc::ptr_eq(&table.get(object.0).unwrap(), &object));
                            assert!(table.remove(&object));
                        }
                    }
                    for object in held {
                        assert!(table.remove(&object));
                    }
                });
            }
        });
        assert_eq!(table.iter().count(), 0);
        // What threads had at once, and what one missed while another moved it.
        assert!(table.used.load(Ordering::Relaxed) < 40_000);
    }
}
