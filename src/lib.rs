//! peerpost: a self-hosted messaging service between peers. People and programs register a name, send
//! each other messages, and follow their own mailbox live, from one binary and one data folder, with no
//! acknowledged message ever lost.
//!
//! As a library it is two things:
//!
//! - [`client`]: talk to a server. Send once, follow without a gap, survive restarts.
//! - `testing` (the feature of that name): test programs that do, against a real server that crashes, on
//!   a network that is cut.
//!
//! ```
//! use peerpost::client::{Client, FollowOptions, Start};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let server = peerpost::testing::TestServer::start().await;
//! # let (alice, bob) = (server.client("alice").await, server.client("bob").await);
//! alice.send("bob", "hello, bob").await?;
//! let mut messages = bob.follow(Start::Acknowledged, FollowOptions::default());
//! if let Some(message) = messages.next_message().await {
//!     assert_eq!(message?.body.as_text(), Some("hello, bob"));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The other modules are the server's own, laid out in the repository's `docs/ARCHITECTURE.md`, and
//! public for its binary and its tests: they change without notice.

pub mod auth;
#[cfg(feature = "cli")]
pub mod cli;
pub mod client;
pub mod domain;
pub mod grpc;
pub mod http;
pub mod hub;
pub mod limiter;
pub mod messenger;
pub mod metrics;
pub mod proto;
mod random;
pub mod server;
pub mod store;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
pub mod version;
