//! Descriptor chains, direct and indirect, in guest memory that is all the fuzzer's. A chain is
//! refused, or all its pieces lie in guest memory and add up.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| virtiofsd::transport::test_fuzzing::chain(input));
