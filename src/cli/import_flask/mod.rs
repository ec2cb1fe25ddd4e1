//! `peerpost import-flask`: the app's users and messages, into a data folder that no server has open.
//!
//! Each row is taken over once, however often and however far the command runs: a user is remembered
//! under the name that they had, and a message has a `request_id` made of its row. What cannot be taken
//! over is told row by row.

mod messages;
mod names;
mod report;
mod users;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};

use self::report::Report;
use self::users::Users;
use super::advice::advise;
use super::connection::ConnectionArgs;
use super::identity::Identities;
use crate::domain::Message;
use crate::store::flask::{Source, SourceError};
use crate::store::{self, CommitListener, OpenError, Store, StoreGuard};

/// A write waits for its turn however slow the disk is: nobody waits for its answer.
const ADMISSION_WAIT: std::time::Duration = std::time::Duration::from_hours(24);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peerpost import-flask p2p_messaging.db
  peerpost import-flask p2p_messaging.db --data-dir /var/lib/peerpost --tokens ./tokens

Stop the server of that data folder first. Messages keep their order and their times. Each new user
gets a token in a file; those in the default folder are what `peerpost --as NAME inbox` uses, those in
another are for handing out. Run again, after it was interrupted or when the app has new messages, it
adds what is not there yet, and nothing else.

Names that cannot be names here, and names that somebody else has here, get another one. What was
not taken over is listed, row by row, and the exit code is 1 then. The app's database is only read.")]
pub(super) struct Args {
    /// The app's database.
    source: PathBuf,

    /// The data folder: created when it is not there.
    #[arg(long, env = "PEERPOST_DATA_DIR", value_name = "FOLDER", default_value = "peerpost-data")]
    data_dir: PathBuf,

    /// Where the new users' tokens go, a file for each [default: where this machine keeps those for
    /// the server that --server names].
    #[arg(long, value_name = "FOLDER")]
    tokens: Option<PathBuf>,

    /// Take users who are registered already for the app's users of the same name, without a token
    /// that shows it: whoever registered here as alice gets what the app had for alice.
    #[arg(long)]
    into_existing: bool,
}

/// Nobody follows while no server runs.
struct Unannounced;

impl CommitListener for Unannounced {
    fn committed(&self, _messages: &[Arc<Message>]) {}

    fn reset(&self) {}
}

pub(super) async fn run(connection: &ConnectionArgs, args: &Args) -> anyhow::Result<()> {
    // First what is there already: a wrong name must not leave a new data folder behind.
    let mut source = open_source(&args.source)?;
    let identities = match &args.tokens {
        Some(folder) => Identities::at(folder)?,
        None => Identities::of_server(connection.anonymous()?.server())?,
    };
    let (store, guard) = open(args).await?;
    let mut report = Report::default();
    let outcome = import(&mut source, &store, &identities, args.into_existing, &mut report).await;
    drop(store);
    guard.close().await;
    let again = || advise_again(report.has_begun());
    outcome.map_err(|error| advise(error, again()))?;
    report.print_totals(identities.folder())?;
    match report.not_imported() {
        0 => Ok(()),
        1 => bail!("1 row was not imported; it is listed above"),
        rows => bail!("{rows} rows were not imported; they are listed above"),
    }
}

fn open_source(path: &Path) -> anyhow::Result<Source> {
    Source::open(path).map_err(|error| {
        let mut journal = path.as_os_str().to_owned();
        journal.push("-journal");
        let is_unfinished = Path::new(&journal).exists();
        match error {
            // What SQLite would have to undo first, in a file that is only read.
            error @ SourceError::Database { .. } if is_unfinished => advise(
                error,
                format!(
                    "the app was cut off while it wrote, and left {}: start it once, which mends that",
                    Path::new(&journal).display()
                ),
            ),
            error => error.into(),
        }
    })
}

fn advise_again(has_begun: bool) -> &'static str {
    if has_begun {
        "what was imported stays; the same command goes on with the rest"
    } else {
        "nothing was imported"
    }
}

async fn open(args: &Args) -> anyhow::Result<(Store, StoreGuard)> {
    let mut options = store::Options::new(&args.data_dir);
    options.admission_wait = ADMISSION_WAIT;
    let opening = move || store::open(&options, Box::new(Unannounced));
    let opened = tokio::task::spawn_blocking(opening).await.context("the opening thread failed")?;
    opened.map_err(|error| {
        if let OpenError::InUse { holder, .. } = &error {
            let advice = format!(
                "stop that server (Ctrl-C, or `kill -TERM {holder}`), import, and start it again; \
                 --data-dir names another folder"
            );
            return advise(error, advice);
        }
        error.into()
    })
}

async fn import(
    source: &mut Source,
    store: &Store,
    identities: &Identities,
    into_existing: bool,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut users = Users::new(store, identities, into_existing);
    users::import(source, &mut users, report).await?;
    messages::import(source, store, &mut users, report).await
}
