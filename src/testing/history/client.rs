use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use super::{FollowNo, Recorder, SendNo, UserNo};
use crate::proto::{
    AcknowledgeRequest, GetMessagesRequest, GetMessagesResponse, Message, SendMessageRequest,
    SubscribeRequest, User, subscribe_response,
};
use crate::testing::{Answers, Subscription, TestUser, after, streamed};

/// The most messages of a page, so that a mailbox is read in few calls.
const PAGE_SIZE: i32 = 1000;

/// A [`TestUser`] who records every call and every answer.
///
/// A call that is dropped before its answer came is recorded as unknown.
#[derive(Debug, Clone)]
pub struct RecordedUser {
    recorder: Recorder,
    no: UserNo,
    user: TestUser,
}

impl RecordedUser {
    /// A registered user, of whose calls those from now on are recorded.
    pub fn new(recorder: &Recorder, user: TestUser) -> Self {
        let no = recorder.user(&user.name);
        Self { recorder: recorder.clone(), no, user }
    }

    /// Registers a new name, which is recorded too.
    ///
    /// # Errors
    /// The status with which the server refuses.
    pub async fn register(
        recorder: &Recorder,
        addr: SocketAddr,
        name: &str,
    ) -> Result<Self, Status> {
        let no = recorder.user(name);
        let call = recorder.register_called(no, "");
        let answer = TestUser::try_register_new(addr, name).await;
        let shown = answer.as_ref().map(|(_, shown)| shown);
        recorder.register_answered(call, shown);
        let (user, _) = answer?;
        Ok(Self { recorder: recorder.clone(), no, user })
    }

    /// The same user with a new connection.
    #[must_use]
    pub fn at(&self, addr: SocketAddr) -> Self {
        Self { recorder: self.recorder.clone(), no: self.no, user: self.user.at(addr) }
    }

    /// The name as registered.
    pub fn name(&self) -> &str {
        &self.user.name
    }

    /// The user's number in the history.
    pub fn no(&self) -> UserNo {
        self.no
    }

    /// The history that is written.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The status with which the server refuses.
    pub async fn send(&self, request: SendMessageRequest) -> Result<Message, Status> {
        let send = self.recorder.send_called(self.no, &request, None);
        let answer = self.user.try_send(request).await;
        self.recorder.send_answered(send, answer.as_ref());
        answer
    }

    /// Sends on a stream, and returns the answers as they come.
    ///
    /// # Errors
    /// The status with which the stream is refused.
    pub async fn send_stream(
        &self,
        requests: impl Stream<Item = SendMessageRequest> + Send + 'static,
    ) -> Result<RecordedAnswers, Status> {
        let unanswered = Unanswered::default();
        let (recorder, no, stream) = (self.recorder.clone(), self.no, self.recorder.stream());
        let recorded = {
            let (recorder, unanswered) = (recorder.clone(), unanswered.clone());
            requests.map(move |request| {
                let send = recorder.send_called(no, &request, Some(stream));
                unanswered.queue().push_back(send);
                streamed(request)
            })
        };
        let answers = self.user.send_stream(recorded).await?;
        Ok(RecordedAnswers { recorder, unanswered, answers })
    }

    /// Reads a page of the mailbox.
    ///
    /// # Errors
    /// The status with which the server refuses.
    pub async fn get(&self, request: GetMessagesRequest) -> Result<GetMessagesResponse, Status> {
        let read = self.recorder.read_called(self.no, &request);
        let answer = self.user.get(request).await;
        self.recorder.read_answered(read, answer.as_ref());
        answer
    }

    /// Opens a subscription on a connection of its own, with a window of `window_bytes` if that is
    /// given. `continues`: it takes up another, after the highest sequence that was seen there.
    ///
    /// # Errors
    /// The status with which the server refuses.
    pub async fn subscribe(
        &self,
        request: SubscribeRequest,
        window_bytes: Option<u32>,
        continues: Option<FollowNo>,
    ) -> Result<RecordedSubscription, Status> {
        let no = self.recorder.follow_called(self.no, &request, continues);
        let opened = match window_bytes {
            Some(bytes) => self.user.subscribe_with_window(bytes, request).await,
            None => self.user.subscribe(request).await,
        };
        let recorder = self.recorder.clone();
        match opened {
            Ok(subscription) => {
                let started = subscription.started().clone();
                recorder.follow_told(no, &subscribe_response::Event::Started(started));
                Ok(RecordedSubscription { recorder, no, subscription })
            }
            Err(status) => {
                recorder.follow_ended(no, &status);
                Err(status)
            }
        }
    }

