//! The log's rows as a whole: how many, who is in them, how large they are; and removing them.

use diesel::connection::DefaultLoadingMode;
use diesel::prelude::*;
use diesel::sql_types::Binary;

use super::schema::message_log;
use crate::domain::{Timestamp, UserId};

/// Position and time of the first row.
pub(super) fn first(connection: &mut SqliteConnection) -> QueryResult<Option<(i64, Timestamp)>> {
    let row = message_log::table
        .select((message_log::position, message_log::send_time_us))
        .order(message_log::position.asc())
        .first::<(i64, i64)>(connection)
        .optional()?;
    Ok(row.map(|(position, time)| (position, Timestamp::from_micros(time))))
}

/// How many rows there are.
pub(super) fn rows(connection: &mut SqliteConnection) -> QueryResult<u64> {
    let count: i64 = message_log::table.count().get_result(connection)?;
    Ok(count.unsigned_abs())
}

/// Position, sender and receiver of up to `limit` rows after `position`, in order.
pub(super) fn participants_after(
    connection: &mut SqliteConnection,
    position: i64,
    limit: usize,
) -> QueryResult<Vec<(i64, UserId, UserId)>> {
    let rows = message_log::table
        .filter(message_log::position.gt(position))
        .select((message_log::position, message_log::sender_id, message_log::receiver_id))
        .order(message_log::position.asc())
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .load_iter::<(i64, i64, i64), DefaultLoadingMode>(connection)?;
    rows.map(|row| row.map(|(position, from, to)| (position, UserId(from), UserId(to)))).collect()
}

/// Removes the rows from position `first` to `last`. How many there were.
pub(super) fn remove(
    connection: &mut SqliteConnection,
    (first, last): (i64, i64),
) -> QueryResult<usize> {
    diesel::delete(message_log::table)
        .filter(message_log::position.between(first, last))
        .execute(connection)
}

/// The bytes of the body at `position`; 0 when there is no row.
pub(super) fn body_bytes(connection: &mut SqliteConnection, position: i64) -> QueryResult<i64> {
    diesel::define_sql_function! {
        fn length(bytes: Binary) -> BigInt;
    }
    let row = message_log::table.find(position).select(length(message_log::body));
    Ok(row.first(connection).optional()?.unwrap_or(0))
}
