//! What: one rule of `--translate-uid` or `--translate-gid`, from its text.
//!
//! ```text
//! guest:GUEST:HOST:COUNT           guest ids from GUEST on become host ids from HOST on
//! host:HOST:GUEST:COUNT            host ids from HOST on become guest ids from GUEST on
//! map:GUEST:HOST:COUNT             both of these
//! squash-guest:GUEST:HOST:COUNT    all these guest ids become the host id HOST
//! squash-host:HOST:GUEST:COUNT     all these host ids become the guest id GUEST
//! forbid-guest:GUEST:COUNT         these guest ids are refused
//! ```
//!
//! The type may be in upper case. `:` stands for any character that is not alphanumeric, `-` or
//! `_`, the same throughout; numbers are decimal, below 2^32. In: the text. Out: a [`Rule`], or
//! what is wrong, in words for the one who typed it. Does not: check rules against each other or
//! against the largest id; the translator does.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

/// What a rule does, and where its ids begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Guest { guest: u32, host: u32 },
    Host { host: u32, guest: u32 },
    Map { guest: u32, host: u32 },
    SquashGuest { guest: u32, host: u32 },
    SquashHost { host: u32, guest: u32 },
    ForbidGuest { guest: u32 },
}

/// One rule about ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    action: Action,
    count: u32,
    typed: Box<str>,
}

impl Rule {
    pub(super) const fn action(&self) -> Action {
        self.action
    }

    /// For how many ids; a rule for none does nothing.
    pub(super) const fn count(&self) -> u32 {
        self.count
    }
}

impl fmt::Display for Rule {
    /// The rule as it was typed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.typed)
    }
}

/// What is wrong with the text of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleSyntaxError {
    /// There is no such type.
    UnknownType {
        /// What stands in its place.
        got: String,
    },
    /// There are too many numbers, or too few.
    NumberCount {
        /// How many there are.
        got: usize,
        /// How many there have to be.
        expected: usize,
        /// What the rule looks like.
        form: &'static str,
    },
    /// A number is none, or does not fit 32 bits.
    BadNumber {
        /// What stands in its place.
        got: String,
        /// What the rule looks like.
        form: &'static str,
    },
}

impl fmt::Display for RuleSyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RuleSyntaxError::UnknownType { got } => {
                write!(
                    f,
                    "'{got}' is no type of rule; write one of {}",
                    forms().join(", ")
                )
            }
            RuleSyntaxError::NumberCount {
                got,
                expected,
                form,
            } => {
                write!(f, "{expected} numbers are needed, not {got}: write {form}")
            }
            RuleSyntaxError::BadNumber { got, form } => write!(
                f,
                "'{got}' is not a number from 0 to {}: write {form}",
                u32::MAX
            ),
        }
    }
}

impl Error for RuleSyntaxError {}

/// The types of rules.
const KINDS: [Kind; 6] = [
    Kind::Guest,
    Kind::Host,
    Kind::Map,
    Kind::SquashGuest,
    Kind::SquashHost,
    Kind::ForbidGuest,
];

#[derive(Clone, Copy, Debug)]
enum Kind {
    Guest,
    Host,
    Map,
    SquashGuest,
    SquashHost,
    ForbidGuest,
}

impl Kind {
    const fn form(self) -> &'static str {
        match self {
            Kind::Guest => "guest:GUEST:HOST:COUNT",
            Kind::Host => "host:HOST:GUEST:COUNT",
            Kind::Map => "map:GUEST:HOST:COUNT",
            Kind::SquashGuest => "squash-guest:GUEST:HOST:COUNT",
            Kind::SquashHost => "squash-host:HOST:GUEST:COUNT",
            Kind::ForbidGuest => "forbid-guest:GUEST:COUNT",
        }
    }

    fn name(self) -> &'static str {
        let form = self.form();
        form.split_once(':').map_or(form, |(name, _)| name)
    }

    fn of(name: &str) -> Option<Self> {
        KINDS
            .into_iter()
            .find(|kind| kind.name().eq_ignore_ascii_case(name))
    }
}

fn forms() -> [&'static str; 6] {
    KINDS.map(Kind::form)
}

impl FromStr for Rule {
    type Err = RuleSyntaxError;

