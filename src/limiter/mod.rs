//! Who may do how much: rates of sending and registering, subscriptions; for everybody, and for single
//! users.
//!
//! It decides and counts; those who ask it refuse. Nothing here waits, and nothing is looked up: what is
//! set for single users is in memory, all of it.

mod buckets;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use thiserror::Error;

use self::buckets::{Buckets, Quota};
use crate::domain::limits::{SUBSCRIPTIONS_PER_USER_DEFAULT, USERS_WITH_LIMITS_MAX};
use crate::domain::{Rate, RateLimit, UserId, UserLimits};
use crate::metrics::Counter;

/// The users whose sends are remembered: about 30 bytes each. Of more, those who sent least lately are
/// as if they had not sent.
const SENDERS_REMEMBERED_MAX: usize = 262_144;

/// The addresses whose registrations are remembered, as users are.
const ADDRESSES_REMEMBERED_MAX: usize = 65_536;

/// The names that an address can register at once and in an hour: an office behind one address gets
/// its people in on a day, and a program that takes all names does not get far.
pub const REGISTRATIONS_PER_HOUR_DEFAULT: &str = "100/h";

/// The limits for everybody.
#[derive(Debug, Clone)]
pub struct Options {
    /// How fast a user may send. Default: as fast as they like.
    pub send_rate_per_user: RateLimit,
    /// How many messages a user may send at once after a while without any. Default: the rate's count.
    pub send_burst_per_user: Option<NonZero<u32>>,
    /// How many names may be registered from an address; of IPv6, from a network of 64 bits. This
    /// machine's own addresses and Unix sockets are exempt. Default
    /// [`REGISTRATIONS_PER_HOUR_DEFAULT`].
    pub registration_rate_per_address: RateLimit,
    /// How many subscriptions a user may have open. Default [`SUBSCRIPTIONS_PER_USER_DEFAULT`].
    pub subscriptions_per_user: NonZero<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            send_rate_per_user: RateLimit::Unlimited,
            send_burst_per_user: None,
            registration_rate_per_address: REGISTRATIONS_PER_HOUR_DEFAULT
                .parse()
                .unwrap_or(RateLimit::Unlimited),
            subscriptions_per_user: NonZero::new(SUBSCRIPTIONS_PER_USER_DEFAULT)
                .unwrap_or(NonZero::<usize>::MIN),
        }
    }
}

/// More than a rate allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("more than {rate} with {burst} at once; the next in {retry_after:?}")]
pub struct RateExceeded {
    /// The rate.
    pub rate: Rate,
    /// How many may be at once.
    pub burst: NonZero<u32>,
    /// When there is room for one more.
    pub retry_after: Duration,
}

/// Limits of their own are set for as many users as can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "is one too many: limits of their own are set for {USERS_WITH_LIMITS_MAX} users, as many as can be"
)]
pub struct TooManyUsersWithLimits;

/// The limits, and what was used of them. Cloning gives another handle.
#[derive(Clone)]
pub struct Limiter(Arc<Inner>);

struct Inner {
    options: Options,
    clock: Clock,
    /// Whether anybody's sends are limited: all that a send asks where nobody's are.
    are_sends_limited: AtomicBool,
    sends: Buckets<UserId>,
    registrations: Buckets<Network>,
    of_users: RwLock<HashMap<UserId, UserLimits>>,
    sends_refused: Counter,
    registrations_refused: Counter,
}

/// What registrations are counted by: an IPv4 address, or the 64 bits of an IPv6 address that name a
/// network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Network {
    V4(u32),
    V6(u64),
}

impl Network {
    /// `None` for this machine's own addresses.
    fn of(address: IpAddr) -> Option<Self> {
        let address = address.to_canonical();
        if address.is_loopback() {
            return None;
        }
        Some(match address {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            // What is left has 64 bits.
            IpAddr::V6(address) => {
                Self::V6(u64::try_from(address.to_bits() >> 64).unwrap_or(u64::MAX))
            }
        })
    }
}

enum Clock {
    Since(Instant),
    #[cfg(test)]
    Manual(Arc<std::sync::atomic::AtomicU64>),
}

impl Clock {
    fn nanos(&self) -> u64 {
        match self {
            Self::Since(start) => u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX),
            #[cfg(test)]
            Self::Manual(nanos) => nanos.load(Ordering::Relaxed),
        }
    }
}

/// A registration that is let through.
#[must_use]
pub struct Registering {
    limiter: Limiter,
    from: Option<(Network, Quota)>,
}

impl Registering {
    /// It came to no new name: it does not count.
    pub fn give_back(self) {
        if let Some((network, quota)) = self.from {
            self.limiter.0.registrations.give_back(network, quota);
        }
    }
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new(Options::default())
    }
}

impl Limiter {
    /// With these limits, and none for single users.
    pub fn new(options: Options) -> Self {
        Self::with_clock(options, Clock::Since(Instant::now()))
    }

