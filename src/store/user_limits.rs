//! What an operator set for single users.

use std::num::NonZero;
use std::sync::Arc;

use diesel::connection::DefaultLoadingMode;
use diesel::prelude::*;
use diesel::result::Error as DieselError;
use tracing::error;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Store;
use super::accounts::audit::Actor;
use super::error::{StoreError, failed, is_damage, unreadable};
use super::schema::user_limits;
use super::writer::SetUserLimits;
use crate::domain::{User, UserId, UserLimits};

/// The columns beside the user.
type Columns = (Option<String>, Option<i64>, Option<i64>);

/// A row: the user, the columns, the checksum.
type Row = (i64, Option<String>, Option<i64>, Option<i64>, i64);

impl Store {
    /// Sets what holds for a user alone, in place of what was set before, which the audit log notes. `stored` is called when it is on
    /// disk, on the writing thread and in the order of writing, whether the caller is still there or not;
    /// it must not block.
    ///
    /// # Errors
    /// Only the storage's.
    pub async fn set_user_limits(
        &self,
        user: User,
        limits: UserLimits,
        by: Actor,
        stored: impl Fn() + Send + Sync + 'static,
    ) -> Result<(), StoreError> {
        let write = SetUserLimits { user, limits, by, stored: Arc::new(stored) };
        self.0.writes.submit(write).await?.answer().await
    }

    /// All that is set for single users. What is damaged is left out and logged.
    ///
    /// # Errors
    /// Only the storage's.
    pub async fn user_limits(&self) -> Result<Vec<(UserId, UserLimits)>, StoreError> {
        self.0.readers.read(|c| all(c).map_err(failed)).await
    }
}

fn all(connection: &mut SqliteConnection) -> QueryResult<Vec<(UserId, UserLimits)>> {
    let rows = user_limits::table.load_iter::<Row, DefaultLoadingMode>(connection)?;
    let mut all = Vec::new();
    for row in rows {
        match row.and_then(parse) {
            Ok(limits) => all.push(limits),
            Err(error) if is_damage(&error) => {
                error!(%error, "limits of a user are damaged and do not hold; set them again");
                // After a page that SQLite cannot read there is nothing more.
                if matches!(error, DieselError::DatabaseError(..)) {
                    break;
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Writes what is set for a user; nothing is no row.
pub(super) fn put(
    connection: &mut SqliteConnection,
    user: UserId,
    limits: &UserLimits,
) -> QueryResult<()> {
    diesel::delete(user_limits::table.find(user.0)).execute(connection)?;
    if limits.is_empty() {
        return Ok(());
    }
    let columns = columns(limits);
    let checksum = checksum(user.0, &columns);
    let (send_rate, send_burst, subscriptions) = columns;
    diesel::insert_into(user_limits::table)
        .values((
            user_limits::user_id.eq(user.0),
            user_limits::send_rate.eq(send_rate),
            user_limits::send_burst.eq(send_burst),
            user_limits::subscriptions.eq(subscriptions),
            user_limits::checksum.eq(checksum),
        ))
        .execute(connection)?;
    Ok(())
}

fn columns(limits: &UserLimits) -> Columns {
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    (
        limits.send_rate.map(|rate| rate.to_string()),
        limits.send_burst.map(|burst| burst.get().into()),
        limits.subscriptions.map(|subscriptions| count(subscriptions.get())),
    )
}

fn parse(
    (user, send_rate, send_burst, subscriptions, stored): Row,
) -> QueryResult<(UserId, UserLimits)> {
    let columns = (send_rate, send_burst, subscriptions);
    if stored != checksum(user, &columns) {
        return Err(unreadable("user_limits"));
    }
    let (send_rate, send_burst, subscriptions) = columns;
    let limits = UserLimits {
        send_rate: send_rate
            .map(|text| text.parse().map_err(|_| unreadable("user_limits.send_rate")))
            .transpose()?,
        send_burst: parse_count(send_burst, "user_limits.send_burst", NonZero::<u32>::new)?,
        subscriptions: parse_count(
            subscriptions,
            "user_limits.subscriptions",
            NonZero::<usize>::new,
        )?,
    };
    Ok((UserId(user), limits))
}

fn parse_count<N: TryFrom<i64>, T>(
    stored: Option<i64>,
    column: &str,
    some: impl FnOnce(N) -> Option<T>,
) -> QueryResult<Option<T>> {
    let Some(stored) = stored else { return Ok(None) };
    let count = N::try_from(stored).ok().and_then(some);
    count.map(Some).ok_or_else(|| unreadable(column))
}

/// This layout is part of the file format: each column as text, nothing for none, and a zero after it.
fn checksum(user: i64, (send_rate, send_burst, subscriptions): &Columns) -> i64 {
    let text = |number: &Option<i64>| number.map(|it| it.to_string()).unwrap_or_default();
    let send_rate = send_rate.as_deref().unwrap_or_default();
    let row = format!("{send_rate}\0{}\0{}\0", text(send_burst), text(subscriptions));
    xxh3_64_with_seed(row.as_bytes(), user.cast_unsigned()).cast_signed()
}

/// The users whose rows are not what was written, and those who are not there (`is_known`).
pub(super) fn examine(
    connection: &mut SqliteConnection,
    is_known: impl Fn(i64) -> bool,
    mut found: impl FnMut(i64, &'static str),
) -> QueryResult<()> {
    // A backup of an earlier version has no such table.
    let is_there = "EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'user_limits')";
    let is_there = diesel::dsl::sql::<diesel::sql_types::Bool>(is_there);
    if !diesel::select(is_there).get_result::<bool>(connection)? {
        return Ok(());
    }
    for row in user_limits::table.load_iter::<Row, DefaultLoadingMode>(connection)? {
        let row = row?;
        let user = row.0;
        if parse(row).is_err() {
            found(user, "the limits that are set for them are not what was written");
        } else if !is_known(user) {
            found(user, "limits are set for them, and they are not there");
        }
    }
    Ok(())
}
