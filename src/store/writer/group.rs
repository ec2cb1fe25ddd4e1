use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::result::Error as DieselError;
use tokio::sync::watch;
use tracing::{error, info};

use super::sequences::Sequences;
use super::sizes::Sizes;
use super::{Command, Commands, Queued, answers};
use crate::domain::{Message, Standing, Timestamp};
use crate::store::accounts::{self, AccessEnded, Changes, EndCause};
use crate::store::connection::{open_writer, probe, renew_log};
use crate::store::directory::Directory;
use crate::store::error::{is_damage, storage_error};
use crate::store::index::{IndexWriter, LoadError};
use crate::store::metrics::StoreMetrics;
use crate::store::{CommitListener, MailboxLimits, StoreError};

/// The most writes in one commit. Groups of 512 carry the cost of a sync; larger ones would only
/// add to the time that the first of a group waits.
const GROUP_WRITES_MAX: usize = 512;

/// The most bytes of bodies in one commit, beside the last one's.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A group of so many writes is a sign of load: there is more to come at once.
const GATHER_WRITES_MIN: usize = 4;

/// How long a group is gathered, as a part of the time that the last one took.
const GATHER_PART: f64 = 0.3;

/// The longest that a group is gathered for.
const GATHER_MAX: Duration = Duration::from_millis(1);

/// How long a failing store waits before it tries the disk again.
const RECOVER_INTERVAL: Duration = Duration::from_millis(500);

/// What happens on the writing thread when a write is on disk.
pub(in crate::store) type AfterCommit = Arc<dyn Fn() + Send + Sync>;

/// What a write sees of the transaction it is part of.
pub(in crate::store) struct Transaction<'a> {
    pub(super) connection: &'a mut SqliteConnection,
    pub(super) sequences: &'a mut Sequences,
    pub(super) sizes: &'a mut Sizes,
    pub(super) index: &'a mut IndexWriter,
    pub(super) directory: &'a Directory,
    /// What the directory is once it has entered users.
    unsure_directory: &'a Directory,
    /// The time of everything in this transaction.
    pub(super) now: Timestamp,
    /// The new messages in the order of the log, to be announced after COMMIT.
    pub(super) appended: &'a mut Vec<Arc<Message>>,
    /// What it does to who is let in, to be told after COMMIT.
    pub(super) changes: &'a mut Changes,
    /// Whom to tell after COMMIT, in this order, before anyone is answered.
    pub(super) after_commit: &'a mut Vec<AfterCommit>,
    pub(super) metrics: &'a StoreMetrics,
}

/// The writing thread's state.
pub(in crate::store) struct Writer {
    commands: Receiver<Command>,
    database: PathBuf,
    /// `None`: the storage failed, and the disk did not take a write since.
    connection: Option<SqliteConnection>,
    /// What is known of the present failure, if there is one.
    outage: Option<Outage>,
    /// A sync may have failed: what the write-ahead log shows may not be on the disk.
    log_is_in_doubt: bool,
    last: LastGroup,
    sequences: Sequences,
    sizes: Sizes,
    index: IndexWriter,
    directory: Directory,
    /// The same, for transactions that have entered users.
    unsure_directory: Directory,
    /// What the group at hand does to who is let in.
    changes: Changes,
    /// What may have been done to that by a group whose COMMIT failed.
    in_doubt: Vec<AccessEnded>,
    listener: Box<dyn CommitListener>,
    healthy: watch::Sender<bool>,
    metrics: Arc<StoreMetrics>,
}

/// What is remembered of the last group.
#[derive(Default)]
struct LastGroup {
    writes: usize,
    /// From its beginning to its last answer.
    took: Duration,
}

/// A failure of the storage from which an attempt to recover has failed.
struct Outage {
    /// What those are told who come meanwhile.
    outcome: StoreError,
    /// Why the last attempt to recover failed.
    cause: String,
    /// An attempt can take as long as a lock is waited for: nobody's write starts one before this.
    next_attempt: Instant,
}

/// Why a group was not committed.
enum GroupError {
    /// The write at this place of the group failed, and the transaction was rolled back: nothing of
    /// it is stored.
    RolledBack { at: usize, error: DieselError },
    /// The storage failed. After a failed COMMIT it is unknown what is stored.
    Storage(DieselError),
    /// What was committed does not fit what was there.
    Index(LoadError),
    /// The storage failed before, and does not take writes yet: nothing was tried.
    StillFailing(StoreError),
}

