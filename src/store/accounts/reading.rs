//! What is known of users, tokens and invites.

use diesel::prelude::*;

use super::audit::{self, AuditCursor, AuditEntry};
use super::invites::{self, InviteInfo};
use super::tokens::{self, TokenInfo, TokenOwner};
use crate::domain::limits::NOTE_CHARACTERS_MAX;
use crate::domain::{
    AccessId, Label, PeerAddress, Standing, Timestamp, TokenHash, User, UserId, Username,
    UsernamePrefix,
};
use crate::store::directory::{self, unreadable};
use crate::store::error::failed;
use crate::store::schema::users;
use crate::store::{Store, StoreError};

/// A user as an operator sees them; those who are gone too.
#[derive(Debug, Clone)]
pub struct Account {
    /// Who it is.
    pub user: User,
    /// What they may do.
    pub standing: Standing,
    /// When that last changed; `None`: never.
    pub standing_time: Option<Timestamp>,
    /// Why, as far as an operator said so.
    pub reason: Label,
    /// Where they can be reached; `None` for one who is gone.
    pub address: Option<PeerAddress>,
    /// When the name was registered.
    pub register_time: Timestamp,
    /// When they were last there.
    pub last_seen_time: Option<Timestamp>,
}

/// A page of the audit log, each entry with the cursor that goes on after it.
pub type AuditPage = Vec<(AuditCursor, AuditEntry)>;

#[derive(Queryable, Selectable)]
#[diesel(table_name = users)]
#[diesel(check_for_backend(diesel::sqlite::Sqlite))]
struct Row {
    id: i64,
    name: String,
    ip_address: String,
    register_time_us: i64,
    last_seen_time_us: Option<i64>,
    standing: i64,
    standing_time_us: Option<i64>,
    standing_reason: String,
    standing_checksum: Option<i64>,
}

impl Row {
    fn into_account(self) -> QueryResult<Account> {
        let standing = directory::standing_of(self.id, self.standing, self.standing_checksum)?;
        let address = match standing {
            Standing::Deleted => None,
            Standing::Active | Standing::Banned => Some(
                PeerAddress::parse(&self.ip_address)
                    .map_err(|e| unreadable("users.ip_address", &e))?,
            ),
        };
        let reason = Label::parse(&self.standing_reason, NOTE_CHARACTERS_MAX);
        Ok(Account {
            user: directory::user((self.id, self.name))?,
            standing,
            standing_time: self.standing_time_us.map(Timestamp::from_micros),
            reason: reason.map_err(|e| unreadable("users.standing_reason", &e))?,
            address,
            register_time: Timestamp::from_micros(self.register_time_us),
            last_seen_time: self.last_seen_time_us.map(Timestamp::from_micros),
        })
    }
}

/// The account of this name.
pub(in crate::store) fn account(
    connection: &mut SqliteConnection,
    name: &Username,
) -> QueryResult<Option<Account>> {
    let row = users::table
        .filter(users::name_key.eq(name.key()))
        .select(Row::as_select())
        .first(connection)
        .optional()?;
    let account = row.map(Row::into_account).transpose()?;
    match account {
        // The index of names can be damaged, and lead to another.
        Some(account) if account.user.name.key() != name.key() => {
            Err(crate::store::error::unreadable("users.name_key"))
        }
        account => Ok(account),
    }
}

fn accounts(
    connection: &mut SqliteConnection,
    prefix: &UsernamePrefix,
    after: &str,
    limit: i64,
) -> QueryResult<Vec<Account>> {
    let rows = users::table
        .filter(users::name_key.ge(prefix.as_str()))
        .filter(users::name_key.lt(directory::end_of(prefix)))
        .filter(users::name_key.gt(after))
        .order(users::name_key.asc())
        .limit(limit)
        .select(Row::as_select())
        .load(connection)?;
    rows.into_iter().map(Row::into_account).collect()
}

fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

impl Store {
    /// To whom a token belongs.
    ///
    /// # Errors
    /// Only the storage's.
    pub async fn find_by_token(&self, token: TokenHash) -> Result<Option<TokenOwner>, StoreError> {
        let owner = move |c: &mut _| tokens::owner(c, &token).map_err(failed);
        self.0.token_readers.read(owner).await
    }

    /// A user's tokens, the oldest first.
    ///
    /// # Errors
    /// Only the storage's.
    pub async fn tokens(&self, user: UserId) -> Result<Vec<TokenInfo>, StoreError> {
        self.0.readers.read(move |c| tokens::of_user(c, user).map_err(failed)).await
    }

    /// The account of this name, and how many tokens it has.
    ///
    /// # Errors
    /// Only the storage's.
    pub async fn account(&self, name: Username) -> Result<Option<(Account, usize)>, StoreError> {
        let read = move |c: &mut SqliteConnection| {
            let Some(account) = account(c, &name)? else { return Ok(None) };
            let tokens = tokens::of_user(c, account.user.id)?.len();
            Ok(Some((account, tokens)))
        };
        self.0.readers.read(move |c| read(c).map_err(failed)).await
    }

    /// At most `limit` accounts whose names begin with `prefix`, after the key `after`.
    ///
    /// # Errors
    /// Only the storage's.
    pub async fn accounts(
        &self,
        prefix: UsernamePrefix,
        after: String,
        limit: usize,
    ) -> Result<Vec<Account>, StoreError> {
        let read = move |c: &mut _| accounts(c, &prefix, &after, count(limit)).map_err(failed);
        self.0.readers.read(read).await
    }

    /// At most `limit` invites after the one of this id, the oldest first.
    ///
    /// # Errors
    /// Only the storage's.
    pub async fn invites(
        &self,
        after: Option<AccessId>,
        limit: usize,
    ) -> Result<Vec<InviteInfo>, StoreError> {
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        self.0.readers.read(move |c| invites::list(c, &after, count(limit)).map_err(failed)).await
    }

    /// At most `limit` entries of the audit log after `cursor`, in order of their times.
    ///
    /// # Errors
    /// Only the storage's.
    pub async fn audit(&self, cursor: AuditCursor, limit: usize) -> Result<AuditPage, StoreError> {
        self.0.readers.read(move |c| audit::list(c, cursor, count(limit)).map_err(failed)).await
    }
}
