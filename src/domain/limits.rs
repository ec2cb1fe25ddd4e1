//! Every bound of the contract, with its unit in its name.

use std::time::Duration;

/// The longest time from a call's beginning to that of its response, so that requests that are
/// never finished and answers that never come hold nothing for ever.
pub const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// The most bytes of a request, beside a message's body: its fields' bounds, generously.
pub const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// The most bytes of a call's metadata (HTTP/2's header list).
pub const METADATA_BYTES_MAX: u32 = 16 * 1024;

/// The most characters of a username.
pub const USERNAME_CHARACTERS_MAX: usize = 64;

/// The most bytes of a message's body unless the operator says otherwise.
pub const BODY_BYTES_DEFAULT: usize = 64 * 1024;

/// The highest body limit that an operator can set, so that pages and queues stay bounded.
pub const BODY_BYTES_CEILING: usize = 1024 * 1024;

/// The most characters of a content type.
pub const CONTENT_TYPE_CHARACTERS_MAX: usize = 128;

/// The most characters of a request id.
pub const REQUEST_ID_CHARACTERS_MAX: usize = 64;

/// The most characters of an epoch that a request names.
pub const EPOCH_CHARACTERS_MAX: usize = 64;

/// The entries of a page when the request leaves it open.
pub const PAGE_SIZE_DEFAULT: usize = 100;

/// The most entries of a page; a larger request is served as this (AIP-158).
pub const PAGE_SIZE_MAX: usize = 1000;

/// The bytes of bodies at which a page of `GetMessages` ends early.
pub const PAGE_BYTES_MAX: usize = 1024 * 1024;

/// The time between heartbeats when the request leaves it open.
pub const HEARTBEAT_INTERVAL_DEFAULT: Duration = Duration::from_secs(30);

/// The shortest time between heartbeats that can be asked for.
pub const HEARTBEAT_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// The longest time between heartbeats that can be asked for.
pub const HEARTBEAT_INTERVAL_MAX: Duration = Duration::from_hours(1);

/// The most open subscriptions of one user unless the operator says otherwise.
pub const SUBSCRIPTIONS_PER_USER_DEFAULT: usize = 256;

/// The most subscriptions that an operator can let a user have, so that a user's followers stay bounded.
pub const SUBSCRIPTIONS_PER_USER_CEILING: usize = 65_536;

/// The most that a rate can count in its unit of time, and that can be sent at once.
pub const RATE_COUNT_MAX: u32 = 1_000_000;

/// The most users for whom limits of their own are set: they are all in memory, about 100 bytes each.
pub const USERS_WITH_LIMITS_MAX: usize = 65_536;

/// The most requests of one `SendMessages` stream that are in work at a time.
pub const STREAM_SENDS_IN_WORK_MAX: usize = 1024;

/// The bytes of bodies in work on one `SendMessages` stream at which it reads no further.
pub const STREAM_SENDS_IN_WORK_BYTES_MAX: usize = 1024 * 1024;

/// The most tokens of one user, expired ones included.
pub const TOKENS_PER_USER_MAX: usize = 64;

/// The most characters of a token's name.
pub const TOKEN_NAME_CHARACTERS_MAX: usize = 64;

/// The longest time for which a token or an invite with an expiry is given out: a hundred years.
pub const TTL_MAX: Duration = Duration::from_hours(36_500 * 24);

/// The most characters of an invite that a request names.
pub const INVITE_CHARACTERS_MAX: usize = 64;

/// The most registrations of one invite.
pub const INVITE_USES_MAX: u32 = 1_000_000;

/// The most characters of an operator's note: for what an invite is, why somebody is banned.
pub const NOTE_CHARACTERS_MAX: usize = 256;

/// The longest time for which a message can be sent that is to expire: ten years of 365.25 days.
pub const MESSAGE_TTL_MAX: Duration = Duration::from_hours(87_660);
