//! One request, byte for byte, to a server with a file system that only keeps accounts. The first
//! five bytes choose what INIT agreed on and how much room the reply has; the sixth, whether the
//! header's length and opcode are made likely ones, without which little gets far.
#![no_main]
#![allow(
    dead_code,
    reason = "test doubles are shared with tests that use more of them"
)]

#[path = "../../tests/server/double.rs"]
mod double;
#[path = "../../tests/server/slices.rs"]
mod slices;

use double::FakeFs;
use libfuzzer_sys::fuzz_target;
use slices::{PATTERN, SliceSink, SliceSource};
use virtiofsd::server::Server;
use virtiofsd::wire::channel::{Outcome, Pace, RequestHandler};
use virtiofsd::wire::header::OutHeader;
use virtiofsd::wire::pod::Plain;

fn init(flags: u32, high: u32) -> Vec<u8> {
    let words = [
        104,
        26,
        1,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        7,
        45,
        0x2_0000,
        flags | 1 << 30,
        high,
    ];
    let mut bytes: Vec<u8> = words
        .iter()
        .flat_map(|word: &u32| word.to_ne_bytes())
        .collect();
    bytes.resize(104, 0);
    bytes
}

fuzz_target!(|input: &[u8]| {
    let Some((&[a, b, c, d, room, likely], request)) = input.split_first_chunk() else {
        return;
    };
    let mut request = request.to_vec();
    if likely & 1 == 0
        && let Some(len) = request.first_chunk_mut()
    {
        *len = u32::try_from(input.len() - 6).expect("short").to_ne_bytes();
    }
    if likely & 2 == 0
        && let Some(opcode) = request.get_mut(5..8)
    {
        opcode.fill(0);
    }
    let request = request.as_slice();
    let server = Server::new(FakeFs::new());
    let flags = u32::from_ne_bytes([a, b, c, d]);
    let begun = server.handle(
        &mut SliceSource::new(&init(flags, flags.rotate_left(16))),
        &mut SliceSink::new(80),
        Pace::Patient,
    );
    assert_eq!(begun, Outcome::Replied(80));
    let room = usize::from(room) * 5;
    let mut sink = SliceSink::new(room);
    let outcome = server.handle(&mut SliceSource::new(request), &mut sink, Pace::Patient);
    let len = match outcome {
        Outcome::Replied(len) => usize::try_from(len).expect("64 bits"),
        Outcome::NoReply | Outcome::Dropped | Outcome::Parked => 0,
        Outcome::Deferred => panic!("deferred for a patient thread"),
    };
    assert!(len <= room);
    assert!(len == 0 || len >= 16);
    if len > 0 {
        let (header, _) = OutHeader::split_from(&sink.bytes).expect("16 bytes");
        assert_eq!(usize::try_from(header.len), Ok(len));
        assert_eq!(header.unique.to_ne_bytes(), request[8..16]);
        assert!((-511..=0).contains(&header.error));
        assert!(header.error == 0 || len == 16);
    }
    assert!(sink.bytes[len..].iter().all(|byte| *byte == PATTERN) || len == 0 || len < room);
});
