//! Users and tokens: who is who.

use std::sync::Arc;

use diesel::prelude::*;
use diesel::result::Error as DieselError;
use quick_cache::sync::Cache;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::schema::{mailboxes, tokens, users};
use crate::domain::{
    PeerAddress, Profile, Sequence, Timestamp, TokenHash, User, UserId, Username, UsernamePrefix,
};

/// Who is who, as remembered: a user's number and name never change, so nothing here grows old.
/// Absence is not remembered.
#[derive(Clone)]
pub(super) struct Directory {
    by_id: Arc<Cache<UserId, User>>,
    by_key: Arc<Cache<String, User>>,
}

/// The users that are remembered, by number and again by name: about 200 bytes each, as they come.
const USERS_REMEMBERED_MAX: usize = 262_144;

/// A user's row with what the domain has no word for.
#[derive(Queryable, Selectable)]
#[diesel(table_name = users)]
#[diesel(check_for_backend(diesel::sqlite::Sqlite))]
struct UserRow {
    id: i64,
    name: String,
    ip_address: String,
    register_time_us: i64,
    last_seen_time_us: Option<i64>,
}

/// Comes after every character that a name can have.
const AFTER_EVERY_NAME: char = '~';

impl Directory {
    pub(super) fn new() -> Self {
        Self {
            by_id: Arc::new(Cache::new(USERS_REMEMBERED_MAX)),
            by_key: Arc::new(Cache::new(USERS_REMEMBERED_MAX)),
        }
    }

    /// The user of this name, if remembered.
    pub(super) fn remembered(&self, name: &Username) -> Option<User> {
        self.by_key.get(&name.key())
    }

    /// The user of this name.
    pub(super) fn by_name(
        &self,
        connection: &mut SqliteConnection,
        name: &Username,
    ) -> QueryResult<Option<User>> {
        let key = name.key();
        if let Some(user) = self.by_key.get(&key) {
            return Ok(Some(user));
        }
        let found = users::table
            .filter(users::name_key.eq(&key))
            .select((users::id, users::name))
            .first(connection)
            .optional()?;
        let user = found.map(|row| user_of_key(row, &key)).transpose()?;
        if let Some(user) = &user {
            self.by_key.insert(key, user.clone());
        }
        Ok(user)
    }

    /// The user of this number.
    pub(super) fn by_id(
        &self,
        connection: &mut SqliteConnection,
        id: UserId,
    ) -> QueryResult<Option<User>> {
        if let Some(user) = self.by_id.get(&id) {
            return Ok(Some(user));
        }
        let found = users::table
            .find(id.0)
            .select((users::id, users::name))
            .first(connection)
            .optional()?;
        let user = found.map(user).transpose()?;
        if let Some(user) = &user {
            self.by_id.insert(id, user.clone());
        }
        Ok(user)
    }
}

fn user((id, name): (i64, String)) -> QueryResult<User> {
    let name = Username::parse(&name).map_err(|e| unreadable("users.name", &e))?;
    Ok(User { id: UserId(id), name })
}

/// The user to whom the index of names leads from `key`. It can be damaged, and lead to another: what is
/// meant for one must not go to the other.
fn user_of_key(row: (i64, String), key: &str) -> QueryResult<User> {
    let found = user(row)?;
    if found.name.key() == key {
        Ok(found)
    } else {
        Err(DieselError::DeserializationError("users.name_key leads to another user".into()))
    }
}

/// A value that this code would not have written.
fn unreadable(column: &str, error: &dyn std::error::Error) -> DieselError {
    DieselError::DeserializationError(format!("{column} {error}").into())
}

impl UserRow {
    fn into_profile(self) -> QueryResult<Profile> {
        let address =
            PeerAddress::parse(&self.ip_address).map_err(|e| unreadable("users.ip_address", &e))?;
        Ok(Profile {
            user: user((self.id, self.name))?,
            address,
            register_time: Timestamp::from_micros(self.register_time_us),
            last_seen_time: self.last_seen_time_us.map(Timestamp::from_micros),
        })
    }
}

/// The user to whom a token belongs.
pub(super) fn by_token(
    connection: &mut SqliteConnection,
    token: &TokenHash,
) -> QueryResult<Option<User>> {
    let row = tokens::table
        .inner_join(users::table.on(users::id.eq(tokens::user_id)))
        .filter(tokens::hash.eq(token.as_bytes()))
        .select((users::id, users::name, tokens::checksum))
        .first::<(i64, String, Option<i64>)>(connection)
        .optional()?;
    let Some((id, name, stored)) = row else { return Ok(None) };
    if stored.is_some_and(|stored| stored != token_checksum(token.as_bytes(), id)) {
        return Err(DieselError::DeserializationError("tokens.user_id is another user's".into()));
    }
    user((id, name)).map(Some)
}

/// This layout is part of the file format.
pub(super) fn token_checksum(hash: &[u8], user_id: i64) -> i64 {
    xxh3_64_with_seed(hash, user_id.cast_unsigned()).cast_signed()
}

/// The highest number that a user has: they are given out one by one, and none again.
pub(super) fn last_user(connection: &mut SqliteConnection) -> QueryResult<i64> {
    let last: Option<i64> =
        users::table.select(diesel::dsl::max(users::id)).get_result(connection)?;
    Ok(last.unwrap_or(0))
}

