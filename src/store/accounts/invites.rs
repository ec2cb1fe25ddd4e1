//! Invites: what lets new names in.

use diesel::prelude::*;
use diesel::result::Error as DieselError;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use crate::domain::limits::NOTE_CHARACTERS_MAX;
use crate::domain::{AccessId, InviteHash, Label, Timestamp};
use crate::store::directory::unreadable;
use crate::store::schema::invites;

/// An invite to be entered.
#[derive(Debug, Clone)]
pub struct NewInvite {
    /// Under which it is named.
    pub id: AccessId,
    /// By which it is known.
    pub hash: InviteHash,
    /// What it is for.
    pub note: Label,
    /// How many names it lets in.
    pub uses_max: u32,
    /// From when on it is good no more; `None`: never.
    pub expire_time: Option<Timestamp>,
}

/// An invite as it is stored.
#[derive(Debug, Clone)]
pub struct InviteInfo {
    /// Under which it is named.
    pub id: AccessId,
    /// What it is for.
    pub note: Label,
    /// When it was made.
    pub create_time: Timestamp,
    /// From when on it is good no more.
    pub expire_time: Option<Timestamp>,
    /// How many names it lets in.
    pub uses_max: u32,
    /// How many it has let in.
    pub uses: u32,
}

/// Why an invite lets nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InviteProblem {
    /// There is none.
    #[error("a new name needs an invite here")]
    Missing,
    /// It is not one of this server's, or was revoked.
    #[error("the invite is not one of this server's")]
    Unknown,
    /// It has let in as many as it was for.
    #[error("the invite is used up")]
    UsedUp,
    /// It is over.
    #[error("the invite has expired")]
    Expired,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = invites)]
#[diesel(check_for_backend(diesel::sqlite::Sqlite))]
struct Row {
    hash: Vec<u8>,
    invite_id: String,
    note: String,
    create_time_us: i64,
    expire_time_us: Option<i64>,
    uses_max: i64,
    uses: i64,
    checksum: i64,
}

impl Row {
    fn into_info(self) -> QueryResult<InviteInfo> {
        if self.checksum != checksum(&self.hash, self.expire_time_us, self.uses_max, self.uses) {
            return Err(damaged("an invite is not what was written"));
        }
        let id = AccessId::parse(&self.invite_id);
        let note = Label::parse(&self.note, NOTE_CHARACTERS_MAX);
        let count = |count: i64| u32::try_from(count).map_err(|_| damaged("invites.uses is none"));
        Ok(InviteInfo {
            id: id.map_err(|e| unreadable("invites.invite_id", &e))?,
            note: note.map_err(|e| unreadable("invites.note", &e))?,
            create_time: Timestamp::from_micros(self.create_time_us),
            expire_time: self.expire_time_us.map(Timestamp::from_micros),
            uses_max: count(self.uses_max)?,
            uses: count(self.uses)?,
        })
    }
}

/// This layout is part of the file format.
fn checksum(hash: &[u8], expire_time_us: Option<i64>, uses_max: i64, uses: i64) -> i64 {
    let has_expiry = [u8::from(expire_time_us.is_some())];
    let expire_time = expire_time_us.unwrap_or_default().to_le_bytes();
    let counts = [uses_max.to_le_bytes(), uses.to_le_bytes()].concat();
    xxh3_64(&[hash, &has_expiry, &expire_time, &counts].concat()).cast_signed()
}

/// Enters an invite.
pub(in crate::store) fn insert(
    connection: &mut SqliteConnection,
    invite: &NewInvite,
    now: Timestamp,
) -> QueryResult<()> {
    let hash = invite.hash.as_bytes();
    let expire_time = invite.expire_time.map(Timestamp::as_micros);
    let uses_max = i64::from(invite.uses_max);
    diesel::insert_into(invites::table)
        .values((
            invites::hash.eq(hash),
            invites::invite_id.eq(invite.id.to_string()),
            invites::note.eq(invite.note.as_str()),
            invites::create_time_us.eq(now.as_micros()),
            invites::expire_time_us.eq(expire_time),
            invites::uses_max.eq(uses_max),
            invites::uses.eq(0),
            invites::checksum.eq(checksum(hash, expire_time, uses_max, 0)),
        ))
        .execute(connection)?;
    Ok(())
}

/// The invite of this hash, if it lets one more in now.
pub(in crate::store) fn good(
    connection: &mut SqliteConnection,
    hash: &InviteHash,
    now: Timestamp,
) -> QueryResult<Result<InviteInfo, InviteProblem>> {
    let row = invites::table.find(hash.as_bytes()).select(Row::as_select()).first(connection);
    let Some(row) = row.optional()? else { return Ok(Err(InviteProblem::Unknown)) };
    let invite = row.into_info()?;
    Ok(if invite.expire_time.is_some_and(|time| time <= now) {
        Err(InviteProblem::Expired)
    } else if invite.uses >= invite.uses_max {
        Err(InviteProblem::UsedUp)
    } else {
        Ok(invite)
    })
}

/// Counts a use of an invite that is [`good`].
pub(in crate::store) fn take(
    connection: &mut SqliteConnection,
    hash: &InviteHash,
    invite: &InviteInfo,
) -> QueryResult<()> {
    let (uses_max, uses) = (i64::from(invite.uses_max), i64::from(invite.uses) + 1);
    let expire_time = invite.expire_time.map(Timestamp::as_micros);
    diesel::update(invites::table.find(hash.as_bytes()))
        .set((
            invites::uses.eq(uses),
            invites::checksum.eq(checksum(hash.as_bytes(), expire_time, uses_max, uses)),
        ))
        .execute(connection)?;
    Ok(())
}

/// At most `limit` invites after the id `after`, the oldest first.
pub(in crate::store) fn list(
    connection: &mut SqliteConnection,
    after: &str,
    limit: i64,
) -> QueryResult<Vec<InviteInfo>> {
    let rows = invites::table
        .filter(invites::invite_id.gt(after))
        .order(invites::invite_id.asc())
        .limit(limit)
        .select(Row::as_select())
        .load(connection)?;
    rows.into_iter().map(Row::into_info).collect()
}

/// Removes an invite. Whether it was there.
pub(in crate::store) fn remove(
    connection: &mut SqliteConnection,
    id: AccessId,
) -> QueryResult<bool> {
    let removed = diesel::delete(invites::table.filter(invites::invite_id.eq(id.to_string())));
    Ok(removed.execute(connection)? > 0)
}

/// How many rows are not what was written.
pub(in crate::store) fn damaged_rows(
    connection: &mut SqliteConnection,
) -> QueryResult<Vec<String>> {
    let rows = invites::table
        .select(Row::as_select())
        .load_iter::<Row, diesel::connection::DefaultLoadingMode>(connection)?;
    let mut damaged = Vec::new();
    for row in rows {
        let row = row?;
        let id = row.invite_id.clone();
        if row.into_info().is_err() {
            damaged.push(id);
        }
    }
    Ok(damaged)
}

fn damaged(what: &str) -> DieselError {
    DieselError::DeserializationError(what.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_files_that_there_are() {
        assert_eq!(checksum(&[7; 32], None, 3, 1), -8_379_985_482_452_633_705);
    }
}