impl Writer {
    pub(in crate::store) fn new(
        commands: Commands,
        (database, connection): (PathBuf, SqliteConnection),
        (index, limits): (IndexWriter, MailboxLimits),
        directory: Directory,
        listener: Box<dyn CommitListener>,
        healthy: watch::Sender<bool>,
        metrics: Arc<StoreMetrics>,
    ) -> Self {
        Self {
            commands: commands.0,
            database,
            connection: Some(connection),
            outage: None,
            log_is_in_doubt: false,
            last: LastGroup::default(),
            sequences: Sequences::default(),
            sizes: Sizes::new(limits),
            index,
            unsure_directory: directory.keeping_none(),
            directory,
            changes: Changes::default(),
            in_doubt: Vec::new(),
            listener,
            healthy,
            metrics,
        }
    }

    /// Writes until it is told to stop, and then what came before.
    pub(in crate::store) fn run(mut self) {
        loop {
            let waiting = Instant::now();
            let Some(first) = self.wait() else { return };
            if waiting.elapsed() > GATHER_MAX {
                // The load that the last group was a sign of is over.
                self.last = LastGroup::default();
            }
            let mut group = Vec::new();
            self.gather();
            let stop = self.collect(first, &mut group);
            let (writes, begin) = (group.len(), Instant::now());
            self.write(group);
            self.last = LastGroup { writes, took: begin.elapsed() };
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
                // It is logged where it fails.
                Err(RecvTimeoutError::Timeout) => drop(self.recover()),
            }
        }
    }

    /// Under load, lets a part of the time pass that the last commit took before the next one, so that
    /// more messages share it: that saves syncs and the pages that a commit writes again, and leaves the
    /// processor to those who bring and fetch. At rest nobody waits. Waiting for as long as a commit
    /// takes was measured to be too long: all that is in flight comes to be in one group, and then
    /// whoever is not at work on it is idle.
    ///
    /// It yields and does not sleep, so that a core which nobody else wants stays awake: to wake it up
    /// takes as long as much of the work, above all in a virtual machine (a tenth of all sends).
    fn gather(&self) {
        // More than a full group waits: there is no need to.
        if (GATHER_WRITES_MIN..GROUP_WRITES_MAX).contains(&self.last.writes) {
            let until = Instant::now() + self.last.took.mul_f64(GATHER_PART).min(GATHER_MAX);
            while Instant::now() < until {
                std::thread::yield_now();
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
    fn write(&mut self, group: Vec<Queued>) {
        let mut waiting = vec![group];
        while let Some(group) = waiting.pop() {
            if !group.is_empty() {
                self.try_write(group, &mut waiting);
            }
        }
    }

    /// Writes a group in one transaction and answers everyone in it. If one write spoils it, its
    /// parts go on top of `waiting`, to be written in the same order.
    fn try_write(&mut self, mut group: Vec<Queued>, waiting: &mut Vec<Vec<Queued>>) {
        match self.commit(&mut group) {
            Ok(appended) => {
                self.listener.committed(&appended);
                self.changes.committed(&self.directory, &*self.listener);
                answers::give(group, &Ok(()));
            }
            // One bad write fails alone: it gets a transaction of its own, and so do those before
            // it and those after it.
            Err(GroupError::RolledBack { at, .. }) if group.len() > 1 => {
                let after = group.split_off(at + 1);
                let alone = group.split_off(at);
                waiting.extend([after, alone, group]);
            }
            Err(GroupError::RolledBack { error, .. }) => {
                error!(%error, "a write failed alone");
                answers::give(group, &Err(storage_error(&error)));
            }
            Err(GroupError::Storage(error)) => {
                error!(%error, writes = group.len(), "the storage failed; it is opened again");
                self.let_go();
                let outcome = failure(&error, &self.database);
                // On a full disk a write failed, before any sync.
                self.log_is_in_doubt |= !matches!(outcome, StoreError::DiskFull { .. });
                self.metrics.group_failed(&outcome, group.len());
                answers::give(group, &Err(outcome));
            }
            Err(GroupError::Index(error)) => {
                error!(%error, writes = group.len(), "a commit does not fit the index");
                self.let_go();
                answers::give(group, &Err(StoreError::Failing));
            }
            Err(GroupError::StillFailing(error)) => {
                self.metrics.group_failed(&error, group.len());
                answers::give(group, &Err(error));
            }
        }
    }

    /// Closes the connection of a storage that failed, to open it again.
    fn let_go(&mut self) {
        self.connection = None;
        self.in_doubt.append(&mut self.changes.ended);
        self.healthy.send_replace(false);
        self.metrics.failures.increment();
    }

    /// One transaction: the messages that are new in the log.
    fn commit(&mut self, group: &mut [Queued]) -> Result<Vec<Arc<Message>>, GroupError> {
        if self.connection.is_none() {
            if let Some(outage) = self.outage.as_ref().filter(|it| Instant::now() < it.next_attempt)
            {
                return Err(GroupError::StillFailing(outage.outcome.clone()));
            }
            self.recover().map_err(GroupError::StillFailing)?;
        }
        let Some(connection) = self.connection.as_mut() else {
            return Err(GroupError::StillFailing(StoreError::Failing));
        };
        let (mut appended, mut after_commit) = (Vec::with_capacity(group.len()), Vec::new());
        self.index.begin();
        self.sequences.begin();
        self.changes.clear();
        self.sizes.begin();
        let mut transaction = Transaction {
            connection,
            sequences: &mut self.sequences,
            sizes: &mut self.sizes,
            index: &mut self.index,
            directory: &self.directory,
            unsure_directory: &self.unsure_directory,
            now: Timestamp::now(),
            appended: &mut appended,
            changes: &mut self.changes,
            after_commit: &mut after_commit,
            metrics: &self.metrics,
        };
        let outcome = transaction.run(group);
        if outcome.is_err() {
            self.sequences.forget();
            self.sizes.forget();
        }
        outcome?;
        // Before anyone is told or answered, so that their reads find it.
        self.index.committed().map_err(GroupError::Index)?;
        for tell in after_commit {
            tell();
        }
        self.metrics.group_committed(group.len());
        Ok(appended)
    }

    /// Opens the connection again and proves that the disk takes a write. What was remembered is
    /// forgotten, and what was not announced is there to be found.
    fn recover(&mut self) -> Result<(), StoreError> {
        let mut connection = open_writer(&self.database)
            .map_err(|error| self.still_failing(&error, StoreError::Failing))?;
        self.prove(&mut connection).map_err(|error| {
            let outcome = failure(&error, &self.database);
            self.still_failing(&error, outcome)
        })?;
        self.index
            .reload(&mut connection)
            .map_err(|error| self.still_failing(&error, StoreError::Failing))?;
        let in_doubt = settle(&mut connection, &self.directory, &mut self.in_doubt);
        let in_doubt = in_doubt.map_err(|error| self.still_failing(&error, StoreError::Failing))?;
        info!("the storage takes writes again");
        self.connection = Some(connection);
        self.outage = None;
        self.sequences.forget();
        self.sizes.forget();
        self.listener.reset();
        if !in_doubt.is_empty() {
            self.listener.access_ended(&in_doubt);
        }
        self.healthy.send_replace(true);
        Ok(())
    }

    /// Proves that the disk takes a write, and has what it took before.
    fn prove(&mut self, connection: &mut SqliteConnection) -> QueryResult<()> {
        if self.log_is_in_doubt {
            renew_log(connection, &self.database)?;
        }
        let probed = probe(connection);
        let is_full = |error| matches!(storage_error(error), StoreError::DiskFull { .. });
        self.log_is_in_doubt = probed.as_ref().is_err_and(|error| !is_full(error));
        probed
    }

    /// Logs why the storage stays down, when that is news: it is tried twice a second.
    fn still_failing(&mut self, error: &dyn Error, outcome: StoreError) -> StoreError {
        let cause = error.to_string();
        if self.outage.as_ref().is_none_or(|outage| outage.cause != cause) {
            error!(error = %cause, "the storage does not take writes yet");
        }
        let next_attempt = Instant::now() + RECOVER_INTERVAL;
        self.outage = Some(Outage { outcome: outcome.clone(), cause, next_attempt });
        outcome
    }
}

/// Finds out who went by a commit whose outcome was not known. The others' ends are for their streams to
/// find out.
fn settle(
    connection: &mut SqliteConnection,
    directory: &Directory,
    in_doubt: &mut Vec<AccessEnded>,
) -> QueryResult<Vec<AccessEnded>> {
    for AccessEnded { user, .. } in in_doubt.iter().filter(|it| it.cause == EndCause::Deleted) {
        let account = accounts::account(connection, &user.name)?;
        if account.is_some_and(|it| it.standing == Standing::Deleted) {
            directory.forget(user);
        }
    }
    let unsure = |ended: AccessEnded| AccessEnded { cause: EndCause::InDoubt, ..ended };
    Ok(in_doubt.drain(..).map(unsure).collect())
}

impl Transaction<'_> {
    /// From now on nobody who is found is remembered: users of this transaction may come to nothing, and
    /// their numbers to others.
    pub(super) fn has_entered_users(&mut self) {
        self.directory = self.unsure_directory;
    }

    /// Applies `group` and commits it.
    fn run(&mut self, group: &mut [Queued]) -> Result<(), GroupError> {
        self.connection.batch_execute("BEGIN IMMEDIATE").map_err(GroupError::Storage)?;
        for (at, queued) in group.iter_mut().enumerate() {
            if let Err(error) = queued.job.apply(self) {
                let rolled_back = self.connection.batch_execute("ROLLBACK").is_ok();
                return Err(if rolled_back && is_of_one_write(&error) {
                    GroupError::RolledBack { at, error }
                } else {
                    GroupError::Storage(error)
                });
            }
        }
        self.sizes.write(self.connection).map_err(GroupError::Storage)?;
        self.index.finish(self.connection).map_err(GroupError::Storage)?;
        let began = Instant::now();
        let outcome = self.connection.batch_execute("COMMIT");
        self.metrics.commits.record_duration(began.elapsed());
        outcome.map_err(GroupError::Storage)
    }
}

/// Whether an error is about one write, its values or what is stored where it writes, rather than
/// about the storage.
fn is_of_one_write(error: &DieselError) -> bool {
    use diesel::result::DatabaseErrorKind as Kind;
    match error {
        DieselError::DatabaseError(
            Kind::UniqueViolation
            | Kind::ForeignKeyViolation
            | Kind::NotNullViolation
            | Kind::CheckViolation,
            _,
        )
        | DieselError::SerializationError(_)
        | DieselError::NotFound => true,
        error => is_damage(error),
    }
}

/// What a failure of the storage as a whole means for those who wait.
fn failure(error: &DieselError, database: &Path) -> StoreError {
    match storage_error(error) {
        StoreError::DiskFull { .. } => {
            let file_system = rustix::fs::statvfs(database).ok();
            let disk_bytes = file_system.map(|it| it.f_blocks.saturating_mul(it.f_frsize));
            StoreError::DiskFull { disk_bytes }
        }
        // Damage that is met outside of a write's own statements is nobody's in particular.
        _ => StoreError::Failing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{PeerAddress, Token, Username};
    use crate::store::accounts::tokens::NewToken;
    use crate::store::connection::migrate;
    use crate::store::directory;

    #[test]
    fn of_those_whose_end_is_in_doubt_whoever_is_gone_is_forgotten() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let database = folder.path().join("database");
        let mut connection = open_writer(&database).expect("opens");
        migrate(&mut connection, &database).expect("up to date");
        let directory = Directory::new();
        let now = Timestamp::now();
        let mut ended = |name: &str, standing, cause| {
            let name = Username::parse(name).expect("a name");
            let address = PeerAddress::parse("192.0.2.7").expect("an address");
            let token = NewToken::first(Token::mint().hash());
            let user = directory::insert(&mut connection, &name, &address, &token, now);
            let user = user.expect("entered").user;
            directory.by_name(&mut connection, &name).expect("readable").expect("remembered");
            let set = directory::set_standing(&mut connection, user.id, (standing, ""), now);
            set.expect("set");
            AccessEnded { user, tokens: Vec::new(), cause }
        };
        let mut in_doubt = vec![
            ended("gone", Standing::Deleted, EndCause::Deleted),
            ended("there", Standing::Active, EndCause::Deleted),
            ended("banned", Standing::Banned, EndCause::Banned),
        ];
        let users: Vec<_> = in_doubt.iter().map(|it| it.user.id).collect();

        let told = settle(&mut connection, &directory, &mut in_doubt).expect("readable");
        let told: Vec<_> = told.iter().map(|it| (it.user.id, it.cause)).collect();
        assert_eq!(told, [0, 1, 2].map(|at| (users[at], EndCause::InDoubt)));
        assert_eq!([0, 1, 2].map(|at| directory.is_gone(users[at])), [true, false, false]);
        assert!(in_doubt.is_empty(), "told once");
    }
}
