//! The tables as they are, for the check that holds them against the log.

use diesel::connection::DefaultLoadingMode;
use diesel::prelude::*;

use super::entry::{Entry, RequestKey, RequestKeys};
use super::{PageStart, packed, pending, request_runs, tables};
use crate::domain::{Sequence, UserId};
use crate::store::schema::{mailbox_runs, request_keys};

/// How far the tables go, and what makes the request keys. `None` before the first start.
pub(in crate::store) fn state(
    connection: &mut SqliteConnection,
) -> QueryResult<Option<(i64, RequestKeys)>> {
    let stored = tables::stored_state(connection)?;
    Ok(stored.map(|stored| (stored.marks.merged_through, RequestKeys::new(stored.salt))))
}

/// Hands over every entry of every mailbox, in order; `None` for what cannot be read of a run.
pub(in crate::store) fn visit_runs(
    connection: &mut SqliteConnection,
    mut take: impl FnMut(UserId, Option<Entry>),
) -> QueryResult<()> {
    let runs = mailbox_runs::table
        .select((mailbox_runs::owner_id, mailbox_runs::first_sequence, mailbox_runs::entries))
        .order((mailbox_runs::owner_id.asc(), mailbox_runs::first_sequence.asc()))
        .load_iter::<(i64, i64, Vec<u8>), DefaultLoadingMode>(connection)?;
    for run in runs {
        let (owner, first_sequence, bytes) = run?;
        for entry in packed::entries(first_sequence, &bytes) {
            take(UserId(owner), entry.ok());
        }
    }
    Ok(())
}

/// Hands over the entries of one mailbox whose messages stand in the log up to `through`.
pub(in crate::store) fn visit_mailbox(
    connection: &mut SqliteConnection,
    owner: UserId,
    through: i64,
    mut take: impl FnMut(Entry),
) -> QueryResult<()> {
    tables::visit(connection, owner, PageStart::After(Sequence::ZERO), through, |entry| {
        take(entry);
        true
    })
}

/// Hands over every request key with the position that it leads to.
pub(in crate::store) fn visit_request_rows(
    connection: &mut SqliteConnection,
    mut take: impl FnMut(RequestKey, i64),
) -> QueryResult<()> {
    let rows = request_keys::table
        .select((request_keys::request_key, request_keys::position))
        .load_iter::<(i64, i64), DefaultLoadingMode>(connection)?;
    for row in rows {
        let (key, position) = row?;
        take(RequestKey(key), position);
    }
    // Those in runs may be in the table already.
    for shard in 0..request_runs::SHARDS {
        for (key, position) in
            request_runs::of_shard(connection, shard)?.into_iter().flat_map(|it| it.keys)
        {
            if !tables::rows_of_request(connection, key)?.contains(&position) {
                take(key, position);
            }
        }
    }
    Ok(())
}

/// Hands over what is in no table: each position after `merged_through` with its entries, up to the first
/// that is absent or not what was written.
pub(in crate::store) fn visit_pending(
    connection: &mut SqliteConnection,
    merged_through: i64,
    mut take: impl FnMut(i64, Vec<(UserId, Entry)>),
) -> QueryResult<()> {
    pending::visit(connection, merged_through, |position, placement| {
        take(position, placement.entries(position).collect());
        Ok(())
    })
}
