//! Names through rules, both ways, and whatever a typing mistake makes of the rules.

use std::ffi::CString;

use super::*;

fn map(text: &str) -> XattrMap {
    XattrMap::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// What becomes of a name of the guest: the host's name, or how it is refused.
fn to_host(map: &XattrMap, name: &str) -> String {
    let name = CString::new(name).unwrap();
    match map.to_host(&name, &mut NameBuffer::new()) {
        Verdict::Pass(host) => host.to_str().unwrap().to_owned(),
        Verdict::Deny => "DENY".to_owned(),
        Verdict::Unsupported => "UNSUPPORTED".to_owned(),
        Verdict::TooLong => "TOO LONG".to_owned(),
    }
}

fn to_guest<'a>(map: &XattrMap, name: &'a str) -> &'a str {
    map.to_guest(name.as_bytes())
        .map_or("HIDDEN", |name| std::str::from_utf8(name).unwrap())
}

fn check(text: &str, guest_to_host: &[(&str, &str)], host_to_guest: &[(&str, &str)]) {
    let map = map(text);
    for (guest, host) in guest_to_host {
        assert_eq!(to_host(&map, guest), *host, "{text}: guest {guest}");
    }
    for (host, guest) in host_to_guest {
        assert_eq!(to_guest(&map, host), *guest, "{text}: host {host}");
    }
}

#[test]
fn everything_below_a_prefix() {
    check(
        ":map::user.virtiofs.:",
        &[
            ("user.a", "user.virtiofs.user.a"),
            ("security.capability", "user.virtiofs.security.capability"),
            ("user.virtiofs.a", "user.virtiofs.user.virtiofs.a"),
            ("", "user.virtiofs."),
        ],
        &[
            ("user.virtiofs.user.a", "user.a"),
            ("user.virtiofs.user.virtiofs.a", "user.virtiofs.a"),
            ("user.virtiofs.", "HIDDEN"),
            ("user.virtiofs", "HIDDEN"),
            ("user.a", "HIDDEN"),
            ("security.selinux", "HIDDEN"),
        ],
    );
}

#[test]
fn one_namespace_below_a_prefix() {
    check(
        ":map:trusted.:user.virtiofs.:",
        &[
            ("trusted.a", "user.virtiofs.trusted.a"),
            ("user.virtiofs.trusted.a", "DENY"),
            ("user.virtiofs.", "DENY"),
            ("user.a", "user.a"),
            ("trusted", "trusted"),
        ],
        &[
            ("user.virtiofs.trusted.a", "trusted.a"),
            ("trusted.a", "HIDDEN"),
            ("user.a", "user.a"),
            // The key is not asked for on the way back.
            ("user.virtiofs.other", "other"),
        ],
    );
    check(
        ":map:security.selinux:trusted.virtiofs.:",
        &[
            ("security.selinux", "trusted.virtiofs.security.selinux"),
            ("security.capability", "security.capability"),
            ("trusted.virtiofs.security.selinux", "DENY"),
        ],
        &[
            ("trusted.virtiofs.security.selinux", "security.selinux"),
            ("security.selinux", "HIDDEN"),
            ("security.capability", "security.capability"),
        ],
    );
}

#[test]
fn unsupported_names() {
    check(
        ":unsupported:all:security.:security.::ok:all:::",
        &[
            ("security.selinux", "UNSUPPORTED"),
            ("security", "security"),
            ("user.security.", "user.security."),
        ],
        &[("security.selinux", "HIDDEN"), ("user.a", "user.a")],
    );
}

#[test]
fn scopes_make_the_directions_independent() {
    check(
        ":prefix:client:user.:host.: :ok:server::user.: :bad:server:::/ok/client///",
        &[("user.a", "host.user.a"), ("b", "b")],
        &[("host.user.a", "HIDDEN"), ("user.a", "user.a")],
    );
    check(
        ":bad:client:user.:: :ok:all:::",
        &[("user.a", "DENY"), ("b", "b")],
        &[("user.a", "user.a")],
    );
    check(
        ":unsupported:server:user.:user.: :ok:all:::",
        &[("user.a", "user.a")],
        &[("user.a", "HIDDEN"), ("b", "b")],
    );
}

#[test]
fn the_first_rule_that_matches_decides() {
    check(
        ":ok:all:user.a:user.a::bad:all:user.:user.::ok:all:::",
        &[
            ("user.a", "user.a"),
            ("user.ab", "user.ab"),
            ("user.b", "DENY"),
            ("t", "t"),
        ],
        &[("user.a", "user.a"), ("user.b", "HIDDEN"), ("t", "t")],
    );
    check(
        ":bad:all:user.:user.::ok:all:user.a:user.a::ok:all:::",
        &[("user.a", "DENY")],
        &[("user.a", "HIDDEN")],
    );
}

