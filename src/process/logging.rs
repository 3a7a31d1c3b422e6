//! What: where log lines go and which of them.
//!
//! In: a level from the command line. Out: the `log` facade wired to standard error. `RUST_LOG`
//! wins over the level, with the filter syntax of env_logger. Levels: error = the operator must
//! act; warn = degraded; info = rare events in the life of the daemon; debug and trace = per
//! request.

use env_logger::Builder;
use log::LevelFilter;

/// Starts logging to standard error.
///
/// # Errors
/// When a logger is installed already.
pub fn start(level: LevelFilter) -> Result<(), log::SetLoggerError> {
    let mut builder = Builder::new();
    builder.format_timestamp_secs();
    match std::env::var("RUST_LOG") {
        Ok(filters) if !filters.is_empty() => builder.parse_filters(&filters),
        _ => builder.filter_level(level),
    };
    builder.try_init()
}
