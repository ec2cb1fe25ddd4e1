use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tonic::Status;
use uuid::Uuid;

use super::History;
use super::record::{
    Acknowledge, AcknowledgeAsked, Call, CallNo, Cursor, Entry, Follow, FollowNo, Moment, Outcome,
    Page, Profile, ProfileAsked, Read, ReadAsked, Refused, Send, SendAsked, SendNo, Start,
    StreamNo, Told, UserNo, content_asked, content_of, digest,
};
use crate::proto::{
    AcknowledgeRequest, GetMessagesRequest, GetMessagesResponse, Message, SendMessageRequest,
    SubscribeRequest, User, get_messages_request, subscribe_request, subscribe_response,
};

/// Writes down what clients ask and what they are told, as it happens. All clients of one history
/// share one recorder: clones write to the same history.
///
/// Each call is recorded twice: before its request leaves, and when its answer has come. What is
/// never answered counts as unknown, so that a client may be stopped anywhere.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    start: Instant,
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    history: History,
    /// Users by their names in lower case, since a name is found in any case.
    users: HashMap<String, UserNo>,
    streams: u32,
    sends_answered: usize,
}

impl Default for Recorder {
    fn default() -> Self {
        Self(Arc::new(Inner { start: Instant::now(), written: Mutex::default() }))
    }
}

impl Recorder {
    /// The number of the user with this name, which is given out here.
    pub fn user(&self, name: &str) -> UserNo {
        self.written().user(name)
    }

    /// A new stream of `SendMessages`.
    pub fn stream(&self) -> StreamNo {
        let mut written = self.written();
        written.streams += 1;
        StreamNo(written.streams)
    }

    /// A message is about to be sent; those of one stream in their order.
    pub fn send_called(
        &self,
        from: UserNo,
        request: &SendMessageRequest,
        stream: Option<StreamNo>,
    ) -> SendNo {
        let content = content_asked(request);
        let request_id = digest(&request.request_id);
        self.write(|written, now| {
            let to = written.user(&request.to_user);
            let asked = SendAsked { from, to, content, request: request_id, stream };
            SendNo(push(&mut written.history.sends, Send::begun(now, asked)))
        })
    }

    /// What a send was answered with.
    pub fn send_answered(&self, send: SendNo, answer: Result<&Message, &Status>) {
        self.write(|written, now| {
            let outcome = outcome(answer.map(|message| written.entry(message)));
            written.sends_answered += usize::from(outcome.ok().is_some());
            end(&mut written.history.sends, send.0, now, outcome);
        });
    }

    /// How many sends were answered with OK until now.
    pub fn sends_answered(&self) -> usize {
        self.written().sends_answered
    }

    /// A page is about to be asked for.
    pub fn read_called(&self, reader: UserNo, request: &GetMessagesRequest) -> CallNo {
        let cursor = match request.cursor {
            Some(get_messages_request::Cursor::AfterSequence(after)) => Cursor::After(after),
            Some(get_messages_request::Cursor::BeforeSequence(before)) => Cursor::Before(before),
            None => Cursor::After(0),
        };
        let (epoch, received_only) = (digest(&request.epoch), request.received_only);
        self.write(|written, now| {
            let peer = Some(request.peer.as_str()).filter(|peer| !peer.is_empty());
            let peer = peer.map(|peer| written.user(peer));
            let asked = ReadAsked { reader, cursor, epoch, peer, received_only };
            CallNo(push(&mut written.history.reads, Read::begun(now, asked)))
        })
    }

    /// What a read was answered with.
    pub fn read_answered(&self, read: CallNo, answer: Result<&GetMessagesResponse, &Status>) {
        self.write(|written, now| {
            let outcome = outcome(answer.map(|page| Page {
                entries: written.entries(&page.messages),
                has_more: page.has_more,
                epoch: digest(&page.epoch),
                last: page.last_sequence,
            }));
            end(&mut written.history.reads, read.0, now, outcome);
        });
    }

    /// A subscription is about to be opened. `continues`: it takes up another, after the highest
    /// sequence that its reader saw there.
    pub fn follow_called(
        &self,
        reader: UserNo,
        request: &SubscribeRequest,
        continues: Option<FollowNo>,
    ) -> FollowNo {
        let start = match request.start {
            Some(subscribe_request::Start::AfterSequence(after)) => Start::After(after),
            Some(subscribe_request::Start::FromNow(_)) => Start::FromNow,
            None => Start::Acknowledged,
        };
        let (epoch, received_only) = (digest(&request.epoch), request.received_only);
        self.write(|written, called| {
            let (told, refused, awaited) = (Vec::new(), None, None);
            let follow = Follow {
                reader,
                called,
                start,
                epoch,
                received_only,
                continues,
                told,
                refused,
                awaited,
            };
            FollowNo(push(&mut written.history.follows, follow))
        })
    }

    /// What a subscription told its reader.
    pub fn follow_told(&self, follow: FollowNo, event: &subscribe_response::Event) {
        use subscribe_response::Event;
        self.write(|written, now| {
            let told = match event {
                Event::Started(started) => Told::Started {
                    epoch: digest(&started.epoch),
                    after: started.after_sequence,
                    last: started.last_sequence,
                },
                Event::Message(message) => Told::Message(written.entry(message)),
                Event::CaughtUp(caught_up) => Told::CaughtUp(caught_up.through_sequence),
                Event::Heartbeat(heartbeat) => Told::Heartbeat(heartbeat.through_sequence),
            };
            written.follow(follow, |follow| follow.told.push((now, told)));
        });
    }

