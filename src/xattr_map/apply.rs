//! What: names of extended attributes from one side to the other.
//!
//! In: a name that the guest sends, or the list that the host has. Out: a [`Verdict`] about the
//! name, or the list for the guest. Invariants: nothing is allocated; a list costs one pass over
//! its names. Does not: say which errno a refusal becomes; that depends on the operation.

use std::ffi::CStr;

use super::XattrMap;
use super::rule::Action;

/// Longest name in bytes, without its NUL (`XATTR_NAME_MAX`).
pub const NAME_LEN_MAX: usize = 255;

/// Room for one name and its NUL.
#[derive(Clone, Debug)]
pub struct NameBuffer([u8; NAME_LEN_MAX + 1]);

impl NameBuffer {
    /// Room for one name.
    pub const fn new() -> Self {
        NameBuffer([0; NAME_LEN_MAX + 1])
    }

    /// `prepend` and `name` in one, if there is room for both.
    fn join(&mut self, prepend: &[u8], name: &[u8]) -> Option<&CStr> {
        let len = prepend.len().checked_add(name.len())?;
        let (joined, rest) = self.0.split_at_mut_checked(len)?;
        let (head, tail) = joined.split_at_mut_checked(prepend.len())?;
        head.copy_from_slice(prepend);
        tail.copy_from_slice(name);
        *rest.first_mut()? = 0;
        CStr::from_bytes_until_nul(&self.0).ok()
    }
}

impl Default for NameBuffer {
    fn default() -> Self {
        NameBuffer::new()
    }
}

/// What the rules say about a name that the guest sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// The attribute has this name on the host.
    Pass(&'a CStr),
    /// The guest may not use it: `EPERM`, and when it only asks for the value, `ENODATA`.
    Deny,
    /// There are no such attributes: `EOPNOTSUPP`.
    Unsupported,
    /// Its name on the host would have more than [`NAME_LEN_MAX`] bytes: `ERANGE`, as setxattr(2)
    /// says of a name that is too long.
    TooLong,
}

impl XattrMap {
    /// What the rules say about a name that the guest sends. `room` is where a name that is new
    /// is put together.
    pub fn to_host<'a>(&self, guest_name: &'a CStr, room: &'a mut NameBuffer) -> Verdict<'a> {
        let name = guest_name.to_bytes();
        let Some(rule) = self.rules.iter().find(|rule| rule.is_for_guest(name)) else {
            // Not reached, since some rule matches every name.
            return Verdict::Deny;
        };
        match rule.action {
            Action::Prefix => room
                .join(&rule.prepend, name)
                .map_or(Verdict::TooLong, Verdict::Pass),
            Action::Pass if name.len() > NAME_LEN_MAX => Verdict::TooLong,
            Action::Pass => Verdict::Pass(guest_name),
            Action::Deny => Verdict::Deny,
            Action::Unsupported => Verdict::Unsupported,
        }
    }

    /// The name under which the guest knows an attribute that the host lists, or `None` if it
    /// shall not see it. A rule that cuts `prepend` off does not ask whether it would put it back
    /// in front of what is left, as with the existing daemon.
    pub fn to_guest<'a>(&self, host_name: &'a [u8]) -> Option<&'a [u8]> {
        let rule = self.rules.iter().find(|rule| rule.is_for_host(host_name))?;
        let name = match rule.action {
            Action::Prefix => host_name.strip_prefix(&*rule.prepend)?,
            Action::Pass => host_name,
            Action::Deny | Action::Unsupported => return None,
        };
        // An empty name would be an error in the guest's list.
        (!name.is_empty()).then_some(name)
    }

    /// The names that the guest shall see of a list of the host, in its order. Two names of the
    /// host can become the same one of the guest.
    ///
    /// `host_list` is what listxattr(2) returns: names, each with a NUL behind it.
    pub fn guest_names<'a>(&'a self, host_list: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        host_list
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .filter_map(|name| self.to_guest(name))
    }

    /// Length of the list for the guest in bytes. Never more than that of the host's list.
    pub fn list_len(&self, host_list: &[u8]) -> usize {
        self.guest_names(host_list)
            .map(|name| name.len().saturating_add(1))
            .fold(0, usize::saturating_add)
    }

    /// Writes the list for the guest to the beginning of `out` and returns its length, or `None`
    /// if there is not enough room (`ERANGE`).
    pub fn rewrite_list(&self, host_list: &[u8], out: &mut [u8]) -> Option<usize> {
        let room_len = out.len();
        let mut left = out;
        for name in self.guest_names(host_list) {
            let (place, rest) = left.split_at_mut_checked(name.len())?;
            place.copy_from_slice(name);
            let (nul, rest) = rest.split_first_mut()?;
            *nul = 0;
            left = rest;
        }
        room_len.checked_sub(left.len())
    }

    /// Whether the attribute that the guest knows as `guest_name` has another name on the host.
    /// The kernel of the host gives no meaning to it then, so what it would do for it, such as
    /// removing `security.capability` when a file is written, is left to the daemon.
    pub fn renames(&self, guest_name: &CStr) -> bool {
        let mut room = NameBuffer::new();
        match self.to_host(guest_name, &mut room) {
            Verdict::Pass(host_name) => host_name != guest_name,
            Verdict::Deny | Verdict::Unsupported | Verdict::TooLong => false,
        }
    }
}

#[cfg(test)]
mod tests;
