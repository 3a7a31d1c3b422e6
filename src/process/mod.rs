//! The process itself: its log, its socket, its pid file. Knows nothing of files or guests.

pub mod limits;
pub mod listener;
pub mod logging;
pub mod pid_file;
