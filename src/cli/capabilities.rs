//! What: the document that `--print-capabilities` prints, read by libvirt and other launchers.
//! It lists only what works: a launcher believes it.

/// JSON as the vhost-user back-end conventions describe it.
pub(crate) const CAPABILITIES: &str = r#"{
  "type": "fs",
  "features": [
    "posix-acl-negotiation-mode",
    "security-label-negotiation-mode",
    "separate-options"
  ]
}"#;
