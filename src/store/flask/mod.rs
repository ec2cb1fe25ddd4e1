//! Reading the database of the Flask app that peerpost descends from, `p2p_messaging.db`.
//!
//! Its tables have few columns and no types to rely on. They are found by name, values are taken as
//! they are, and what to make of them is the caller's. Nothing is written: the file is opened read-only,
//! and what a write-ahead log beside it holds is read too.

mod tables;

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use diesel::connection::{DefaultLoadingMode, SimpleConnection as _};
use diesel::prelude::*;
use diesel::result::{ConnectionError, Error as DieselError};
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use thiserror::Error;

use self::tables::Queries;
use crate::domain::Timestamp;
use crate::domain::limits::BODY_BYTES_CEILING;

/// The most bytes of a value that is read: a longer one could not be a body here.
pub const VALUE_BYTES_MAX: usize = BODY_BYTES_CEILING;

/// A page of rows ends with this many, or with the row that brings it to so many bytes.
const PAGE_ROWS_MAX: i64 = 1024;
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The first moment of the year 1, in milliseconds since 1970: clients know no earlier one.
const FIRST_MILLISECOND: i64 = -62_135_596_800_000;

/// As a writer may hold a lock for a moment.
const PRAGMAS: &str = "
    PRAGMA busy_timeout = 5000;
    PRAGMA query_only = ON;
    PRAGMA mmap_size = 0;
    PRAGMA trusted_schema = OFF;
    PRAGMA cell_size_check = ON;
";

/// Why the app's database cannot be read. Nothing in it was changed.
#[derive(Debug, Error)]
pub enum SourceError {
    /// There is no such file, or it cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// SQLite cannot open it.
    #[error("cannot open the database {}: {source}", path.display())]
    Connect {
        /// The file.
        path: PathBuf,
        /// SQLite's reason.
        source: ConnectionError,
    },
    /// SQLite cannot read it.
    #[error("cannot read the database {}: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// SQLite's reason.
        source: DieselError,
    },
    /// It is another database.
    #[error("{} is not the database of the Flask app: it has no {missing}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What the app's has.
        missing: String,
    },
}

/// What a row holds in one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    Null,
    /// Text; also a number, as its digits.
    Text(String),
    /// Bytes, and text that is not UTF-8.
    Bytes(Vec<u8>),
    /// More than [`VALUE_BYTES_MAX`].
    TooLong,
}

/// A row of `users`.
#[derive(Debug)]
pub struct UserRow {
    /// The row's number, which is no part of the app's data.
    pub row: i64,
    /// The name.
    pub username: Value,
    /// The address.
    pub ip_address: Value,
}

/// A row of `messages`.
#[derive(Debug)]
pub struct MessageRow {
    /// Its number: messages are in the order of these.
    pub id: i64,
    /// Who sent it.
    pub from_user: Value,
    /// Whom it is for.
    pub to_user: Value,
    /// What it says.
    pub message: Value,
    /// When it was sent, taken for UTC; `None` where that is no time.
    pub sent: Option<Timestamp>,
}

/// The app's database, open for reading.
pub struct Source {
    path: PathBuf,
    connection: SqliteConnection,
    users: String,
    messages: String,
}

impl Source {
    /// Opens the database and looks for its tables.
    ///
    /// # Errors
    /// [`SourceError`] says what is missing, or why it cannot be read.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let of_file = |source| SourceError::File { path: path.to_owned(), source };
        // SQLite would say only that it is unable to.
        std::fs::File::open(path).map_err(of_file)?;
        let uri = read_only_uri(&std::path::absolute(path).map_err(of_file)?);
        let mut connection = SqliteConnection::establish(&uri)
            .map_err(|source| SourceError::Connect { path: path.to_owned(), source })?;
        let failed = |source| SourceError::Database { path: path.to_owned(), source };
        connection.batch_execute(PRAGMAS).map_err(failed)?;
        let Queries { users, messages, missing } = Queries::on(&mut connection).map_err(failed)?;
        if !missing.is_empty() {
            let missing = missing.join(", and no ");
            return Err(SourceError::Foreign { path: path.to_owned(), missing });
        }
        Ok(Self { path: path.to_owned(), connection, users, messages })
    }

    /// The next users after a row; all of them have been read when there are none.
    ///
    /// # Errors
    /// [`SourceError::Database`].
    pub fn users_after(&mut self, row: i64) -> Result<Vec<UserRow>, SourceError> {
        let rows: Vec<RawUser> = page(&mut self.connection, &self.users, row, RawUser::bytes)
            .map_err(|source| SourceError::Database { path: self.path.clone(), source })?;
        Ok(rows.into_iter().map(RawUser::into_row).collect())
    }

    /// The next messages after an id; all of them have been read when there are none.
    ///
    /// # Errors
    /// [`SourceError::Database`].
    pub fn messages_after(&mut self, id: i64) -> Result<Vec<MessageRow>, SourceError> {
        let rows: Vec<RawMessage> =
            page(&mut self.connection, &self.messages, id, RawMessage::bytes)
                .map_err(|source| SourceError::Database { path: self.path.clone(), source })?;
        Ok(rows.into_iter().map(RawMessage::into_row).collect())
    }
}

