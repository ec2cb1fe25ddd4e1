//! One workload, and the limits that bound it.

use std::sync::Arc;
use std::time::Duration;

use super::child::{ServerProcess, TemporaryFolder};
use super::fleet::Fleet;
use super::limits::{self, Sync};
use super::mailboxes::{self, IdleMemory};
use super::meter::Figures;
use super::options::{Args, Extent, Load, Workload};
use super::report::{Ceiling, Machine, Measurement, Single, ratio};
use super::sends;

/// How long each limit is measured that has no load of its own.
const LIMIT_DURATION: Duration = Duration::from_secs(2);

pub(super) async fn measure(
    server: Option<&str>,
    workload: Workload,
    args: &Args,
) -> anyhow::Result<Single> {
    let load = args.load.load(workload)?;
    let folder = TemporaryFolder::make(args.folder.as_deref())?;
    let result = {
        let own = match server {
            Some(_) => None,
            None => Some(ServerProcess::serve(&folder.join("data")).await?),
        };
        let uri = match (server, &own) {
            (Some(address), _) => with_scheme(address),
            (None, own) => own.as_ref().map(|own| own.uri().to_owned()).unwrap_or_default(),
        };
        let (figures, memory) = run(workload, &load, &uri, own.as_ref(), true).await?;
        Measurement { memory, ..Measurement::new(workload.name(), figures) }
    };
    let mut ceilings = Vec::new();
    if args.limits {
        ceilings.push(same_at_noop(workload, &load, &result).await?);
        ceilings.extend(of_storage(workload, &load, &result, &folder).await?);
    }
    let machine = Machine::this(folder.file_system());
    Ok(Single { machine, workload, load, result, ceilings })
}

/// The rate by the limit's. At a given rate, which says nothing of its own, the median latency by the
/// limit's.
fn compared(load: &Load, result: &Figures, limit: &Figures) -> Option<f64> {
    if load.rate.is_none() {
        return ratio(result.per_second, limit.per_second);
    }
    let (result, limit) = result.latency.zip(limit.latency)?;
    ratio(result.p50_ms, limit.p50_ms)
}

/// `HOST:PORT` is short for `http://HOST:PORT`.
fn with_scheme(address: &str) -> String {
    if address.contains("://") { address.to_owned() } else { format!("http://{address}") }
}

/// Runs a workload at a server; one that has no mailboxes is not asked to store any.
async fn run(
    workload: Workload,
    load: &Load,
    uri: &str,
    own: Option<&ServerProcess>,
    stores: bool,
) -> anyhow::Result<(Figures, Option<IdleMemory>)> {
    let label = workload.name();
    let figures = match (workload, load.extent) {
        (Workload::CatchUp, Extent::Count(messages)) => {
            let filling = mailboxes::filling(load, messages);
            let fleet = Fleet::raise(uri, &filling).await?;
            if stores {
                mailboxes::fill(&fleet, &filling).await?;
            }
            mailboxes::replay(&fleet, messages, load.replays).await?
        }
        (Workload::Idle, Extent::Count(subscribers)) => {
            let fleet = Fleet::raise(uri, load).await?;
            return mailboxes::idle(&fleet, load, subscribers, own).await;
        }
        (Workload::Live, _) if stores => {
            sends::live(label, &Fleet::raise(uri, load).await?, load).await?
        }
        _ => {
            let fleet: Arc<Fleet> = Fleet::raise(uri, load).await?;
            sends::send(label, &fleet, load).await?
        }
    };
    Ok((figures, None))
}

/// The same load at a server that does nothing; for `live`, its sends.
async fn same_at_noop(
    workload: Workload,
    load: &Load,
    result: &Measurement,
) -> anyhow::Result<Ceiling> {
    let messages = match load.extent {
        Extent::Count(messages) if workload == Workload::CatchUp => messages,
        _ => 0,
    };
    let noop = ServerProcess::noop(messages, load.body_bytes).await?;
    let (figures, memory) = run(workload, load, noop.uri(), Some(&noop), false).await?;
    let ratio = match (result.memory, memory) {
        (Some(result), Some(noop)) => ratio(result.bytes_each, noop.bytes_each),
        _ => compared(load, &result.figures, &figures),
    };
    let name = match workload {
        Workload::Live if load.pipelined => "no-op stream".to_owned(),
        Workload::Live => "no-op send".to_owned(),
        other => format!("no-op {}", other.name()),
    };
    Ok(Ceiling { measurement: Measurement { memory, ..Measurement::new(name, figures) }, ratio })
}

/// What bounds the workloads that write.
async fn of_storage(
    workload: Workload,
    load: &Load,
    result: &Measurement,
    folder: &TemporaryFolder,
) -> anyhow::Result<Vec<Ceiling>> {
    if !matches!(workload, Workload::Send | Workload::Stream | Workload::Live) {
        return Ok(Vec::new());
    }
    let mut ceilings = Vec::new();
    let rows = limits::rows(&folder.join("rows"), load, LIMIT_DURATION).await?;
    let rate = compared(load, &result.figures, &rows);
    ceilings
        .push(Ceiling { measurement: Measurement::new("rows without gRPC", rows), ratio: rate });
    for (name, how) in [("fdatasync of 4 KiB", Sync::Fdatasync), ("fsync of 4 KiB", Sync::Fsync)] {
        let syncs = limits::syncs(&folder.join("sync"), how, LIMIT_DURATION).await?;
        let rate = compared(load, &result.figures, &syncs);
        ceilings.push(Ceiling { measurement: Measurement::new(name, syncs), ratio: rate });
    }
    Ok(ceilings)
}
