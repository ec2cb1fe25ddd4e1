//! Messages that expire: their rows stay, and their bodies go.

use diesel::connection::DefaultLoadingMode;
use diesel::prelude::*;
use tracing::error;

use super::error::unless_damaged;
use super::index::RequestKeys;
use super::log;
use super::schema::expirations;
use crate::domain::{Timestamp, UserId};

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
/// is not whole is left as it is. The entries whose body is gone, with its bytes.
pub(super) fn erase(
    connection: &mut SqliteConnection,
    keys: &RequestKeys,
    (time, position): Expiration,
) -> QueryResult<Vec<((UserId, i64), i64)>> {
    let mut erased = Vec::new();
    if let Some(row) = unless_damaged(log::row(connection, position))?.flatten() {
        let (entries, bytes) = (row.places().entries, row.body_bytes());
        if log::erase(connection, row, keys)? {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            erased = entries.into_iter().map(|entry| (entry, bytes)).collect();
        } else {
            error!(
                position,
                "a message that expires is damaged: it is not served, and stays as it is"
            );
        }
    }
    diesel::delete(expirations::table.find((time, position))).execute(connection)?;
    Ok(erased)
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
