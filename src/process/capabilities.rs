//! What: the capabilities(7) that the daemon keeps, and what the operator changes about them.
//!
//! In: what the options need, and the changes of `--modcaps`. Out: a process whose permitted and
//! effective sets are what is wanted as far as it had them, whose other sets are empty, and which
//! execve(2) cannot make any more powerful. Threads get what the thread has that starts them, so
//! this comes before any.
//!
//! ```text
//! prepare()  while /proc is the kernel's  ->  sandbox  ->  restrict()  or  drop_all()
//! ```
//!
//! Invariants: nothing is opened after [`prepare`]. libcap-ng would read /proc again for the
//! bounding set, and in the sandbox that is a path in the share, where a guest may have left
//! anything, a FIFO that nobody writes to, say: so the bounding set is emptied by prctl(2) here.
//! Does not: know which user the process is; an ordinary user has no capabilities to keep.

use std::error::Error;
use std::fmt;
use std::io;
use std::str::FromStr;

use capng::{Action, CUpdate, Set, Type};

use crate::sys::credentials::{self, CapabilitySets};
use crate::sys::errno::Errno;
use crate::sys::prctl;

/// One capability, by the number that the kernel gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability(u32);

impl Capability {
    /// Owners of files change by chown(2).
    pub const CHOWN: Self = Capability(0);
    /// Permission bits do not matter.
    pub const DAC_OVERRIDE: Self = Capability(1);
    /// They do not matter for reading and searching, and files are opened by handle.
    pub const DAC_READ_SEARCH: Self = Capability(2);
    /// What only the owner of a file may do.
    pub const FOWNER: Self = Capability(3);
    /// Set-id bits stay.
    pub const FSETID: Self = Capability(4);
    /// Groups of the process change.
    pub const SETGID: Self = Capability(6);
    /// The user of the process changes.
    pub const SETUID: Self = Capability(7);
    /// The bounding set shrinks.
    pub const SETPCAP: Self = Capability(8);
    /// Files become immutable.
    pub const LINUX_IMMUTABLE: Self = Capability(9);
    /// Device nodes are made.
    pub const MKNOD: Self = Capability(27);
    /// Files get capabilities.
    pub const SETFCAP: Self = Capability(31);

    fn by_name(name: &str) -> Option<Self> {
        capng::name_to_capability(name).ok().map(Capability)
    }

    const fn bit(self) -> u64 {
        match 1_u64.checked_shl(self.0) {
            Some(bit) => bit,
            None => 0,
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match capng::capability_to_name(self.0) {
            Ok(name) => write!(f, "CAP_{}", name.to_ascii_uppercase()),
            Err(_) => write!(f, "capability {}", self.0),
        }
    }
}

/// Most capabilities that two words per set have room for.
const NUMBERS: u32 = u64::BITS;

/// Several capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CapabilitySet(u64);

impl CapabilitySet {
    const NONE: Self = CapabilitySet(0);

    const fn of(capabilities: &[Capability]) -> Self {
        let mut bits = 0;
        let mut rest = capabilities;
        while let [first, others @ ..] = rest {
            bits |= first.bit();
            rest = others;
        }
        CapabilitySet(bits)
    }

    const fn with(self, capability: Capability) -> Self {
        CapabilitySet(self.0 | capability.bit())
    }

    const fn without(self, other: Self) -> Self {
        CapabilitySet(self.0 & !other.0)
    }

    const fn common(self, other: Self) -> Self {
        CapabilitySet(self.0 & other.0)
    }

    const fn has(self, capability: Capability) -> bool {
        self.0 & capability.bit() != 0
    }

    const fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn members(self) -> impl Iterator<Item = Capability> {
        (0..NUMBERS)
            .map(Capability)
            .filter(move |each| self.has(*each))
    }
}

impl fmt::Display for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, capability) in self.members().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{capability}")?;
        }
        Ok(())
    }
}

/// What acting for the users of a guest takes: their ids, their files, and what their root may do.
const ALWAYS: CapabilitySet = CapabilitySet::of(&[
    Capability::CHOWN,
    Capability::DAC_OVERRIDE,
    Capability::FOWNER,
    Capability::FSETID,
    Capability::SETGID,
    Capability::SETUID,
    Capability::MKNOD,
    Capability::SETFCAP,
]);

/// What the options make necessary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Files are opened by handle: `CAP_DAC_READ_SEARCH`.
    pub file_handles: bool,
    /// The guest may make files immutable and append-only: `CAP_LINUX_IMMUTABLE`.
    pub immutable: bool,
}

