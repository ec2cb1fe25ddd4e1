//! peerpost: a self-hosted messaging service between peers.

pub mod domain;
pub mod proto;
