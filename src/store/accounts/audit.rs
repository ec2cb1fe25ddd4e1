//! The audit log: who did what to whose access.

use std::fmt;

use diesel::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use crate::domain::{Timestamp, User, Username};
use crate::store::error::unreadable;
use crate::store::schema::audit_log;

/// The acts of users that are kept; the oldest go. An operator's are kept for ever, so that no user can
/// crowd them out.
const USER_ACTS_MAX: i64 = 1_000_000;

/// Who acts.
#[derive(Debug, Clone)]
pub enum Actor {
    /// A user, for themselves.
    User(User),
    /// Whoever registers this name with an invite.
    Invited(Username),
    /// An operator, over the admin socket: a user of the server's machine.
    Operator {
        /// Their number there.
        uid: u32,
    },
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(User { name, .. }) | Self::Invited(name) => write!(f, "user:{name}"),
            Self::Operator { uid } => write!(f, "uid:{uid}"),
        }
    }
}

/// An act, as it is noted.
#[derive(Debug, Clone)]
pub struct Act {
    /// Who did it.
    pub actor: Actor,
    /// What, such as `token.create`.
    pub act: &'static str,
    /// To whom, or to which invite.
    pub subject: String,
    /// What else there is to say. Never a secret.
    pub details: String,
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When it was done.
    pub time: Timestamp,
    /// Who did it: `uid:…` or `user:…`.
    pub actor: String,
    /// What.
    pub act: String,
    /// To whom, or to which invite.
    pub subject: String,
    /// What else there is to say.
    pub details: String,
}

/// Where a page of the log begins: after this entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuditCursor {
    /// When it was.
    pub time: Timestamp,
    /// Whether it is an operator's.
    pub by_operator: bool,
    /// Its number among those.
    pub number: i64,
}

impl AuditCursor {
    /// Before all that was done at this time or later.
    pub fn since(time: Timestamp) -> Self {
        Self { time, by_operator: false, number: 0 }
    }
}

type Row = (i64, i64, i64, String, String, String, String, i64);

/// Notes an act, in the transaction of the act.
pub(in crate::store) fn note(
    connection: &mut SqliteConnection,
    act: &Act,
    now: Timestamp,
) -> QueryResult<()> {
    let by_operator = i64::from(matches!(act.actor, Actor::Operator { .. }));
    let of_kind = audit_log::table.filter(audit_log::by_operator.eq(by_operator));
    let last: Option<i64> =
        of_kind.select(diesel::dsl::max(audit_log::number)).get_result(connection)?;
    let number = last.unwrap_or(0) + 1;
    let (actor, time) = (act.actor.to_string(), now.as_micros());
    let texts = [actor.as_str(), act.act, &act.subject, &act.details];
    diesel::insert_into(audit_log::table)
        .values((
            audit_log::by_operator.eq(by_operator),
            audit_log::number.eq(number),
            audit_log::time_us.eq(time),
            audit_log::actor.eq(&actor),
            audit_log::act.eq(act.act),
            audit_log::subject.eq(&act.subject),
            audit_log::details.eq(&act.details),
            audit_log::checksum.eq(checksum([by_operator, number, time], texts)),
        ))
        .execute(connection)?;
    if by_operator == 0 && number > USER_ACTS_MAX {
        let oldest = audit_log::table
            .filter(audit_log::by_operator.eq(0))
            .filter(audit_log::number.le(number - USER_ACTS_MAX));
        diesel::delete(oldest).execute(connection)?;
    }
    Ok(())
}

/// This layout is part of the file format.
fn checksum(numbers: [i64; 3], texts: [&str; 4]) -> i64 {
    let mut bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    for text in texts {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    }
    xxh3_64(&bytes).cast_signed()
}

/// At most `limit` entries after `cursor`, in order of their times. It looks through the whole log.
pub(in crate::store) fn list(
    connection: &mut SqliteConnection,
    cursor: AuditCursor,
    limit: i64,
) -> QueryResult<Vec<(AuditCursor, AuditEntry)>> {
    let (time, by_operator) = (cursor.time.as_micros(), i64::from(cursor.by_operator));
    let of_its_time = audit_log::time_us.eq(time).and(
        audit_log::by_operator
            .gt(by_operator)
            .or(audit_log::by_operator.eq(by_operator).and(audit_log::number.gt(cursor.number))),
    );
    let rows: Vec<Row> = audit_log::table
        .filter(audit_log::time_us.gt(time).or(of_its_time))
        .order((audit_log::time_us.asc(), audit_log::by_operator.asc(), audit_log::number.asc()))
        .limit(limit)
        .load(connection)?;
    rows.into_iter().map(entry).collect()
}

fn entry(row: Row) -> QueryResult<(AuditCursor, AuditEntry)> {
    let (by_operator, number, time, actor, act, subject, details, stored) = row;
    if stored != checksum([by_operator, number, time], [&actor, &act, &subject, &details]) {
        return Err(unreadable("audit_log"));
    }
    let time = Timestamp::from_micros(time);
    let cursor = AuditCursor { time, by_operator: by_operator != 0, number };
    Ok((cursor, AuditEntry { time, actor, act, subject, details }))
}

/// The numbers of the rows that are not what was written.
pub(in crate::store) fn damaged_rows(connection: &mut SqliteConnection) -> QueryResult<Vec<i64>> {
    let rows =
        audit_log::table.load_iter::<Row, diesel::connection::DefaultLoadingMode>(connection)?;
    let mut damaged = Vec::new();
    for row in rows {
        let row = row?;
        let number = row.1;
        if entry(row).is_err() {
            damaged.push(number);
        }
    }
    Ok(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_files_that_there_are() {
        let texts = ["user:alice", "token.create", "alice", ""];
        assert_eq!(checksum([0, 1, 1_700_000_000_000_000], texts), 1_961_862_159_068_719_402);
    }
}