impl Needs {
    fn set(self) -> CapabilitySet {
        let mut set = ALWAYS;
        if self.file_handles {
            set = set.with(Capability::DAC_READ_SEARCH);
        }
        if self.immutable {
            set = set.with(Capability::LINUX_IMMUTABLE);
        }
        set
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Add,
    Remove,
}

/// Changes of the set of capabilities, from left to right: `[+-]NAME(:[+-]NAME)*`, the names as
/// in capabilities(7) but without `CAP_`, in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapabilityChanges(Vec<(Change, Capability)>);

impl CapabilityChanges {
    /// Whether `capability` is taken away, and not added again later on.
    pub fn removes(&self, capability: Capability) -> bool {
        self.last_word_on(capability) == Some(Change::Remove)
    }

    fn last_word_on(&self, capability: Capability) -> Option<Change> {
        let mut mentions = self.0.iter().rev();
        mentions
            .find(|(_, each)| *each == capability)
            .map(|(change, _)| *change)
    }

    fn apply(&self, set: CapabilitySet) -> CapabilitySet {
        self.0
            .iter()
            .fold(set, |set, (change, capability)| match change {
                Change::Add => set.with(*capability),
                Change::Remove => set.without(CapabilitySet::of(&[*capability])),
            })
    }

    /// What is in the set in the end because it was asked for.
    fn added(&self) -> CapabilitySet {
        let wanted = self.0.iter().map(|(_, capability)| *capability);
        wanted
            .filter(|capability| self.last_word_on(*capability) == Some(Change::Add))
            .fold(CapabilitySet::NONE, CapabilitySet::with)
    }
}

impl FromStr for CapabilityChanges {
    type Err = CapabilityError;

    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        text.split(':')
            .map(change_of)
            .collect::<Result<_, _>>()
            .map(CapabilityChanges)
    }
}

fn change_of(element: &str) -> Result<(Change, Capability), CapabilityError> {
    if element.is_empty() {
        return Err(CapabilityError::EmptyElement);
    }
    let (change, name) = if let Some(name) = element.strip_prefix('+') {
        (Change::Add, name)
    } else if let Some(name) = element.strip_prefix('-') {
        (Change::Remove, name)
    } else {
        return Err(CapabilityError::NoSign(element.to_owned()));
    };
    let known = Capability::by_name(name);
    let capability = known.ok_or_else(|| CapabilityError::UnknownName(element.to_owned()))?;
    Ok((change, capability))
}

/// Why the capabilities cannot be what they should be.
#[derive(Debug)]
pub enum CapabilityError {
    /// Two colons without a name between, or one at an end, or nothing at all.
    EmptyElement,
    /// An element begins with neither `+` nor `-`.
    NoSign(String),
    /// No capability has this name.
    UnknownName(String),
    /// libcap-ng cannot work with this kernel.
    Prepare(capng::Error),
    /// The kernel does not tell which capabilities there are.
    Read(io::Error),
    /// The bounding set cannot be emptied.
    Bounding(io::Error),
    /// The sets cannot be changed.
    Apply(capng::Error),
    /// The kernel has other sets than it was told to.
    Differs,
    /// The process may still gain privileges by execve(2).
    NewPrivileges(io::Error),
}

/// What the grammar of changes looks like, for messages.
const FORM: &str = "changes are written +NAME or -NAME, such as +sys_admin:-mknod, with the \
                    names of capabilities(7) without CAP_";

impl fmt::Display for CapabilityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CapabilityError::EmptyElement => {
                write!(f, "an element of the capability changes is empty; {FORM}")
            }
            CapabilityError::NoSign(element) => {
                write!(f, "capability change {element:?} has no sign; {FORM}")
            }
            CapabilityError::UnknownName(element) => {
                write!(
                    f,
                    "capability change {element:?} names no capability; {FORM}"
                )
            }
            CapabilityError::Prepare(_) => f.write_str(
                "cannot read the capabilities of this process; it takes Linux 2.6.26 or later and \
                 a readable /proc",
            ),
            CapabilityError::Read(_) => {
                f.write_str("cannot read the capabilities of this process; capget(2) must work")
            }
            CapabilityError::Bounding(_) => f.write_str(
                "cannot empty the capability bounding set; do not forbid prctl(2) to the daemon",
            ),
            CapabilityError::Apply(_) => f.write_str(
                "cannot drop capabilities; do not forbid capset(2) to the daemon by a filter",
            ),
            CapabilityError::Differs => f.write_str(
                "dropping capabilities has not left the set that was asked for; a security \
                 module of the host or a tracer interferes, run the daemon without it",
            ),
            CapabilityError::NewPrivileges(_) => f.write_str(
                "cannot give up gaining privileges (PR_SET_NO_NEW_PRIVS); it takes Linux 3.5 or \
                 later and a filter that does not forbid prctl(2)",
            ),
        }
    }
}

