//! Where mailboxes begin: those that have lost entries have a row, the others begin with 1.
//!
//! A beginning only moves forward, and nothing below it is served from the commit on that moved it. What
//! that leaves in the log is removed later, in steps of its own.

use std::collections::HashMap;

use diesel::connection::DefaultLoadingMode;
use diesel::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::error::unreadable;
use super::index::Placement;
use super::schema::mailboxes;
use crate::domain::{Sequence, UserId};

/// Where a mailbox begins, and how far what is below that is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Floor {
    /// The first sequence that it has.
    pub(super) first: i64,
    /// The entries up to here were looked at: their messages are gone, or another mailbox has them.
    pub(super) removed_through: i64,
}

impl Floor {
    /// Of a mailbox that has lost nothing.
    const NONE: Self = Self { first: 1, removed_through: 0 };
}

type Row = (i64, i64, i64, i64);

const COLUMNS: (
    mailboxes::owner_id,
    mailboxes::first_sequence,
    mailboxes::removed_through,
    mailboxes::checksum,
) = (
    mailboxes::owner_id,
    mailboxes::first_sequence,
    mailboxes::removed_through,
    mailboxes::checksum,
);

/// The first sequence of `owner`'s mailbox.
pub(super) fn first(connection: &mut SqliteConnection, owner: UserId) -> QueryResult<Sequence> {
    let first = floor(connection, owner)?.first;
    Sequence::parse(first).map_err(|_| unreadable("mailboxes.first_sequence"))
}

/// Where `owner`'s mailbox begins. A row that is not what was written is an error: with another beginning
/// messages would be hidden, or served after they were removed.
pub(super) fn floor(connection: &mut SqliteConnection, owner: UserId) -> QueryResult<Floor> {
    let row = mailboxes::table.find(owner.0).select(COLUMNS).first::<Row>(connection).optional()?;
    row.map_or(Ok(Floor::NONE), |row| whole(row).map(|(_, floor)| floor))
}

/// Lets `owner`'s mailbox begin with `first`, unless it does later already. Whether it has moved.
pub(super) fn raise(
    connection: &mut SqliteConnection,
    owner: UserId,
    first: i64,
) -> QueryResult<bool> {
    let floor = floor(connection, owner)?;
    if first <= floor.first {
        return Ok(false);
    }
    put(connection, owner, Floor { first, ..floor })?;
    Ok(true)
}

/// Notes that the entries `from..=through`, all below the beginning, were looked at. How far that is so
/// for all.
pub(super) fn settle(
    connection: &mut SqliteConnection,
    owner: UserId,
    (from, through): (i64, i64),
) -> QueryResult<i64> {
    let floor = floor(connection, owner)?;
    let through = through.min(floor.first - 1);
    // Before `from` there are some that were not.
    if from > floor.removed_through + 1 || through <= floor.removed_through {
        return Ok(floor.removed_through);
    }
    put(connection, owner, Floor { removed_through: through, ..floor })?;
    Ok(through)
}

/// Some mailboxes, by their owners' numbers after `after`, in which entries are still to be looked at.
pub(super) fn unsettled(
    connection: &mut SqliteConnection,
    after: UserId,
    limit: i64,
) -> QueryResult<Vec<(UserId, Floor)>> {
    mailboxes::table
        .filter(mailboxes::owner_id.gt(after.0))
        .filter(mailboxes::removed_through.lt(mailboxes::first_sequence - 1))
        .order(mailboxes::owner_id.asc())
        .limit(limit)
        .select(COLUMNS)
        .load_iter::<Row, DefaultLoadingMode>(connection)?
        .map(|row| whole(row?))
        .collect()
}

/// Where all mailboxes begin that have lost entries.
pub(super) struct Floors(HashMap<UserId, Floor>);

impl Floors {
    pub(super) fn load(connection: &mut SqliteConnection) -> QueryResult<Self> {
        let rows = mailboxes::table.select(COLUMNS);
        let rows = rows.load_iter::<Row, DefaultLoadingMode>(connection)?;
        Ok(Self(rows.map(|row| whole(row?)).collect::<QueryResult<_>>()?))
    }

    /// Takes the entries out of `placements` that their mailboxes have lost.
    pub(super) fn leave_out(&self, placements: &mut [Placement]) {
        if self.0.is_empty() {
            return;
        }
        let is_lost = |owner: UserId, sequence| {
            self.0.get(&owner).is_some_and(|floor| sequence < floor.first)
        };
        for it in placements {
            if is_lost(it.sender, it.sender_sequence) {
                it.sender_sequence = 0;
            }
            if is_lost(it.receiver, it.receiver_sequence) {
                it.receiver_sequence = 0;
            }
        }
    }
}

/// Notes of all mailboxes that every entry that they have lost was looked at.
pub(super) fn settle_all(connection: &mut SqliteConnection) -> QueryResult<()> {
    for (owner, floor) in Floors::load(connection)?.0 {
        put(connection, owner, Floor { removed_through: floor.first - 1, ..floor })?;
    }
    Ok(())
}

/// Hands over every mailbox that has lost entries; `None` for a row that is not what was written.
pub(super) fn visit(
    connection: &mut SqliteConnection,
    mut take: impl FnMut(UserId, Option<Floor>),
) -> QueryResult<()> {
    let rows = mailboxes::table
        .select(COLUMNS)
        .order(mailboxes::owner_id.asc())
        .load_iter::<Row, DefaultLoadingMode>(connection)?;
    for row in rows {
        let row = row?;
        take(UserId(row.0), whole(row).ok().map(|(_, floor)| floor));
    }
    Ok(())
}

fn whole((owner, first, removed_through, stored): Row) -> QueryResult<(UserId, Floor)> {
    let floor = Floor { first, removed_through };
    if stored == checksum(owner, floor) && first > removed_through && removed_through >= 0 {
        Ok((UserId(owner), floor))
    } else {
        Err(unreadable("mailboxes"))
    }
}

fn put(connection: &mut SqliteConnection, owner: UserId, floor: Floor) -> QueryResult<()> {
    diesel::replace_into(mailboxes::table)
        .values((
            mailboxes::owner_id.eq(owner.0),
            mailboxes::first_sequence.eq(floor.first),
            mailboxes::removed_through.eq(floor.removed_through),
            mailboxes::checksum.eq(checksum(owner.0, floor)),
        ))
        .execute(connection)?;
    Ok(())
}

/// XXH3-64 over the three numbers (little endian). This layout is part of the file format.
fn checksum(owner: i64, floor: Floor) -> i64 {
    let mut bytes = [0; 24];
    let numbers = [owner, floor.first, floor.removed_through];
    for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    xxh3_64(&bytes).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_covers_every_number() {
        let floor = Floor { first: 7, removed_through: 3 };
        let known = checksum(1, floor);
        assert_eq!(known, 8_693_968_685_239_051_786, "the file format");
        assert_ne!(known, checksum(2, floor));
        assert_ne!(known, checksum(1, Floor { first: 8, ..floor }));
        assert_ne!(known, checksum(1, Floor { removed_through: 4, ..floor }));
    }
}
