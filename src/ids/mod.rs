//! Who is who: ids of the guest and of the host, and the policy between them. Pure.
//!
//! ```text
//! "map:0:1000:5" --syntax--> Rule --translator--> RangeMap, one for each kind and direction
//!                                     |
//!                                     +--round_trip--> may ACLs be translated as well? --> acl
//! ```

pub mod acl;
pub mod error;
mod ranges;
mod round_trip;
pub mod syntax;
pub mod translator;
pub mod types;
