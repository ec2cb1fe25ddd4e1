//! The entries that are in no table yet, in memory: the tail of the log.
//!
//! Two segments at most: the active one, to which every commit adds, and a frozen one, which is being
//! merged into the tables. Readers see both, and see the frozen one until all of it is in the tables.

use std::sync::Arc;

use smallvec::SmallVec;

use super::PageStart;
use super::entry::{Entry, Filter, Placement, RequestKey};
use crate::domain::UserId;
use crate::store::by_user::ByUser;

/// What the log holds after `merged_through`.
pub(super) struct Tail {
    /// The tables hold everything up to here.
    merged_through: i64,
    frozen: Option<Arc<Segment>>,
    active: Segment,
}

/// The entries of consecutive rows of the log.
pub(super) struct Segment {
    /// The position before the first row.
    after: i64,
    /// Sender and receiver of each row.
    rows: Vec<(UserId, UserId)>,
    mailboxes: ByUser<Part>,
    /// The request keys of the rows, by shard. Within a shard they are in the order of the rows: a key
    /// is looked for only when the filter takes it for present, and then among those of its shard.
    requests: Vec<Vec<(RequestKey, u32)>>,
}

/// A segment's part of one mailbox: consecutive sequences.
struct Part {
    first_sequence: i64,
    /// Each entry's row: its place in the segment.
    rows: SmallVec<[u32; 4]>,
}

/// What a mailbox has in the tail, at one moment.
#[derive(Debug)]
pub(super) struct View {
    /// The tables are to be asked only for what the log holds up to here.
    pub(super) merged_through: i64,
    /// The first and the last sequence in the tail, if there is one.
    pub(super) sequences: Option<(i64, i64)>,
    /// Those that were asked for, in the direction of reading.
    pub(super) entries: Vec<Entry>,
}

/// A row does not go on where the rows before it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Discontinuity {
    pub(super) owner: UserId,
    pub(super) sequence: i64,
    pub(super) position: i64,
}

/// A shard of a full segment, about 1,024 keys, is sorted by a merge at a time, and looked through in
/// half a microsecond. The unit tests, which fill some, have few.
pub(super) const REQUEST_SHARDS: usize = if cfg!(test) { 2 } else { 128 };

impl Tail {
    /// An empty tail of a log whose index goes up to `merged_through`.
    pub(super) fn after(merged_through: i64, segment_rows: usize) -> Self {
        Self { merged_through, frozen: None, active: Segment::after(merged_through, segment_rows) }
    }

    /// The tables hold everything up to here.
    pub(super) fn merged_through(&self) -> i64 {
        self.merged_through
    }

    /// The position of the last row.
    pub(super) fn last_position(&self) -> i64 {
        self.active.last_position()
    }

    /// The last row's place in its receiver's mailbox.
    pub(super) fn last_entry(&self) -> Option<(UserId, Entry)> {
        let segment = self.segments().rfind(|segment| !segment.rows.is_empty())?;
        let (_, receiver) = *segment.rows.last()?;
        let part = segment.mailboxes.get(&receiver)?;
        let entry = part.before(i64::MAX, segment, receiver).next()?;
        Some((receiver, entry))
    }

    /// All rows.
    pub(super) fn rows(&self) -> usize {
        self.segments().map(Segment::rows).sum()
    }

    /// The rows that no merge has begun with.
    pub(super) fn active_rows(&self) -> usize {
        self.active.rows.len()
    }

    /// Adds the log's next row.
    pub(super) fn push(&mut self, placement: &Placement) -> Result<(), Discontinuity> {
        self.active.push(placement, self.frozen.as_deref())
    }

    /// Makes the active segment the frozen one, to be merged. There must be none.
    pub(super) fn freeze(&mut self, segment_rows: usize) -> Arc<Segment> {
        debug_assert!(self.frozen.is_none());
        let next = Segment::after(self.active.last_position(), segment_rows);
        let frozen = Arc::new(std::mem::replace(&mut self.active, next));
        self.frozen = Some(Arc::clone(&frozen));
        frozen
    }

