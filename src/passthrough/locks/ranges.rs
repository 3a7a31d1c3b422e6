//! What: the ranges of one file that one owner has locked.
//!
//! In: what the owner has just been granted or has given back. Out: what it holds, and what that
//! means for somebody else. Pure: a mirror of what the host's kernel keeps, in the same terms.
//! Invariants: ranges are sorted, do not meet, and two of one type do not touch. Does not: decide
//! who may have what; the kernel does.

use crate::fs::types::{HeldLock, LockRange, LockType};

/// Whether somebody who waits may now have a chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Freed {
    /// Something was given back, or is shared now.
    Yes,
    /// Nothing was.
    No,
}

impl Freed {
    /// `Yes` if `is_freed`.
    pub(super) fn when(is_freed: bool) -> Self {
        if is_freed { Freed::Yes } else { Freed::No }
    }
}

/// See the file head.
#[derive(Debug, Default)]
pub(super) struct RangeSet {
    held: Vec<HeldLock>,
}

impl RangeSet {
    /// Puts `lock` in the place of whatever there was on its range.
    pub(super) fn apply(&mut self, lock: HeldLock) -> Freed {
        let (first, end) = self.meeting(lock.range);
        let met = self.held.get(first..end).unwrap_or_default();
        let freed = Freed::when(
            met.iter()
                .any(|old| is_weaker(lock.lock_type, old.lock_type)),
        );
        let before = met.first().copied().and_then(|old| part_before(old, lock));
        let after = met.last().copied().and_then(|old| part_after(old, lock));
        let new = (lock.lock_type != LockType::Unlock).then_some(lock);
        let pieces: Vec<HeldLock> = [before, new, after].into_iter().flatten().collect();
        let last = first.saturating_add(pieces.len());
        self.held.splice(first..end, pieces);
        // The pieces may touch each other and what lies on either side.
        for index in (first..=last).rev() {
            self.merge_at(index);
        }
        freed
    }

    /// The first lock that does not go together with one of this type on this range.
    pub(super) fn conflict(&self, range: LockRange, lock_type: LockType) -> Option<HeldLock> {
        let (first, end) = self.meeting(range);
        let met = self.held.get(first..end).unwrap_or_default();
        let excludes = |held: &&HeldLock| match lock_type {
            LockType::Write => true,
            LockType::Read => held.lock_type == LockType::Write,
            LockType::Unlock => false,
        };
        met.iter().find(excludes).copied()
    }

    /// Whether giving this range back would leave something on both sides of it, and so one
    /// range more than before.
    pub(super) fn is_split_by(&self, range: LockRange) -> bool {
        let (first, _) = self.meeting(range);
        self.held
            .get(first)
            .is_some_and(|old| old.range.start() < range.start() && old.range.end() > range.end())
    }

    /// What is held, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &HeldLock> {
        self.held.iter()
    }

    /// How many ranges.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Which locks have bytes in common with the range: the first, and the one behind the last.
    fn meeting(&self, range: LockRange) -> (usize, usize) {
        let first = self
            .held
            .partition_point(|held| held.range.end() < range.start());
        let end = self
            .held
            .partition_point(|held| held.range.start() <= range.end());
        (first, end.max(first))
    }

    /// Joins the lock at `index` to the one before it, if they are one.
    fn merge_at(&mut self, index: usize) {
        let Some(previous) = index.checked_sub(1) else {
            return;
        };
        let (Some(left), Some(right)) = (self.held.get(previous), self.held.get(index)) else {
            return;
        };
        let touches = left.range.end().checked_add(1) == Some(right.range.start());
        if !touches || left.lock_type != right.lock_type {
            return;
        }
        let Ok(range) = LockRange::new(left.range.start(), right.range.end()) else {
            return;
        };
        let joined = HeldLock { range, ..*right };
        self.held.remove(index);
        if let Some(left) = self.held.get_mut(previous) {
            *left = joined;
        }
    }
}

fn is_weaker(new: LockType, old: LockType) -> bool {
    match new {
        LockType::Unlock => true,
        LockType::Read => old == LockType::Write,
        LockType::Write => false,
    }
}

fn part_before(old: HeldLock, new: HeldLock) -> Option<HeldLock> {
    let end = new.range.start().checked_sub(1)?;
    let range = LockRange::new(old.range.start(), end).ok()?;
    Some(HeldLock { range, ..old })
}

