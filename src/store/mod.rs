//! The durable mailbox: an append-only log of messages in SQLite, and the indexes derived from it.
//!
//! One thread writes, in groups that share a COMMIT; a pool of connections reads. The only place
//! that knows diesel.

pub mod accounts;
mod admission;
mod backup;
mod by_user;
mod check;
mod connection;
mod consistency;
mod directory;
mod error;
mod expirations;
pub mod flask;
mod folder;
mod import;
mod index;
mod inserts;
mod log;
mod log_checksum;
mod log_rows;
mod mailbox_sizes;
mod mailboxes;
mod metrics;
mod pages;
mod readers;
mod rebuild;
mod removed;
mod request_keys;
mod retention;
mod schema;
#[cfg(test)]
mod tests;
mod upgrade;
mod user_limits;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::accounts::tokens::NewToken;
use self::accounts::{AccessEnded, NewNames};
use self::directory::Directory;
use self::error::failed;
use self::folder::DataFolder;
use self::index::{Index, IndexWriter};
use self::metrics::StoreMetrics;
use self::readers::Readers;
use self::request_keys::RequestKeysReader;
use self::retention::Retainer;
use self::writer::{Accepted, Acknowledge, MarkSeen, Register, WriteQueue, Writer};
use crate::domain::{
    Epoch, MailboxRange, Message, PeerAddress, Profile, Sequence, Timestamp, TokenHash, User,
    UserId, Username, UsernamePrefix,
};

pub use self::backup::{BackupError, BackupSummary, back_up, restore};
pub use self::check::{CheckReport, FINDINGS_MAX, Finding, check, check_file};
pub use self::error::{BeyondMailbox, IndexDamage, OpenError, StoreError};
pub use self::import::PendingImport;
pub use self::index::PageStart;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub use self::index::packed_checks;
pub use self::mailbox_sizes::{MailboxLimit, MailboxLimits};
pub use self::metrics::StoreStats;
pub use self::pages::{Page, PageQuery};
pub use self::rebuild::{RebuildProgress, RebuildSummary, rebuild_index};
pub use self::retention::{Retention, RetentionOptions};
pub use self::writer::{
    Draft, ImportedUser, Receiver, Registered, Subject, UserToImport, Which,
    give_answers_on_this_thread,
};

/// Reads are short; more of them at a time than cores and disk serve would only wait elsewhere.
pub const READERS_DEFAULT: usize = 4;

/// A look-up of a token takes microseconds, and known tokens need none.
pub const TOKEN_READERS_DEFAULT: usize = 2;

/// A second's worth and more of what the writer takes.
pub const WRITE_QUEUE_BYTES_DEFAULT: usize = 64 * 1024 * 1024;

/// Enough that a merge meets many entries on each page of the tables that it rewrites, and few
/// enough to be read back at a start within some ten milliseconds. In memory a message's entries take
/// about 50 bytes, and twice as much if every message is for another user.
pub const MERGE_MESSAGES_DEFAULT: usize = 131_072;

/// What a start has to do comes first, and the first calls.
pub const REQUEST_KEYS_DELAY_DEFAULT: Duration = Duration::from_secs(1);

/// Longer than any commit on a disk that works.
pub const ADMISSION_WAIT_DEFAULT: Duration = Duration::from_secs(2);

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The data folder; created with mode 0700 if it is not there.
    pub data_dir: PathBuf,
    /// Connections that read at the same time. Default [`READERS_DEFAULT`].
    pub readers: usize,
    /// Connections apart that look up tokens, so that strangers with unknown ones keep only each
    /// other waiting. Default [`TOKEN_READERS_DEFAULT`].
    pub token_readers: usize,
    /// The size of the write queue: bodies, and 1 KiB for each write. Default
    /// [`WRITE_QUEUE_BYTES_DEFAULT`].
    pub write_queue_bytes: usize,
    /// The messages whose index entries wait in memory until they are merged into the tables together.
    /// Default [`MERGE_MESSAGES_DEFAULT`].
    pub merge_messages: usize,
    /// How long after the start the stored request keys are read into memory; until they are, each
    /// `request_id` is looked up on disk. Default [`REQUEST_KEYS_DELAY_DEFAULT`].
    pub request_keys_delay: Duration,
    /// How long a call waits for a place in a full queue, or for a connection that reads, before it
    /// is refused. Default [`ADMISSION_WAIT_DEFAULT`].
    pub admission_wait: Duration,
    /// Whether a database of an earlier version is brought up to date without a backup of it first.
    /// Default no.
    pub upgrade_without_backup: bool,
    /// What is kept, and how the rest is removed. Default everything.
    pub retention: RetentionOptions,
    /// What a mailbox may hold. Default anything.
    pub mailbox_limits: MailboxLimits,
}

