//! The app's tables, found by the names of their columns, and how they are read.

use diesel::prelude::*;
use diesel::sql_types::{Integer, Text};

use super::VALUE_BYTES_MAX;

/// The columns by the names that the app and its siblings give them.
const USERNAME: &[&str] = &["username", "name"];
const IP_ADDRESS: &[&str] = &["ip_address", "ip"];
const FROM_USER: &[&str] = &["from_user", "sender", "sender_username"];
const TO_USER: &[&str] = &["to_user", "receiver", "receiver_username", "recipient"];
const MESSAGE: &[&str] = &["message", "content", "body"];
const TIMESTAMP: &[&str] = &["timestamp", "created_at"];

/// How the tables of one database are read, and what they lack.
pub(super) struct Queries {
    pub(super) users: String,
    pub(super) messages: String,
    pub(super) missing: Vec<String>,
}

impl Queries {
    /// Looks at the tables that are there.
    pub(super) fn on(connection: &mut SqliteConnection) -> QueryResult<Self> {
        let mut missing = Vec::new();
        let users = users_query(&columns(connection, "users")?, &mut missing);
        let messages = messages_query(&columns(connection, "messages")?, &mut missing);
        if !is_utf8(connection)? {
            missing.push("text in UTF-8 (see `PRAGMA encoding`)".to_owned());
        }
        Ok(Self { users, messages, missing })
    }
}

#[derive(QueryableByName)]
struct Column {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Integer)]
    key: i32,
}

/// The table's columns; none when there is no such table.
fn columns(connection: &mut SqliteConnection, table: &str) -> QueryResult<Vec<Column>> {
    let query = "SELECT c.name AS name, c.type AS kind, c.pk AS key \
                 FROM pragma_table_list AS t, pragma_table_info(t.name) AS c \
                 WHERE t.schema = 'main' AND t.type = 'table' AND lower(t.name) = ?";
    diesel::sql_query(query).bind::<Text, _>(table).load(connection)
}

#[derive(QueryableByName)]
struct Encoding {
    #[diesel(sql_type = Text)]
    encoding: String,
}

fn is_utf8(connection: &mut SqliteConnection) -> QueryResult<bool> {
    let query = diesel::sql_query("SELECT encoding FROM pragma_encoding");
    Ok(query.get_result::<Encoding>(connection)?.encoding == "UTF-8")
}

fn users_query(columns: &[Column], missing: &mut Vec<String>) -> String {
    if columns.is_empty() {
        missing.push("table `users`".to_owned());
    }
    let username = needed(columns, "users", USERNAME, missing);
    let ip_address = find(columns, IP_ADDRESS).unwrap_or_else(|| "NULL".to_owned());
    format!(
        "SELECT rowid AS row_number, {}, {} FROM users WHERE rowid > ? ORDER BY rowid LIMIT ?",
        selected(&username, "username"),
        selected(&ip_address, "ip_address"),
    )
}

fn messages_query(columns: &[Column], missing: &mut Vec<String>) -> String {
    if columns.is_empty() {
        missing.push("table `messages`".to_owned());
    } else if !columns.iter().any(is_row_number) {
        // Only such an id is the row's own number, which stays.
        missing.push("`messages.id INTEGER PRIMARY KEY`".to_owned());
    }
    let from_user = needed(columns, "messages", FROM_USER, missing);
    let to_user = needed(columns, "messages", TO_USER, missing);
    let message = needed(columns, "messages", MESSAGE, missing);
    let timestamp = find(columns, TIMESTAMP).unwrap_or_else(|| "NULL".to_owned());
    // Out of what SQLite takes for a time, only dates that are written out: `now` is one too, and a
    // number is a Julian day.
    format!(
        "SELECT rowid AS row_number, {}, {}, {}, \
         CASE WHEN typeof({timestamp}) = 'text' \
         AND {timestamp} GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' \
         THEN CAST(round(unixepoch({timestamp}, 'subsec') * 1000) AS INTEGER) END AS sent_ms \
         FROM messages WHERE rowid > ? ORDER BY rowid LIMIT ?",
        selected(&from_user, "from_user"),
        selected(&to_user, "to_user"),
        selected(&message, "message"),
    )
}

fn is_row_number(column: &Column) -> bool {
    column.key == 1 && column.kind.eq_ignore_ascii_case("INTEGER")
}

/// What a column holds, and of which kind that is: its bytes, unless they are too many.
fn selected(column: &str, name: &str) -> String {
    format!(
        "typeof({column}) AS {name}_type, \
         CASE WHEN length(CAST({column} AS BLOB)) <= {VALUE_BYTES_MAX} \
         THEN CAST({column} AS BLOB) END AS {name}"
    )
}

/// The column with one of these names, quoted; a NULL and a complaint where there is none.
fn needed(columns: &[Column], table: &str, names: &[&str], missing: &mut Vec<String>) -> String {
    find(columns, names).unwrap_or_else(|| {
        if !columns.is_empty() {
            missing.push(format!("column `{table}.{}`", names.join("` or `")));
        }
        "NULL".to_owned()
    })
}

fn find(columns: &[Column], names: &[&str]) -> Option<String> {
    let is = |name: &&str| columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    names.iter().find(|name| is(name)).map(|name| format!("\"{name}\""))
}
