use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use async_stream::stream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Status, Streaming};

use super::backoff::Backoff;
use super::{Client, Error, Message, OutgoingMessage, Refusal};
use crate::domain::limits::STREAM_SENDS_IN_WORK_BYTES_MAX;
use crate::proto::send_messages_response::Result as Answer;
use crate::proto::{SendMessagesRequest, SendMessagesResponse};

/// The messages to send.
type Messages = Pin<Box<dyn Stream<Item = OutgoingMessage> + Send>>;

/// What became of one message; the outer error ends the stream.
type Outcome = Result<Result<Message, Refusal>, Error>;

/// The stream of [`Client::send_all`]: an outcome for each message, in their order.
///
/// It sends while it is polled. Dropped, it leaves unknown what became of the messages without an
/// answer; [`SendAll::into_unanswered`] says which those are.
pub struct SendAll {
    outcomes: Pin<Box<dyn Stream<Item = Outcome> + Send>>,
    unanswered: Unanswered,
}

impl SendAll {
    pub(super) fn new(client: Client, messages: Messages) -> Self {
        let unanswered = Unanswered::default();
        let outcomes = Box::pin(send_all(client, messages, unanswered.clone()));
        Self { outcomes, unanswered }
    }

    /// Stops sending, and gives back the messages that were taken and not answered, in their order. They
    /// may be stored or not: sent again, as they are, each is stored once.
    pub fn into_unanswered(self) -> Vec<OutgoingMessage> {
        drop(self.outcomes);
        self.unanswered.queue().drain(..).collect()
    }
}

impl Stream for SendAll {
    type Item = Outcome;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.outcomes.as_mut().poll_next(context)
    }
}

impl fmt::Debug for SendAll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unanswered = self.unanswered.queue().len();
        f.debug_struct("SendAll").field("unanswered", &unanswered).finish_non_exhaustive()
    }
}

/// The messages that were taken and not answered, in their order.
#[derive(Clone, Default)]
struct Unanswered(Arc<Mutex<VecDeque<OutgoingMessage>>>);

impl Unanswered {
    fn queue(&self) -> MutexGuard<'_, VecDeque<OutgoingMessage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_empty(&self) -> bool {
        self.queue().is_empty()
    }

    /// Whether one more may be under way.
    fn has_room(&self, messages_max: usize) -> bool {
        let queue = self.queue();
        let bytes: usize = queue.iter().map(OutgoingMessage::body_bytes).sum();
        queue.len() < messages_max && bytes < STREAM_SENDS_IN_WORK_BYTES_MAX
    }
}

/// How long it goes on trying.
struct Patience {
    backoff: Backoff,
    /// How many messages may be under way on the next connection.
    window: usize,
    /// Since when nothing was answered, if something failed since.
    failing_since: Option<Instant>,
}

fn send_all(
    client: Client,
    messages: Messages,
    unanswered: Unanswered,
) -> impl Stream<Item = Outcome> + Send {
    stream! {
        let mut messages = messages.fuse();
        let window = client.options().sends_in_flight_max;
        let mut patience =
            Patience { backoff: client.options().new_backoff(), window, failing_since: None };
        loop {
            // No connection for nothing.
            if unanswered.is_empty() {
                match messages.next().await {
                    Some(message) => unanswered.queue().push_back(message.identified()),
                    None => return,
                }
                // What failed before was nobody's.
                patience.failing_since = None;
            }
            let error = match Connection::open(&client, &unanswered, patience.window).await {
                Err(error) => error,
                Ok(mut connection) => loop {
                    match connection.next(&mut messages).await {
                        Ok(Some(outcome)) => {
                            patience.backoff.reset();
                            patience.failing_since = None;
                            yield Ok(outcome);
                        }
                        Ok(None) => return,
                        Err(error) => break error,
                    }
                },
            };
            // Where there is room for one, all the others would be refused again.
            patience.window = if matches!(error, Error::Refused(_)) { 1 } else { window };
            let delay = patience.backoff.next_delay(error.retry_delay());
            let failing_since = *patience.failing_since.get_or_insert_with(Instant::now);
            let next_attempt = failing_since.elapsed().saturating_add(delay);
            if !error.is_retriable() || next_attempt > client.options().retry_deadline {
                yield Err(error);
                return;
            }
            tracing::debug!(%error, ?delay, "what is not answered is sent again");
            sleep(delay).await;
        }
    }
}

/// A stream of `SendMessages` on a connection of its own, on which what is unanswered is sent, as much at a
/// time as may be under way: one more with every answer.
struct Connection<'a> {
    client: &'a Client,
    unanswered: &'a Unanswered,
    /// `None`: there is nothing more to send, and the server was told.
    requests: Option<mpsc::Sender<SendMessagesRequest>>,
    /// How many of the unanswered were sent here: the first ones.
    sent: usize,
    /// How many may be.
    window: usize,
    answers: Streaming<SendMessagesResponse>,
    /// When the next answer is due, if one is.
    answer_due: Instant,
}