#[derive(QueryableByName)]
struct RawUser {
    #[diesel(sql_type = BigInt)]
    row_number: i64,
    #[diesel(sql_type = Text)]
    username_type: String,
    #[diesel(sql_type = Nullable<Binary>)]
    username: Option<Vec<u8>>,
    #[diesel(sql_type = Text)]
    ip_address_type: String,
    #[diesel(sql_type = Nullable<Binary>)]
    ip_address: Option<Vec<u8>>,
}

#[derive(QueryableByName)]
struct RawMessage {
    #[diesel(sql_type = BigInt)]
    row_number: i64,
    #[diesel(sql_type = Text)]
    from_user_type: String,
    #[diesel(sql_type = Nullable<Binary>)]
    from_user: Option<Vec<u8>>,
    #[diesel(sql_type = Text)]
    to_user_type: String,
    #[diesel(sql_type = Nullable<Binary>)]
    to_user: Option<Vec<u8>>,
    #[diesel(sql_type = Text)]
    message_type: String,
    #[diesel(sql_type = Nullable<Binary>)]
    message: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<BigInt>)]
    sent_ms: Option<i64>,
}

impl RawUser {
    fn bytes(&self) -> usize {
        length(self.username.as_ref()) + length(self.ip_address.as_ref())
    }

    fn into_row(self) -> UserRow {
        UserRow {
            row: self.row_number,
            username: value(&self.username_type, self.username),
            ip_address: value(&self.ip_address_type, self.ip_address),
        }
    }
}

impl RawMessage {
    fn bytes(&self) -> usize {
        let names = length(self.from_user.as_ref()) + length(self.to_user.as_ref());
        names + length(self.message.as_ref())
    }

    fn into_row(self) -> MessageRow {
        let sent_ms = self.sent_ms.filter(|ms| *ms >= FIRST_MILLISECOND);
        MessageRow {
            id: self.row_number,
            from_user: value(&self.from_user_type, self.from_user),
            to_user: value(&self.to_user_type, self.to_user),
            message: value(&self.message_type, self.message),
            // SQLite knows no year after 9999, which is far from the end of the numbers.
            sent: sent_ms.map(|ms| Timestamp::from_micros(ms.saturating_mul(1000))),
        }
    }
}

fn length(bytes: Option<&Vec<u8>>) -> usize {
    bytes.map_or(0, Vec::len)
}

fn value(kind: &str, bytes: Option<Vec<u8>>) -> Value {
    match (kind, bytes) {
        ("null", _) => Value::Null,
        (_, None) => Value::TooLong,
        ("blob", Some(bytes)) => Value::Bytes(bytes),
        (_, Some(bytes)) => String::from_utf8(bytes)
            .map_or_else(|error| Value::Bytes(error.into_bytes()), Value::Text),
    }
}

/// A page of rows after this one, bounded in rows and in bytes.
fn page<Row>(
    connection: &mut SqliteConnection,
    query: &str,
    after: i64,
    bytes: impl Fn(&Row) -> usize,
) -> QueryResult<Vec<Row>>
where
    Row: QueryableByName<diesel::sqlite::Sqlite> + 'static,
{
    let query = diesel::sql_query(query).bind::<BigInt, _>(after).bind::<BigInt, _>(PAGE_ROWS_MAX);
    let (mut rows, mut size) = (Vec::new(), 0);
    for row in query.load_iter::<Row, DefaultLoadingMode>(connection)? {
        let row = row?;
        size += bytes(&row);
        rows.push(row);
        if size >= PAGE_BYTES_MAX {
            break;
        }
    }
    Ok(rows)
}

