use serde::Serialize;

use super::{Place, output, render};
use crate::proto::admin::{GetServerStatsRequest, GetServerStatsResponse};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peerpost admin stats --data-dir /var/lib/peerpost
  peerpost admin stats --json")]
pub(super) struct Args {
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct StatsJson<'a> {
    version: &'a str,
    start_time: String,
    epoch: &'a str,
    users: i64,
    tokens: i64,
    messages: i64,
    database_bytes: i64,
    wal_bytes: i64,
    subscriptions: i64,
    connections: i64,
    removed: i64,
}

pub(super) async fn run(place: &Place, args: &Args) -> anyhow::Result<()> {
    let admin = place.connect().await?;
    let request = GetServerStatsRequest {};
    let stats = admin.call(|mut grpc| async move { grpc.get_server_stats(request).await }).await?;
    let GetServerStatsResponse { version, start_time, epoch, .. } = &stats;
    let start_time = render::proto_time(start_time.as_ref())?;
    if args.json {
        return output::line(&render::to_json(&StatsJson {
            version,
            start_time,
            epoch,
            users: stats.users,
            tokens: stats.tokens,
            messages: stats.messages,
            database_bytes: stats.database_bytes,
            wal_bytes: stats.wal_bytes,
            subscriptions: stats.subscriptions,
            connections: stats.connections,
            removed: stats.removed,
        })?);
    }
    for (name, value) in [
        ("version", version),
        ("up since", &start_time),
        ("epoch", epoch),
        ("users", &stats.users.to_string()),
        ("tokens", &stats.tokens.to_string()),
        ("messages", &stats.messages.to_string()),
        ("removed", &stats.removed.to_string()),
        ("database", &format!("{} bytes", stats.database_bytes)),
        ("write-ahead log", &format!("{} bytes", stats.wal_bytes)),
        ("subscriptions", &stats.subscriptions.to_string()),
        ("connections", &stats.connections.to_string()),
    ] {
        output::line(&format!("{name:<16}{value}"))?;
    }
    Ok(())
}
