//! What: who a guest id is on the host, and the other way round.
//!
//! In: an id of one world. Out: the id of the other, or nothing when the policy forbids it.
//! Today the only policy is identity; every place where an id crosses the border goes through
//! here already, so a policy needs no new call sites. Does not: switch credentials.

use crate::ids::types::{GuestGid, GuestUid, HostGid, HostUid};

/// Translates ids between the guest and the host.
#[derive(Clone, Debug, Default)]
pub struct Translator {
    _private: (),
}

impl Translator {
    /// A translator that leaves every id as it is.
    pub const fn identity() -> Self {
        Self { _private: () }
    }

    /// The host's id for a guest user, or `None` if the policy forbids that user.
    pub fn host_uid(&self, guest: GuestUid) -> Option<HostUid> {
        HostUid::new(guest.raw())
    }

    /// The host's id for a guest group, or `None` if the policy forbids that group.
    pub fn host_gid(&self, guest: GuestGid) -> Option<HostGid> {
        HostGid::new(guest.raw())
    }

    /// What the guest sees for a host user.
    pub fn guest_uid(&self, host: HostUid) -> GuestUid {
        GuestUid::new(host.raw()).unwrap_or(GuestUid::ROOT)
    }

    /// What the guest sees for a host group.
    pub fn guest_gid(&self, host: HostGid) -> GuestGid {
        GuestGid::new(host.raw()).unwrap_or(GuestGid::ROOT)
    }
}
