//! One who sends on streams, as fast as answers come.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_stream::stream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::author::Author;
use super::crowd::{Crowd, Phase};
use crate::proto::SendMessageRequest;
use crate::random::Random;

/// Messages in flight on a stream.
const WINDOWS: [usize; 4] = [4, 32, 256, 1024];

/// Messages of a stream before its sender closes it.
const MESSAGES_MAX: usize = 6_000;

/// What is not answered for so long is given up: unknown.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);

const PAUSE_AFTER_BREAK: Duration = Duration::from_millis(3);

/// Sends stream after stream, until the load ends and what is unknown was repeated.
pub(super) async fn run(crowd: Arc<Crowd>, number: usize, mut random: Random) {
    let author = Author::new(format!("s{number}"), random.fork());
    let outbox = Outbox { author, in_flight: VecDeque::new(), to_repeat: VecDeque::new() };
    let outbox = Arc::new(Mutex::new(outbox));
    while crowd.phase() == Phase::Load || !lock(&outbox).to_repeat.is_empty() {
        send_on_one(&crowd, number, &mut random, &outbox).await;
        lock(&outbox).give_up_or_repeat(&mut random);
        sleep(PAUSE_AFTER_BREAK).await;
    }
}

/// What a sender has to send, and waits for.
struct Outbox {
    author: Author,
    /// Handed to the stream and not answered, in order.
    in_flight: VecDeque<SendMessageRequest>,
    /// Unknown, to be sent again with the same `request_id`.
    to_repeat: VecDeque<SendMessageRequest>,
}

impl Outbox {
    /// What a broken stream left unanswered is repeated, in order; some of it never is.
    fn give_up_or_repeat(&mut self, random: &mut Random) {
        let left = std::mem::take(&mut self.in_flight);
        let repeated = left.into_iter().filter(|it| !it.request_id.is_empty());
        let repeated: Vec<_> = repeated.filter(|_| random.below(8) > 0).collect();
        // Before what had waited behind it.
        repeated.into_iter().rev().for_each(|it| self.to_repeat.push_front(it));
    }

    fn next(&mut self, crowd: &Crowd) -> Option<SendMessageRequest> {
        let request = match self.to_repeat.pop_front() {
            Some(request) => request,
            None if crowd.phase() > Phase::Load => return None,
            None => self.author.message(crowd),
        };
        self.in_flight.push_back(request.clone());
        Some(self.spoiled(request, crowd))
    }

    /// Now and then one without a `request_id`, to nobody, or again at once.
    fn spoiled(&mut self, mut request: SendMessageRequest, crowd: &Crowd) -> SendMessageRequest {
        if crowd.phase() > Phase::Load {
            return request;
        }
        let sent = self.in_flight.back_mut().expect("it was put there");
        match self.author.random.below(400) {
            0..20 => {
                request.request_id.clear();
                sent.request_id.clear();
            }
            20 => {
                "nobody-of-this-name".clone_into(&mut request.to_user);
                request.request_id.clear();
                sent.request_id.clear();
            }
            21 | 22 => self.to_repeat.push_back(request.clone()),
            _ => {}
        }
        request
    }
}

async fn send_on_one(
    crowd: &Arc<Crowd>,
    number: usize,
    random: &mut Random,
    outbox: &Arc<Mutex<Outbox>>,
) {
    let user = crowd.user(number, random);
    let window = Arc::new(Semaphore::new(WINDOWS[random.below(WINDOWS.len())]));
    let count = 1 + random.below(MESSAGES_MAX);
    let requests = {
        let (crowd, outbox, window) = (Arc::clone(crowd), Arc::clone(outbox), Arc::clone(&window));
        stream! {
            for _ in 0..count {
                let Ok(place) = window.acquire().await else { break };
                place.forget();
                let Some(request) = lock(&outbox).next(&crowd) else { break };
                yield request;
            }
        }
    };
    let answers = timeout(ANSWER_PATIENCE, user.send_stream(requests)).await;
    let Ok(Ok(mut answers)) = answers else { return };
    // Some leave in the middle of it.
    let mut left = if random.below(8) == 0 { 1 + random.below(count) } else { usize::MAX };
    while let Ok(Some(Ok(_))) = timeout(ANSWER_PATIENCE, answers.next()).await {
        lock(outbox).in_flight.pop_front();
        window.add_permits(1);
        left -= 1;
        if left == 0 {
            return;
        }
    }
}

fn lock(outbox: &Mutex<Outbox>) -> MutexGuard<'_, Outbox> {
    outbox.lock().unwrap_or_else(PoisonError::into_inner)
}
