//! What: which system calls the daemon may make.

use std::str::FromStr;

/// What happens at a system call that the daemon never makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SeccompAction {
    /// Nothing: there is no filter.
    None,
    /// The process is killed.
    #[default]
    Kill,
    /// The kernel logs it.
    Log,
    /// The process gets a SIGSYS.
    Trap,
}

impl FromStr for SeccompAction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(SeccompAction::None),
            "kill" => Ok(SeccompAction::Kill),
            "log" => Ok(SeccompAction::Log),
            "trap" => Ok(SeccompAction::Trap),
            _ => Err("possible are none, kill, log and trap".to_owned()),
        }
    }
}
