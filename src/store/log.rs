//! The log's rows: one a message, with a checksum over all of it.

use bytes::Bytes;
use diesel::backend::Backend;
use diesel::connection::DefaultLoadingMode;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::prelude::*;
use diesel::sql_types::Binary;
use diesel::sqlite::Sqlite;

use super::directory::Directory;
use super::error::unless_damaged;
use super::index::{Entry, Index, Placement, RequestKey, RequestKeys};
use super::inserts::{NewExpiration, NewLogRow};
use super::log_checksum::checksum;
pub(super) use super::log_rows::{body_bytes, first, participants_after, remove, rows};
use super::schema::message_log;
use crate::domain::{
    Body, BodyKind, Content, ContentType, Message, MessageExpiry, MessageId, RequestId, Sequence,
    Timestamp, User, UserId,
};

const BODY_KIND_TEXT: i64 = 0;
const BODY_KIND_DATA: i64 = 1;

/// A row as it is read.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = message_log)]
#[diesel(check_for_backend(Sqlite))]
pub(super) struct LogRow {
    pub(super) position: i64,
    message_id: StoredId,
    sender_id: i64,
    sender_sequence: i64,
    receiver_id: i64,
    receiver_sequence: i64,
    send_time_us: i64,
    request_id: Option<String>,
    content_type: String,
    body_kind: i64,
    body: Vec<u8>,
    checksum: i64,
    expire_time_us: Option<i64>,
    erased_digest: Option<Vec<u8>>,
}

/// A message's id as it is read, without an allocation a row; `None` when it has not 16 bytes, which
/// no row had when it was written.
#[derive(Debug, Clone, Copy, FromSqlRow)]
pub(super) struct StoredId(Option<[u8; 16]>);

impl FromSql<Binary, Sqlite> for StoredId {
    fn from_sql(mut value: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(value.read_blob().try_into().ok()))
    }
}

/// Where a row of the log puts its message: at which sequences of whose mailboxes.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) position: i64,
    /// One for a note to self, else two.
    pub(super) entries: Vec<(UserId, i64)>,
}

/// What rows that are read one after the other end with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowsEnd {
    /// The end of the log, or of what was asked for.
    Clean,
    /// The next row is absent, or cannot be read.
    Damage,
}

/// The row is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DamagedRow;

/// The names of the participants of rows that are read one after the other. Neighbours in a mailbox
/// or a conversation mostly have a participant in common, who is not looked up again.
pub(super) struct Names<'a> {
    directory: &'a Directory,
    sender: Option<User>,
    receiver: Option<User>,
}

impl<'a> Names<'a> {
    pub(super) fn new(directory: &'a Directory) -> Self {
        Self { directory, sender: None, receiver: None }
    }

    /// Sender and receiver of a row; `None` if one of them cannot be read.
    fn of(
        &mut self,
        connection: &mut SqliteConnection,
        row: &LogRow,
    ) -> QueryResult<Option<(User, User)>> {
        let mut find = |last: &mut Option<User>, id| -> QueryResult<Option<User>> {
            if last.as_ref().is_none_or(|user| user.id != id) {
                *last = unless_damaged(self.directory.by_id(connection, id))?.flatten();
            }
            Ok(last.clone())
        };
        let sender = find(&mut self.sender, UserId(row.sender_id))?;
        let receiver = find(&mut self.receiver, UserId(row.receiver_id))?;
        Ok(sender.zip(receiver))
    }
}

fn kind(body: &Body) -> i64 {
    match body.kind() {
        BodyKind::Text => BODY_KIND_TEXT,
        BodyKind::Data => BODY_KIND_DATA,
    }
}

/// Appends `message` at `position`.
pub(super) fn append(
    connection: &mut SqliteConnection,
    position: i64,
    message: &Message,
) -> QueryResult<()> {
    let mut row = NewLogRow {
        position,
        message_id: message.id.as_bytes(),
        sender_id: message.sender.id.0,
        sender_sequence: message.sender_sequence.get(),
        receiver_id: message.receiver.id.0,
        receiver_sequence: message.receiver_sequence.get(),
        send_time_us: message.send_time.as_micros(),
        request_id: message.request_id.as_ref().map(RequestId::as_str),
        content_type: message.content.content_type.as_str(),
        body_kind: kind(&message.content.body),
        body: message.content.body.as_bytes(),
        checksum: 0,
        expire_time_us: message.expiry.map(|expiry| expiry.time.as_micros()),
        erased_digest: None,
    };
    row.checksum = checksum(&row);
    let expire_time_us = row.expire_time_us;
    row.execute(connection)?;
    if let Some(expire_time_us) = expire_time_us {
        NewExpiration { expire_time_us, position }.execute(connection)?;
    }
    Ok(())
}

