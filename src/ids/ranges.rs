//! What: a function from ids to ids that is the identity but for a few ranges.
//!
//! In: ranges, each with what becomes of its ids. Out: the translated id of any id, by binary
//! search and without allocation. Invariants: ranges are sorted and do not overlap, and no id in
//! them and no result is 0xffffffff. Does not: know whose ids they are.

use std::cmp::Ordering;

/// The largest id. The next number is no id: the kernel reads it as "none" or "unchanged".
pub(super) const ID_MAX: u32 = u32::MAX - 1;

/// A range of ids that is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    first: u32,
    last: u32,
}

impl Span {
    /// Every id.
    pub(super) const ALL: Span = Span {
        first: 0,
        last: ID_MAX,
    };

    /// `count` ids from `first` on: `Ok(None)` for no ids at all, an error beyond [`ID_MAX`].
    pub(super) fn new(first: u32, count: u32) -> Result<Option<Self>, BeyondIds> {
        let Some(more) = count.checked_sub(1) else {
            return Ok(None);
        };
        match first.checked_add(more) {
            Some(last) if last <= ID_MAX => Ok(Some(Span { first, last })),
            Some(_) | None => Err(BeyondIds { first, count }),
        }
    }

    pub(super) const fn first(self) -> u32 {
        self.first
    }

    pub(super) const fn last(self) -> u32 {
        self.last
    }

    pub(super) const fn is_single(self) -> bool {
        self.first == self.last
    }

    /// As many ids from `first` on, if there are so many.
    pub(super) fn moved_to(self, first: u32) -> Option<Span> {
        let more = self.last.checked_sub(self.first)?;
        let last = first.checked_add(more).filter(|last| *last <= ID_MAX)?;
        Some(Span { first, last })
    }

    /// The ids that both have.
    pub(super) fn and(self, other: Span) -> Option<Span> {
        let first = self.first.max(other.first);
        let last = self.last.min(other.last);
        (first <= last).then_some(Span { first, last })
    }
}

/// `count` numbers from `first` on are not all ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BeyondIds {
    pub(super) first: u32,
    pub(super) count: u32,
}

/// What becomes of the ids of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The first becomes this id, and the others those that follow it.
    From(u32),
    /// All become this id.
    All(u32),
    /// They are refused.
    Forbidden,
}

/// A range and what becomes of its ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    span: Span,
    target: Target,
}

impl Range {
    /// The ids of `from` become those of `to`, of which there are as many.
    pub(super) fn shifted(from: Span, to: Span) -> Self {
        debug_assert_eq!(from.last - from.first, to.last - to.first);
        Range {
            span: from,
            target: Target::From(to.first),
        }
    }

    /// The ids of `from` all become the first of `to`.
    pub(super) fn squashed(from: Span, to: Span) -> Self {
        let target = match from.is_single() {
            true => Target::From(to.first),
            false => Target::All(to.first),
        };
        Range { span: from, target }
    }

    /// The ids of `span` are refused.
    pub(super) const fn forbidden(span: Span) -> Self {
        Range {
            span,
            target: Target::Forbidden,
        }
    }

    /// What becomes of `id`, which is one of the range.
    fn translate(&self, id: u32) -> Option<u32> {
        match self.target {
            Target::From(first) => first.checked_add(id.checked_sub(self.span.first)?),
            Target::All(target) => Some(target),
            Target::Forbidden => None,
        }
    }
}

/// Two ranges say something about the same ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overlap {
    /// The tags of the ranges, the smaller one first.
    pub(super) tags: (usize, usize),
    /// The ids.
    pub(super) span: Span,
}

/// The function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RangeMap {
    ranges: Vec<Range>,
}

impl RangeMap {
    /// Changes nothing.
    pub(super) const fn identity() -> Self {
        RangeMap { ranges: Vec::new() }
    }

    /// Does what the ranges say, each of which has a tag by which an error names it.
    pub(super) fn new(mut tagged: Vec<(usize, Range)>) -> Result<Self, Overlap> {
        tagged.sort_by_key(|(_, range)| range.span.first);
        // In this order, if any two overlap, then two neighbours do.
        for pair in tagged.windows(2) {
            if let [(tag, range), (next_tag, next)] = pair
                && let Some(span) = range.span.and(next.span)
            {
                let tags = (*tag.min(next_tag), *tag.max(next_tag));
                return Err(Overlap { tags, span });
            }
        }
        let ranges = tagged.into_iter().map(|(_, range)| range).collect();
        Ok(RangeMap { ranges })
    }

    /// What becomes of `id`; `None` if it is refused.
    pub(super) fn translate(&self, id: u32) -> Option<u32> {
        let found = self.ranges.binary_search_by(|range| {
            if range.span.last < id {
                Ordering::Less
            } else if range.span.first > id {
                Ordering::Greater
            } else {
                Ordering::Equal
            }
        });
        match found.ok().and_then(|index| self.ranges.get(index)) {
            Some(range) => range.translate(id),
            None => Some(id),
        }
    }

    /// Whether every id stays what it is.
    pub(super) fn is_identity(&self) -> bool {
        self.ranges
            .iter()
            .all(|range| range.target == Target::From(range.span.first))
    }

    /// `within` cut into spans of which all ids have the same fate; ids that no range names are
    /// in spans that become themselves.
    pub(super) fn pieces(&self, within: Span) -> Pieces<'_> {
        let index = self
            .ranges
            .partition_point(|range| range.span.last < within.first);
        Pieces {
            ranges: self.ranges.get(index..).unwrap_or_default(),
            rest: Some(within),
        }
    }
}