impl<'a> Connection<'a> {
    async fn open(
        client: &'a Client,
        unanswered: &'a Unanswered,
        window: usize,
    ) -> Result<Self, Error> {
        let deadline = client.options().call_deadline;
        // As many as may be unanswered: there is always a place.
        let (requests, outgoing) = mpsc::channel(client.options().sends_in_flight_max);
        let mut sent = 0;
        for message in unanswered.queue().iter().take(window) {
            // The far end is below.
            let _ = requests.try_send(message.clone().into());
            sent += 1;
        }
        let mut grpc = client.on_own_connection();
        let request = client.request(ReceiverStream::new(outgoing));
        // Bounded on this side only: a `grpc-timeout` would bound the whole stream.
        let answers = match timeout(deadline, grpc.send_messages(request)).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Err(client.error(&status)),
            Err(_) => return Err(Error::DeadlineExceeded { deadline }),
        };
        let answer_due = Instant::now() + deadline;
        Ok(Self { client, unanswered, requests: Some(requests), sent, window, answers, answer_due })
    }

    /// What became of the next message, sending more of them meanwhile; `None` after the last.
    async fn next(
        &mut self,
        messages: &mut (impl Stream<Item = OutgoingMessage> + Unpin),
    ) -> Result<Option<Result<Message, Refusal>>, Error> {
        let in_flight_max = self.client.options().sends_in_flight_max;
        loop {
            let is_answer_due = !self.unanswered.is_empty();
            if !is_answer_due && self.requests.is_none() {
                return Ok(None);
            }
            let may_send = self.requests.is_some()
                && self.sent < self.window
                && self.unanswered.has_room(in_flight_max);
            // In this order: what may be sent is bounded, and a caller who was slow to ask for an answer
            // that is there is not told that it is late.
            tokio::select! {
                biased;
                message = messages.next(), if may_send => self.send(message),
                answer = self.answers.message() => return self.accept(answer).map(Some),
                () = sleep_until(self.answer_due), if is_answer_due => {
                    let deadline = self.client.options().call_deadline;
                    return Err(Error::DeadlineExceeded { deadline });
                }
            }
        }
    }

    fn send(&mut self, message: Option<OutgoingMessage>) {
        let Some(message) = message else {
            self.requests = None;
            return;
        };
        let message = message.identified();
        if self.unanswered.is_empty() {
            self.answer_due = Instant::now() + self.client.options().call_deadline;
        }
        self.unanswered.queue().push_back(message);
        self.send_more();
    }

    /// Sends what may be under way of what is unanswered.
    fn send_more(&mut self) {
        let Some(requests) = &self.requests else { return };
        let queue = self.unanswered.queue();
        while self.sent < self.window
            && let Some(message) = queue.get(self.sent)
        {
            // Fails only when the connection broke, which its answers tell.
            let _ = requests.try_send(message.clone().into());
            self.sent += 1;
        }
    }

    /// The answer to the first message that has none. An error is of the connection, or leaves that
    /// message to be sent again.
    fn accept(
        &mut self,
        answer: Result<Option<SendMessagesResponse>, Status>,
    ) -> Result<Result<Message, Refusal>, Error> {
        let answer = answer.map_err(|status| self.client.error(&status))?;
        let outcome = match answer.map(|response| response.result) {
            None => {
                let problem = "the server ended the stream".to_owned();
                return Err(Error::Disconnected { problem });
            }
            Some(Some(Answer::Message(message))) => Ok(Message::try_from(message)?),
            Some(Some(Answer::Error(status))) => Err(Refusal::from_rpc_status(&status)),
            Some(None) => return Err(Error::Malformed("an answer that says nothing")),
        };
        let outcome = match outcome {
            Err(refusal) if refusal.is_retriable() => return Err(Box::new(refusal).into()),
            outcome => outcome,
        };
        let mut queue = self.unanswered.queue();
        let Some(first) = queue.front() else {
            return Err(Error::Malformed("an answer to nothing"));
        };
        if outcome.as_ref().is_ok_and(|it| it.request_id.as_deref() != Some(first.request_id())) {
            return Err(Error::Malformed("the answer to another message"));
        }
        queue.pop_front();
        drop(queue);
        self.sent = self.sent.saturating_sub(1);
        self.window = (self.window + 1).min(self.client.options().sends_in_flight_max);
        self.send_more();
        self.answer_due = Instant::now() + self.client.options().call_deadline;
        Ok(outcome)
    }
}
