//! The app's messages, in the order of their ids.

use std::collections::VecDeque;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::names;
use super::report::Report;
use super::users::Users;
use crate::domain::{Body, Content, ContentType, RequestId, Timestamp};
use crate::store::flask::{MessageRow, Source, VALUE_BYTES_MAX, Value};
use crate::store::{Draft, PendingImport, Store, StoreError};

/// Messages handed to the store and not yet on disk: more than a group, so that groups are full.
const IN_FLIGHT_MAX: usize = 2048;

/// A message on its way to the disk.
struct InFlight {
    id: i64,
    has_time: bool,
    pending: PendingImport,
}

/// Takes over the table of messages.
pub(super) async fn import(
    source: &mut Source,
    store: &Store,
    users: &mut Users<'_>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut in_flight = VecDeque::with_capacity(IN_FLIGHT_MAX);
    let mut last = i64::MIN;
    loop {
        let rows = source.messages_after(last)?;
        let Some(row) = rows.last() else { break };
        last = row.id;
        for row in rows {
            if in_flight.len() >= IN_FLIGHT_MAX {
                finish_first(&mut in_flight, report).await?;
            }
            let (id, sent) = (row.id, row.sent);
            match draft(row, users, report).await? {
                Ok(draft) => {
                    let pending = store.import_message(draft, sent).await?;
                    in_flight.push_back(InFlight { id, has_time: sent.is_some(), pending });
                }
                Err(problem) => report.skipped_message(id, &problem)?,
            }
        }
    }
    while !in_flight.is_empty() {
        finish_first(&mut in_flight, report).await?;
    }
    Ok(())
}

async fn finish_first(
    in_flight: &mut VecDeque<InFlight>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let Some(InFlight { id, has_time, pending }) = in_flight.pop_front() else { return Ok(()) };
    match pending.is_new().await {
        Ok(true) => {
            report.messages_new += 1;
            report.without_time += u64::from(!has_time);
        }
        Ok(false) => report.messages_known += 1,
        Err(error @ StoreError::RequestIdReused(_)) => {
            report.skipped_message(id, &error.to_string())?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// The message of a row, or why there is none.
async fn draft(
    row: MessageRow,
    users: &mut Users<'_>,
    report: &mut Report,
) -> anyhow::Result<Result<Draft, String>> {
    let request_id = request_id(&row);
    // All three, before anybody is entered for a message that is none.
    let (from, to) = match (names::bytes(&row.from_user), names::bytes(&row.to_user)) {
        (Ok(from), Ok(to)) => (from, to),
        (Err(problem), _) => return Ok(Err(format!("its from_user {problem}"))),
        (_, Err(problem)) => return Ok(Err(format!("its to_user {problem}"))),
    };
    let body = match body(row.message) {
        Ok(body) => body,
        Err(problem) => return Ok(Err(problem)),
    };
    let sender = users.named(from, report).await?;
    let receiver = users.named(to, report).await?.into();
    let content = Content { body, content_type: ContentType::default() };
    let request_id = RequestId::parse(request_id)?;
    Ok(Ok(Draft { sender, receiver, content, request_id, expiry: None }))
}

fn body(value: Value) -> Result<Body, String> {
    let body = match value {
        Value::Null => return Err("its text is NULL".to_owned()),
        Value::TooLong => return Err(format!("its text is over {VALUE_BYTES_MAX} bytes")),
        Value::Text(text) => Body::text(text, VALUE_BYTES_MAX),
        Value::Bytes(bytes) => Body::data(Bytes::from(bytes), VALUE_BYTES_MAX),
    };
    body.map_err(|error| format!("its text {error}"))
}

/// What a row is known by at the next run. Its number would do, if there were one such database in the
/// world, and nobody had changed it meanwhile: what the row says belongs to it.
fn request_id(row: &MessageRow) -> String {
    let mut hash = Sha256::new();
    for value in [&row.from_user, &row.to_user, &row.message] {
        let (kind, bytes): (u8, &[u8]) = match value {
            Value::Null => (0, &[]),
            Value::TooLong => (1, &[]),
            Value::Text(text) => (2, text.as_bytes()),
            Value::Bytes(bytes) => (3, bytes),
        };
        hash.update([kind]);
        hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(bytes);
    }
    let sent = row.sent.map(Timestamp::as_micros);
    hash.update([u8::from(sent.is_some())]);
    hash.update(sent.unwrap_or_default().to_be_bytes());
    let digest: u64 = hash.finalize()[..8].iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
    format!("flask-{}-{digest:016x}", row.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_known_by_its_number_and_by_what_it_says() {
        let text = |text: &str| Value::Text(text.to_owned());
        let row = |id, from, to, sent: Option<i64>| MessageRow {
            id,
            from_user: text(from),
            to_user: text(to),
            message: text("hi"),
            sent: sent.map(Timestamp::from_micros),
        };
        let known = request_id(&row(-7, "a", "bc", Some(0)));
        assert!(known.starts_with("flask--7-"), "{known}");
        assert_eq!(known, request_id(&row(-7, "a", "bc", Some(0))));
        for other in [
            row(7, "a", "bc", Some(0)),
            row(-7, "ab", "c", Some(0)),
            row(-7, "a", "bc", Some(1)),
            row(-7, "a", "bc", None),
        ] {
            assert_ne!(known, request_id(&other));
        }
        assert!(RequestId::parse(request_id(&row(i64::MIN, "a", "b", None))).is_ok());
    }
}
