//! T8: the same loads at a server that has stored much, or knows many, and at one that has not.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::child::{ServerProcess, TemporaryFolder};
use super::contender::{Pace, add};
use super::filling::{Filling, Population};
use super::fleet::Fleet;
use super::meter::Figures;
use super::options::{Extent, GrowthArgs, Load, TargetId};
use super::report::{Bound, Findings, Measurement, Target, count, per_second};
use super::suite::CATCH_UP_MESSAGES;
use super::{mailboxes, progress, sends};

const ROUNDS: u32 = 2;
const ROUND_MAX: Duration = Duration::from_millis(1500);
const REPLAYS: u32 = 3;

/// What is left of the rate when all has grown, at least.
const BOUND: Bound = Bound::AtLeast(0.85);

/// The part of the messages that is stored when it is the users who are many.
const STORED_WITH_MANY_USERS: u64 = 5;

/// Those who send what is stored first.
const SENDERS: usize = 16;

/// A server that was filled before it started.
pub(super) struct Grown {
    pub(super) what: String,
    pub(super) data_dir: PathBuf,
    pub(super) server: ServerProcess,
    pub(super) population: Population,
    /// What the filling came to.
    pub(super) filled: Figures,
}

/// Fills a new store, without gRPC, and starts a server on it.
pub(super) async fn grow(
    data_dir: PathBuf,
    what: String,
    users: usize,
    messages: u64,
) -> anyhow::Result<Grown> {
    let label = format!("storing: {what}");
    let filled = progress::waited(&label, async {
        let mut filling =
            Filling::open(&data_dir, (SENDERS, users), Load::default().body_bytes).await?;
        let filled = filling.append(Extent::Count(messages)).await;
        let population = filling.close().await;
        anyhow::Ok((population, filled?))
    });
    let (population, filled) = filled.await?;
    let server = ServerProcess::serve(&data_dir).await?;
    Ok(Grown { what, data_dir, server, population, filled })
}

/// The store that has grown by its messages: those of as many users as there are when it is empty.
pub(super) async fn by_messages(folder: &TemporaryFolder, messages: u64) -> anyhow::Result<Grown> {
    let what = format!("{} messages", count(messages));
    grow(folder.join("messages"), what, Load::default().users, messages).await
}

/// One that has grown by its users, with a part of the messages.
pub(super) async fn by_users(
    data_dir: PathBuf,
    users: u32,
    messages: u64,
) -> anyhow::Result<Grown> {
    let what = format!("{} users", count(users.into()));
    grow(data_dir, what, usize::try_from(users)?, messages / STORED_WITH_MANY_USERS).await
}

/// Measures T8.
pub(super) async fn measure(
    folder: &TemporaryFolder,
    pace: Pace,
    messages: &Grown,
    args: &GrowthArgs,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let mut many_users = Vec::new();
    for users in &args.users {
        let data_dir = folder.join(&format!("users-{users}"));
        many_users.push(by_users(data_dir, *users, args.messages).await?);
    }
    let all: Vec<&Grown> = std::iter::once(messages).chain(&many_users).collect();
    for grown in &all {
        let name = format!("storing before it starts: {}", grown.what);
        findings.measurements.push(Measurement::new(name, grown.filled.clone()));
    }
    let pace = pace.at_most(ROUND_MAX);
    let loads = [
        ("send, 256 in flight", pace.calls(4, 256)),
        ("stream, 1 stream", pace.streams(1)),
        ("stream, 4 streams", pace.streams(4)),
    ];
    for (name, load) in loads {
        rates(folder, &all, name, &load, findings).await?;
    }
    catch_up(folder, &all, CATCH_UP_MESSAGES.min(args.messages), findings).await?;
    for grown in many_users {
        let Grown { server, data_dir, .. } = grown;
        server.kill();
        std::fs::remove_dir_all(data_dir)?;
    }
    Ok(())
}

/// Sends at every server, in turns with one that is empty. That one is new in every round, since it
/// would not stay empty.
async fn rates(
    folder: &TemporaryFolder,
    all: &[&Grown],
    name: &str,
    load: &Load,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let (mut at_empty, mut at_grown) = (None, vec![None; all.len()]);
    for _ in 0..ROUNDS {
        let empty = serve_empty(&folder.join("empty")).await?;
        let fleet = Fleet::raise(empty.uri(), load).await?;
        add(&mut at_empty, sends::send(name, &fleet, load).await?);
        drop((fleet, empty));
        for (grown, sum) in all.iter().zip(&mut at_grown) {
            let fleet = Fleet::raise_for(grown.server.uri(), load, &grown.population).await?;
            add(sum, sends::send(&format!("{name}: {}", grown.what), &fleet, load).await?);
        }
    }
    report(all, name, at_empty, at_grown, findings);
    Ok(())
}

/// The same mailbox read at every server; and where messages are many, one that they filled: its
/// entries are spread over the whole log.
async fn catch_up(
    folder: &TemporaryFolder,
    all: &[&Grown],
    messages: u64,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let filling = mailboxes::filling(&Load::default(), messages);
    let empty = serve_empty(&folder.join("empty")).await?;
    let mut fleets = Vec::new();
    for server in std::iter::once(&empty).chain(all.iter().map(|grown| &grown.server)) {
        let fleet = Fleet::raise(server.uri(), &filling).await?;
        mailboxes::fill(&fleet, &filling).await?;
        fleets.push((fleet, messages));
    }
    if let Some(grown) = all.first() {
        let fleet: Arc<Fleet> =
            Fleet::raise_for(grown.server.uri(), &filling, &grown.population).await?;
        let stored = mailboxes::count(&fleet).await?;
        fleets.push((fleet, stored));
    }
    let mut sums = vec![None; fleets.len()];
    for _ in 0..REPLAYS {
        for ((fleet, messages), sum) in fleets.iter().zip(&mut sums) {
            add(sum, mailboxes::replay(fleet, *messages, 1).await?);
        }
    }
    let spread = sums.pop().flatten();
    let mut sums = sums.into_iter();
    let at_empty = sums.next().flatten();
    if let (Some(grown), Some(spread)) = (all.first(), spread) {
        let name = format!("catch-up, spread over the log: {}", grown.what);
        findings.targets.push(Target::ratio(
            TargetId::T8,
            name.clone(),
            (Some(spread.per_second), at_empty.as_ref().map(|figures| figures.per_second)),
            per_second,
            BOUND,
        ));
        findings.measurements.push(Measurement::new(name, spread));
    }
    report(all, "catch-up", at_empty, sums.collect(), findings);
    Ok(())
}

fn report(
    all: &[&Grown],
    name: &str,
    at_empty: Option<Figures>,
    at_grown: Vec<Option<Figures>>,
    findings: &mut Findings,
) {
    let rate = |figures: &Option<Figures>| figures.as_ref().map(|figures| figures.per_second);
    for (grown, figures) in all.iter().zip(at_grown) {
        let name = format!("{name}: {}", grown.what);
        let rates = (rate(&figures), rate(&at_empty));
        findings.targets.push(Target::ratio(TargetId::T8, name.clone(), rates, per_second, BOUND));
        findings.measurements.extend(figures.map(|figures| Measurement::new(name, figures)));
    }
    let name = format!("{name}: nearly empty");
    findings.measurements.extend(at_empty.map(|figures| Measurement::new(name, figures)));
}

/// A server on a new folder in this place.
async fn serve_empty(data_dir: &Path) -> anyhow::Result<ServerProcess> {
    if data_dir.exists() {
        std::fs::remove_dir_all(data_dir)?;
    }
    ServerProcess::serve(data_dir).await
}
