//! The real binary, killed under load at several moments: what was answered is there, under the
//! same sequence, once; what was not answered is stored once when it is sent again.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use peerpost::proto::{Message, SendMessageRequest};
use peerpost::testing::{
    ServerProcess, TestUser, body_text, eventually, streamed, text_to, within_patience,
};
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;

use crate::support::{assert_dense_from, assert_same_view, binary, with_id};

/// A kill comes when so many messages were answered in its round.
const KILL_AFTER_ANSWERS: [usize; 5] = [1, 40, 300, 1_500, 700];

const SENDERS: [Sender; 4] = [
    Sender { name: "unary1", streams: false },
    Sender { name: "stream1", streams: true },
    Sender { name: "unary2", streams: false },
    Sender { name: "stream2", streams: true },
];

#[derive(Clone, Copy)]
struct Sender {
    name: &'static str,
    streams: bool,
}

/// What one sender knows of one round when the server is gone.
#[derive(Default)]
struct Record {
    /// Requests 0 to this were handed to the client; whether they arrived is unknown.
    attempted: AtomicUsize,
    /// What was answered with OK, by `request_id`.
    answered: Mutex<BTreeMap<String, Message>>,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_sigkill_under_the_same_sequence() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let mut server = ServerProcess::start(binary(), &data_dir).await;
    let mut senders = Vec::new();
    for sender in SENDERS {
        senders.push((sender, server.user(sender.name).await));
    }
    let mut bob = server.user("bob").await;
    let mut sent_in_all = 0;
    for (round, answers) in KILL_AFTER_ANSWERS.into_iter().enumerate() {
        let (records, seen) = load_until_killed(server, &senders, &bob, round, answers).await;
        server = ServerProcess::start(binary(), &data_dir).await;
        bob = bob.at(server.addr());
        for (_, user) in &mut senders {
            *user = user.at(server.addr());
        }
        let mailbox = bob.mailbox().await;
        assert_dense_from(1, &mailbox);
        let since: Vec<_> = mailbox.iter().skip(sent_in_all).take(seen.len()).cloned().collect();
        assert_same_view(&since, &seen);
        for ((_, user), record) in senders.iter().zip(&records) {
            assert_answered_are_there(user, &mailbox, record).await;
            send_all_again(user, record, round).await;
        }
        sent_in_all += records.iter().map(|it| it.attempted.load(Ordering::SeqCst)).sum::<usize>();
        assert_stored_once(&bob, sent_in_all).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_whose_token_was_given_out_survives_sigkill() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let mut users: Vec<TestUser> = Vec::new();
    for round in 0..3 {
        let server = ServerProcess::start(binary(), &data_dir).await;
        for user in &mut users {
            *user = user.at(server.addr());
            assert_eq!(user.get_user(&user.name).await.expect("found").username, user.name);
            assert_eq!(user.acknowledge(0).await.expect("accepted"), 2);
        }
        let user = server.user(&format!("user{round}")).await;
        user.send_many(&user.name, "note ", 3).await;
        assert_eq!(user.acknowledge(2).await.expect("accepted"), 2);
        users.push(user);
        server.kill();
    }
    reopened_folder_is_whole(&data_dir, &users).await;
}

async fn reopened_folder_is_whole(data_dir: &Path, users: &[TestUser]) {
    let server = ServerProcess::start(binary(), data_dir).await;
    for user in users {
        let mailbox = user.at(server.addr()).mailbox().await;
        assert_eq!(mailbox.len(), 3);
        assert_dense_from(1, &mailbox);
    }
}

/// Lets everyone send, kills the server once enough was answered, and returns what the senders
/// know and what a follower of bob's mailbox saw in this round.
async fn load_until_killed(
    server: ServerProcess,
    senders: &[(Sender, TestUser)],
    bob: &TestUser,
    round: usize,
    answers: usize,
) -> (Vec<Arc<Record>>, Vec<Message>) {
    let last = crate::support::last_sequence(bob).await;
    let follower = tokio::spawn(bob.follow(last).await.drain());
    let mut tasks = JoinSet::new();
    let mut records = Vec::new();
    for (sender, user) in senders.iter().cloned() {
        let record = Arc::new(Record::default());
        records.push(Arc::clone(&record));
        tasks.spawn(async move {
            if sender.streams {
                send_on_a_stream(user, record, round).await;
            } else {
                send_one_by_one(user, record, round).await;
            }
        });
    }
    eventually("enough answers", async || {
        let answered: usize = records.iter().map(|record| record.answered().len()).sum();
        (answered >= answers).then_some(())
    })
    .await;
    server.kill();
    within_patience("the senders' end", tasks.join_all()).await;
    let (seen, _) = within_patience("the follower's end", follower).await.expect("no panic");
    (records, seen)
}

async fn send_one_by_one(user: TestUser, record: Arc<Record>, round: usize) {
    for i in 0.. {
        record.attempted.store(i + 1, Ordering::SeqCst);
        match user.try_send(request(&user, round, i)).await {
            Ok(message) => record.keep(message),
            Err(_) => return,
        }
    }
}

async fn send_on_a_stream(user: TestUser, record: Arc<Record>, round: usize) {
    let (sender, attempts) = (user.clone(), Arc::clone(&record));
    let requests = tokio_stream::iter(0..).map(move |i| {
        attempts.attempted.store(i + 1, Ordering::SeqCst);
        streamed(request(&sender, round, i))
    });
    let Ok(mut answers) = user.send_stream(requests).await else { return };
    while let Some(Ok(answer)) = within_patience("an answer", answers.next()).await {
        record.keep(answer.expect("every request is a good one"));
    }
}

/// The i-th request of a sender in a round; its text is its `request_id`.
fn request(user: &TestUser, round: usize, i: usize) -> SendMessageRequest {
    let id = format!("{}-{round}-{i}", user.name);
    with_id(text_to("bob", id.clone()), &id)
}

async fn assert_answered_are_there(user: &TestUser, mailbox_of_bob: &[Message], record: &Record) {
    let received: HashSet<_> = mailbox_of_bob.iter().map(|it| it.message_id.as_str()).collect();
    let sent = user.mailbox().await;
    assert_dense_from(1, &sent);
    for (request_id, message) in record.answered().iter() {
        let at = usize::try_from(message.sequence).expect("a sequence fits") - 1;
        assert_eq!(sent.get(at), Some(message), "{request_id} is not where it was answered to be");
        assert!(received.contains(message.message_id.as_str()), "{request_id} did not reach bob");
    }
}

/// Repeats everything, answered or not. What was answered is answered with the same message.
async fn send_all_again(user: &TestUser, record: &Record, round: usize) {
    let attempted = record.attempted.load(Ordering::SeqCst);
    let again = (0..attempted).map(|i| request(user, round, i));
    let answers = user.send_all(again).await.expect("the stream ends with OK");
    let answered = record.answered();
    for answer in answers {
        let message = answer.expect("accepted, or known");
        if let Some(first) = answered.get(&message.request_id) {
            assert_eq!(&message, first);
        }
    }
}

async fn assert_stored_once(bob: &TestUser, count: usize) {
    let mailbox = bob.mailbox().await;
    assert_dense_from(1, &mailbox);
    let different: HashSet<_> = mailbox.iter().map(body_text).collect();
    assert_eq!(different.len(), mailbox.len(), "something is stored twice");
    assert_eq!(mailbox.len(), count, "something is missing");
}

impl Record {
    fn keep(&self, message: Message) {
        self.answered().insert(message.request_id.clone(), message);
    }

    fn answered(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Message>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
