//! What: which ids of the host the ids of a user namespace are, user_namespaces(7).
//!
//! In: `:INSIDE:OUTSIDE:COUNT:` as it is typed. Out: [`IdMapEntry`].

use std::fmt;
use std::str::FromStr;

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
