//! The indexes' tables: the runs of the mailboxes, the request keys, and how far they go.

use diesel::connection::DefaultLoadingMode;
use diesel::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::PageStart;
use super::entry::{Entry, RequestKey, RequestKeys, SALT_BYTES};
use super::packed;
use crate::domain::{Sequence, UserId};
use crate::store::error::{unless_damaged, unreadable};
use crate::store::inserts::{NewRequestKey, NewRun};
use crate::store::schema::{index_state, mailbox_runs, request_keys};

/// Request keys that are read in one go.
const REQUEST_KEYS_AT_A_TIME: i64 = 8_192;

/// How far the tables go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    /// They hold all of the log up to here.
    pub(super) merged_through: i64,
    /// A merge had begun that goes up to here; equal to the other when there was none.
    pub(super) merging_through: i64,
}

impl Marks {
    /// They hold nothing.
    const NONE: Self = Self { merged_through: 0, merging_through: 0 };
}

/// The marks, and what makes the request keys; minted at the first call. A state that is not what was
/// written is an error: with a mark that is too far, messages would be missed where nothing shows it.
pub(super) fn state(connection: &mut SqliteConnection) -> QueryResult<(Marks, RequestKeys)> {
    let (marks, salt) = match stored_state(connection)? {
        Some(StoredState { marks, salt, checksum: Some(_) }) => (marks, salt),
        // Of an earlier version, which wrote no checksum.
        Some(StoredState { marks, salt, checksum: None }) => {
            set_state(connection, marks, &salt)?;
            (marks, salt)
        }
        None => {
            let (marks, salt) = (Marks::NONE, mint_salt()?);
            insert_state(connection, marks, &salt)?;
            (marks, salt)
        }
    };
    Ok((marks, RequestKeys::new(salt)))
}

pub(super) struct StoredState {
    pub(super) marks: Marks,
    pub(super) salt: [u8; SALT_BYTES],
    checksum: Option<i64>,
}

/// The state, if there is one. One that is not what was written is an error.
pub(super) fn stored_state(connection: &mut SqliteConnection) -> QueryResult<Option<StoredState>> {
    let row = index_state::table
        .select((
            index_state::merged_through,
            index_state::merging_through,
            index_state::request_salt,
            index_state::checksum,
        ))
        .first::<(i64, i64, Vec<u8>, Option<i64>)>(connection)
        .optional()?;
    let Some((merged_through, merging_through, salt, stored)) = row else { return Ok(None) };
    let marks = Marks { merged_through, merging_through };
    let salt = salt.try_into().map_err(|_| unreadable("index_state.request_salt"))?;
    if stored.is_some_and(|stored| stored != checksum(marks, &salt)) {
        return Err(unreadable("index_state"));
    }
    Ok(Some(StoredState { marks, salt, checksum: stored }))
}

/// What makes the request keys, if it is what was written.
pub(in crate::store) fn salt(
    connection: &mut SqliteConnection,
) -> QueryResult<Option<[u8; SALT_BYTES]>> {
    let state = unless_damaged(stored_state(connection))?.flatten();
    Ok(state.map(|state| state.salt))
}

/// Says of new tables that they hold everything up to the position `through`, and what makes the request keys.
pub(super) fn begin_with(
    connection: &mut SqliteConnection,
    salt: &[u8; SALT_BYTES],
    through: i64,
) -> QueryResult<()> {
    insert_state(connection, Marks { merged_through: through, merging_through: through }, salt)
}

fn insert_state(
    connection: &mut SqliteConnection,
    marks: Marks,
    salt: &[u8; SALT_BYTES],
) -> QueryResult<()> {
    diesel::insert_into(index_state::table)
        .values((
            index_state::id.eq(1),
            index_state::merged_through.eq(marks.merged_through),
            index_state::merging_through.eq(marks.merging_through),
            index_state::request_salt.eq(salt.as_slice()),
            index_state::checksum.eq(checksum(marks, salt)),
        ))
        .execute(connection)?;
    Ok(())
}

/// XXH3-64 over both marks (little endian) and the salt. This layout is part of the file format.
fn checksum(marks: Marks, salt: &[u8; SALT_BYTES]) -> i64 {
    let mut bytes = Vec::with_capacity(16 + SALT_BYTES);
    bytes.extend_from_slice(&marks.merged_through.to_le_bytes());
    bytes.extend_from_slice(&marks.merging_through.to_le_bytes());
    bytes.extend_from_slice(salt);
    xxh3_64(&bytes).cast_signed()
}

