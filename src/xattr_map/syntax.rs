//! What: the rules of `--xattrmap`, from their text.
//!
//! ```text
//! :prefix:SCOPE:KEY:PREPEND:         SCOPE is client (the guest), server (the host) or all
//! :ok:SCOPE:KEY:PREPEND:
//! :bad:SCOPE:KEY:PREPEND:
//! :unsupported:SCOPE:KEY:PREPEND:
//! :map:KEY:PREPEND:                  only as the last rule
//! ```
//!
//! `:` stands for the first character of a rule, which may be another one in each rule. There may
//! be white space before, between and behind rules, and nowhere else. KEY and PREPEND are bytes
//! and may be empty. `map` is short for two or three rules, see [`expand_map`].
//!
//! In: the option's value as bytes, which need not be UTF-8. Out: an [`XattrMap`] that has an
//! answer for every name, or what is wrong, in words for the one who typed it.

use std::error::Error;
use std::fmt;

use super::XattrMap;
use super::rule::{Action, Rule, Scope};

/// Longest UTF-8 form of a character in bytes.
const CHAR_LEN_MAX: usize = 4;

/// On which side names are left that no rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenEnd {
    /// Names that the guest sends.
    Guest,
    /// Names that the host lists.
    Host,
    /// Both.
    Both,
}

/// What is wrong with the text. Rules are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyntaxError {
    /// There is no rule at all.
    NoRules,
    /// A rule ends too early.
    Incomplete {
        /// Which rule.
        rule: usize,
        /// The character with which it begins, and each of its parts ends.
        delimiter: String,
        /// The part that has no end.
        part: &'static str,
    },
    /// There is no such type of rule.
    UnknownType {
        /// Which rule.
        rule: usize,
        /// What stands in the type's place.
        got: String,
    },
    /// There is no such scope.
    UnknownScope {
        /// Which rule.
        rule: usize,
        /// What stands in the scope's place.
        got: String,
    },
    /// A rule stands behind a `map` rule.
    BehindMap {
        /// Which rule.
        rule: usize,
    },
    /// A rule contains a NUL, which no name can.
    Nul {
        /// Which rule.
        rule: usize,
    },
    /// Names are left that no rule matches.
    NoCatchAll(OpenEnd),
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyntaxError::NoRules => f.write_str("there is no rule in it"),
            SyntaxError::Incomplete {
                rule,
                delimiter,
                part,
            } => write!(
                f,
                "rule {rule} is incomplete: it begins with '{delimiter}', so its {part} has to \
                 end with '{delimiter}', too; write :TYPE:SCOPE:KEY:PREPEND: or \
                 :map:KEY:PREPEND:"
            ),
            SyntaxError::UnknownType { rule, got } => write!(
                f,
                "rule {rule}: '{got}' is no type; write prefix, ok, bad, unsupported or map"
            ),
            SyntaxError::UnknownScope { rule, got } => write!(
                f,
                "rule {rule}: '{got}' is no scope; write client, server or all"
            ),
            SyntaxError::BehindMap { rule } => write!(
                f,
                "rule {rule} stands behind a map rule, which decides about all names that are \
                 left; a map rule has to be the last"
            ),
            SyntaxError::Nul { rule } => {
                write!(f, "rule {rule} contains a NUL, which no name can")
            }
            SyntaxError::NoCatchAll(end) => {
                let (names, scope) = match end {
                    OpenEnd::Guest => ("that the guest sends", "client"),
                    OpenEnd::Host => ("that the host lists", "server"),
                    OpenEnd::Both => ("of guest and host", "all"),
                };
                write!(
                    f,
                    "the rules end without a catch-all: some names {names} match no rule. End \
                     with :bad:{scope}::: to refuse and hide all other names, or with \
                     :ok:{scope}::: to let them pass"
                )
            }
        }
    }
}

impl Error for SyntaxError {}

impl XattrMap {
    /// Reads rules.
    ///
    /// # Errors
    /// See [`SyntaxError`].
    pub fn parse(text: &[u8]) -> Result<Self, SyntaxError> {
        let mut rules = Vec::new();
        let mut rest = text;
        let mut number: usize = 0;
        let mut is_complete = false;
        while let Some((delimiter, parts)) = next_delimiter(rest) {
            number = number.saturating_add(1);
            if is_complete {
                return Err(SyntaxError::BehindMap { rule: number });
            }
            let mut reader = RuleReader {
                number,
                delimiter,
                rest: parts,
            };
            is_complete = reader.read_rule(&mut rules)?;
            rest = reader.rest;
        }
        if rules.is_empty() {
            return Err(SyntaxError::NoRules);
        }
        check_catch_all(&rules)?;
        Ok(XattrMap { rules })
    }
}

