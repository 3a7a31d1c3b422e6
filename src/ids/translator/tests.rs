//! Rules in, ids out, and what is refused. Round trips are compared with trying every id.

use super::*;

fn rules(texts: &[&str]) -> Vec<Rule> {
    texts
        .iter()
        .map(|text| {
            text.parse()
                .unwrap_or_else(|error| panic!("{text}: {error}"))
        })
        .collect()
}

fn for_uids(texts: &[&str]) -> Translator {
    Translator::new(&rules(texts), &[]).unwrap_or_else(|error| panic!("{texts:?}: {error}"))
}

fn to_host(translator: &Translator, raw: u32) -> Option<u32> {
    let guest = GuestUid::new(raw).unwrap();
    translator.host_uid(guest).map(HostUid::raw)
}

fn to_guest(translator: &Translator, raw: u32) -> u32 {
    translator.guest_uid(HostUid::new(raw).unwrap()).raw()
}

/// The largest id.
const LAST: u32 = u32::MAX - 1;

#[test]
fn each_type_of_rule_translates_in_its_direction_only() {
    for (rule, guest_to_host, host_to_guest) in [
        (
            "guest:10:100:5",
            [(9, 9), (10, 100), (14, 104), (15, 15)],
            [(100, 100), (104, 104), (10, 10), (14, 14)],
        ),
        (
            "host:10:100:5",
            [(100, 100), (104, 104), (10, 10), (14, 14)],
            [(9, 9), (10, 100), (14, 104), (15, 15)],
        ),
        (
            "map:10:100:5",
            [(9, 9), (10, 100), (14, 104), (15, 15)],
            [(99, 99), (100, 10), (104, 14), (105, 105)],
        ),
        (
            "squash-guest:10:100:5",
            [(9, 9), (10, 100), (14, 100), (15, 15)],
            [(100, 100), (104, 104), (10, 10), (14, 14)],
        ),
        (
            "squash-host:10:100:5",
            [(100, 100), (104, 104), (10, 10), (14, 14)],
            [(9, 9), (10, 100), (14, 100), (15, 15)],
        ),
    ] {
        let translator = for_uids(&[rule]);
        for (guest, host) in guest_to_host {
            assert_eq!(
                to_host(&translator, guest),
                Some(host),
                "{rule}: guest {guest}"
            );
        }
        for (host, guest) in host_to_guest {
            assert_eq!(to_guest(&translator, host), guest, "{rule}: host {host}");
        }
    }
}

#[test]
fn forbidden_ids_are_refused_and_still_shown() {
    let translator = for_uids(&["forbid-guest:10:5"]);
    for (guest, expected) in [(9, Some(9)), (10, None), (14, None), (15, Some(15))] {
        assert_eq!(to_host(&translator, guest), expected, "{guest}");
    }
    assert_eq!(to_guest(&translator, 12), 12);
}

#[test]
fn users_and_groups_have_rules_of_their_own() {
    let translator =
        Translator::new(&rules(&["map:0:100:1"]), &rules(&["forbid-guest:0:1"])).unwrap();
    assert_eq!(
        translator.host_uid(GuestUid::ROOT).map(HostUid::raw),
        Some(100)
    );
    assert_eq!(translator.host_gid(GuestGid::ROOT), None);
    assert_eq!(translator.guest_gid(HostGid::new(100).unwrap()).raw(), 100);
    let translator = Translator::new(&[], &rules(&["map:0:100:2"])).unwrap();
    assert_eq!(translator.host_gid(GuestGid::ROOT).unwrap().raw(), 100);
    assert_eq!(translator.guest_gid(HostGid::new(101).unwrap()).raw(), 1);
    assert_eq!(translator.host_uid(GuestUid::ROOT), Some(HostUid::ROOT));
}

#[test]
fn the_last_id_is_translated_like_any_other() {
    let translator = for_uids(&["map:0:4294967294:1", "map:4294967294:0:1"]);
    assert_eq!(to_host(&translator, 0), Some(LAST));
    assert_eq!(to_host(&translator, LAST), Some(0));
    assert_eq!(to_guest(&translator, LAST), 0);
    let translator = for_uids(&["squash-guest:0:65534:4294967295"]);
    assert_eq!(to_host(&translator, LAST), Some(65534));
    let translator = for_uids(&["map:0:0:4294967295"]);
    assert_eq!(to_host(&translator, LAST), Some(LAST));
}

#[test]
fn a_rule_for_no_ids_does_nothing() {
    let translator = for_uids(&[
        "map:0:1:0",
        "map:0:1:0",
        "guest:4294967295:4294967295:0",
        "squash-guest:0:4294967295:0",
        "forbid-guest:4294967295:0",
    ]);
    assert_eq!(translator, Translator::identity());
    assert!(translator.is_identity());
}

