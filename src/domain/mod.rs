//! The words of peerpost as types that cannot hold a wrong value.
//!
//! Parsing happens once, at the edge; everything below receives these types. Nothing here knows
//! tokio, tonic or diesel.

mod access;
mod address;
mod content;
mod cursor;
pub mod limits;
mod message;
mod rate;
mod time;
mod token;
mod user;
mod username;

pub use access::{AccessId, AccessIdError, Invite, InviteError, InviteHash, Label, LabelError};
pub use address::{PeerAddress, PeerAddressError};
pub use content::{
    Body, BodyError, BodyKind, Content, ContentType, ContentTypeError, RequestId, RequestIdError,
};
pub use cursor::{Epoch, MailboxRange, Sequence, SequenceError};
pub use message::{Expiry, Message, MessageExpiry, MessageId};
pub use rate::{Rate, RateError, RateLimit, UserLimits};
pub use time::Timestamp;
pub use token::{Token, TokenError, TokenHash};
pub use user::{Profile, Standing, User, UserId};
pub use username::{Username, UsernameError, UsernamePrefix};
