//! What: the ids inside the value of `system.posix_acl_access` and `system.posix_acl_default`.
//!
//! ```text
//! version u32 = 2 | tag u16, permissions u16, id u32 | tag u16, ... | ...      little-endian
//! ```
//!
//! In: a value of one side. Out: the same value with the ids of the other, in the same place
//! (linux/posix_acl_xattr.h). Only entries for a named user or group have an id; all others pass
//! as they are, and so do tags that nobody knows: the kernel that gets the value checks it.
//!
//! Entries need no sorting after their ids have changed. `posix_acl_valid()` of Linux asks for
//! the order of tags (owner, users, group, groups, mask, others) and has asked for no order of
//! ids since they became `kuid_t`; ext4 and tmpfs of Linux 6.18 keep such a value as it is.
//! With a translation that is one-to-one no two entries become the same either. Use no other:
//! see [`Translator::is_one_to_one`].

use std::error::Error;
use std::fmt;

use super::translator::Translator;
use super::types::{GuestGid, GuestUid, HostGid, HostUid};

/// `POSIX_ACL_XATTR_VERSION`.
const VERSION: u32 = 2;
/// Length of the version in bytes.
const HEADER_LEN: usize = 4;
/// Length of an entry in bytes.
const ENTRY_LEN: usize = 8;
/// `ACL_USER` and `ACL_GROUP`: entries for a named user, for a named group.
const TAG_USER: u16 = 0x02;
const TAG_GROUP: u16 = 0x08;

/// Why a value cannot be translated. What of it was translated already is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclError {
    /// It is no ACL, or an entry for a named user or group has no id: `EINVAL`.
    Malformed,
    /// It names a user or group that the policy forbids: `EPERM`.
    Forbidden,
}

impl fmt::Display for AclError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AclError::Malformed => "the value is not a POSIX ACL",
            AclError::Forbidden => "the ACL names an id that the guest may not use",
        })
    }
}

impl Error for AclError {}

/// Turns the guest's ids in `value` into the host's.
///
/// # Errors
/// See [`AclError`].
pub fn to_host(translator: &Translator, value: &mut [u8]) -> Result<(), AclError> {
    translate(value, |named| {
        match named {
            Named::User(raw) => {
                let guest = GuestUid::new(raw).ok_or(AclError::Malformed)?;
                translator.host_uid(guest).map(HostUid::raw)
            }
            Named::Group(raw) => {
                let guest = GuestGid::new(raw).ok_or(AclError::Malformed)?;
                translator.host_gid(guest).map(HostGid::raw)
            }
        }
        .ok_or(AclError::Forbidden)
    })
}

/// Turns the host's ids in `value` into the guest's. An id that the host cannot name in the
/// daemon's user namespace, 0xffffffff, stays what it is, and the guest's kernel refuses the ACL:
/// any number in its place would give somebody's rights to somebody else.
///
/// # Errors
/// [`AclError::Malformed`].
pub fn to_guest(translator: &Translator, value: &mut [u8]) -> Result<(), AclError> {
    translate(value, |named| {
        Ok(match named {
            Named::User(raw) => {
                HostUid::new(raw).map_or(raw, |host| translator.guest_uid(host).raw())
            }
            Named::Group(raw) => {
                HostGid::new(raw).map_or(raw, |host| translator.guest_gid(host).raw())
            }
        })
    })
}

/// Whose entry it is.
enum Named {
    User(u32),
    Group(u32),
}

