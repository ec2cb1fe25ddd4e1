//! The indexes' side of a commit: what is added to the tail, what is merged along with it.

use std::sync::{Arc, RwLock};

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::result::Error as DieselError;
use thiserror::Error;
use tracing::{error, info};

use super::entry::{Entry, Placement, RequestKey, SALT_BYTES};
use super::filter::RequestFilter;
use super::fold::Fold;
use super::merge::{Cursor, Merge};
use super::tables::{self, Marks};
use super::tail::{Discontinuity, Tail};
use super::{Index, pending};
use crate::domain::UserId;
use crate::store::error::{is_damage, unreadable};
use crate::store::log::{self, RowsEnd};
use crate::store::mailboxes::Floors;
use crate::store::removed;

/// A commit merges as much of the frozen segment as is enough for this many times its own messages:
/// a merge is done when half of the next segment has come.
const MERGE_PACE: usize = 2;

/// A commit that merges nothing folds so many request keys for each of its own messages. Half of the
/// commits merge, so that two would be just enough.
const FOLD_PACE: usize = 3;

/// The least that a commit merges, in messages.
const SLICE_MESSAGES_MIN: usize = 16;

/// When no merge can go on, the tail grows up to this many segments, the one that cannot be merged
/// among them, and then nothing more is taken.
const TAIL_SEGMENTS_MAX: usize = 9;

/// Rows of the log that are read back at a time.
const READ_BACK_ROWS: usize = 512;

/// Keeps the indexes up with the log. Owned by whoever owns the writing connection.
pub(in crate::store) struct IndexWriter {
    index: Index,
    segment_rows: usize,
    /// What the present transaction appended to the log.
    staged: Vec<Placement>,
    merge: Option<Merge>,
    /// Where the merge goes on once the present transaction is committed.
    merge_next: Option<Cursor>,
    /// The messages whose worth of the merge the present transaction writes at least, whatever it
    /// appended.
    merge_wanted: usize,
    /// Request keys on their way from their runs into their table.
    fold: Fold,
    /// Where that goes on once the present transaction is committed.
    fold_next: Option<Fold>,
    /// Whether rows of `pending_entries` may be left over that are merged.
    pending_left_over: bool,
    /// A page of `pending_entries` is damaged: the table is left alone until the store is opened again.
    pending_is_damaged: bool,
    /// A page of the tables is damaged: nothing is merged until the store is opened again.
    is_stuck: bool,
}

/// Why the tail could not be read back.
#[derive(Debug, Error)]
pub(in crate::store) enum LoadError {
    #[error(transparent)]
    Storage(#[from] DieselError),
    /// A row of the log does not go on where those before it ended.
    #[error("entry {sequence} of user {} at log position {position} is not the next", owner.0)]
    Discontinuity { owner: UserId, sequence: i64, position: i64 },
    /// The log ends early, or has no readable row here although it goes on.
    #[error("the row of the log at position {position} is absent or cannot be read")]
    RowAbsent { position: i64 },
    /// There is an entry of a row that the log does not have.
    #[error("entry {sequence} of user {} is at log position {position}, beyond the log", owner.0)]
    BeyondLog { owner: UserId, sequence: i64, position: i64 },
}

impl From<Discontinuity> for LoadError {
    fn from(Discontinuity { owner, sequence, position }: Discontinuity) -> Self {
        Self::Discontinuity { owner, sequence, position }
    }
}

impl IndexWriter {
    /// Reads the tail back. A merge begins whenever `segment_rows` are in no table.
    pub(in crate::store) fn load(
        connection: &mut SqliteConnection,
        segment_rows: usize,
    ) -> Result<Self, LoadError> {
        Self::load_with(connection, segment_rows, Arc::new(RequestFilter::new()), |_| {})
    }

    /// [`load`](Self::load) for a database without indexes, whose request keys are to be made with this
    /// salt, if there was one: `progress` is told the positions up to which they are made.
    pub(in crate::store) fn rebuild(
        connection: &mut SqliteConnection,
        segment_rows: usize,
        salt: Option<[u8; SALT_BYTES]>,
        progress: impl FnMut(i64),
    ) -> Result<Self, LoadError> {
        // The log's beginning that was removed is in no mailbox.
        let removed = removed::interval_with(connection, 1)?.map_or(0, |(_, last)| last);
        if let Some(salt) = salt {
            tables::begin_with(connection, &salt, removed)?;
        }
        Self::load_with(connection, segment_rows, Arc::new(RequestFilter::new()), progress)
    }

