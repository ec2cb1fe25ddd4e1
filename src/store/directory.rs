//! Users: who is who, and what they may do.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use diesel::prelude::*;
use diesel::result::Error as DieselError;
use quick_cache::sync::Cache;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::accounts::tokens;
use super::schema::{mailboxes, users};
use crate::domain::{
    PeerAddress, Profile, Sequence, Standing, Timestamp, User, UserId, Username, UsernamePrefix,
};

/// Who is who, as remembered: a user's number and name never change, so nothing here grows old, but that
/// a user can go, and is found by their name no more. Absence is not remembered.
#[derive(Clone)]
pub(super) struct Directory {
    by_id: Arc<Cache<UserId, User>>,
    by_key: Arc<Cache<String, User>>,
    /// The users who went since the store was opened: some 16 bytes each. Whoever was found by name
    /// before that is looked for here before they are remembered, and before a message is theirs.
    gone: Arc<RwLock<HashSet<UserId>>>,
    /// Whom it finds it remembers.
    keeps: bool,
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
    standing: i64,
    standing_checksum: Option<i64>,
}

/// Who has a name.
pub(super) enum Holder {
    Nobody,
    User(Profile),
    /// Somebody who is gone: it stays theirs.
    Gone(Username),
}

/// Comes after every character that a name can have.
const AFTER_EVERY_NAME: char = '~';

impl Directory {
    pub(super) fn new() -> Self {
        Self {
            by_id: Arc::new(Cache::new(USERS_REMEMBERED_MAX)),
            by_key: Arc::new(Cache::new(USERS_REMEMBERED_MAX)),
            gone: Arc::default(),
            keeps: true,
        }
    }

    /// The same, remembering nobody else: for a transaction that has entered users, whose numbers are
    /// given out again if it fails.
    pub(super) fn keeping_none(&self) -> Self {
        Self { keeps: false, ..self.clone() }
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
            .select((users::id, users::name, users::standing, users::standing_checksum))
            .first::<(i64, String, i64, Option<i64>)>(connection)
            .optional()?;
        let Some((id, name, standing, checksum)) = found else { return Ok(None) };
        let user = user_of_key((id, name), &key)?;
        if standing_of(id, standing, checksum)? == Standing::Deleted {
            return Ok(None);
        }
        // Held until they are remembered, so that who goes meanwhile is forgotten after that.
        let gone = self.gone.read().unwrap_or_else(PoisonError::into_inner);
        if self.keeps && !gone.contains(&user.id) {
            self.by_key.insert(key, user.clone());
        }
        Ok(Some(user))
    }

    /// Whether a user who was found by name has gone since.
    pub(super) fn is_gone(&self, user: UserId) -> bool {
        self.gone.read().unwrap_or_else(PoisonError::into_inner).contains(&user)
    }

    /// A user is gone, on disk: nobody finds them by their name from now on.
    pub(super) fn forget(&self, user: &User) {
        let mut gone = self.gone.write().unwrap_or_else(PoisonError::into_inner);
        gone.insert(user.id);
        self.by_key.remove(&user.name.key());
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
        if let Some(user) = user.as_ref().filter(|_| self.keeps) {
            self.by_id.insert(id, user.clone());
        }
        Ok(user)
    }
}

