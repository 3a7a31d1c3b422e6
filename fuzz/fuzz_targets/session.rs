//! A whole session: requests in sequence over a ring, to a server with a file system that only
//! keeps accounts. The input is a script:
//!
//! ```text
//!   request := opcode:u8 node:u8 room:u16 piece:u8 len:u8 body[len]
//! ```
//! An opcode from 200 on makes the length in the header wrong as well; node 0 to 3 is that number,
//! more a node that was granted. Everything granted and not taken back must be what replies said
//! when the session is over: nothing.
#![no_main]
#![allow(
    dead_code,
    reason = "test doubles are shared with tests that use more of them"
)]

#[path = "../../tests/server/double.rs"]
mod double;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use double::FakeFs;
use libfuzzer_sys::fuzz_target;
use virtiofsd::server::Server;
use virtiofsd::transport::test_fuzzing::ScriptedRing;
use virtiofsd::wire::channel::RequestHandler;

/// Longest script.
const REQUESTS_MAX: usize = 64;

struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (now, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        now
    }
}

fn message(unique: u64, opcode: u8, node: u64, body: &[u8]) -> Vec<u8> {
    let lies = opcode >= 200;
    let len = 40 + body.len() + if lies { usize::from(opcode) } else { 0 };
    let mut bytes = u32::try_from(len).expect("short").to_ne_bytes().to_vec();
    bytes.extend(u32::from(if lies { opcode - 200 } else { opcode }).to_ne_bytes());
    bytes.extend(unique.to_ne_bytes());
    bytes.extend(node.to_ne_bytes());
    bytes.extend([0; 16]);
    bytes.extend(body);
    bytes
}

fn init_body() -> Vec<u8> {
    let words = [7, 45, 0x2_0000, u32::MAX, u32::MAX];
    let mut bytes: Vec<u8> = words
        .iter()
        .flat_map(|word: &u32| word.to_ne_bytes())
        .collect();
    bytes.resize(64, 0);
    bytes
}

fn check(len: u32, reply: &[u8], unique: u64) {
    if len == 0 {
        return;
    }
    let word = |at: usize| u32::from_ne_bytes(reply[at..at + 4].try_into().expect("four"));
    assert!(len >= 16 && usize::try_from(len).expect("64 bits") < reply.len() + 1);
    assert_eq!(word(0), len, "out.len is used.len");
    assert_eq!(reply[8..16], unique.to_ne_bytes());
    let error = word(4).cast_signed();
    assert!((-511..=0).contains(&error));
    assert!(error == 0 || len == 16);
}

fuzz_target!(|input: &[u8]| {
    let server = Arc::new(Server::new(FakeFs::new()));
    let mut ring = ScriptedRing::new(server.clone());
    let (len, reply) = ring
        .request(&message(2, 26, 0, &init_body()), 80, 4096)
        .expect("INIT is answered");
    check(len, &reply, 2);
    let mut script = Script(input);
    let mut nodes = vec![0, 1, 2, 3];
    for number in 0..REQUESTS_MAX {
        let unique = 4 + 2 * u64::try_from(number).expect("64 bits");
        let (Some(opcode), Some(node), Some(low), Some(high), Some(piece), Some(len)) = (
            script.byte(),
            script.byte(),
            script.byte(),
            script.byte(),
            script.byte(),
            script.byte(),
        ) else {
            break;
        };
        let body = script.bytes(usize::from(len));
        let node = nodes[usize::from(node) % nodes.len()];
        let room = usize::from(u16::from_le_bytes([low, high]));
        let message = message(unique, opcode, node, body);
        match ring.request(&message, room, usize::from(piece) * 4) {
            Some((len, reply)) => {
                check(len, &reply, unique);
                if len > 24 {
                    let node = reply[16..24].try_into().expect("eight");
                    nodes.push(u64::from_ne_bytes(node));
                }
            }
            // Set aside: its place in the ring is taken, so the script goes on by another.
            None => ring = ScriptedRing::new(server.clone()),
        }
    }
    server.reset();
    let fs = server.file_system();
    assert_eq!(
        fs.starts.load(Ordering::Relaxed),
        fs.ends.load(Ordering::Relaxed),
        "every session that began has ended"
    );
});
