//! What: what is wrong with rules about ids once each of them is read.
//!
//! In: what the ranges and the round trip found. Out: [`RuleError`] and [`RoundTripLoss`], with
//! texts that name the rules as they were typed.

use std::error::Error;
use std::fmt;

use super::ranges::{BeyondIds, ID_MAX, Overlap};
use super::round_trip::Loss;
use super::syntax::Rule;

/// Users or groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdKind {
    /// `--translate-uid`.
    User,
    /// `--translate-gid`.
    Group,
}

impl IdKind {
    const fn option(self) -> &'static str {
        match self {
            IdKind::User => "--translate-uid",
            IdKind::Group => "--translate-gid",
        }
    }

    const fn noun(self) -> &'static str {
        match self {
            IdKind::User => "user",
            IdKind::Group => "group",
        }
    }
}

/// Whose ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Those of the guest.
    Guest,
    /// Those of the host.
    Host,
}

impl Side {
    const fn noun(self) -> &'static str {
        match self {
            Side::Guest => "guest",
            Side::Host => "host",
        }
    }

    const fn other(self) -> Self {
        match self {
            Side::Guest => Side::Host,
            Side::Host => Side::Guest,
        }
    }
}

/// Rules that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleError {
    /// A rule goes beyond the largest id, 2^32 - 2.
    BeyondIds {
        /// Which option it belongs to.
        kind: IdKind,
        /// Whose ids are exhausted.
        side: Side,
        /// The rule as typed.
        rule: String,
        /// Where its ids begin on that side.
        first: u32,
        /// How many there should be.
        count: u32,
    },
    /// Two rules say what becomes of the same ids.
    Overlap {
        /// Which option they belong to.
        kind: IdKind,
        /// Whose ids.
        side: Side,
        /// The rules as typed, in the order in which they were.
        rules: [String; 2],
        /// The first id that both are about.
        first: u32,
        /// The last id of the first range that both are about.
        last: u32,
    },
}

impl RuleError {
    pub(super) fn beyond_ids(kind: IdKind, side: Side, rule: &Rule, beyond: BeyondIds) -> Self {
        RuleError::BeyondIds {
            kind,
            side,
            rule: rule.to_string(),
            first: beyond.first,
            count: beyond.count,
        }
    }

    /// `rules` are those that the tags in `found` are indices of.
    pub(super) fn overlap(kind: IdKind, side: Side, rules: &[Rule], found: &Overlap) -> Self {
        let typed = |index| rules.get(index).map(Rule::to_string).unwrap_or_default();
        RuleError::Overlap {
            kind,
            side,
            rules: [typed(found.tags.0), typed(found.tags.1)],
            first: found.span.first(),
            last: found.span.last(),
        }
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RuleError::BeyondIds {
                kind,
                side,
                rule,
                first,
                count,
            } => {
                let (option, side) = (kind.option(), side.noun());
                write!(f, "{option} '{rule}': ")?;
                match count {
                    1 => write!(f, "{side} id {first} is")?,
                    _ => write!(f, "{count} {side} ids from {first} on go")?,
                }
                write!(f, " beyond the largest id, {ID_MAX}")
            }
            RuleError::Overlap {
                kind,
                side,
                rules: [one, other],
                first,
                last,
            } => {
                let (option, side) = (kind.option(), side.noun());
                write!(
                    f,
                    "{option} '{one}' and '{other}' both say what becomes of {side} id"
                )?;
                match first == last {
                    true => write!(f, " {first}"),
                    false => write!(f, "s {first} to {last}"),
                }
            }
        }
    }
}

impl Error for RuleError {}

/// An id that becomes another by way of the other side. It is the reason why the rules do not go
/// together with something that needs a translation that is one-to-one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTripLoss {
    kind: IdKind,
    /// Where the id set out.
    side: Side,
    loss: Loss,
}

impl RoundTripLoss {
    pub(super) const fn new(kind: IdKind, side: Side, loss: Loss) -> Self {
        RoundTripLoss { kind, side, loss }
    }
}

impl fmt::Display for RoundTripLoss {
    /// One id as an example.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (here, there) = (self.side.noun(), self.side.other().noun());
        let (noun, loss) = (self.kind.noun(), self.loss);
        write!(
            f,
            "{here} {noun} {} becomes {there} {noun} {}, which becomes {here} {noun} {}",
            loss.id, loss.there, loss.back
        )
    }
}