    /// A subscription was refused or broke. One that was only left needs no mention.
    pub fn follow_ended(&self, follow: FollowNo, status: &Status) {
        self.write(|written, now| {
            let refused = Refused::of(status).map(|refused| (now, refused));
            written.follow(follow, |follow| follow.refused = refused);
        });
    }

    /// The reader of a subscription has waited for everything up to `through`, for longer than
    /// anyone should have to.
    pub fn follow_awaited(&self, follow: FollowNo, through: i64) {
        self.written().follow(follow, |follow| follow.awaited = Some(through));
    }

    /// An acknowledgement is about to be sent.
    pub fn acknowledge_called(&self, user: UserNo, request: &AcknowledgeRequest) -> CallNo {
        let (through, epoch) = (request.through_sequence, digest(&request.epoch));
        let asked = AcknowledgeAsked { user, through, epoch };
        self.write(|written, now| {
            CallNo(push(&mut written.history.acknowledges, Acknowledge::begun(now, asked)))
        })
    }

    /// What an acknowledgement was answered with.
    pub fn acknowledge_answered(&self, call: CallNo, answer: Result<i64, &Status>) {
        self.write(|written, now| {
            end(&mut written.history.acknowledges, call.0, now, outcome(answer));
        });
    }

    /// A name is about to be registered, or its address updated.
    pub fn register_called(&self, user: UserNo, ip_address: &str) -> CallNo {
        let asked = ProfileAsked { by: user, user, address: digest(ip_address) };
        self.write(|written, now| {
            CallNo(push(&mut written.history.registers, Profile::begun(now, asked)))
        })
    }

    /// What a registration was answered with.
    pub fn register_answered(&self, call: CallNo, answer: Result<&User, &Status>) {
        self.write(|written, now| {
            let outcome = outcome(answer.map(|user| digest(&user.ip_address)));
            end(&mut written.history.registers, call.0, now, outcome);
        });
    }

    /// A user is about to be looked up.
    pub fn look_up_called(&self, by: UserNo, username: &str) -> CallNo {
        self.write(|written, now| {
            let asked = ProfileAsked { by, user: written.user(username), address: None };
            CallNo(push(&mut written.history.look_ups, Profile::begun(now, asked)))
        })
    }

    /// What a look-up was answered with.
    pub fn look_up_answered(&self, call: CallNo, answer: Result<&User, &Status>) {
        self.write(|written, now| {
            let outcome = outcome(answer.map(|user| digest(&user.ip_address)));
            end(&mut written.history.look_ups, call.0, now, outcome);
        });
    }

    /// A whole mailbox, read after the last send of the history was answered or given up. Without it
    /// nothing can be said of what is missing there.
    pub fn mailbox_at_end(&self, owner: UserNo, mailbox: &[Message]) {
        self.write(|written, _| {
            let entries = written.entries(mailbox);
            written.history.mailboxes.insert(owner, entries);
        });
    }

    /// The history, when all its clients have stopped. What they would still record is lost.
    pub fn take(&self) -> History {
        std::mem::take(&mut *self.written()).history
    }

    fn write<T>(&self, write: impl FnOnce(&mut Written, Moment) -> T) -> T {
        let mut written = self.written();
        // Read under the lock, so that what is written later never has an earlier time.
        let now = Moment::after_start(self.0.start.elapsed());
        write(&mut written, now)
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.0.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Written {
    fn user(&mut self, name: &str) -> UserNo {
        if let Some(user) = self.users.get(name) {
            return *user;
        }
        let names = &mut self.history.names;
        *self.users.entry(name.to_ascii_lowercase()).or_insert_with(|| {
            names.push(name.to_owned());
            UserNo(number(names.len() - 1))
        })
    }

    fn entry(&mut self, message: &Message) -> Entry {
        Entry {
            // What is no UUID is one that no other message has.
            id: Uuid::try_parse(&message.message_id).unwrap_or_default(),
            sequence: message.sequence,
            content: content_of(message),
            request: digest(&message.request_id),
            from: self.user(&message.from_user),
            to: self.user(&message.to_user),
        }
    }

    fn follow(&mut self, follow: FollowNo, write: impl FnOnce(&mut Follow)) {
        if let Some(follow) = self.history.follows.get_mut(follow.0 as usize) {
            write(follow);
        }
    }

    fn entries(&mut self, messages: &[Message]) -> Vec<Entry> {
        messages.iter().map(|message| self.entry(message)).collect()
    }
}

fn end<Q, A>(calls: &mut [Call<Q, A>], call: u32, answered: Moment, outcome: Outcome<A>) {
    if let Some(call) = calls.get_mut(call as usize) {
        (call.answered, call.outcome) = (answered, outcome);
    }
}

fn outcome<T>(answer: Result<T, &Status>) -> Outcome<T> {
    match answer {
        Ok(answer) => Outcome::Ok(answer),
        Err(status) => Refused::of(status).map_or(Outcome::Unknown, Outcome::Failed),
    }
}

fn push<T>(list: &mut Vec<T>, item: T) -> u32 {
    list.push(item);
    number(list.len() - 1)
}

fn number(count: usize) -> u32 {
    u32::try_from(count).expect("a history has fewer than 2^32 calls of a kind")
}
