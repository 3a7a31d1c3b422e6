//! Texts in, rules or complaints out. What virtiofsd 1.14.0 takes was found by running it; where
//! the outcome here differs, the case says so.

use super::*;

fn parse(text: impl AsRef<[u8]>) -> Result<XattrMap, SyntaxError> {
    XattrMap::parse(text.as_ref())
}

fn rules(text: impl AsRef<[u8]>) -> Vec<(Action, Scope, String, String)> {
    let shown = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    parse(text)
        .unwrap()
        .rules
        .iter()
        .map(|rule| {
            (
                rule.action,
                rule.scope,
                shown(&rule.key),
                shown(&rule.prepend),
            )
        })
        .collect()
}

fn rule(action: Action, scope: Scope, key: &str, prepend: &str) -> (Action, Scope, String, String) {
    (action, scope, key.to_owned(), prepend.to_owned())
}

#[test]
fn every_type_goes_with_every_scope() {
    for (type_name, action) in [
        ("prefix", Action::Prefix),
        ("ok", Action::Pass),
        ("bad", Action::Deny),
        ("unsupported", Action::Unsupported),
    ] {
        for (scope_name, scope) in [
            ("client", Scope::Guest),
            ("server", Scope::Host),
            ("all", Scope::Both),
        ] {
            let text = format!(":{type_name}:{scope_name}:user.k:trusted.p::bad:all:::");
            let expected = [
                rule(action, scope, "user.k", "trusted.p"),
                rule(Action::Deny, Scope::Both, "", ""),
            ];
            assert_eq!(rules(text.as_bytes()), expected, "{text}");
        }
    }
}

#[test]
fn map_is_short_for_the_rules_of_its_definition() {
    assert_eq!(
        rules(":map::user.virtiofs.:"),
        [
            rule(Action::Prefix, Scope::Both, "", "user.virtiofs."),
            rule(Action::Deny, Scope::Both, "", ""),
        ]
    );
    assert_eq!(
        rules(":map:trusted.:user.virtiofs.:"),
        [
            rule(Action::Prefix, Scope::Both, "trusted.", "user.virtiofs."),
            rule(Action::Deny, Scope::Both, "user.virtiofs.", "trusted."),
            rule(Action::Pass, Scope::Both, "", ""),
        ]
    );
    for (short, long) in [
        (
            ":map::user.virtiofs.:",
            ":prefix:all::user.virtiofs.::bad:all:::",
        ),
        (
            ":map:security.selinux:trusted.virtiofs.:",
            ":prefix:all:security.selinux:trusted.virtiofs.:\
             :bad:all:trusted.virtiofs.:security.selinux::ok:all:::",
        ),
        (":map:::", ":prefix:all:::/bad/all///"),
        (
            ":ok:client:a:b: :map:c::",
            ":ok:client:a:b: :prefix:all:c:: :bad:all::c: :ok:all:::",
        ),
    ] {
        assert_eq!(rules(short), rules(long), "{short}");
    }
}

#[test]
fn examples_are_accepted_as_by_the_existing_daemon() {
    for text in [
        ":map::user.virtiofs.:",
        ":map:trusted.:user.virtiofs.:",
        ":map:security.selinux:trusted.virtiofs.:",
        ":unsupported:all:security.:security.::ok:all:::",
        ":ok:all:::",
        ":prefix:client:a:b:/ok/all///",
        "\n :ok:client:user.:: \t/bad/server/trusted./x/\r\n,ok,all,,,\n\n",
        // Any character may be the delimiter, a letter too.
        "xokxallxxx",
        "\u{a7}ok\u{a7}all\u{a7}\u{a7}\u{a7}",
        "\u{a7}map\u{a7}\u{a7}x\u{a7}",
        ":ok:all:\u{e4}:\u{f6}::ok:all:::",
        ":ok:all: :\n::ok:all:::",
        // What follows a catch-all is never reached.
        ":ok:all::::bad:all:user.:user.:",
        "\u{2003}:ok:all:::\u{2003}",
        "\u{b}:ok:all:::\u{c}",
    ] {
        assert!(parse(text).is_ok(), "{text:?}: {:?}", parse(text));
    }
}

#[test]
fn a_delimiter_belongs_to_its_rule_alone() {
    assert_eq!(
        rules("/ok/all/a:b/c,d/:bad:all:x/y:,: ,prefix,all,,:/,-bad-all---"),
        [
            rule(Action::Pass, Scope::Both, "a:b", "c,d"),
            rule(Action::Deny, Scope::Both, "x/y", ","),
            rule(Action::Prefix, Scope::Both, "", ":/"),
            rule(Action::Deny, Scope::Both, "", ""),
        ]
    );
}

#[test]
fn names_are_bytes() {
    let map = parse(b":ok:all:\xff\xfe:\xc3:\xf0ok\xf0all\xf0\xf0\xf0").unwrap();
    let first = map.rules.first().unwrap();
    assert_eq!(
        (&*first.key, &*first.prepend),
        (b"\xff\xfe" as &[u8], b"\xc3" as &[u8])
    );
    assert_eq!(map.rules.len(), 2);
}

#[test]
fn white_space_belongs_to_names_but_not_to_words() {
    assert_eq!(
        rules(":ok:all: key\t:\nprepend ::ok:all:::").first(),
        Some(&rule(Action::Pass, Scope::Both, " key\t", "\nprepend "))
    );
    for (text, got) in [(": ok:all:::", " ok"), (":ok :all:::", "ok ")] {
        let expected = SyntaxError::UnknownType {
            rule: 1,
            got: got.to_owned(),
        };
        assert_eq!(parse(text), Err(expected), "{text}");
    }
}