fn set_state(
    connection: &mut SqliteConnection,
    marks: Marks,
    salt: &[u8; SALT_BYTES],
) -> QueryResult<()> {
    diesel::update(index_state::table)
        .set((
            index_state::merged_through.eq(marks.merged_through),
            index_state::merging_through.eq(marks.merging_through),
            index_state::checksum.eq(checksum(marks, salt)),
        ))
        .execute(connection)?;
    Ok(())
}

fn change_marks(
    connection: &mut SqliteConnection,
    change: impl FnOnce(&mut Marks),
) -> QueryResult<()> {
    let state = stored_state(connection)?.ok_or_else(|| unreadable("index_state"))?;
    let mut marks = state.marks;
    change(&mut marks);
    set_state(connection, marks, &state.salt)
}

fn mint_salt() -> QueryResult<[u8; SALT_BYTES]> {
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt)
        .map_err(|error| diesel::result::Error::QueryBuilderError(error.to_string().into()))?;
    Ok(salt)
}

/// Says that a merge up to `through` begins.
pub(super) fn set_merging(connection: &mut SqliteConnection, through: i64) -> QueryResult<()> {
    change_marks(connection, |marks| marks.merging_through = through)
}

/// Says that the tables hold everything up to `through`.
pub(super) fn set_merged(connection: &mut SqliteConnection, through: i64) -> QueryResult<()> {
    change_marks(connection, |marks| marks.merged_through = through)
}

/// Stores a run; the same run again changes nothing.
pub(super) fn put_run(
    connection: &mut SqliteConnection,
    owner: UserId,
    entries: &[Entry],
) -> QueryResult<()> {
    let Some(first) = entries.first() else { return Ok(()) };
    let (owner_id, first_sequence) = (owner.0, first.sequence);
    NewRun { owner_id, first_sequence, entries: &packed::run(entries) }.execute(connection)?;
    Ok(())
}

/// Stores where a request key leads; the same again changes nothing.
pub(super) fn put_request(
    connection: &mut SqliteConnection,
    key: RequestKey,
    position: i64,
) -> QueryResult<()> {
    NewRequestKey { request_key: key.0, position }.execute(connection)?;
    Ok(())
}

/// The rows of a request key.
pub(super) fn rows_of_request(
    connection: &mut SqliteConnection,
    key: RequestKey,
) -> QueryResult<Vec<i64>> {
    request_keys::table
        .filter(request_keys::request_key.eq(key.0))
        .select(request_keys::position)
        .load(connection)
}

/// Hands the request keys after `after` to `take`, in order, some thousands of them.
pub(super) fn visit_request_keys(
    connection: &mut SqliteConnection,
    after: Option<RequestKey>,
    mut take: impl FnMut(RequestKey),
) -> QueryResult<()> {
    let keys = request_keys::table
        .select(request_keys::request_key)
        .order(request_keys::request_key.asc())
        .limit(REQUEST_KEYS_AT_A_TIME)
        .into_boxed();
    let keys = match after {
        Some(RequestKey(after)) => keys.filter(request_keys::request_key.gt(after)),
        None => keys,
    };
    for key in keys.load_iter::<i64, DefaultLoadingMode>(connection)? {
        take(RequestKey(key?));
    }
    Ok(())
}

/// The entries of `owner` from `start` whose messages stand in the log up to `through`, in the
/// direction of reading, until `take` says `false`. One that cannot be read is an error, after those
/// before it.
pub(super) fn visit(
    connection: &mut SqliteConnection,
    owner: UserId,
    start: PageStart,
    through: i64,
    mut take: impl FnMut(Entry) -> bool,
) -> QueryResult<()> {
    let runs = mailbox_runs::table
        .filter(mailbox_runs::owner_id.eq(owner.0))
        .select((mailbox_runs::first_sequence, mailbox_runs::entries))
        .into_boxed();
    match start {
        PageStart::After(after) => {
            let first = after.get().saturating_add(1);
            let begin = run_with(connection, owner, first)?.unwrap_or(first);
            let runs = runs
                .filter(mailbox_runs::first_sequence.ge(begin))
                .order(mailbox_runs::first_sequence.asc());
            for run in runs.load_iter::<(i64, Vec<u8>), DefaultLoadingMode>(connection)? {
                let (begin, bytes) = run?;
                for entry in packed::entries(begin, &bytes) {
                    let entry = entry.map_err(|_| unreadable("mailbox_runs.entries"))?;
                    if entry.sequence >= first && (entry.position > through || !take(entry)) {
                        return Ok(());
                    }
                }
            }
        }
        PageStart::Before(before) => {
            let runs = runs
                .filter(mailbox_runs::first_sequence.lt(before.get()))
                .order(mailbox_runs::first_sequence.desc());
            for run in runs.load_iter::<(i64, Vec<u8>), DefaultLoadingMode>(connection)? {
                let (begin, bytes) = run?;
                let entries: Result<Vec<_>, _> = packed::entries(begin, &bytes).collect();
                let entries = entries.map_err(|_| unreadable("mailbox_runs.entries"))?;
                let wanted =
                    |entry: &&Entry| entry.sequence < before.get() && entry.position <= through;
                for entry in entries.iter().rev().filter(wanted) {
                    if !take(*entry) {
                        return Ok(());
                    }
                }
            }
        }
    }
    Ok(())
}

