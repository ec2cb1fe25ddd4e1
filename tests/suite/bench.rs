//! `peerpost bench`: every workload runs against a server that it starts itself, and what it reports
//! is what was done.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::binary;

/// Runs the bench with its temporary files in `folder`.
fn bench(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.arg("bench").args(arguments).arg("--folder").arg(folder);
    command.output().expect("the binary can be started")
}

/// The report of a run that succeeds, and leaves nothing behind.
#[track_caller]
fn report(arguments: &[&str]) -> Value {
    let folder = TempDir::new().expect("a temporary folder can be made");
    let output = bench(folder.path(), &[arguments, &["--json"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    let mut left = std::fs::read_dir(folder.path()).expect("the folder can be read");
    assert!(left.next().is_none(), "the bench's folder is still there");
    serde_json::from_slice(&output.stdout).expect("stdout is JSON and nothing else")
}

#[track_caller]
fn assert_counted(result: &Value, count: u64) {
    assert_eq!(result["count"], count, "{result}");
    assert_eq!(result["failures"], 0, "{result}");
    let (seconds, rate) = (number(&result["seconds"]), number(&result["per_second"]));
    assert!(seconds > 0.0 && rate > 0.0, "{result}");
    let latency = &result["latency"];
    let all = ["p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms"].map(|key| number(&latency[key]));
    assert!(all[0] > 0.0 && all.is_sorted(), "{result}");
}

#[track_caller]
fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

const SMALL: [&str; 8] = ["--count", "300", "--users", "5", "--warm-up", "0", "--connections", "2"];

#[test]
fn sends_are_counted() {
    assert_counted(&report(&[&["send", "--in-flight", "8"], &SMALL[..]].concat())["result"], 300);
}

#[test]
fn pipelined_sends_are_counted() {
    assert_counted(&report(&[&["stream", "--in-flight", "8"], &SMALL[..]].concat())["result"], 300);
}

#[test]
fn what_is_sent_arrives_at_the_subscribers() {
    for more in [&["live", "--in-flight", "8"][..], &["live", "--in-flight", "8", "--pipelined"]] {
        assert_counted(&report(&[more, &SMALL[..]].concat())["result"], 300);
    }
}

#[test]
fn a_stored_mailbox_is_read_whole() {
    let report = report(&["catch-up", "--count", "500"]);
    let replays = report["load"]["replays"].as_u64().expect("a number of replays");
    assert_counted(&report["result"], 500 * replays);
}

#[test]
fn idle_subscribers_are_opened() {
    for more in [&[][..], &["--own-connections"]] {
        let report = report(&[&["idle", "--count", "20", "--users", "3"], more].concat());
        assert_counted(&report["result"], 20);
        if cfg!(target_os = "linux") {
            let memory = &report["result"]["memory"];
            assert!(number(&memory["after_bytes"]) > 0.0, "{report}");
        }
    }
}

#[test]
fn a_rate_is_kept_by_an_open_loop() {
    let report = report(&[&["send", "--rate", "1000"], &SMALL[..]].concat());
    assert_counted(&report["result"], 300);
    assert!(number(&report["result"]["seconds"]) > 0.25, "{report}");
}

#[test]
fn limits_stand_beside_the_result() {
    let report = report(&[&["send", "--limits"], &SMALL[..]].concat());
    let ceilings = report["ceilings"].as_array().expect("a list");
    let names: Vec<&str> = ceilings.iter().filter_map(|c| c["name"].as_str()).collect();
    let expected = ["no-op send", "rows without gRPC", "fdatasync of 4 KiB", "fsync of 4 KiB"];
    assert_eq!(names, expected);
    let rate = number(&report["result"]["per_second"]);
    for ceiling in ceilings {
        let ratio = rate / number(&ceiling["per_second"]);
        assert!((number(&ceiling["ratio"]) - ratio).abs() < 1e-9, "{ceiling}");
    }
}

/// Rounds too short to mean anything, on stores that have hardly grown.
const BRIEF: [&str; 8] = [
    "--duration",
    "0.1",
    "--warm-up",
    "0.05",
    "--growth-messages",
    "1000",
    "--growth-users",
    "150,200",
];

#[test]
fn growth_stands_beside_a_server_that_is_nearly_empty() {
    let report = report(&[&["--limits", "--only", "t8"], &BRIEF[..]].concat());
    let targets = report["targets"].as_array().expect("a list");
    let of = |what: &str| targets.iter().filter(|t| t["what"].as_str() == Some(what)).count();
    for load in ["send, 256 in flight", "stream, 1 stream", "stream, 4 streams", "catch-up"] {
        for grown in ["1,000 messages", "150 users", "200 users"] {
            assert_eq!(of(&format!("{load}: {grown}")), 1, "{report}");
        }
    }
    assert_eq!(of("catch-up, spread over the log: 1,000 messages"), 1, "{report}");
    // On a busy machine a round this brief can count nothing.
    assert!(targets.iter().all(|t| t["id"] == "T8" && number(&t["value"]) >= 0.0), "{report}");
}

#[test]
fn a_sweep_has_a_point_for_each_step() {
    let swept = report(&[&["--sweep", "rate"], &BRIEF[..]].concat());
    let points = swept["points"].as_array().expect("a list");
    let rates: Vec<f64> = points.iter().map(|point| number(&point["x"])).collect();
    assert!(rates.len() == 10 && rates.is_sorted(), "{rates:?}");
    let swept = report(&[&["--sweep", "users"], &BRIEF[..]].concat());
    let names: Vec<_> = swept["points"].as_array().into_iter().flatten().collect();
    let names: Vec<_> = names.iter().filter_map(|point| point["name"].as_str()).collect();
    let lines = ["stored without gRPC", "send, 256 in flight", "stream, 1 stream", "catch-up"];
    assert_eq!(names, lines, "{swept}");
}

#[test]
fn a_table_is_for_people() {
    let folder = TempDir::new().expect("a temporary folder can be made");
    let output = bench(folder.path(), &[&["send"], &SMALL[..]].concat());
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.contains("p99.9 ms") && text.lines().any(|line| line.starts_with("send ")));
}

#[test]
fn a_server_that_is_not_there_is_reported() {
    let folder = TempDir::new().expect("a temporary folder can be made");
    let output = bench(folder.path(), &["send", "--server", "127.0.0.1:1"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("cannot connect"), "{stderr}");
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let folder = TempDir::new().expect("a temporary folder can be made");
    for arguments in [
        &["send", "--pipelined"][..],
        &["live", "--body-bytes", "4"],
        &["send", "--own-connections"],
        &["send", "--only", "T1"],
        &["send", "--sweep", "rate"],
        &["--limits", "--only", "T12"],
    ] {
        let output = bench(folder.path(), arguments);
        assert!(!output.status.success(), "{arguments:?}");
    }
    assert_eq!(bench(folder.path(), &[]).status.code(), Some(2), "no workload and no --limits");
}
