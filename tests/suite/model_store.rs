//! The store, as what is held against the model: its indexes are merged often.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use peerpost::domain::{
    self, Content, ContentType, Message, PeerAddress, RequestId, Sequence, Token, User, Username,
};
use peerpost::store::{
    self, BeyondMailbox, CommitListener, Draft, Options, PageQuery, PageStart, Receiver, Store,
    StoreError, StoreGuard,
};
use tempfile::TempDir;

use crate::faults::Lock;
use crate::model::Service;
use crate::model_operations::Restart;
use crate::model_reference::{
    ADDRESS_AT_THE_START, Body, Followed, Given, NAMES, Outgoing, Page, PageOf, Person,
    REGISTERED_AT_THE_START, Refused, Sight, Start, check,
};

const BODY_BYTES_MAX: usize = 1024;

/// A follower's pages are small too.
const FOLLOWED_MESSAGES_MAX: usize = 5;

/// A store that merges its indexes every so many messages.
pub(crate) struct MergingStore<const MERGE_MESSAGES: usize> {
    folder: TempDir,
    store: Store,
    guard: StoreGuard,
    users: BTreeMap<Person, User>,
}

struct Nobody;

impl CommitListener for Nobody {
    fn committed(&self, _: &[Arc<Message>]) {}

    fn reset(&self) {}
}

fn open(folder: &TempDir, merge_messages: usize) -> (Store, StoreGuard) {
    let mut options = Options::new(folder.path());
    options.merge_messages = merge_messages;
    // At once, so that it is soon held against them which ids are new.
    options.request_keys_delay = Duration::ZERO;
    options.readers = 1;
    options.token_readers = 1;
    store::open(&options, Box::new(Nobody)).expect("the store opens")
}

/// The files of a running service as they are at one moment between two commits.
pub(crate) fn copy_of(data_dir: &Path) -> TempDir {
    let copy = tempfile::tempdir().expect("a temporary folder");
    let lock = Lock::take(data_dir);
    for file in fs::read_dir(data_dir).expect("the folder can be read") {
        let file = file.expect("the folder can be read");
        let name = file.file_name();
        // The index of the write-ahead log is in memory that processes share: it is gone in a crash.
        // A socket is nothing that a crash leaves to the next server.
        let is_file = file.file_type().expect("it has a type").is_file();
        if is_file && !name.to_string_lossy().ends_with("-shm") {
            fs::copy(file.path(), copy.path().join(name)).expect("it can be copied");
        }
    }
    lock.release();
    copy
}

impl<const MERGE_MESSAGES: usize> MergingStore<MERGE_MESSAGES> {
    fn user(&self, person: Person) -> &User {
        self.users.get(&person).expect("only the registered act")
    }

    /// What an owner sees of a message.
    fn sight(&self, owner: Person, message: &Message) -> Sight {
        let sequence = message.sequence_for(self.user(owner).id).expect("it is in the mailbox");
        let is_sender = message.sender.id == self.user(owner).id;
        let request_id = message.request_id.as_ref().filter(|_| is_sender);
        Sight {
            sequence: sequence.get(),
            from: message.sender.name.as_str().to_owned(),
            to: message.receiver.name.as_str().to_owned(),
            body: match &message.content.body {
                domain::Body::Text(text) => Body::Text(text.clone()),
                domain::Body::Data(data) => Body::Data(data.to_vec()),
            },
            content_type: message.content.content_type.as_str().to_owned(),
            request_id: request_id.map(|id| id.as_str().to_owned()).unwrap_or_default(),
            given: Given { id: message.id.to_text(), send_time_us: message.send_time.as_micros() },
        }
    }

    fn draft(&self, outgoing: &Outgoing) -> Draft {
        let body = match outgoing.body.clone() {
            Body::Text(text) => domain::Body::text(text, BODY_BYTES_MAX),
            Body::Data(data) => domain::Body::data(data.into(), BODY_BYTES_MAX),
        };
        let content_type = ContentType::parse(outgoing.content_type.to_owned());
        let to = name(outgoing.to);
        let receiver = self.store.remembered_user(&to);
        Draft {
            sender: self.user(outgoing.from).clone(),
            receiver: receiver.map_or(Receiver::Named(to), Receiver::User),
            content: Content {
                body: body.expect("not empty and not large"),
                content_type: content_type.expect("a content type"),
            },
            request_id: RequestId::parse(outgoing.request_id()).expect("a request id"),
            expiry: None,
        }
    }
}