/// The file as SQLite opens it without the right to write. A log beside it is read: it is not said to
/// be immutable.
fn read_only_uri(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(byte) {
            uri.push(char::from(*byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri + "?mode=ro"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(statements: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("it's 100% (odd)?#.db");
        let uri = read_only_uri(&path).replace("mode=ro", "mode=rwc");
        let mut connection = SqliteConnection::establish(&uri).expect("can be made");
        connection.batch_execute(statements).expect("executes");
        (folder, path)
    }

    fn complaint(statements: &str) -> String {
        let (_folder, path) = source(statements);
        Source::open(&path).err().expect("cannot be used").to_string()
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = complaint("CREATE TABLE users (username TEXT)");
        assert!(error.ends_with("it has no table `messages`"), "{error}");
        let error = complaint(
            "CREATE TABLE users (id INTEGER);
             CREATE TABLE messages (id TEXT PRIMARY KEY, sender TEXT, to_user TEXT, text TEXT);",
        );
        for missing in
            ["`users.username` or `name`", "`messages.message` or", "`messages.id INTEGER PRIMARY"]
        {
            assert!(error.contains(missing), "no {missing} in {error}");
        }
        let error = complaint("PRAGMA encoding = 'UTF-16'; CREATE TABLE users (username TEXT)");
        assert!(error.contains("UTF-8"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_database_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("x.db");
        assert!(matches!(Source::open(&path), Err(SourceError::File { .. })));
        std::fs::write(&path, [b'x'; 4096]).expect("can be written");
        assert!(matches!(Source::open(&path), Err(SourceError::Database { .. })));
        assert_eq!(std::fs::read(&path).expect("is there"), [b'x'; 4096]);
    }

    #[test]
    fn columns_go_by_any_of_their_names_and_values_are_taken_as_they_are() {
        let (_folder, path) = source(
            "CREATE TABLE users (id INTEGER PRIMARY KEY, Username TEXT);
             INSERT INTO users VALUES (-3, 'x'), (5, x'ff'), (6, NULL);
             CREATE TABLE messages
               (id integer PRIMARY KEY, sender TEXT, receiver TEXT, content, created_at);
             INSERT INTO messages VALUES
               (1, 'a', 7, CAST(x'61ff' AS TEXT), '2024-02-29 23:59:59'),
               (2, 'a', 'b', zeroblob(1048577), '2024-02-29T23:59:59.250Z'),
               (3, 'a', 'b', 1.5, 'now'), (4, 'a', 'b', 1, 2460000.5), (5, 'a', 'b', 1, '2024-13-01');",
        );
        let mut source = Source::open(&path).expect("opens");
        let users = source.users_after(i64::MIN).expect("reads");
        let names: Vec<_> = users.into_iter().map(|user| (user.row, user.username)).collect();
        let expected =
            [(-3, Value::Text("x".into())), (5, Value::Bytes(vec![0xff])), (6, Value::Null)];
        assert_eq!(names, expected);
        assert_eq!(source.users_after(5).expect("reads")[0].ip_address, Value::Null);

        let messages = source.messages_after(0).expect("reads");
        assert_eq!(messages[0].to_user, Value::Text("7".into()));
        let bodies: Vec<_> = messages.iter().map(|message| &message.message).collect();
        let text = |text: &str| Value::Text(text.into());
        let expected = [
            &Value::Bytes(vec![b'a', 0xff]),
            &Value::TooLong,
            &text("1.5"),
            &text("1"),
            &text("1"),
        ];
        assert_eq!(bodies, expected);
        let sent: Vec<_> = messages.iter().map(|message| message.sent).collect();
        let at = |micros| Some(Timestamp::from_micros(micros));
        let second = 1_709_251_199_000_000;
        assert_eq!(sent, [at(second), at(second + 250_000), None, None, None]);
    }

    #[test]
    fn a_page_is_bounded_in_rows_and_in_bytes() {
        let (_folder, path) = source(
            "CREATE TABLE users (username TEXT);
             CREATE TABLE messages
               (id INTEGER PRIMARY KEY, from_user TEXT, to_user TEXT, message TEXT);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
             INSERT INTO messages SELECT i, 'a', 'b',
               CASE WHEN i > 2000 THEN zeroblob(1048576) ELSE i END FROM n WHERE i < 2010;",
        );
        let mut source = Source::open(&path).expect("opens");
        let mut pages = Vec::new();
        let mut last = 0;
        loop {
            let page = source.messages_after(last).expect("reads");
            let Some(message) = page.last() else { break };
            last = message.id;
            pages.push(page.len());
        }
        assert_eq!(pages, [1024, 980, 4, 1]);
    }

    #[test]
    fn a_write_ahead_log_is_read_and_nothing_is_changed() {
        let (_folder, path) = source(
            "PRAGMA journal_mode = WAL; CREATE TABLE users (username TEXT, ip_address TEXT);
             CREATE TABLE messages
               (id INTEGER PRIMARY KEY, from_user TEXT, to_user TEXT, message TEXT);",
        );
        let uri = read_only_uri(&path).replace("mode=ro", "mode=rw");
        let mut writer = SqliteConnection::establish(&uri).expect("opens");
        writer.batch_execute("INSERT INTO users VALUES ('in the log', '::1')").expect("executes");
        let before = std::fs::read(&path).expect("is there");
        let mut source = Source::open(&path).expect("opens");
        assert_eq!(source.users_after(0).expect("reads").len(), 1);
        let failed = diesel::sql_query("DELETE FROM users").execute(&mut source.connection);
        assert!(failed.is_err(), "it is open for reading only");
        assert_eq!(std::fs::read(&path).expect("is there"), before);
    }
}