impl Options {
    /// The defaults, on this folder.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            readers: READERS_DEFAULT,
            token_readers: TOKEN_READERS_DEFAULT,
            write_queue_bytes: WRITE_QUEUE_BYTES_DEFAULT,
            merge_messages: MERGE_MESSAGES_DEFAULT,
            request_keys_delay: REQUEST_KEYS_DELAY_DEFAULT,
            admission_wait: ADMISSION_WAIT_DEFAULT,
            upgrade_without_backup: false,
            retention: RetentionOptions::default(),
            mailbox_limits: MailboxLimits::default(),
        }
    }
}

/// Who is told what was committed, on the writing thread, before anyone is answered. It must not
/// block.
pub trait CommitListener: Send {
    /// These messages are on disk now; in the order of the log.
    fn committed(&self, messages: &[Arc<Message>]);

    /// These are let in no more, as of a commit.
    fn access_ended(&self, _ended: &[AccessEnded]) {}

    /// Something may be on disk that was never announced: read again.
    fn reset(&self);
}

/// A handle to an open store.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    writes: WriteQueue,
    readers: Readers,
    token_readers: Readers,
    directory: Directory,
    index: Index,
    epoch: Epoch,
    healthy: watch::Receiver<bool>,
    database: PathBuf,
    retention: Retention,
    mailbox_limits: MailboxLimits,
    metrics: Arc<StoreMetrics>,
}

/// The open store's thread and its hold on the folder; [`StoreGuard::close`] ends both.
#[must_use]
pub struct StoreGuard {
    store: Store,
    thread: std::thread::JoinHandle<()>,
    request_keys: RequestKeysReader,
    retainer: Retainer,
    folder: DataFolder,
}

/// A message whose place in its sender's order is settled; the answer comes when it is on disk.
#[must_use]
pub struct PendingMessage(Accepted<Arc<Message>>);

/// A page that is being read before it is asked for.
#[must_use]
pub struct PageAhead(JoinHandle<Result<Page, StoreError>>);

/// A mailbox at one moment: what it holds and what was acknowledged of that.
#[derive(Debug, Clone, Copy)]
pub struct MailboxState {
    /// What the mailbox holds.
    pub range: MailboxRange,
    /// What its owner acknowledged.
    pub acknowledged_through: Sequence,
}

/// Opens the store on a data folder, bringing its tables up to date.
///
/// # Errors
/// [`OpenError`] says what is wrong; nothing is deleted in any case.
pub fn open(
    options: &Options,
    listener: Box<dyn CommitListener>,
) -> Result<(Store, StoreGuard), OpenError> {
    let folder = DataFolder::open(&options.data_dir)?;
    let database = folder.database()?;
    folder.sync_log()?;
    let mut connection = connection::open_writer(&database)?;
    let epoch = upgrade::migrate(&mut connection, &database, options.upgrade_without_backup)?;
    let merge_messages = options.merge_messages.max(1);
    let index_writer = IndexWriter::load(&mut connection, merge_messages)
        .map_err(|error| error::not_loaded(error, &database))?;
    let index = index_writer.index().clone();
    consistency::check(&mut connection, &index, &database)?;
    folder.sync()?;

    let directory = Directory::new();
    let (healthy_sender, healthy) = watch::channel(true);
    let (writes, commands) = writer::queue(options.write_queue_bytes, options.admission_wait);
    let readers = Readers::open(&database, options.readers, options.admission_wait)?;
    let token_readers = Readers::open(&database, options.token_readers, options.admission_wait)?;
    let request_keys =
        RequestKeysReader::start(&database, index.clone(), options.request_keys_delay)?;
    let metrics = Arc::new(StoreMetrics::new(merge_messages));
    let thread = Writer::new(
        commands,
        (database.clone(), connection),
        (index_writer, options.mailbox_limits),
        directory.clone(),
        listener,
        healthy_sender,
        Arc::clone(&metrics),
    );
    let thread = std::thread::Builder::new()
        .name("store-writer".into())
        .spawn(move || thread.run())
        .map_err(OpenError::Thread)?;

    let store = Store(Arc::new(Inner {
        writes,
        readers,
        token_readers,
        directory,
        index,
        epoch,
        healthy,
        database,
        retention: options.retention.keep,
        mailbox_limits: options.mailbox_limits,
        metrics,
    }));
    // With the first pass of retention as with the request keys: what a start has to do comes first.
    let delay = options.request_keys_delay.min(options.retention.interval);
    let database = &store.0.database;
    let retainer =
        Retainer::start(store.clone(), database, options.retention, merge_messages, delay)?;
    Ok((store.clone(), StoreGuard { store, thread, request_keys, retainer, folder }))
}

