//! The grammar of `--xattrmap`, and a map at work: up to the first NUL the rules, then a list of
//! names as the host has them. The rules are refused, or what they make of names is consistent.
#![no_main]

use std::ffi::CStr;

use libfuzzer_sys::fuzz_target;
use virtiofsd::XattrMap;
use virtiofsd::xattr_map::{NAME_LEN_MAX, NameBuffer, Verdict};

fuzz_target!(|input: &[u8]| {
    let end = input.iter().position(|byte| *byte == 0);
    let (rules, names) = input.split_at(end.unwrap_or(input.len()));
    let map = match XattrMap::parse(rules) {
        Ok(map) => map,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let names = names.get(1..).unwrap_or_default();
    for name in names.split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        let mut room = NameBuffer::default();
        if let Verdict::Pass(host) = map.to_host(name, &mut room) {
            assert!(host.to_bytes().len() <= NAME_LEN_MAX.max(name.to_bytes().len()));
        }
        map.renames(name);
        map.to_guest(name.to_bytes());
    }
    let len = map.list_len(names);
    let mut out = vec![0; len];
    let written = map.rewrite_list(names, &mut out);
    assert_eq!(written, Some(len), "a list fits into its own length");
    let sum: usize = map.guest_names(names).map(|name| name.len() + 1).sum();
    assert_eq!(sum, len);
    if let Some(short) = len.checked_sub(1) {
        assert_eq!(map.rewrite_list(names, &mut out[..short]), None);
    }
});
