//! `peerpost bench`: measures a server, beside what the machine can do at most.
//!
//! The load comes from one thread, since it shares the machine with the server that it measures.
//! Servers that it starts are processes of their own, so that the two share nothing else.

mod child;
mod contender;
mod filling;
mod fleet;
mod growth;
mod limits;
mod mailboxes;
mod merge;
mod meter;
pub(super) mod noop;
mod options;
mod progress;
pub(super) mod report;
mod retention;
mod schedule;
mod sends;
mod single;
mod suite;
mod sweep;

use anyhow::{Context as _, bail};
use serde::Serialize;

pub(super) use self::options::Args;
use super::output;
use super::signals::StopSignals;

/// Measures what was asked for, at `server` or at one of its own.
pub(super) fn run(server: Option<&str>, args: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(async {
        // What is dropped on the way out ends its processes and removes its folders.
        let mut stop = StopSignals::listen().context("cannot listen for signals")?;
        tokio::select! {
            measured = measure(server, args) => measured,
            () = stop.next() => bail!("stopped before the end; nothing is reported"),
        }
    });
    super::stop(runtime);
    outcome
}

async fn measure(server: Option<&str>, args: &Args) -> anyhow::Result<()> {
    match (args.workload, server) {
        (Some(workload), server) => {
            let single = single::measure(server, workload, args).await?;
            print(&single, single.text(), args.json)
        }
        (None, None) if let Some(sweep) = args.sweep => {
            let swept = sweep::measure(sweep, args).await?;
            print(&swept, swept.text(), args.json)
        }
        (None, None) => {
            let suite = suite::measure(args).await?;
            print(&suite, suite.text(), args.json)
        }
        (None, Some(_)) => bail!(
            "everything can only be measured at a server that the bench starts itself, whose \
             memory and starts it can see; with --server, name a workload"
        ),
    }
}

fn print(report: &impl Serialize, text: String, json: bool) -> anyhow::Result<()> {
    let text = if json { serde_json::to_string_pretty(report)? } else { text };
    text.lines().try_for_each(output::line)
}
