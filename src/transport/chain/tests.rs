//! Tables of chains: every wrong structure, every wrong buffer, and the odd ones that are right.

use super::super::guest_io;
use super::super::test_guest::{Driver, INDIRECT, MODES, NEXT, TestMemory, WRITE, in_header};
use super::super::test_guest::{USER_BASE, descriptor};
use super::*;

const SIZE: u16 = 8;
/// Two adjacent regions with the ring in the first, and a hole behind them.
const SECOND: u64 = 0x10_0000;
const HOLE: u64 = 0x20_0000;

struct Setting {
    memory: TestMemory,
    driver: Driver,
    ram: GuestRam,
    table: DescriptorTable,
}

fn setting(size: u16) -> Setting {
    let memory = TestMemory::new(&[(0, SECOND), (SECOND, HOLE - SECOND)]);
    let driver = Driver::new(&memory, 0, size, MODES[0], 0);
    let ram = memory.share();
    let window = ram
        .user_window(USER_BASE, usize::from(size) * 16)
        .expect("the table");
    let table = DescriptorTable {
        window,
        size,
        indirect: true,
    };
    Setting {
        memory,
        driver,
        ram,
        table,
    }
}

impl Setting {
    fn load(&self, descriptors: &[(u64, u32, u16, u16)]) -> (Chain, Result<(), BrokenRing>) {
        for (index, (addr, len, flags, next)) in (0..).zip(descriptors) {
            self.driver.describe(index, (*addr, *len, *flags, *next));
        }
        let mut chain = Chain::default();
        let loaded = chain.load_from(0, &self.table, &self.ram);
        (chain, loaded)
    }

    fn indirect(&self, entries: &[(u64, u32, u16, u16)]) -> u64 {
        let at = 0x5_0000;
        for (index, (addr, len, flags, next)) in (0..).zip(entries) {
            self.memory
                .put(at + index * 16, &descriptor(*addr, *len, *flags, *next));
        }
        at
    }
}

#[test]
fn load_of_a_wrong_structure_is_a_broken_ring() {
    let setting = setting(SIZE);
    let nested = setting.indirect(&[(0x1000, 16, INDIRECT, 0)]);
    type Case<'a> = (&'a str, &'a [(u64, u32, u16, u16)], BrokenRing);
    let mut cases: Vec<Case<'_>> = vec![
        (
            "loop of two",
            &[(0x1000, 40, NEXT, 1), (0x2000, 16, NEXT, 0)],
            BrokenRing::Loop,
        ),
        ("loop of one", &[(0x1000, 40, NEXT, 0)], BrokenRing::Loop),
        (
            "loop of zero-length descriptors",
            &[(0x1000, 0, NEXT, 0)],
            BrokenRing::Loop,
        ),
        (
            "next at the size",
            &[(0x1000, 40, NEXT, SIZE)],
            BrokenRing::IndexOutOfRange(SIZE),
        ),
        (
            "next far out",
            &[(0x1000, 40, NEXT, 0xffff)],
            BrokenRing::IndexOutOfRange(0xffff),
        ),
        (
            "indirect with next",
            &[(0x5_0000, 16, INDIRECT | NEXT, 1)],
            BrokenRing::IndirectWithNext,
        ),
        (
            "indirect of no bytes",
            &[(0x5_0000, 0, INDIRECT, 0)],
            BrokenRing::IndirectLength(0),
        ),
        (
            "indirect of 17 bytes",
            &[(0x5_0000, 17, INDIRECT, 0)],
            BrokenRing::IndirectLength(17),
        ),
        (
            "indirect too long",
            &[(0x5_0000, 32769 * 16, INDIRECT, 0)],
            BrokenRing::IndirectLength(32769 * 16),
        ),
    ];
    let nested_case = [(nested, 16, INDIRECT, 0)];
    cases.push(("nested", &nested_case, BrokenRing::IndirectNested));
    for (name, descriptors, expected) in cases {
        assert_eq!(setting.load(descriptors).1, Err(expected), "{name}");
    }
    let mut chain = Chain::default();
    assert_eq!(
        chain.load_from(SIZE, &setting.table, &setting.ram),
        Err(BrokenRing::IndexOutOfRange(SIZE))
    );
}