/// The position of the last row; 0 for an empty log.
pub(super) fn last_position(connection: &mut SqliteConnection) -> QueryResult<i64> {
    let last: Option<i64> =
        message_log::table.select(diesel::dsl::max(message_log::position)).first(connection)?;
    Ok(last.unwrap_or(0))
}

/// The places that the log's last rows give their messages, the last row first; an item for a row
/// that cannot be read is an error.
pub(super) fn newest_places(
    connection: &mut SqliteConnection,
    limit: usize,
) -> QueryResult<impl Iterator<Item = QueryResult<Places>>> {
    type Row = (i64, i64, i64, i64, i64);
    let rows = message_log::table
        .select((
            message_log::position,
            message_log::sender_id,
            message_log::sender_sequence,
            message_log::receiver_id,
            message_log::receiver_sequence,
        ))
        .order(message_log::position.desc())
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .load_iter::<Row, DefaultLoadingMode>(connection)?;
    Ok(rows.map(|row| {
        let (position, sender, sent_as, receiver, received_as) = row?;
        Ok(Places::new(position, (UserId(sender), sent_as), (UserId(receiver), received_as)))
    }))
}

impl Places {
    fn new(position: i64, sent: (UserId, i64), received: (UserId, i64)) -> Self {
        let entries = if sent == received { vec![sent] } else { vec![sent, received] };
        Self { position, entries }
    }
}

/// Where the messages of up to `limit` rows after `position` stand, for the indexes. A row that is
/// absent is an error.
pub(super) fn placements_after(
    connection: &mut SqliteConnection,
    position: i64,
    limit: usize,
    index: &Index,
) -> QueryResult<(Vec<Placement>, RowsEnd)> {
    type Row = (i64, i64, i64, i64, i64, Option<String>);
    let rows = message_log::table
        .filter(message_log::position.gt(position))
        .select((
            message_log::position,
            message_log::sender_id,
            message_log::sender_sequence,
            message_log::receiver_id,
            message_log::receiver_sequence,
            message_log::request_id,
        ))
        .order(message_log::position.asc())
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .load_iter::<Row, DefaultLoadingMode>(connection)?;
    let mut placements = Vec::new();
    for (expected, row) in (position + 1..).zip(rows) {
        let row = unless_damaged(row)?.filter(|row| row.0 == expected);
        let Some((_, sender, sender_sequence, receiver, receiver_sequence, request_id)) = row
        else {
            return Ok((placements, RowsEnd::Damage));
        };
        let Ok(request_id) = request_id.map_or(Ok(None), RequestId::parse) else {
            return Ok((placements, RowsEnd::Damage));
        };
        let sender = UserId(sender);
        placements.push(Placement {
            sender,
            sender_sequence,
            receiver: UserId(receiver),
            receiver_sequence,
            request_key: request_id.map(|id| index.request_key(sender, &id)),
        });
    }
    Ok((placements, RowsEnd::Clean))
}

/// The rows from position `first` to `last`, ascending or descending; an item for a row that cannot be
/// read is an error.
pub(super) fn rows_between(
    connection: &mut SqliteConnection,
    (first, last): (i64, i64),
    ascending: bool,
) -> QueryResult<impl Iterator<Item = QueryResult<LogRow>>> {
    let rows = message_log::table
        .filter(message_log::position.between(first, last))
        .select(LogRow::as_select());
    // Not boxed: the text of a boxed query is built anew each time, to find its statement by it. A
    // mailbox that is spread over the log asks for single rows, where that is most of the cost.
    if ascending {
        rows.order(message_log::position.asc()).load_iter::<LogRow, DefaultLoadingMode>(connection)
    } else {
        rows.order(message_log::position.desc()).load_iter::<LogRow, DefaultLoadingMode>(connection)
    }
}

