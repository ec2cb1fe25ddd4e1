use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::sql_types::{Integer, Text};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _, embed_migrations};

use super::OpenError;
use super::schema::database_state;
use crate::domain::{Epoch, Timestamp};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");

/// Set on every connection, whatever the build's defaults are. `mmap_size = 0`: a read error of a
/// mapped file kills the process instead of failing the read. `trusted_schema = OFF` and
/// `cell_size_check = ON` are what sqlite.org/security.html advises for files that may be damaged.
const COMMON_PRAGMAS: &str = "
    PRAGMA busy_timeout = 5000;
    PRAGMA foreign_keys = ON;
    PRAGMA mmap_size = 0;
    PRAGMA temp_store = MEMORY;
    PRAGMA trusted_schema = OFF;
    PRAGMA cell_size_check = ON;
";

/// `synchronous = FULL` syncs the write-ahead log at every commit: the promise **durable** rests on
/// it. The size limit gives space back after a checkpoint that a long read had held up. The caches,
/// given in KiB, fill up as messages come: they are part of what a server under load grows by, and
/// the operating system caches the file as well.
const WRITER_PRAGMAS: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA journal_size_limit = 67108864;
    PRAGMA cache_size = -4096;
";

const READER_PRAGMAS: &str = "
    PRAGMA query_only = ON;
    PRAGMA cache_size = -1024;
";

/// `sqlite3`'s own numbers for the settings on which promises rest.
const REQUIRED_SETTINGS: [(&str, &str); 3] =
    [("journal_mode", "wal"), ("synchronous", "2"), ("foreign_keys", "1")];

/// For a file that is made now: it can be shortened while it is in use, when much of it was removed. One of an
/// earlier version stays as it is. To a file that there is it would be a write, at each start.
const NEW_FILE_PRAGMA: &str = "PRAGMA auto_vacuum = INCREMENTAL";

/// Opens the one connection that writes.
pub(super) fn open_writer(database: &Path) -> Result<SqliteConnection, OpenError> {
    let mut connection = open(database, "")?;
    if setting(&mut connection, "page_count").map_err(failed(database))? == "0" {
        connection.batch_execute(NEW_FILE_PRAGMA).map_err(failed(database))?;
    }
    connection.batch_execute(WRITER_PRAGMAS).map_err(failed(database))?;
    for (pragma, wanted) in REQUIRED_SETTINGS {
        let actual = setting(&mut connection, pragma).map_err(failed(database))?;
        if actual != wanted {
            return Err(OpenError::Setting { pragma, wanted, actual });
        }
    }
    Ok(connection)
}

/// Opens a connection that cannot write.
pub(super) fn open_reader(database: &Path) -> Result<SqliteConnection, OpenError> {
    open(database, READER_PRAGMAS)
}

/// Opens a connection that leaves the file and its log as they are, even when it is the last to close.
pub(super) fn open_untouched(database: &Path) -> Result<SqliteConnection, OpenError> {
    connect(database, &untouched_uri(database)?, READER_PRAGMAS)
}

/// The same for `VACUUM INTO`, which writes to another file.
pub(super) fn open_for_copy(database: &Path) -> Result<SqliteConnection, OpenError> {
    connect(database, &untouched_uri(database)?, "")
}

pub(super) fn untouched_uri(database: &Path) -> Result<String, OpenError> {
    let path = utf8(database)?;
    // What would end the path of a URI, or stand for another character (sqlite.org/uri.html).
    let path = path.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    Ok(format!("file:{path}?mode=ro"))
}

fn open(database: &Path, pragmas: &str) -> Result<SqliteConnection, OpenError> {
    connect(database, utf8(database)?, pragmas)
}

fn utf8(database: &Path) -> Result<&str, OpenError> {
    database.to_str().ok_or_else(|| OpenError::Folder {
        path: database.to_owned(),
        source: io::Error::other("the path is not UTF-8"),
    })
}

fn connect(database: &Path, name: &str, pragmas: &str) -> Result<SqliteConnection, OpenError> {
    let mut connection = SqliteConnection::establish(name)
        .map_err(|source| OpenError::Connect { path: database.to_owned(), source })?;
    connection.batch_execute(COMMON_PRAGMAS).map_err(failed(database))?;
    connection.batch_execute(pragmas).map_err(failed(database))?;
    Ok(connection)
}

fn failed(database: &Path) -> impl Fn(diesel::result::Error) -> OpenError {
    |source| OpenError::Database { path: database.to_owned(), source }
}

#[derive(QueryableByName)]
struct Setting {
    #[diesel(sql_type = Text)]
    value: String,
}

fn setting(connection: &mut SqliteConnection, pragma: &str) -> QueryResult<String> {
    let query = format!("SELECT CAST({pragma} AS TEXT) AS value FROM pragma_{pragma}");
    Ok(diesel::sql_query(query).get_result::<Setting>(connection)?.value)
}

/// Brings the tables up to date, forwards only, and returns the database's epoch.
pub(super) fn migrate(
    connection: &mut SqliteConnection,
    database: &Path,
) -> Result<Epoch, OpenError> {
    connection.run_pending_migrations(MIGRATIONS).map_err(migration_failed)?;
    epoch(connection).map_err(failed(database))
}

/// Makes the tables of a new database, and no epoch.
pub(super) fn create_tables(connection: &mut SqliteConnection) -> QueryResult<()> {
    let made = connection.run_pending_migrations(MIGRATIONS);
    made.map(|_| ()).map_err(DieselError::QueryBuilderError)
}

