//! Requests from their bytes, on the way that a call takes through the codec and the decoder: where
//! fuzzing gets in. Compiled for tests alone (feature `testing`), and no part of the interface.

use prost::Message;
use tonic::Status;

use super::error::CallError;
use super::{codec, decode};
use crate::domain::{Epoch, PeerAddress, Sequence, Username, UsernamePrefix};
use crate::messenger::{FollowRequest, Outgoing, PageRequest};
use crate::proto::GetUserRequest;

type Decoded<T> = Result<T, Status>;

/// A request of `Register`, but for its invite, of which only a hash is kept.
pub fn register(bytes: &[u8]) -> Decoded<(Username, Option<PeerAddress>)> {
    let (name, address, _) = from_bytes(bytes, |request| decode::register(&request))?;
    Ok((name, address))
}

/// A request of `SendMessage`.
pub fn send_message(bytes: &[u8], body_bytes_max: usize) -> Decoded<Outgoing> {
    from_bytes(bytes, |request| decode::send_message(request, body_bytes_max))
}

/// A request of `GetMessages`.
pub fn get_messages(bytes: &[u8]) -> Decoded<PageRequest> {
    from_bytes(bytes, decode::get_messages)
}

/// A request of `Subscribe`.
pub fn subscribe(bytes: &[u8]) -> Decoded<FollowRequest> {
    from_bytes(bytes, decode::subscribe)
}

/// A request of `Acknowledge`.
pub fn acknowledge(bytes: &[u8]) -> Decoded<(Sequence, Option<Epoch>)> {
    from_bytes(bytes, decode::acknowledge)
}

/// A request of `GetUser`.
pub fn get_user(bytes: &[u8]) -> Decoded<Username> {
    from_bytes(bytes, |request: GetUserRequest| decode::username(&request.username))
}

/// A request of `ListUsers`: the prefix, the page token of what the page begins after, its size.
pub fn list_users(bytes: &[u8]) -> Decoded<(UsernamePrefix, String, usize)> {
    let (prefix, after, page_size) = from_bytes(bytes, |request| decode::list_users(&request))?;
    let page_token = if after.is_empty() { after } else { decode::encode_page_token(&after) };
    Ok((prefix, page_token, page_size))
}

fn from_bytes<M: Message + Default, T>(
    bytes: &[u8],
    decode: impl FnOnce(M) -> Result<T, CallError>,
) -> Decoded<T> {
    // As tonic reports it.
    let request = M::decode(bytes).map_err(|error| Status::internal(error.to_string()));
    let request = request
        .map_err(|status| codec::request_error(&status, false, 0).map_or(status, Status::from))?;
    Ok(decode(request)?)
}
