use std::time::Duration;

/// Exponential backoff between two bounds, with jitter so that clients that failed together do not
/// come back together.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    jitter_seed: Option<u64>,
    failures: u32,
}

impl Backoff {
    /// Jitter from the operating system's randomness, or repeatable from a seed.
    pub(super) fn new(min: Duration, max: Duration, jitter_seed: Option<u64>) -> Self {
        Self { min, max: max.max(min), jitter_seed, failures: 0 }
    }

    /// How long to wait after one more failure; at least as long as the server asked for.
    pub(super) fn next_delay(&mut self, asked_for: Option<Duration>) -> Duration {
        let fraction = match self.jitter_seed {
            Some(seed) => seeded_fraction(seed.wrapping_add(self.failures.into())),
            None => random_fraction(),
        };
        let delay = self.delay(asked_for, fraction);
        self.failures = self.failures.saturating_add(1);
        delay
    }

    /// Something worked: the next failure starts again from the shortest wait.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The delay for a `fraction` in 0.0..1.0: from half of the exponential step to all of it, or
    /// what the server asked for and up to a quarter more.
    fn delay(&self, asked_for: Option<Duration>, fraction: f64) -> Duration {
        let doublings = self.failures.min(31);
        let step = self.min.saturating_mul(1 << doublings).min(self.max);
        let own = step.mul_f64(0.5 + fraction / 2.0);
        let told = asked_for.unwrap_or_default().mul_f64(1.0 + fraction / 4.0);
        own.max(told)
    }
}

/// A random number in 0.0..1.0; 0.5 should the operating system have no random bits.
fn random_fraction() -> f64 {
    getrandom::u32().map_or(0.5, to_fraction)
}

/// A number in 0.0..1.0 that depends on the seed alone. (`SplitMix64`, Steele et al. 2014)
fn seeded_fraction(seed: u64) -> f64 {
    let mut bits = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    to_fraction((bits >> 32) as u32)
}

fn to_fraction(bits: u32) -> f64 {
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(5);

    #[test]
    fn doubles_from_the_shortest_wait_to_the_longest() {
        let mut backoff = Backoff::new(MIN, MAX, None);
        let mut longest = Vec::new();
        for _ in 0..8 {
            longest.push(backoff.delay(None, 1.0).as_millis());
            backoff.next_delay(None);
        }
        assert_eq!(longest, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }

    #[test]
    fn jitter_takes_away_at_most_half() {
        let backoff = Backoff::new(MIN, MAX, None);
        assert_eq!(backoff.delay(None, 0.0), MIN / 2);
        for _ in 0..100 {
            let delay = backoff.clone().next_delay(None);
            assert!((MIN / 2..=MIN).contains(&delay), "{delay:?}");
        }
    }

    #[test]
    fn jitter_from_a_seed_can_be_repeated() {
        let delays = |seed| {
            let mut backoff = Backoff::new(MIN, MAX, Some(seed));
            [(); 8].map(|()| backoff.next_delay(None))
        };
        assert_eq!(delays(7), delays(7));
        assert_ne!(delays(7), delays(8));
        assert!((MIN / 2..=MIN).contains(&delays(7)[0]));
    }

    #[test]
    fn waits_as_long_as_the_server_asked_for() {
        let backoff = Backoff::new(MIN, MAX, None);
        let asked = Duration::from_secs(2);
        assert_eq!(backoff.delay(Some(asked), 0.0), asked);
        assert_eq!(backoff.delay(Some(asked), 1.0), asked + asked / 4);
        assert_eq!(backoff.delay(Some(Duration::from_millis(1)), 1.0), MIN);
    }

    #[test]
    fn starts_over_after_a_reset_and_never_overflows() {
        let mut backoff = Backoff::new(MIN, MAX, None);
        backoff.failures = u32::MAX;
        assert!(backoff.next_delay(None) <= MAX);
        backoff.reset();
        assert!(backoff.next_delay(None) <= MIN);
    }
}