    /// The frozen segment is in the tables.
    pub(super) fn merged(&mut self) -> Option<Arc<Segment>> {
        let frozen = self.frozen.take()?;
        self.merged_through = frozen.last_position();
        // Returned, so that its memory is given back after the lock.
        Some(frozen)
    }

    fn segments(&self) -> impl DoubleEndedIterator<Item = &Segment> {
        self.frozen.as_deref().into_iter().chain(std::iter::once(&self.active))
    }

    /// What `owner`'s mailbox has here: the entries from `start` that `filter` admits, at most
    /// `limit`.
    pub(super) fn view(
        &self,
        owner: UserId,
        start: PageStart,
        filter: Filter,
        limit: usize,
    ) -> View {
        let parts = || self.segments().filter_map(|segment| segment.part(owner));
        let sequences = parts()
            .map(|(_, part)| (part.first_sequence, part.last_sequence()))
            .reduce(|(first, _), (_, last)| (first, last));
        let entries = match start {
            PageStart::After(after) => parts()
                .flat_map(|(segment, part)| part.after(after.get(), segment, owner))
                .filter(|entry| filter.admits(entry))
                .take(limit)
                .collect(),
            PageStart::Before(before) => parts()
                .rev()
                .flat_map(|(segment, part)| part.before(before.get(), segment, owner))
                .filter(|entry| filter.admits(entry))
                .take(limit)
                .collect(),
        };
        View { merged_through: self.merged_through, sequences, entries }
    }

    /// The rows of a request key.
    pub(super) fn rows_of_request(&self, key: RequestKey) -> Vec<i64> {
        let rows = self.segments().flat_map(|segment| {
            let shard = segment.requests[shard(key)].iter();
            shard.filter(move |(it, _)| *it == key).map(|&(_, row)| segment.position(row))
        });
        rows.collect()
    }

    /// Every request key of the rows.
    pub(super) fn request_keys(&self) -> impl Iterator<Item = RequestKey> {
        self.segments().flat_map(|segment| segment.requests.iter().flatten()).map(|&(key, _)| key)
    }
}

impl Segment {
    fn after(after: i64, capacity_rows: usize) -> Self {
        Self {
            after,
            rows: Vec::with_capacity(capacity_rows),
            mailboxes: ByUser::default(),
            requests: vec![Vec::new(); REQUEST_SHARDS],
        }
    }

    pub(super) fn last_position(&self) -> i64 {
        self.after + self.rows.len().cast_signed() as i64
    }

    pub(super) fn rows(&self) -> usize {
        self.rows.len()
    }

    /// The position of the first row.
    pub(super) fn first_position(&self) -> i64 {
        self.after + 1
    }

    /// How many rows have a request key.
    pub(super) fn request_keys(&self) -> usize {
        self.requests.iter().map(Vec::len).sum()
    }

    /// The owners of the mailboxes, in order.
    pub(super) fn owners(&self) -> Vec<UserId> {
        let mut owners: Vec<_> = self.mailboxes.keys().copied().collect();
        owners.sort_unstable();
        owners
    }

    /// Up to `limit` entries of `owner`'s mailbox, the first of them at place `from` of those here.
    pub(super) fn entries(&self, owner: UserId, from: usize, limit: usize) -> Vec<Entry> {
        let part = self.mailboxes.get(&owner);
        let all = part.into_iter().flat_map(|part| part.from(from, self, owner));
        all.take(limit).collect()
    }

    /// The keys of a shard with their positions, in order.
    pub(super) fn requests(&self, number: usize) -> Vec<(RequestKey, i64)> {
        let all = self.requests[number].iter().map(|&(key, row)| (key, self.position(row)));
        let mut all: Vec<_> = all.collect();
        all.sort_unstable();
        all
    }

