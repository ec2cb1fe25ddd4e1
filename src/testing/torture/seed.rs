//! One seed, from an empty folder to the verdicts.

use std::any::Any;
use std::error::Error as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::crowd::{Crowd, Ends, Phase};
use super::follower::Follower;
use super::plan::{End, Plan};
use super::site::{Faults, Site};
use super::{Options, caller, follower, streamer};
use crate::proto::GetMessagesRequest;
use crate::testing::history::{Counts, Verdict};
use crate::testing::{PowerDisk, RecordedUser, Recorder, before};

/// How often a last reading is tried again.
const READS_AGAIN_MAX: usize = 10;

/// What one seed came to.
#[derive(Debug)]
pub struct SeedReport {
    /// The seed.
    pub seed: u64,
    /// What went wrong on purpose.
    pub faults: Faults,
    /// What the history holds.
    pub counts: Counts,
    /// One for each promise; of a seed that did not come to its end, on what was recorded until then.
    pub verdicts: Vec<Verdict>,
    /// Why it did not come to its end.
    pub failure: Option<String>,
    /// Where the data folder of a seed that failed was left.
    pub folder: Option<PathBuf>,
}

impl SeedReport {
    /// Whether it came to its end and every promise was kept.
    pub fn is_passed(&self) -> bool {
        self.failure.is_none() && self.verdicts.iter().all(Verdict::is_kept)
    }
}

/// Runs one seed, in a `LocalSet`. `None`: it was given up when `stop` was cancelled.
pub(super) async fn run(
    seed: u64,
    options: &Options,
    stop: &CancellationToken,
) -> Option<SeedReport> {
    let mut report = SeedReport {
        seed,
        faults: Faults::default(),
        counts: Counts::default(),
        verdicts: Vec::new(),
        failure: None,
        folder: None,
    };
    let folder = match &options.folder {
        Some(parent) => tempfile::Builder::new().prefix("peerpost-torture-").tempdir_in(parent),
        None => tempfile::Builder::new().prefix("peerpost-torture-").tempdir(),
    };
    let folder = match folder {
        Ok(folder) => folder,
        Err(error) => {
            report.failure = Some(format!("cannot make a temporary folder: {error}"));
            return Some(report);
        }
    };
    let recorder = Recorder::default();
    // In a task, so that a panic in it is told like any other failure.
    let mut task = JoinSet::new();
    task.spawn_local(attack(seed, options.clone(), folder.path().to_owned(), recorder.clone()));
    let ended = tokio::select! {
        ended = task.join_next() => ended,
        () = stop.cancelled() => {
            // The server is gone before its folder is removed.
            task.shutdown().await;
            return None;
        }
    };
    match ended {
        Some(Ok(Ok(faults))) => report.faults = faults,
        Some(Ok(Err(failure))) => report.failure = Some(failure),
        Some(Err(error)) if error.is_panic() => {
            report.failure = Some(said_in_panic(&*error.into_panic()));
        }
        _ => report.failure = Some("stopped".to_owned()),
    }
    let history = recorder.take();
    report.counts = history.counts();
    report.verdicts = history.check();
    if !report.is_passed() {
        report.folder = Some(folder.keep());
    }
    Some(report)
}

