//! One who follows a mailbox: stops and resumes, reads slowly, loses the connection, and misses
//! nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::crowd::{Crowd, Phase};
use crate::proto::{SubscribeRequest, subscribe_request, subscribe_response::Event};
use crate::random::Random;
use crate::testing::history::FollowNo;
use crate::testing::{RecordedSubscription, RecordedUser};

/// The bytes that a subscription may have sent and its reader not read. `None`: as the client is
/// built.
const WINDOWS_BYTES: [Option<u32>; 3] = [None, None, Some(4 * 1024)];

/// Events that a reader takes before leaving.
const EVENTS_MAX: usize = 4_000;

/// How long a subscription may take until it has begun.
const OPEN_PATIENCE: Duration = Duration::from_secs(20);

/// How long the rest of a mailbox may take, when nothing goes wrong any more.
const REST_PATIENCE: Duration = Duration::from_secs(30);

const PAUSE_AFTER_BREAK: Duration = Duration::from_millis(3);

const HEARTBEAT_SECONDS: i64 = 1;

/// A reader of one mailbox, over any number of subscriptions.
pub(super) struct Follower {
    pub(super) user: RecordedUser,
    received_only: bool,
    /// Up to where it was delivered, and by which subscription.
    cursor: Option<i64>,
    latest: Option<FollowNo>,
    random: Random,
}

/// Follows until the last phase's goal is reached. Returns the reader, for one more look after the
/// next restart.
pub(super) async fn run(crowd: Arc<Crowd>, number: usize, mut random: Random) -> Follower {
    let user = crowd.user(number, &mut random);
    let received_only = random.below(3) == 0;
    let mut follower = Follower { user, received_only, cursor: None, latest: None, random };
    while crowd.phase() < Phase::LastReads {
        let network = crowd.network(&mut follower.random);
        follower.user = follower.user.at(network);
        follower.follow_a_while(&crowd).await;
        sleep(PAUSE_AFTER_BREAK).await;
    }
    let goal = crowd.goal(follower.user.name(), received_only);
    follower.follow_through(goal).await;
    follower
}

impl Follower {
    /// One subscription, until it breaks, or its reader has enough.
    async fn follow_a_while(&mut self, crowd: &Crowd) {
        if self.random.below(10) == 0 {
            // One that forgot where it was.
            (self.cursor, self.latest) = (None, None);
        }
        let Some(mut subscription) = self.subscribe().await else { return };
        let mut events = 1 + self.random.below(EVENTS_MAX);
        let is_slow = self.random.below(3) == 0;
        let mut phase = crowd.phase.subscribe();
        while events > 0 {
            let event = tokio::select! {
                event = subscription.next() => event,
                _ = phase.wait_for(|phase| *phase == Phase::LastReads) => return,
            };
            let Ok(event) = event else { return };
            self.take(&event);
            events -= 1;
            if is_slow && self.random.below(64) == 0 {
                sleep(Duration::from_millis(self.random.below(12) as u64)).await;
            }
        }
    }

    /// Everything up to `goal`, over as many subscriptions as that takes. The time that it may take
    /// is bounded; when it is over, that is recorded.
    pub(super) async fn follow_through(&mut self, goal: i64) {
        let deadline = Instant::now() + REST_PATIENCE;
        while self.cursor.is_none_or(|cursor| cursor < goal) && Instant::now() < deadline {
            let Some(mut subscription) = self.subscribe().await else {
                sleep(PAUSE_AFTER_BREAK).await;
                continue;
            };
            while self.cursor.is_none_or(|cursor| cursor < goal) {
                let left = deadline.saturating_duration_since(Instant::now());
                match timeout(left, subscription.next()).await {
                    Ok(Ok(event)) => self.take(&event),
                    Ok(Err(_)) => break,
                    Err(_) => {
                        subscription.was_awaited(goal);
                        break;
                    }
                }
            }
        }
    }

    async fn subscribe(&mut self) -> Option<RecordedSubscription> {
        use subscribe_request::Start;
        let start = match self.cursor {
            Some(cursor) => Some(Start::AfterSequence(cursor)),
            None => match self.random.below(4) {
                0 => Some(Start::FromNow(true)),
                1 => None,
                _ => Some(Start::AfterSequence(0)),
            },
        };
        let request = SubscribeRequest {
            start,
            received_only: self.received_only,
            heartbeat_interval: Some(prost_types::Duration { seconds: HEARTBEAT_SECONDS, nanos: 0 }),
            ..Default::default()
        };
        let window = WINDOWS_BYTES[self.random.below(WINDOWS_BYTES.len())];
        let opening = self.user.subscribe(request, window, self.latest);
        let subscription = timeout(OPEN_PATIENCE, opening).await.ok()?.ok()?;
        self.cursor = Some(subscription.after_sequence());
        self.latest = Some(subscription.no());
        Some(subscription)
    }

    fn take(&mut self, event: &Event) {
        let through = match event {
            Event::Message(message) => message.sequence,
            Event::CaughtUp(caught_up) => caught_up.through_sequence,
            Event::Heartbeat(heartbeat) => heartbeat.through_sequence,
            Event::Started(_) => return,
        };
        self.cursor = self.cursor.max(Some(through));
    }
}