#[test]
fn ids_beyond_the_largest_are_refused_on_both_sides() {
    for (rule, side, first, count) in [
        ("guest:4294967295:0:1", Side::Guest, u32::MAX, 1),
        ("guest:4294967290:0:6", Side::Guest, 4_294_967_290, 6),
        ("guest:0:4294967290:6", Side::Host, 4_294_967_290, 6),
        ("host:0:4294967290:6", Side::Guest, 4_294_967_290, 6),
        ("host:4294967290:0:6", Side::Host, 4_294_967_290, 6),
        ("map:1:0:4294967295", Side::Guest, 1, u32::MAX),
        ("map:0:1:4294967295", Side::Host, 1, u32::MAX),
        ("squash-guest:1:0:4294967295", Side::Guest, 1, u32::MAX),
        ("squash-guest:0:4294967295:7", Side::Host, u32::MAX, 1),
        ("squash-host:1:0:4294967295", Side::Host, 1, u32::MAX),
        ("squash-host:0:4294967295:7", Side::Guest, u32::MAX, 1),
        ("forbid-guest:1:4294967295", Side::Guest, 1, u32::MAX),
        ("forbid-guest:4294967295:1", Side::Guest, u32::MAX, 1),
    ] {
        let expected = RuleError::BeyondIds {
            kind: IdKind::Group,
            side,
            rule: rule.to_owned(),
            first,
            count,
        };
        assert_eq!(
            Translator::new(&[], &rules(&[rule])),
            Err(expected),
            "{rule}"
        );
    }
    for rule in [
        "guest:0:4294967290:5",
        "map:1:1:4294967294",
        "forbid-guest:0:4294967295",
        "squash-host:0:4294967294:4294967295",
    ] {
        assert!(
            Translator::new(&rules(&[rule]), &rules(&[rule])).is_ok(),
            "{rule}"
        );
    }
}

#[test]
fn overlaps_are_refused_within_a_direction_only() {
    for (one, other, side, first, last) in [
        ("map:0:100:10", "guest:4:200:2", Side::Guest, 4, 5),
        ("guest:4:200:2", "map:0:100:10", Side::Guest, 4, 5),
        ("map:0:100:10", "host:109:0:5", Side::Host, 109, 109),
        ("map:0:100:10", "map:50:105:10", Side::Host, 105, 109),
        ("forbid-guest:0:5", "squash-guest:4:0:9", Side::Guest, 4, 4),
        ("forbid-guest:0:5", "forbid-guest:0:5", Side::Guest, 0, 4),
        ("squash-host:7:0:1", "host:0:0:4294967295", Side::Host, 7, 7),
    ] {
        let expected = RuleError::Overlap {
            kind: IdKind::User,
            side,
            rules: [one.to_owned(), other.to_owned()],
            first,
            last,
        };
        assert_eq!(
            Translator::new(&rules(&[one, other]), &[]),
            Err(expected),
            "{one} {other}"
        );
    }
    for pair in [
        ["guest:0:100:10", "host:0:100:10"],
        ["guest:0:100:10", "guest:10:100:10"],
        ["squash-guest:0:5:10", "squash-host:0:5:10"],
        ["map:0:100:10", "forbid-guest:10:90"],
    ] {
        for_uids(&pair);
    }
}

#[test]
fn errors_name_the_option_and_the_rules_as_typed() {
    let text = |uids: &[&str], gids: &[&str]| {
        Translator::new(&rules(uids), &rules(gids))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        text(&["MAP+0+100+10", "guest:4:200:2"], &[]),
        "--translate-uid 'MAP+0+100+10' and 'guest:4:200:2' both say what becomes of guest ids \
         4 to 5"
    );
    assert_eq!(
        text(&[], &["host:7:0:1", "host:1:0:7"]),
        "--translate-gid 'host:7:0:1' and 'host:1:0:7' both say what becomes of host id 7"
    );
    assert_eq!(
        text(&[], &["guest:0:4294967290:6"]),
        "--translate-gid 'guest:0:4294967290:6': 6 host ids from 4294967290 on go beyond the \
         largest id, 4294967294"
    );
    assert_eq!(
        text(&["squash-guest:0:4294967295:3"], &[]),
        "--translate-uid 'squash-guest:0:4294967295:3': host id 4294967295 is beyond the largest \
         id, 4294967294"
    );
}

#[test]
fn identity_is_recognised_by_effect() {
    assert!(Translator::identity().is_identity());
    assert!(for_uids(&["map:0:0:100", "squash-host:200:200:1"]).is_identity());
    for rule in [
        "map:0:1:1",
        "guest:0:1:1",
        "host:0:1:1",
        "forbid-guest:7:1",
        "squash-guest:0:0:2",
        "squash-host:0:0:2",
    ] {
        assert!(!for_uids(&[rule]).is_identity(), "{rule}");
        let for_gids = Translator::new(&[], &rules(&[rule])).unwrap();
        assert!(!for_gids.is_identity(), "{rule}");
    }
}

