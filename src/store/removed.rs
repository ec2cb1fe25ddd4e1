//! Which positions of the log have no row because their messages were removed, in intervals.

use diesel::connection::DefaultLoadingMode;
use diesel::prelude::*;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::error::unreadable;
use super::schema::removed_positions;

/// First and last position.
pub(super) type Interval = (i64, i64);

type Row = (i64, i64, i64);

const COLUMNS: (
    removed_positions::first_position,
    removed_positions::last_position,
    removed_positions::checksum,
) = (
    removed_positions::first_position,
    removed_positions::last_position,
    removed_positions::checksum,
);

/// Whether the message at `position` was removed.
pub(super) fn contains(connection: &mut SqliteConnection, position: i64) -> QueryResult<bool> {
    Ok(interval_with(connection, position)?.is_some())
}

/// The interval in which `position` is, if its message was removed.
pub(super) fn interval_with(
    connection: &mut SqliteConnection,
    position: i64,
) -> QueryResult<Option<Interval>> {
    Ok(last_up_to(connection, position)?.filter(|(_, last)| *last >= position))
}

/// The last interval that does not begin after `position`.
fn last_up_to(connection: &mut SqliteConnection, position: i64) -> QueryResult<Option<Interval>> {
    let row = removed_positions::table
        .filter(removed_positions::first_position.le(position))
        .order(removed_positions::first_position.desc())
        .select(COLUMNS)
        .first::<Row>(connection)
        .optional()?;
    row.map(whole).transpose()
}

/// Adds an interval of which nothing was removed before.
pub(super) fn add(
    connection: &mut SqliteConnection,
    (mut first, mut last): Interval,
) -> QueryResult<()> {
    if let Some(before) = last_up_to(connection, last)? {
        if before.1 >= first {
            return Err(unreadable("removed_positions"));
        }
        if before.1 + 1 == first {
            first = before.0;
        }
    }
    let next = removed_positions::table
        .find(last + 1)
        .select(COLUMNS)
        .first::<Row>(connection)
        .optional()?;
    if let Some(next) = next {
        diesel::delete(removed_positions::table.find(next.0)).execute(connection)?;
        last = whole(next)?.1;
    }
    diesel::replace_into(removed_positions::table)
        .values((
            removed_positions::first_position.eq(first),
            removed_positions::last_position.eq(last),
            removed_positions::checksum.eq(checksum((first, last))),
        ))
        .execute(connection)?;
    Ok(())
}

/// Hands over all intervals in order; `None` for one that is not what was written.
pub(super) fn visit(
    connection: &mut SqliteConnection,
    mut take: impl FnMut(Option<Interval>),
) -> QueryResult<()> {
    let rows = removed_positions::table
        .select(COLUMNS)
        .order(removed_positions::first_position.asc())
        .load_iter::<Row, DefaultLoadingMode>(connection)?;
    for row in rows {
        take(whole(row?).ok());
    }
    Ok(())
}

fn whole((first, last, stored): Row) -> QueryResult<Interval> {
    if stored == checksum((first, last)) && first <= last {
        Ok((first, last))
    } else {
        Err(unreadable("removed_positions"))
    }
}

/// This layout is part of the file format.
fn checksum((first, last): Interval) -> i64 {
    xxh3_64_with_seed(&last.to_le_bytes(), first.cast_unsigned()).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::connection::{migrate, open_writer};

    #[test]
    fn intervals_that_touch_become_one_and_none_is_added_twice() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let database = folder.path().join("database");
        let mut connection = open_writer(&database).expect("opens");
        migrate(&mut connection, &database).expect("up to date");
        for interval in [(5, 6), (1, 2), (9, 9), (3, 3), (7, 8)] {
            add(&mut connection, interval).expect("disjoint");
        }
        let mut all = Vec::new();
        visit(&mut connection, |interval| all.push(interval)).expect("readable");
        assert_eq!(all, [Some((1, 3)), Some((5, 9))]);
        for (position, is_removed) in [(0, false), (1, true), (3, true), (4, false), (10, false)] {
            assert_eq!(contains(&mut connection, position), Ok(is_removed), "{position}");
        }
        for overlapping in [(2, 4), (4, 5), (6, 7), (0, 20)] {
            assert!(add(&mut connection, overlapping).is_err(), "{overlapping:?}");
        }
        assert_eq!(checksum((1, 3)), 8_621_460_444_911_419_473, "the file format");
    }
}
