use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use async_stream::stream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Status, Streaming};

use super::error::CallError;
use super::stream_end::StreamEnd;
use super::{codec, decode, encode};
use crate::domain::limits::{STREAM_SENDS_IN_WORK_BYTES_MAX, STREAM_SENDS_IN_WORK_MAX};
use crate::domain::{Message, User};
use crate::messenger::Messenger;
use crate::proto::send_messages_response::Result as SendResult;
use crate::proto::{SendMessagesRequest, SendMessagesResponse};
use crate::store::StoreError;

/// The responses of one `SendMessages`.
pub(super) type Sends = Pin<Box<dyn Stream<Item = Result<SendMessagesResponse, Status>> + Send>>;

type Committed = Pin<Box<dyn Future<Output = Result<Arc<Message>, StoreError>> + Send>>;

/// A request whose response is due.
enum Due {
    Accepted { committed: Committed, body_bytes: usize },
    Refused(CallError),
}

/// The requests whose responses are due, in order.
#[derive(Default)]
struct InWork {
    due: VecDeque<Due>,
    body_bytes: usize,
}

impl InWork {
    fn has_room(&self) -> bool {
        self.due.len() < STREAM_SENDS_IN_WORK_MAX
            && self.body_bytes < STREAM_SENDS_IN_WORK_BYTES_MAX
    }

    fn push(&mut self, due: Due) {
        if let Due::Accepted { body_bytes, .. } = due {
            self.body_bytes += body_bytes;
        }
        self.due.push_back(due);
    }

    /// The first request's result. Cancel safe: a request that is not finished stays the first.
    async fn finish_first(&mut self) -> Result<Arc<Message>, CallError> {
        let (result, body_bytes) = match self.due.front_mut() {
            None => std::future::pending().await,
            Some(Due::Refused(error)) => (Err(error.clone()), 0),
            Some(Due::Accepted { committed, body_bytes }) => {
                (committed.await.map_err(CallError::from), *body_bytes)
            }
        };
        self.due.pop_front();
        self.body_bytes -= body_bytes;
        result
    }
}

/// What ends the reading of requests.
enum End {
    /// The client closed its side.
    Closed,
    /// The stream broke or was ended.
    Failed(Status),
}

/// One response a request, in order. Requests are accepted one after the other, which keeps the
/// sender's order, and finish together, which lets them share commits.
pub(super) fn stream(
    messenger: Messenger,
    sender: User,
    mut requests: Streaming<SendMessagesRequest>,
    body_bytes_max: usize,
    stream_end: StreamEnd,
) -> Sends {
    Box::pin(stream! {
        let stream_end = stream_end.reached();
        tokio::pin!(stream_end);
        let mut in_work = InWork::default();
        let mut end = None;
        loop {
            let may_read = end.is_none() && in_work.has_room();
            tokio::select! {
                biased;
                error = &mut stream_end, if end.is_none() => {
                    end = Some(End::Failed(error.into()));
                }
                request = requests.next(), if may_read => match request {
                    Some(Ok(request)) => {
                        in_work.push(accept(&messenger, &sender, request, body_bytes_max).await);
                    }
                    Some(Err(status)) => end = Some(End::Failed(broken(status, body_bytes_max))),
                    None => end = Some(End::Closed),
                },
                result = in_work.finish_first(), if !in_work.due.is_empty() => {
                    yield Ok(response(result, &sender));
                }
                else => break,
            }
        }
        if let Some(End::Failed(status)) = end {
            yield Err(status);
        }
    })
}

async fn accept(
    messenger: &Messenger,
    sender: &User,
    request: SendMessagesRequest,
    body_bytes_max: usize,
) -> Due {
    let outgoing = match decode::send_message(request.into(), body_bytes_max) {
        Ok(outgoing) => outgoing,
        Err(error) => return Due::Refused(error),
    };
    let body_bytes = outgoing.content.body.as_bytes().len();
    match messenger.accept(sender, outgoing).await {
        Ok(pending) => Due::Accepted { committed: Box::pin(pending.committed()), body_bytes },
        Err(error) => Due::Refused(error.into()),
    }
}

/// A request that cannot be read ends the stream: what comes after it cannot be found.
fn broken(status: Status, body_bytes_max: usize) -> Status {
    codec::request_error(&status, true, body_bytes_max).map_or(status, Status::from)
}

fn response(result: Result<Arc<Message>, CallError>, sender: &User) -> SendMessagesResponse {
    let result = match result {
        Ok(message) => SendResult::Message(encode::message(&message, sender.id)),
        Err(error) => SendResult::Error(error.into_rpc_status()),
    };
    SendMessagesResponse { result: Some(result) }
}
