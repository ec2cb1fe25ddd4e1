//! `check`: everything that is stored, held against what must be so. It changes nothing.
//!
//! SQLite's own check; every user and token; every row of the log with its checksum, its participants and
//! its place in both mailboxes, which must be dense from where they begin; that rows which are absent were
//! removed; the indexes against the log; what a start reads back.
//! The log is read once, in its order, and each index once, in its own: a mailbox's entries are compared
//! by the sum of their hashes, so that memory is needed for each user and not for each message.

mod directory;
mod finding;
mod index;
mod log;
mod retention;

use std::collections::HashMap;
use std::path::Path;

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::result::Error as DieselError;
use diesel::sql_types::Text;

pub use self::finding::Finding;
use self::retention::Removed;
use super::connection;
use super::error::OpenError;
use super::folder;
use super::mailbox_sizes::Size;

/// The findings that a report lists; the rest is counted.
pub const FINDINGS_MAX: usize = 1_000;

/// The lines that SQLite's own check prints at most.
const SQLITE_LINES_MAX: usize = 100;

/// What a check came to.
#[derive(Debug, Default)]
pub struct CheckReport {
    /// The users.
    pub users: u64,
    /// The rows of the log that are whole.
    pub messages: u64,
    /// The entries of all mailboxes that those rows stand for.
    pub entries: u64,
    /// What is wrong, at most [`FINDINGS_MAX`] of them, in the order in which it was found.
    pub findings: Vec<Finding>,
    /// How many there are in all.
    pub findings_total: u64,
}

impl CheckReport {
    fn add(&mut self, finding: Finding) {
        self.findings_total += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}

/// Checks the database of a data folder, as it is at this moment. A server may be running on it; its
/// write-ahead log cannot be emptied meanwhile.
///
/// # Errors
/// [`OpenError`] when it cannot be read at all.
pub fn check(data_dir: &Path) -> Result<CheckReport, OpenError> {
    check_file(&folder::existing_database(data_dir)?)
}

/// Checks a database file by itself, such as a backup.
///
/// # Errors
/// [`OpenError`] when it cannot be read at all.
pub fn check_file(database: &Path) -> Result<CheckReport, OpenError> {
    let mut connection = connection::open_untouched(database)?;
    connection::refuse_newer(&mut connection)?;
    if let Some(migration) = connection::pending_migrations(&mut connection)?.first() {
        return Err(OpenError::Older { migration: migration.clone() });
    }
    let failed = |source| OpenError::Database { path: database.to_owned(), source };
    // One snapshot for all of it. It ends with the connection: a COMMIT after a damaged page fails.
    connection.batch_execute("BEGIN").map_err(failed)?;
    examine(&mut connection).map_err(failed)
}

/// What is known of a user while everything is read.
#[derive(Debug, Default)]
struct Mailbox {
    acknowledged_through: i64,
    /// The first sequence that it has; 0 while that is not known.
    first: i64,
    /// The last sequence that it gave out.
    last: i64,
    /// The bytes of some of its entries, as noted, and as the log has it.
    sized: Option<(Size, i64)>,
    /// What the log says of the entries that are in the tables, from the first on.
    in_log: Sum,
    /// What the tables say.
    in_tables: Sum,
}

/// Stands for a set of entries, in whatever order they come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Sum {
    count: u64,
    hashes: u64,
}

impl Sum {
    fn add(&mut self, hash: u64) {
        self.count += 1;
        self.hashes = self.hashes.wrapping_add(hash);
    }
}

type Mailboxes = HashMap<i64, Mailbox>;

fn examine(connection: &mut SqliteConnection) -> QueryResult<CheckReport> {
    let mut report = CheckReport::default();
    let mut mailboxes = Mailboxes::new();
    sqlite_itself(connection, &mut report)?;
    // What SQLite cannot read, this cannot: each part is examined as far as it goes.
    part(&mut report, "the users and tokens", |report| {
        directory::examine(connection, &mut mailboxes, report)
    })?;
    let mut removed = Removed::default();
    part(&mut report, "what was removed", |report| {
        retention::examine(connection, &mut mailboxes, &mut removed, report)
    })?;
    let state = index::state(connection, &mut report)?;
    let (mut requests, mut expirations) = (Sum::default(), Sum::default());
    part(&mut report, "the log", |report| {
        let known = (&mut mailboxes, &removed);
        let sums = (&mut requests, &mut expirations);
        log::examine(connection, state.as_ref(), known, sums, report)
    })?;
    part(&mut report, "what is to expire", |report| {
        retention::expirations(connection, &removed, expirations, report)
    })?;
    if let Some(state) = &state {
        part(&mut report, "the indexes", |report| {
            let known = (&mut mailboxes, &removed);
            index::examine(connection, state, known, requests, report)
        })?;
    }
    Ok(report)
}

/// Examines one part; where it cannot be read any further, that is a finding.
fn part(
    report: &mut CheckReport,
    name: &'static str,
    examine: impl FnOnce(&mut CheckReport) -> QueryResult<()>,
) -> QueryResult<()> {
    match examine(report) {
        Err(error) if super::error::is_damage(&error) => {
            report.add(Finding::Unreadable { part: name, reason: error.to_string() });
            Ok(())
        }
        outcome => outcome,
    }
}

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    integrity_check: String,
}

fn sqlite_itself(connection: &mut SqliteConnection, report: &mut CheckReport) -> QueryResult<()> {
    let query = diesel::sql_query(format!("PRAGMA integrity_check({SQLITE_LINES_MAX})"));
    let lines = match query.load::<Line>(connection) {
        Err(error) if super::error::is_damage(&error) => {
            vec![Line { integrity_check: error.to_string() }]
        }
        lines => lines?,
    };
    for Line { integrity_check: text } in lines {
        if text != "ok" {
            report.add(Finding::Sqlite(text));
        }
    }
    Ok(())
}

/// A row, or what stands for one that cannot be read; any other error ends the reading.
fn unless_unreadable<T>(row: QueryResult<T>) -> QueryResult<Option<T>> {
    match row {
        Ok(row) => Ok(Some(row)),
        // SQLite goes on with the next row only where the value is what is wrong with this one.
        Err(DieselError::DeserializationError(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
