//! T10: what a merge of the indexes costs those who send meanwhile.
//!
//! From outside a merge shows by what has been committed: one begins with every so many messages and
//! is done a share of that later, or sooner when commits are small. The counts are those of this file's
//! server, which nobody else writes to.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::Serialize;

use super::child::{ServerProcess, TemporaryFolder};
use super::fleet::Fleet;
use super::meter::{Figures, Latencies, Latency, Observer, float};
use super::options::{Extent, Load};
use super::sends;
use crate::store;

/// The store merges its indexes whenever it has appended so many messages.
const MERGE_MESSAGES: u64 = store::MERGE_MESSAGES_DEFAULT as u64;

/// A merge is done when this part of them has been appended again: a commit merges twice as many as
/// it appends.
const MERGE_PART: u64 = 2;

/// In this part of them a merge is sure to run, in commits of eight messages or more. A commit merges
/// no fewer than 32, so that after small ones a merge is done sooner.
const SURE_PART: u64 = 4;

/// What comes between the sure part and the end of this one counts neither way: the merge is done in
/// there, and then commits delete the rows that it leaves behind, four at a time.
const UNSURE_PART: u64 = 4;

/// How much of the messages is sent at half of the rate: so much before a merge begins, and as much
/// after it is done.
const AROUND_PART: u64 = 8;

/// This part of them counts neither way when that begins, since the disk may still be busy with what
/// was sent faster before.
const SETTLING_PART: u64 = 32;

/// For the most that can be sent, of which half is then offered.
const SENDS_AT_MOST_RATE: u64 = 30_000;

const IN_FLIGHT: usize = 256;

/// No further merge is waited for after this.
const BUDGET: Duration = Duration::from_secs(16);

const MERGES_MAX: u32 = 4;

/// The time over which latencies of one point in a plot are taken together.
const SLICE: Duration = Duration::from_millis(250);

/// The latencies of sends while a merge ran and while none did.
pub(super) struct Outcome {
    pub(super) rate: f64,
    pub(super) merges: u32,
    pub(super) merging: Figures,
    pub(super) quiet: Figures,
    pub(super) slices: Vec<Slice>,
}

/// What a short time came to.
#[derive(Debug, Serialize)]
pub(super) struct Slice {
    /// Since the run began.
    pub(super) seconds: f64,
    /// What the server had committed in the end.
    pub(super) committed: u64,
    /// Whether a merge may run, in commits of any size.
    pub(super) is_merging: bool,
    pub(super) sends: u64,
    #[serde(flatten)]
    pub(super) latency: Latency,
}

/// Sends around some merges at half of the maximum rate.
pub(super) async fn measure(folder: &TemporaryFolder) -> anyhow::Result<Outcome> {
    let server = ServerProcess::serve(&folder.join("merge")).await?;
    let load = Load { extent: Extent::Count(SENDS_AT_MOST_RATE), ..counted(IN_FLIGHT) };
    let unary = Fleet::raise(server.uri(), &load).await?;
    let streamed = Load { pipelined: true, connections: 1, ..counted(1024) };
    let stream = Fleet::raise(server.uri(), &streamed).await?;

    let most = whole(sends::send("the maximum rate", &unary, &load).await?)?;
    let (rate, mut committed) = (most.per_second / 2.0, most.count);
    let phases = Arc::new(Mutex::new(Phases::new(committed)));
    let begin = Instant::now();
    let mut merges = 0;
    while merges < MERGES_MAX && (merges == 0 || begin.elapsed() < BUDGET) {
        // As fast as it goes to where the next merge is near.
        let around = MERGE_MESSAGES / AROUND_PART;
        let next = (committed / MERGE_MESSAGES + 1) * MERGE_MESSAGES - around;
        let skip = Load { extent: Extent::Count(next - committed), ..streamed.clone() };
        committed += whole(sends::send("up to the next merge", &stream, &skip).await?)?.count;
        let through = MERGE_MESSAGES / MERGE_PART + 2 * around;
        let paced = Load { extent: Extent::Count(through), rate: Some(rate), ..load.clone() };
        let label = format!("sends around merge {}", merges + 1);
        let observer = Phases::observer(&phases, committed);
        let sent = sends::send_observed(&label, &unary, &paced, Some(observer)).await?;
        committed += whole(sent)?.count;
        merges += 1;
    }
    let mut phases = phases.lock().unwrap_or_else(PoisonError::into_inner);
    phases.end_slice();
    let slices = std::mem::take(&mut phases.slices);
    // All were sent at this rate.
    let figures = |latencies: &Latencies| {
        latencies.figures(Duration::from_secs_f64(float(latencies.count()) / rate))
    };
    let (merging, quiet) = (figures(&phases.merging), figures(&phases.quiet));
    Ok(Outcome { rate, merges, merging, quiet, slices })
}

/// Every message counts, so that it is known how many the server has.
fn counted(in_flight: usize) -> Load {
    Load { in_flight, warm_up: Duration::ZERO, ..Load::default() }
}

