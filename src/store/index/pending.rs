//! What the tail holds, on disk: a row for each commit, until its entries are in the tables.
//!
//! The log's rows say the same. These are a tenth of their size, which is what makes a start quick, and
//! they have a checksum of their own, so that a damaged row of the log does not take its place in a
//! mailbox with it.

use diesel::connection::DefaultLoadingMode;
use diesel::prelude::*;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::entry::Placement;
use super::packed;
use crate::store::error::is_damage;
use crate::store::inserts::NewPending;
use crate::store::schema::pending_entries;

/// Merged rows that one commit deletes. A commit adds one.
const DELETED_PER_COMMIT: i64 = 4;

/// Stores the placements of consecutive rows of the log, the first of them at `first_position`.
pub(super) fn put(
    connection: &mut SqliteConnection,
    first_position: i64,
    placements: &[Placement],
) -> QueryResult<()> {
    let bytes = packed::placements(placements);
    let checksum = checksum(first_position, &bytes);
    NewPending { first_position, entries: &bytes, checksum }.execute(connection)?;
    Ok(())
}

/// Hands the placements of all rows of the log after `merged_through` to `take`, in order, up to the
/// first that are absent or not what was written.
pub(super) fn visit<E: From<diesel::result::Error>>(
    connection: &mut SqliteConnection,
    merged_through: i64,
    mut take: impl FnMut(i64, &Placement) -> Result<(), E>,
) -> Result<(), E> {
    let rows = pending_entries::table
        .filter(pending_entries::first_position.gt(merged_through))
        .order(pending_entries::first_position.asc())
        .select((
            pending_entries::first_position,
            pending_entries::entries,
            pending_entries::checksum,
        ))
        .load_iter::<(i64, Vec<u8>, i64), DefaultLoadingMode>(connection)?;
    let mut next = merged_through + 1;
    for row in rows {
        let (first_position, bytes, stored) = match row {
            Ok(row) => row,
            Err(error) if is_damage(&error) => break,
            Err(error) => return Err(error.into()),
        };
        let is_next = first_position == next && checksum(first_position, &bytes) == stored;
        let placements = packed::read_placements(&bytes).ok().filter(|_| is_next);
        let Some(placements) = placements else { break };
        for placement in &placements {
            take(next, placement)?;
            next += 1;
        }
    }
    Ok(())
}

/// Deletes some rows of what is merged. Whether there may be more.
pub(super) fn delete_some(
    connection: &mut SqliteConnection,
    merged_through: i64,
) -> QueryResult<bool> {
    let some: Vec<i64> = pending_entries::table
        .filter(pending_entries::first_position.le(merged_through))
        .order(pending_entries::first_position.asc())
        .limit(DELETED_PER_COMMIT)
        .select(pending_entries::first_position)
        .load(connection)?;
    if let Some(last) = some.last() {
        diesel::delete(pending_entries::table)
            .filter(pending_entries::first_position.le(last))
            .execute(connection)?;
    }
    Ok(!some.is_empty())
}

/// Deletes what stands for rows of the log after `position`.
pub(super) fn delete_after(connection: &mut SqliteConnection, position: i64) -> QueryResult<()> {
    diesel::delete(pending_entries::table)
        .filter(pending_entries::first_position.gt(position))
        .execute(connection)?;
    Ok(())
}

fn checksum(first_position: i64, bytes: &[u8]) -> i64 {
    xxh3_64_with_seed(bytes, first_position.cast_unsigned()).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_covers_the_place_and_the_bytes() {
        let known = checksum(7, b"entries");
        assert_eq!(known, 2_818_221_436_728_656_960, "the file format");
        assert_ne!(known, checksum(8, b"entries"));
        assert_ne!(known, checksum(7, b"entriez"));
    }
}