    fn push(
        &mut self,
        placement: &Placement,
        before: Option<&Segment>,
    ) -> Result<(), Discontinuity> {
        let position = self.last_position() + 1;
        for (owner, entry) in placement.entries(position) {
            let part = self.mailboxes.get(&owner).or_else(|| before?.mailboxes.get(&owner));
            if part.is_some_and(|part| part.last_sequence() + 1 != entry.sequence) {
                return Err(Discontinuity { owner, sequence: entry.sequence, position });
            }
        }
        let row = row_number(self.rows.len());
        for (owner, entry) in placement.entries(position) {
            let part = self.mailboxes.entry(owner);
            let first = || Part { first_sequence: entry.sequence, rows: SmallVec::new() };
            part.or_insert_with(first).rows.push(row);
        }
        self.rows.push((placement.sender, placement.receiver));
        if let Some(key) = placement.request_key {
            self.requests[shard(key)].push((key, row));
        }
        Ok(())
    }

    fn part(&self, owner: UserId) -> Option<(&Segment, &Part)> {
        self.mailboxes.get(&owner).map(|part| (self, part))
    }

    fn position(&self, row: u32) -> i64 {
        self.after + 1 + i64::from(row)
    }

    fn entry(&self, owner: UserId, sequence: i64, row: u32) -> Entry {
        let (from, to) = self.rows[row as usize];
        let received = to == owner;
        let peer = if received { from } else { to };
        Entry { sequence, position: self.position(row), received, peer }
    }
}

impl Part {
    fn last_sequence(&self) -> i64 {
        self.first_sequence + self.rows.len().cast_signed() as i64 - 1
    }

    /// The place of the first entry whose sequence is not below `sequence`.
    fn place(&self, sequence: i64) -> usize {
        let place = usize::try_from(sequence.saturating_sub(self.first_sequence)).unwrap_or(0);
        place.min(self.rows.len())
    }

    fn from<'a>(
        &'a self,
        place: usize,
        segment: &'a Segment,
        owner: UserId,
    ) -> impl DoubleEndedIterator<Item = Entry> + use<'a> {
        let places = place.min(self.rows.len())..self.rows.len();
        places.map(move |place| self.at(place, segment, owner))
    }

    fn after<'a>(
        &'a self,
        after: i64,
        segment: &'a Segment,
        owner: UserId,
    ) -> impl Iterator<Item = Entry> + use<'a> {
        self.from(self.place(after.saturating_add(1)), segment, owner)
    }

    /// Descending.
    fn before<'a>(
        &'a self,
        before: i64,
        segment: &'a Segment,
        owner: UserId,
    ) -> impl Iterator<Item = Entry> + use<'a> {
        (0..self.place(before)).rev().map(move |place| self.at(place, segment, owner))
    }

    fn at(&self, place: usize, segment: &Segment, owner: UserId) -> Entry {
        let sequence = self.first_sequence + place.cast_signed() as i64;
        segment.entry(owner, sequence, self.rows[place])
    }
}

/// A segment is merged long before it has so many rows.
fn row_number(rows: usize) -> u32 {
    u32::try_from(rows).expect("a segment is bounded")
}

