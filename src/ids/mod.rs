//! Who is who: ids of the guest and of the host, and the policy between them. Pure.
//!
//! ```text
//! "map:0:1000:5" --syntax--> Rule --translator--> RangeMap, one for each kind and direction
//!                                     |
//!                                     +--round_trip--> does every id come back as itself?
//! ```

pub mod error;
mod ranges;
mod round_trip;
pub mod syntax;
pub mod translator;
pub mod types;
