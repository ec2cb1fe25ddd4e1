//! A real server, through its contract, as what is held against the model.

use std::collections::BTreeMap;

use peerpost::proto::{
    ErrorReason, GetMessagesRequest, Message, RegisterRequest, SendMessageRequest,
    SubscribeRequest, get_messages_request, message, send_message_request, subscribe_request,
};
use peerpost::testing::{Refusal, TestServer, TestUser, refused, within_patience};
use tempfile::TempDir;
use tonic::{Request, Status};

use crate::model::Service;
use crate::model_operations::Restart;
use crate::model_reference::{
    ADDRESS_AT_THE_START, Body, Followed, Given, NAMES, Outgoing, Page, PageOf, Person,
    REGISTERED_AT_THE_START, Refused, Sight, Start,
};
use crate::model_store::{copy_of, from_address, person};
use crate::support::micros;

pub(crate) struct Server {
    running: TestServer,
    /// The files, once they are a copy.
    copy: Option<TempDir>,
    users: BTreeMap<Person, TestUser>,
}

impl Server {
    fn user(&self, person: Person) -> &TestUser {
        self.users.get(&person).expect("only the registered act")
    }

    /// One or several of one sender.
    async fn send_of_one(&self, batch: &[Outgoing]) -> Vec<Result<Message, Status>> {
        let sender = self.user(batch[0].from);
        match batch {
            [one] => vec![sender.try_send(request(one)).await],
            many => {
                sender.send_all(many.iter().map(request)).await.expect("the stream ends with OK")
            }
        }
    }
}

impl Service for Server {
    const PAGE_BYTES_MAX: usize = 1024 * 1024;

    async fn start() -> Self {
        let running = TestServer::start().await;
        let mut users = BTreeMap::new();
        for person in REGISTERED_AT_THE_START {
            users.insert(person, running.user(NAMES[person]).await);
        }
        let mut this = Self { running, copy: None, users };
        for person in REGISTERED_AT_THE_START {
            let updating = this.register(person, Some(person), ADDRESS_AT_THE_START);
            updating.await.expect("their own");
        }
        this
    }

    async fn register(
        &mut self,
        name: Person,
        caller: Option<Person>,
        address: u8,
    ) -> Result<bool, Refused> {
        let request = RegisterRequest {
            username: NAMES[name].to_owned(),
            ip_address: format!("192.0.2.{address}"),
            ..Default::default()
        };
        let somebody = self.user(caller.unwrap_or(REGISTERED_AT_THE_START[0])).clone();
        let request =
            if caller.is_some() { somebody.request(request) } else { Request::new(request) };
        let mut client = somebody.client();
        let answer = within_patience("Register", client.register(request)).await;
        let answer = answer.map_err(to_refused)?.into_inner();
        assert_eq!(from_address(&answer.user.expect("it is told").ip_address), address);
        let is_new = !answer.token.is_empty();
        if is_new {
            let mut user = somebody;
            (user.name, user.token) = (NAMES[name].to_owned(), answer.token);
            self.users.insert(name, user);
        }
        Ok(is_new)
    }

    async fn address(&mut self, caller: Person, name: Person) -> Result<u8, Refused> {
        let user = self.user(caller).get_user(NAMES[name]).await.map_err(to_refused)?;
        Ok(from_address(&user.ip_address))
    }

    async fn send(&mut self, batch: &[Outgoing]) -> Vec<Result<Sight, Refused>> {
        let mut answers = Vec::new();
        for of_one in batch.chunk_by(|a, b| a.from == b.from) {
            let results = self.send_of_one(of_one).await;
            answers.extend(results.into_iter().map(|it| it.map(sight).map_err(to_refused)));
        }
        answers
    }

