//! The grammar of `--translate-uid` and `--translate-gid`: a line of rules is refused, or makes a
//! translator that keeps its promises.
#![no_main]

use libfuzzer_sys::fuzz_target;
use virtiofsd::IdRule;
use virtiofsd::ids::translator::Translator;
use virtiofsd::ids::types::{GuestUid, HostUid};

/// Ids to ask about besides those in the rules.
const EDGES: [u32; 6] = [0, 1, 999, 0x7fff_ffff, 0xffff_fffd, 0xffff_fffe];

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let mut rules = Vec::new();
    let mut ids = EDGES.to_vec();
    for line in text.split('\n').take(8) {
        match line.parse::<IdRule>() {
            Ok(rule) => rules.push(rule),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        let numbers = line.split(|c: char| !c.is_ascii_digit());
        for number in numbers.filter_map(|number| number.parse::<u32>().ok()) {
            ids.extend([number, number.wrapping_add(1), number.wrapping_sub(1)]);
        }
    }
    let translator = match Translator::new(&rules, &rules) {
        Ok(translator) => translator,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    for id in ids {
        if let Some(guest) = GuestUid::new(id)
            && let Some(host) = translator.host_uid(guest)
        {
            assert_ne!(host.raw(), u32::MAX, "nobody's id");
            if translator.is_identity() {
                assert_eq!(host.raw(), guest.raw());
            }
            if translator.is_one_to_one() {
                assert_eq!(translator.guest_uid(host), guest);
            }
        }
        if let Some(host) = HostUid::new(id) {
            assert_ne!(translator.guest_uid(host).raw(), u32::MAX, "nobody's id");
        }
    }
    translator.round_trip_loss();
});
