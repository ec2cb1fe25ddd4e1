use std::pin::Pin;

use async_stream::stream;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::encode;
use super::error::CallError;
use crate::domain::UserId;
use crate::messenger::Follow;
use crate::proto::SubscribeResponse;

/// The responses of one `Subscribe`.
pub(super) type Subscription =
    Pin<Box<dyn Stream<Item = Result<SubscribeResponse, Status>> + Send>>;

/// The events of `follow` until it fails, the client goes, or the server drains.
///
/// Nothing runs between polls: a reader that does not read costs what `follow` holds.
pub(super) fn stream(mut follow: Follow, owner: UserId, drain: CancellationToken) -> Subscription {
    Box::pin(stream! {
        let draining = drain.cancelled();
        tokio::pin!(draining);
        loop {
            let next = tokio::select! {
                biased;
                () = &mut draining => Err(CallError::ShuttingDown),
                next = follow.next() => next.map_err(CallError::from),
            };
            match next {
                Ok(event) => yield Ok(encode::event(event, owner)),
                Err(error) => {
                    yield Err(error.into());
                    return;
                }
            }
        }
    })
}
