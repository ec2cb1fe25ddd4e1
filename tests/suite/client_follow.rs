//! Following with the Rust client: 1, 2, 3, … whatever happens to the connection and the server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use peerpost::client::{Client, Error, ErrorReason, Event, Follow, FollowOptions, Message, Start};
use peerpost::testing::{
    Loss, Proxy, ServerProcess, TestServer, TestUser, eventually, within_patience,
};
use tokio::task::JoinSet;

use crate::client_support::{
    assert_dense_from, caught_up, client_of, end, find_event, impatient, messages, next_event,
    patient, reconnecting, texts,
};
use crate::support::{binary, database_in};

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_delivered_once_across_graceful_restarts() {
    let mut server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    follow_across_restarts(server.addr(), &alice, &bob, async || {
        server.restart().await;
        server.addr()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_delivered_once_across_kills() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let server = ServerProcess::start(binary(), &data_dir).await;
    let addr = server.addr();
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let mut running = Some(server);
    follow_across_restarts(addr, &alice, &bob, async || {
        running.take().expect("it runs").kill();
        let server = ServerProcess::start(binary(), &data_dir).await;
        let addr = server.addr();
        running = Some(server);
        addr
    })
    .await;
}

/// Alice sends one message after the other and bob follows, both through a proxy in front of a
/// server that `restart` replaces while they do.
async fn follow_across_restarts(
    addr: SocketAddr,
    alice: &TestUser,
    bob: &TestUser,
    mut restart: impl AsyncFnMut() -> SocketAddr,
) {
    const RESTARTS: usize = 3;
    const MESSAGES_BETWEEN: usize = 50;
    let proxy = Proxy::start(addr).await;
    let is_enough = Arc::new(AtomicBool::new(false));
    let mut sending = JoinSet::new();
    let sender = client_of(alice, proxy.addr(), patient());
    sending.spawn(send_until_enough(sender, Arc::clone(&is_enough)));
    let received = Arc::new(AtomicUsize::new(0));
    let mut following = JoinSet::new();
    let reader = client_of(bob, proxy.addr(), patient());
    following.spawn(collect_to_the_last(reader, Arc::clone(&received)));
    let mut addr = addr;
    for restarts in 0..=RESTARTS {
        let before = received.load(Ordering::SeqCst);
        eventually("messages coming in", async || {
            (received.load(Ordering::SeqCst) >= before + MESSAGES_BETWEEN).then_some(())
        })
        .await;
        if restarts < RESTARTS {
            addr = restart().await;
            proxy.retarget(addr);
        }
    }
    is_enough.store(true, Ordering::SeqCst);
    let sent = within_patience("the sender's end", sending.join_next()).await;
    let sent = sent.expect("one task").expect("the sender does not panic");
    let ended = within_patience("the follower's end", following.join_next()).await;
    let (view, reconnects) = ended.expect("one task").expect("the follower does not panic");
    assert!(reconnects >= RESTARTS, "{reconnects} reconnects in {RESTARTS} restarts");
    assert_dense_from(1, &view);
    assert_eq!(texts(&view), sent);
    let mailbox = bob.at(addr).mailbox().await;
    assert_eq!(crate::support::texts(&mailbox), sent, "each is stored once");
}

const LAST: &str = "the last";

/// Sends one message after the other, and returns their texts.
async fn send_until_enough(client: Client, is_enough: Arc<AtomicBool>) -> Vec<String> {
    let mut sent = Vec::new();
    loop {
        let is_last = is_enough.load(Ordering::SeqCst);
        let text = if is_last { LAST.to_owned() } else { format!("m{}", sent.len()) };
        client.send("bob", text.as_str()).await.expect("stored in the end");
        sent.push(text);
        if is_last {
            return sent;
        }
    }
}

/// Follows until the last message came, and says how often the connection was lost before.
async fn collect_to_the_last(client: Client, received: Arc<AtomicUsize>) -> (Vec<Message>, usize) {
    let mut following = client.follow(Start::After(0), FollowOptions::default());
    let (mut messages, mut reconnects) = (Vec::<Message>::new(), 0);
    while messages.last().is_none_or(|message| message.body.as_text() != Some(LAST)) {
        match next_event(&mut following).await {
            Event::Message(message) => messages.push(message),
            Event::Reconnecting { .. } => reconnects += 1,
            _ => {}
        }
        received.store(messages.len(), Ordering::SeqCst);
    }
    (messages, reconnects)
}

/// A user, a follower of their mailbox through a proxy, and a way around it.
struct Scene {
    server: TestServer,
    proxy: Proxy,
    alice: TestUser,
    following: Follow,
}

impl Scene {
    /// `before` messages stand in the mailbox, `acknowledged` of them acknowledged.
    async fn start(before: usize, acknowledged: i64, start: Start, options: FollowOptions) -> Self {
        let server = TestServer::start().await;
        let proxy = Proxy::start(server.addr()).await;
        let alice = server.user("alice").await;
        alice.send_many("alice", "before ", before).await;
        alice.acknowledge(acknowledged).await.expect("accepted");
        let client = client_of(&alice, proxy.addr(), patient());
        let following = client.follow(start, options);
        Self { server, proxy, alice, following }
    }

    /// Loses the connection, and keeps it from coming back until it is resumed.
    async fn lose_connection(&mut self) {
        self.proxy.stall();
        self.proxy.cut();
        let error = reconnecting(&mut self.following).await;
        assert!(matches!(error, Error::Disconnected { .. }), "{error:?}");
    }

    /// How many subscriptions the server has can be seen by whether their user is online.
    async fn gone_offline(&self) {
        eventually("going offline", async || {
            let user = self.alice.get_user("alice").await.expect("found");
            (!user.online).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn from_now_means_from_when_it_was_first_reached() {
    let mut scene = Scene::start(3, 0, Start::FromNow, FollowOptions::default()).await;
    assert_eq!(caught_up(&mut scene.following).await, 3);
    scene.lose_connection().await;
    scene.alice.send_many("alice", "meanwhile ", 3).await;
    scene.proxy.resume();
    let started = find_event(&mut scene.following, |event| match event {
        Event::Started { after_sequence, last_sequence, .. } => {
            Some((after_sequence, last_sequence))
        }
        _ => None,
    });
    assert_eq!(started.await, (3, 6));
    let received = messages(&mut scene.following, 3).await;
    assert_dense_from(4, &received);
    assert_eq!(texts(&received), ["meanwhile 0", "meanwhile 1", "meanwhile 2"]);
}

#[tokio::test]
async fn what_another_device_acknowledges_is_still_delivered() {
    let mut scene = Scene::start(6, 2, Start::Acknowledged, FollowOptions::default()).await;
    assert_dense_from(3, &messages(&mut scene.following, 4).await);
    scene.lose_connection().await;
    scene.alice.send_many("alice", "meanwhile ", 3).await;
    assert_eq!(scene.alice.acknowledge(9).await.expect("accepted"), 9);
    scene.proxy.resume();
    let received = messages(&mut scene.following, 3).await;
    assert_dense_from(7, &received);
    assert_eq!(texts(&received), ["meanwhile 0", "meanwhile 1", "meanwhile 2"]);
}

#[tokio::test]
async fn a_start_that_was_never_confirmed_is_asked_for_again() {
    for loss in [Loss::Whole, Loss::AfterHeaders] {
        let mut scene = Scene::start(5, 2, Start::Acknowledged, FollowOptions::default()).await;
        scene.proxy.lose_answers(3, loss);
        assert_dense_from(3, &messages(&mut scene.following, 3).await);
        assert_eq!(scene.proxy.answers_lost(), 3);
    }
}

#[tokio::test]
async fn received_only_goes_on_after_what_it_skipped() {
    let options = FollowOptions::default().received_only(true);
    let mut scene = Scene::start(1, 0, Start::After(0), options).await;
    let bob = scene.server.user("bob").await;
    let (alice, following) = (&scene.alice, &mut scene.following);
    for i in 0..3 {
        alice.send("bob", "sent").await;
        bob.send("alice", &format!("received {i}")).await;
    }
    let received = messages(following, 4).await;
    let sequences: Vec<_> = received.iter().map(|message| message.sequence).collect();
    assert_eq!(sequences, [1, 3, 5, 7]);
    scene.lose_connection().await;
    scene.alice.send("bob", "sent").await;
    bob.send("alice", "received 3").await;
    scene.proxy.resume();
    let received = messages(&mut scene.following, 1).await;
    assert_eq!((received[0].sequence, texts(&received)[0]), (9, "received 3"));
}

#[tokio::test]
async fn connections_that_break_all_the_time_lose_and_repeat_nothing() {
    const CUTS: usize = 30;
    const BURST: usize = 20;
    let mut scene = Scene::start(BURST, 0, Start::After(0), FollowOptions::default()).await;
    let mut received = Vec::new();
    for _cut in 0..CUTS {
        // Half of them are read before the cut, some perhaps between it and its being noticed.
        received.extend(messages(&mut scene.following, BURST / 2).await);
        scene.proxy.cut();
        find_event(&mut scene.following, |event| match event {
            Event::Message(message) => {
                received.push(message);
                None
            }
            Event::Reconnecting { .. } => Some(()),
            _ => None,
        })
        .await;
        scene.alice.send_many("alice", "more ", BURST).await;
    }
    let missing = (CUTS + 1) * BURST - received.len();
    received.extend(messages(&mut scene.following, missing).await);
    assert_dense_from(1, &received);
    assert!(scene.proxy.connections() > CUTS, "a connection for each");
}

#[tokio::test]
async fn a_stalled_connection_is_noticed_by_its_missing_heartbeats() {
    let options = FollowOptions::default().heartbeat_interval(Duration::from_secs(1));
    let mut scene = Scene::start(2, 0, Start::After(0), options).await;
    messages(&mut scene.following, 2).await;
    scene.proxy.stall();
    scene.alice.send("alice", "meanwhile").await;
    let error = reconnecting(&mut scene.following).await;
    assert!(matches!(error, Error::Silent { .. }), "{error:?}");
    scene.proxy.resume();
    // What was held back on the given up connection arrives nowhere, or is dropped.
    scene.alice.send("alice", "after").await;
    let received = messages(&mut scene.following, 2).await;
    assert_dense_from(3, &received);
    assert_eq!(texts(&received), ["meanwhile", "after"]);
}

#[tokio::test]
async fn a_stalled_connection_is_noticed_by_pings_where_heartbeats_are_rare() {
    let server = TestServer::start().await;
    let proxy = Proxy::start(server.addr()).await;
    let alice = server.user("alice").await;
    let second = Duration::from_secs(1);
    let client = client_of(&alice, proxy.addr(), patient().keepalive(second, second));
    let options = FollowOptions::default().heartbeat_interval(Duration::from_hours(1));
    let mut following = client.follow(Start::After(0), options);
    assert_eq!(caught_up(&mut following).await, 0);
    proxy.stall();
    alice.send("alice", "meanwhile").await;
    let error = reconnecting(&mut following).await;
    assert!(matches!(error, Error::Disconnected { .. }), "{error:?}");
    proxy.resume();
    assert_eq!(texts(&messages(&mut following, 1).await), ["meanwhile"]);
}

#[tokio::test]
async fn heartbeats_tell_how_far_it_is() {
    let options = FollowOptions::default().heartbeat_interval(Duration::from_secs(1));
    let mut scene = Scene::start(2, 0, Start::FromNow, options).await;
    caught_up(&mut scene.following).await;
    match next_event(&mut scene.following).await {
        Event::Heartbeat { through_sequence } => assert_eq!(through_sequence, 2),
        other => panic!("{other:?} on a quiet stream"),
    }
}

#[tokio::test]
async fn waiting_for_an_event_can_be_cancelled_at_any_point() {
    const COUNT: usize = 100;
    let mut scene = Scene::start(COUNT, 0, Start::After(0), FollowOptions::default()).await;
    let mut received = Vec::new();
    let collecting = async {
        while received.len() < COUNT {
            tokio::select! {
                biased;
                event = scene.following.next_event() => {
                    if let Some(Ok(Event::Message(message))) = event {
                        received.push(message);
                    }
                }
                () = tokio::task::yield_now() => {}
            }
        }
    };
    within_patience("the messages", collecting).await;
    assert_dense_from(1, &received);
}

#[tokio::test]
async fn another_epoch_ends_it_with_an_error_that_says_so() {
    let mut scene = Scene::start(3, 0, Start::After(0), FollowOptions::default()).await;
    messages(&mut scene.following, 3).await;
    scene.server.stop().await;
    let database = database_in(scene.server.data_dir());
    let mut connection = SqliteConnection::establish(database.to_str().expect("a path in UTF-8"))
        .expect("the database opens");
    connection.batch_execute("UPDATE database_state SET epoch = 'restored'").expect("updated");
    drop(connection);
    scene.server.start_again().await;
    scene.proxy.retarget(scene.server.addr());

    let error = end(&mut scene.following).await;
    assert_eq!(error.reason(), Some(ErrorReason::EpochMismatch), "{error:?}");
    assert!(!error.is_retriable());
    let Error::Refused(refusal) = error else { panic!("{error:?}") };
    assert_eq!(refusal.metadata["epoch"], "restored");
}

#[tokio::test]
async fn another_data_folder_ends_it_with_an_error_that_says_so() {
    let mut scene = Scene::start(3, 0, Start::After(0), FollowOptions::default()).await;
    messages(&mut scene.following, 3).await;
    let other = TestServer::start().await;
    other.user("alice").await;
    scene.proxy.retarget(other.addr());
    scene.proxy.cut();
    let error = end(&mut scene.following).await;
    assert_eq!(error.reason(), Some(ErrorReason::TokenUnknown), "{error:?}");
}

#[tokio::test]
async fn a_cursor_that_is_not_good_ends_it() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let client = client_of(&alice, server.addr(), patient());
    let ahead = end(&mut client.follow(Start::After(5), FollowOptions::default())).await;
    assert_eq!(ahead.reason(), Some(ErrorReason::SequenceOutOfRange), "{ahead:?}");
    let options = FollowOptions::default().epoch("another");
    let foreign = end(&mut client.follow(Start::After(0), options)).await;
    assert_eq!(foreign.reason(), Some(ErrorReason::EpochMismatch), "{foreign:?}");
}

#[tokio::test]
async fn dropping_it_ends_the_subscription() {
    let mut scene = Scene::start(0, 0, Start::After(0), FollowOptions::default()).await;
    caught_up(&mut scene.following).await;
    assert!(scene.alice.get_user("alice").await.expect("found").online);
    let client = client_of(&scene.alice, scene.server.addr(), impatient());
    scene.following = client.follow(Start::After(0), FollowOptions::default());
    scene.gone_offline().await;
}

/// h2 cuts a connection on which too many small frames gather unread; see the client's window.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_does_not_read_for_long_is_not_cut_off() {
    const COUNT: usize = 30_000;
    const SENDERS: usize = 2;
    // What is tested is not the disk; in memory, where there is such a place, 30,000 commits are quick.
    let in_memory = tempfile::tempdir_in("/dev/shm");
    let folder = in_memory.or_else(|_| tempfile::tempdir()).expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let server = TestServer::start_with(|options| options.data_dir = data_dir).await;
    let alice = server.user("alice").await;
    let client = client_of(&alice, server.addr(), patient());
    let mut following = client.follow(Start::After(0), FollowOptions::default());
    caught_up(&mut following).await;
    // Each sender waits for its answers, so that nearly each message is delivered in a frame of its
    // own: without a small window the follower is cut off after some 20,000.
    let mut senders = JoinSet::new();
    for _ in 0..SENDERS {
        let alice = alice.at(server.addr());
        senders.spawn(async move {
            for _ in 0..COUNT / SENDERS {
                alice.send("alice", "m").await;
            }
        });
    }
    senders.join_all().await;
    for expected in 1..=i64::try_from(COUNT).expect("it fits") {
        match next_event(&mut following).await {
            Event::Message(message) => assert_eq!(message.sequence, expected),
            Event::Heartbeat { .. } => {}
            other => panic!("{other:?} instead of #{expected}"),
        }
    }
}