/// The last entry of `owner` whose message stands in the log up to `through`.
pub(super) fn last(
    connection: &mut SqliteConnection,
    owner: UserId,
    through: i64,
) -> QueryResult<Option<Entry>> {
    // Nearly always of the last run: a query that is always the same needs no text.
    let run: Option<(i64, Vec<u8>)> = mailbox_runs::table
        .filter(mailbox_runs::owner_id.eq(owner.0))
        .order(mailbox_runs::first_sequence.desc())
        .select((mailbox_runs::first_sequence, mailbox_runs::entries))
        .first(connection)
        .optional()?;
    let Some((begin, bytes)) = run else { return Ok(None) };
    let entries: Result<Vec<_>, _> = packed::entries(begin, &bytes).collect();
    let entries = entries.map_err(|_| unreadable("mailbox_runs.entries"))?;
    let last = entries.into_iter().rfind(|entry| entry.position <= through);
    if last.is_some() {
        return Ok(last);
    }
    // A merge that began since has written it.
    let mut last = None;
    let start = PageStart::Before(Sequence::parse(begin).unwrap_or(Sequence::ZERO));
    visit(connection, owner, start, through, |entry| {
        last = Some(entry);
        false
    })?;
    Ok(last)
}

/// Deletes the runs of `owner` all of whose entries are up to `sequence`. The last run stays: it says where
/// the mailbox ends.
pub(in crate::store) fn delete_runs(
    connection: &mut SqliteConnection,
    owner: UserId,
    sequence: i64,
) -> QueryResult<()> {
    let of_owner = mailbox_runs::owner_id.eq(owner.0);
    // The run before one that begins with the next sequence, or earlier, is over.
    let stays: Option<i64> = mailbox_runs::table
        .filter(of_owner)
        .filter(mailbox_runs::first_sequence.le(sequence + 1))
        .select(diesel::dsl::max(mailbox_runs::first_sequence))
        .first(connection)?;
    let Some(stays) = stays else { return Ok(()) };
    diesel::delete(mailbox_runs::table)
        .filter(of_owner)
        .filter(mailbox_runs::first_sequence.lt(stays))
        .execute(connection)?;
    Ok(())
}

/// Deletes this row of a request key.
pub(in crate::store) fn delete_request(
    connection: &mut SqliteConnection,
    key: RequestKey,
    position: i64,
) -> QueryResult<()> {
    diesel::delete(request_keys::table.find((key.0, position))).execute(connection)?;
    Ok(())
}

/// Some thousands of the rows of request keys, in order, after the key `after`.
pub(in crate::store) fn request_rows(
    connection: &mut SqliteConnection,
    after: Option<RequestKey>,
    limit: i64,
) -> QueryResult<Vec<(RequestKey, i64)>> {
    let after = after.map_or(i64::MIN, |RequestKey(key)| key);
    request_keys::table
        .filter(request_keys::request_key.gt(after))
        .order((request_keys::request_key.asc(), request_keys::position.asc()))
        .limit(limit)
        .select((request_keys::request_key, request_keys::position))
        .load_iter::<(i64, i64), DefaultLoadingMode>(connection)?
        .map(|row| row.map(|(key, position)| (RequestKey(key), position)))
        .collect()
}

/// The beginning of the run that holds `sequence`, if any does.
fn run_with(
    connection: &mut SqliteConnection,
    owner: UserId,
    sequence: i64,
) -> QueryResult<Option<i64>> {
    mailbox_runs::table
        .filter(mailbox_runs::owner_id.eq(owner.0))
        .filter(mailbox_runs::first_sequence.le(sequence))
        .select(diesel::dsl::max(mailbox_runs::first_sequence))
        .first(connection)
}
