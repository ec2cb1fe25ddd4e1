use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment by the server's clock, in microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(i64);

const MICROS_PER_SECOND: i64 = 1_000_000;

impl Timestamp {
    /// The present. A clock set before 1970 reads as 1970.
    pub fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
    }

    /// From microseconds since the Unix epoch.
    pub fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// So long after this.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// So long before this.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Microseconds since the Unix epoch.
    pub fn as_micros(self) -> i64 {
        self.0
    }

    /// How long it is until this time; `None` when it has come.
    pub fn until_then(self) -> Option<Duration> {
        let micros = self.0.saturating_sub(Self::now().0);
        u64::try_from(micros).ok().filter(|micros| *micros > 0).map(Duration::from_micros)
    }

    /// This long after it; the last time there is, at most.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros))
    }

    /// As RFC 3339, to the second: `2026-01-31T12:34:56Z`.
    pub fn to_rfc3339(self) -> String {
        let (seconds, _) = self.as_seconds_and_nanos();
        let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
        time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// Whole seconds since the Unix epoch, and the nanoseconds (0 to 999,999,999) after them.
    pub fn as_seconds_and_nanos(self) -> (i64, i32) {
        let nanos = self.0.rem_euclid(MICROS_PER_SECOND) * 1000;
        // At most 999,999,000, which fits.
        (self.0.div_euclid(MICROS_PER_SECOND), i32::try_from(nanos).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_into_seconds_and_nanos_on_both_sides_of_1970() {
        assert_eq!(Timestamp::from_micros(1_500_000).as_seconds_and_nanos(), (1, 500_000_000));
        assert_eq!(Timestamp::from_micros(-1).as_seconds_and_nanos(), (-1, 999_999_000));
    }
}