    fn load_with(
        connection: &mut SqliteConnection,
        segment_rows: usize,
        filter: Arc<RequestFilter>,
        progress: impl FnMut(i64),
    ) -> Result<Self, LoadError> {
        let (marks, keys) = tables::state(connection)?;
        let tail = Arc::new(RwLock::new(Tail::after(marks.merged_through, segment_rows)));
        let mut writer = Self {
            index: Index { tail, keys, filter, merges: Arc::default() },
            segment_rows,
            staged: Vec::new(),
            merge: None,
            merge_next: None,
            fold: Fold::new(),
            fold_next: None,
            pending_left_over: true,
            pending_is_damaged: false,
            is_stuck: false,
            merge_wanted: 0,
        };
        writer.read_back(connection, marks, progress)?;
        Ok(writer)
    }

    /// Reads everything back, after a failure that left it unknown what is stored.
    pub(in crate::store) fn reload(
        &mut self,
        connection: &mut SqliteConnection,
    ) -> Result<(), LoadError> {
        let filter = Arc::clone(&self.index.filter);
        let fresh = Self::load_with(connection, self.segment_rows, filter, |_| {})?;
        let tail = std::mem::replace(&mut *fresh.index.tail_mut(), Tail::after(0, 0));
        *self.index.tail_mut() = tail;
        *self = Self { index: self.index.clone(), ..fresh };
        Ok(())
    }

    /// What reads the indexes.
    pub(in crate::store) fn index(&self) -> &Index {
        &self.index
    }

    /// A transaction begins: nothing of one before it is kept.
    pub(in crate::store) fn begin(&mut self) {
        self.staged.clear();
        self.merge_next = None;
        self.fold_next = None;
        self.merge_wanted = 0;
    }

    /// Adds the row that the transaction appended to the log, the next after those that were added.
    pub(in crate::store) fn add(&mut self, placement: Placement) {
        self.staged.push(placement);
        if let Some(key) = placement.request_key {
            // If it is not committed, the key is taken for present and looked up in vain.
            self.index.filter.insert(key);
        }
    }

    /// Where messages with this key stand in the log, those of this transaction among them.
    pub(in crate::store) fn rows_of_request(
        &self,
        connection: &mut SqliteConnection,
        key: RequestKey,
    ) -> QueryResult<Vec<i64>> {
        if !self.index.filter.may_have(key) {
            return Ok(Vec::new());
        }
        let mut positions = self.index.rows_of_request(connection, key)?;
        let first = self.index.tail().last_position() + 1;
        let staged = (first..).zip(&self.staged).filter(|(_, it)| it.request_key == Some(key));
        positions.extend(staged.map(|(position, _)| position));
        Ok(positions)
    }

    /// Whether the tail is as long as it may get: a damaged index keeps it from being merged.
    pub(in crate::store) fn is_full(&self) -> bool {
        self.is_stuck && self.index.tail().rows() >= TAIL_SEGMENTS_MAX * self.segment_rows
    }

    /// Merges what is in memory although it is not much: the present transaction writes a slice of it.
    /// Whether there is anything to merge, and it can be.
    pub(in crate::store) fn merge_early(&mut self, messages: usize) -> bool {
        if self.merge.is_none() && self.index.tail().active_rows() > 0 {
            self.begin_merge();
        }
        self.merge_wanted = messages;
        self.merge.is_some() && !self.is_stuck
    }

    /// Writes what goes along with a transaction that appended to the log, or merges early, as its last
    /// part.
    pub(in crate::store) fn finish(
        &mut self,
        connection: &mut SqliteConnection,
    ) -> QueryResult<()> {
        if self.staged.is_empty() {
            return match self.merge_wanted {
                0 => Ok(()),
                messages => self.write_slice(connection, messages),
            };
        }
        let (first_position, merged_through) = {
            let tail = self.index.tail();
            (tail.last_position() + 1, tail.merged_through())
        };
        let staged = std::mem::take(&mut self.staged);
        self.with_pending(connection, |it| pending::put(it, first_position, &staged))?;
        self.staged = staged;
        if self.pending_left_over {
            self.delete_pending(connection, merged_through)?;
        }
        let messages = self.staged.len().max(SLICE_MESSAGES_MIN);
        if self.merge.is_some() {
            self.write_slice(connection, (MERGE_PACE * messages).max(self.merge_wanted))
        } else {
            self.fold_slice(connection, FOLD_PACE * messages)
        }
    }

