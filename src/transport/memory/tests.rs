//! Tables of regions, and where addresses lead.

use super::super::test_guest::{TestMemory, USER_BASE, memory_file, spec};
use super::*;

const PAGE: u64 = 4096;

fn lens(segments: &[Segment]) -> Vec<usize> {
    segments.iter().map(Segment::len).collect()
}

#[test]
fn from_table_without_regions_names_the_remedy() {
    let error = GuestRam::from_table(Vec::new()).expect_err("no regions");
    assert!(error.to_string().contains("share=on"));
}

#[test]
fn with_region_of_bad_specs_is_refused() {
    let base = GuestRam::default()
        .with_region(spec(PAGE, PAGE), memory_file(PAGE))
        .expect("a good region");
    let user = |user_start| RegionSpec {
        user_start,
        ..spec(0x10_0000, PAGE)
    };
    let cases = [
        ("size zero", spec(0x10_0000, 0)),
        (
            "guest overflow",
            RegionSpec {
                user_start: 0,
                ..spec(u64::MAX - 10, PAGE)
            },
        ),
        ("user overflow", user(u64::MAX - 10)),
        (
            "offset overflow",
            RegionSpec {
                mmap_offset: u64::MAX,
                ..spec(0x10_0000, PAGE)
            },
        ),
        ("same place", spec(PAGE, PAGE)),
        ("overlaps from below", spec(1, PAGE)),
        ("overlaps from above", spec(2 * PAGE - 1, PAGE)),
        ("user addresses overlap", user(USER_BASE + 2 * PAGE - 1)),
        ("longer than its file", spec(0x10_0000, PAGE + 1)),
    ];
    for (name, bad) in cases {
        assert!(base.with_region(bad, memory_file(PAGE)).is_err(), "{name}");
    }
    assert!(base.with_region(spec(0, PAGE), memory_file(PAGE)).is_ok());
    assert!(
        base.with_region(spec(2 * PAGE, PAGE), memory_file(PAGE))
            .is_ok()
    );
}

#[test]
fn with_region_beyond_the_most_is_refused() {
    let file = memory_file(PAGE);
    let mut ram = GuestRam::default();
    for index in 0..509 {
        ram = ram
            .with_region(spec(index * PAGE, PAGE), file.try_clone().expect("dup"))
            .expect("one of 509");
    }
    assert!(matches!(
        ram.with_region(spec(509 * PAGE, PAGE), file),
        Err(MemoryError::TooManyRegions)
    ));
}

#[test]
fn adding_and_removing_leaves_the_old_table_as_it_was() {
    let one = GuestRam::default()
        .with_region(spec(0, PAGE), memory_file(PAGE))
        .expect("a good region");
    let two = one
        .with_region(spec(PAGE, PAGE), memory_file(PAGE))
        .expect("a good region");
    let again = two.without_region(spec(0, PAGE)).expect("it is there");

    let reach = |ram: &GuestRam, at| ram.translate(at, 1, &mut Vec::new());
    assert_eq!([reach(&one, 0), reach(&one, PAGE)], [true, false]);
    assert_eq!([reach(&two, 0), reach(&two, PAGE)], [true, true]);
    assert_eq!([reach(&again, 0), reach(&again, PAGE)], [false, true]);
    assert!(matches!(
        again.without_region(spec(0, PAGE)),
        Err(MemoryError::Unknown(_))
    ));
}

#[test]
fn translate_splits_at_regions_and_fails_at_holes() {
    let memory = TestMemory::new(&[(0, PAGE), (PAGE, PAGE), (4 * PAGE, PAGE)]);
    let ram = memory.share();
    let cases: [(u64, u64, Option<&[usize]>); 9] = [
        (0, 1, Some(&[1])),
        (0, PAGE, Some(&[4096])),
        (PAGE - 1, 2, Some(&[1, 1])),
        (0, 2 * PAGE, Some(&[4096, 4096])),
        (PAGE, PAGE + 1, None),
        (2 * PAGE, 1, None),
        (4 * PAGE - 1, 2, None),
        (5 * PAGE, 1, None),
        (u64::MAX, 2, None),
    ];
    for (start, len, expected) in cases {
        let mut segments = Vec::new();
        let found = ram.translate(start, len, &mut segments);
        let expected_lens = expected.map(<[usize]>::to_vec);
        assert_eq!(
            found.then(|| lens(&segments)),
            expected_lens,
            "{start:#x} {len:#x}"
        );
        assert!(found || segments.is_empty());
    }
}

#[test]
fn translate_merges_what_continues_and_undoes_it_on_failure() {
    let memory = TestMemory::new(&[(0, PAGE)]);
    let ram = memory.share();
    let mut segments = Vec::new();
    assert!(ram.translate(0, 16, &mut segments));
    assert!(ram.translate(16, 16, &mut segments));
    assert_eq!(lens(&segments), [32]);
    let before = segments.clone();
    assert!(!ram.translate(32, PAGE, &mut segments));
    assert_eq!(segments, before);
    assert!(ram.translate(64, 1, &mut segments));
    assert_eq!(lens(&segments), [32, 1]);
}

#[test]
fn region_with_an_unaligned_file_offset_shows_the_right_bytes() {
    use std::os::unix::fs::FileExt;
    let file = memory_file(4 * PAGE);
    file.write_all_at(b"here", PAGE + 100).expect("pwrite");
    let odd = RegionSpec {
        mmap_offset: PAGE + 100,
        ..spec(0, PAGE)
    };
    let ram = GuestRam::default()
        .with_region(odd, file)
        .expect("rounded down to a page");
    let window = ram.user_window(USER_BASE, 4).expect("in range");
    assert_eq!(window.read::<4>(0), Some(*b"here"));
    assert!(ram.user_window(USER_BASE + PAGE - 1, 2).is_none());
}

#[test]
fn user_window_is_inside_one_region_or_not_at_all() {
    let memory = TestMemory::new(&[(0, PAGE), (PAGE, PAGE)]);
    let ram = memory.share();
    assert!(ram.user_window(USER_BASE, 4096).is_some());
    assert!(ram.user_window(USER_BASE + PAGE - 2, 4).is_none());
    assert!(ram.user_window(USER_BASE - 1, 1).is_none());
    assert!(ram.user_window(0, 1).is_none());
}
