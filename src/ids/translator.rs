//! What: who a guest id is on the host, and the other way round.
//!
//! In: an id of one world. Out: the id of the other, or nothing when the policy forbids it. The
//! two directions are independent of each other: what is squashed cannot be told apart again,
//! and a rule may be about one of them only. Ids that no rule names stay what they are.
//! Invariants: no result is 0xffffffff; a translation allocates nothing. Does not: switch
//! credentials.

use super::error::{IdKind, RoundTripLoss, RuleError, Side};
use super::ranges::{BeyondIds, Range, RangeMap, Span};
use super::round_trip::find_loss;
use super::syntax::{Action, Rule};
use super::types::{GuestGid, GuestUid, HostGid, HostUid};

/// Translates ids between the guest and the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Translator {
    uids: Directions,
    gids: Directions,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Directions {
    to_host: RangeMap,
    to_guest: RangeMap,
}

impl Translator {
    /// A translator that leaves every id as it is.
    pub const fn identity() -> Self {
        const NO_RULES: Directions = Directions {
            to_host: RangeMap::identity(),
            to_guest: RangeMap::identity(),
        };
        Translator {
            uids: NO_RULES,
            gids: NO_RULES,
        }
    }

    /// A translator that does what the rules of `--translate-uid` and `--translate-gid` say.
    ///
    /// # Errors
    /// A rule that goes beyond the largest id, on either side; two rules about the same id in
    /// the same direction.
    pub fn new(uid_rules: &[Rule], gid_rules: &[Rule]) -> Result<Self, RuleError> {
        Ok(Translator {
            uids: Directions::new(IdKind::User, uid_rules)?,
            gids: Directions::new(IdKind::Group, gid_rules)?,
        })
    }

    /// The host's id for a guest user, or `None` if the policy forbids that user.
    pub fn host_uid(&self, guest: GuestUid) -> Option<HostUid> {
        let raw = self.uids.to_host.translate(guest.raw());
        raw.and_then(HostUid::new)
    }

    /// The host's id for a guest group, or `None` if the policy forbids that group.
    pub fn host_gid(&self, guest: GuestGid) -> Option<HostGid> {
        let raw = self.gids.to_host.translate(guest.raw());
        raw.and_then(HostGid::new)
    }

    /// What the guest sees for a host user.
    pub fn guest_uid(&self, host: HostUid) -> GuestUid {
        let raw = self.uids.to_guest.translate(host.raw());
        // No rule forbids a host id. If one did, the guest must not take its files for root's.
        raw.and_then(GuestUid::new).unwrap_or(GuestUid::NOBODY)
    }

    /// What the guest sees for a host group.
    pub fn guest_gid(&self, host: HostGid) -> GuestGid {
        let raw = self.gids.to_guest.translate(host.raw());
        raw.and_then(GuestGid::new).unwrap_or(GuestGid::NOBODY)
    }

    /// Whether every id stays what it is, in both directions.
    pub fn is_identity(&self) -> bool {
        [&self.uids, &self.gids]
            .iter()
            .all(|ids| ids.to_host.is_identity() && ids.to_guest.is_identity())
    }

    /// Whether no id is ever mistaken for another, so that POSIX ACLs can be translated: see
    /// [`Self::round_trip_loss`].
    pub fn is_one_to_one(&self) -> bool {
        self.round_trip_loss().is_none()
    }

    /// An id that does not survive the way to the other side and back, if there is one.
    ///
    /// There is none if and only if for users and for groups: each guest id becomes itself again
    /// by way of the host, unless it is forbidden; and each host id becomes itself again by way
    /// of the guest, unless the guest id that it becomes is forbidden. From this follows that no
    /// two ids of one side, those that no rule names included, become the same id of the other,
    /// unless it is one that the guest may see but not use.
    ///
    /// `map:0:1000:5` alone fails: guest 0 and guest 1000 are both host 1000. With
    /// `map:1000:0:5` the two ranges change places and it holds. With `host:0:1000:5` and
    /// `forbid-guest:1000:5` instead, it holds as well, and the guest cannot act as host 0 to 4.
    pub fn round_trip_loss(&self) -> Option<RoundTripLoss> {
        let of = |kind, ids: &Directions| {
            let from_guest = find_loss(&ids.to_host, &ids.to_guest);
            let from_host = || find_loss(&ids.to_guest, &ids.to_host);
            from_guest
                .map(|loss| RoundTripLoss::new(kind, Side::Guest, loss))
                .or_else(|| from_host().map(|loss| RoundTripLoss::new(kind, Side::Host, loss)))
        };
        of(IdKind::User, &self.uids).or_else(|| of(IdKind::Group, &self.gids))
    }
}

impl Directions {
    fn new(kind: IdKind, rules: &[Rule]) -> Result<Self, RuleError> {
        let mut to_host = Vec::new();
        let mut to_guest = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let ranges = Ranges::of(rule)
                .map_err(|(side, beyond)| RuleError::beyond_ids(kind, side, rule, beyond))?;
            to_host.extend(ranges.to_host.map(|range| (index, range)));
            to_guest.extend(ranges.to_guest.map(|range| (index, range)));
        }
        let overlap = |side| move |found| RuleError::overlap(kind, side, rules, &found);
        Ok(Directions {
            to_host: RangeMap::new(to_host).map_err(overlap(Side::Guest))?,
            to_guest: RangeMap::new(to_guest).map_err(overlap(Side::Host))?,
        })
    }
}

/// What one rule says in each direction.
#[derive(Debug, Default)]
struct Ranges {
    to_host: Option<Range>,
    to_guest: Option<Range>,
}

impl Ranges {
    /// Errors: the side on which the rule goes beyond the largest id.
    fn of(rule: &Rule) -> Result<Self, (Side, BeyondIds)> {
        let ids = |side, first, count| Span::new(first, count).map_err(|beyond| (side, beyond));
        let count = rule.count();
        // A rule that squashes has one target, unless it is for no ids and does nothing.
        let one = count.min(1);
        let mut ranges = Ranges::default();
        match rule.action() {
            Action::Guest { guest, host } => {
                let host = ids(Side::Host, host, count)?;
                let both = ids(Side::Guest, guest, count)?.zip(host);
                ranges.to_host = both.map(|(guest, host)| Range::shifted(guest, host));
            }
            Action::Host { host, guest } => {
                let guest = ids(Side::Guest, guest, count)?;
                let both = ids(Side::Host, host, count)?.zip(guest);
                ranges.to_guest = both.map(|(host, guest)| Range::shifted(host, guest));
            }
            Action::Map { guest, host } => {
                let host = ids(Side::Host, host, count)?;
                let both = ids(Side::Guest, guest, count)?.zip(host);
                ranges.to_host = both.map(|(guest, host)| Range::shifted(guest, host));
                ranges.to_guest = both.map(|(guest, host)| Range::shifted(host, guest));
            }
            Action::SquashGuest { guest, host } => {
                let host = ids(Side::Host, host, one)?;
                let both = ids(Side::Guest, guest, count)?.zip(host);
                ranges.to_host = both.map(|(guest, host)| Range::squashed(guest, host));
            }
            Action::SquashHost { host, guest } => {
                let guest = ids(Side::Guest, guest, one)?;
                let both = ids(Side::Host, host, count)?.zip(guest);
                ranges.to_guest = both.map(|(host, guest)| Range::squashed(host, guest));
            }
            Action::ForbidGuest { guest } => {
                ranges.to_host = ids(Side::Guest, guest, count)?.map(Range::forbidden);
            }
        }
        Ok(ranges)
    }
}

#[cfg(test)]
mod tests;
