//! What a server may use, and what each of its callers may.

use std::ops::RangeInclusive;

use thiserror::Error;

use crate::domain::limits::SUBSCRIPTIONS_PER_USER_CEILING;
use crate::limiter;
use crate::store;

/// The most bytes that all connections together hold of requests and answers in transit.
pub const HELD_BYTES_DEFAULT: usize = 256 * MIB;

/// About 10 KiB each while they are idle.
pub const CONNECTIONS_MAX_DEFAULT: usize = 16_384;

/// The most calls that a connection has open at a time.
pub const STREAMS_PER_CONNECTION_DEFAULT: u32 = 256;

const MIB: usize = 1024 * 1024;
const GIB: usize = 1024 * MIB;

/// The limits that an operator can set and each of which has bounds, which a server keeps to.
#[derive(Debug, Clone)]
pub struct Limits {
    /// What a user may do, and an address. Subscriptions: within [`Bounds::SUBSCRIPTIONS_PER_USER`].
    pub callers: limiter::Options,
    /// What waits to be written: bodies, and 1 KiB for each write. Within
    /// [`Bounds::WRITE_QUEUE_BYTES`]. Default
    /// [`WRITE_QUEUE_BYTES_DEFAULT`](store::WRITE_QUEUE_BYTES_DEFAULT).
    pub write_queue_bytes: usize,
    /// What all connections together hold of requests and answers in transit. Within
    /// [`Bounds::HELD_BYTES_MAX`]. Default [`HELD_BYTES_DEFAULT`].
    pub held_bytes_max: usize,
    /// The calls that a connection has open at a time. Within [`Bounds::STREAMS_PER_CONNECTION`].
    /// Default [`STREAMS_PER_CONNECTION_DEFAULT`].
    pub streams_per_connection: u32,
    /// The connections at a time; more wait to be accepted. Within [`Bounds::CONNECTIONS_MAX`]. Default
    /// [`CONNECTIONS_MAX_DEFAULT`].
    pub connections_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            callers: limiter::Options::default(),
            write_queue_bytes: store::WRITE_QUEUE_BYTES_DEFAULT,
            held_bytes_max: HELD_BYTES_DEFAULT,
            streams_per_connection: STREAMS_PER_CONNECTION_DEFAULT,
            connections_max: CONNECTIONS_MAX_DEFAULT,
        }
    }
}

/// What a limit can be set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The limit's name.
    pub name: &'static str,
    /// The lowest that it can be.
    pub min: usize,
    /// The highest that it can be.
    pub max: usize,
}

impl Bounds {
    /// Of [`limiter::Options::subscriptions_per_user`].
    pub const SUBSCRIPTIONS_PER_USER: Self =
        Self { name: "subscriptions_per_user", min: 1, max: SUBSCRIPTIONS_PER_USER_CEILING };

    /// Of [`Limits::write_queue_bytes`]: the largest body has a place in it several times.
    pub const WRITE_QUEUE_BYTES: Self =
        Self { name: "write_queue_bytes", min: 4 * MIB, max: 64 * GIB };

    /// Of [`Limits::held_bytes_max`].
    pub const HELD_BYTES_MAX: Self = Self { name: "held_bytes_max", min: 8 * MIB, max: 64 * GIB };

    /// Of [`Limits::streams_per_connection`].
    pub const STREAMS_PER_CONNECTION: Self =
        Self { name: "streams_per_connection", min: 1, max: 4096 };

    /// Of [`Limits::connections_max`].
    pub const CONNECTIONS_MAX: Self = Self { name: "connections_max", min: 1, max: 1_000_000 };

    /// For the command line's parsers.
    pub fn range(self) -> RangeInclusive<u64> {
        self.min as u64..=self.max as u64
    }

    fn check(self, value: usize) -> Result<(), OutOfBounds> {
        if (self.min..=self.max).contains(&value) {
            Ok(())
        } else {
            Err(OutOfBounds { bounds: self, value })
        }
    }
}

/// A limit that cannot be set so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{} is {value}; it must be {} to {}", bounds.name, bounds.min, bounds.max)]
pub struct OutOfBounds {
    /// What it can be.
    pub bounds: Bounds,
    /// What it was to be.
    pub value: usize,
}

impl Limits {
    /// Holds each limit to its bounds.
    pub(super) fn check(&self) -> Result<(), OutOfBounds> {
        let streams = usize::try_from(self.streams_per_connection).unwrap_or(usize::MAX);
        Bounds::SUBSCRIPTIONS_PER_USER.check(self.callers.subscriptions_per_user.get())?;
        Bounds::WRITE_QUEUE_BYTES.check(self.write_queue_bytes)?;
        Bounds::HELD_BYTES_MAX.check(self.held_bytes_max)?;
        Bounds::STREAMS_PER_CONNECTION.check(streams)?;
        Bounds::CONNECTIONS_MAX.check(self.connections_max)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;

    use super::*;

    #[test]
    fn each_limit_keeps_to_its_bounds() {
        type Set = fn(&mut Limits, usize);
        let set: [(Bounds, Set); 5] = [
            (Bounds::SUBSCRIPTIONS_PER_USER, |limits, value| {
                let value = NonZero::new(value).unwrap_or(NonZero::<usize>::MAX);
                limits.callers.subscriptions_per_user = value;
            }),
            (Bounds::WRITE_QUEUE_BYTES, |limits, value| limits.write_queue_bytes = value),
            (Bounds::HELD_BYTES_MAX, |limits, value| limits.held_bytes_max = value),
            (Bounds::STREAMS_PER_CONNECTION, |limits, value| {
                limits.streams_per_connection = u32::try_from(value).expect("it fits");
            }),
            (Bounds::CONNECTIONS_MAX, |limits, value| limits.connections_max = value),
        ];
        assert_eq!(Limits::default().check(), Ok(()));
        for (bounds, set) in set {
            for (value, is_within) in [
                (bounds.min - 1, false),
                (bounds.min, true),
                (bounds.max, true),
                (bounds.max + 1, false),
            ] {
                let mut limits = Limits::default();
                set(&mut limits, value);
                assert_eq!(limits.check().is_ok(), is_within, "{} {value}", bounds.name);
            }
        }
    }
}