    fn with_clock(options: Options, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            are_sends_limited: AtomicBool::new(options.send_rate_per_user.rate().is_some()),
            options,
            clock,
            sends: Buckets::new(SENDERS_REMEMBERED_MAX),
            registrations: Buckets::new(ADDRESSES_REMEMBERED_MAX),
            of_users: RwLock::default(),
            sends_refused: Counter::default(),
            registrations_refused: Counter::default(),
        }))
    }

    /// The limits for everybody.
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// Lets a user send one message.
    ///
    /// # Errors
    /// [`RateExceeded`] when they may not yet.
    #[inline]
    pub fn admit_send(&self, user: UserId) -> Result<(), RateExceeded> {
        if self.0.are_sends_limited.load(Ordering::Relaxed) {
            self.admit_limited_send(user)
        } else {
            Ok(())
        }
    }

    fn admit_limited_send(&self, user: UserId) -> Result<(), RateExceeded> {
        let Some((rate, burst)) = self.send_rate(&self.of_user(user)) else { return Ok(()) };
        let taken = self.0.sends.take(user, Quota::new(rate, burst), self.0.clock.nanos());
        taken.map_err(|wait| {
            self.0.sends_refused.increment();
            RateExceeded { rate, burst, retry_after: Duration::from_nanos(wait.get()) }
        })
    }

    /// Lets a name be registered from this address; `None` for a caller over a Unix socket.
    ///
    /// # Errors
    /// [`RateExceeded`] when it may not yet.
    pub fn admit_registration(&self, from: Option<IpAddr>) -> Result<Registering, RateExceeded> {
        let rate = self.0.options.registration_rate_per_address.rate();
        let Some((network, rate)) = from.and_then(Network::of).zip(rate) else {
            return Ok(Registering { limiter: self.clone(), from: None });
        };
        let (burst, now) = (rate.count(), self.0.clock.nanos());
        let quota = Quota::new(rate, burst);
        let taken = self.0.registrations.take(network, quota, now);
        let retry_after = |wait: NonZero<u64>| Duration::from_nanos(wait.get());
        taken.map_err(|wait| RateExceeded { rate, burst, retry_after: retry_after(wait) })?;
        Ok(Registering { limiter: self.clone(), from: Some((network, quota)) })
    }

    /// Counts a registration as refused: a name that is there is not refused for its rate.
    pub fn registration_refused(&self) {
        self.0.registrations_refused.increment();
    }

    /// How many subscriptions a user may have open.
    pub fn subscriptions(&self, user: UserId) -> NonZero<usize> {
        let own = self.of_user(user).subscriptions;
        own.unwrap_or(self.0.options.subscriptions_per_user)
    }

    /// The rate of sending, and how many at once, of one for whom this is set; `None`: unlimited.
    pub fn send_rate(&self, own: &UserLimits) -> Option<(Rate, NonZero<u32>)> {
        let options = &self.0.options;
        let rate = own.send_rate.unwrap_or(options.send_rate_per_user).rate()?;
        // Who has a rate of their own is not held to a burst that was meant for another.
        let for_all = options.send_burst_per_user.filter(|_| own.send_rate.is_none());
        Some((rate, own.send_burst.or(for_all).unwrap_or(rate.count())))
    }

    /// What is set for a user alone.
    pub fn of_user(&self, user: UserId) -> UserLimits {
        self.users().get(&user).copied().unwrap_or_default()
    }

    /// Whether something can be set for this user: not when it is for too many already.
    ///
    /// # Errors
    /// [`TooManyUsersWithLimits`].
    pub fn has_room_for(&self, user: UserId) -> Result<(), TooManyUsersWithLimits> {
        let users = self.users();
        let has_room = users.len() < USERS_WITH_LIMITS_MAX || users.contains_key(&user);
        if has_room { Ok(()) } else { Err(TooManyUsersWithLimits) }
    }

    /// Sets what holds for a user alone, at once. What they sent before is forgotten.
    pub fn set(&self, user: UserId, own: UserLimits) {
        let mut users = self.users_to_change();
        if own.is_empty() {
            users.remove(&user);
        } else {
            users.insert(user, own);
        }
        let is_limited = |it: Option<RateLimit>| it.is_some_and(|it| it.rate().is_some());
        let any = is_limited(Some(self.0.options.send_rate_per_user))
            || users.values().any(|own| is_limited(own.send_rate));
        self.0.are_sends_limited.store(any, Ordering::Relaxed);
        drop(users);
        self.0.sends.forget(user);
    }

    /// How often a limit was refused, by its name.
    pub fn refusals(&self) -> [(&'static str, u64); 2] {
        [
            ("send_rate_per_user", self.0.sends_refused.get()),
            ("registration_rate_per_address", self.0.registrations_refused.get()),
        ]
    }

    fn users(&self) -> RwLockReadGuard<'_, HashMap<UserId, UserLimits>> {
        // No guarded section leaves the map half-changed, so a panic in one spoils nothing.
        self.0.of_users.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn users_to_change(&self) -> RwLockWriteGuard<'_, HashMap<UserId, UserLimits>> {
        self.0.of_users.write().unwrap_or_else(PoisonError::into_inner)
    }
}
