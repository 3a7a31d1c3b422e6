//! What: where log lines go and which of them.
//!
//! In: a level and a destination from the command line. Out: the `log` facade wired to standard
//! error or to the syslog. `RUST_LOG` wins over the level, with the filter syntax of env_logger,
//! but not with the syslog. Levels: error = the operator must act; warn = degraded; info = rare
//! events in the life of the daemon; debug and trace = per request.
//!
//! The socket to the syslog is connected here, while its path can still be reached; a sandbox
//! keeps it by its descriptor. A syslog that has been restarted is not found again: its lines are
//! lost, but the daemon goes on.

use env_logger::Builder;
use log::{LevelFilter, Log, Metadata, Record, SetLoggerError};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use syslog::{Facility, Formatter3164, Logger, LoggerBackend};

/// What the lines in the syslog are marked with, whatever the binary is called.
const PROCESS_NAME: &str = "virtiofsd";

/// What the lines in the syslog have as process id: that of the process outside, which is the one
/// in the pid file, also when a child in a namespace of its own (its process 1) says something.
static PROCESS_ID: AtomicU32 = AtomicU32::new(0);

/// How long a line may wait for a syslog that does not read; then it is lost. Without a limit a
/// stuck syslog would stop the daemon.
const PATIENCE: Duration = Duration::from_millis(200);

/// Where log lines go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogDestination {
    /// Standard error, with a time stamp.
    #[default]
    StandardError,
    /// The syslog, facility "user"; standard error when it cannot be reached.
    Syslog,
}

/// Starts logging.
///
/// # Errors
/// When a logger is installed already.
pub fn start(level: LevelFilter, destination: LogDestination) -> Result<(), SetLoggerError> {
    remember_process_id();
    if destination == LogDestination::StandardError {
        return start_stderr(level);
    }
    match SyslogLogger::connect() {
        Ok(logger) => {
            log::set_boxed_logger(Box::new(logger))?;
            log::set_max_level(level);
            Ok(())
        }
        Err(error) => {
            start_stderr(level)?;
            log::warn!(
                "cannot log to syslog, going on with standard error; is /dev/log there and a \
                 syslog daemon running? {error}"
            );
            Ok(())
        }
    }
}

/// Makes the calling process the one that log lines are from.
pub(super) fn remember_process_id() {
    PROCESS_ID.store(std::process::id(), Ordering::Relaxed);
}

fn start_stderr(level: LevelFilter) -> Result<(), SetLoggerError> {
    let mut builder = Builder::new();
    builder.format_timestamp_secs();
    match std::env::var("RUST_LOG") {
        Ok(filters) if !filters.is_empty() => builder.parse_filters(&filters),
        _ => builder.filter_level(level),
    };
    builder.try_init()
}

/// The socket to the syslog. The crate's own logger keeps the process id it started with, which is
/// wrong in the background, and panics after a panic of another thread.
struct SyslogLogger(Mutex<Logger<LoggerBackend, Formatter3164>>);

impl SyslogLogger {
    fn connect() -> Result<Self, syslog::Error> {
        let formatter = Formatter3164 {
            facility: Facility::LOG_USER,
            hostname: None,
            process: PROCESS_NAME.to_owned(),
            pid: 0,
        };
        let logger = syslog::unix(formatter)?;
        if let LoggerBackend::Unix(socket) = &logger.backend {
            socket.set_write_timeout(Some(PATIENCE))?;
        }
        Ok(SyslogLogger(Mutex::new(logger)))
    }
}

impl Log for SyslogLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut logger = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logger.formatter.pid = PROCESS_ID.load(Ordering::Relaxed);
        let text = record.args().to_string();
        // There is nowhere to tell that a line could not be told.
        let _ = match record.level() {
            log::Level::Error => logger.err(text),
            log::Level::Warn => logger.warning(text),
            log::Level::Info => logger.info(text),
            log::Level::Debug | log::Level::Trace => logger.debug(text),
        };
    }

    fn flush(&self) {}
}
