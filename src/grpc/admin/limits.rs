use std::num::NonZero;

use super::{Administration, Operator};
use crate::domain::limits::{RATE_COUNT_MAX, SUBSCRIPTIONS_PER_USER_CEILING};
use crate::domain::{RateLimit, UserLimits, Username};
use crate::grpc::error::{CallError, FieldProblem};
use crate::messenger::LimitsOfUser;
use crate::proto::admin as proto;

impl Administration {
    pub(super) async fn get_limits(
        &self,
        request: &proto::GetUserLimitsRequest,
    ) -> Result<proto::GetUserLimitsResponse, CallError> {
        let limits = self.messenger.user_limits(username(&request.username)?).await?;
        let (own, effective) = encode(&limits);
        Ok(proto::GetUserLimitsResponse { own: Some(own), effective: Some(effective) })
    }

    pub(super) async fn set_limits(
        &self,
        operator: Operator,
        request: &proto::SetUserLimitsRequest,
    ) -> Result<proto::SetUserLimitsResponse, CallError> {
        let limits = request.limits.clone().unwrap_or_default();
        let name = username(&limits.username)?;
        let limits =
            self.messenger.set_user_limits(name, decode(&limits)?, operator.into()).await?;
        let (own, effective) = encode(&limits);
        Ok(proto::SetUserLimitsResponse { own: Some(own), effective: Some(effective) })
    }
}

fn username(text: &str) -> Result<Username, CallError> {
    Username::parse(text)
        .map_err(|problem| CallError::invalid_field("username", problem.to_string()))
}

fn decode(limits: &proto::UserLimits) -> Result<UserLimits, CallError> {
    let mut problems = Vec::new();
    let mut refuse = |field: &str, problem: String| {
        problems.push(FieldProblem { field: field.to_owned(), problem });
    };
    let send_rate = match limits.send_rate.as_str() {
        "" => None,
        text => match text.parse::<RateLimit>() {
            Ok(rate) => Some(rate),
            Err(problem) => {
                refuse("send_rate", problem.to_string());
                None
            }
        },
    };
    let send_burst = u32::try_from(limits.send_burst).ok().filter(|it| *it <= RATE_COUNT_MAX);
    if send_burst.is_none() {
        refuse("send_burst", format!("is not 0 to {RATE_COUNT_MAX}"));
    }
    let subscriptions = usize::try_from(limits.subscriptions).ok();
    let subscriptions = subscriptions.filter(|it| *it <= SUBSCRIPTIONS_PER_USER_CEILING);
    if subscriptions.is_none() {
        refuse("subscriptions", format!("is not 0 to {SUBSCRIPTIONS_PER_USER_CEILING}"));
    }
    if !problems.is_empty() {
        return Err(CallError::InvalidFields(problems));
    }
    let send_burst = send_burst.and_then(NonZero::new);
    Ok(UserLimits { send_rate, send_burst, subscriptions: subscriptions.and_then(NonZero::new) })
}

/// What is set for the user alone, and what holds.
fn encode(limits: &LimitsOfUser) -> (proto::UserLimits, proto::UserLimits) {
    let LimitsOfUser { user, own, send_rate, subscriptions } = limits;
    let username = user.name.as_str().to_owned();
    let own = proto::UserLimits {
        username: username.clone(),
        send_rate: own.send_rate.map(|rate| rate.to_string()).unwrap_or_default(),
        send_burst: count(own.send_burst.map_or(0, NonZero::get)),
        subscriptions: count(own.subscriptions.map_or(0, NonZero::get)),
    };
    let effective = proto::UserLimits {
        username,
        send_rate: send_rate
            .map_or_else(|| RateLimit::Unlimited.to_string(), |(rate, _)| rate.to_string()),
        send_burst: count(send_rate.map_or(0, |(_, burst)| burst.get())),
        subscriptions: count(subscriptions.get()),
    };
    (own, effective)
}

fn count(number: impl TryInto<i32>) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}
