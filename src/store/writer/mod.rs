//! The one thread that writes, and the queue before it.
//!
//! It takes what waits, writes it in one transaction, commits, announces the committed messages in
//! order, then answers. Nothing is answered or announced before COMMIT.

mod accounts;
mod answers;
mod append;
mod group;
mod import;
mod jobs;
mod sequences;
mod sizes;
mod trim;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot::{self, error::TryRecvError};

pub use self::accounts::{Subject, Which};
use self::answers::Desk;
pub use self::answers::give_answers_on_this_thread;
pub use self::append::{Draft, Receiver};
pub(super) use self::group::{AfterCommit, Transaction, Writer};
pub(super) use self::import::ImportMessage;
pub use self::import::{ImportedUser, UserToImport};
pub use self::jobs::Registered;
pub(super) use self::jobs::{Acknowledge, MarkSeen, Register, SetUserLimits};
pub(super) use self::sizes::bytes_of;
#[cfg(test)]
pub(super) use self::trim::EmptyMailbox;
pub(super) use self::trim::{
    EraseBodies, ForgetRequests, GiveBack, MergeEarly, Note, Raise, RaiseFloors, RemoveRows,
    SetRetention, Settle, Step, Work,
};
use super::StoreError;
use super::admission::{Admission, NotAdmitted, Place};

/// What a queued write counts for beside its body.
const JOB_OVERHEAD_BYTES: usize = 1024;

/// The most writes that wait for a place in the queue at a time. Each holds its body meanwhile.
const WRITES_WAITING_MAX: usize = 1024;

/// A write that waits: applied in a transaction with others, answered after its COMMIT.
trait Job: Send {
    /// The body's part of the size that it takes in a group.
    fn body_bytes(&self) -> usize;

    /// Writes, and keeps what came of it. May be called again after a rollback.
    fn apply(&mut self, transaction: &mut Transaction<'_>) -> diesel::QueryResult<()>;

    /// Answers with what `apply` came to, which is on disk now.
    fn committed(self: Box<Self>);

    /// Answers with what kept the group from being committed.
    fn failed(self: Box<Self>, error: StoreError);
}

/// What a job does; [`Pending`] adds who waits for it.
pub(super) trait Write: Send + 'static {
    type Output: Send + 'static;

    /// The body's part of the size that it takes in the queue.
    fn body_bytes(&self) -> usize {
        0
    }

    /// Writes. The outer error is the storage's and fails the group; the inner one is this write's
    /// own refusal, which must come before anything is written.
    fn apply(
        &mut self,
        transaction: &mut Transaction<'_>,
    ) -> diesel::QueryResult<Result<Self::Output, StoreError>>;
}

struct Pending<W: Write> {
    write: W,
    outcome: Option<Result<W::Output, StoreError>>,
    /// Gone callers are no reason not to write: what was accepted is kept.
    reply: oneshot::Sender<Result<W::Output, StoreError>>,
}

impl<W: Write> Job for Pending<W> {
    fn body_bytes(&self) -> usize {
        self.write.body_bytes()
    }

    fn apply(&mut self, transaction: &mut Transaction<'_>) -> diesel::QueryResult<()> {
        self.outcome = Some(self.write.apply(transaction)?);
        Ok(())
    }

    fn committed(self: Box<Self>) {
        let outcome = self.outcome.unwrap_or(Err(StoreError::Failing));
        let _ = self.reply.send(outcome);
    }

    fn failed(self: Box<Self>, error: StoreError) {
        let _ = self.reply.send(Err(error));
    }
}

struct Queued {
    job: Box<dyn Job>,
    /// Where its caller's answers are put; none: they are given by the writer itself.
    desk: Option<Arc<Desk>>,
    /// Given back when the job is answered.
    _place: Place,
}

enum Command {
    Write(Queued),
    /// The last one: what was queued before it is written.
    Stop,
}