/// The names of the migrations that an existing database lacks, in their order; none for a new one.
pub(super) fn pending_migrations(
    connection: &mut SqliteConnection,
) -> Result<Vec<String>, OpenError> {
    if connection.applied_migrations().map_err(migration_failed)?.is_empty() {
        return Ok(Vec::new());
    }
    let pending = connection.pending_migrations(MIGRATIONS).map_err(migration_failed)?;
    Ok(pending.iter().map(|migration| migration.name().to_string()).collect())
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
fn migration_failed(error: Box<dyn std::error::Error + Send + Sync>) -> OpenError {
    OpenError::Migration(error.to_string())
}

/// Refuses a database of a newer version.
pub(super) fn refuse_newer(connection: &mut SqliteConnection) -> Result<(), OpenError> {
    let known: Vec<String> =
        diesel::migration::MigrationSource::<diesel::sqlite::Sqlite>::migrations(&MIGRATIONS)
            .map_err(migration_failed)?
            .iter()
            .map(|migration| migration.name().version().to_string())
            .collect();
    for applied in connection.applied_migrations().map_err(migration_failed)? {
        let migration = applied.to_string();
        if !known.contains(&migration) {
            return Err(OpenError::Newer { migration });
        }
    }
    Ok(())
}

/// The database's epoch; minted at the first call.
fn epoch(connection: &mut SqliteConnection) -> QueryResult<Epoch> {
    diesel::insert_into(database_state::table)
        .values((
            database_state::id.eq(1),
            database_state::epoch.eq(Epoch::mint().as_str()),
            database_state::create_time_us.eq(Timestamp::now().as_micros()),
        ))
        .on_conflict_do_nothing()
        .execute(connection)?;
    let text = database_state::table.select(database_state::epoch).first(connection)?;
    Ok(Epoch::from_text(text))
}

#[derive(QueryableByName)]
struct Checkpoint {
    #[diesel(sql_type = Integer)]
    busy: i32,
}

/// Writes what the write-ahead log holds to the database file, syncs that, and empties the log.
pub(super) fn empty_log(connection: &mut SqliteConnection) -> QueryResult<()> {
    if is_log_emptied(connection)? {
        Ok(())
    } else {
        Err(unknown("the write-ahead log is being read"))
    }
}

fn is_log_emptied(connection: &mut SqliteConnection) -> QueryResult<bool> {
    let query = diesel::sql_query("PRAGMA wal_checkpoint(TRUNCATE)");
    Ok(query.get_result::<Checkpoint>(connection)?.busy == 0)
}

/// Has everything that the write-ahead log holds written anew, and synced. After a sync that failed,
/// another one that succeeds proves nothing: the operating system may have dropped what it could not
/// write, and show it from memory. What is written anew it must write.
///
/// It goes to the database file, or, while others read the log, which may be for as long as they run, to
/// where it stands in the log.
pub(super) fn renew_log(connection: &mut SqliteConnection, database: &Path) -> QueryResult<()> {
    if is_log_emptied(connection)? {
        return Ok(());
    }
    // Nobody writes to the log or begins it anew meanwhile; who reads it sees the same bytes.
    connection
        .immediate_transaction(|_| rewrite(&log_of(database)).map_err(|error| unknown(&error)))
}

/// Writes a file's own bytes over it, and syncs.
fn rewrite(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut bytes = vec![0; REWRITE_BYTES];
    let mut at = 0;
    loop {
        let count = file.read_at(&mut bytes, at)?;
        if count == 0 {
            return file.sync_all();
        }
        file.write_all_at(&bytes[..count], at)?;
        at += count as u64;
    }
}

fn log_of(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push("-wal");
    PathBuf::from(path)
}

fn unknown(problem: &(impl ToString + ?Sized)) -> DieselError {
    DieselError::DatabaseError(DatabaseErrorKind::Unknown, Box::new(problem.to_string()))
}

/// How much of the log is rewritten at a time.
const REWRITE_BYTES: usize = 1024 * 1024;

/// Room for a group of small messages: a disk with less than that is as good as full.
const PROBE_BYTES: usize = 256 * 1024;

/// Proves that the disk takes writes: commits one, and gives its room back.
pub(super) fn probe(connection: &mut SqliteConnection) -> QueryResult<()> {
    for filling in [Some(vec![0; PROBE_BYTES]), None] {
        diesel::update(database_state::table)
            .set(database_state::probe.eq(filling))
            .execute(connection)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_log_that_others_read_is_written_anew_where_it_stands() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let database = folder.path().join("a.db");
        let mut writer = open_writer(&database).expect("opens");
        writer.batch_execute("CREATE TABLE a (b); INSERT INTO a VALUES (1)").expect("executes");
        let mut reader = open_reader(&database).expect("opens");
        reader.batch_execute("BEGIN; SELECT * FROM a").expect("executes");
        writer.batch_execute("INSERT INTO a VALUES (2)").expect("executes");
        let log = log_of(&database);
        let before = std::fs::read(&log).expect("it is there");
        let long_ago = SystemTime::UNIX_EPOCH;
        File::options()
            .write(true)
            .open(&log)
            .and_then(|it| it.set_modified(long_ago))
            .expect("set");

        writer.batch_execute("PRAGMA busy_timeout = 0").expect("executes");
        empty_log(&mut writer).expect_err("it is being read");
        renew_log(&mut writer, &database).expect("renewed");
        assert!(std::fs::read(&log).expect("it is there") == before, "other bytes");
        let modified = std::fs::metadata(&log).and_then(|it| it.modified()).expect("it is there");
        assert!(modified > long_ago, "nothing was written");

        drop(reader);
        renew_log(&mut writer, &database).expect("renewed");
        assert_eq!(std::fs::metadata(&log).expect("it is there").len(), 0, "emptied");
    }
}
