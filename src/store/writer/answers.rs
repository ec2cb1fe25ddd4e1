//! Giving answers where they are waited for.
//!
//! To wake a task of another thread's event loop takes that loop's lock and a system call. For each
//! message of a group that is a tenth of the writer's time, and the loop, woken by the first answer,
//! contends for the lock while it sends one response at a time. So an event loop that many callers
//! wait on has a desk: a group's answers are put there together, with one wake-up, and are given on
//! the loop's own thread, which costs neither.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec;

use tokio::sync::Notify;
use tokio::task::yield_now;

use super::Queued;
use crate::store::StoreError;

/// Answers that are given before the event loop goes on with what they woke. So the first responses of
/// a large group are on their way while the others are still made, and clients work at the same time.
const ANSWERS_AT_A_TIME: usize = 32;

thread_local! {
    static DESK: RefCell<Option<Arc<Desk>>> = const { RefCell::new(None) };
}

/// Where the answers to the writes of one event loop are put.
pub(super) struct Desk {
    answers: Mutex<Answers>,
    filled: Notify,
}

/// At most what the write queue holds: an answer keeps its place there until it is given.
#[derive(Default)]
struct Answers {
    ready: Vec<Answer>,
    is_closed: bool,
}

struct Answer {
    queued: Queued,
    outcome: Result<(), StoreError>,
}

impl Answer {
    fn give(self) {
        match self.outcome {
            Ok(()) => self.queued.job.committed(),
            Err(error) => self.queued.job.failed(error),
        }
    }
}

impl Desk {
    /// This thread's, if its event loop has one.
    pub(super) fn of_this_thread() -> Option<Arc<Self>> {
        DESK.with_borrow(Clone::clone)
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        // A list of answers has no half-way state.
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts answers down, or gives them back when nobody comes for them any more.
    fn put(&self, answers: Vec<Answer>) -> Vec<Answer> {
        let mut there = self.answers();
        if there.is_closed {
            return answers;
        }
        there.ready.extend(answers);
        drop(there);
        self.filled.notify_one();
        Vec::new()
    }

    fn take(&self) -> Vec<Answer> {
        std::mem::take(&mut self.answers().ready)
    }
}

/// Answers every write of a group with what it came to, or with the error that kept the group from
/// being committed.
pub(super) fn give(group: Vec<Queued>, outcome: &Result<(), StoreError>) {
    let mut directly = Vec::new();
    let mut by_desk: Vec<(Arc<Desk>, Vec<Answer>)> = Vec::new();
    for mut queued in group {
        let desk = queued.desk.take();
        let answer = Answer { queued, outcome: outcome.clone() };
        let Some(desk) = desk else {
            directly.push(answer);
            continue;
        };
        // There are as many desks as event loops: a few.
        match by_desk.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &desk)) {
            Some((_, answers)) => answers.push(answer),
            None => by_desk.push((desk, vec![answer])),
        }
    }
    for (desk, answers) in by_desk {
        directly.extend(desk.put(answers));
    }
    // Each of these wakes whoever waits for it. The last one first: a stream of sends waits for its
    // answers in order, so that it wakes up once, when all of them are there.
    for answer in directly.into_iter().rev() {
        answer.give();
    }
}

/// Opens a desk on this thread: the writes that are submitted on it are answered by this future, which
/// never ends. It must be polled on no other thread, beside the tasks that submit, and there must be
/// one at a time.
pub async fn give_answers_on_this_thread() {
    let desk = Arc::new(Desk { answers: Mutex::default(), filled: Notify::new() });
    DESK.set(Some(Arc::clone(&desk)));
    let mut closing = Closing { desk, in_hand: Vec::new().into_iter() };
    loop {
        closing.desk.filled.notified().await;
        closing.in_hand = closing.desk.take().into_iter();
        for (number, answer) in closing.in_hand.by_ref().enumerate() {
            answer.give();
            if number % ANSWERS_AT_A_TIME == ANSWERS_AT_A_TIME - 1 {
                yield_now().await;
            }
        }
    }
}

/// Closes a desk when it is dropped, and gives what was put there.
struct Closing {
    desk: Arc<Desk>,
    /// Taken, and not given yet.
    in_hand: vec::IntoIter<Answer>,
}

impl Drop for Closing {
    fn drop(&mut self) {
        // A thread that ends has dropped it.
        let _ = DESK.try_with(RefCell::take);
        let mut answers = self.desk.answers();
        answers.is_closed = true;
        let left = std::mem::take(&mut answers.ready);
        drop(answers);
        for answer in self.in_hand.by_ref().chain(left) {
            answer.give();
        }
    }
}