/// How many users and tokens there are.
pub(super) fn counts(connection: &mut SqliteConnection) -> QueryResult<(i64, i64)> {
    let users = users::table.count().get_result(connection)?;
    Ok((users, tokens::table.count().get_result(connection)?))
}

/// What is known of the user of this name.
pub(super) fn profile(
    connection: &mut SqliteConnection,
    name: &Username,
) -> QueryResult<Option<Profile>> {
    let key = name.key();
    let row = users::table
        .filter(users::name_key.eq(&key))
        .select(UserRow::as_select())
        .first(connection)
        .optional()?;
    let Some(row) = row else { return Ok(None) };
    user_of_key((row.id, row.name.clone()), &key)?;
    row.into_profile().map(Some)
}

/// The users whose names begin with `prefix`, in order of their keys, after the key `after`.
pub(super) fn profiles(
    connection: &mut SqliteConnection,
    prefix: &UsernamePrefix,
    after: &str,
    limit: usize,
) -> QueryResult<Vec<Profile>> {
    let end = format!("{}{AFTER_EVERY_NAME}", prefix.as_str());
    let query = users::table.filter(users::name_key.lt(end)).into_boxed();
    // One lower bound: with two of them SQLite may seek to the lower one, and scan from there.
    let query = if after < prefix.as_str() {
        query.filter(users::name_key.ge(prefix.as_str()))
    } else {
        query.filter(users::name_key.gt(after))
    };
    query
        .order(users::name_key.asc())
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select(UserRow::as_select())
        .load_iter::<UserRow, diesel::connection::DefaultLoadingMode>(connection)?
        .map(|row| row.and_then(UserRow::into_profile))
        .collect()
}

/// The sequence up to which a user acknowledged.
pub(super) fn acknowledged_through(
    connection: &mut SqliteConnection,
    user: UserId,
) -> QueryResult<Sequence> {
    let through: i64 =
        users::table.find(user.0).select(users::acknowledged_through).first(connection)?;
    Sequence::parse(through).map_err(|e| unreadable("users.acknowledged_through", &e))
}

/// Some users, by their numbers after `after`, whose mailboxes have something that they acknowledged, and
/// after whom to go on; `None`: there are no more.
pub(super) fn who_acknowledged(
    connection: &mut SqliteConnection,
    after: UserId,
    limit: i64,
) -> QueryResult<(Vec<UserId>, Option<UserId>)> {
    type Row = (i64, i64, Option<i64>);
    let rows: Vec<Row> = users::table
        .left_join(mailboxes::table.on(mailboxes::owner_id.eq(users::id)))
        .filter(users::id.gt(after.0))
        .order(users::id.asc())
        .limit(limit)
        .select((users::id, users::acknowledged_through, mailboxes::first_sequence.nullable()))
        .load(connection)?;
    let last = rows.last().map(|(id, ..)| UserId(*id));
    let has_some = |(_, through, first): &Row| *through >= first.unwrap_or(1);
    let users = rows.iter().filter(|row| has_some(row)).map(|(id, ..)| UserId(*id)).collect();
    Ok((users, last))
}

/// Enters a new user with their token.
pub(super) fn insert(
    connection: &mut SqliteConnection,
    name: &Username,
    address: &PeerAddress,
    token: &TokenHash,
    now: Timestamp,
) -> QueryResult<Profile> {
    let id: i64 = diesel::insert_into(users::table)
        .values((
            users::name.eq(name.as_str()),
            users::name_key.eq(name.key()),
            users::ip_address.eq(address.to_string()),
            users::register_time_us.eq(now.as_micros()),
        ))
        .returning(users::id)
        .get_result(connection)?;
    diesel::insert_into(tokens::table)
        .values((
            tokens::hash.eq(token.as_bytes()),
            tokens::user_id.eq(id),
            tokens::create_time_us.eq(now.as_micros()),
            tokens::checksum.eq(token_checksum(token.as_bytes(), id)),
        ))
        .execute(connection)?;
    Ok(Profile {
        user: User { id: UserId(id), name: name.clone() },
        address: *address,
        register_time: now,
        last_seen_time: None,
    })
}

/// Sets where a user can be reached.
pub(super) fn set_address(
    connection: &mut SqliteConnection,
    user: UserId,
    address: &PeerAddress,
) -> QueryResult<()> {
    diesel::update(users::table.find(user.0))
        .set(users::ip_address.eq(address.to_string()))
        .execute(connection)?;
    Ok(())
}

/// Moves a user's acknowledgement forward; one that is not ahead changes nothing.
pub(super) fn acknowledge(
    connection: &mut SqliteConnection,
    user: UserId,
    through: Sequence,
) -> QueryResult<()> {
    let through = through.get();
    diesel::update(users::table.find(user.0).filter(users::acknowledged_through.lt(through)))
        .set(users::acknowledged_through.eq(through))
        .execute(connection)?;
    Ok(())
}

/// Notes when a user was last known to be there; never backwards.
pub(super) fn set_last_seen(
    connection: &mut SqliteConnection,
    user: UserId,
    at: Timestamp,
) -> QueryResult<()> {
    let at = at.as_micros();
    let earlier = users::last_seen_time_us.is_null().or(users::last_seen_time_us.lt(at));
    diesel::update(users::table.find(user.0).filter(earlier))
        .set(users::last_seen_time_us.eq(at))
        .execute(connection)?;
    Ok(())
}
