use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::result::Error as DieselError;
use tokio::sync::watch;
use tracing::{error, info};

use super::sequences::Sequences;
use super::{Command, Commands, Queued};
use crate::domain::{Message, Timestamp};
use crate::store::connection::{open_writer, probe};
use crate::store::directory::Directory;
use crate::store::error::storage_error;
use crate::store::{CommitListener, StoreError};

/// The most writes in one commit. Groups of 512 carry the cost of a sync; larger ones would only
/// add to the time that the first of a group waits.
const GROUP_WRITES_MAX: usize = 512;

/// The most bytes of bodies in one commit, beside the last one's.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long a failing store waits before it tries the disk again.
const RECOVER_INTERVAL: Duration = Duration::from_millis(500);

/// What a write sees of the transaction it is part of.
pub(in crate::store) struct Transaction<'a> {
    pub(super) connection: &'a mut SqliteConnection,
    pub(super) sequences: &'a mut Sequences,
    pub(super) directory: &'a Directory,
    /// The time of everything in this transaction.
    pub(super) now: Timestamp,
    /// The new messages in the order of the log, to be announced after COMMIT.
    pub(super) appended: &'a mut Vec<Arc<Message>>,
}

/// The writing thread's state.
pub(in crate::store) struct Writer {
    commands: Receiver<Command>,
    database: PathBuf,
    /// `None`: the storage failed, and the disk did not take a write since.
    connection: Option<SqliteConnection>,
    sequences: Sequences,
    directory: Directory,
    listener: Box<dyn CommitListener>,
    healthy: watch::Sender<bool>,
}

/// Why a group was not committed.
enum GroupError {
    /// A write failed and the transaction was rolled back: nothing of it is stored.
    RolledBack(DieselError),
    /// The storage failed. After a failed COMMIT it is unknown what is stored.
    Storage(DieselError),
    /// The storage failed before, and does not take writes yet: nothing was tried.
    StillFailing(StoreError),
}

impl Writer {
    pub(in crate::store) fn new(
        commands: Commands,
        database: PathBuf,
        connection: SqliteConnection,
        directory: Directory,
        listener: Box<dyn CommitListener>,
        healthy: watch::Sender<bool>,
    ) -> Self {
        Self {
            commands: commands.0,
            database,
            connection: Some(connection),
            sequences: Sequences::default(),
            directory,
            listener,
            healthy,
        }
    }

    /// Writes until it is told to stop, and then what came before.
    pub(in crate::store) fn run(mut self) {
        while let Some(first) = self.wait() {
            let mut group = Vec::new();
            let stop = self.collect(first, &mut group);
            self.write(group);
            if stop {
                break;
            }
        }
    }

    /// Waits for a command; a failing store tries to recover meanwhile. `None`: nobody is left who
    /// could send one.
    fn wait(&mut self) -> Option<Command> {
        loop {
            if self.connection.is_some() {
                return self.commands.recv().ok();
            }
            match self.commands.recv_timeout(RECOVER_INTERVAL) {
                Ok(command) => return Some(command),
                Err(RecvTimeoutError::Disconnected) => return None,
                // A failure was logged when it began; its end is logged when it comes.
                Err(RecvTimeoutError::Timeout) => drop(self.recover()),
            }
        }
    }

    /// Takes what waits, up to the bounds of a group. Whether `Stop` came along.
    fn collect(&self, first: Command, group: &mut Vec<Queued>) -> bool {
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Stop => return true,
                Command::Write(queued) => {
                    bytes += queued.job.body_bytes();
                    group.push(queued);
                }
            }
            if group.len() >= GROUP_WRITES_MAX || bytes >= GROUP_BYTES_MAX {
                return false;
            }
            next = self.commands.try_recv().ok();
        }
        false
    }

    /// Writes a group and answers everyone in it.
    fn write(&mut self, mut group: Vec<Queued>) {
        if group.is_empty() {
            return;
        }
        match self.commit(&mut group) {
            Ok(appended) => {
                self.listener.committed(&appended);
                for queued in group {
                    queued.job.committed();
                }
            }
            // One bad write fails alone: each of the others gets a transaction of its own.
            Err(GroupError::RolledBack(_)) if group.len() > 1 => {
                for queued in group {
                    self.write(vec![queued]);
                }
            }
            Err(GroupError::RolledBack(error)) => {
                error!(%error, "a write failed alone");
                fail(group, &StoreError::Failing);
            }
            Err(GroupError::Storage(error)) => {
                error!(%error, writes = group.len(), "the storage failed; it is opened again");
                self.connection = None;
                self.healthy.send_replace(false);
                fail(group, &storage_error(&error));
            }
            Err(GroupError::StillFailing(error)) => fail(group, &error),
        }
    }

    /// One transaction: the messages that are new in the log.
    fn commit(&mut self, group: &mut [Queued]) -> Result<Vec<Arc<Message>>, GroupError> {
        if self.connection.is_none() {
            self.recover().map_err(GroupError::StillFailing)?;
        }
        let Some(connection) = self.connection.as_mut() else {
            return Err(GroupError::StillFailing(StoreError::Failing));
        };
        let mut appended = Vec::with_capacity(group.len());
        let mut transaction = Transaction {
            connection,
            sequences: &mut self.sequences,
            directory: &self.directory,
            now: Timestamp::now(),
            appended: &mut appended,
        };
        let outcome = transaction.run(group);
        if outcome.is_err() {
            self.sequences.forget();
        }
        outcome.map(|()| appended)
    }

    /// Opens the connection again and proves that the disk takes a write. What was remembered is
    /// forgotten, and what was not announced is there to be found.
    fn recover(&mut self) -> Result<(), StoreError> {
        let failing = |error: DieselError| storage_error(&error);
        let mut connection = open_writer(&self.database).map_err(|_| StoreError::Failing)?;
        probe(&mut connection).map_err(failing)?;
        info!("the storage takes writes again");
        self.connection = Some(connection);
        self.sequences.forget();
        self.listener.reset();
        self.healthy.send_replace(true);
        Ok(())
    }
}

impl Transaction<'_> {
    /// Applies `group` and commits it.
    fn run(&mut self, group: &mut [Queued]) -> Result<(), GroupError> {
        self.connection.batch_execute("BEGIN IMMEDIATE").map_err(GroupError::Storage)?;
        for queued in group {
            if let Err(error) = queued.job.apply(self) {
                let rolled_back = self.connection.batch_execute("ROLLBACK").is_ok();
                return Err(if rolled_back && is_of_one_write(&error) {
                    GroupError::RolledBack(error)
                } else {
                    GroupError::Storage(error)
                });
            }
        }
        self.connection.batch_execute("COMMIT").map_err(GroupError::Storage)
    }
}

/// Whether an error is about the values of one write rather than about the storage.
fn is_of_one_write(error: &DieselError) -> bool {
    use diesel::result::DatabaseErrorKind as Kind;
    match error {
        DieselError::DatabaseError(kind, _) => matches!(
            kind,
            Kind::UniqueViolation
                | Kind::ForeignKeyViolation
                | Kind::NotNullViolation
                | Kind::CheckViolation
        ),
        DieselError::SerializationError(_)
        | DieselError::DeserializationError(_)
        | DieselError::NotFound => true,
        _ => false,
    }
}

fn fail(group: Vec<Queued>, error: &StoreError) {
    for queued in group {
        queued.job.failed(error.clone());
    }
}
