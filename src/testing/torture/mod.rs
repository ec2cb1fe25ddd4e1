//! Workloads that try to break every promise, each decided by a seed.
//!
//! From a seed comes a plan: how many users there are, who sends on streams or call by call,
//! who follows, and when which fault happens. The server is the real binary on a folder of its own;
//! it is killed, frozen and stopped under load, and between it and its clients the network breaks,
//! stalls and loses answers. Everything that is asked and told is recorded, and in the end, after one
//! more kill, every mailbox is read whole and the history is checked.
//!
//! A seed decides what is done and after how many answers; the moments themselves are the machine's,
//! so that a seed that failed is likely to fail again, and not certain to.

mod author;
mod caller;
mod crowd;
mod follower;
mod plan;
mod seed;
mod site;
mod streamer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

pub use seed::SeedReport;
pub use site::Faults;

use super::history::Counts;

/// Acknowledged messages of a seed, about.
pub const MESSAGES_DEFAULT: usize = 12_000;

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server's binary.
    pub binary: PathBuf,
    /// The first seed; the others follow it.
    pub first_seed: u64,
    /// How many seeds.
    pub seeds: u64,
    /// No seed begins after this time.
    pub time: Option<Duration>,
    /// Messages that are acknowledged in each, about. Default [`MESSAGES_DEFAULT`].
    pub messages: usize,
    /// Seeds at the same time, each with a server and a thread of its own.
    pub parallel: usize,
    /// Whether the power of the server's disk is cut where it would be killed: see
    /// [`PowerDisk`](super::PowerDisk) for what that needs.
    pub power_cuts: bool,
    /// Where the temporary folders are made. `None`: where the system has such.
    pub folder: Option<PathBuf>,
}

impl Options {
    /// One seed with the defaults.
    pub fn new(binary: impl Into<PathBuf>, seed: u64) -> Self {
        Self {
            binary: binary.into(),
            first_seed: seed,
            seeds: 1,
            time: None,
            messages: MESSAGES_DEFAULT,
            parallel: 1,
            power_cuts: false,
            folder: None,
        }
    }
}

/// What all seeds of a run came to.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Seeds that came to an end, of one kind or the other.
    pub seeds: u64,
    /// Those of them that failed.
    pub failed: Vec<u64>,
    /// What went wrong on purpose.
    pub faults: Faults,
    /// What the histories hold.
    pub counts: Counts,
    /// How often something was held against a promise.
    pub checks: u64,
}

impl Summary {
    fn add(&mut self, report: &SeedReport) {
        self.seeds += 1;
        if !report.is_passed() {
            self.failed.push(report.seed);
        }
        self.faults.add(&report.faults);
        self.counts.add(&report.counts);
        self.checks += report.verdicts.iter().map(super::history::Verdict::checked).sum::<u64>();
    }
}

/// Runs the seeds and tells of each as it ends, on this thread. Seeds under way when `stop` is
/// cancelled are given up, and count nowhere.
pub fn run(
    options: &Options,
    stop: &CancellationToken,
    mut on_seed: impl FnMut(&SeedReport, &Summary),
) -> Summary {
    let begun = Instant::now();
    let next = AtomicU64::new(0);
    let mut summary = Summary::default();
    std::thread::scope(|scope| {
        // One report waits while another is told.
        let (reports, ended) = sync_channel(1);
        for number in 0..options.parallel.max(1) {
            let (reports, next) = (reports.clone(), &next);
            let work = move || run_seeds(options, stop, begun, next, &reports);
            let name = format!("torture-{number}");
            let thread = std::thread::Builder::new().name(name).spawn_scoped(scope, work);
            thread.expect("a thread can be started");
        }
        drop(reports);
        for report in ended {
            summary.add(&report);
            on_seed(&report, &summary);
        }
    });
    summary
}

/// Takes seed after seed, on a thread of its own.
fn run_seeds(
    options: &Options,
    stop: &CancellationToken,
    begun: Instant,
    next: &AtomicU64,
    reports: &SyncSender<SeedReport>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be started");
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let is_late = options.time.is_some_and(|time| begun.elapsed() >= time);
        if number >= options.seeds || is_late {
            return;
        }
        let seed = options.first_seed.wrapping_add(number);
        let report = LocalSet::new().block_on(&runtime, seed::run(seed, options, stop));
        // Nobody listens any more only when the other side panicked.
        let is_told = report.is_some_and(|report| reports.send(report).is_ok());
        if !is_told {
            return;
        }
    }
}
