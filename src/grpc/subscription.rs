use std::pin::Pin;

use async_stream::stream;
use tokio_stream::Stream;
use tonic::Status;

use super::encode;
use super::error::CallError;
use super::stream_end::StreamEnd;
use crate::auth::Session;
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
/// Nothing runs between polls: a reader that does not read costs what `follow` holds. There are many
/// that wait and hold the whole of this, so it has one place for a response, and none for an event.
pub(super) fn stream(mut follow: Follow, owner: UserId, end: StreamEnd) -> Subscription {
    Box::pin(stream! {
        let session = end.session();
        let end = end.reached();
        tokio::pin!(end);
        let mut at_once = 0;
        let mut has_ended = false;
        while !has_ended {
            let next = next(&mut follow, owner, (end.as_mut(), &session), &mut at_once);
            yield next.await.inspect_err(|_| has_ended = true);
        }
    })
}

/// The next response. What is at hand needs neither a look at the clock nor one at the end for each
/// event, `at_once` times.
async fn next(
    follow: &mut Follow,
    owner: UserId,
    (end, session): (Pin<&mut impl Future<Output = CallError>>, &Session),
    at_once: &mut usize,
) -> Result<SubscribeResponse, Status> {
    // But nothing goes to one who is let in no more.
    if *at_once > 0
        && !session.has_ended()
        && let Some(event) = follow.at_hand()
    {
        *at_once -= 1;
        return Ok(encode::event(event, owner));
    }
    *at_once = EVENTS_AT_ONCE_MAX - 1;
    let event = tokio::select! {
        biased;
        error = end => Err(error),
        event = follow.next() => event.map_err(CallError::from),
    };
    Ok(encode::event(event?, owner))
}
