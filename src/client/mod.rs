//! The Rust client: sends once, follows without a gap, and survives restarts of the server.
//!
//! ```
//! use peerpost::client::{Client, Event, FollowOptions, Start};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let test_server = peerpost::testing::TestServer::start().await;
//! # let uri = test_server.uri();
//! let server = Client::connect(&uri)?; // such as "http://127.0.0.1:50051"
//! let (_, token) = server.register("alice", "").await?;
//! // The token is shown only once: keep it before anything else.
//! let alice = server.with_token(&token.ok_or("alice is registered already")?);
//!
//! let message = alice.send("alice", "a note to self").await?;
//! println!("on the server's disk, number {} of my mailbox", message.sequence);
//!
//! let mut events = alice.follow(Start::Acknowledged, FollowOptions::default());
//! while let Some(event) = events.next_event().await {
//!     match event? {
//!         Event::Message(message) => {
//!             println!("{} wrote {} bytes", message.from_user, message.body.as_bytes().len());
//!             alice.acknowledge(message.sequence, None).await?;
//! #           break;
//!         }
//!         Event::Reconnecting { error, delay } => eprintln!("{error}; again in {delay:?}"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | to | call | what it holds to |
//! | --- | --- | --- |
//! | take a name | [`Client::register`] | the token is shown once; with it, the same call updates the address |
//! | send a message | [`Client::send`], [`Client::send_message`] | stored once, however often it is tried |
//! | send many | [`Client::send_all`] | the same, in order, without a wait for each |
//! | read | [`Client::messages`], [`Client::history`] | a page, or all of them, in either direction |
//! | follow | [`Client::follow`] | every entry after the start, once, in order, for as long as it takes |
//! | say what was read | [`Client::acknowledge`] | only moves forward; [`Start::Acknowledged`] begins there |
//! | look around | [`Client::user`], [`Client::users`] | who is there, at which address, online or last seen when |
//!
//! A [`Client`] is a handle: clone it freely. Its calls share one connection, which is opened by
//! the first call and opened again whenever it breaks. [`Client::follow`] and [`Client::send_all`] have
//! connections of their own, since a stream that is read slowly would hold up the calls beside it.
//! Following, sending many and reading are [`Stream`](tokio_stream::Stream)s, for the `StreamExt` of
//! `tokio_stream` or of `futures`.
//!
//! # A program that follows and survives its own restarts
//!
//! Whoever acts upon messages keeps a cursor: the last sequence that was dealt with, and the epoch in
//! which that was. [`Start::After`] with both goes on there, in another process, a week later. What was
//! acted upon and not yet noted comes again; to answer each message once all the same, make the answer's
//! `request_id` out of the message's id, and the server stores it once:
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use peerpost::client::{Client, FollowOptions, OutgoingMessage, PageRequest, Start};
//! # let server = peerpost::testing::TestServer::start().await;
//! # let (desk, customer) = (server.client("desk").await, server.client("customer").await);
//! # customer.send("desk", "two teapots").await?;
//! # for run in 0..2 {
//! // The second run knows nothing of the first: it lost the cursor.
//! let options = FollowOptions::default().received_only(true);
//! let mut orders = desk.follow(Start::After(0), options);
//! # let mut taken = 0;
//! while let Some(order) = orders.next_message().await {
//!     let order = order?;
//!     let answer = OutgoingMessage::new(&order.from_user, "on its way")
//!         .with_request_id(format!("answer-{}", order.message_id));
//!     desk.send_message(answer).await?;
//! #   taken += 1;
//! #   if taken == 1 { break; }
//! }
//! # }
//! # let mailbox = customer.messages(PageRequest::after(0)).await?;
//! # assert_eq!(mailbox.messages.len(), 2, "an order and one answer");
//! # Ok(())
//! # }
//! ```
//!
//! `examples/toy-orders` in the repository is such a program as a whole, with its tests.
//!
//! # Errors
//!
//! Every error is an [`Error`]. Calls try again by themselves, for [`Options::retry_deadline`], what
//! [`Error::is_retriable`] says may pass; so an error that reaches the caller has outlasted that, or does
//! not pass.
//!
//! | error | passes? | took effect? | what to do |
//! | --- | --- | --- | --- |
//! | [`Error::Connect`] | yes | no | is the server there? try again later |
//! | [`Error::Disconnected`], [`Error::DeadlineExceeded`] | yes | unknown | repeat the same [`OutgoingMessage`]; of a new name that was registered, the token is lost |
//! | [`Error::Silent`], [`Error::Hole`] | yes | reads only | nothing: following connects again, and gives up on a hole that stays |
//! | [`Error::Refused`] with `UNAVAILABLE` | yes | as for `Disconnected` | the server restarts or its disk fails: try again later |
//! | … `RESOURCE_EXHAUSTED` with a [retry delay](Error::retry_delay) | yes | no | send less, or wait for as long as it says |
//! | … `INVALID_ARGUMENT` | no | no | a field is wrong: [`Refusal::violations`] has which and why |
//! | … `UNAUTHENTICATED` | no | no | the token is not one of this server's |
//! | … `NOT_FOUND`, `ALREADY_EXISTS` | no | no | nobody has the name; somebody has it, or the `request_id` was used for another message |
//! | … `OUT_OF_RANGE`, `FAILED_PRECONDITION` | no | no | the cursor is not of this mailbox or its epoch; [`Refusal::metadata`] has the valid range. The server's data was restored or replaced: begin anew |
//! | … `DATA_LOSS` | no | no | an entry is damaged on the server's disk: its operator has to know |
//! | [`Error::InvalidServer`], [`Error::Malformed`] | no | no; unknown | another address; a newer version of this crate |
//!
//! [`Error::reason`] tells refusals apart in more detail: an [`ErrorReason`], whose comments say what
//! [`Refusal::metadata`] holds.

mod admin;
mod backoff;
mod calls;
mod endpoint;
mod error;
mod follow;
mod health;
mod message;
mod options;
mod position;
mod retry;
mod send_all;
mod tls;
mod token;
mod user;

pub use admin::AdminClient;
pub use calls::Client;
pub use error::{Error, FieldViolation, Refusal};
pub use follow::{Event, Follow, FollowOptions, Start};
pub use message::{Body, Message, MessageStream, OutgoingMessage, Page, PageRequest};
pub use options::Options;
pub use send_all::SendAll;
pub use token::{InvalidToken, Token};
pub use user::{User, UserPage, UserStream};

pub use crate::proto::ErrorReason;
