//! What: the filter of system calls that the serving process puts itself under, seccomp(2).
//!
//! In: the action of `--seccomp`, and what the options need. Out: a process in which a fault of
//! the daemon can do no more than the table of `seccomp_allowlist` says. Once entered there is no
//! way back, and threads that are started later are under it, too.
//!
//! Does not: look at paths or at memory, which a filter cannot; that is what the sandbox is for.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use libseccomp::error::SeccompError as Refusal;
use libseccomp::{
    ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall, get_api,
};

use crate::process::seccomp_allowlist::{Answer, Condition, For, Rule, rules};

/// What happens on a system call that is not in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SeccompAction {
    /// There is no filter.
    None,
    /// The process is killed, all threads of it, as by SIGSYS.
    #[default]
    Kill,
    /// The kernel logs it, and the call is made.
    Log,
    /// The process gets SIGSYS, which ends it unless a debugger takes the signal.
    Trap,
}

impl SeccompAction {
    const ALL: [SeccompAction; 4] = [
        SeccompAction::None,
        SeccompAction::Kill,
        SeccompAction::Log,
        SeccompAction::Trap,
    ];

    const fn word(self) -> &'static str {
        match self {
            SeccompAction::None => "none",
            SeccompAction::Kill => "kill",
            SeccompAction::Log => "log",
            SeccompAction::Trap => "trap",
        }
    }
}

impl fmt::Display for SeccompAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for SeccompAction {
    type Err = SeccompError;

    fn from_str(text: &str) -> Result<Self, SeccompError> {
        SeccompAction::ALL
            .into_iter()
            .find(|action| action.word() == text)
            .ok_or_else(|| SeccompError::UnknownAction(text.to_owned()))
    }
}

/// What the options make necessary beyond the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uses {
    /// Files are opened by handle.
    pub file_handles: bool,
    /// The process leaves its standard streams when it is ready.
    pub background: bool,
}

/// Why there is no filter.
#[derive(Debug)]
pub enum SeccompError {
    /// The word is no action.
    UnknownAction(String),
    /// libseccomp does not know a system call of the table.
    Resolve(&'static str, Refusal),
    /// libseccomp does not take a rule of the table.
    Rule(&'static str, Refusal),
    /// The filter cannot be set up.
    Setup(Refusal),
    /// The kernel does not take the filter.
    Load(Refusal),
}

impl fmt::Display for SeccompError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SeccompError::UnknownAction(word) => write!(
                f,
                "seccomp action {word:?} is not known; it is one of none, kill, log and trap"
            ),
            SeccompError::Resolve(name, _) => write!(
                f,
                "libseccomp does not know the system call {name}; update it to 2.5.4 or later, or \
                 go without a filter (--seccomp none)"
            ),
            SeccompError::Rule(name, _) => write!(
                f,
                "cannot make a rule for the system call {name}; update libseccomp to 2.5.4 or \
                 later and Linux to 4.14 or later, or go without a filter (--seccomp none)"
            ),
            SeccompError::Setup(_) => f.write_str(
                "cannot make a filter of system calls; update libseccomp to 2.5.4 or later and \
                 Linux to 4.14 or later, or go without a filter (--seccomp none)",
            ),
            SeccompError::Load(_) => f.write_str(
                "the kernel does not take the filter of system calls; it takes a kernel with \
                 CONFIG_SECCOMP_FILTER and a container that allows seccomp(2). Go without a \
                 filter (--seccomp none) only if nothing else helps",
            ),
        }
    }
}

impl Error for SeccompError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            SeccompError::UnknownAction(_) => None,
            SeccompError::Resolve(_, error)
            | SeccompError::Rule(_, error)
            | SeccompError::Setup(error)
            | SeccompError::Load(error) => Some(error),
        }
    }
}

/// Puts the process under the filter, every thread of it. Call it in the process that serves
/// (the filter knows its process id), when all is set up that takes more: sockets, namespaces,
/// mounts, and before the first byte of a guest is read.
///
/// # Errors
/// [`SeccompError`]; the process must not go on then.
pub fn enter(action: SeccompAction, uses: Uses) -> Result<(), SeccompError> {
    let refused = match action {
        SeccompAction::None => return Ok(()),
        SeccompAction::Kill => ScmpAction::KillProcess,
        SeccompAction::Log => ScmpAction::Log,
        SeccompAction::Trap => ScmpAction::Trap,
    };
    filter_of(refused, uses)?.load().map_err(SeccompError::Load)
}

fn filter_of(refused: ScmpAction, uses: Uses) -> Result<ScmpFilterContext, SeccompError> {
    let mut filter = empty_filter(refused).map_err(SeccompError::Setup)?;
    for rule in rules().filter(|rule| is_needed(rule.needed, uses)) {
        add(&mut filter, rule)?;
    }
    Ok(filter)
}