#[test]
fn a_name_of_255_bytes_is_the_longest() {
    let prefixed = map(":map::user.:");
    let longest = "n".repeat(NAME_LEN_MAX - 5);
    assert_eq!(to_host(&prefixed, &longest), format!("user.{longest}"));
    assert_eq!(to_host(&prefixed, &format!("{longest}n")), "TOO LONG");
    assert_eq!(to_host(&prefixed, &"n".repeat(70_000)), "TOO LONG");
    let same = map(":ok:all:::");
    let longest = "n".repeat(NAME_LEN_MAX);
    assert_eq!(to_host(&same, &longest), longest);
    assert_eq!(to_host(&same, &format!("{longest}n")), "TOO LONG");
    let hopeless = map(&format!(":map::{longest}:"));
    assert_eq!(to_host(&hopeless, "a"), "TOO LONG");
}

#[test]
fn a_buffer_can_be_used_again_for_a_shorter_name() {
    let map = map(":map::p.:");
    let mut room = NameBuffer::new();
    for (name, expected) in [
        (c"a.rather.long.name", c"p.a.rather.long.name"),
        (c"b", c"p.b"),
    ] {
        assert_eq!(map.to_host(name, &mut room), Verdict::Pass(expected));
    }
}

#[test]
fn names_that_are_not_utf_8_pass_as_they_are() {
    let map = XattrMap::parse(b":prefix:all:user.\xff:\xfe.::ok:all:::").unwrap();
    let mut room = NameBuffer::new();
    assert_eq!(
        map.to_host(c"user.\xff\xfd", &mut room),
        Verdict::Pass(c"\xfe.user.\xff\xfd")
    );
    assert_eq!(
        map.to_guest(b"\xfe.user.\xff\xfd"),
        Some(b"user.\xff\xfd" as &[u8])
    );
    assert_eq!(map.to_guest(b"\xff"), Some(b"\xff" as &[u8]));
}

#[test]
fn a_list_keeps_the_order_and_leaves_the_hidden_out() {
    let list = b"user.virtiofs.user.b\0user.a\0user.virtiofs.\0user.virtiofs.x\0trusted.c\0";
    for (text, expected) in [
        (":map::user.virtiofs.:", b"user.b\0x\0" as &[u8]),
        (":ok:all:::", list),
        (":bad:all:::", b""),
        (
            ":ok:all::trusted.: :bad:server::user.v: :ok:all:::",
            b"user.a\0trusted.c\0",
        ),
    ] {
        let map = map(text);
        let mut out = vec![0xaa; list.len()];
        let len = map.rewrite_list(list, &mut out).unwrap();
        assert_eq!(&out[..len], expected, "{text}");
        assert!(out[len..].iter().all(|byte| *byte == 0xaa), "{text}");
        assert_eq!(map.list_len(list), expected.len(), "{text}");
        for room in 0..list.len() {
            let mut out = vec![0; room];
            let fits = (room >= expected.len()).then_some(expected.len());
            assert_eq!(map.rewrite_list(list, &mut out), fits, "{text} {room}");
        }
    }
}

#[test]
fn a_list_that_is_empty_or_without_its_last_nul_is_understood() {
    let map = map(":ok:all:::");
    let mut out = [0; 8];
    assert_eq!(map.rewrite_list(b"", &mut out), Some(0));
    assert_eq!(map.rewrite_list(b"", &mut []), Some(0));
    assert_eq!(map.rewrite_list(b"a\0b", &mut out), Some(4));
    assert_eq!(&out[..4], b"a\0b\0");
    assert_eq!(map.rewrite_list(b"\0\0a\0\0", &mut out), Some(2));
}

#[test]
fn renames_is_about_names_that_exist_under_another_name() {
    for (text, expected) in [
        (":map::user.virtiofs.:", true),
        (":map:security.:trusted.:", true),
        (":map:security.selinux:trusted.:", false),
        (":ok:all:::", false),
        (":bad:all:security.:: :ok:all:::", false),
        (":unsupported:all:security.:: :map::x.:", false),
        (":prefix:server:security.:x.: :ok:all:::", false),
        (":map:::", false),
    ] {
        let map = map(text);
        assert_eq!(map.renames(c"security.capability"), expected, "{text}");
    }
}

