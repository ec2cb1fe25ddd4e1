//! T11: what removing old messages costs those who send meanwhile.
//!
//! A store is filled, and grows at half of its maximum rate, first as it is, then while a server removes
//! everything that is older than a second, until what it was filled with is gone, and then as it is again.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::time::sleep;

use super::child::{ServerProcess, TemporaryFolder};
use super::fleet::Fleet;
use super::growth::{self, Grown};
use super::meter::Figures;
use super::options::{Extent, Load};
use super::sends;
use crate::client::AdminClient;
use crate::proto::admin::{GetServerStatsRequest, GetServerStatsResponse};
use crate::server::ADMIN_SOCKET_FILE;

/// The users who receive what is stored.
const USERS: usize = 10_000;

/// For the most that can be sent, of which half is then offered.
const SENDS_AT_MOST_RATE: u64 = 30_000;

const IN_FLIGHT: usize = 256;

/// How long it is sent without retention, before and after.
const QUIET: Duration = Duration::from_secs(10);

/// How long it is sent between two looks at what is gone.
const ROUND: Duration = Duration::from_secs(2);

/// A database that has not got smaller for so long will not.
const SETTLE: Duration = Duration::from_secs(5);

/// It is given up after this.
const BUDGET: Duration = Duration::from_mins(30);

/// What the servers that remove are told.
const RETENTION: [&str; 4] = ["--retention-age", "1s", "--retention-interval", "10ms"];

/// The latencies of sends while messages were removed and while none were.
pub(super) struct Outcome {
    pub(super) rate: f64,
    pub(super) removing: Figures,
    pub(super) quiet: Figures,
    /// Messages removed, and the time that took.
    pub(super) removed: u64,
    pub(super) took: Duration,
    /// The database's size when it was filled, and when what it was filled with was gone.
    pub(super) database_bytes: (i64, i64),
}

/// Sends to a store of so many messages.
pub(super) async fn measure(folder: &TemporaryFolder, messages: u64) -> anyhow::Result<Outcome> {
    let data_dir = folder.join("retained");
    let what = format!("{messages} messages to be removed");
    let grown = growth::grow(data_dir.clone(), what, USERS, messages).await?;
    let Grown { server, population, .. } = grown;
    let load = Load { extent: Extent::Count(SENDS_AT_MOST_RATE), ..load() };
    let fleet = Fleet::raise_for(server.uri(), &load, &population).await?;
    let most = whole(sends::send("the maximum rate", &fleet, &load).await?)?;
    let rate = most.per_second / 2.0;
    let before = stats(&data_dir).await?;
    let quiet = paced(&fleet, "sends before", rate, QUIET).await?;
    server.kill();

    let server = ServerProcess::serve_with(&data_dir, &RETENTION).await?;
    let fleet = Fleet::raise_for(server.uri(), &load, &population).await?;
    let (begin, mut removing) = (Instant::now(), None::<Figures>);
    let (removed, took, after) = loop {
        let round = paced(&fleet, "sends while messages are removed", rate, ROUND).await?;
        removing = Some(match removing {
            Some(before) => before.and(&round),
            None => round,
        });
        let after = stats(&data_dir).await?;
        let removed = after.removed.unsigned_abs();
        if removed >= messages {
            break (removed, begin.elapsed(), after);
        }
        ensure!(begin.elapsed() < BUDGET, "only {removed} messages were removed in {BUDGET:?}");
    };
    let after = shrunk(&data_dir, after).await?;
    server.kill();

    let server = ServerProcess::serve(&data_dir).await?;
    let fleet = Fleet::raise_for(server.uri(), &load, &population).await?;
    let quiet = quiet.and(&paced(&fleet, "sends after", rate, QUIET).await?);
    let removing = removing.context("there is a round at least")?;
    let database_bytes = (before.database_bytes, after.database_bytes);
    Ok(Outcome { rate, removing, quiet, removed, took, database_bytes })
}

fn load() -> Load {
    Load { in_flight: IN_FLIGHT, warm_up: Duration::ZERO, ..Load::default() }
}

async fn paced(
    fleet: &Arc<Fleet>,
    label: &str,
    rate: f64,
    duration: Duration,
) -> anyhow::Result<Figures> {
    let load = Load { extent: Extent::Duration(duration), rate: Some(rate), ..load() };
    whole(sends::send(label, fleet, &load).await?)
}

fn whole(figures: Figures) -> anyhow::Result<Figures> {
    let failure = figures.first_failure.as_deref().unwrap_or("nothing said");
    ensure!(figures.failures == 0, "{} sends failed, the first with {failure}", figures.failures);
    Ok(figures)
}

/// What there is when the database gets no smaller any more.
async fn shrunk(
    data_dir: &Path,
    mut stats_before: GetServerStatsResponse,
) -> anyhow::Result<GetServerStatsResponse> {
    loop {
        sleep(SETTLE).await;
        let now = stats(data_dir).await?;
        if now.database_bytes >= stats_before.database_bytes {
            return Ok(now);
        }
        stats_before = now;
    }
}

async fn stats(data_dir: &Path) -> anyhow::Result<GetServerStatsResponse> {
    let admin = AdminClient::connect(&data_dir.join(ADMIN_SOCKET_FILE)).await?;
    let request = GetServerStatsRequest {};
    Ok(admin.call(|mut grpc| async move { grpc.get_server_stats(request).await }).await?)
}
