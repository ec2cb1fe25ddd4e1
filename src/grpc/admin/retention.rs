//! What is kept of single users' mailboxes.

use std::num::NonZero;
use std::time::Duration;

use super::{Administration, Operator, proto};
use crate::domain::{User, Username};
use crate::grpc::decode::duration;
use crate::grpc::error::CallError;
use crate::messenger::{MessengerError, Role};
use crate::store::Retention;

impl Administration {
    pub(super) async fn user_retention(
        &self,
        request: proto::GetUserRetentionRequest,
    ) -> Result<proto::GetUserRetentionResponse, CallError> {
        let user = self.user_named(&request.username).await?;
        let own = self.store.user_retention(user.id).await?;
        let range = self.store.mailbox_state(user.id).await?.range;
        Ok(proto::GetUserRetentionResponse {
            retention: Some(encoded(own.unwrap_or(self.store.retention()))),
            is_own: own.is_some(),
            first_sequence: range.first.get(),
            last_sequence: range.last.get(),
        })
    }

    pub(super) async fn set_retention(
        &self,
        operator: Operator,
        request: &proto::SetUserRetentionRequest,
    ) -> Result<proto::SetUserRetentionResponse, CallError> {
        let keep = request.retention.as_ref().map(decoded).transpose()?;
        let user = self.user_named(&request.username).await?;
        self.store.set_user_retention(user, keep, operator.into()).await?;
        Ok(proto::SetUserRetentionResponse {})
    }

    async fn user_named(&self, name: &str) -> Result<User, CallError> {
        let name = Username::parse(name)
            .map_err(|problem| CallError::invalid_field("username", problem.to_string()))?;
        let user = self.store.find_user(&name).await?;
        let role = Role::Subject;
        user.ok_or_else(|| MessengerError::NoSuchUser { name, role }.into())
    }
}

fn decoded(retention: &proto::Retention) -> Result<Retention, CallError> {
    let time = |field: &'static str, asked: Option<&prost_types::Duration>| {
        let is_none = || CallError::invalid_field(field, "is no length of time");
        asked.map(|asked| duration(asked).ok_or_else(is_none)).transpose()
    };
    let age = time("age", retention.age.as_ref())?;
    if age.is_some_and(|age| age.is_zero()) {
        return Err(CallError::invalid_field("age", "is zero; it must be more than nothing"));
    }
    let count = u64::try_from(retention.messages_max)
        .map_err(|_| CallError::invalid_field("messages_max", "is negative"))?;
    let after_acknowledgement =
        time("after_acknowledgement", retention.after_acknowledgement.as_ref())?;
    Ok(Retention { age, count: NonZero::new(count), after_acknowledgement })
}

fn encoded(keep: Retention) -> proto::Retention {
    let time = |time: Duration| prost_types::Duration::try_from(time).ok();
    proto::Retention {
        age: keep.age.and_then(time),
        messages_max: keep.count.map_or(0, |it| i64::try_from(it.get()).unwrap_or(i64::MAX)),
        after_acknowledgement: keep.after_acknowledgement.and_then(time),
    }
}
