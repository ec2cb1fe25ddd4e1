//! The indexes made again from the log, on a data folder that no server has open.
//!
//! Into a new file: everything but the indexes is copied, and then they are made as a start makes them
//! that finds none. Pages of a damaged index are neither read nor freed by that, and the file that was
//! there stays as it is until the new one takes its place, and is kept after that.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::result::Error as DieselError;
use diesel::sql_types::{BigInt, Text};

use super::backup::{BackupError, Unfinished};
use super::error::not_loaded;
use super::folder::{self, DataFolder};
use super::index::{self, IndexWriter, SALT_BYTES};
use super::{Options, connection, consistency, log, mailboxes, upgrade};

/// What is derived from the log.
const DERIVED: [&str; 5] =
    ["index_state", "mailbox_runs", "pending_entries", "request_keys", "request_runs"];

/// The log itself, which is copied in steps.
const LOG: &str = "message_log";

/// Rows of the log that one transaction copies.
const ROWS_PER_STEP: i64 = 65_536;

/// What the file that was there is kept as.
const CHANGE: &str = "rebuild-index";

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RebuildProgress {
    /// The log is copied up to this position.
    Copied {
        /// The position.
        through: i64,
        /// The log's last.
        last: i64,
    },
    /// The indexes are made up to this position of the log.
    Indexed {
        /// The position.
        through: i64,
        /// The log's last.
        last: i64,
    },
}

/// What was done.
#[derive(Debug)]
pub struct RebuildSummary {
    /// The messages whose entries were made.
    pub messages: u64,
    /// The file that was there before, as it was.
    pub kept: PathBuf,
}

/// Makes the indexes of the data folder's database again from its log. `progress` is told about every
/// step. Cut off at any moment it leaves the database that was there, or the new one.
///
/// # Errors
/// [`BackupError`], with which the database is as it was: among others when a server runs on the folder,
/// when the log itself is damaged, and when the disk has no room for a second file.
pub fn rebuild_index(
    options: &Options,
    mut progress: impl FnMut(RebuildProgress),
) -> Result<RebuildSummary, BackupError> {
    // Without one, no folder is made for it.
    folder::existing_database(&options.data_dir)?;
    let folder = DataFolder::open(&options.data_dir)?;
    let database = folder.database_path();
    let file_failed = |source| BackupError::File { path: database.clone(), source };
    upgrade::remove_unfinished(&options.data_dir, folder::DATABASE_FILE).map_err(file_failed)?;
    folder.sync_log()?;
    let salt = settle(&database, options.upgrade_without_backup)?;
    upgrade::require_room_for_copy(&database)?;
    let kept = upgrade::kept_file(&database, CHANGE)?;

    let unfinished = Unfinished::beside(&database).map_err(file_failed)?;
    let mut new = connection::open_writer(unfinished.path())?;
    let copied = copy_all_but_indexes(&mut new, &database, &mut progress);
    let last = copied.map_err(|source| BackupError::Copy { path: database.clone(), source })?;
    let indexed = |through| progress(RebuildProgress::Indexed { through, last });
    let writer = IndexWriter::rebuild(&mut new, options.merge_messages, salt, indexed)
        .map_err(|error| not_loaded(error, &database))?;
    consistency::check(&mut new, writer.index(), &database)?;
    let new_failed = |source| BackupError::Copy { path: unfinished.path().to_owned(), source };
    let messages = log::rows(&mut new).map_err(new_failed)?;
    connection::empty_log(&mut new).map_err(new_failed)?;
    drop(new);

    fs::hard_link(&database, &kept).map_err(file_failed)?;
    folder::sync_folder(&kept).map_err(file_failed)?;
    unfinished.replace(&database).map_err(file_failed)?;
    Ok(RebuildSummary { messages, kept })
}

/// Brings the database up to date, and puts all that its write-ahead log holds into its file. What its
/// request keys are made with, which stays the same where it can be read.
fn settle(database: &Path, without_backup: bool) -> Result<Option<[u8; SALT_BYTES]>, BackupError> {
    let mut old = connection::open_writer(database)?;
    upgrade::migrate(&mut old, database, without_backup)?;
    let failed = |source| BackupError::Copy { path: database.to_owned(), source };
    let salt = index::salt(&mut old).map_err(failed)?;
    connection::empty_log(&mut old).map_err(failed)?;
    drop(old);
    // What is left there would be taken for the new file's.
    let log = folder::log_of(database);
    match fs::metadata(&log) {
        Ok(metadata) if metadata.len() > 0 => {
            let source = io::Error::other("it is in use");
            Err(BackupError::File { path: log, source })
        }
        _ => Ok(salt),
    }
}