    /// Does some work on `pending_entries`. A damaged page of it keeps no message from being stored, since
    /// a start can read the log instead.
    fn with_pending<T>(
        &mut self,
        connection: &mut SqliteConnection,
        work: impl FnOnce(&mut SqliteConnection) -> QueryResult<T>,
    ) -> QueryResult<Option<T>> {
        if self.pending_is_damaged {
            return Ok(None);
        }
        Ok(match apart(connection, work)? {
            Ok(done) => Some(done),
            Err(error) => {
                error!(%error, "what a start reads is damaged: the next one reads the log instead");
                self.pending_is_damaged = true;
                None
            }
        })
    }

    /// Deletes some of the rows that are merged.
    fn delete_pending(
        &mut self,
        connection: &mut SqliteConnection,
        merged_through: i64,
    ) -> QueryResult<()> {
        let deleted =
            self.with_pending(connection, |it| pending::delete_some(it, merged_through))?;
        self.pending_left_over = deleted.unwrap_or(false);
        Ok(())
    }

    /// Writes a slice of the merge, if one is under way. A damaged page spoils the slice and not the
    /// transaction.
    fn write_slice(
        &mut self,
        connection: &mut SqliteConnection,
        messages: usize,
    ) -> QueryResult<()> {
        let Some(merge) = self.merge.as_mut().filter(|_| !self.is_stuck) else {
            return Ok(());
        };
        match apart(connection, |it| merge.write_slice(it, merge.budget(messages)))? {
            Ok(next) => self.merge_next = Some(next),
            Err(error) => self.get_stuck(&error),
        }
        Ok(())
    }

    /// The same for a slice of the fold.
    fn fold_slice(&mut self, connection: &mut SqliteConnection, keys: usize) -> QueryResult<()> {
        if self.fold.is_done() || self.is_stuck {
            return Ok(());
        }
        let mut fold = self.fold.clone();
        match apart(connection, |it| fold.write_slice(it, keys))? {
            Ok(()) => self.fold_next = Some(fold),
            Err(error) => self.get_stuck(&error),
        }
        Ok(())
    }

    fn get_stuck(&mut self, error: &DieselError) {
        error!(%error, "the index is damaged: new messages stay in memory and in the log");
        self.is_stuck = true;
    }

    /// The transaction is on disk: what it added is to be seen.
    pub(in crate::store) fn committed(&mut self) -> Result<(), LoadError> {
        {
            let mut tail = self.index.tail_mut();
            for placement in &self.staged {
                tail.push(placement)?;
            }
        }
        self.staged.clear();
        self.slice_committed();
        self.merge_if_due();
        Ok(())
    }

    fn slice_committed(&mut self) {
        if let Some(fold) = self.fold_next.take() {
            self.fold = fold;
        }
        let (Some(merge), Some(next)) = (&mut self.merge, self.merge_next.take()) else { return };
        merge.committed(next);
        if next == Cursor::Done {
            if merge.has_keys_in_runs() {
                self.fold.add_runs();
            }
            self.merge = None;
            let merged = self.index.tail_mut().merged();
            drop(merged);
            self.index.merges.increment();
            self.pending_left_over = true;
        }
    }

    fn merge_if_due(&mut self) {
        if self.merge.is_none() && self.index.tail().active_rows() >= self.segment_rows {
            self.begin_merge();
        }
    }

    fn begin_merge(&mut self) {
        let frozen = self.index.tail_mut().freeze(self.segment_rows);
        self.merge = Some(Merge::of(frozen, self.segment_rows));
    }

    /// Fills the tail with the log's rows after the mark: from what each commit left for that, and
    /// where that ends too early from the log itself.
    fn read_back(
        &mut self,
        connection: &mut SqliteConnection,
        marks: Marks,
        progress: impl FnMut(i64),
    ) -> Result<(), LoadError> {
        pending::visit(connection, marks.merged_through, |position, placement| {
            self.push_back(position, placement, marks)
        })?;
        let last = log::last_position(connection)?;
        let known = self.index.tail().last_position();
        let last_entry = self.index.tail().last_entry();
        if let Some((owner, entry)) = last_entry.filter(|_| last < known) {
            let Entry { sequence, position, .. } = entry;
            return Err(LoadError::BeyondLog { owner, sequence, position });
        }
        if last < known {
            return Err(LoadError::RowAbsent { position: known });
        }
        if last > known {
            info!(rows = last - known, "reading the log to make its indexes");
            self.with_pending(connection, |it| pending::delete_after(it, known))?;
            self.read_log_back(connection, marks, progress)?;
        }
        self.merge_if_due();
        Ok(())
    }

