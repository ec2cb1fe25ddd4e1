//! What is kept, and removing the rest: a thread that finds what may go and has it removed in small steps by
//! the writer.
//!
//! A mailbox loses entries at its beginning only. Three things happen to an entry, each in a commit of its
//! own, so that it may be cut off between any two: its mailbox begins after it, from which moment nobody is
//! served it; its message's row goes from the log, once both mailboxes begin after it; and it is noted that
//! this entry is dealt with, whereupon the index loses it. Until it is noted, a start finds it again.

mod age;
mod api;
mod count;
pub(super) mod overrides;
mod owners;
mod pace;
mod settle;
pub(super) mod state;
mod sweep;

use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use diesel::prelude::*;
use tracing::{debug, error};

use self::owners::Overrides;
use self::pace::Pace;
use super::connection::open_reader;
use super::readers::snapshot;
use super::writer::{Accepted, Step, Work, Write};
use super::{OpenError, Store, StoreError};
use crate::domain::Timestamp;

/// How often it is looked for what may go.
const INTERVAL_DEFAULT: Duration = Duration::from_mins(1);

/// The most items of a work in one step.
const STEP_ITEMS_DEFAULT: usize = 256;

/// A pass that found nothing is followed by a pause of so many times its own length, so that finding nothing costs little even
/// where there is much to look at.
const REST: u32 = 9;

/// How long it waits when the writer takes nothing more, or the storage fails.
const RETRY: Duration = Duration::from_millis(250);

/// How often a step is tried while the storage fails, before the next pass begins anew.
const ATTEMPTS_MAX: usize = 8;

/// What is kept of a mailbox: entries that none of these lets go. By default all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Entries go when their messages were sent longer ago than this.
    pub age: Option<Duration>,
    /// Entries go but the newest so many.
    pub count: Option<NonZero<u64>>,
    /// Entries that their mailbox's owner acknowledged go when their messages were sent longer ago than
    /// this.
    pub after_acknowledgement: Option<Duration>,
}

