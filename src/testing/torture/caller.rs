//! One who calls: sends, reads, acknowledges, registers, looks up, one call after the other.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tonic::{Code, Status};

use super::author::Author;
use super::crowd::{Crowd, Phase};
use crate::proto::{GetMessagesRequest, SendMessageRequest, SubscribeRequest, subscribe_request};
use crate::random::Random;
use crate::testing::{RecordedUser, after, before};

/// What is not answered for so long is given up.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);

const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(3);

/// How often an unknown send is repeated.
const REPEATS_MAX: usize = 40;

/// Sends that are kept to be repeated although they were answered.
const SENT_KEPT_MAX: usize = 64;

/// Calls one after the other, until the load ends.
pub(super) async fn run(crowd: Arc<Crowd>, number: usize, mut random: Random) {
    let author = Author::new(format!("c{number}"), random.fork());
    let user = crowd.user(number, &mut random);
    let mut caller =
        Caller { crowd, user, number, random, author, sent: Vec::new(), last: 0, names: 0 };
    while caller.crowd.phase() == Phase::Load {
        if let Err(status) = caller.call().await
            && is_of_the_network(&status)
        {
            caller.user = caller.crowd.user(number, &mut caller.random);
            sleep(PAUSE_AFTER_FAILURE).await;
        }
    }
}

struct Caller {
    crowd: Arc<Crowd>,
    user: RecordedUser,
    number: usize,
    random: Random,
    author: Author,
    /// What was answered and has a `request_id`.
    sent: Vec<SendMessageRequest>,
    /// The last sequence that was seen.
    last: i64,
    /// How many names were registered.
    names: usize,
}

impl Caller {
    async fn call(&mut self) -> Result<(), Status> {
        match self.random.below(100) {
            0..45 => self.send().await,
            45..50 => self.send_and_leave().await,
            50..53 => self.send_again().await,
            53 => self.send_other_content().await,
            54 => self.send_to_nobody().await,
            55..82 => self.read().await,
            82..88 => self.acknowledge().await,
            88..92 => self.use_a_cursor_that_is_ahead().await,
            92..95 => self.use_another_epoch().await,
            95..97 => self.update_address().await,
            97..99 => self.look_up().await,
            _ => self.register().await,
        }
    }