#[test]
fn one_to_one_is_what_keeps_every_id_apart() {
    for (texts, expected) in [
        (&[] as &[&str], true),
        (&["map:0:0:4294967295"], true),
        (&["map:0:1000:5"], false),
        (&["map:0:1000:5", "map:1000:0:5"], true),
        (&["guest:0:1000:5", "host:1000:0:5"], false),
        (
            &[
                "guest:0:1000:5",
                "host:1000:0:5",
                "guest:1000:0:5",
                "host:0:1000:5",
            ],
            true,
        ),
        (&["map:0:1000:5", "forbid-guest:1000:5"], false),
        (
            &["map:0:1000:5", "host:0:1000:5", "forbid-guest:1000:5"],
            true,
        ),
        (&["forbid-guest:0:10"], true),
        (&["squash-guest:3:3:1"], true),
        (&["squash-guest:3:3:2"], false),
        (&["squash-host:3:3:2"], false),
        (&["squash-host:3:3:2", "forbid-guest:3:1"], false),
        (&["squash-host:3:3:2", "forbid-guest:3:2"], true),
        (&["guest:0:1:1", "guest:1:0:1"], false),
        // A rotation: each range becomes the next, and all come back.
        (&["map:0:5:5", "map:5:10:5", "map:10:0:5"], true),
        (&["map:0:1:4294967294", "map:4294967294:0:1"], true),
    ] {
        let translator = for_uids(texts);
        assert_eq!(translator.is_one_to_one(), expected, "{texts:?}");
        let for_gids = Translator::new(&[], &rules(texts)).unwrap();
        assert_eq!(for_gids.is_one_to_one(), expected, "{texts:?}");
    }
}

#[test]
fn a_round_trip_loss_is_told_by_an_example() {
    let loss = |texts: &[&str]| for_uids(texts).round_trip_loss().unwrap().to_string();
    assert_eq!(
        loss(&["map:0:1000:5"]),
        "guest user 1000 becomes host user 1000, which becomes guest user 0"
    );
    assert_eq!(
        loss(&["map:0:1000:5", "forbid-guest:1000:5"]),
        "host user 0 becomes guest user 0, which becomes host user 1000"
    );
    assert_eq!(
        loss(&["squash-guest:0:7:10"]),
        "guest user 0 becomes host user 7, which becomes guest user 7"
    );
    let for_gids = Translator::new(&[], &rules(&["squash-host:4:4:2"])).unwrap();
    assert_eq!(
        for_gids.round_trip_loss().unwrap().to_string(),
        "guest group 5 becomes host group 5, which becomes guest group 4"
    );
}

/// Small numbers, the same in every run (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

fn random_rule(numbers: &mut Numbers) -> String {
    const KINDS: [&str; 5] = ["guest", "host", "map", "squash-guest", "squash-host"];
    let (one, other, count) = (numbers.below(12), numbers.below(12), numbers.below(5));
    match KINDS.get(usize::try_from(numbers.below(7)).unwrap()) {
        Some(kind) => format!("{kind}:{one}:{other}:{count}"),
        None => format!("forbid-guest:{one}:{count}"),
    }
}

#[test]
fn random_rules_are_judged_as_by_trying_every_id() {
    // Rules name ids below 16 only, so ids up to 20 stand for all others.
    const IDS: std::ops::Range<u32> = 0..20;
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    let (mut accepted, mut one_to_one) = (0, 0);
    for _ in 0..20_000 {
        let texts: Vec<String> = (0..=numbers.below(4))
            .map(|_| random_rule(&mut numbers))
            .collect();
        let parsed: Vec<Rule> = texts.iter().map(|text| text.parse().unwrap()).collect();
        let Ok(translator) = Translator::new(&parsed, &[]) else {
            continue;
        };
        accepted += 1;
        let keeps_guest = IDS.clone().all(|id| {
            to_host(&translator, id).is_none_or(|host| to_guest(&translator, host) == id)
        });
        let keeps_host = IDS.clone().all(|id| {
            let guest = to_guest(&translator, id);
            to_host(&translator, guest).is_none_or(|host| host == id)
        });
        let expected = keeps_guest && keeps_host;
        assert_eq!(translator.is_one_to_one(), expected, "{texts:?}");
        one_to_one += u32::from(expected);
        let identity = IDS
            .clone()
            .all(|id| to_host(&translator, id) == Some(id) && to_guest(&translator, id) == id);
        assert_eq!(translator.is_identity(), identity, "{texts:?}");
    }
    assert!(
        accepted > 4_000 && one_to_one > 1_000,
        "{accepted} {one_to_one}"
    );
}

#[test]
fn the_rules_that_the_document_recommends_are_one_to_one() {
    let translator = for_uids(&[
        "map:0:100000:65536",
        "host:0:100000:65536",
        "forbid-guest:65536:4294901759",
    ]);
    assert!(translator.is_one_to_one());
    assert_eq!(to_host(&translator, 65_535), Some(165_535));
    assert_eq!(to_host(&translator, 65_536), None);
    assert_eq!(to_host(&translator, LAST), None);
    assert_eq!(to_guest(&translator, 5), 100_005);
    for swap in [
        &["map:0:100000:65536", "map:100000:0:65536"] as &[&str],
        &["map:0:100000:65536"],
    ] {
        assert_eq!(for_uids(swap).is_one_to_one(), swap.len() == 2);
    }
}