#[test]
fn load_of_an_indirect_table_that_is_wrong_inside_is_a_broken_ring() {
    let setting = setting(SIZE);
    let cases = [
        (vec![(0x1000, 40, NEXT, 0)], BrokenRing::Loop),
        (
            vec![(0x1000, 40, NEXT, 1), (0x1000, 40, NEXT, 2)],
            BrokenRing::Loop,
        ),
        (
            vec![(0x1000, 40, NEXT, 7), (0x1000, 40, 0, 0)],
            BrokenRing::IndexOutOfRange(7),
        ),
    ];
    for (entries, expected) in cases {
        let at = setting.indirect(&entries);
        let len = u32::try_from(entries.len() * 16).expect("small");
        let loaded = setting.load(&[(at, len, INDIRECT, 0)]).1;
        assert_eq!(loaded, Err(expected), "{entries:?}");
    }
}

#[test]
fn load_of_indirect_without_the_feature_is_a_broken_ring() {
    let mut setting = setting(SIZE);
    setting.table.indirect = false;
    assert_eq!(
        setting.load(&[(0x5_0000, 16, INDIRECT, 0)]).1,
        Err(BrokenRing::IndirectNotNegotiated)
    );
}

#[test]
fn load_of_wrong_buffers_is_a_defect_and_keeps_what_is_before() {
    let setting = setting(SIZE);
    type Case<'a> = (&'a str, &'a [(u64, u32, u16, u16)], Defect, usize, usize);
    let cases: [Case<'_>; 6] = [
        (
            "payload in the hole",
            &[
                (0x1_0000, 40, NEXT, 1),
                (HOLE, 8, NEXT, 2),
                (0x2_0000, 16, WRITE, 0),
            ],
            Defect::Unaddressable,
            40,
            16,
        ),
        (
            "header in the hole",
            &[(HOLE, 40, NEXT, 1), (0x2_0000, 16, WRITE, 0)],
            Defect::Unaddressable,
            0,
            16,
        ),
        (
            "reply straddles into the hole",
            &[(0x1_0000, 40, NEXT, 1), (HOLE - 8, 16, WRITE, 0)],
            Defect::Unaddressable,
            40,
            0,
        ),
        (
            "address near the end of the address space",
            &[(0x1_0000, 40, NEXT, 1), (u64::MAX, 16, WRITE, 0)],
            Defect::Unaddressable,
            40,
            0,
        ),
        (
            "readable after writable",
            &[
                (0x1_0000, 40, NEXT, 1),
                (0x2_0000, 16, WRITE | NEXT, 2),
                (0x3_0000, 8, 0, 0),
            ],
            Defect::Order,
            40,
            16,
        ),
        (
            "more than 4 GiB",
            &[
                (0x1_0000, 40, NEXT, 1),
                (0x2_0000, 16, WRITE | NEXT, 2),
                (HOLE, u32::MAX, WRITE, 0),
            ],
            Defect::TooLong,
            40,
            16,
        ),
    ];
    for (name, descriptors, defect, readable, writable) in cases {
        let (chain, loaded) = setting.load(descriptors);
        assert_eq!(loaded, Ok(()), "{name}");
        assert_eq!(chain.defect(), Some(defect), "{name}");
        let kept = (chain.readable_bytes(), chain.writable_bytes());
        assert_eq!(kept, (readable, writable), "{name}");
    }
}

#[test]
fn load_of_an_indirect_table_in_the_hole_is_a_defect() {
    let setting = setting(SIZE);
    let (chain, loaded) = setting.load(&[(HOLE, 32, INDIRECT, 0)]);
    assert_eq!(loaded, Ok(()));
    assert_eq!(chain.defect(), Some(Defect::Unaddressable));
    assert_eq!(chain.peek(), None);
}

