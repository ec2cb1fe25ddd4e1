//! `peerpost torture`: workloads decided by seeds, with faults, and a verdict on every promise.

use std::num::NonZero;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::output;
use super::signals::StopSignals;
use crate::testing::torture::{self, MESSAGES_DEFAULT, Options, SeedReport, Summary};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peerpost torture                               one seed, chosen at random
  peerpost torture --seed 7                      seed 7 again
  peerpost torture --seed 1 --seeds 1000 --parallel 2
  sudo peerpost torture --seeds 30 --power-cuts  not the process ends, but the power of its disk

Each seed starts a server of its own on a temporary folder, and kills it again and again under load. A
seed that fails prints its verdicts and the command that repeats it, and leaves its folder. The exit
code is 1 when any did.")]
pub(super) struct Args {
    /// The first seed; the others follow it [default: one chosen at random].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// How many seeds [default: 1; with --minutes, as many as there is time for].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,

    /// No seed begins after so many minutes.
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    minutes: Option<u64>,

    /// Messages that are acknowledged in each seed, about.
    #[arg(
        long,
        value_name = "N",
        default_value_t = u32::try_from(MESSAGES_DEFAULT).unwrap_or(u32::MAX),
        value_parser = clap::value_parser!(u32).range(1..=10_000_000)
    )]
    messages: u32,

    /// Seeds at the same time.
    #[arg(long, value_name = "N", default_value = "1", value_parser = super::serve::workers)]
    parallel: NonZero<usize>,

    /// Cut the power of the server's disk where it would be killed. Needs root, loop devices and
    /// `mkfs.ext4`.
    #[arg(long)]
    power_cuts: bool,

    /// Where the temporary folders are made [default: the system's folder for temporary files].
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

pub(super) async fn run(args: &Args) -> anyhow::Result<()> {
    let mut signals = StopSignals::listen().context("cannot listen for signals")?;
    let options = options(args)?;
    let stop = CancellationToken::new();
    let begun = Instant::now();
    let cuts = if options.power_cuts { " --power-cuts" } else { "" };
    let again = format!("--messages {}{cuts}", options.messages);
    let mut running = JoinSet::new();
    let stopping = stop.clone();
    running.spawn_blocking(move || {
        torture::run(&options, &stopping, |report, summary| tell(report, summary, &again))
    });
    let summary = tokio::select! {
        summary = running.join_next() => summary,
        () = signals.next() => {
            stop.cancel();
            running.join_next().await
        }
    };
    let summary = summary.context("it is one task")??;
    text_of(&summary, begun.elapsed()).lines().try_for_each(output::line)?;
    if !summary.failed.is_empty() {
        bail!("{} of {} seeds failed: {:?}", summary.failed.len(), summary.seeds, summary.failed);
    }
    if stop.is_cancelled() {
        bail!("stopped before the last seed");
    }
    Ok(())
}

fn options(args: &Args) -> anyhow::Result<Options> {
    let binary = std::env::current_exe().context("cannot find the program that runs")?;
    let seed = match args.seed {
        Some(seed) => seed,
        // Short enough to be typed again.
        None => u64::from(getrandom::u32()?),
    };
    let mut options = Options::new(binary, seed);
    options.seeds = args.seeds.unwrap_or(if args.minutes.is_some() { u64::MAX } else { 1 });
    options.time = args.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    options.messages = usize::try_from(args.messages)?;
    options.parallel = args.parallel.get();
    options.power_cuts = args.power_cuts;
    options.folder.clone_from(&args.folder);
    Ok(options)
}

/// Says how far the run is; of a seed that failed, everything.
fn tell(report: &SeedReport, summary: &Summary, again: &str) {
    let SeedReport { seed, faults, counts, verdicts, failure, folder } = report;
    let outcome = if report.is_passed() { "kept" } else { "FAILED" };
    output::note(&format!(
        "seed {seed}: {outcome}; {} kills, {} acknowledged, {} unknown, {} retries, {} resumes \
         (in all {} seeds, {} acknowledged)",
        faults.kills + faults.power_cuts,
        counts.acknowledged,
        counts.unknown,
        counts.retries,
        counts.resumes,
        summary.seeds,
        summary.counts.acknowledged,
    ));
    if report.is_passed() {
        return;
    }
    if let Some(failure) = failure {
        output::note(failure);
    }
    for verdict in verdicts {
        output::note(&format!("{verdict}"));
    }
    if let Some(folder) = folder {
        output::note(&format!("its folder: {}", folder.display()));
    }
    output::note(&format!("again: peerpost torture --seed {seed} {again}"));
}

fn text_of(summary: &Summary, elapsed: Duration) -> String {
    let Summary { seeds, failed, faults, counts, checks } = summary;
    let verdict = if failed.is_empty() { "every promise kept" } else { "FAILED" };
    format!(
        "seeds                  {seeds} in {:.0} s\n\
         kills                  {} (SIGKILL), {} stops (SIGTERM), {} pauses (SIGSTOP)\n\
         cuts of power          {}\n\
         network faults         {} cuts and stalls, {} answers lost\n\
         acknowledged messages  {} checked\n\
         unknown outcomes       {}\n\
         retries                {}\n\
         stream resumes         {}\n\
         calls                  {}\n\
         checks                 {checks}\n\
         verdict                {verdict}",
        elapsed.as_secs_f64(),
        faults.kills,
        faults.stops,
        faults.pauses,
        faults.power_cuts,
        faults.network,
        faults.answers_lost,
        counts.acknowledged,
        counts.unknown,
        counts.retries,
        counts.resumes,
        counts.calls,
    )
}
