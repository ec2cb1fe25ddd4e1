//! How far retention has come: one row.

use diesel::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use crate::store::error::unreadable;
use crate::store::schema::retention_state;

/// How far retention has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::store) struct State {
    /// The mailboxes of all messages up to this position were held against the bound below.
    pub(in crate::store) scanned_through: i64,
    /// The server's bound of messages in a mailbox then; 0 for none.
    pub(in crate::store) scanned_count: i64,
    /// The request keys up to this one were looked through; `None` when that is not under way.
    pub(in crate::store) swept_key: Option<i64>,
    /// The rows removed from the log since looking through the request keys began the last time.
    pub(in crate::store) removed_unswept: i64,
    /// The rows removed from the log in all.
    pub(in crate::store) removed_total: i64,
}

/// The state; the default before the first change. One that is not what was written is an error.
pub(in crate::store) fn read(connection: &mut SqliteConnection) -> QueryResult<State> {
    type Row = (i64, i64, Option<i64>, i64, i64, i64);
    let row = retention_state::table
        .select((
            retention_state::scanned_through,
            retention_state::scanned_count,
            retention_state::swept_key,
            retention_state::removed_unswept,
            retention_state::removed_total,
            retention_state::checksum,
        ))
        .first::<Row>(connection)
        .optional()?;
    let Some(row) = row else { return Ok(State::default()) };
    let (scanned_through, scanned_count, swept_key, removed_unswept, removed_total, stored) = row;
    let state = State { scanned_through, scanned_count, swept_key, removed_unswept, removed_total };
    if stored == checksum(&state) { Ok(state) } else { Err(unreadable("retention_state")) }
}

/// Changes the state, in the caller's transaction.
pub(in crate::store) fn change(
    connection: &mut SqliteConnection,
    change: impl FnOnce(&mut State),
) -> QueryResult<()> {
    let mut state = read(connection)?;
    change(&mut state);
    diesel::replace_into(retention_state::table)
        .values((
            retention_state::id.eq(1),
            retention_state::scanned_through.eq(state.scanned_through),
            retention_state::scanned_count.eq(state.scanned_count),
            retention_state::swept_key.eq(state.swept_key),
            retention_state::removed_unswept.eq(state.removed_unswept),
            retention_state::removed_total.eq(state.removed_total),
            retention_state::checksum.eq(checksum(&state)),
        ))
        .execute(connection)?;
    Ok(())
}

/// XXH3-64 over the numbers (little endian), the key after whether there is one. This layout is part of the
/// file format.
fn checksum(state: &State) -> i64 {
    let numbers = [
        state.scanned_through,
        state.scanned_count,
        i64::from(state.swept_key.is_some()),
        state.swept_key.unwrap_or_default(),
        state.removed_unswept,
        state.removed_total,
    ];
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    xxh3_64(&bytes).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_covers_everything() {
        let state = State {
            scanned_through: 1,
            scanned_count: 2,
            swept_key: Some(3),
            removed_unswept: 4,
            removed_total: 5,
        };
        let known = checksum(&state);
        assert_eq!(known, -3_913_118_596_268_649_525, "the file format");
        for other in [
            State { scanned_through: 9, ..state },
            State { scanned_count: 9, ..state },
            State { swept_key: None, ..state },
            State { swept_key: Some(0), ..state },
            State { removed_unswept: 9, ..state },
            State { removed_total: 9, ..state },
        ] {
            assert_ne!(checksum(&other), known, "{other:?}");
        }
    }
}
