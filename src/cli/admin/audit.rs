use jiff::Timestamp;
use serde::Serialize;

use super::{Place, output, render};
use crate::cli::escape::printable;
use crate::cli::since;
use crate::proto::admin::{AuditEntry, ListAuditEntriesRequest};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peerpost admin audit
  peerpost admin audit --since yesterday --json

Operators' acts are kept for ever, users' own the newest million.")]
pub(super) struct Args {
    /// Only what was done since then: such as 2h, 3d, yesterday, 2026-11-20.
    #[arg(long, value_name = "TIME", value_parser = since::parse)]
    since: Option<Timestamp>,
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct EntryJson<'a> {
    time: String,
    actor: &'a str,
    act: &'a str,
    subject: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    details: &'a str,
}

pub(super) async fn run(place: &Place, args: &Args) -> anyhow::Result<()> {
    let admin = place.connect().await?;
    let since_time = args.since.map(|time| prost_types::Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond().max(0),
    });
    let mut request = ListAuditEntriesRequest { since_time, ..Default::default() };
    loop {
        let asked = request.clone();
        let page =
            admin.call(|mut grpc| async move { grpc.list_audit_entries(asked).await }).await?;
        for entry in &page.entries {
            output::line(&shown(entry, args.json)?)?;
        }
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return Ok(());
        }
    }
}

fn shown(entry: &AuditEntry, json: bool) -> anyhow::Result<String> {
    let time = render::proto_time(entry.time.as_ref())?;
    let AuditEntry { actor, act, subject, details, .. } = entry;
    if json {
        return render::to_json(&EntryJson { time, actor, act, subject, details });
    }
    let (actor, subject) = (printable(actor), printable(subject));
    let line = format!("{time}  {actor}  {act}  {subject}  {}", printable(details));
    Ok(line.trim_end().to_owned())
}
