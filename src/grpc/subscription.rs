use std::pin::Pin;

use async_stream::stream;
use tokio_stream::Stream;
use tonic::Status;

use super::encode;
use super::error::CallError;
use super::stream_end::StreamEnd;
use crate::domain::UserId;
use crate::messenger::Follow;
use crate::proto::SubscribeResponse;

/// The responses of one `Subscribe`.
pub(super) type Subscription =
    Pin<Box<dyn Stream<Item = Result<SubscribeResponse, Status>> + Send>>;

/// The most events that are given one after the other before the stream looks whether it is to end.
const EVENTS_AT_ONCE_MAX: usize = 64;

/// The events of `follow` until it fails, the client goes, or `end` is reached.
///
/// Nothing runs between polls: a reader that does not read costs what `follow` holds.
pub(super) fn stream(mut follow: Follow, owner: UserId, end: StreamEnd) -> Subscription {
    Box::pin(stream! {
        let end = end.reached();
        tokio::pin!(end);
        loop {
            let next = tokio::select! {
                biased;
                error = &mut end => Err(error),
                next = follow.next() => next.map_err(CallError::from),
            };
            match next {
                Ok(event) => yield Ok(encode::event(event, owner)),
                Err(error) => {
                    yield Err(error.into());
                    return;
                }
            }
            // What is there needs neither a look at the clock nor one at the end for each event.
            for _ in 1..EVENTS_AT_ONCE_MAX {
                match follow.at_hand() {
                    Some(event) => yield Ok(encode::event(event, owner)),
                    None => break,
                }
            }
        }
    })
}