    fn from_str(text: &str) -> Result<Self, RuleSyntaxError> {
        let separator = text
            .chars()
            .find(|c| !c.is_alphanumeric() && !matches!(c, '-' | '_'));
        let (name, rest) = match separator.and_then(|separator| text.split_once(separator)) {
            Some((name, rest)) => (name, Some(rest)),
            None => (text, None),
        };
        let kind = Kind::of(name).ok_or_else(|| RuleSyntaxError::UnknownType {
            got: name.to_owned(),
        })?;
        let form = kind.form();
        let mut numbers = Vec::new();
        if let (Some(separator), Some(rest)) = (separator, rest) {
            for field in rest.split(separator) {
                let number: u32 = field.parse().map_err(|_| RuleSyntaxError::BadNumber {
                    got: field.to_owned(),
                    form,
                })?;
                numbers.push(number);
            }
        }
        let wrong_count = |expected| RuleSyntaxError::NumberCount {
            got: numbers.len(),
            expected,
            form,
        };
        let (action, count) = match (kind, numbers.as_slice()) {
            (Kind::Guest, &[guest, host, count]) => (Action::Guest { guest, host }, count),
            (Kind::Host, &[host, guest, count]) => (Action::Host { host, guest }, count),
            (Kind::Map, &[guest, host, count]) => (Action::Map { guest, host }, count),
            (Kind::SquashGuest, &[guest, host, count]) => {
                (Action::SquashGuest { guest, host }, count)
            }
            (Kind::SquashHost, &[host, guest, count]) => {
                (Action::SquashHost { host, guest }, count)
            }
            (Kind::ForbidGuest, &[guest, count]) => (Action::ForbidGuest { guest }, count),
            (Kind::ForbidGuest, _) => return Err(wrong_count(2)),
            (Kind::Guest | Kind::Host | Kind::Map | Kind::SquashGuest | Kind::SquashHost, _) => {
                return Err(wrong_count(3));
            }
        };
        Ok(Rule {
            action,
            count,
            typed: text.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(Action, u32), RuleSyntaxError> {
        let rule: Rule = text.parse()?;
        assert_eq!(rule.to_string(), text);
        Ok((rule.action(), rule.count()))
    }

    #[test]
    fn each_type_takes_its_numbers_in_its_order() {
        for (text, action, count) in [
            ("guest:1:2:3", Action::Guest { guest: 1, host: 2 }, 3),
            ("host:1:2:3", Action::Host { host: 1, guest: 2 }, 3),
            ("map:1:2:3", Action::Map { guest: 1, host: 2 }, 3),
            (
                "squash-guest:1:2:3",
                Action::SquashGuest { guest: 1, host: 2 },
                3,
            ),
            (
                "squash-host:1:2:3",
                Action::SquashHost { host: 1, guest: 2 },
                3,
            ),
            ("forbid-guest:1:2", Action::ForbidGuest { guest: 1 }, 2),
        ] {
            assert_eq!(parse(text), Ok((action, count)), "{text}");
        }
    }

    #[test]
    fn case_separators_and_the_whole_range_of_numbers_are_accepted() {
        let map = Action::Map { guest: 0, host: 1 };
        for text in [
            "MAP:0:1:2",
            "Map+0+1+2",
            "map 0 1 2",
            "map,0,1,2",
            "map\u{a7}0\u{a7}1\u{a7}2",
            "map:00:+1:2",
        ] {
            assert_eq!(parse(text), Ok((map, 2)), "{text}");
        }
        let all = Action::Guest {
            guest: u32::MAX,
            host: u32::MAX,
        };
        assert_eq!(
            parse("guest:4294967295:4294967295:4294967295"),
            Ok((all, u32::MAX))
        );
        assert_eq!(parse("map:0:1:0"), Ok((map, 0)));
    }

    #[test]
    fn an_unknown_type_is_named_and_the_forms_are_shown() {
        for (text, got) in [
            ("", ""),
            ("mop:0:1:2", "mop"),
            (":0:1:2", ""),
            (" map:0:1:2", ""),
            ("squash_guest:0:1:2", "squash_guest"),
            ("squashguest:0:1:2", "squashguest"),
            ("1", "1"),
        ] {
            let got = got.to_owned();
            assert_eq!(
                parse(text),
                Err(RuleSyntaxError::UnknownType { got }),
                "{text}"
            );
        }
        let shown = parse("mop:0:1:2").unwrap_err().to_string();
        assert_eq!(
            shown,
            "'mop' is no type of rule; write one of guest:GUEST:HOST:COUNT, \
             host:HOST:GUEST:COUNT, map:GUEST:HOST:COUNT, squash-guest:GUEST:HOST:COUNT, \
             squash-host:HOST:GUEST:COUNT, forbid-guest:GUEST:COUNT"
        );
    }

    #[test]
    fn a_wrong_count_of_numbers_is_told_with_the_form() {
        for (text, got, expected) in [
            ("map", 0, 3),
            ("map:0:1", 2, 3),
            ("map:0:1:2:3", 4, 3),
            ("host:1", 1, 3),
            ("forbid-guest:1", 1, 2),
            ("forbid-guest:1:2:3", 3, 2),
        ] {
            match parse(text) {
                Err(RuleSyntaxError::NumberCount {
                    got: g,
                    expected: e,
                    ..
                }) => assert_eq!((g, e), (got, expected), "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert_eq!(
            parse("forbid-guest:1").unwrap_err().to_string(),
            "2 numbers are needed, not 1: write forbid-guest:GUEST:COUNT"
        );
    }

    #[test]
    fn what_is_no_number_is_named_with_the_form() {
        for (text, bad) in [
            ("map:", ""),
            ("map:0:1000:5:", ""),
            ("map::0:1", ""),
            ("map:0,1,2", "0,1,2"),
            ("map:0x1:2:3", "0x1"),
            ("map: 0:1:2", " 0"),
            ("map:-1:2:3", "-1"),
            ("map:4294967296:0:1", "4294967296"),
            ("map:0:1:2 ", "2 "),
        ] {
            match parse(text) {
                Err(RuleSyntaxError::BadNumber { got, .. }) => assert_eq!(got, bad, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert_eq!(
            parse("map:0:x:2").unwrap_err().to_string(),
            "'x' is not a number from 0 to 4294967295: write map:GUEST:HOST:COUNT"
        );
    }
}