#[derive(QueryableByName)]
struct Named {
    #[diesel(sql_type = Text)]
    name: String,
}

/// Copies every table but those of the indexes. The last position of the log.
fn copy_all_but_indexes(
    new: &mut SqliteConnection,
    database: &Path,
    progress: &mut impl FnMut(RebuildProgress),
) -> QueryResult<i64> {
    connection::create_tables(new)?;
    // Nothing of it counts before the file is synced as a whole, and gets its name.
    new.batch_execute("PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF")?;
    let source = connection::untouched_uri(database)
        .map_err(|error| DieselError::QueryBuilderError(error.to_string().into()))?;
    diesel::sql_query("ATTACH DATABASE ? AS old").bind::<Text, _>(source).execute(new)?;
    for table in tables(new)? {
        copy_table(new, &table)?;
    }
    // The indexes will not lead to what mailboxes have lost: what is left of it in the log stays there
    // until the other mailbox loses it, or it is too old.
    new.transaction(mailboxes::settle_all)?;
    let last = copy_log(new, progress)?;
    new.batch_execute("DETACH DATABASE old; PRAGMA foreign_keys = ON")?;
    Ok(last)
}

/// The tables to copy as a whole. The counters of `AUTOINCREMENT` come last: rows that are copied move
/// them.
fn tables(new: &mut SqliteConnection) -> QueryResult<Vec<String>> {
    let names = diesel::sql_query(
        "SELECT name FROM main.sqlite_schema WHERE type = 'table'
         AND (name NOT LIKE 'sqlite\\_%' ESCAPE '\\' OR name = 'sqlite_sequence')
         ORDER BY name = 'sqlite_sequence', name",
    );
    let names = names.load::<Named>(new)?.into_iter().map(|it| it.name);
    Ok(names.filter(|name| name != LOG && !DERIVED.contains(&name.as_str())).collect())
}

fn copy_table(new: &mut SqliteConnection, table: &str) -> QueryResult<()> {
    let columns = columns(new, table)?;
    // What a migration put there is among what is copied.
    new.batch_execute(&format!(
        "BEGIN;
         DELETE FROM main.\"{table}\";
         INSERT INTO main.\"{table}\" ({columns}) SELECT {columns} FROM old.\"{table}\";
         COMMIT"
    ))
}

fn columns(new: &mut SqliteConnection, table: &str) -> QueryResult<String> {
    let names = diesel::sql_query("SELECT name FROM pragma_table_info(?) ORDER BY cid");
    let names = names.bind::<Text, _>(table).load::<Named>(new)?;
    let names: Vec<_> = names.into_iter().map(|it| format!("\"{}\"", it.name)).collect();
    Ok(names.join(", "))
}

fn copy_log(
    new: &mut SqliteConnection,
    progress: &mut impl FnMut(RebuildProgress),
) -> QueryResult<i64> {
    let columns = columns(new, LOG)?;
    let copy = format!(
        "INSERT INTO main.{LOG} ({columns}) SELECT {columns} FROM old.{LOG}
         WHERE position > ? ORDER BY position LIMIT {ROWS_PER_STEP}"
    );
    let last = max_position(new, "old")?;
    loop {
        let through = max_position(new, "main")?;
        progress(RebuildProgress::Copied { through, last });
        let copied = diesel::sql_query(&copy).bind::<BigInt, _>(through).execute(new)?;
        if copied == 0 {
            return Ok(last);
        }
    }
}

#[derive(QueryableByName)]
struct Position {
    #[diesel(sql_type = BigInt)]
    position: i64,
}

fn max_position(new: &mut SqliteConnection, schema: &str) -> QueryResult<i64> {
    let query = format!("SELECT coalesce(max(position), 0) AS position FROM {schema}.{LOG}");
    Ok(diesel::sql_query(query).get_result::<Position>(new)?.position)
}
