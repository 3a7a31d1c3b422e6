//! What: one rule, and which names it is about.
//!
//! In: what `syntax` has read. Out: whether the rule decides about a name. Does not: decide.

/// What becomes of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The guest's name gets `prepend` in front on the host.
    Prefix,
    /// It is the same on both sides.
    Pass,
    /// The guest may not use it and does not see it.
    Deny,
    /// It is as if the file system did not know such names; the guest does not see them.
    Unsupported,
}

/// Names of which side a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Those that the guest sends ("client").
    Guest,
    /// Those that the host lists ("server").
    Host,
    /// Both ("all").
    Both,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) action: Action,
    pub(super) scope: Scope,
    /// How a name that the guest sends must begin. No NUL in it.
    pub(super) key: Box<[u8]>,
    /// How a name that the host lists must begin, and what [`Action::Prefix`] puts in front. No
    /// NUL in it.
    pub(super) prepend: Box<[u8]>,
}

impl Rule {
    /// Whether the rule decides about this name of the guest.
    pub(super) fn is_for_guest(&self, name: &[u8]) -> bool {
        match self.scope {
            Scope::Guest | Scope::Both => name.starts_with(&self.key),
            Scope::Host => false,
        }
    }

    /// Whether the rule decides about this name of the host.
    pub(super) fn is_for_host(&self, name: &[u8]) -> bool {
        match self.scope {
            Scope::Host | Scope::Both => name.starts_with(&self.prepend),
            Scope::Guest => false,
        }
    }
}