/// Numbers that look random and are the same in every run (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % bound
    }

    fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }
}

const PIECES: &[&[u8]] = &[
    b":",
    b"/",
    b":ok:all:::",
    b":map:",
    b"prefix",
    b"bad",
    b"unsupported",
    b"all",
    b"client",
    b"server",
    b"user.",
    b"trusted.",
    b" ",
    b"\n",
    b"\xff",
    b"\xc2\xa7",
    b"\0",
    b"",
];

/// Every name that the rules accept gets an answer that keeps the promises.
fn assert_sound(map: &XattrMap, numbers: &mut Numbers) {
    let mut list = Vec::new();
    for _ in 0..4 {
        let mut name: Vec<u8> = (0..numbers.below(4))
            .flat_map(|_| numbers.pick(PIECES).to_vec())
            .collect();
        name.retain(|byte| *byte != 0);
        let guest_name = CString::new(name.clone()).unwrap();
        assert!(map.rules.iter().any(|rule| rule.is_for_guest(&name)));
        assert!(map.rules.iter().any(|rule| rule.is_for_host(&name)));
        let mut room = NameBuffer::new();
        let verdict = map.to_host(&guest_name, &mut room);
        if let Verdict::Pass(host) = verdict {
            assert!(host.to_bytes().ends_with(&name));
            assert!(host.count_bytes() <= NAME_LEN_MAX);
            assert_eq!(map.renames(&guest_name), host != &*guest_name);
        } else {
            assert!(!map.renames(&guest_name));
        }
        if let Some(guest) = map.to_guest(&name) {
            assert!(!guest.is_empty() && name.ends_with(guest));
        }
        list.extend(name);
        list.push(0);
    }
    let mut out = vec![0; list.len()];
    let len = map.rewrite_list(&list, &mut out).unwrap();
    assert_eq!(len, map.list_len(&list));
    let expected = map.guest_names(&list).collect::<Vec<_>>();
    let mut got: Vec<&[u8]> = out[..len].split(|byte| *byte == 0).collect();
    assert_eq!(got.pop(), Some(b"" as &[u8]), "each name has its NUL");
    assert_eq!(got, expected);
}

#[test]
fn whatever_becomes_of_the_rules_is_refused_or_sound() {
    let mut numbers = Numbers(0x5eed_0000_0000_0001);
    let mut accepted = 0;
    for _ in 0..40_000 {
        let mut text: Vec<u8> = match numbers.below(3) {
            0 => (0..numbers.below(12))
                .flat_map(|_| numbers.pick(PIECES).to_vec())
                .collect(),
            1 => b":map:trusted.:user.virtiofs.:".to_vec(),
            _ => b":prefix:all:user.:trusted.: /bad/client/x// :ok:all:::".to_vec(),
        };
        for _ in 0..numbers.below(4) {
            let at = numbers.below(text.len() + 1);
            match numbers.below(3) {
                0 if at < text.len() => drop(text.remove(at)),
                1 if at < text.len() => text[at] = u8::try_from(numbers.below(256)).unwrap(),
                _ => drop(text.splice(at..at, numbers.pick(PIECES).iter().copied())),
            }
        }
        match XattrMap::parse(&text) {
            Ok(map) => {
                accepted += 1;
                assert_sound(&map, &mut numbers);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    assert!(accepted > 5_000, "{accepted}");
}

#[test]
fn every_truncation_of_rules_is_refused_or_whole() {
    let text = b":prefix:all:user.:trusted.: /bad/client/x// :map:a:b:";
    for len in 0..=text.len() {
        assert_eq!(
            XattrMap::parse(&text[..len]).is_ok(),
            len == text.len(),
            "{len}"
        );
    }
}

#[test]
fn what_a_map_rule_moves_comes_back_under_its_own_name() {
    for text in [
        ":map::user.virtiofs.:",
        ":map:trusted.:user.virtiofs.:",
        ":map:security.selinux:trusted.virtiofs.:",
        ":ok:all:::",
        ":unsupported:all:security.:security.::ok:all:::",
    ] {
        let map = map(text);
        for name in [
            "user.a",
            "trusted.b",
            "security.selinux",
            "security.capability",
            "system.posix_acl_access",
            "user.virtiofs.c",
        ] {
            let host = to_host(&map, name);
            if !["DENY", "UNSUPPORTED"].contains(&&*host) {
                assert_eq!(to_guest(&map, &host), name, "{text}: {name}");
            }
        }
    }
}
