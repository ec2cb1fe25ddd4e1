//! Rows of the indexes, as a damaged disk may give them back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peerpost::store::packed_checks::{check_placements, check_run};

fuzz_target!(|input: (i64, &[u8])| {
    let (first_sequence, bytes) = input;
    check_run(first_sequence, bytes);
    check_placements(bytes);
});
