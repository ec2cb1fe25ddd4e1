//! Messages that expire: their rows stay, and their bodies go.

use diesel::connection::DefaultLoadingMode;
use diesel::prelude::*;
use tracing::error;

use super::error::unless_damaged;
use super::index::RequestKeys;
use super::log;
use super::schema::expirations;
use crate::domain::Timestamp;

/// When a body is to go, and the position of its row.
pub(super) type Expiration = (i64, i64);

/// Some of those that are due, in the order of their times.
pub(super) fn due(
    connection: &mut SqliteConnection,
    now: Timestamp,
    limit: i64,
) -> QueryResult<Vec<Expiration>> {
    expirations::table
        .filter(expirations::expire_time_us.le(now.as_micros()))
        .order((expirations::expire_time_us.asc(), expirations::position.asc()))
        .limit(limit)
        .load(connection)
}

/// Erases the body of a message that is due, unless its row was removed, and forgets that it was. A row that
/// is not whole is left as it is.
pub(super) fn erase(
    connection: &mut SqliteConnection,
    keys: &RequestKeys,
    (time, position): Expiration,
) -> QueryResult<()> {
    let row = unless_damaged(log::row(connection, position))?.flatten();
    if let Some(row) = row
        && !log::erase(connection, row, keys)?
    {
        error!(position, "a message that expires is damaged: it is not served, and stays as it is");
    }
    diesel::delete(expirations::table.find((time, position))).execute(connection)?;
    Ok(())
}

/// Hands over all of them.
pub(super) fn visit(
    connection: &mut SqliteConnection,
    mut take: impl FnMut(Expiration),
) -> QueryResult<()> {
    for row in expirations::table.load_iter::<Expiration, DefaultLoadingMode>(connection)? {
        take(row?);
    }
    Ok(())
}