impl Retention {
    /// Whether everything is kept.
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// For the audit log.
    pub(super) fn described(&self) -> String {
        let seconds =
            |name, time: Option<Duration>| time.map(|it| format!("{name}={}s", it.as_secs()));
        let set = [
            seconds("age", self.age),
            self.count.map(|count| format!("count={count}")),
            seconds("after-acknowledgement", self.after_acknowledgement),
        ];
        set.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

/// How retention goes about it.
#[derive(Debug, Clone, Copy)]
pub struct RetentionOptions {
    /// What is kept of each mailbox. Default everything.
    pub keep: Retention,
    /// The time between two passes, at least. Default a minute.
    pub interval: Duration,
    /// The most items of a work in one step. Default 256.
    pub step_items: usize,
}

impl Default for RetentionOptions {
    fn default() -> Self {
        let keep = Retention::default();
        Self { keep, interval: INTERVAL_DEFAULT, step_items: STEP_ITEMS_DEFAULT }
    }
}

/// The thread; [`stop`](Self::stop) ends it.
pub(super) struct Retainer {
    thread: JoinHandle<()>,
    /// Dropped to stop it.
    going_on: SyncSender<()>,
}

impl Retainer {
    /// Starts the thread, whose first pass begins after `delay`.
    pub(super) fn start(
        store: Store,
        database: &Path,
        options: RetentionOptions,
        merge_messages: usize,
        delay: Duration,
    ) -> Result<Self, OpenError> {
        let (worker, going_on) = Worker::new(store, database, options, merge_messages)?;
        let thread = std::thread::Builder::new()
            .name("store-retention".into())
            .spawn(move || worker.run(delay))
            .map_err(OpenError::Thread)?;
        Ok(Self { thread, going_on })
    }

    /// Has it end after the step that it is at, and waits until it has.
    pub(super) fn stop(self) {
        drop(self.going_on);
        // A panic changes nothing for who closes: the default hook prints it.
        let _ = self.thread.join();
    }
}

/// Why a pass ends early.
#[derive(Debug)]
enum Ended {
    /// The store closes.
    Stopped,
    /// Logged where it was met. The next pass tries again.
    Failed,
}

type Outcome<T> = Result<T, Ended>;

struct Worker {
    store: Store,
    connection: SqliteConnection,
    stopped: Receiver<()>,
    options: RetentionOptions,
    pace: Pace,
    /// The log was walked through up to here for what is too old, since the start.
    walked_through: i64,
    /// What is kept of single users' mailboxes, as of the present pass.
    overrides: Overrides,
    /// Whether the present pass found something to do.
    has_worked: bool,
    /// The request keys are looked through when so many rows were removed.
    sweep_after: i64,
    /// When what is in memory was merged only so that it can be removed.
    merged_early: Option<Instant>,
}

impl Worker {
    /// A worker, and what is dropped to stop it.
    fn new(
        store: Store,
        database: &Path,
        options: RetentionOptions,
        merge_messages: usize,
    ) -> Result<(Self, SyncSender<()>), OpenError> {
        let (going_on, stopped) = mpsc::sync_channel(0);
        let worker = Self {
            store,
            connection: open_reader(database)?,
            stopped,
            options,
            pace: Pace::default(),
            walked_through: 0,
            overrides: Overrides::new(),
            has_worked: false,
            sweep_after: i64::try_from(merge_messages).unwrap_or(i64::MAX),
            merged_early: None,
        };
        Ok((worker, going_on))
    }

    fn run(mut self, delay: Duration) {
        let mut wait = delay;
        while self.pause(wait).is_ok() {
            let began = Instant::now();
            if let Err(Ended::Stopped) = self.pass(Timestamp::now()) {
                return;
            }
            // One that removed something rested while others sent.
            let has_worked = std::mem::take(&mut self.has_worked);
            let rest = if has_worked { Duration::ZERO } else { began.elapsed() * REST };
            wait = self.options.interval.max(rest);
        }
    }

    /// Finds and removes what may go at this moment.
    fn pass(&mut self, now: Timestamp) -> Outcome<()> {
        self.expire(now)?;
        self.apply_overrides(now)?;
        self.bound_counts()?;
        self.remove_acknowledged(now)?;
        self.remove_old(now)?;
        self.settle()?;
        self.sweep()?;
        self.give_back()
    }

    /// Waits, unless the store closes.
    fn pause(&self, wait: Duration) -> Outcome<()> {
        match self.stopped.recv_timeout(wait) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Err(Ended::Stopped),
        }
    }

    /// Reads in a snapshot of its own, as all readers do.
    fn read<T>(
        &mut self,
        read: impl FnOnce(&mut SqliteConnection, &Store) -> QueryResult<T>,
    ) -> Outcome<T> {
        let began = Instant::now();
        let store = &self.store;
        let outcome = snapshot(&mut self.connection, |connection| {
            read(connection, store).map_err(super::error::failed)
        });
        if let Err(error) = &outcome {
            error!(%error, "retention cannot read what is stored");
        }
        let read = outcome.map_err(|_| Ended::Failed)?;
        self.rest(began.elapsed())?;
        Ok(read)
    }

    /// Leaves the machine to others for a while after it worked for so long, if there are any.
    fn rest(&mut self, worked: Duration) -> Outcome<()> {
        let (stored, ..) = self.store.0.index.progress();
        let rest = self.pace.rest(worked, stored);
        self.pause(rest)
    }

    /// Does a work to its end, step by step.
    fn work<W: Work>(&mut self, work: W) -> Outcome<()> {
        let (work, mut from) = (Arc::new(work), 0);
        self.has_worked |= work.items() > 0;
        while from < work.items() {
            let items_max = self.options.step_items;
            from = self.write(|| Step { work: Arc::clone(&work), from, items_max })?;
        }
        Ok(())
    }

    /// Has the writer do something, and waits until it is on disk.
    fn write<W: Write>(&mut self, mut write: impl FnMut() -> W) -> Outcome<W::Output> {
        for _ in 0..ATTEMPTS_MAX {
            let began = Instant::now();
            let outcome = self.store.0.writes.try_submit(write()).and_then(Accepted::wait);
            match outcome {
                Ok(done) => {
                    self.rest(began.elapsed())?;
                    return Ok(done);
                }
                Err(StoreError::Closed) => return Err(Ended::Stopped),
                Err(error @ StoreError::Damaged { .. }) => {
                    error!(%error, "retention meets damage, and removes nothing more there");
                    return Err(Ended::Failed);
                }
                Err(error) => {
                    debug!(%error, "retention waits");
                    self.pause(RETRY)?;
                }
            }
        }
        Err(Ended::Failed)
    }
}

/// One pass as at the time `now`, on the caller's thread.
#[cfg(test)]
pub(super) fn pass(
    store: &Store,
    options: RetentionOptions,
    merge_messages: usize,
    now: Timestamp,
) {
    let database = store.0.database.clone();
    let worker = Worker::new(store.clone(), &database, options, merge_messages);
    let (mut worker, _going_on) = worker.expect("opens");
    worker.pass(now).expect("goes through");
}
