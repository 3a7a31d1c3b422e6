//! What: how many descriptors the daemon may have open (`RLIMIT_NOFILE`).
//!
//! In: what the operator asked for. Out: the limit as it is then. An explicit wish that cannot be
//! met is an error; the default takes what the host gives and says so.

use std::error::Error;
use std::fmt;
use std::io;

use crate::sys::process::{NOFILE_TARGET, nofile, nofile_ceiling, raise_nofile, set_nofile};

/// Why the limit of open files cannot be what was asked for.
#[derive(Debug)]
pub enum LimitError {
    /// It is beyond what the kernel gives any process.
    Ceiling {
        /// What was asked for.
        wanted: u64,
        /// `fs.nr_open`.
        ceiling: u64,
    },
    /// The kernel refused.
    Set {
        /// What was asked for.
        wanted: u64,
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LimitError::Ceiling { wanted, ceiling } => write!(
                f,
                "cannot set the limit of open files to {wanted}: it cannot be increased above \
                 {ceiling} (sysctl fs.nr_open); ask for less with --rlimit-nofile"
            ),
            LimitError::Set { wanted, .. } => write!(
                f,
                "cannot set the limit of open files to {wanted}; ask for less with \
                 --rlimit-nofile, raise the hard limit (ulimit -Hn, LimitNOFILE=), or leave the \
                 limit alone with --rlimit-nofile 0"
            ),
        }
    }
}

impl Error for LimitError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            LimitError::Ceiling { .. } => None,
            LimitError::Set { source, .. } => Some(source),
        }
    }
}

/// Sets the limit of open files and returns what it is then. `None` asks for
/// [`NOFILE_TARGET`] and takes less; `Some(0)` leaves the limit alone.
///
/// # Errors
/// [`LimitError`], only for an explicit number.
pub fn limit_open_files(wanted: Option<u64>) -> Result<u64, LimitError> {
    let wanted = match wanted {
        Some(0) => return Ok(nofile().unwrap_or(NOFILE_TARGET)),
        None => return Ok(take_what_there_is()),
        Some(wanted) => wanted,
    };
    let ceiling = nofile_ceiling();
    if wanted > ceiling {
        return Err(LimitError::Ceiling { wanted, ceiling });
    }
    set_nofile(wanted).map_err(|source| LimitError::Set { wanted, source })?;
    Ok(wanted)
}

fn take_what_there_is() -> u64 {
    match raise_nofile(NOFILE_TARGET) {
        Ok(limit) => {
            if limit < NOFILE_TARGET {
                log::warn!(
                    "only {limit} files can be open at once. If that is too few, raise the hard \
                     limit (ulimit -Hn, LimitNOFILE=) towards {NOFILE_TARGET}"
                );
            }
            limit
        }
        Err(error) => {
            log::warn!("the limit of open files stays as it is: {error}");
            nofile().unwrap_or(NOFILE_TARGET)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_beyond_the_kernels_ceiling_are_refused_with_a_remedy() {
        let ceiling = nofile_ceiling();
        let before = nofile().unwrap();
        let text = limit_open_files(Some(ceiling + 1)).unwrap_err().to_string();
        assert!(text.contains("cannot be increased above"), "{text}");
        assert!(text.contains("--rlimit-nofile"), "{text}");
        assert_eq!(limit_open_files(Some(0)).unwrap(), before);
        assert_eq!(nofile().unwrap(), before);
    }
}
