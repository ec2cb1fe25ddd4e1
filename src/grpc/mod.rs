//! The contract over the use cases: decode, call, encode. The one place that maps errors to
//! statuses.

mod accounts;
pub mod admin;
mod calls;
mod codec;
mod decode;
mod dispatch;
mod edge;
mod encode;
mod error;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod from_bytes;
mod health;
mod identity;
mod method;
mod refusal;
mod sends;
mod service;
mod stream_end;
mod subscription;
mod until_drain;
pub mod web;

pub use self::calls::CallMetrics;
pub use self::dispatch::Dispatch;
pub use self::edge::Edge;
pub use self::error::over_held_bytes;
pub use self::health::{Availability, Health};
pub use self::service::{Messaging, SeenAddress};
pub use self::until_drain::UntilDrain;
pub use self::web::{Coding, FromText, Spoken};