    async fn page(&mut self, owner: Person, page: PageOf) -> Result<Page<Sight>, Refused> {
        use get_messages_request::Cursor;
        let request = GetMessagesRequest {
            cursor: Some(match page.start {
                Start::After(after) => Cursor::AfterSequence(after),
                Start::Before(before) => Cursor::BeforeSequence(before),
            }),
            epoch: String::new(),
            peer: page.peer.map(|peer| NAMES[peer].to_owned()).unwrap_or_default(),
            received_only: page.received_only,
            page_size: i32::try_from(page.page_size).expect("small"),
        };
        let page = self.user(owner).get(request).await.map_err(to_refused)?;
        Ok(Page {
            messages: page.messages.into_iter().map(sight).collect(),
            has_more: page.has_more,
            first: page.first_sequence,
            last: page.last_sequence,
        })
    }

    async fn follow(
        &mut self,
        owner: Person,
        after: Option<i64>,
        received_only: bool,
    ) -> Result<Followed<Sight>, Refused> {
        let start = after.map(subscribe_request::Start::AfterSequence);
        let request = SubscribeRequest { start, received_only, ..Default::default() };
        let mut subscription = self.user(owner).subscribe(request).await.map_err(to_refused)?;
        let started = subscription.started().clone();
        let (messages, through) = subscription.history().await;
        assert_eq!((started.first_sequence, through), (1, started.last_sequence));
        Ok(Followed {
            after: started.after_sequence,
            messages: messages.into_iter().map(sight).collect(),
            last: started.last_sequence,
        })
    }

    async fn acknowledge(&mut self, owner: Person, through: i64) -> Result<i64, Refused> {
        self.user(owner).acknowledge(through).await.map_err(to_refused)
    }

    async fn restart(mut self, how: Restart) -> Self {
        if how == Restart::Crash {
            let copy = copy_of(self.running.data_dir());
            self.running.stop().await;
            self.running =
                TestServer::start_with(|options| options.data_dir = copy.path().into()).await;
            self.copy = Some(copy);
        } else {
            self.running.restart().await;
        }
        let addr = self.running.addr();
        for user in self.users.values_mut() {
            *user = user.at(addr);
        }
        self
    }

    async fn stop(mut self) {
        self.running.stop().await;
    }
}

fn request(outgoing: &Outgoing) -> SendMessageRequest {
    SendMessageRequest {
        to_user: NAMES[outgoing.to].to_owned(),
        body: Some(match outgoing.body.clone() {
            Body::Text(text) => send_message_request::Body::Text(text),
            Body::Data(data) => send_message_request::Body::Data(data.into()),
        }),
        content_type: outgoing.content_type.to_owned(),
        request_id: outgoing.request_id(),
        expiry: None,
    }
}

fn sight(message: Message) -> Sight {
    Sight {
        sequence: message.sequence,
        given: Given { send_time_us: micros(message.send_time.as_ref()), id: message.message_id },
        from: message.from_user,
        to: message.to_user,
        body: match message.body.expect("a message has a body") {
            message::Body::Text(text) => Body::Text(text),
            message::Body::Data(data) => Body::Data(data.into()),
        },
        content_type: message.content_type,
        request_id: message.request_id,
    }
}

fn to_refused(status: Status) -> Refused {
    let reason = Refusal::of(&status).reason;
    let Refusal { metadata, .. } = refused(Err::<(), _>(status), reason);
    let number = |key: &str| metadata[key].parse().expect("a number");
    match reason {
        ErrorReason::UsernameTaken => Refused::UsernameTaken(person(&metadata["username"])),
        ErrorReason::UserNotFound => Refused::NoSuchUser(person(&metadata["username"])),
        ErrorReason::RequestIdReused => Refused::RequestIdReused(metadata["request_id"].clone()),
        ErrorReason::SequenceOutOfRange => Refused::OutOfRange {
            asked: number("sequence"),
            min: number("min_sequence"),
            max: number("max_sequence"),
        },
        reason => panic!("{}: {metadata:?}", reason.as_reason()),
    }
}