impl Error for CapabilityError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            CapabilityError::Read(error)
            | CapabilityError::Bounding(error)
            | CapabilityError::NewPrivileges(error) => Some(error),
            CapabilityError::Prepare(error) | CapabilityError::Apply(error) => Some(error),
            CapabilityError::EmptyElement
            | CapabilityError::NoSign(_)
            | CapabilityError::UnknownName(_)
            | CapabilityError::Differs => None,
        }
    }
}

/// The proof that libcap-ng has seen the kernel's /proc and will not open it again.
#[derive(Clone, Copy, Debug)]
pub struct Prepared(());

/// Lets libcap-ng find out which capabilities this kernel has, for which it opens files below
/// /proc. Call it before the sandbox is entered; it may be in a process that forks later.
///
/// # Errors
/// [`CapabilityError::Prepare`].
pub fn prepare() -> Result<Prepared, CapabilityError> {
    capng::get_caps_process().map_err(CapabilityError::Prepare)?;
    Ok(Prepared(()))
}

/// Leaves the calling thread, and those that it starts, with what `needs` and `changes` say as
/// far as they had it, see the module head. A wish that cannot be met is a warning.
///
/// # Errors
/// [`CapabilityError`]; the process must not go on then.
pub fn restrict(
    prepared: Prepared,
    needs: Needs,
    changes: &CapabilityChanges,
) -> Result<(), CapabilityError> {
    let wanted = changes.apply(needs.set());
    let had = permitted()?;
    warn_of_missing(wanted.without(had), changes.added());
    keep(prepared, wanted.common(had))?;
    log::debug!("capabilities: {}", wanted.common(had));
    Ok(())
}

/// Leaves the calling thread, and those that it starts, without any capability.
///
/// # Errors
/// [`CapabilityError`]; the process must not go on then.
pub fn drop_all(prepared: Prepared) -> Result<(), CapabilityError> {
    keep(prepared, CapabilitySet::NONE)
}

fn permitted() -> Result<CapabilitySet, CapabilityError> {
    sets().map(|sets| CapabilitySet(sets.permitted_bits()))
}

fn sets() -> Result<CapabilitySets, CapabilityError> {
    credentials::capabilities().map_err(|errno| CapabilityError::Read(errno.into()))
}

/// Says which capabilities cannot be kept because they are not there: what the operator has asked
/// for in any case, and what a guest will miss if the daemon is root, which has them all unless
/// somebody has taken them away.
fn warn_of_missing(missing: CapabilitySet, added: CapabilitySet) {
    const REMEDY: &str = "start it as root, or let the container have them (--cap-add, \
                          AmbientCapabilities=)";
    let unmet = missing.common(added);
    if !unmet.is_empty() {
        log::warn!("--modcaps asks for {unmet}, which the daemon does not have; {REMEDY}");
    }
    let absent = missing.without(added);
    if absent.is_empty() {
        return;
    }
    if credentials::effective_uid() == 0 {
        log::warn!(
            "the daemon is root without {absent}: what takes them will fail in the guest; {REMEDY}"
        );
    } else {
        log::debug!("the daemon has no {absent}");
    }
}

fn keep(_prepared: Prepared, kept: CapabilitySet) -> Result<(), CapabilityError> {
    prctl::forbid_new_privileges().map_err(|errno| CapabilityError::NewPrivileges(errno.into()))?;
    empty_bounding_set()?;
    // libcap-ng remembers the process that prepared it, of which this one may be a child; 0 is
    // the calling thread, capset(2).
    capng::setpid(0);
    capng::clear(Set::BOTH);
    let updates = kept.members().map(|capability| CUpdate {
        action: Action::ADD,
        cap_type: Type::EFFECTIVE | Type::PERMITTED,
        capability: capability.0,
    });
    capng::update(updates.collect()).map_err(CapabilityError::Apply)?;
    // The ambient set goes with the inheritable one, see capabilities(7).
    capng::apply(Set::CAPS).map_err(CapabilityError::Apply)?;
    let sets = sets()?;
    let found = (
        sets.permitted_bits(),
        sets.effective_bits(),
        sets.inheritable_bits(),
    );
    if found == (kept.0, kept.0, 0) {
        Ok(())
    } else {
        Err(CapabilityError::Differs)
    }
}

