//! The Rust client: sends once, follows without a gap, and survives restarts of the server.
//!
//! A [`Client`] is a handle: clone it freely. Its calls share one connection, which is opened by
//! the first call and opened again whenever it breaks. [`Client::follow`] has a connection of its
//! own, since a stream that is read slowly would hold up the calls beside it.
//!
//! - **Sending** mints a `request_id` for each message and repeats it with every retry: a message
//!   is stored once, however often the connection breaks in between.
//! - **Following** reconnects for as long as it takes, resumes after the last sequence seen, drops
//!   duplicates and reports a hole instead of skipping it.
//! - **Every wait is bounded** by [`Options`], and every error is an [`Error`] with the server's
//!   reason decoded.
//!
//! ```no_run
//! use peerpost::client::{Client, Event, FollowOptions, Start};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Client::connect("http://127.0.0.1:50051")?;
//! let (_, token) = server.register("alice", "").await?;
//! // The token is shown only once: keep it before anything else.
//! let alice = server.with_token(&token.ok_or("alice is registered already")?);
//!
//! let message = alice.send("alice", "a note to self").await?;
//! println!("stored as number {} of my mailbox", message.sequence);
//!
//! let mut events = alice.follow(Start::Acknowledged, FollowOptions::default());
//! while let Some(event) = events.next_event().await {
//!     match event? {
//!         Event::Message(message) => {
//!             println!("{} wrote {} bytes", message.from_user, message.body.as_bytes().len());
//!             alice.acknowledge(message.sequence, None).await?;
//!         }
//!         Event::Reconnecting { error, delay } => eprintln!("{error}; again in {delay:?}"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod backoff;
mod calls;
mod error;
mod follow;
mod message;
mod options;
mod position;
mod retry;
mod tls;
mod token;
mod user;

pub use calls::Client;
pub use error::{Error, FieldViolation, Refusal};
pub use follow::{Event, Follow, FollowOptions, Start};
pub use message::{Body, Message, OutgoingMessage, Page, PageRequest};
pub use options::Options;
pub use token::{InvalidToken, Token};
pub use user::{User, UserPage, UserStream};

pub use crate::proto::ErrorReason;
