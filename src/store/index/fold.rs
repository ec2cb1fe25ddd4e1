//! Folding runs of request keys into their table: shard after shard, a slice along with a commit.
//!
//! A page of the table is read and written once for all the keys that fall on it. Those of eight
//! segments are as many as eight merges would have written one by one, for an eighth of the pages.
//! The keys of a shard stay in its runs until all of them are in the table, and those that are in both
//! lead to the same row: so a fold that is cut off begins the shard again, and nothing has to be noted
//! for that.

use std::sync::Arc;

use diesel::prelude::*;

use super::entry::RequestKey;
use super::{request_runs, tables};

/// A shard is folded when it has so many runs.
pub(super) const RUNS_FOLDED_MIN: usize = 8;

/// What looking at a shard costs, in keys that are written: the unit of a slice's budget.
const LOOK_COST: usize = 4;

/// Where folding goes on. A slice works on a copy, which takes its place when it is committed.
#[derive(Clone)]
pub(super) struct Fold {
    shard: usize,
    at_hand: Option<Shard>,
    /// The shards to look at before nothing is left to be folded, until the next segment is merged.
    left: usize,
}

/// A shard whose keys are being written.
#[derive(Clone)]
struct Shard {
    keys: Arc<[(RequestKey, i64)]>,
    written: usize,
    /// The last of its runs.
    through: i64,
}

impl Fold {
    /// Of runs that were not looked at yet.
    pub(super) fn new() -> Self {
        Self { shard: 0, at_hand: None, left: request_runs::SHARDS }
    }

    /// There are more runs than before.
    pub(super) fn add_runs(&mut self) {
        self.left = request_runs::SHARDS;
    }

    /// Whether every shard was looked at.
    pub(super) fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Writes a slice within the caller's transaction: about `budget` keys.
    pub(super) fn write_slice(
        &mut self,
        connection: &mut SqliteConnection,
        mut budget: usize,
    ) -> QueryResult<()> {
        while budget > 0 && !self.is_done() {
            let Some(shard) = &mut self.at_hand else {
                self.look(connection)?;
                budget = budget.saturating_sub(LOOK_COST);
                continue;
            };
            let end = shard.keys.len().min(shard.written + budget);
            for (key, position) in &shard.keys[shard.written..end] {
                tables::put_request(connection, *key, *position)?;
            }
            budget -= end - shard.written;
            shard.written = end;
            if end == shard.keys.len() {
                request_runs::delete(connection, self.shard, shard.through)?;
                self.go_on();
            }
        }
        Ok(())
    }

    /// Takes the next shard in hand, if it has enough runs.
    fn look(&mut self, connection: &mut SqliteConnection) -> QueryResult<()> {
        let runs = request_runs::of_shard(connection, self.shard)?;
        match runs.last() {
            Some(last) if runs.len() >= RUNS_FOLDED_MIN => {
                let through = last.first_position;
                let mut keys: Vec<_> = runs.into_iter().flat_map(|run| run.keys).collect();
                keys.sort_unstable();
                self.at_hand = Some(Shard { keys: keys.into(), written: 0, through });
            }
            _ => self.go_on(),
        }
        Ok(())
    }

    fn go_on(&mut self) {
        self.shard = (self.shard + 1) % request_runs::SHARDS;
        self.left -= 1;
        self.at_hand = None;
    }
}
