//! peerpost: a self-hosted messaging service between peers.

pub mod auth;
pub mod cli;
pub mod client;
pub mod domain;
pub mod grpc;
pub mod http;
pub mod hub;
pub mod messenger;
pub mod proto;
mod random;
pub mod server;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
