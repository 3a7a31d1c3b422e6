//! What: which ids of the host the ids of a user namespace are, user_namespaces(7).
//!
//! In: `:INSIDE:OUTSIDE:COUNT:` as it is typed. Out: [`IdMapEntry`], and the maps of a child
//! process, written directly where the kernel allows that (root, or a user who maps nobody but
//! himself), else by newuidmap(1) and newgidmap(1), which know what /etc/subuid and /etc/subgid
//! give to a user. Call it before capabilities are given up.

use std::fmt;
use std::fs;
use std::process::{Command, Stdio};
use std::str::FromStr;

use super::error::SandboxError;
use crate::sys::fork::ChildPid;

/// One line of a uid_map or gid_map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMapEntry {
    /// First id inside the namespace.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many ids.
    pub count: u32,
}

impl IdMapEntry {
    /// All ids are the same inside and outside.
    pub(super) const EVERYBODY: IdMapEntry = IdMapEntry {
        inside: 0,
        outside: 0,
        count: u32::MAX,
    };

    /// One id, the same inside and outside.
    pub(super) const fn own(id: u32) -> Self {
        IdMapEntry {
            inside: id,
            outside: id,
            count: 1,
        }
    }

    fn is_only(self, outside: u32) -> bool {
        self.outside == outside && self.count == 1
    }
}

/// Whether a map has an id 0 inside.
pub(super) fn has_root(map: &[IdMapEntry]) -> bool {
    map.iter().any(|entry| entry.inside == 0)
}

/// Who writes the maps: the parent, outside.
#[derive(Clone, Copy, Debug)]
pub(super) struct MapWriter {
    uid: u32,
    gid: u32,
}

impl MapWriter {
    /// A process with these effective ids.
    pub(super) const fn new(uid: u32, gid: u32) -> Self {
        MapWriter { uid, gid }
    }

    /// Writes the maps of `child`, which is in a new user namespace and waits.
    pub(super) fn write(
        self,
        child: ChildPid,
        uid_map: &[IdMapEntry],
        gid_map: &[IdMapEntry],
    ) -> Result<(), SandboxError> {
        let is_root = self.uid == 0;
        match uid_map {
            _ if is_root => write(child, "uid_map", uid_map)?,
            &[entry] if entry.is_only(self.uid) => write(child, "uid_map", uid_map)?,
            _ => run_mapper("newuidmap", child, uid_map)?,
        }
        match gid_map {
            _ if is_root => write(child, "gid_map", gid_map),
            &[entry] if entry.is_only(self.gid) => {
                // Else a user could drop a group that is there to deny him something.
                write_file(child, "setgroups", "deny")?;
                write(child, "gid_map", gid_map)
            }
            _ => run_mapper("newgidmap", child, gid_map),
        }
    }
}

fn write(child: ChildPid, file: &'static str, map: &[IdMapEntry]) -> Result<(), SandboxError> {
    let lines: String = map
        .iter()
        .map(|entry| format!("{} {} {}\n", entry.inside, entry.outside, entry.count))
        .collect();
    // The kernel takes a map in one write(2) only.
    write_file(child, file, &lines)
}

fn write_file(child: ChildPid, file: &'static str, text: &str) -> Result<(), SandboxError> {
    fs::write(format!("/proc/{}/{file}", child.raw()), text)
        .map_err(|source| SandboxError::WriteMap { file, source })
}