impl<const MERGE_MESSAGES: usize> Service for MergingStore<MERGE_MESSAGES> {
    const PAGE_BYTES_MAX: usize = 128;

    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (store, guard) = open(&folder, MERGE_MESSAGES);
        let mut this = Self { folder, store, guard, users: BTreeMap::new() };
        for person in REGISTERED_AT_THE_START {
            this.register(person, None, ADDRESS_AT_THE_START).await.expect("it is free");
        }
        this
    }

    async fn register(
        &mut self,
        person: Person,
        caller: Option<Person>,
        address: u8,
    ) -> Result<bool, Refused> {
        let caller = caller.map(|caller| self.user(caller).id);
        let token = Token::mint().hash();
        let registering = self.store.register(name(person), to_address(address), token, caller);
        let registered = registering.await.map_err(|error| refused(&error))?;
        assert_eq!(registered.profile.address, to_address(address));
        self.users.insert(person, registered.profile.user);
        Ok(registered.is_new)
    }

    async fn address(&mut self, _: Person, person: Person) -> Result<u8, Refused> {
        let profile = self.store.profile(name(person)).await.map_err(|error| refused(&error))?;
        Ok(from_address(&profile.ok_or(Refused::NoSuchUser(person))?.address.to_string()))
    }

    async fn send(&mut self, batch: &[Outgoing]) -> Vec<Result<Sight, Refused>> {
        let mut pending = Vec::new();
        for outgoing in batch {
            pending.push(self.store.append(self.draft(outgoing)).await.expect("there is room"));
        }
        let mut answers = Vec::new();
        for (outgoing, pending) in batch.iter().zip(pending) {
            let answer = pending.committed().await.map_err(|error| refused(&error));
            answers.push(answer.map(|message| self.sight(outgoing.from, &message)));
        }
        answers
    }

    async fn page(&mut self, owner: Person, page: PageOf) -> Result<Page<Sight>, Refused> {
        let peer = match page.peer.map(|peer| (peer, name(peer))) {
            Some((peer, name)) => {
                let user = self.store.find_user(&name).await.expect("readable");
                Some(user.ok_or(Refused::NoSuchUser(peer))?.id)
            }
            None => None,
        };
        let query = PageQuery {
            owner: self.user(owner).id,
            start: match page.start {
                Start::After(after) => PageStart::After(sequence(after)),
                Start::Before(0) => PageStart::Before(Sequence::MAX),
                Start::Before(before) => PageStart::Before(sequence(before)),
            },
            peer,
            received_only: page.received_only,
            messages_max: page.page_size,
            bytes_max: Self::PAGE_BYTES_MAX,
        };
        let read = self.store.page(query).await.map_err(|error| refused(&error))?;
        let last = read.range.last.get();
        // To the store a cursor beyond an end is that end; its callers refuse it by the range.
        match page.start {
            Start::After(after) => check(after, last)?,
            Start::Before(before) => check(before, last + 1)?,
        }
        Ok(Page {
            messages: read.messages.iter().map(|it| self.sight(owner, it)).collect(),
            has_more: read.has_more,
            first: read.range.first.get(),
            last,
        })
    }

    async fn follow(
        &mut self,
        owner: Person,
        after: Option<i64>,
        received_only: bool,
    ) -> Result<Followed<Sight>, Refused> {
        let state = self.store.mailbox_state(self.user(owner).id).await.expect("readable");
        let after = after.unwrap_or(state.acknowledged_through.get());
        let mut messages: Vec<Sight> = Vec::new();
        loop {
            let at = messages.last().map_or(after, |last| last.sequence);
            let start = Start::After(at);
            let page_size = FOLLOWED_MESSAGES_MAX;
            let page = PageOf { start, peer: None, received_only, page_size };
            let page = self.page(owner, page).await?;
            assert_eq!(page.last, state.range.last.get());
            messages.extend(page.messages);
            if !page.has_more {
                return Ok(Followed { after, messages, last: page.last });
            }
        }
    }

    async fn acknowledge(&mut self, owner: Person, through: i64) -> Result<i64, Refused> {
        let answer = self.store.acknowledge(self.user(owner).id, sequence(through)).await;
        match answer.expect("it can be stored") {
            Ok(acknowledged) => Ok(acknowledged.get()),
            Err(BeyondMailbox { range }) => {
                Err(Refused::OutOfRange { asked: through, min: 0, max: range.last.get() })
            }
        }
    }

    async fn restart(self, how: Restart) -> Self {
        let Self { folder, store, guard, users } = self;
        let copy = (how == Restart::Crash).then(|| copy_of(folder.path()));
        drop(store);
        guard.close().await;
        let folder = copy.unwrap_or(folder);
        let (store, guard) = open(&folder, MERGE_MESSAGES);
        Self { folder, store, guard, users }
    }

    async fn stop(self) {
        self.guard.close().await;
    }
}

fn name(person: Person) -> Username {
    Username::parse(NAMES[person]).expect("a name")
}

fn sequence(number: i64) -> Sequence {
    Sequence::parse(number).expect("not negative")
}

fn to_address(number: u8) -> PeerAddress {
    PeerAddress::parse(&format!("192.0.2.{number}")).expect("an address")
}

/// The number in an address of the model's.
pub(crate) fn from_address(address: &str) -> u8 {
    let number = address.strip_prefix("192.0.2.").and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("nobody is at {address}"))
}

/// The place of a name.
pub(crate) fn person(name: &str) -> Person {
    NAMES.iter().position(|it| *it == name).unwrap_or_else(|| panic!("nobody is named {name}"))
}

fn refused(error: &StoreError) -> Refused {
    match error {
        StoreError::UsernameTaken(name) => Refused::UsernameTaken(person(name.as_str())),
        StoreError::NoSuchReceiver(name) => Refused::NoSuchUser(person(name.as_str())),
        StoreError::RequestIdReused(id) => Refused::RequestIdReused(id.as_str().to_owned()),
        error => panic!("{error:?}"),
    }
}
