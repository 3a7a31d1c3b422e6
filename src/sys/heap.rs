//! What: memory that the process has freed, given back to the system: malloc_trim(3).
//!
//! In: nothing. Out: nothing but a smaller process. An allocator keeps what was freed, because it
//! will be wanted again; after a guest has forgotten a million files it will not. Does not: know
//! when that is.
#![expect(unsafe_code, reason = "a call of the C library")]

/// Gives back the pages of the heap that are free. Takes some milliseconds for each hundred
/// megabytes, in which other threads may have to wait for memory.
pub fn give_back_free_pages() {
    // Other C libraries give large pieces back at once, and have no such call.
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) has no requirements: it takes a number, locks the heap by itself,
    // and gives back only pages on which nothing is allocated.
    let _ = unsafe { libc::malloc_trim(0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_survives_giving_back() {
        let kept: Vec<Box<u64>> = (0..10_000).map(Box::new).collect();
        let freed: Vec<Box<[u8; 900]>> = (0..10_000).map(|_| Box::new([1; 900])).collect();
        drop(freed);
        give_back_free_pages();
        assert!(kept.iter().zip(0..).all(|(kept, number)| **kept == number));
    }
}
