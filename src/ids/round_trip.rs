//! What: whether ids survive the way there and back.
//!
//! In: the functions of both directions. Out: the first id found that comes back as another, or
//! nothing. Why it matters: a guest changes a POSIX ACL by reading it, changing it and writing
//! all of it back. An entry that it never touched must then still name the same user of the
//! host, or one user's rights end up with another.

use super::ranges::{RangeMap, Span, Target};

/// An id that comes back as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    /// The id that set out.
    pub(super) id: u32,
    /// What it became there.
    pub(super) there: u32,
    /// What that became on the way back.
    pub(super) back: u32,
}

/// Follows every id through `there` and then through `back`. An id that is refused on either
/// way is not lost: nothing is stored under a wrong one.
///
/// Takes time for each range, not for each id.
pub(super) fn find_loss(there: &RangeMap, back: &RangeMap) -> Option<Loss> {
    there
        .pieces(Span::ALL)
        .find_map(|(span, target)| match target {
            Target::Forbidden => None,
            Target::All(one) => {
                let back = back.translate(one)?;
                // More than one id becomes `one`, and only one of them can come back.
                let id = other_than(back, span)?;
                Some(Loss {
                    id,
                    there: one,
                    back,
                })
            }
            Target::From(first) => lost_from(span, first, back),
        })
}

/// The same for the ids of `span`, which have become `first` and those that follow.
fn lost_from(span: Span, first: u32, back: &RangeMap) -> Option<Loss> {
    back.pieces(span.moved_to(first)?)
        .find_map(|(piece, target)| {
            let offset = piece.first().checked_sub(first)?;
            let ids = piece.moved_to(span.first().checked_add(offset)?)?;
            match target {
                Target::Forbidden => None,
                Target::From(back) => (back != ids.first()).then_some(Loss {
                    id: ids.first(),
                    there: piece.first(),
                    back,
                }),
                Target::All(back) => {
                    let id = other_than(back, ids)?;
                    let there = piece.first().checked_add(id.checked_sub(ids.first())?)?;
                    Some(Loss { id, there, back })
                }
            }
        })
}

/// An id of `span` that is not `id`, if there is one.
fn other_than(id: u32, span: Span) -> Option<u32> {
    if span.first() != id {
        Some(span.first())
    } else {
        (!span.is_single()).then_some(span.last())
    }
}