impl StoreGuard {
    /// Takes no more work, finishes what was accepted, closes every connection and lets go of the
    /// folder.
    pub async fn close(self) {
        self.store.0.writes.stop();
        self.store.0.readers.close().await;
        self.store.0.token_readers.close().await;
        let Self { thread, request_keys, retainer, folder, .. } = self;
        // Joining waits for a commit; it has no place on an async thread.
        let joined = tokio::task::spawn_blocking(move || {
            retainer.stop();
            request_keys.stop();
            let outcome = thread.join();
            drop(folder);
            outcome
        });
        if !matches!(joined.await, Ok(Ok(()))) {
            tracing::error!("the writing thread panicked");
        }
    }
}

impl Store {
    /// The database's epoch.
    pub fn epoch(&self) -> &Epoch {
        &self.0.epoch
    }

    /// Whether commits succeed, as it changes.
    pub fn health(&self) -> watch::Receiver<bool> {
        self.0.healthy.clone()
    }

    /// Enters a name with its first token, or updates the address of the caller's own name.
    ///
    /// # Errors
    /// [`StoreError::UsernameTaken`] when the name is or was another's.
    pub async fn register(
        &self,
        name: Username,
        address: PeerAddress,
        token: TokenHash,
        caller: Option<UserId>,
    ) -> Result<Registered, StoreError> {
        self.register_if(NewNames::All, name, address, token, caller).await
    }

    /// [`register`](Self::register) where new names may not be let in.
    ///
    /// # Errors
    /// [`StoreError::RegistrationClosed`], [`StoreError::Invite`]; and those of `register`.
    pub async fn register_if(
        &self,
        new_names: NewNames,
        name: Username,
        address: PeerAddress,
        token: TokenHash,
        caller: Option<UserId>,
    ) -> Result<Registered, StoreError> {
        let token = NewToken::first(token);
        let write = Register { name, address, token, caller, new_names };
        self.0.writes.submit(write).await?.answer().await
    }

    /// Queues a message. Messages are written in the order in which these calls return.
    ///
    /// # Errors
    /// [`StoreError::WriteQueueFull`] when it found no place in time.
    pub async fn append(&self, draft: Draft) -> Result<PendingMessage, StoreError> {
        Ok(PendingMessage(self.0.writes.submit(draft).await?))
    }

    /// Moves a user's acknowledgement forward, and says where it stands; [`BeyondMailbox`] when
    /// there is no such entry.
    ///
    /// # Errors
    /// Only the storage's.
    pub async fn acknowledge(
        &self,
        user: UserId,
        through: Sequence,
    ) -> Result<Result<Sequence, BeyondMailbox>, StoreError> {
        self.0.writes.submit(Acknowledge { user, through }).await?.answer().await
    }

    /// Notes that a user was there at this time. Waits for nothing: under overload the note is lost,
    /// and the next one makes up for it. `until_stored` is dropped when the note is on disk, or when
    /// it is known that it will not be.
    pub fn mark_seen(&self, user: UserId, at: Timestamp, until_stored: impl Send + 'static) {
        // Nobody waits for the answer.
        let _ = self.0.writes.try_submit(MarkSeen { user, at, _until_stored: until_stored });
    }

    /// The user of this name, if the store remembers them.
    pub fn remembered_user(&self, name: &Username) -> Option<User> {
        self.0.directory.remembered(name)
    }

