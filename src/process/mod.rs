//! The process itself: its log, its socket, its pid file, its confinement. Knows nothing of files
//! or guests.

pub mod background;
pub mod capabilities;
pub mod limits;
pub mod listener;
pub mod logging;
pub mod pid_file;
pub mod readiness;
pub mod sandbox;
pub mod seccomp;
mod seccomp_allowlist;
pub mod shutdown;