    /// Sends, and repeats what is unknown.
    async fn send(&mut self) -> Result<(), Status> {
        let mut request = self.author.message(&self.crowd);
        if self.random.below(6) == 0 {
            request.request_id.clear();
            return patiently(self.user.send(request)).await.map(drop);
        }
        for _ in 0..REPEATS_MAX {
            match patiently(self.user.send(request.clone())).await {
                Err(status) if is_of_the_network(&status) => sleep(PAUSE_AFTER_FAILURE).await,
                Err(status) => return Err(status),
                Ok(_) => {
                    let at = self.random.below(SENT_KEPT_MAX);
                    if at < self.sent.len() {
                        self.sent[at] = request;
                    } else {
                        self.sent.push(request);
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Does not wait for the answer, or not long enough.
    async fn send_and_leave(&mut self) -> Result<(), Status> {
        let request = self.author.message(&self.crowd);
        let patience = Duration::from_micros(self.random.below(4_000) as u64);
        // Gone in the middle of the call, wherever that is.
        let _ = timeout(patience, self.user.send(request)).await;
        Ok(())
    }

    /// What was answered long ago.
    async fn send_again(&mut self) -> Result<(), Status> {
        let Some(request) = self.sent_before() else { return Ok(()) };
        patiently(self.user.send(request)).await.map(drop)
    }

    async fn send_other_content(&mut self) -> Result<(), Status> {
        let Some(sent) = self.sent_before() else { return Ok(()) };
        let other = self.author.message_to(sent.to_user);
        let request = SendMessageRequest { request_id: sent.request_id, ..other };
        patiently(self.user.send(request)).await.map(drop)
    }

    async fn send_to_nobody(&mut self) -> Result<(), Status> {
        let request = self.author.message_to("nobody-of-this-name".to_owned());
        patiently(self.user.send(request)).await.map(drop)
    }

    async fn read(&mut self) -> Result<(), Status> {
        let somewhere = self.somewhere();
        let page_size = [1, 7, 100, 1000][self.random.below(4)];
        let mut request = match self.random.below(4) {
            0 => before(0),
            1 => before(somewhere + 1),
            2 => after(self.last),
            _ => after(somewhere),
        };
        request.page_size = page_size;
        request.received_only = self.random.below(4) == 0;
        if self.random.below(3) == 0 {
            self.crowd.anyone(&mut self.random).clone_into(&mut request.peer);
        }
        self.get(request).await
    }

    async fn get(&mut self, request: GetMessagesRequest) -> Result<(), Status> {
        let page = patiently(self.user.get(request)).await?;
        self.last = page.last_sequence.max(self.last);
        Ok(())
    }

    async fn acknowledge(&mut self) -> Result<(), Status> {
        let through = self.somewhere();
        patiently(self.user.acknowledge(through, "")).await.map(drop)
    }

    /// Far beyond the end, or just where others may be writing at this moment.
    async fn use_a_cursor_that_is_ahead(&mut self) -> Result<(), Status> {
        let distance = [1, 2, 10, 1_000_000][self.random.below(4)];
        let ahead = self.last + distance;
        match self.random.below(4) {
            0 => self.get(after(ahead)).await,
            1 => self.get(before(ahead + 1)).await,
            2 => patiently(self.user.acknowledge(ahead, "")).await.map(drop),
            _ => self.subscribe(ahead, "").await,
        }
    }

    async fn use_another_epoch(&mut self) -> Result<(), Status> {
        const EPOCH: &str = "00000000000000000000000000000000";
        let cursor = self.somewhere();
        match self.random.below(3) {
            0 => self.get(GetMessagesRequest { epoch: EPOCH.to_owned(), ..after(cursor) }).await,
            1 => patiently(self.user.acknowledge(cursor, EPOCH)).await.map(drop),
            _ => self.subscribe(cursor, EPOCH).await,
        }
    }

    async fn subscribe(&mut self, after: i64, epoch: &str) -> Result<(), Status> {
        let start = Some(subscribe_request::Start::AfterSequence(after));
        let request = SubscribeRequest { start, epoch: epoch.to_owned(), ..Default::default() };
        patiently(self.user.subscribe(request, None, None)).await.map(drop)
    }

    async fn update_address(&mut self) -> Result<(), Status> {
        let [a, b, c, ..] = self.random.next().to_be_bytes();
        let address = format!("10.{a}.{b}.{c}");
        patiently(self.user.update_address(&address)).await.map(drop)
    }

    async fn look_up(&mut self) -> Result<(), Status> {
        let name = self.crowd.anyone(&mut self.random).to_owned();
        patiently(self.user.look_up(&name)).await.map(drop)
    }

    async fn register(&mut self) -> Result<(), Status> {
        self.names += 1;
        let name = format!("late-{}-{}", self.number, self.names);
        let network = self.crowd.network(&mut self.random);
        let recorder = self.user.recorder().clone();
        let user = patiently(RecordedUser::register(&recorder, network, &name)).await?;
        let note = self.author.message_to(name);
        patiently(self.user.send(note)).await?;
        self.crowd.join(user);
        Ok(())
    }

    fn sent_before(&mut self) -> Option<SendMessageRequest> {
        let count = self.sent.len();
        (count > 0).then(|| self.sent[self.random.below(count)].clone())
    }

    /// A sequence that is in the mailbox, or 0.
    fn somewhere(&mut self) -> i64 {
        let end = usize::try_from(self.last).unwrap_or_default() + 1;
        i64::try_from(self.random.below(end)).unwrap_or_default()
    }
}

async fn patiently<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let gave_up = |_| Status::deadline_exceeded("the caller gave up");
    timeout(ANSWER_PATIENCE, call).await.map_err(gave_up)?
}

/// Whether the call may have been lost on its way, or the server have been away.
fn is_of_the_network(status: &Status) -> bool {
    !matches!(
        status.code(),
        Code::InvalidArgument
            | Code::AlreadyExists
            | Code::NotFound
            | Code::OutOfRange
            | Code::FailedPrecondition
            | Code::Unauthenticated
    )
}
