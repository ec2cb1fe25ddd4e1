//! What the tests of the Rust client say often.

use std::net::SocketAddr;
use std::time::Duration;

use peerpost::client::{Client, Event, Follow, Message, Options, Token};
pub(crate) use peerpost::testing::client_options as patient;
use peerpost::testing::{TestUser, within_patience};

/// Attempts once.
pub(crate) fn impatient() -> Options {
    Options::default().retry_deadline(Duration::ZERO)
}

/// A client without a token.
pub(crate) fn anonymous(addr: SocketAddr, options: Options) -> Client {
    Client::connect_with(&addr.to_string(), options).expect("the address of a server")
}

/// A client that acts as this user.
pub(crate) fn client_of(user: &TestUser, addr: SocketAddr, options: Options) -> Client {
    let token = Token::parse(&user.token).expect("a token");
    anonymous(addr, options).with_token(&token)
}

/// The next event of a follower that goes on.
pub(crate) async fn next_event(following: &mut Follow) -> Event {
    let event = within_patience("the next event", following.next_event()).await;
    event.expect("following goes on").expect("following goes on")
}

/// Passes over events until one that `choose` takes. Heartbeats do not prolong the patience.
pub(crate) async fn find_event<T>(
    following: &mut Follow,
    mut choose: impl FnMut(Event) -> Option<T>,
) -> T {
    let find = async {
        loop {
            if let Some(chosen) = choose(next_event(following).await) {
                return chosen;
            }
        }
    };
    within_patience("the event looked for", find).await
}

/// Reads on to the live part; there may be no message on the way.
pub(crate) async fn caught_up(following: &mut Follow) -> i64 {
    find_event(following, |event| match event {
        Event::CaughtUp { through_sequence } => Some(through_sequence),
        Event::Message(message) => panic!("{message:?} before caught_up"),
        _ => None,
    })
    .await
}

/// Reads on to the next loss of the connection, and returns its error; there may be no message on
/// the way.
pub(crate) async fn reconnecting(following: &mut Follow) -> peerpost::client::Error {
    find_event(following, |event| match event {
        Event::Reconnecting { error, .. } => Some(error),
        Event::Message(message) => panic!("{message:?} before the connection is lost"),
        _ => None,
    })
    .await
}

/// The next `count` messages, whatever happens between them.
pub(crate) async fn messages(following: &mut Follow, count: usize) -> Vec<Message> {
    let mut messages = Vec::with_capacity(count);
    find_event(following, |event| {
        if let Event::Message(message) = event {
            messages.push(message);
        }
        (messages.len() == count).then_some(())
    })
    .await;
    messages
}

/// The error with which following ends, and that it ends then.
pub(crate) async fn end(following: &mut Follow) -> peerpost::client::Error {
    loop {
        match within_patience("the end", following.next_event()).await.expect("an error first") {
            Ok(_) => {}
            Err(error) => {
                let after = within_patience("the end", following.next_event()).await;
                assert!(after.is_none(), "goes on after its end: {after:?}");
                return error;
            }
        }
    }
}

#[track_caller]
pub(crate) fn assert_dense_from(first: i64, messages: &[Message]) {
    for (expected, message) in (first..).zip(messages) {
        assert_eq!(message.sequence, expected, "a hole or a duplicate");
    }
}

pub(crate) fn texts(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.body.as_text().expect("text")).collect()
}