/// Takes the body out of a row, and leaves a digest of it in its place. Whether the row is whole: if it is
/// not, nothing is done.
pub(super) fn erase(
    connection: &mut SqliteConnection,
    mut row: LogRow,
    keys: &RequestKeys,
) -> QueryResult<bool> {
    if !row.is_whole() || row.erased_digest.is_some() {
        return Ok(row.erased_digest.is_some());
    }
    row.erased_digest = Some(keys.body_digest(row.position, &row.body).to_vec());
    row.body.clear();
    let Some(new) = row.as_new() else { return Ok(false) };
    diesel::update(message_log::table.find(row.position))
        .set((
            message_log::body.eq(new.body),
            message_log::erased_digest.eq(new.erased_digest),
            message_log::checksum.eq(checksum(&new)),
        ))
        .execute(connection)?;
    Ok(true)
}

/// The row at `position`.
pub(super) fn row(connection: &mut SqliteConnection, position: i64) -> QueryResult<Option<LogRow>> {
    message_log::table.find(position).select(LogRow::as_select()).first(connection).optional()
}

impl LogRow {
    /// Whether the row is what was written.
    pub(super) fn is_whole(&self) -> bool {
        self.as_new().is_some_and(|row| checksum(&row) == self.checksum)
    }

    /// Where it puts its message.
    pub(super) fn places(&self) -> Places {
        let sent = (UserId(self.sender_id), self.sender_sequence);
        let received = (UserId(self.receiver_id), self.receiver_sequence);
        Places::new(self.position, sent, received)
    }

    /// The entry that it makes in each mailbox that its message enters.
    pub(super) fn mailbox_entries(&self) -> impl Iterator<Item = (UserId, Entry)> + use<> {
        let placement = Placement {
            sender: UserId(self.sender_id),
            sender_sequence: self.sender_sequence,
            receiver: UserId(self.receiver_id),
            receiver_sequence: self.receiver_sequence,
            request_key: None,
        };
        placement.entries(self.position)
    }

    /// The key of the sender's request id, if there is one that can be read.
    pub(super) fn request_key(&self, keys: &RequestKeys) -> Option<RequestKey> {
        let request_id = RequestId::parse(self.request_id.clone()?).ok()??;
        Some(keys.key(UserId(self.sender_id), &request_id))
    }

    /// When its message was sent.
    pub(super) fn send_time(&self) -> Timestamp {
        Timestamp::from_micros(self.send_time_us)
    }

    /// When its body goes, and it has not yet.
    pub(super) fn expires(&self) -> Option<i64> {
        self.expire_time_us.filter(|_| self.erased_digest.is_none())
    }

    /// Whether its body is, or was, this one. It is whole.
    pub(super) fn has_body(&self, body: &Body, keys: &RequestKeys) -> bool {
        let is_body = match &self.erased_digest {
            Some(digest) => *digest == keys.body_digest(self.position, body.as_bytes()),
            None => self.body == body.as_bytes(),
        };
        is_body && self.body_kind == kind(body)
    }

    /// The bytes of the body.
    pub(super) fn body_bytes(&self) -> usize {
        self.body.len()
    }

    /// The message, if the row is whole. A name that cannot be read is damage of the row. The outer
    /// error is a failing read.
    pub(super) fn into_message(
        self,
        connection: &mut SqliteConnection,
        names: &mut Names<'_>,
    ) -> QueryResult<Result<Message, DamagedRow>> {
        if !self.is_whole() {
            return Ok(Err(DamagedRow));
        }
        let Some((sender, receiver)) = names.of(connection, &self)? else {
            return Ok(Err(DamagedRow));
        };
        Ok(self.decode(sender, receiver).ok_or(DamagedRow))
    }

    /// The message of a whole row; `None` for a value that this code would not have written.
    fn decode(self, sender: User, receiver: User) -> Option<Message> {
        let body = match self.body_kind {
            BODY_KIND_TEXT | BODY_KIND_DATA if self.erased_digest.is_some() => {
                Body::Data(Bytes::new())
            }
            BODY_KIND_TEXT => Body::text(String::from_utf8(self.body).ok()?, usize::MAX).ok()?,
            BODY_KIND_DATA => Body::data(Bytes::from(self.body), usize::MAX).ok()?,
            _ => return None,
        };
        Some(Message {
            id: MessageId::from_bytes(self.message_id.0?),
            sender,
            receiver,
            sender_sequence: Sequence::parse(self.sender_sequence).ok()?,
            receiver_sequence: Sequence::parse(self.receiver_sequence).ok()?,
            send_time: Timestamp::from_micros(self.send_time_us),
            expiry: self.expire_time_us.map(|time| MessageExpiry {
                time: Timestamp::from_micros(time),
                is_erased: self.erased_digest.is_some(),
            }),
            request_id: match self.request_id {
                Some(text) => RequestId::parse(text).ok()?,
                None => None,
            },
            content: Content { content_type: ContentType::parse(self.content_type).ok()?, body },
        })
    }