/// The write queue's near end.
pub(super) struct WriteQueue {
    commands: mpsc::Sender<Command>,
    /// The queue's bound, in bytes: a place is taken before a command is sent.
    admission: Admission,
    limit_bytes: usize,
}

/// The write queue's far end.
pub(super) struct Commands(mpsc::Receiver<Command>);

/// A queue of at most `limit_bytes`, in which a write waits for a place for `admission_wait`.
pub(super) fn queue(limit_bytes: usize, admission_wait: Duration) -> (WriteQueue, Commands) {
    #[expect(clippy::disallowed_methods, reason = "the semaphore before it is the bound")]
    let (commands, receiver) = mpsc::channel();
    let admission = Admission::new(limit_bytes, WRITES_WAITING_MAX, admission_wait);
    (WriteQueue { commands, admission, limit_bytes }, Commands(receiver))
}

/// An accepted write: resolves when it is on disk, or refused.
#[must_use]
pub(super) struct Accepted<T>(oneshot::Receiver<Result<T, StoreError>>);

impl<T> Accepted<T> {
    pub(super) async fn answer(mut self) -> Result<T, StoreError> {
        poll_fn(|context| self.poll_answer(context)).await
    }

    /// [`answer`](Self::answer), step by step. Not to be called again once it has answered.
    pub(super) fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<Result<T, StoreError>> {
        // The writer answers everything it took; it drops a reply only when it panicked.
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(StoreError::Failing)))
    }

    /// [`answer`](Self::answer), for a thread that may wait.
    pub(super) fn wait(self) -> Result<T, StoreError> {
        self.0.blocking_recv().unwrap_or(Err(StoreError::Failing))
    }

    /// The answer, if it is there. Not to be called again once it has answered.
    pub(super) fn answer_at_hand(&mut self) -> Option<Result<T, StoreError>> {
        match self.0.try_recv() {
            Ok(answer) => Some(answer),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Closed) => Some(Err(StoreError::Failing)),
        }
    }
}

impl WriteQueue {
    /// Queues a write; returns when it has a place. The order of these returns is the order of
    /// writing.
    pub(super) async fn submit<W: Write>(
        &self,
        write: W,
    ) -> Result<Accepted<W::Output>, StoreError> {
        let place = self.admission.enter(size(&write)).await;
        self.send(write, place.map_err(|error| self.not_admitted(error))?)
    }

    /// Queues a write if there is a place at once.
    pub(super) fn try_submit<W: Write>(&self, write: W) -> Result<Accepted<W::Output>, StoreError> {
        let place = self.admission.try_enter(size(&write));
        self.send(write, place.map_err(|error| self.not_admitted(error))?)
    }

    fn not_admitted(&self, error: NotAdmitted) -> StoreError {
        match error {
            NotAdmitted::Full => StoreError::WriteQueueFull { limit_bytes: self.limit_bytes },
            NotAdmitted::Closed => StoreError::Closed,
        }
    }

    fn send<W: Write>(&self, write: W, place: Place) -> Result<Accepted<W::Output>, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Pending { write, outcome: None, reply });
        self.commands
            .send(Command::Write(Queued { job, desk: Desk::of_this_thread(), _place: place }))
            .map_err(|_| StoreError::Closed)?;
        Ok(Accepted(answer))
    }

    /// The bytes that are taken, those there are, and how many writes wait for some.
    pub(super) fn depth(&self) -> (usize, usize, usize) {
        (self.admission.taken(), self.limit_bytes, self.admission.waiting())
    }

    /// How many writes were refused a place.
    pub(super) fn refused(&self) -> u64 {
        self.admission.refused()
    }

    /// Takes no more writes; the writer ends after those it has.
    pub(super) fn stop(&self) {
        self.admission.close();
        // A writer that is gone has stopped.
        let _ = self.commands.send(Command::Stop);
    }
}

/// What a write takes in the queue.
fn size<W: Write>(write: &W) -> u32 {
    u32::try_from(write.body_bytes() + JOB_OVERHEAD_BYTES).unwrap_or(u32::MAX)
}