/// The level of the interface between libseccomp and the kernel at which a filter may ask to be
/// spared the brake on speculation.
const API_LEVEL_OF_SPECULATION: u32 = 4;

fn empty_filter(refused: ScmpAction) -> Result<ScmpFilterContext, Refusal> {
    let mut filter = ScmpFilterContext::new(refused)?;
    // System calls of another architecture (int 0x80, x32) are not in the table either.
    filter.set_act_badarch(refused)?;
    // Threads that exist already come under it as well: there should be none.
    filter.set_ctl_tsync(true)?;
    // A binary search, for calls with conditions, and for kernels that run the filter for all.
    filter.set_ctl_optimize(2)?;
    if get_api() >= API_LEVEL_OF_SPECULATION {
        // Before 5.16 Linux turns speculative execution off for a process with a filter, as for
        // one that runs somebody else's code. The daemon runs none, and pays dearly for it.
        filter.set_ctl_ssb(true)?;
    }
    Ok(filter)
}

const fn is_needed(needed: For, uses: Uses) -> bool {
    const X86: bool = cfg!(target_arch = "x86_64");
    const MUSL: bool = cfg!(target_env = "musl");
    match needed {
        For::All => true,
        For::X86 => X86,
        For::Musl => MUSL,
        For::MuslX86 => MUSL && X86,
        For::FileHandles => uses.file_handles,
        For::Background => uses.background,
    }
}

fn add(filter: &mut ScmpFilterContext, rule: &Rule) -> Result<(), SeccompError> {
    let resolved = ScmpSyscall::from_name(rule.name);
    let call = resolved
        .or_else(|error| number_of_new(rule.name).ok_or(error))
        .map_err(|error| SeccompError::Resolve(rule.name, error))?;
    let failed = |error| SeccompError::Rule(rule.name, error);
    match rule.answer {
        Answer::Allow => drop(filter.add_rule(ScmpAction::Allow, call).map_err(failed)?),
        Answer::AllowIf(alternatives) => {
            for conditions in alternatives {
                allow_if(filter, call, conditions).map_err(failed)?;
            }
        }
        Answer::AllowOnSelf => {
            let own = Condition::own_process(std::process::id());
            allow_if(filter, call, &[own]).map_err(failed)?;
        }
        Answer::Refuse(errno) => {
            let refused = ScmpAction::Errno(errno.raw());
            filter.add_rule(refused, call).map_err(failed)?;
        }
    }
    Ok(())
}

/// Calls that libseccomp 2.5.4 does not know by name. New ones have one number everywhere.
fn number_of_new(name: &str) -> Option<ScmpSyscall> {
    match name {
        "cachestat" => Some(ScmpSyscall::from(451)),
        "fchmodat2" => Some(ScmpSyscall::from(452)),
        _ => None,
    }
}

fn allow_if(
    filter: &mut ScmpFilterContext,
    call: ScmpSyscall,
    conditions: &[Condition],
) -> Result<(), Refusal> {
    let comparisons: Vec<ScmpArgCompare> = conditions.iter().map(comparison_of).collect();
    filter.add_rule_conditional(ScmpAction::Allow, call, &comparisons)?;
    Ok(())
}

fn comparison_of(condition: &Condition) -> ScmpArgCompare {
    ScmpArgCompare::new(
        condition.argument,
        ScmpCompareOp::MaskedEqual(condition.mask),
        condition.value,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_sys_util::tempfile::TempFile;

    #[test]
    fn actions_are_exactly_the_four_words() {
        for (word, action) in [
            ("none", SeccompAction::None),
            ("kill", SeccompAction::Kill),
            ("log", SeccompAction::Log),
            ("trap", SeccompAction::Trap),
        ] {
            let parsed: SeccompAction = word.parse().unwrap();
            assert_eq!(parsed, action);
            assert_eq!(action.to_string(), word);
        }
        for word in ["", "KILL", "Kill", " kill", "kill ", "errno", "allow", "k"] {
            let message = word.parse::<SeccompAction>().unwrap_err().to_string();
            assert!(message.contains(&format!("{word:?}")), "{message}");
            assert!(message.contains("none, kill, log and trap"), "{message}");
        }
    }

    #[test]
    fn filter_can_be_made_of_the_table_for_every_use() {
        for (file_handles, background) in [(false, false), (true, false), (false, true)] {
            let uses = Uses {
                file_handles,
                background,
            };
            let filter = filter_of(ScmpAction::KillProcess, uses).unwrap();
            let made = TempFile::new().unwrap();
            filter.export_pfc(made.as_file()).unwrap();
            let text = std::fs::read_to_string(made.as_path()).unwrap();
            assert!(text.contains("preadv2"), "{text}");
            let handles = text.contains("open_by_handle_at");
            assert_eq!(handles, file_handles, "{text}");
            assert_eq!(text.contains("dup3"), background, "{text}");
        }
    }
}
