//! Request keys that are merged and not in their table yet: a row for each shard of a segment.
//!
//! The keys are random, so those of one segment fall on nearly every page of a large table. Here they
//! are kept as they come, and go there many segments at a time: see [`fold`](super::fold).

use std::ops::Range;

use diesel::connection::DefaultLoadingMode;
use diesel::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::entry::RequestKey;
use super::tail;
use crate::store::error::unreadable;
use crate::store::inserts::NewRequestRun;
use crate::store::schema::request_runs;

/// How many rows a shard of a segment in memory makes: of a full segment each has some 64 keys, and
/// stays within the part of a page that a row without a row id may take.
const PARTS: usize = if cfg!(test) { 2 } else { 16 };

/// The shards. Part of the file format; the unit tests, which fill some, have few.
pub(super) const SHARDS: usize = PARTS * tail::REQUEST_SHARDS;

const KEY_BYTES: usize = 8;
const ENTRY_BYTES: usize = KEY_BYTES + 4;

/// The keys of a shard of one segment.
pub(super) struct Run {
    pub(super) first_position: i64,
    /// In order, each with the position that it leads to.
    pub(super) keys: Vec<(RequestKey, i64)>,
}

type Row = (i64, i64, Vec<u8>, i64);

const COLUMNS: (
    request_runs::shard,
    request_runs::first_position,
    request_runs::entries,
    request_runs::checksum,
) = (
    request_runs::shard,
    request_runs::first_position,
    request_runs::entries,
    request_runs::checksum,
);

/// The shard of a key.
pub(super) fn shard(key: RequestKey) -> usize {
    key.shard(SHARDS)
}

/// Stores a shard of a segment; the same again changes nothing.
pub(super) fn put(
    connection: &mut SqliteConnection,
    shard: usize,
    first_position: i64,
    keys: &[(RequestKey, i64)],
) -> QueryResult<()> {
    let mut entries = Vec::with_capacity(keys.len() * ENTRY_BYTES);
    for (RequestKey(key), position) in keys {
        let behind = u32::try_from(position - first_position)
            .map_err(|_| unreadable("a segment's positions"))?;
        entries.extend_from_slice(&key.to_le_bytes());
        entries.extend_from_slice(&behind.to_le_bytes());
    }
    let shard = number(shard);
    let checksum = checksum(shard, first_position, &entries);
    NewRequestRun { shard, first_position, entries: &entries, checksum }.execute(connection)?;
    Ok(())
}

/// What is kept of a shard, segment by segment.
pub(super) fn of_shard(connection: &mut SqliteConnection, shard: usize) -> QueryResult<Vec<Run>> {
    request_runs::table
        .filter(request_runs::shard.eq(number(shard)))
        .order(request_runs::first_position.asc())
        .select(COLUMNS)
        .load_iter::<Row, DefaultLoadingMode>(connection)?
        .map(|row| read(row?))
        .collect()
}

/// The positions of a key.
pub(super) fn rows_of_request(
    connection: &mut SqliteConnection,
    key: RequestKey,
) -> QueryResult<Vec<i64>> {
    let runs = of_shard(connection, shard(key))?;
    let of_key = |(it, position)| (it == key).then_some(position);
    Ok(runs.into_iter().flat_map(|run| run.keys).filter_map(of_key).collect())
}

/// Hands over every key of some shards, with its position.
pub(super) fn visit(
    connection: &mut SqliteConnection,
    shards: Range<usize>,
    mut take: impl FnMut(RequestKey, i64),
) -> QueryResult<()> {
    let (first, end) = (number(shards.start), number(shards.end));
    let rows = request_runs::table
        .filter(request_runs::shard.ge(first))
        .filter(request_runs::shard.lt(end))
        .select(COLUMNS)
        .load_iter::<Row, DefaultLoadingMode>(connection)?;
    for row in rows {
        for (key, position) in read(row?)?.keys {
            take(key, position);
        }
    }
    Ok(())
}

/// Deletes what a shard has of the segments up to the one that begins at `through`.
pub(super) fn delete(
    connection: &mut SqliteConnection,
    shard: usize,
    through: i64,
) -> QueryResult<()> {
    diesel::delete(request_runs::table)
        .filter(request_runs::shard.eq(number(shard)))
        .filter(request_runs::first_position.le(through))
        .execute(connection)?;
    Ok(())
}

/// A row that is not what was written is an error: a request id would be taken for new.
fn read((shard, first_position, entries, stored): Row) -> QueryResult<Run> {
    let (entries_of, rest) = entries.as_chunks::<ENTRY_BYTES>();
    if checksum(shard, first_position, &entries) != stored || !rest.is_empty() {
        return Err(unreadable("request_runs"));
    }
    let entry = |bytes: &[u8; ENTRY_BYTES]| {
        let (mut key, mut behind) = ([0; KEY_BYTES], [0; ENTRY_BYTES - KEY_BYTES]);
        key.copy_from_slice(&bytes[..KEY_BYTES]);
        behind.copy_from_slice(&bytes[KEY_BYTES..]);
        let position = first_position.saturating_add(u32::from_le_bytes(behind).into());
        (RequestKey(i64::from_le_bytes(key)), position)
    };
    Ok(Run { first_position, keys: entries_of.iter().map(entry).collect() })
}

fn number(shard: usize) -> i64 {
    i64::try_from(shard).unwrap_or(i64::MAX)
}

/// This layout is part of the file format.
fn checksum(shard: i64, first_position: i64, entries: &[u8]) -> i64 {
    let mut bytes = Vec::with_capacity(16 + entries.len());
    bytes.extend_from_slice(&shard.to_le_bytes());
    bytes.extend_from_slice(&first_position.to_le_bytes());
    bytes.extend_from_slice(entries);
    xxh3_64(&bytes).cast_signed()
}