fn shard(key: RequestKey) -> usize {
    key.shard(REQUEST_SHARDS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Sequence;

    const ALICE: UserId = UserId(1);
    const BOB: UserId = UserId(2);
    const ALL: Filter = Filter { peer: None, received_only: false };

    fn sent(from: (UserId, i64), to: (UserId, i64), key: i64) -> Placement {
        let ((sender, sender_sequence), (receiver, receiver_sequence)) = (from, to);
        let request_key = Some(RequestKey(key));
        Placement { sender, sender_sequence, receiver, receiver_sequence, request_key }
    }

    /// Positions 101 to 104: the first two frozen.
    fn a_tail() -> Tail {
        let mut tail = Tail::after(100, 2);
        let note = sent((BOB, 8), (BOB, 8), 2);
        let rows = [
            sent((ALICE, 5), (BOB, 7), 1),
            note,
            sent((BOB, 9), (ALICE, 6), 1),
            sent((ALICE, 7), (BOB, 10), i64::MIN),
        ];
        for (number, row) in rows.iter().enumerate() {
            if number == 2 {
                tail.freeze(2);
            }
            tail.push(row).expect("continuous");
        }
        tail
    }

    fn view(tail: &Tail, owner: UserId, start: PageStart, filter: Filter) -> Vec<(i64, i64)> {
        let view = tail.view(owner, start, filter, 10);
        view.entries.iter().map(|entry| (entry.sequence, entry.position)).collect()
    }

    fn after(sequence: i64) -> PageStart {
        PageStart::After(Sequence::parse(sequence).expect("valid"))
    }

    fn before(sequence: i64) -> PageStart {
        PageStart::Before(Sequence::parse(sequence).expect("valid"))
    }

    #[test]
    fn a_view_goes_through_both_segments_either_way() {
        let tail = a_tail();
        assert_eq!(view(&tail, BOB, after(0), ALL), [(7, 101), (8, 102), (9, 103), (10, 104)]);
        assert_eq!(view(&tail, BOB, after(8), ALL), [(9, 103), (10, 104)]);
        assert_eq!(view(&tail, BOB, after(10), ALL), []);
        assert_eq!(view(&tail, BOB, after(i64::MAX), ALL), []);
        assert_eq!(view(&tail, BOB, before(i64::MAX), ALL)[0], (10, 104));
        assert_eq!(view(&tail, BOB, before(9), ALL), [(8, 102), (7, 101)]);
        assert_eq!(view(&tail, BOB, before(7), ALL), []);
        assert_eq!(tail.view(BOB, after(0), ALL, 2).entries.len(), 2);
        assert_eq!(tail.view(BOB, after(0), ALL, 2).sequences, Some((7, 10)));
        assert_eq!(tail.view(UserId(3), after(0), ALL, 2).sequences, None);
        assert_eq!(tail.last_position(), 104);
    }

    #[test]
    fn a_view_is_filtered_by_peer_and_by_direction() {
        let tail = a_tail();
        let with = |peer, received_only| Filter { peer: Some(peer), received_only };
        assert_eq!(view(&tail, BOB, after(0), with(ALICE, false)), [(7, 101), (9, 103), (10, 104)]);
        assert_eq!(view(&tail, BOB, after(0), with(ALICE, true)), [(7, 101), (10, 104)]);
        assert_eq!(view(&tail, BOB, after(0), with(BOB, true)), [(8, 102)]);
    }

    #[test]
    fn requests_are_found_in_both_segments_and_handed_out_in_order() {
        let mut tail = a_tail();
        assert_eq!(tail.rows_of_request(RequestKey(1)), [101, 103]);
        assert!(tail.rows_of_request(RequestKey(3)).is_empty());
        tail.push(&sent((ALICE, 8), (ALICE, 8), 1)).expect("continuous");
        assert_eq!(tail.rows_of_request(RequestKey(1)), [101, 103, 105]);
        tail.merged().expect("the frozen one");
        let segment = tail.freeze(2);
        let all: Vec<_> = (0..REQUEST_SHARDS).flat_map(|shard| segment.requests(shard)).collect();
        let key = RequestKey;
        assert_eq!(all, [(key(i64::MIN), 104), (key(1), 103), (key(1), 105)]);
    }

    #[test]
    fn what_is_merged_is_gone() {
        let mut tail = a_tail();
        assert_eq!(tail.view(ALICE, after(0), ALL, 1).merged_through, 100);
        tail.merged();
        let view = tail.view(ALICE, after(0), ALL, 10);
        assert_eq!((view.merged_through, view.sequences), (102, Some((6, 7))));
        assert_eq!(tail.rows_of_request(RequestKey(1)), [103]);
    }

    #[test]
    fn a_row_that_does_not_go_on_is_refused() {
        let mut tail = a_tail();
        for row in [sent((ALICE, 8), (BOB, 12), 5), sent((ALICE, 7), (BOB, 11), 5)] {
            assert!(tail.push(&row).is_err());
        }
        assert_eq!(tail.last_position(), 104, "nothing of them was added");
        tail.push(&sent((ALICE, 8), (BOB, 11), 5)).expect("continuous");
    }
}