/// See [`RangeMap::pieces`].
#[derive(Debug)]
pub(super) struct Pieces<'a> {
    ranges: &'a [Range],
    rest: Option<Span>,
}

impl Iterator for Pieces<'_> {
    type Item = (Span, Target);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest?;
        let (span, target) = match self.ranges.split_first() {
            Some((range, others)) if range.span.first <= rest.first => {
                self.ranges = others;
                let span = range.span.and(rest)?;
                let target = match range.target {
                    Target::From(_) => Target::From(range.translate(span.first)?),
                    Target::All(_) | Target::Forbidden => range.target,
                };
                (span, target)
            }
            Some((range, _)) if range.span.first <= rest.last => {
                let span = Span {
                    first: rest.first,
                    last: range.span.first.checked_sub(1)?,
                };
                (span, Target::From(span.first))
            }
            Some(_) | None => (rest, Target::From(rest.first)),
        };
        self.rest = (span.last < rest.last).then_some(Span {
            first: span.last.checked_add(1)?,
            last: rest.last,
        });
        Some((span, target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(first: u32, count: u32) -> Span {
        Span::new(first, count).unwrap().unwrap()
    }

    fn map(ranges: &[Range]) -> RangeMap {
        RangeMap::new(ranges.iter().copied().enumerate().collect()).unwrap()
    }

    #[test]
    fn span_bounds_are_exact() {
        assert_eq!(Span::new(0, ID_MAX + 1), Ok(Some(Span::ALL)));
        assert_eq!(Span::new(ID_MAX, 1).unwrap().unwrap().last(), ID_MAX);
        for (first, count) in [
            (0, u32::MAX),
            (1, u32::MAX - 1),
            (ID_MAX, 1),
            (u32::MAX, 0),
            (0, 0),
        ] {
            assert!(Span::new(first, count).is_ok(), "{first} {count}");
        }
        for (first, count) in [
            (1, u32::MAX),
            (2, u32::MAX - 1),
            (ID_MAX, 2),
            (u32::MAX, 1),
            (u32::MAX, u32::MAX),
        ] {
            let error = BeyondIds { first, count };
            assert_eq!(Span::new(first, count), Err(error), "{first} {count}");
        }
        assert_eq!(Span::new(u32::MAX, 0), Ok(None));
    }

    #[test]
    fn translate_at_each_end_of_each_range() {
        let map = map(&[
            Range::shifted(span(1000, 10), span(0, 10)),
            Range::squashed(span(10, 5), span(7, 1)),
            Range::forbidden(span(15, 1)),
            Range::shifted(span(ID_MAX - 1, 2), span(500, 2)),
        ]);
        for (id, expected) in [
            (0, Some(0)),
            (9, Some(9)),
            (10, Some(7)),
            (14, Some(7)),
            (15, None),
            (16, Some(16)),
            (999, Some(999)),
            (1000, Some(0)),
            (1009, Some(9)),
            (1010, Some(1010)),
            (ID_MAX - 2, Some(ID_MAX - 2)),
            (ID_MAX - 1, Some(500)),
            (ID_MAX, Some(501)),
        ] {
            assert_eq!(map.translate(id), expected, "{id}");
        }
    }

    #[test]
    fn overlap_names_the_tags_in_order_and_the_ids() {
        let ranges = vec![
            (3, Range::forbidden(span(20, 5))),
            (5, Range::shifted(span(0, 5), span(9, 5))),
            (1, Range::squashed(span(24, 10), span(0, 1))),
        ];
        let expected = Overlap {
            tags: (1, 3),
            span: span(24, 1),
        };
        assert_eq!(RangeMap::new(ranges), Err(expected));
    }

    #[test]
    fn neighbours_do_not_overlap() {
        let ranges = vec![
            (0, Range::forbidden(span(0, 5))),
            (1, Range::forbidden(span(5, 5))),
        ];
        assert!(RangeMap::new(ranges).is_ok());
    }

    #[test]
    fn identity_is_seen_through_ranges_that_change_nothing() {
        assert!(RangeMap::identity().is_identity());
        assert!(map(&[Range::shifted(span(3, 4), span(3, 4))]).is_identity());
        assert!(map(&[Range::squashed(span(3, 1), span(3, 1))]).is_identity());
        assert!(!map(&[Range::shifted(span(3, 4), span(4, 4))]).is_identity());
        assert!(!map(&[Range::squashed(span(3, 2), span(3, 1))]).is_identity());
        assert!(!map(&[Range::forbidden(span(3, 1))]).is_identity());
    }

    #[test]
    fn pieces_cover_a_span_without_gap_and_agree_with_translate() {
        let map = map(&[
            Range::shifted(span(4, 4), span(20, 4)),
            Range::forbidden(span(8, 2)),
            Range::squashed(span(12, 3), span(1, 1)),
        ]);
        for first in 0..18 {
            for count in 1..18 {
                let within = span(first, count);
                let mut next = first;
                for (piece, target) in map.pieces(within) {
                    assert_eq!(piece.first(), next, "{within:?}");
                    for id in piece.first()..=piece.last() {
                        let expected = match target {
                            Target::From(base) => Some(base + (id - piece.first())),
                            Target::All(one) => Some(one),
                            Target::Forbidden => None,
                        };
                        assert_eq!(map.translate(id), expected, "{id}");
                    }
                    next = piece.last() + 1;
                }
                assert_eq!(next, first + count, "{within:?}");
            }
        }
        assert_eq!(map.pieces(Span::ALL).last().unwrap().0.last(), ID_MAX);
    }
}
