//! A virtio-fs vhost-user device: serves a directory of the host to a virtual machine.
//!
//! ```text
//! kick -> ring -> descriptor chain -> bytes -> Operation -> gate -> FileSystem
//!                                                                       |
//! call <- used ring <-------------- bytes <- Reply <--------------------+
//! ```
//!
//! Rooms, in the order of the data: [`transport`] moves bytes between the guest's rings and the
//! seams of [`wire::channel`]; [`server`] turns bytes into operations and results into bytes;
//! [`fs`] is the contract between it and a file system; [`passthrough`] is the file system that
//! serves a host directory. [`ids`] says who is who, [`xattr_map`] which extended attributes the
//! guest gets and where they are kept, [`sys`] makes system calls safe, [`process`] keeps house
//! for the process. doc/architecture.md says who may import whom.
//!
//! [`run`] puts them together for one front end.

mod daemon;
pub mod fs;
pub mod ids;
mod log_limit;
pub mod metrics;
pub mod passthrough;
pub mod process;
pub mod server;
pub mod sys;
pub mod transport;
pub mod wire;
pub mod xattr_map;

pub use daemon::{DaemonConfig, DaemonError, Outcome, error_chain, run};
pub use ids::syntax::Rule as IdRule;
pub use log_limit::log_panics;
pub use passthrough::settings::{
    CachePolicy, HandlePolicy, IoctlRights, NOFILE_MIN, Negotiation, Settings as ShareSettings,
    guest_fds_for_limit,
};
pub use process::capabilities::{Capability, CapabilityChanges};
pub use process::listener::SocketSource;
pub use process::logging::{LogDestination, start as start_logging};
pub use process::sandbox::id_maps::IdMapEntry;
pub use process::sandbox::{SandboxMode, SandboxSettings};
pub use process::seccomp::SeccompAction;
pub use sys::descriptors::Inherited;
pub use transport::{DeviceSettings, Execution, Polling};
pub use xattr_map::XattrMap;
