use super::Administration;
use crate::grpc::encode;
use crate::grpc::error::CallError;
use crate::proto::admin::GetServerStatsResponse;

impl Administration {
    pub(super) async fn stats(&self) -> Result<GetServerStatsResponse, CallError> {
        let stored = self.store.stats().await?;
        Ok(GetServerStatsResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            start_time: Some(encode::timestamp(self.start_time)),
            epoch: self.store.epoch().as_str().to_owned(),
            users: stored.users,
            tokens: stored.tokens,
            messages: stored.messages,
            database_bytes: count(stored.database_bytes),
            wal_bytes: count(stored.wal_bytes),
            subscriptions: self.hub.followers(),
            connections: count((self.connections_open)()),
            removed: stored.removed,
        })
    }
}

fn count(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