    fn push_back(
        &mut self,
        position: i64,
        placement: &Placement,
        marks: Marks,
    ) -> Result<(), LoadError> {
        self.index.tail_mut().push(placement)?;
        if position == marks.merging_through {
            // The merge that was cut off had this segment.
            self.begin_merge();
        } else if position > marks.merging_through {
            // After damage there can be many segments, of which one is frozen and the rest are counted.
            self.merge_if_due();
        }
        Ok(())
    }

    /// For a database from before the indexes were deferred, and after damage. Merges whole segments
    /// on the way, so that it takes no more memory than serving does.
    fn read_log_back(
        &mut self,
        connection: &mut SqliteConnection,
        marks: Marks,
        mut progress: impl FnMut(i64),
    ) -> Result<(), LoadError> {
        let floors = Floors::load(connection)?;
        loop {
            let known = self.index.tail().last_position();
            progress(known);
            // A merge that was cut off goes on with the segment that it had: another would leave runs
            // of both in the tables.
            let cut_off = usize::try_from(marks.merging_through - known).unwrap_or(0);
            let at_a_time = READ_BACK_ROWS.min(self.segment_rows);
            let at_a_time = if cut_off > 0 { at_a_time.min(cut_off) } else { at_a_time };
            let (mut rows, end) = log::placements_after(connection, known, at_a_time, &self.index)?;
            if end == RowsEnd::Damage {
                let position = known + 1 + rows.len().cast_signed() as i64;
                let Some((_, last)) = removed::interval_with(connection, position)? else {
                    return Err(LoadError::RowAbsent { position });
                };
                let removed = usize::try_from(last - position + 1).unwrap_or(usize::MAX);
                rows.resize(at_a_time.min(rows.len().saturating_add(removed)), Placement::REMOVED);
            }
            floors.leave_out(&mut rows);
            if rows.is_empty() {
                return Ok(());
            }
            self.with_pending(connection, |it| pending::put(it, known + 1, &rows))?;
            for (position, placement) in (known + 1..).zip(&rows) {
                self.push_back(position, placement, marks)?;
            }
            if cut_off > rows.len() {
                continue;
            }
            self.merge_if_due();
            if self.index.tail().active_rows() >= self.segment_rows {
                self.merge_whole(connection)?;
                self.merge_if_due();
            }
        }
    }

    /// Merges the frozen segment in one go, and folds what that leaves to be folded.
    fn merge_whole(&mut self, connection: &mut SqliteConnection) -> Result<(), LoadError> {
        while self.merge.is_some() {
            if self.is_stuck {
                return Err(unreadable("the index").into());
            }
            connection.batch_execute("BEGIN IMMEDIATE")?;
            self.write_slice(connection, self.segment_rows)?;
            let merged_through = self.index.tail().merged_through();
            self.delete_pending(connection, merged_through)?;
            connection.batch_execute("COMMIT")?;
            self.slice_committed();
        }
        while !self.fold.is_done() && !self.is_stuck {
            connection.batch_execute("BEGIN IMMEDIATE")?;
            self.fold_slice(connection, self.segment_rows)?;
            connection.batch_execute("COMMIT")?;
            self.slice_committed();
        }
        Ok(())
    }
}

/// Does some work within a transaction whose failure by damage spoils nothing else of it: that is the
/// inner error.
fn apart<T>(
    connection: &mut SqliteConnection,
    work: impl FnOnce(&mut SqliteConnection) -> QueryResult<T>,
) -> QueryResult<Result<T, DieselError>> {
    connection.batch_execute("SAVEPOINT apart")?;
    let outcome = match work(connection) {
        Ok(done) => Ok(done),
        Err(error) if is_damage(&error) => {
            connection.batch_execute("ROLLBACK TO apart")?;
            Err(error)
        }
        Err(error) => return Err(error),
    };
    connection.batch_execute("RELEASE apart")?;
    Ok(outcome)
}
