//! What is kept of single users' mailboxes, in place of what the server keeps.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::time::Duration;

use diesel::connection::DefaultLoadingMode;
use diesel::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::Retention;
use crate::domain::UserId;
use crate::store::error::unreadable;
use crate::store::schema::user_retention;

type Row = (i64, Option<i64>, Option<i64>, Option<i64>, i64);

const COLUMNS: (
    user_retention::user_id,
    user_retention::age_us,
    user_retention::messages,
    user_retention::after_acknowledgement_us,
    user_retention::checksum,
) = (
    user_retention::user_id,
    user_retention::age_us,
    user_retention::messages,
    user_retention::after_acknowledgement_us,
    user_retention::checksum,
);

/// What is kept of this user's mailbox, if that is not what the server keeps.
pub(in crate::store) fn of(
    connection: &mut SqliteConnection,
    user: UserId,
) -> QueryResult<Option<Retention>> {
    let row = user_retention::table.find(user.0).select(COLUMNS).first::<Row>(connection);
    row.optional()?.map(|row| whole(row).map(|(_, keep)| keep)).transpose()
}

/// All of them. A row that is not what was written is an error: it may be what keeps messages.
pub(super) fn all(connection: &mut SqliteConnection) -> QueryResult<BTreeMap<UserId, Retention>> {
    user_retention::table
        .select(COLUMNS)
        .load_iter::<Row, DefaultLoadingMode>(connection)?
        .map(|row| whole(row?))
        .collect()
}

/// Hands over every row's user, and whether it is what was written.
pub(in crate::store) fn visit(
    connection: &mut SqliteConnection,
    mut take: impl FnMut(UserId, bool),
) -> QueryResult<()> {
    let rows =
        user_retention::table.select(COLUMNS).load_iter::<Row, DefaultLoadingMode>(connection)?;
    for row in rows {
        let row = row?;
        take(UserId(row.0), whole(row).is_ok());
    }
    Ok(())
}

/// Sets what is kept of a user's mailbox; `None`: what the server keeps.
pub(in crate::store) fn set(
    connection: &mut SqliteConnection,
    user: UserId,
    keep: Option<&Retention>,
) -> QueryResult<()> {
    let Some(keep) = keep else {
        diesel::delete(user_retention::table.find(user.0)).execute(connection)?;
        return Ok(());
    };
    let columns = columns(keep);
    let [age, messages, after_acknowledgement] = columns;
    diesel::replace_into(user_retention::table)
        .values((
            user_retention::user_id.eq(user.0),
            user_retention::age_us.eq(age),
            user_retention::messages.eq(messages),
            user_retention::after_acknowledgement_us.eq(after_acknowledgement),
            user_retention::checksum.eq(checksum(user.0, columns)),
        ))
        .execute(connection)?;
    Ok(())
}

fn columns(keep: &Retention) -> [Option<i64>; 3] {
    let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    let count = |count: NonZero<u64>| i64::try_from(count.get()).unwrap_or(i64::MAX);
    [keep.age.map(micros), keep.count.map(count), keep.after_acknowledgement.map(micros)]
}

fn whole((user, age, messages, acknowledged, stored): Row) -> QueryResult<(UserId, Retention)> {
    if stored != checksum(user, [age, messages, acknowledged]) {
        return Err(unreadable("user_retention"));
    }
    let time = |micros: i64| Duration::from_micros(micros.unsigned_abs());
    let keep = Retention {
        age: age.map(time),
        count: messages.and_then(|it| NonZero::new(it.unsigned_abs())),
        after_acknowledgement: acknowledged.map(time),
    };
    Ok((UserId(user), keep))
}

/// XXH3-64 over the user and then each number after whether there is one (little endian). This layout is
/// part of the file format.
fn checksum(user: i64, columns: [Option<i64>; 3]) -> i64 {
    let mut bytes = user.to_le_bytes().to_vec();
    for column in columns {
        bytes.push(u8::from(column.is_some()));
        bytes.extend_from_slice(&column.unwrap_or_default().to_le_bytes());
    }
    xxh3_64(&bytes).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_covers_everything() {
        let known = checksum(1, [Some(2), None, Some(3)]);
        assert_eq!(known, 8_282_582_912_983_784_523, "the file format");
        for (user, columns) in [
            (2, [Some(2), None, Some(3)]),
            (1, [None, None, Some(3)]),
            (1, [Some(2), Some(0), Some(3)]),
            (1, [Some(2), None, Some(4)]),
        ] {
            assert_ne!(checksum(user, columns), known, "{user} {columns:?}");
        }
    }
}