/// A user by what is stored of them.
pub(super) fn user((id, name): (i64, String)) -> QueryResult<User> {
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
pub(super) fn unreadable(column: &str, error: &dyn std::error::Error) -> DieselError {
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

/// What a user may do, by the two columns that say so.
pub(super) fn standing_of(id: i64, standing: i64, checksum: Option<i64>) -> QueryResult<Standing> {
    let is_whole = match checksum {
        None => standing == ACTIVE,
        Some(checksum) => checksum == standing_checksum(id, standing),
    };
    match (standing, is_whole) {
        (ACTIVE, true) => Ok(Standing::Active),
        (BANNED, true) => Ok(Standing::Banned),
        (DELETED, true) => Ok(Standing::Deleted),
        _ => {
            Err(DieselError::DeserializationError("users.standing is not what was written".into()))
        }
    }
}

/// As the table has them.
const ACTIVE: i64 = 0;
const BANNED: i64 = 1;
const DELETED: i64 = 2;

/// This layout is part of the file format.
fn standing_checksum(id: i64, standing: i64) -> i64 {
    xxh3_64_with_seed(&standing.to_le_bytes(), id.cast_unsigned()).cast_signed()
}

/// Sets what a user may do from now on.
pub(super) fn set_standing(
    connection: &mut SqliteConnection,
    user: UserId,
    (standing, reason): (Standing, &str),
    now: Timestamp,
) -> QueryResult<()> {
    let standing = match standing {
        Standing::Active => ACTIVE,
        Standing::Banned => BANNED,
        Standing::Deleted => DELETED,
    };
    diesel::update(users::table.find(user.0))
        .set((
            users::standing.eq(standing),
            users::standing_time_us.eq(now.as_micros()),
            users::standing_reason.eq(reason),
            users::standing_checksum.eq(standing_checksum(user.0, standing)),
        ))
        .execute(connection)?;
    Ok(())
}

/// Erases where a user who goes could be reached, and when they were last there.
pub(super) fn erase(connection: &mut SqliteConnection, user: UserId) -> QueryResult<()> {
    diesel::update(users::table.find(user.0))
        .set((users::ip_address.eq(""), users::last_seen_time_us.eq(None::<i64>)))
        .execute(connection)?;
    Ok(())
}

/// The highest number that a user has: they are given out one by one, and none again.
pub(super) fn last_user(connection: &mut SqliteConnection) -> QueryResult<i64> {
    let last: Option<i64> =
        users::table.select(diesel::dsl::max(users::id)).get_result(connection)?;
    Ok(last.unwrap_or(0))
}

/// How many users there are; those who are gone do not count.
pub(super) fn count(connection: &mut SqliteConnection) -> QueryResult<i64> {
    users::table.filter(users::standing.ne(DELETED)).count().get_result(connection)
}

/// What is known of the user of this name.
pub(super) fn profile(
    connection: &mut SqliteConnection,
    name: &Username,
) -> QueryResult<Option<Profile>> {
    Ok(match holder(connection, name)? {
        Holder::User(profile) => Some(profile),
        Holder::Nobody | Holder::Gone(_) => None,
    })
}

/// Who has this name.
pub(super) fn holder(connection: &mut SqliteConnection, name: &Username) -> QueryResult<Holder> {
    let key = name.key();
    let row = users::table
        .filter(users::name_key.eq(&key))
        .select(UserRow::as_select())
        .first(connection)
        .optional()?;
    let Some(row) = row else { return Ok(Holder::Nobody) };
    let user = user_of_key((row.id, row.name.clone()), &key)?;
    match standing_of(row.id, row.standing, row.standing_checksum)? {
        Standing::Deleted => Ok(Holder::Gone(user.name)),
        Standing::Active | Standing::Banned => row.into_profile().map(Holder::User),
    }
}

/// The users whose names begin with `prefix`, in order of their keys, after the key `after`.
pub(super) fn profiles(
    connection: &mut SqliteConnection,
    prefix: &UsernamePrefix,
    after: &str,
    limit: usize,
) -> QueryResult<Vec<Profile>> {
    let end = end_of(prefix);
    let there = users::table.filter(users::standing.ne(DELETED));
    let query = there.filter(users::name_key.lt(end)).into_boxed();
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

/// Comes after every name that begins so.
pub(super) fn end_of(prefix: &UsernamePrefix) -> String {
    format!("{}{AFTER_EVERY_NAME}", prefix.as_str())
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

/// Enters a new user with their first token.
pub(super) fn insert(
    connection: &mut SqliteConnection,
    name: &Username,
    address: &PeerAddress,
    token: &tokens::NewToken,
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
    tokens::insert(connection, UserId(id), token, now)?;
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
    // Of one who is gone nothing is noted any more, such as that their last stream ended.
    let there = users::table.find(user.0).filter(users::standing.ne(DELETED));
    diesel::update(there.filter(earlier))
        .set(users::last_seen_time_us.eq(at))
        .execute(connection)?;
    Ok(())
}