#[test]
fn no_rule_at_all_is_refused() {
    for text in ["", " ", "\n\t \r\n", "\u{2003}"] {
        assert_eq!(parse(text), Err(SyntaxError::NoRules), "{text:?}");
    }
}

#[test]
fn an_incomplete_rule_is_told_with_the_part_that_has_no_end() {
    for (text, rule, delimiter, part) in [
        (":", 1, ":", "type"),
        ("foo", 1, "f", "type"),
        (":ok", 1, ":", "type"),
        (":ok:all", 1, ":", "scope"),
        (":ok:all:", 1, ":", "key"),
        (":ok:all::", 1, ":", "prepend"),
        (":map:", 1, ":", "key"),
        (":map:a:b", 1, ":", "prepend"),
        (":ok:all:::t", 2, "t", "type"),
        (":ok:all::: trailing", 2, "t", "type"),
        (":ok:all::::", 2, ":", "type"),
        (":ok:all:::\n/ok/all//", 2, "/", "prepend"),
        ("\u{a7}ok", 1, "\u{a7}", "type"),
    ] {
        let expected = SyntaxError::Incomplete {
            rule,
            delimiter: delimiter.to_owned(),
            part,
        };
        assert_eq!(parse(text), Err(expected), "{text:?}");
    }
}

#[test]
fn unknown_words_are_named_with_their_rule() {
    for (text, rule, got) in [
        (":foo:all:::", 1, "foo"),
        (":OK:all:::", 1, "OK"),
        ("::all:::", 1, ""),
        (":ok:all:::/Map///", 2, "Map"),
        (":ok:all::: :b\u{f6}se:all:::", 2, "b\u{f6}se"),
        (":ok:client:::,\n,all,,,", 2, "\\n"),
    ] {
        let got = got.to_owned();
        assert_eq!(
            parse(text),
            Err(SyntaxError::UnknownType { rule, got }),
            "{text:?}"
        );
    }
    for (text, rule, got) in [
        (":ok:foo:::", 1, "foo"),
        (":ok:ALL:::", 1, "ALL"),
        (":ok::::", 1, ""),
        (":ok:all:::+bad+guest+++", 2, "guest"),
    ] {
        let got = got.to_owned();
        assert_eq!(
            parse(text),
            Err(SyntaxError::UnknownScope { rule, got }),
            "{text:?}"
        );
    }
    let broken = parse(b":\xff:all:::").unwrap_err();
    assert!(broken.to_string().contains("'\u{fffd}'"), "{broken}");
}

#[test]
fn a_rule_behind_map_is_refused() {
    for text in [
        ":map::x::map::x:",
        ":map::x: :ok:all:::",
        ":map:k:x:\n:",
        ":map::x:junk",
    ] {
        assert_eq!(
            parse(text),
            Err(SyntaxError::BehindMap { rule: 2 }),
            "{text:?}"
        );
    }
}

#[test]
fn a_nul_is_refused() {
    for text in [":ok:all:a\0b:::", ":ok:all::\0:", ":map:\0::", ":map::\0:"] {
        assert_eq!(parse(text), Err(SyntaxError::Nul { rule: 1 }), "{text:?}");
    }
}

#[test]
fn names_that_would_match_no_rule_are_refused_at_once() {
    // The existing daemon takes all of these and fails when it meets such a name.
    for (text, end) in [
        (":bad:client:::", OpenEnd::Host),
        (":ok:server:::", OpenEnd::Guest),
        (":ok:all:a:b:", OpenEnd::Both),
        (":ok:all:user.::", OpenEnd::Guest),
        (":ok:all::user.:", OpenEnd::Host),
        (":prefix:client:a:b: :ok:server::b:", OpenEnd::Both),
        (
            ":ok:all:user.:user.::ok:all:trusted.:trusted.:\
             :ok:all:security.:security.::ok:all:system.:system.:",
            OpenEnd::Both,
        ),
    ] {
        assert_eq!(parse(text), Err(SyntaxError::NoCatchAll(end)), "{text}");
    }
    for text in [
        ":bad:client::::ok:server:::",
        ":bad:client::x::ok:server:x::",
        ":ok:all:a:: :ok:client:::",
        ":prefix:all::p::bad:server:::",
    ] {
        assert!(parse(text).is_ok(), "{text}");
    }
}

#[test]
fn the_remedy_for_a_missing_catch_all_works() {
    for text in [":bad:client:::", ":ok:server:::", ":ok:all:a:b:"] {
        let error = parse(text).unwrap_err().to_string();
        for remedy in error.split(' ').filter(|word| word.starts_with(':')) {
            assert!(parse(format!("{text} {remedy}")).is_ok(), "{error}");
        }
        assert_eq!(error.matches(":::").count(), 2, "{error}");
    }
}

#[test]
fn messages_say_what_is_wrong_and_what_to_write() {
    for (text, message) in [
        ("", "there is no rule in it"),
        (
            ":ok:all::",
            "rule 1 is incomplete: it begins with ':', so its prepend has to end with ':', too; \
             write :TYPE:SCOPE:KEY:PREPEND: or :map:KEY:PREPEND:",
        ),
        (
            ":ok:all::: :no:all:::",
            "rule 2: 'no' is no type; write prefix, ok, bad, unsupported or map",
        ),
        (
            ":ok:both:::",
            "rule 1: 'both' is no scope; write client, server or all",
        ),
        (
            ":map::x::ok:all:::",
            "rule 2 stands behind a map rule, which decides about all names that are left; a map \
             rule has to be the last",
        ),
        (
            ":ok:server:::",
            "the rules end without a catch-all: some names that the guest sends match no rule. \
             End with :bad:client::: to refuse and hide all other names, or with :ok:client::: \
             to let them pass",
        ),
    ] {
        assert_eq!(parse(text).unwrap_err().to_string(), message);
    }
}
