//! A few seeds of `peerpost torture`: the real binary is killed under load again and again, the network
//! fails, and the history of everything that clients asked and were told keeps every promise.

use std::fmt::Write as _;

use peerpost::testing::torture::{self, Options};
use tokio_util::sync::CancellationToken;

use crate::support::binary;

const SEEDS: u64 = 3;

#[test]
fn no_promise_is_broken_under_kills_and_network_faults() {
    let options = Options { seeds: SEEDS, messages: 2_000, ..Options::new(binary(), 1) };
    let mut told = String::new();
    let summary = torture::run(&options, &CancellationToken::new(), |report, _| {
        if !report.is_passed() {
            let _ = writeln!(told, "seed {}: {:?}", report.seed, report.failure);
            for verdict in &report.verdicts {
                let _ = writeln!(told, "{verdict}");
            }
            let _ = writeln!(told, "its folder: {:?}", report.folder);
        }
    });
    assert!(summary.failed.is_empty(), "{told}again: peerpost torture --seed N --messages 2000");
    assert_eq!(summary.seeds, SEEDS);
    // Each ends with a kill, whatever came before.
    assert!(summary.faults.kills >= SEEDS, "{summary:?}");
    let counts = summary.counts;
    assert!(counts.acknowledged > 1_000 && counts.unknown > 0 && counts.resumes > 0, "{summary:?}");
}
