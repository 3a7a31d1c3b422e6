//! What: what the process can still see and reach while it serves a guest.
//!
//! In: [`SandboxSettings`] from the command line.

pub mod id_maps;

use std::str::FromStr;

use id_maps::IdMapEntry;

/// How the daemon is confined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SandboxMode {
    /// Own mount, pid and network namespaces with the shared directory as root; for an ordinary
    /// user, and where ids are mapped, an own user namespace too.
    #[default]
    Namespace,
    /// The shared directory as root by chroot(2).
    Chroot,
    /// Nothing beyond the checks of the daemon itself.
    None,
}

/// What the operator wants of the sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxSettings {
    /// The kind.
    pub mode: SandboxMode,
    /// User ids of the user namespace; empty for the usual ones.
    pub uid_map: Vec<IdMapEntry>,
    /// Group ids of the user namespace; empty for the usual ones.
    pub gid_map: Vec<IdMapEntry>,
}

impl FromStr for SandboxMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "namespace" => Ok(SandboxMode::Namespace),
            "chroot" => Ok(SandboxMode::Chroot),
            "none" => Ok(SandboxMode::None),
            _ => Err("a sandbox mode is namespace, chroot or none".to_owned()),
        }
    }
}