fn translate(
    value: &mut [u8],
    change: impl Fn(Named) -> Result<u32, AclError>,
) -> Result<(), AclError> {
    // setxattr(2) takes an empty value for "no ACL".
    if value.is_empty() {
        return Ok(());
    }
    let (version, entries) = value
        .split_first_chunk_mut::<HEADER_LEN>()
        .ok_or(AclError::Malformed)?;
    let (entries, rest) = entries.as_chunks_mut::<ENTRY_LEN>();
    if u32::from_le_bytes(*version) != VERSION || !rest.is_empty() {
        return Err(AclError::Malformed);
    }
    for entry in entries {
        let [tag_low, tag_high, _, _, id @ ..] = entry;
        let raw = u32::from_le_bytes(*id);
        let named = match u16::from_le_bytes([*tag_low, *tag_high]) {
            TAG_USER => Named::User(raw),
            TAG_GROUP => Named::Group(raw),
            _ => continue,
        };
        *id = change(named)?.to_le_bytes();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER_OBJ: u16 = 0x01;
    const GROUP_OBJ: u16 = 0x04;
    const MASK: u16 = 0x10;
    const OTHER: u16 = 0x20;
    const NO_ID: u32 = u32::MAX;

    fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            value.extend(tag.to_le_bytes());
            value.extend(permissions.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        value
    }

    fn with_named(user: u32, group: u32) -> Vec<u8> {
        acl(&[
            (USER_OBJ, 7, NO_ID),
            (TAG_USER, 6, user),
            (TAG_USER, 4, 50),
            (GROUP_OBJ, 5, NO_ID),
            (TAG_GROUP, 5, group),
            (MASK, 7, NO_ID),
            (OTHER, 0, NO_ID),
        ])
    }

    /// Users 0 and 1000 change places, groups 0 and 2000 do; user 9 and group 9 are forbidden.
    fn swap() -> Translator {
        let rules = |texts: [&str; 3]| texts.map(|text| text.parse().unwrap());
        let users = rules(["map:0:1000:1", "map:1000:0:1", "forbid-guest:9:1"]);
        let groups = rules(["map:0:2000:1", "map:2000:0:1", "forbid-guest:9:1"]);
        Translator::new(&users, &groups).unwrap()
    }

    #[test]
    fn named_entries_change_and_all_others_stay() {
        let mut value = with_named(0, 2000);
        to_host(&swap(), &mut value).unwrap();
        assert_eq!(value, with_named(1000, 0));
        to_guest(&swap(), &mut value).unwrap();
        assert_eq!(value, with_named(0, 2000));
    }

    #[test]
    fn users_and_groups_are_not_mixed_up() {
        let mut value = with_named(2000, 1000);
        to_host(&swap(), &mut value).unwrap();
        assert_eq!(value, with_named(2000, 1000));
    }

    #[test]
    fn identity_changes_nothing() {
        for mut value in [with_named(0, 1), acl(&[]), Vec::new()] {
            let before = value.clone();
            to_host(&Translator::identity(), &mut value).unwrap();
            to_guest(&Translator::identity(), &mut value).unwrap();
            assert_eq!(value, before);
        }
    }

    #[test]
    fn a_forbidden_id_is_refused_on_the_way_to_the_host_only() {
        for (user, group) in [(9, 1), (1, 9)] {
            let mut value = with_named(user, group);
            assert_eq!(to_host(&swap(), &mut value), Err(AclError::Forbidden));
            let mut value = with_named(user, group);
            to_guest(&swap(), &mut value).unwrap();
            assert_eq!(value, with_named(user, group));
        }
        // The owner's entries have an id field that means nothing.
        let mut value = acl(&[(USER_OBJ, 7, 9), (GROUP_OBJ, 7, 9), (OTHER, 7, 9)]);
        to_host(&swap(), &mut value).unwrap();
    }

    #[test]
    fn a_named_entry_without_an_id_is_malformed_from_the_guest_and_kept_from_the_host() {
        for (user, group) in [(NO_ID, 1), (1, NO_ID)] {
            let mut value = with_named(user, group);
            assert_eq!(to_host(&swap(), &mut value), Err(AclError::Malformed));
            let mut value = with_named(user, group);
            to_guest(&swap(), &mut value).unwrap();
            assert_eq!(value, with_named(user, group));
        }
    }

    #[test]
    fn every_truncation_is_whole_entries_or_malformed() {
        let whole = with_named(0, 0);
        for len in 0..=whole.len() {
            let mut value = whole[..len].to_vec();
            let whole_entries = len == 0 || (len >= 4 && (len - 4) % 8 == 0);
            let expected = match whole_entries {
                true => Ok(()),
                false => Err(AclError::Malformed),
            };
            assert_eq!(to_host(&swap(), &mut value), expected, "{len}");
            let mut value = whole[..len].to_vec();
            assert_eq!(to_guest(&swap(), &mut value), expected, "{len}");
            assert_eq!(value.len(), len);
        }
    }

    #[test]
    fn another_version_is_malformed() {
        for version in [0, 1, 3, VERSION.swap_bytes(), u32::MAX] {
            let mut value = with_named(0, 0);
            value[..4].copy_from_slice(&version.to_le_bytes());
            assert_eq!(to_host(&swap(), &mut value), Err(AclError::Malformed));
            assert_eq!(to_guest(&swap(), &mut value), Err(AclError::Malformed));
        }
    }

    #[test]
    fn unknown_tags_pass_as_they_are() {
        for tag in [0, 3, 0x40, 0x0200, 0x0802, u16::MAX] {
            let mut value = acl(&[(tag, 7, 0)]);
            to_host(&swap(), &mut value).unwrap();
            assert_eq!(value, acl(&[(tag, 7, 0)]), "{tag:#x}");
        }
    }
}
