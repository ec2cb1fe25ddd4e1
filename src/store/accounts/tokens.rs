//! Tokens: whose they are, and for how long.

use diesel::prelude::*;
use diesel::result::Error as DieselError;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::domain::limits::TOKEN_NAME_CHARACTERS_MAX;
use crate::domain::{AccessId, Label, Standing, Timestamp, TokenHash, User, UserId};
use crate::store::directory::{self, unreadable};
use crate::store::schema::{tokens, users};

/// A token to be entered.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Under which it is named.
    pub id: AccessId,
    /// By which it is known.
    pub hash: TokenHash,
    /// What it is for.
    pub name: Label,
    /// From when on it is good no more; `None`: never.
    pub expire_time: Option<Timestamp>,
}

/// A token as its owner sees it.
#[derive(Debug, Clone)]
pub struct TokenInfo {
    /// The token.
    pub token: NewToken,
    /// When it was made.
    pub create_time: Timestamp,
}

/// To whom a token belongs.
#[derive(Debug, Clone)]
pub struct TokenOwner {
    /// Who it is.
    pub user: User,
    /// What they may do. Who is gone has no tokens.
    pub standing: Standing,
    /// From when on the token is good no more.
    pub expire_time: Option<Timestamp>,
}

impl NewToken {
    /// The token that comes with a new name: without a name of its own, for ever.
    pub fn first(hash: TokenHash) -> Self {
        Self { id: AccessId::mint(), hash, name: Label::default(), expire_time: None }
    }
}

/// The owner of a token.
pub(in crate::store) fn owner(
    connection: &mut SqliteConnection,
    token: &TokenHash,
) -> QueryResult<Option<TokenOwner>> {
    type Row = (i64, String, i64, Option<i64>, Option<i64>, Option<i64>);
    let row = tokens::table
        .inner_join(users::table.on(users::id.eq(tokens::user_id)))
        .filter(tokens::hash.eq(token.as_bytes()))
        .select((
            users::id,
            users::name,
            users::standing,
            users::standing_checksum,
            tokens::expire_time_us,
            tokens::checksum,
        ))
        .first::<Row>(connection)
        .optional()?;
    let Some((id, name, standing, standing_checksum, expire_time, stored)) = row else {
        return Ok(None);
    };
    if !is_whole(token.as_bytes(), id, expire_time, stored) {
        return Err(damaged("tokens: the user or the expiry is another's"));
    }
    let standing = directory::standing_of(id, standing, standing_checksum)?;
    let user = directory::user((id, name))?;
    let expire_time = expire_time.map(Timestamp::from_micros);
    // Only damage leaves one of somebody who is gone.
    let is_there = standing != Standing::Deleted;
    Ok(is_there.then_some(TokenOwner { user, standing, expire_time }))
}

/// Whether a row says what was written. An earlier version wrote no checksum, and knew no expiry.
pub(in crate::store) fn is_whole(
    hash: &[u8],
    user_id: i64,
    expire_time_us: Option<i64>,
    stored: Option<i64>,
) -> bool {
    match stored {
        None => expire_time_us.is_none(),
        Some(stored) => stored == checksum(hash, user_id, expire_time_us),
    }
}

/// This layout is part of the file format.
fn checksum(hash: &[u8], user_id: i64, expire_time_us: Option<i64>) -> i64 {
    let seed = user_id.cast_unsigned();
    match expire_time_us {
        // As earlier versions wrote it.
        None => xxh3_64_with_seed(hash, seed),
        Some(time) => xxh3_64_with_seed(&[hash, &time.to_le_bytes()].concat(), seed),
    }
    .cast_signed()
}

/// Enters a token.
pub(in crate::store) fn insert(
    connection: &mut SqliteConnection,
    user: UserId,
    token: &NewToken,
    now: Timestamp,
) -> QueryResult<()> {
    let hash = token.hash.as_bytes();
    let expire_time = token.expire_time.map(Timestamp::as_micros);
    diesel::insert_into(tokens::table)
        .values((
            tokens::hash.eq(hash),
            tokens::user_id.eq(user.0),
            tokens::create_time_us.eq(now.as_micros()),
            tokens::checksum.eq(checksum(hash, user.0, expire_time)),
            tokens::token_id.eq(token.id.to_string()),
            tokens::display_name.eq(token.name.as_str()),
            tokens::expire_time_us.eq(expire_time),
        ))
        .execute(connection)?;
    Ok(())
}

/// A user's tokens, the oldest first.
pub(in crate::store) fn of_user(
    connection: &mut SqliteConnection,
    user: UserId,
) -> QueryResult<Vec<TokenInfo>> {
    type Row = (Vec<u8>, Option<String>, String, i64, Option<i64>, Option<i64>);
    let rows = tokens::table
        .filter(tokens::user_id.eq(user.0))
        .order(tokens::token_id.asc())
        .select((
            tokens::hash,
            tokens::token_id,
            tokens::display_name,
            tokens::create_time_us,
            tokens::expire_time_us,
            tokens::checksum,
        ))
        .load::<Row>(connection)?;
    let info = |(hash, id, name, create_time, expire_time, stored): Row| {
        if !is_whole(&hash, user.0, expire_time, stored) {
            return Err(damaged("tokens: the user or the expiry is another's"));
        }
        let id = AccessId::parse(&id.unwrap_or_default());
        let name = Label::parse(&name, TOKEN_NAME_CHARACTERS_MAX);
        let hash: [u8; 32] = hash.try_into().map_err(|_| damaged("tokens.hash is none"))?;
        Ok(TokenInfo {
            token: NewToken {
                id: id.map_err(|e| unreadable("tokens.token_id", &e))?,
                hash: TokenHash::from_bytes(hash),
                name: name.map_err(|e| unreadable("tokens.display_name", &e))?,
                expire_time: expire_time.map(Timestamp::from_micros),
            },
            create_time: Timestamp::from_micros(create_time),
        })
    };
    rows.into_iter().map(info).collect()
}

/// Removes tokens.
pub(in crate::store) fn remove(
    connection: &mut SqliteConnection,
    hashes: &[TokenHash],
) -> QueryResult<()> {
    for hash in hashes {
        diesel::delete(tokens::table.find(hash.as_bytes())).execute(connection)?;
    }
    Ok(())
}

/// How many there are.
pub(in crate::store) fn count(connection: &mut SqliteConnection) -> QueryResult<i64> {
    tokens::table.count().get_result(connection)
}

fn damaged(what: &str) -> DieselError {
    DieselError::DeserializationError(what.into())
}
