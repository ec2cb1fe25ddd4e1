use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::cli::output;
use crate::store::{self, Options, RebuildProgress};

/// Between two lines that say how far it is.
const TELL_EVERY: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The log of messages is the truth, and what finds them in it, for mailboxes and request ids, can be made
again. Everything but that is copied to a new file, which then takes the place of the one that was there;
that is kept in the folder `backups` of the data folder, until you remove it. Needs room for a second file.
Cut off at any moment, it has changed nothing: run it again. Damaged messages stay as they are; a log
that lacks a message cannot be indexed: restore a backup then.")]
pub(super) struct Args {
    /// Bring the data of an earlier version up to date without the backup of it that is made first.
    #[arg(long)]
    upgrade_without_backup: bool,
}

pub(super) fn run(data_dir: &Path, args: &Args) -> anyhow::Result<()> {
    let mut options = Options::new(data_dir);
    options.upgrade_without_backup = args.upgrade_without_backup;
    let mut told = Instant::now();
    let summary = store::rebuild_index(&options, |progress| {
        let (what, through, last) = match progress {
            RebuildProgress::Copied { through, last } => ("copied", through, last),
            RebuildProgress::Indexed { through, last } => ("indexed", through, last),
        };
        if through == last || told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            output::note(&format!("{what} {through} of {last} messages"));
        }
    });
    let summary = summary.context("the indexes are as they were")?;
    output::line(&format!(
        "{}: the indexes of {} messages are made again; the file from before is {}",
        data_dir.display(),
        summary.messages,
        summary.kept.display()
    ))
}
