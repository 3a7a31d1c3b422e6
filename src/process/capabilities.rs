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