    /// Acknowledges, within an epoch if it is not empty.
    ///
    /// # Errors
    /// The status with which the server refuses.
    pub async fn acknowledge(&self, through_sequence: i64, epoch: &str) -> Result<i64, Status> {
        let request = AcknowledgeRequest { through_sequence, epoch: epoch.to_owned() };
        let call = self.recorder.acknowledge_called(self.no, &request);
        let answer = self.user.acknowledge_in(epoch, through_sequence).await;
        self.recorder.acknowledge_answered(call, answer.as_ref().copied());
        answer
    }

    /// Registers the same name again, with another address.
    ///
    /// # Errors
    /// The status with which the server refuses.
    pub async fn update_address(&self, ip_address: &str) -> Result<User, Status> {
        let call = self.recorder.register_called(self.no, ip_address);
        let answer = self.user.try_register(&self.user.name, ip_address).await;
        let answer = answer.map(|answer| answer.user.unwrap_or_default());
        self.recorder.register_answered(call, answer.as_ref());
        answer
    }

    /// Looks a user up.
    ///
    /// # Errors
    /// The status with which the server refuses.
    pub async fn look_up(&self, username: &str) -> Result<User, Status> {
        let call = self.recorder.look_up_called(self.no, username);
        let answer = self.user.get_user(username).await;
        self.recorder.look_up_answered(call, answer.as_ref());
        answer
    }

    /// Reads the whole mailbox page by page, and records it as what is there at the end. Returns how
    /// many messages it has.
    ///
    /// # Errors
    /// The status with which the server refuses a page.
    pub async fn read_to_the_end(&self) -> Result<usize, Status> {
        let mut mailbox: Vec<Message> = Vec::new();
        loop {
            let cursor = mailbox.last().map_or(0, |last| last.sequence);
            let request = GetMessagesRequest { page_size: PAGE_SIZE, ..after(cursor) };
            let page = self.get(request).await?;
            mailbox.extend(page.messages);
            if !page.has_more {
                self.recorder.mailbox_at_end(self.no, &mailbox);
                return Ok(mailbox.len());
            }
        }
    }
}

/// The sends of one stream that have no answer yet, in order.
#[derive(Debug, Clone, Default)]
struct Unanswered(Arc<Mutex<VecDeque<SendNo>>>);

impl Unanswered {
    fn queue(&self) -> MutexGuard<'_, VecDeque<SendNo>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answers on a recorded stream of sends.
pub struct RecordedAnswers {
    recorder: Recorder,
    unanswered: Unanswered,
    answers: Answers,
}

impl RecordedAnswers {
    /// What became of the next request, or the status with which the stream ends; `None` when it
    /// ends with OK.
    ///
    /// # Errors
    /// The outer one ends the stream, the inner one is of one request.
    pub async fn next(&mut self) -> Option<Result<Result<Message, Status>, Status>> {
        let answer = self.answers.next().await?;
        if let Ok(answer) = &answer {
            let send = self.unanswered.queue().pop_front();
            self.recorder.send_answered(send.expect("an answer to a request"), answer.as_ref());
        }
        Some(answer)
    }
}

/// A recorded subscription.
#[derive(Debug)]
pub struct RecordedSubscription {
    recorder: Recorder,
    no: FollowNo,
    subscription: Subscription,
}

impl RecordedSubscription {
    /// Its number in the history, for the one that takes it up.
    pub fn no(&self) -> FollowNo {
        self.no
    }

    /// The sequence after which it delivers.
    pub fn after_sequence(&self) -> i64 {
        self.subscription.started().after_sequence
    }

    /// The next event, or the status with which the stream ends.
    ///
    /// # Errors
    /// The status with which the stream ends.
    pub async fn next(&mut self) -> Result<subscribe_response::Event, Status> {
        let event = self.subscription.next().await;
        match &event {
            Ok(event) => self.recorder.follow_told(self.no, event),
            Err(status) => self.recorder.follow_ended(self.no, status),
        }
        event
    }

    /// Its reader has waited too long for everything up to `through`.
    pub fn was_awaited(&self, through: i64) {
        self.recorder.follow_awaited(self.no, through);
    }
}
