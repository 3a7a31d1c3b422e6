//! Both halves of a ring against a driver, in both notification modes.

use super::super::memory::RegionSpec;
use super::super::test_guest::{Driver, MODES, TestMemory, USER_BASE, memory_file, spec};
use super::*;

struct Setting {
    memory: TestMemory,
    driver: Driver,
    ram: GuestRam,
    requests: AvailRing,
    returns: UsedRing,
}

fn setting(size: u16, features: RingFeatures, start: u16) -> Setting {
    let memory = TestMemory::new(&[(0, 0x10_0000)]);
    let driver = Driver::new(&memory, 0, size, features, start);
    let ram = memory.share();
    let ring = Ring::translate(&ram, size, driver.addresses(), features).expect("a good ring");
    let (requests, returns) = ring.split(start).expect("readable");
    Setting {
        memory,
        driver,
        ram,
        requests,
        returns,
    }
}

#[test]
fn needs_signal_is_true_when_the_event_is_in_the_window() {
    // (event, old, new, expected): the window is old..new.
    let cases = [
        (0, 0, 1, true),
        (0, 0, 0, false),
        (1, 0, 1, false),
        (5, 0, 10, true),
        (9, 0, 10, true),
        (10, 0, 10, false),
        (0xffff, 0xfffe, 0, true),
        (0xfffe, 0xfffe, 1, true),
        (0xfffd, 0xfffe, 1, false),
        (0, 0xffff, 1, true),
        (1, 0xffff, 1, false),
        (4, 5, 6, false),
    ];
    for (event, old, new, expected) in cases {
        assert_eq!(
            needs_signal(event, old, new),
            expected,
            "{event} {old} {new}"
        );
    }
}

#[test]
fn check_size_takes_powers_of_two_from_2_to_32768() {
    for good in [2, 4, 128, 1024, 32768] {
        assert!(check_size(good).is_ok(), "{good}");
    }
    for bad in [0, 1, 3, 1000, 32767, 32769, 65535, 65536, u32::MAX] {
        assert_eq!(check_size(bad), Err(RingError::Size(bad)));
    }
}

#[test]
fn translate_refuses_parts_that_are_misplaced() {
    let memory = TestMemory::new(&[(0, 0x1_0000), (0x1_0000, 0x1_0000)]);
    let ram = memory.share();
    let good = RingAddresses {
        descriptors: USER_BASE,
        avail: USER_BASE + 0x4000,
        used: USER_BASE + 0x8000,
    };
    let translate = |addresses| Ring::translate(&ram, 256, addresses, MODES[1]).err();
    assert_eq!(translate(good), None);
    let cases = [
        RingAddresses {
            descriptors: USER_BASE + 8,
            ..good
        },
        RingAddresses {
            avail: USER_BASE + 0x4001,
            ..good
        },
        RingAddresses {
            used: USER_BASE + 0x8002,
            ..good
        },
        RingAddresses {
            descriptors: USER_BASE + 0x1_0000 - 16,
            ..good
        },
        RingAddresses {
            used: USER_BASE + 0x1_fff0,
            ..good
        },
        RingAddresses {
            avail: 0x4000,
            ..good
        },
    ];
    for bad in cases {
        assert!(translate(bad).is_some(), "{bad:x?}");
    }
    // Aligned for the front end, and not in the file.
    let askew = RegionSpec {
        mmap_offset: 8,
        ..spec(0, 0x10_0000)
    };
    let file = memory_file(0x10_1000);
    let ram = GuestRam::from_table(vec![(askew, file)]).expect("a good table");
    let refused = Ring::translate(&ram, 256, good, MODES[1]).err();
    assert_eq!(refused, Some(RingError::Alignment("descriptor table")));
    let nowhere = Ring::translate(&GuestRam::default(), 256, good, MODES[1]);
    let text = nowhere.err().map(|error| error.to_string());
    assert!(text.is_some_and(|text| text.contains("share=on")));
}

#[test]
fn requests_and_completions_wrap_at_65536_in_both_modes() {
    for features in MODES {
        let mut setting = setting(4, features, 65530);
        let mut chain = Chain::default();
        for round in 0..20_u16 {
            let expected = 65530_u16.wrapping_add(round);
            assert_eq!(setting.requests.next(), expected);
            setting
                .driver
                .request(&setting.memory, (round % 2) * 2, (1, 7), 16);
            setting.driver.publish();
            let popped = setting.requests.pop(&mut chain, &setting.ram);
            assert_eq!(popped, Ok(true));
            assert_eq!(setting.requests.pop(&mut chain, &setting.ram), Ok(false));
            assert_eq!(setting.driver.collect(), None, "not returned yet");
            setting.driver.request_signals();
            setting.returns.push(chain.head(), 16).expect("in range");
            assert!(setting.returns.is_unasked());
            assert_eq!(setting.returns.wants_signal(), Ok(true));
            assert!(!setting.returns.is_unasked());
            assert_eq!(setting.driver.collect(), Some(((round % 2) * 2, 16)));
        }
    }
}

#[test]
fn pop_after_avail_idx_jumped_or_went_back_is_a_broken_ring() {
    for (jump, broken) in [(4_u16, false), (5, true), (0xffff, true)] {
        let mut setting = setting(4, MODES[0], 10);
        let mut chain = Chain::default();
        setting.driver.next_avail = 10_u16.wrapping_add(jump);
        setting.driver.publish();
        let popped = setting.requests.pop(&mut chain, &setting.ram);
        let expected = if broken {
            Err(BrokenRing::AvailJump(jump))
        } else {
            Ok(true)
        };
        assert_eq!(popped, expected);
    }
}

#[test]
fn wants_signal_honours_no_interrupt_without_event_idx() {
    let mut setting = setting(4, MODES[0], 0);
    for (flags, wanted) in [(0, true), (1, false), (0, true)] {
        setting.driver.set_avail_flags(flags);
        setting.returns.push(0, 0).expect("in range");
        assert_eq!(setting.returns.wants_signal(), Ok(wanted));
    }
}

#[test]
fn wants_signal_with_event_idx_only_when_the_event_is_passed() {
    let mut setting = setting(8, MODES[1], 0);
    setting.driver.request_signals();
    let wants_signal = |returns: &mut UsedRing, count| {
        for _ in 0..count {
            returns.push(0, 0).expect("in range");
        }
        returns.wants_signal()
    };
    assert_eq!(
        wants_signal(&mut setting.returns, 1),
        Ok(true),
        "first ever"
    );
    assert_eq!(
        wants_signal(&mut setting.returns, 2),
        Ok(false),
        "event passed"
    );
    setting.driver.last_used = 4;
    setting.driver.request_signals();
    assert_eq!(wants_signal(&mut setting.returns, 1), Ok(false), "3 to 4");
    assert_eq!(wants_signal(&mut setting.returns, 3), Ok(true), "4 to 7");
}

#[test]
fn kicks_are_suppressed_and_requested_in_both_modes() {
    for features in MODES {
        let mut setting = setting(4, features, 0);
        assert_eq!(setting.requests.request_kicks(), Ok(false));
        setting.driver.request(&setting.memory, 0, (1, 1), 16);
        assert!(setting.driver.publish(), "we sleep, so the driver kicks");
        setting.requests.suppress_kicks().expect("in range");
        setting.driver.request(&setting.memory, 2, (1, 2), 16);
        assert!(!setting.driver.publish(), "we are at it");
        assert_eq!(
            setting.requests.request_kicks(),
            Ok(true),
            "found although there was no kick"
        );
    }
}