fn whole(figures: Figures) -> anyhow::Result<Figures> {
    ensure!(
        figures.failures == 0,
        "{} sends failed, the first with {}: it is not known when a merge runs",
        figures.failures,
        figures.first_failure.as_deref().unwrap_or("nothing said")
    );
    Ok(figures)
}

/// Whether a merge runs when so many messages are committed; `None`: hard to say.
fn is_merging(committed: u64) -> Option<bool> {
    let since = committed % MERGE_MESSAGES;
    if committed < MERGE_MESSAGES {
        Some(false)
    } else if since < MERGE_MESSAGES / SURE_PART {
        Some(true)
    } else if since < MERGE_MESSAGES / MERGE_PART + MERGE_MESSAGES / UNSURE_PART {
        None
    } else {
        Some(false)
    }
}

/// Whether a merge may run when so many messages are committed.
fn may_merge(committed: u64) -> bool {
    committed >= MERGE_MESSAGES && committed % MERGE_MESSAGES < MERGE_MESSAGES / MERGE_PART
}

/// Tells the latencies apart by what was committed when they ended.
struct Phases {
    begin: Instant,
    committed: u64,
    /// How much is committed when latencies begin to count.
    settled: u64,
    merging: Latencies,
    quiet: Latencies,
    slice: Latencies,
    slice_began: Instant,
    slices: Vec<Slice>,
}

impl Phases {
    fn new(committed: u64) -> Self {
        let begin = Instant::now();
        Self {
            begin,
            committed,
            settled: committed,
            merging: Latencies::default(),
            quiet: Latencies::default(),
            slice: Latencies::default(),
            slice_began: begin,
            slices: Vec::new(),
        }
    }

    /// Observes a run that begins when so many are committed.
    fn observer(phases: &Arc<Mutex<Self>>, committed: u64) -> Observer {
        let phases = Arc::clone(phases);
        {
            let mut phases = phases.lock().unwrap_or_else(PoisonError::into_inner);
            phases.end_slice();
            phases.committed = committed;
            phases.settled = committed + MERGE_MESSAGES / SETTLING_PART;
        }
        Box::new(move |latency| {
            phases.lock().unwrap_or_else(PoisonError::into_inner).done(latency);
        })
    }

    fn done(&mut self, latency: Duration) {
        self.committed += 1;
        match is_merging(self.committed) {
            _ if self.committed <= self.settled => {}
            Some(true) => self.merging.record(latency),
            Some(false) => self.quiet.record(latency),
            None => {}
        }
        self.slice.record(latency);
        if self.slice_began.elapsed() >= SLICE {
            self.end_slice();
        }
    }

    fn end_slice(&mut self) {
        let slice = std::mem::take(&mut self.slice);
        if let Some(latency) = slice.latency() {
            self.slices.push(Slice {
                seconds: self.begin.elapsed().as_secs_f64(),
                committed: self.committed,
                is_merging: may_merge(self.committed),
                sends: slice.count(),
                latency,
            });
        }
        self.slice_began = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_runs_from_each_multiple_on_for_a_quarter_and_perhaps_for_half() {
        let quarter = MERGE_MESSAGES / 4;
        assert_eq!(is_merging(100), Some(false), "nothing to merge yet");
        assert_eq!(is_merging(MERGE_MESSAGES - 1), Some(false));
        assert_eq!(is_merging(MERGE_MESSAGES), Some(true));
        assert_eq!(is_merging(3 * MERGE_MESSAGES + quarter - 1), Some(true));
        assert_eq!(is_merging(3 * MERGE_MESSAGES + quarter), None);
        assert_eq!(is_merging(3 * MERGE_MESSAGES + 3 * quarter), Some(false));
        assert_eq!(is_merging(4 * MERGE_MESSAGES - 1), Some(false));
        assert!(!may_merge(MERGE_MESSAGES - 1) && may_merge(MERGE_MESSAGES));
        assert!(may_merge(MERGE_MESSAGES + 2 * quarter - 1));
        assert!(!may_merge(MERGE_MESSAGES + 2 * quarter));
    }

    #[test]
    fn latencies_are_told_apart_by_what_was_committed() {
        let phases = Arc::new(Mutex::new(Phases::new(0)));
        let settling = MERGE_MESSAGES / SETTLING_PART;
        let mut observe = Phases::observer(&phases, MERGE_MESSAGES - settling - 10);
        (0..settling).for_each(|_| observe(Duration::from_millis(50)));
        (0..9).for_each(|_| observe(Duration::from_millis(1)));
        (0..5).for_each(|_| observe(Duration::from_millis(20)));
        let mut phases = phases.lock().expect("not poisoned");
        phases.end_slice();
        assert_eq!((phases.quiet.count(), phases.merging.count()), (9, 5));
        assert_eq!(phases.slices.len(), 1);
        assert!(phases.slices[0].is_merging, "{:?}", phases.slices);
    }
}
