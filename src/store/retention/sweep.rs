//! What is to go from the disk alone: bodies that expired, request keys of removed rows that lead nowhere, and
//! room in the file.

use diesel::prelude::*;
use diesel::sql_types::BigInt;

use super::{Outcome, Worker};
use crate::domain::Timestamp;
use crate::store::expirations;
use crate::store::index::{self, RequestKey};
use crate::store::removed::{self, Interval};
use crate::store::retention::state;
use crate::store::writer::{EraseBodies, ForgetRequests, GiveBack, Note};

/// Rows of request keys that are looked through in one snapshot.
const ROWS_AT_A_TIME: i64 = 1_024;

/// The pages that a step moves.
const PAGES_AT_A_TIME: u32 = 16;

/// This part of the file may be free, since what comes next takes it; more is given back.
const FREE_PART: i64 = 8;

/// So many free pages are worth nobody's while: 4 MiB.
const FREE_PAGES_MIN: i64 = 1_024;

/// Bodies that are erased in one work.
const BODIES_AT_A_TIME: i64 = 1_024;

impl Worker {
    /// Erases the bodies that are due. Nobody is served them any more: this is for the disk.
    pub(super) fn expire(&mut self, now: Timestamp) -> Outcome<()> {
        loop {
            let due =
                self.read(|connection, _| expirations::due(connection, now, BODIES_AT_A_TIME))?;
            if due.is_empty() {
                return Ok(());
            }
            self.work(EraseBodies(due))?;
        }
    }

    /// Deletes request keys whose messages are gone, in the order of the keys, when there are many.
    pub(super) fn sweep(&mut self) -> Outcome<()> {
        let state = self.read(|connection, _| state::read(connection))?;
        if state.swept_key.is_none() {
            if state.removed_unswept < self.sweep_after {
                return Ok(());
            }
            // From the beginning: what is removed meanwhile counts for the next time.
            let began = (state.removed_unswept, 0);
            self.write(|| {
                Note(
                    |state, removed, _| {
                        state.swept_key = Some(i64::MIN);
                        state.removed_unswept -= removed;
                    },
                    began,
                )
            })?;
        }
        let mut after = state.swept_key.map(RequestKey);
        loop {
            let (rows, last) = self.read(|connection, _| gone(connection, after))?;
            self.work(ForgetRequests { rows, through: last })?;
            if last.is_none() {
                return Ok(());
            }
            after = last;
        }
    }

    /// Shortens the file when much of it is free, if it was made so that it can be.
    pub(super) fn give_back(&mut self) -> Outcome<()> {
        loop {
            let free = self.read(|connection, _| {
                Ok((
                    pragma(connection, "auto_vacuum")? == 2,
                    pragma(connection, "freelist_count")?,
                    pragma(connection, "page_count")?,
                ))
            })?;
            let (can_be, free, all) = free;
            if !can_be || free < FREE_PAGES_MIN || free < all / FREE_PART {
                return Ok(());
            }
            for _ in 0..FREE_PAGES_MIN / 4 / i64::from(PAGES_AT_A_TIME) {
                self.write(|| GiveBack { pages: PAGES_AT_A_TIME })?;
            }
        }
    }
}

/// Rows of request keys whose messages are gone, and the last key that was looked at; `None` when there are
/// no more.
type Gone = (Vec<(RequestKey, i64)>, Option<RequestKey>);

/// The next of them.
fn gone(connection: &mut SqliteConnection, after: Option<RequestKey>) -> QueryResult<Gone> {
    let mut rows = index::request_rows(connection, after, ROWS_AT_A_TIME)?;
    let last = rows.last().map(|(key, _)| *key);
    // Most are in one, where messages go by their age.
    let mut known: Option<Interval> = None;
    let mut gone = Vec::new();
    for (key, position) in rows.drain(..) {
        if !known.is_some_and(|(first, last)| (first..=last).contains(&position)) {
            let found = removed::interval_with(connection, position)?;
            if found.is_none() {
                continue;
            }
            known = found;
        }
        gone.push((key, position));
    }
    Ok((gone, last))
}

#[derive(QueryableByName)]
struct Setting {
    #[diesel(sql_type = BigInt)]
    value: i64,
}

fn pragma(connection: &mut SqliteConnection, name: &str) -> QueryResult<i64> {
    let query = format!("SELECT {name} AS value FROM pragma_{name}");
    Ok(diesel::sql_query(query).get_result::<Setting>(connection)?.value)
}
