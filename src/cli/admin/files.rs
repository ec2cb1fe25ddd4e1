//! What works on the data folder's files, whether a server runs or not.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::cli::output;
use crate::store::{self, CheckReport};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Write a copy of everything that is stored to a new file, while the server runs or not.
    #[command(after_help = "\
The copy is of one moment, and holds everything that was acknowledged before it. It has its name only
when it is whole and on disk. Users' tokens are in it, as hashes.")]
    Backup {
        /// The new file.
        file: PathBuf,
    },
    /// Make a data folder from a backup. Its cursors count in a new epoch, so that every follower is told.
    #[command(after_help = "\
What was sent after the backup is gone, and the sequences that it had are given out again: a follower
that went on from its old cursor would miss what comes under them. So the database gets a new epoch, and
a cursor of the old one is refused with EPOCH_MISMATCH.")]
    Restore {
        /// The backup.
        file: PathBuf,
        /// Restore a backup with findings too. What is damaged in it is not served.
        #[arg(long)]
        even_if_damaged: bool,
    },
    /// Check everything that is stored: SQLite's structure, every checksum, every mailbox, every index.
    #[command(after_help = "\
Changes nothing, and may run beside the server. Exit code 1, and a line for each finding, when something is
wrong.")]
    Check {
        /// Check this file, such as a backup, instead of the data folder.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

pub(super) fn run(data_dir: &Path, command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Backup { file } => {
            let summary = store::back_up(data_dir, file).context("no backup was made")?;
            output::line(&format!(
                "{}: {} messages, {} bytes, epoch {}",
                file.display(),
                summary.messages,
                summary.bytes,
                summary.epoch.as_str()
            ))
        }
        Command::Restore { file, even_if_damaged } => {
            let summary =
                store::restore(file, data_dir, *even_if_damaged).context("nothing was restored")?;
            output::line(&format!(
                "{}: {} messages, in the new epoch {}",
                data_dir.display(),
                summary.messages,
                summary.epoch.as_str()
            ))
        }
        Command::Check { file } => {
            let report = match file {
                Some(file) => store::check_file(file),
                None => store::check(data_dir),
            };
            tell(&report.context("it cannot be checked")?)
        }
    }
}

fn tell(report: &CheckReport) -> anyhow::Result<()> {
    for finding in &report.findings {
        output::line(&finding.to_string())?;
    }
    let CheckReport { users, messages, entries, findings_total, .. } = report;
    let counted = format!("{users} users, {messages} messages, {entries} entries of mailboxes");
    if *findings_total > 0 {
        bail!("{findings_total} findings ({counted} are whole)");
    }
    output::line(&format!("{counted}: nothing is wrong"))
}