fn empty_bounding_set() -> Result<(), CapabilityError> {
    let failed = |errno: Errno| CapabilityError::Bounding(errno.into());
    for number in 0..NUMBERS {
        match prctl::is_bounding(number).map_err(failed)? {
            None => break,
            Some(false) => {}
            Some(true) => match prctl::drop_bounding(number) {
                Ok(()) => {}
                Err(Errno::EPERM) => {
                    log::debug!(
                        "the capability bounding set stays as it is: there is no {}",
                        Capability::SETPCAP
                    );
                    break;
                }
                Err(errno) => return Err(failed(errno)),
            },
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str) -> u64 {
        let needs = Needs {
            file_handles: true,
            immutable: false,
        };
        let changes: CapabilityChanges = text.parse().unwrap();
        changes.apply(needs.set()).0
    }

    #[test]
    fn set_of_each_need_is_the_documented_one() {
        for (file_handles, immutable, expected) in [
            (true, false, 0x8800_00df),
            (false, false, 0x8800_00db),
            (true, true, 0x8800_02df),
            (false, true, 0x8800_02db),
        ] {
            let needs = Needs {
                file_handles,
                immutable,
            };
            assert_eq!(needs.set().0, expected, "{needs:?}");
        }
    }

    #[test]
    fn numbers_are_those_that_the_names_have() {
        for (name, capability) in [
            ("chown", Capability::CHOWN),
            ("dac_override", Capability::DAC_OVERRIDE),
            ("dac_read_search", Capability::DAC_READ_SEARCH),
            ("fowner", Capability::FOWNER),
            ("fsetid", Capability::FSETID),
            ("setgid", Capability::SETGID),
            ("setuid", Capability::SETUID),
            ("setpcap", Capability::SETPCAP),
            ("linux_immutable", Capability::LINUX_IMMUTABLE),
            ("mknod", Capability::MKNOD),
            ("setfcap", Capability::SETFCAP),
        ] {
            assert_eq!(Capability::by_name(name), Some(capability), "{name}");
        }
    }

    #[test]
    fn changes_are_applied_from_left_to_right_in_any_case() {
        for (text, expected) in [
            ("-mknod", 0x8000_00df),
            ("+sys_admin", 0x8820_00df),
            ("+SYS_Admin:-MKNOD", 0x8020_00df),
            ("+sys_admin:-sys_admin", 0x8800_00df),
            ("-chown:+chown", 0x8800_00df),
            ("+chown", 0x8800_00df),
            ("-sys_admin", 0x8800_00df),
            ("+checkpoint_restore", 0x0100_8800_00df),
        ] {
            assert_eq!(changed(text), expected, "{text}");
        }
        assert_eq!(CapabilityChanges::default().apply(ALWAYS), ALWAYS);
    }

    #[test]
    fn malformed_changes_are_refused_by_element_and_with_the_form() {
        for (text, element) in [
            ("", "empty"),
            (":", "empty"),
            ("+chown:", "empty"),
            (":+chown", "empty"),
            ("+chown::-mknod", "empty"),
            ("chown", "\"chown\""),
            ("*chown", "\"*chown\""),
            (" +chown", "\" +chown\""),
            ("+", "\"+\""),
            ("-", "\"-\""),
            ("+-chown", "\"+-chown\""),
            ("+cap_chown", "\"+cap_chown\""),
            ("-mknod:+CAP_CHOWN", "\"+CAP_CHOWN\""),
            ("+no_such", "\"+no_such\""),
            ("+chown ", "\"+chown \""),
            ("+0", "\"+0\""),
            ("+chown\0", "\"+chown\\0\""),
            ("+chown,-mknod", "\"+chown,-mknod\""),
        ] {
            let message = text.parse::<CapabilityChanges>().unwrap_err().to_string();
            assert!(message.contains(element), "{text:?}: {message}");
            assert!(message.contains("+NAME or -NAME"), "{text:?}: {message}");
        }
    }

    #[test]
    fn removes_tells_what_is_gone_in_the_end() {
        for (text, expected) in [
            ("-dac_read_search", true),
            ("-DAC_READ_SEARCH:-mknod", true),
            ("+dac_read_search:-dac_read_search", true),
            ("-dac_read_search:+dac_read_search", false),
            ("+dac_read_search", false),
            ("-mknod", false),
        ] {
            let changes: CapabilityChanges = text.parse().unwrap();
            let removes = changes.removes(Capability::DAC_READ_SEARCH);
            assert_eq!(removes, expected, "{text}");
        }
    }

    #[test]
    fn added_tells_what_was_asked_for_and_not_taken_back() {
        let changes: CapabilityChanges = "+sys_admin:-mknod:+kill:-kill".parse().unwrap();
        assert_eq!(changes.added().to_string(), "CAP_SYS_ADMIN");
    }
}