fn run_mapper(
    program: &'static str,
    child: ChildPid,
    map: &[IdMapEntry],
) -> Result<(), SandboxError> {
    let numbers = map
        .iter()
        .flat_map(|entry| [entry.inside, entry.outside, entry.count]);
    let output = Command::new(program)
        .arg(child.raw().to_string())
        .args(numbers.map(|number| number.to_string()))
        .stdin(Stdio::null())
        .output()
        .map_err(|source| SandboxError::RunMapper { program, source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().replace('\n', "; ");
    Err(SandboxError::Mapper {
        program,
        said: if said.is_empty() {
            output.status.to_string()
        } else {
            said
        },
    })
}

/// Why a text is no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdMapSyntaxError {
    /// It does not begin and end with the same delimiter.
    Delimiter,
    /// There are not three numbers.
    Fields,
    /// A number is none, or beyond 32 bits.
    Number,
    /// The range is empty or goes beyond the last id, 4294967294.
    Range,
}

impl fmt::Display for IdMapSyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IdMapSyntaxError::Delimiter => {
                "an id map begins and ends with the same delimiter, like :0:100000:65536:"
            }
            IdMapSyntaxError::Fields => {
                "an id map has three numbers: inside, outside and count, like :0:100000:65536:"
            }
            IdMapSyntaxError::Number => "an id in an id map is a number from 0 to 4294967294",
            IdMapSyntaxError::Range => {
                "a range of an id map has at least one id and ends at 4294967294 or below"
            }
        })
    }
}

impl std::error::Error for IdMapSyntaxError {}

impl FromStr for IdMapEntry {
    type Err = IdMapSyntaxError;

    fn from_str(text: &str) -> Result<Self, IdMapSyntaxError> {
        let delimiter = text.chars().next().ok_or(IdMapSyntaxError::Delimiter)?;
        if delimiter.is_alphanumeric() {
            return Err(IdMapSyntaxError::Delimiter);
        }
        let inner = text
            .strip_prefix(delimiter)
            .and_then(|rest| rest.strip_suffix(delimiter))
            .ok_or(IdMapSyntaxError::Delimiter)?;
        let fields: Vec<&str> = inner.split(delimiter).collect();
        let &[inside, outside, count] = fields.as_slice() else {
            return Err(IdMapSyntaxError::Fields);
        };
        let number = |field: &str| match field.bytes().all(|byte| byte.is_ascii_digit()) {
            true => field.parse::<u32>().map_err(|_| IdMapSyntaxError::Number),
            false => Err(IdMapSyntaxError::Number),
        };
        let entry = IdMapEntry {
            inside: number(inside)?,
            outside: number(outside)?,
            count: number(count)?,
        };
        // The last id, 4294967295, means "no id".
        let ends_within = |first: u32| first.checked_add(entry.count).is_some();
        match entry.count > 0 && ends_within(entry.inside) && ends_within(entry.outside) {
            true => Ok(entry),
            false => Err(IdMapSyntaxError::Range),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_one_delimiter_and_three_numbers() {
        let entry = IdMapEntry {
            inside: 0,
            outside: 100_000,
            count: 65_536,
        };
        for text in [":0:100000:65536:", "/0/100000/65536/", ",0,100000,65536,"] {
            assert_eq!(text.parse(), Ok(entry), "{text}");
        }
        for (text, error) in [
            ("", IdMapSyntaxError::Delimiter),
            (":", IdMapSyntaxError::Delimiter),
            ("0:100000:65536", IdMapSyntaxError::Delimiter),
            (":0:100000:65536", IdMapSyntaxError::Delimiter),
            (":0:100000:65536/", IdMapSyntaxError::Delimiter),
            ("::", IdMapSyntaxError::Fields),
            (":0:1:", IdMapSyntaxError::Fields),
            (":0:1:2:3:", IdMapSyntaxError::Fields),
            (":0:1::", IdMapSyntaxError::Number),
            (":a:1:2:", IdMapSyntaxError::Number),
            (":+0:1:2:", IdMapSyntaxError::Number),
            (":0:1:4294967296:", IdMapSyntaxError::Number),
            (":0:1:0:", IdMapSyntaxError::Range),
            (":0:4294967295:1:", IdMapSyntaxError::Range),
            (":4294967290:0:6:", IdMapSyntaxError::Range),
        ] {
            assert_eq!(text.parse::<IdMapEntry>(), Err(error), "{text}");
        }
        assert!(":4294967290:0:5:".parse::<IdMapEntry>().is_ok());
    }
}