/// Skips white space; the delimiter with which a rule begins, and what follows it.
fn next_delimiter(mut text: &[u8]) -> Option<(&[u8], &[u8])> {
    loop {
        let (character, len) = first_character(text)?;
        let (head, rest) = text.split_at_checked(len)?;
        if !character.is_some_and(char::is_whitespace) {
            return Some((head, rest));
        }
        text = rest;
    }
}

/// The character with which `text` begins, if it is UTF-8, and its length in bytes.
fn first_character(text: &[u8]) -> Option<(Option<char>, usize)> {
    let head = text.get(..CHAR_LEN_MAX).unwrap_or(text);
    let chunk = head.utf8_chunks().next()?;
    match chunk.valid().chars().next() {
        Some(character) => Some((Some(character), character.len_utf8())),
        None => Some((None, 1)),
    }
}

/// Reads the parts of one rule.
#[derive(Debug)]
struct RuleReader<'a> {
    number: usize,
    delimiter: &'a [u8],
    rest: &'a [u8],
}

impl<'a> RuleReader<'a> {
    /// Adds what the rule means to `rules`. Returns whether no rule may follow.
    fn read_rule(&mut self, rules: &mut Vec<Rule>) -> Result<bool, SyntaxError> {
        let action = match self.part("type")? {
            b"prefix" => Action::Prefix,
            b"ok" => Action::Pass,
            b"bad" => Action::Deny,
            b"unsupported" => Action::Unsupported,
            b"map" => {
                let (key, prepend) = (self.name_part("key")?, self.name_part("prepend")?);
                rules.extend(expand_map(key, prepend));
                return Ok(true);
            }
            got => {
                return Err(SyntaxError::UnknownType {
                    rule: self.number,
                    got: shown(got),
                });
            }
        };
        let scope = match self.part("scope")? {
            b"client" => Scope::Guest,
            b"server" => Scope::Host,
            b"all" => Scope::Both,
            got => {
                return Err(SyntaxError::UnknownScope {
                    rule: self.number,
                    got: shown(got),
                });
            }
        };
        rules.push(Rule {
            action,
            scope,
            key: self.name_part("key")?.into(),
            prepend: self.name_part("prepend")?.into(),
        });
        Ok(false)
    }

    /// What stands before the next delimiter.
    fn part(&mut self, part: &'static str) -> Result<&'a [u8], SyntaxError> {
        let end = self
            .rest
            .windows(self.delimiter.len())
            .position(|window| window == self.delimiter);
        let found = end.and_then(|end| self.rest.split_at_checked(end));
        let (found, rest) = found.ok_or_else(|| SyntaxError::Incomplete {
            rule: self.number,
            delimiter: shown(self.delimiter),
            part,
        })?;
        self.rest = rest.get(self.delimiter.len()..).unwrap_or_default();
        Ok(found)
    }

    /// A part that stands for the beginning of a name.
    fn name_part(&mut self, part: &'static str) -> Result<&'a [u8], SyntaxError> {
        let found = self.part(part)?;
        match found.contains(&0) {
            true => Err(SyntaxError::Nul { rule: self.number }),
            false => Ok(found),
        }
    }
}

/// What `map` is short for: names of the guest that begin with `key` live on the host behind
/// `prepend`. Without a key these are all names, and others of the host are hidden; with one,
/// the guest cannot use the names behind `prepend` under their own name, and all others pass.
fn expand_map(key: &[u8], prepend: &[u8]) -> Vec<Rule> {
    let rule = |action, key: &[u8], prepend: &[u8]| Rule {
        action,
        scope: Scope::Both,
        key: key.into(),
        prepend: prepend.into(),
    };
    let moved = rule(Action::Prefix, key, prepend);
    if key.is_empty() {
        vec![moved, rule(Action::Deny, b"", b"")]
    } else {
        vec![
            moved,
            rule(Action::Deny, prepend, key),
            rule(Action::Pass, b"", b""),
        ]
    }
}

/// Whether every name matches a rule. A rule matches by the beginning of a name, so a rule for
/// the empty beginning, in each direction, is the only way short of one for each byte.
fn check_catch_all(rules: &[Rule]) -> Result<(), SyntaxError> {
    let guest = rules.iter().any(|rule| rule.is_for_guest(b""));
    let host = rules.iter().any(|rule| rule.is_for_host(b""));
    match (guest, host) {
        (true, true) => Ok(()),
        (false, true) => Err(SyntaxError::NoCatchAll(OpenEnd::Guest)),
        (true, false) => Err(SyntaxError::NoCatchAll(OpenEnd::Host)),
        (false, false) => Err(SyntaxError::NoCatchAll(OpenEnd::Both)),
    }
}

/// Bytes for a message.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).escape_debug().to_string()
}

#[cfg(test)]
mod tests;