    /// The user of this name.
    ///
    /// # Errors
    /// Only the storage's.
    pub async fn find_user(&self, name: &Username) -> Result<Option<User>, StoreError> {
        if let Some(user) = self.0.directory.remembered(name) {
            return Ok(Some(user));
        }
        let (directory, name) = (self.0.directory.clone(), name.clone());
        self.0.readers.read(move |c| directory.by_name(c, &name).map_err(failed)).await
    }

    /// What is known of the user of this name.
    ///
    /// # Errors
    /// Only the storage's.
    pub async fn profile(&self, name: Username) -> Result<Option<Profile>, StoreError> {
        self.0.readers.read(move |c| directory::profile(c, &name).map_err(failed)).await
    }

    /// At most `limit` users whose names begin with `prefix`, in order of their keys, after the key
    /// `after`.
    ///
    /// # Errors
    /// Only the storage's.
    pub async fn profiles(
        &self,
        prefix: UsernamePrefix,
        after: String,
        limit: usize,
    ) -> Result<Vec<Profile>, StoreError> {
        self.0
            .readers
            .read(move |c| directory::profiles(c, &prefix, &after, limit).map_err(failed))
            .await
    }

    /// A page of a mailbox.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the page would begin with an entry that is not whole.
    pub async fn page(&self, query: PageQuery) -> Result<Page, StoreError> {
        let (directory, index) = (self.0.directory.clone(), self.0.index.clone());
        self.0.readers.read(move |c| pages::read(c, &directory, &index, &query)).await
    }

    /// [`page`](Self::page) for a follower: it waits its turn to read however long that takes, since
    /// there is one such call for a subscription, and those are bounded.
    ///
    /// # Errors
    /// As of `page`, but never [`StoreError::ReadQueueFull`].
    pub async fn page_in_turn(&self, query: PageQuery) -> Result<Page, StoreError> {
        self.0.metrics.replay_pages.increment();
        let (directory, index) = (self.0.directory.clone(), self.0.index.clone());
        self.0.readers.read_in_turn(move |c| pages::read(c, &directory, &index, &query)).await
    }

    /// Begins to read the page that a follower will ask for next; `None` when no connection is free
    /// at the moment. It waits for none, since a follower that waits in turn must take its turn, and
    /// one whose client does not read would not.
    pub fn page_ahead(&self, query: PageQuery) -> Option<PageAhead> {
        let (directory, index) = (self.0.directory.clone(), self.0.index.clone());
        let page =
            self.0.readers.read_ahead(move |c| pages::read(c, &directory, &index, &query))?;
        self.0.metrics.replay_pages.increment();
        Some(PageAhead(page))
    }

    /// What a mailbox holds and what was acknowledged of it.
    ///
    /// # Errors
    /// Only the storage's.
    pub async fn mailbox_state(&self, owner: UserId) -> Result<MailboxState, StoreError> {
        let index = self.0.index.clone();
        self.0
            .readers
            .read(move |c| {
                let range = index.range(c, owner).map_err(failed)?;
                let acknowledged_through =
                    directory::acknowledged_through(c, owner).map_err(failed)?;
                // The range may be of a moment before the snapshot, in which more was acknowledged.
                let acknowledged_through = acknowledged_through.min(range.last);
                Ok(MailboxState { range, acknowledged_through })
            })
            .await
    }
}

impl PageAhead {
    /// The page.
    ///
    /// # Errors
    /// As of [`Store::page_in_turn`].
    pub async fn page(self) -> Result<Page, StoreError> {
        readers::finished(self.0).await
    }
}

impl PendingMessage {
    /// The committed message; for a repeated request id the first one.
    ///
    /// # Errors
    /// [`StoreError::RequestIdReused`] for a key that stands for another message;
    /// [`StoreError::Failing`] when it is unknown whether the message was stored.
    pub async fn committed(self) -> Result<Arc<Message>, StoreError> {
        self.0.answer().await
    }

    /// [`committed`](Self::committed), step by step. Not to be called again once it has answered.
    pub fn poll_committed(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Arc<Message>, StoreError>> {
        self.0.poll_answer(context)
    }

    /// What `committed` would answer at once; `None` if it would wait. Not to be called again once
    /// it has answered.
    pub fn if_committed(&mut self) -> Option<Result<Arc<Message>, StoreError>> {
        self.0.answer_at_hand()
    }
}