fn part_after(old: HeldLock, new: HeldLock) -> Option<HeldLock> {
    let start = new.range.end().checked_add(1)?;
    let range = LockRange::new(start, old.range.end()).ok()?;
    Some(HeldLock { range, ..old })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAST: u64 = LockRange::WHOLE_FILE.end();
    const R: LockType = LockType::Read;
    const W: LockType = LockType::Write;
    const U: LockType = LockType::Unlock;

    fn lock(start: u64, end: u64, lock_type: LockType) -> HeldLock {
        HeldLock {
            range: LockRange::new(start, end).expect("not empty"),
            lock_type,
            pid: 7,
        }
    }

    fn held(set: &RangeSet) -> Vec<(u64, u64, LockType)> {
        set.iter()
            .map(|held| (held.range.start(), held.range.end(), held.lock_type))
            .collect()
    }

    type Span = (u64, u64, LockType);

    #[test]
    fn apply_splits_and_merges_as_the_kernel_does() {
        let cases: &[(&[Span], Span, &[Span], Freed)] = &[
            (&[], (5, 9, R), &[(5, 9, R)], Freed::No),
            (&[], (5, 9, U), &[], Freed::No),
            (&[(5, 9, R)], (10, 12, R), &[(5, 12, R)], Freed::No),
            (&[(5, 9, R)], (0, 4, R), &[(0, 9, R)], Freed::No),
            (
                &[(5, 9, R)],
                (11, 12, R),
                &[(5, 9, R), (11, 12, R)],
                Freed::No,
            ),
            (
                &[(5, 9, R)],
                (10, 12, W),
                &[(5, 9, R), (10, 12, W)],
                Freed::No,
            ),
            (
                &[(5, 9, R)],
                (6, 7, W),
                &[(5, 5, R), (6, 7, W), (8, 9, R)],
                Freed::No,
            ),
            (
                &[(5, 9, W)],
                (6, 7, R),
                &[(5, 5, W), (6, 7, R), (8, 9, W)],
                Freed::Yes,
            ),
            (&[(5, 9, W)], (6, 7, U), &[(5, 5, W), (8, 9, W)], Freed::Yes),
            (&[(5, 9, R)], (0, LAST, U), &[], Freed::Yes),
            (&[(5, LAST, R)], (0, LAST, W), &[(0, LAST, W)], Freed::No),
            (&[(0, LAST, W)], (10, LAST, U), &[(0, 9, W)], Freed::Yes),
            (
                &[(0, 1, R), (4, 5, R), (8, 9, R)],
                (2, 7, R),
                &[(0, 9, R)],
                Freed::No,
            ),
            (
                &[(0, 1, R), (4, 5, W), (8, 9, R)],
                (1, 8, U),
                &[(0, 0, R), (9, 9, R)],
                Freed::Yes,
            ),
            (&[(5, 9, R)], (0, 4, U), &[(5, 9, R)], Freed::No),
            (&[(5, 9, R)], (10, 10, U), &[(5, 9, R)], Freed::No),
        ];
        for (before, (start, end, lock_type), after, freed) in cases {
            let mut set = RangeSet::default();
            for (start, end, lock_type) in *before {
                let _ = set.apply(lock(*start, *end, *lock_type));
            }
            let applied = set.apply(lock(*start, *end, *lock_type));
            assert_eq!(held(&set), *after, "{before:?} {start} {end} {lock_type:?}");
            assert_eq!(applied, *freed, "{before:?} {start} {end} {lock_type:?}");
        }
    }

    #[test]
    fn apply_of_anything_equals_a_map_of_bytes() {
        let mut set = RangeSet::default();
        let mut bytes = [U; 32];
        let mut random = 0x9e37_79b9_u32;
        let mut next = |bound: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            u64::from((random >> 16) % bound)
        };
        for _ in 0..5000 {
            let (one, other) = (next(32), next(32));
            let (start, end) = (one.min(other), one.max(other));
            let lock_type = [R, W, U][usize::try_from(next(3)).expect("small")];
            let _ = set.apply(lock(start, end, lock_type));
            for at in start..=end {
                bytes[usize::try_from(at).expect("small")] = lock_type;
            }
            let mut expected: Vec<Span> = Vec::new();
            for (at, lock_type) in (0..).zip(bytes).filter(|(_, held)| *held != U) {
                match expected.last_mut() {
                    Some(last) if last.1 + 1 == at && last.2 == lock_type => last.1 = at,
                    _ => expected.push((at, at, lock_type)),
                }
            }
            assert_eq!(held(&set), expected);
        }
    }

    #[test]
    fn conflict_depends_on_both_types_and_common_bytes() {
        let mut set = RangeSet::default();
        let _ = set.apply(lock(10, 19, R));
        let _ = set.apply(lock(30, 39, W));
        for (start, end, lock_type, found) in [
            (0, 9, W, None),
            (0, 10, W, Some(10)),
            (0, 29, R, None),
            (0, 30, R, Some(30)),
            (39, 39, R, Some(30)),
            (40, LAST, W, None),
            (0, LAST, U, None),
        ] {
            let range = LockRange::new(start, end).expect("not empty");
            let conflict = set.conflict(range, lock_type);
            let start_found = conflict.map(|held| held.range.start());
            assert_eq!(start_found, found, "{start} {end} {lock_type:?}");
        }
    }

    #[test]
    fn is_split_by_is_true_only_inside_one_range() {
        let mut set = RangeSet::default();
        let _ = set.apply(lock(10, 19, R));
        for (start, end, is_split) in [(11, 18, true), (10, 18, false), (11, 19, false)] {
            let range = LockRange::new(start, end).expect("not empty");
            assert_eq!(set.is_split_by(range), is_split, "{start} {end}");
        }
    }
}