    /// The row as it would be written; `None` for one that would not be.
    fn as_new(&self) -> Option<NewLogRow<'_>> {
        Some(NewLogRow {
            position: self.position,
            message_id: self.message_id.0.as_ref()?,
            sender_id: self.sender_id,
            sender_sequence: self.sender_sequence,
            receiver_id: self.receiver_id,
            receiver_sequence: self.receiver_sequence,
            send_time_us: self.send_time_us,
            request_id: self.request_id.as_deref(),
            content_type: &self.content_type,
            body_kind: self.body_kind,
            body: &self.body,
            checksum: self.checksum,
            expire_time_us: self.expire_time_us,
            erased_digest: self.erased_digest.as_deref(),
        })
    }
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;
    use crate::store::log_checksum::{SMALL_ROW_BYTES_MAX, each_part};

    fn sum(row: &LogRow) -> i64 {
        checksum(&row.as_new().expect("an id of 16 bytes"))
    }

    fn a_row() -> LogRow {
        let mut row = LogRow {
            position: 1,
            message_id: StoredId(Some([7; 16])),
            sender_id: 1,
            sender_sequence: 2,
            receiver_id: 3,
            receiver_sequence: 4,
            send_time_us: 5,
            request_id: Some("key".into()),
            content_type: "text/plain".into(),
            body_kind: BODY_KIND_TEXT,
            body: b"hello".to_vec(),
            checksum: 0,
            expire_time_us: None,
            erased_digest: None,
        };
        row.checksum = sum(&row);
        row
    }

    #[test]
    fn the_checksum_covers_every_column() {
        let damages: [fn(&mut LogRow); 16] = [
            |row| row.position += 1,
            |row| row.message_id.0 = Some([8; 16]),
            |row| row.message_id.0 = None,
            |row| row.sender_id += 1,
            |row| row.sender_sequence += 1,
            |row| row.receiver_id += 1,
            |row| row.receiver_sequence += 1,
            |row| row.send_time_us += 1,
            |row| row.request_id = None,
            |row| row.request_id = Some(String::new()),
            |row| row.content_type.push(' '),
            |row| row.body_kind = BODY_KIND_DATA,
            |row| row.body[0] ^= 1,
            |row| row.expire_time_us = Some(0),
            |row| row.erased_digest = Some(vec![]),
            |row| (row.expire_time_us, row.erased_digest) = (Some(0), Some(vec![])),
        ];
        for (number, damage) in damages.iter().enumerate() {
            let mut row = a_row();
            assert!(row.is_whole());
            damage(&mut row);
            assert!(!row.is_whole(), "damage {number} went unseen");
        }
    }

    #[test]
    fn the_checksum_of_a_known_row_stays_the_same_across_versions() {
        assert_eq!(a_row().checksum, 3_430_266_489_979_838_986, "the file format");
        let row = LogRow { expire_time_us: Some(6), ..a_row() };
        assert_eq!(sum(&row), -8_170_071_042_364_588_499, "the file format");
        let row = LogRow { erased_digest: Some(vec![7; 16]), ..row };
        assert_eq!(sum(&row), 6_939_345_418_384_301_087, "the file format");
    }

    #[test]
    fn the_checksum_is_the_same_whichever_way_it_is_reached() {
        // Where the layout ends just within the small rows, at their end, and beyond it.
        let beside_body = 7 * 8 + 4 * 8 + 16 + "key".len() + "text/plain".len();
        let at_the_end = SMALL_ROW_BYTES_MAX - beside_body;
        for length in [1, at_the_end - 1, at_the_end, at_the_end + 1, 70_000] {
            let mut row = a_row();
            row.body = (0..length).map(|i| u8::try_from(i % 251).expect("below 251")).collect();
            let mut bytes = Vec::new();
            each_part(&row.as_new().expect("whole"), |part| bytes.extend_from_slice(part));
            assert_eq!(bytes.len(), beside_body + length);
            assert_eq!(sum(&row), xxh3_64(&bytes).cast_signed(), "{length} bytes of body");
        }
    }
}
