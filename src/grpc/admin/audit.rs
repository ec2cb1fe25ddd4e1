//! The audit log.

use super::Administration;
use crate::domain::Timestamp;
use crate::grpc::error::CallError;
use crate::grpc::{decode, encode};
use crate::proto::admin as proto;
use crate::store::accounts::audit::{AuditCursor, AuditEntry};

impl Administration {
    pub(super) async fn audit(
        &self,
        request: &proto::ListAuditEntriesRequest,
    ) -> Result<proto::ListAuditEntriesResponse, CallError> {
        let page_size = decode::page_size_alone(request.page_size)?;
        let cursor = match request.page_token.as_str() {
            "" => AuditCursor::since(match &request.since_time {
                Some(time) => decode::time("since_time", time)?,
                None => Timestamp::from_micros(0),
            }),
            token => cursor(token).ok_or_else(|| {
                CallError::invalid_field("page_token", "is not a next_page_token of this list")
            })?,
        };
        let mut page = self.store.audit(cursor, page_size + 1).await?;
        let has_more = page.len() > page_size;
        page.truncate(page_size);
        let last = page.last().filter(|_| has_more);
        Ok(proto::ListAuditEntriesResponse {
            next_page_token: last.map(|(cursor, _)| page_token(*cursor)).unwrap_or_default(),
            entries: page.into_iter().map(|(_, entry)| shown(entry)).collect(),
        })
    }
}

fn page_token(AuditCursor { time, by_operator, number }: AuditCursor) -> String {
    format!("{}.{}.{number}", time.as_micros(), u8::from(by_operator))
}

fn cursor(token: &str) -> Option<AuditCursor> {
    let mut numbers = token.splitn(3, '.').map(|number| number.parse::<i64>().ok());
    let (time, by_operator, number) = (numbers.next()??, numbers.next()??, numbers.next()??);
    Some(AuditCursor { time: Timestamp::from_micros(time), by_operator: by_operator != 0, number })
}

fn shown(AuditEntry { time, actor, act, subject, details }: AuditEntry) -> proto::AuditEntry {
    proto::AuditEntry { time: Some(encode::timestamp(time)), actor, act, subject, details }
}
