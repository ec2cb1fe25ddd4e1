//! How often something may be done, as an operator writes it.

use std::fmt;
use std::num::NonZero;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use super::limits::RATE_COUNT_MAX;

/// What stands for no limit.
const UNLIMITED: &str = "unlimited";

/// The units of time, and their lengths in seconds.
const UNITS: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3600), ('d', 24 * 3600)];

/// So many in so much time: `10/s`, `600/m`, `100/h`, `1000/d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    count: NonZero<u32>,
    unit: char,
    period: Duration,
}

/// At most at a rate, or as often as one likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateLimit {
    /// As often as one likes: `unlimited`.
    Unlimited,
    /// At this rate.
    At(Rate),
}

/// A text is not a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RateError {
    /// Not a number, a slash and a unit.
    #[error("is not a rate, such as 10/s, 600/m, 100/h or 1000/d")]
    Malformed,
    /// None, or more than there can be.
    #[error("has a count outside of 1 to {RATE_COUNT_MAX}; no limit is written `unlimited`")]
    Count,
}

/// What is set for one user, beside what holds for everybody. `None`: as for everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UserLimits {
    /// How fast they may send.
    pub send_rate: Option<RateLimit>,
    /// How many messages they may send at once after a while without any.
    pub send_burst: Option<NonZero<u32>>,
    /// How many subscriptions they may have open.
    pub subscriptions: Option<NonZero<usize>>,
}

impl Rate {
    /// Parses a count, a slash and a unit of time.
    ///
    /// # Errors
    /// [`RateError`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self, RateError> {
        let (count, unit) = text.split_once('/').ok_or(RateError::Malformed)?;
        let (unit, seconds) = UNITS
            .into_iter()
            .find(|(name, _)| unit.chars().eq([*name]))
            .ok_or(RateError::Malformed)?;
        if count.is_empty() || !count.bytes().all(|it| it.is_ascii_digit()) {
            return Err(RateError::Malformed);
        }
        let count = count.parse().ok().filter(|count: &NonZero<u32>| count.get() <= RATE_COUNT_MAX);
        let count = count.ok_or(RateError::Count)?;
        Ok(Self { count, unit, period: Duration::from_secs(seconds) })
    }

    /// How many.
    pub fn count(&self) -> NonZero<u32> {
        self.count
    }

    /// The time from one to the next, in nanoseconds; rounded up, so that there are never more.
    pub fn interval_nanos(&self) -> u64 {
        let period = u64::try_from(self.period.as_nanos()).unwrap_or(u64::MAX);
        period.div_ceil(self.count.get().into())
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.unit)
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        Self::parse(text)
    }
}

impl RateLimit {
    /// The rate, if there is one.
    pub fn rate(self) -> Option<Rate> {
        match self {
            Self::Unlimited => None,
            Self::At(rate) => Some(rate),
        }
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str(UNLIMITED),
            Self::At(rate) => rate.fmt(f),
        }
    }
}

impl FromStr for RateLimit {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        if text == UNLIMITED { Ok(Self::Unlimited) } else { Rate::parse(text).map(Self::At) }
    }
}

impl UserLimits {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_count_and_a_unit_of_time() {
        let rates = [
            ("1/s", 1_000_000_000),
            ("10/s", 100_000_000),
            ("1000000/s", 1_000),
            ("600/m", 100_000_000),
            ("100/h", 36_000_000_000),
            ("1/d", 86_400_000_000_000),
        ];
        for (text, nanos) in rates {
            let rate = Rate::parse(text).expect(text);
            assert_eq!((rate.interval_nanos(), rate.to_string().as_str()), (nanos, text));
            assert_eq!(text.parse(), Ok(RateLimit::At(rate)));
        }
        assert_eq!("unlimited".parse(), Ok(RateLimit::Unlimited));
        assert_eq!(RateLimit::Unlimited.to_string(), "unlimited");
    }

    #[test]
    fn there_are_never_more_than_the_rate_says() {
        let third = Rate::parse("3/s").expect("a rate");
        assert_eq!(third.interval_nanos(), 333_333_334);
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        use RateError as E;
        let refused = [
            ("", E::Malformed),
            ("10", E::Malformed),
            ("/s", E::Malformed),
            ("10/", E::Malformed),
            ("10/w", E::Malformed),
            ("10/ss", E::Malformed),
            ("10/S", E::Malformed),
            ("10 /s", E::Malformed),
            (" 10/s", E::Malformed),
            ("+10/s", E::Malformed),
            ("-1/s", E::Malformed),
            ("1.5/s", E::Malformed),
            ("Unlimited", E::Malformed),
            ("off", E::Malformed),
            ("0", E::Malformed),
            ("0/s", E::Count),
            ("1000001/s", E::Count),
            ("99999999999999999999/s", E::Count),
        ];
        for (text, error) in refused {
            assert_eq!(text.parse::<RateLimit>(), Err(error), "{text:?}");
        }
    }
}
