//! A few seeds of `peerpost torture`: the real binary is killed, or the power of its disk is cut, under
//! load again and again, the network fails, and the history of everything that clients asked and were
//! told keeps every promise.

use std::fmt::Write as _;
use std::io::Write as _;

use peerpost::testing::PowerDisk;
use peerpost::testing::torture::{self, Options, Summary};
use tokio_util::sync::CancellationToken;

use crate::support::binary;

const SEEDS: u64 = 3;

/// Enough for an empty file system.
const TRIAL_DISK_BYTES: u64 = 16 * 1024 * 1024;

#[test]
fn no_promise_is_broken_under_kills_and_network_faults() {
    let summary = attack(false);
    // Each ends with a kill, whatever came before.
    assert!(summary.faults.kills >= SEEDS, "{summary:?}");
}

#[test]
fn no_promise_is_broken_by_cuts_of_power() {
    let home = tempfile::tempdir().expect("a temporary folder");
    if let Err(reason) = PowerDisk::create(home.path(), TRIAL_DISK_BYTES) {
        // Past the capture of what a test prints: that it is skipped is always shown.
        let skipped = "SKIPPED torture::no_promise_is_broken_by_cuts_of_power";
        let _ = writeln!(std::io::stderr(), "\n\n{skipped}: {reason}\n");
        return;
    }
    let summary = attack(true);
    assert!(summary.faults.power_cuts >= SEEDS, "{summary:?}");
}

/// Runs the seeds, and holds them against every promise.
fn attack(power_cuts: bool) -> Summary {
    let options =
        Options { seeds: SEEDS, messages: 2_000, power_cuts, ..Options::new(binary(), 1) };
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
    let counts = summary.counts;
    assert!(counts.acknowledged > 1_000 && counts.unknown > 0 && counts.resumes > 0, "{summary:?}");
    summary
}
