use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

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
use crate::store::PendingMessage;

/// The responses of one `SendMessages`.
pub(super) type Sends = Pin<Box<dyn Stream<Item = Result<SendMessagesResponse, Status>> + Send>>;

/// A request whose response is due.
enum Due {
    Accepted { pending: PendingMessage, body_bytes: usize },
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

    /// The first request's result, if it is there.
    fn take_finished(&mut self) -> Option<Result<Arc<Message>, CallError>> {
        let result = match self.due.front_mut()? {
            Due::Refused(error) => Err(error.clone()),
            Due::Accepted { pending, .. } => pending.if_committed()?.map_err(CallError::from),
        };
        self.pop();
        Some(result)
    }

    /// The first request's result. Cancel safe: a request that is not finished stays the first.
    async fn finish_first(&mut self) -> Result<Arc<Message>, CallError> {
        let result = poll_fn(|context| match self.due.front_mut() {
            None => Poll::Pending,
            Some(Due::Refused(error)) => Poll::Ready(Err(error.clone())),
            Some(Due::Accepted { pending, .. }) => {
                pending.poll_committed(context).map_err(CallError::from)
            }
        })
        .await;
        self.pop();
        result
    }

    fn pop(&mut self) {
        if let Some(Due::Accepted { body_bytes, .. }) = self.due.pop_front() {
            self.body_bytes -= body_bytes;
        }
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
///
/// All requests that are there are taken before it looks at anything else, and all responses that are
/// there are given: what is done once for each wait, such as looking whether the stream is to end, is
/// not done once for each message. Both are bounded by what may be in work.
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
                request = requests.next(), if may_read => {
                    let mut next = Poll::Ready(request);
                    let mut waited = false;
                    while let Poll::Ready(request) = next {
                        match request {
                            Some(Ok(request)) => {
                                let accepting = accept(&messenger, &sender, request, body_bytes_max);
                                let due;
                                (due, waited) = with_whether_it_waited(accepting).await;
                                in_work.push(due);
                            }
                            Some(Err(status)) => {
                                end = Some(End::Failed(broken(status, body_bytes_max)));
                            }
                            None => end = Some(End::Closed),
                        }
                        // A full queue makes each wait: what else is due is looked at in between.
                        let may_read = end.is_none() && in_work.has_room() && !waited;
                        next = if may_read { at_hand(&mut requests).await } else { Poll::Pending };
                    }
                }
                result = in_work.finish_first(), if !in_work.due.is_empty() => {
                    yield Ok(response(result, &sender));
                    while let Some(result) = in_work.take_finished() {
                        yield Ok(response(result, &sender));
                    }
                }
                else => break,
            }
        }
        if let Some(End::Failed(status)) = end {
            yield Err(status);
        }
    })
}

/// What `future` comes to, and whether that took waiting.
async fn with_whether_it_waited<F: Future>(future: F) -> (F::Output, bool) {
    let mut polls = 0;
    tokio::pin!(future);
    let output = poll_fn(|context| {
        polls += 1;
        future.as_mut().poll(context)
    });
    let output = output.await;
    (output, polls > 1)
}

/// The next request or the end of them, if it takes no waiting.
async fn at_hand(
    requests: &mut Streaming<SendMessagesRequest>,
) -> Poll<Option<Result<SendMessagesRequest, Status>>> {
    poll_fn(|context| Poll::Ready(Pin::new(&mut *requests).poll_next(context))).await
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
        Ok(pending) => Due::Accepted { pending, body_bytes },
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
