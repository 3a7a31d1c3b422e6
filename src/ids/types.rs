//! What: user and group ids of the two worlds, as four types without conversions between them.
//!
//! In: numbers from requests or from the host. Out: [`GuestUid`], [`GuestGid`], [`HostUid`],
//! [`HostGid`]. Invariant: none of them ever holds 0xffffffff, which the kernel reads as "leave
//! unchanged" or "no id". Does not: translate (see `translator`).

macro_rules! id_type {
    ($name:ident, $what:literal) => {
        #[doc = $what]
        ///
        /// Never 0xffffffff: see [`Self::new`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u32);

        impl $name {
            /// Id 0.
            pub const ROOT: Self = Self(0);

            /// Id 65534, for what has no id that could be named
            /// (`/proc/sys/kernel/overflowuid`).
            pub const NOBODY: Self = Self(65534);

            /// The id, or `None` for 0xffffffff, which is no id.
            pub const fn new(raw: u32) -> Option<Self> {
                if raw == u32::MAX {
                    None
                } else {
                    Some(Self(raw))
                }
            }

            /// The number.
            pub const fn raw(self) -> u32 {
                self.0
            }
        }
    };
}

id_type!(GuestUid, "A user id as the guest counts them.");
id_type!(GuestGid, "A group id as the guest counts them.");
id_type!(HostUid, "A user id as the host counts them.");
id_type!(HostGid, "A group id as the host counts them.");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_refuses_only_the_invalid_id() {
        assert_eq!(GuestUid::new(u32::MAX), None);
        assert_eq!(HostGid::new(u32::MAX), None);
        assert_eq!(GuestGid::new(0), Some(GuestGid::ROOT));
        assert_eq!(
            HostUid::new(u32::MAX - 1).map(HostUid::raw),
            Some(u32::MAX - 1)
        );
    }
}