/// The load and its faults, then the last sends and reads, then a kill and the last reading.
async fn attack(
    seed: u64,
    options: Options,
    home: PathBuf,
    recorder: Recorder,
) -> Result<Faults, String> {
    let Options { binary, messages, power_cuts, .. } = options;
    let mut plan = Plan::of(seed, messages, power_cuts);
    let disk = power_cuts.then(|| PowerDisk::create(&home, disk_bytes(messages))).transpose();
    let disk =
        disk.map_err(|reason| format!("there is no disk whose power can be cut: {reason}"))?;
    let mut site = Site::open(binary, &home, disk, plan.merge_messages).await;
    let users = register(plan.users, site.calm.addr(), recorder.clone()).await?;
    let crowd = Arc::new(Crowd::new(users, site.calm.addr(), site.rough.addr()));
    let (mut senders, mut followers) = gather(&mut plan, &crowd);

    for round in &plan.rounds {
        site.go_through(round, &recorder).await?;
    }
    site.calm_down();
    crowd.phase.send_replace(Phase::LastSends);
    finish(&mut senders).await?;
    let everyone = crowd.everyone();
    for user in &everyone {
        let (name, ends) = ends_of(user).await?;
        crowd.ended(name, ends);
    }
    crowd.phase.send_replace(Phase::LastReads);
    let followers = finish(&mut followers).await?;

    site.restart(if power_cuts { End::PowerCut } else { End::Kill }).await;
    for user in everyone {
        over_the_network(async || user.read_to_the_end().await)
            .await
            .map_err(|status| in_the_end(&user, &status))?;
    }
    for (number, mut follower) in followers.into_iter().enumerate() {
        if number == 0 {
            follower.start_over();
        }
        let (_, ends) = ends_of(&follower.user).await?;
        follower.follow_to(ends).await;
    }
    Ok(site.faults)
}

/// Room for a seed's messages, the indexes of them, and the logs of SQLite and of the file system.
fn disk_bytes(messages: usize) -> u64 {
    64 * 1024 * 1024 + 4096 * messages as u64
}

async fn register(
    count: usize,
    addr: SocketAddr,
    recorder: Recorder,
) -> Result<Vec<RecordedUser>, String> {
    let mut users = Vec::with_capacity(count);
    for number in 0..count {
        let name = format!("user-{number}");
        let user = RecordedUser::register(&recorder, addr, &name).await;
        users.push(user.map_err(|status| format!("cannot register: {status}"))?);
    }
    Ok(users)
}

/// Everyone who takes part, each with random numbers of their own.
fn gather(plan: &mut Plan, crowd: &Arc<Crowd>) -> (JoinSet<()>, JoinSet<Follower>) {
    let (mut senders, mut followers) = (JoinSet::new(), JoinSet::new());
    for number in 0..plan.streamers {
        senders.spawn(streamer::run(Arc::clone(crowd), number, plan.random.fork()));
    }
    for number in 0..plan.callers {
        senders.spawn(caller::run(Arc::clone(crowd), number, plan.random.fork()));
    }
    for number in 0..plan.followers {
        followers.spawn(follower::run(Arc::clone(crowd), number, plan.random.fork()));
    }
    (senders, followers)
}

async fn finish<T: 'static>(tasks: &mut JoinSet<T>) -> Result<Vec<T>, String> {
    let mut done = Vec::with_capacity(tasks.len());
    while let Some(ended) = tasks.join_next().await {
        done.push(ended.map_err(|error| match error.try_into_panic() {
            Ok(panic) => said_in_panic(&*panic),
            Err(error) => error.to_string(),
        })?);
    }
    Ok(done)
}

/// Where a mailbox ends, with nobody sending any more.
async fn ends_of(user: &RecordedUser) -> Result<(String, Ends), String> {
    let newest = GetMessagesRequest { page_size: 1, received_only: true, ..before(0) };
    let page = over_the_network(async || user.get(newest.clone()).await)
        .await
        .map_err(|status| in_the_end(user, &status))?;
    let received = page.messages.last().map_or(0, |message| message.sequence);
    Ok((user.name().to_owned(), Ends { last: page.last_sequence, received }))
}

/// Reads again when the network failed: a connection that broke with the server before fails one call
/// at least.
async fn over_the_network<T>(read: impl AsyncFn() -> Result<T, Status>) -> Result<T, Status> {
    let mut outcome = read().await;
    for _ in 0..READS_AGAIN_MAX {
        // What the server itself refuses comes without a cause of the client's.
        let Err(status) = &outcome else { break };
        if status.source().is_none() {
            break;
        }
        outcome = read().await;
    }
    outcome
}

fn in_the_end(user: &RecordedUser, status: &Status) -> String {
    format!("the mailbox of {} cannot be read in the end: {status}", user.name())
}

fn said_in_panic(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panicked: {}", text.unwrap_or_default())
}
