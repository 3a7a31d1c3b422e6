//! Who is who: ids of the guest and of the host, and the policy between them. Pure.

pub mod translator;
pub mod types;
