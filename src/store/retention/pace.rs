use std::time::Duration;

/// How long retention rests while messages come, as a multiple of how long it worked.
const REST: u32 = 7;

/// The longest rest.
const REST_MAX: Duration = Duration::from_millis(50);

/// Leaves most of the time to those who send.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The messages that were stored when it was asked the last time.
    stored: i64,
}

impl Pace {
    /// How long to rest after working for so long, when so many messages are stored.
    pub(super) fn rest(&mut self, worked: Duration, stored: i64) -> Duration {
        let others_send = std::mem::replace(&mut self.stored, stored) != stored;
        if others_send { (worked * REST).min(REST_MAX) } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_only_while_messages_come_and_never_for_long() {
        let mut pace = Pace::default();
        let millis = Duration::from_millis;
        assert_eq!(pace.rest(millis(2), 1), millis(14));
        assert_eq!(pace.rest(millis(2), 1), Duration::ZERO);
        assert_eq!(pace.rest(millis(2_000), 2), REST_MAX);
    }
}