#[test]
fn load_counts_all_bytes_of_overlapping_buffers_against_the_limit() {
    let setting = setting(1024);
    // One MiB of memory, named often enough to make more than 4 GiB.
    let entries: Vec<_> = (1..=4097_u16)
        .map(|next| (SECOND, 0x10_0000, NEXT | WRITE, next))
        .collect();
    let at = 0x2_0000;
    for (index, (addr, len, flags, next)) in (0..).zip(&entries) {
        let flags = if index == 4096 { WRITE } else { *flags };
        setting
            .memory
            .window(at + index * 16, 16)
            .write(0, descriptor(*addr, *len, flags, *next))
            .expect("in range");
    }
    let (chain, loaded) = setting.load(&[(at, 4097 * 16, INDIRECT, 0)]);
    assert_eq!(loaded, Ok(()));
    assert_eq!(chain.defect(), Some(Defect::TooLong));
    let (chain, _) = setting.load(&[(at + 16 * 4096, 16, INDIRECT, 0)]);
    assert_eq!(chain.defect(), None);
}

#[test]
fn load_of_a_chain_as_long_as_the_queue_is_accepted() {
    let setting = setting(SIZE);
    let chain: Vec<_> = (0..SIZE)
        .map(|index| {
            let last = index == SIZE - 1;
            (0x1_0000, 40, if last { WRITE } else { NEXT }, index + 1)
        })
        .collect();
    let (chain, loaded) = setting.load(&chain);
    assert_eq!(loaded, Ok(()));
    assert_eq!(chain.defect(), None);
    assert_eq!((chain.readable_bytes(), chain.writable_bytes()), (280, 40));
}

#[test]
fn load_ignores_zero_length_descriptors_wherever_they_are() {
    let setting = setting(SIZE);
    let (chain, loaded) = setting.load(&[
        (HOLE, 0, NEXT, 1),
        (0x1_0000, 40, NEXT, 2),
        (0x1_0100, 0, NEXT, 3),
        (0x2_0000, 16, WRITE | NEXT, 4),
        (0x2_0000, 0, 0, 0),
    ]);
    assert_eq!(loaded, Ok(()));
    assert_eq!(chain.defect(), None);
    assert_eq!((chain.readable_bytes(), chain.writable_bytes()), (40, 16));
}

#[test]
fn load_of_a_thousand_one_byte_descriptors_gives_their_bytes_in_order() {
    let setting = setting(1024);
    let wanted: Vec<u8> = (0..1000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut chain = Vec::new();
    for (index, byte) in (0_u16..).zip(&wanted) {
        // Every other byte, so that nothing can be merged.
        let at = 0x4_0000 + u64::from(index) * 2;
        setting.memory.put(at, &[*byte]);
        let flags = if index == 999 { 0 } else { NEXT };
        chain.push((at, 1, flags, index + 1));
    }
    let (chain, loaded) = setting.load(&chain);
    assert_eq!(loaded, Ok(()));
    let mut got = vec![0; 1000];
    assert!(guest_io::copy_out(&setting.ram, chain.readable(), &mut got));
    assert_eq!(got, wanted);
}

#[test]
fn load_of_a_buffer_across_adjacent_regions_reads_both() {
    let setting = setting(SIZE);
    let header = in_header(40, 1, 0x1122_3344_5566_7788);
    setting.memory.put(SECOND - 11, &header);
    let (chain, loaded) = setting.load(&[(SECOND - 11, 40, 0, 0)]);
    assert_eq!(loaded, Ok(()));
    assert_eq!(chain.readable().len(), 2);
    let peek = chain.peek().expect("a header");
    assert_eq!(
        (peek.opcode.raw(), peek.header.unique),
        (1, 0x1122_3344_5566_7788)
    );
}

#[test]
fn load_merges_adjacent_buffers_of_one_direction() {
    let setting = setting(SIZE);
    let (chain, _) = setting.load(&[
        (0x1_0000, 40, NEXT, 1),
        (0x1_0028, 8, NEXT, 2),
        (0x1_0030, 16, WRITE | NEXT, 3),
        (0x1_0040, 16, WRITE, 0),
    ]);
    assert_eq!((chain.readable().len(), chain.writable().len()), (1, 1));
}

#[test]
fn load_believes_only_its_copy() {
    let setting = setting(SIZE);
    let (chain, _) = setting.load(&[(0x1_0000, 40, 0, 0)]);
    setting.driver.describe(0, (HOLE, u32::MAX, NEXT, 0));
    assert_eq!(chain.readable_bytes(), 40);
    assert!(chain.peek().is_some());
}
