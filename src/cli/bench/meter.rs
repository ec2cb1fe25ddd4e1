//! What is measured of a run: how many calls were done, how long each took, what failed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::schedule::Schedule;

/// Latencies beyond this are recorded as this.
const LATENCY_MAX: Duration = Duration::from_hours(1);

/// Latencies are kept to three digits.
const DIGITS: u8 = 3;

/// After so many failures in a row a run is given up.
const FAILURES_IN_A_ROW_MAX: u64 = 1_000;

/// Is told how long each call took, as it is done.
pub(super) type Observer = Box<dyn FnMut(Duration) + Send>;

/// Counts what the workers of a run do. Only what falls into the measured time counts.
pub(super) struct Meter {
    schedule: Arc<Schedule>,
    counts: Mutex<Counts>,
}

struct Counts {
    /// Of the calls due in the measured time, in nanoseconds.
    latencies: Histogram<u64>,
    /// Calls that ended in the measured time, whenever they began: what the rate is made of.
    ended: u64,
    last_end: Instant,
    failures: u64,
    failures_in_a_row: u64,
    first_failure: Option<String>,
    observer: Option<Observer>,
}

/// Latencies of a run, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
#[expect(clippy::struct_field_names, reason = "a number in JSON says its unit in its name")]
pub(super) struct Latency {
    pub(super) p50_ms: f64,
    pub(super) p90_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p999_ms: f64,
    pub(super) max_ms: f64,
}

/// What a run came to.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Figures {
    /// What was done and measured.
    pub(super) count: u64,
    pub(super) seconds: f64,
    pub(super) per_second: f64,
    pub(super) failures: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) first_failure: Option<String>,
    pub(super) latency: Option<Latency>,
    /// From which runs on the same thing are put together.
    #[serde(skip)]
    latencies: Histogram<u64>,
}

/// For figures, which nobody reads to 15 digits.
#[expect(clippy::cast_precision_loss, reason = "53 bits are enough for a figure")]
pub(super) fn float(number: u64) -> f64 {
    number as f64
}

/// An empty histogram of nanoseconds.
fn histogram() -> Histogram<u64> {
    let max = u64::try_from(LATENCY_MAX.as_nanos()).unwrap_or(u64::MAX);
    Histogram::new_with_max(max, DIGITS).expect("the bounds are constants that it accepts")
}

fn record(latencies: &mut Histogram<u64>, latency: Duration) {
    latencies.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
}

/// Latencies of which it is said elsewhere what they are of.
pub(super) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(histogram())
    }
}

impl Latencies {
    pub(super) fn record(&mut self, latency: Duration) {
        record(&mut self.0, latency);
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    /// `None` where there is none.
    pub(super) fn latency(&self) -> Option<Latency> {
        Latency::of(&self.0)
    }

    /// As of a run that took so long.
    pub(super) fn figures(&self, elapsed: Duration) -> Figures {
        Figures::new(self.0.len(), elapsed, self.0.clone())
    }
}

impl Latency {
    fn of(latencies: &Histogram<u64>) -> Option<Self> {
        let milliseconds = |nanos: u64| float(nanos) / 1e6;
        let at = |quantile| milliseconds(latencies.value_at_quantile(quantile));
        (!latencies.is_empty()).then(|| Self {
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: milliseconds(latencies.max()),
        })
    }
}

impl Figures {
    /// Of things done one after the other, each timed by itself.
    pub(super) fn of_durations(durations: &[Duration], done_in_each: u64) -> Self {
        let mut latencies = histogram();
        for duration in durations {
            record(&mut latencies, *duration);
        }
        let count = done_in_each * durations.len() as u64;
        Self::new(count, durations.iter().sum(), latencies)
    }

    /// Of a number of things done in a time, none of them timed.
    pub(super) fn of_count(count: u64, elapsed: Duration) -> Self {
        Self::new(count, elapsed, histogram())
    }

    fn new(count: u64, elapsed: Duration, latencies: Histogram<u64>) -> Self {
        let seconds = elapsed.as_secs_f64();
        Self {
            count,
            seconds,
            per_second: if seconds > 0.0 { float(count) / seconds } else { 0.0 },
            failures: 0,
            first_failure: None,
            latency: Latency::of(&latencies),
            latencies,
        }
    }

    /// The same, done side by side in this time.
    pub(super) fn within(self, elapsed: Duration) -> Self {
        Self::new(self.count, elapsed, self.latencies)
    }

    /// The same, with the failures of the calls that led to it.
    pub(super) fn after(mut self, calls: &Self) -> Self {
        self.failures += calls.failures;
        self.first_failure = self.first_failure.or_else(|| calls.first_failure.clone());
        self
    }

    /// This run and another of the same, as one.
    pub(super) fn and(self, other: &Self) -> Self {
        let mut latencies = self.latencies;
        latencies.add(&other.latencies).expect("both have the same bounds");
        let elapsed = Duration::from_secs_f64(self.seconds + other.seconds);
        Self {
            failures: self.failures + other.failures,
            first_failure: self.first_failure.or_else(|| other.first_failure.clone()),
            ..Self::new(self.count + other.count, elapsed, latencies)
        }
    }
}

impl Meter {
    pub(super) fn new(schedule: Arc<Schedule>) -> Self {
        Self::observed(schedule, None)
    }

    /// One that tells of each call.
    pub(super) fn observed(schedule: Arc<Schedule>, observer: Option<Observer>) -> Self {
        let counts = Counts {
            latencies: histogram(),
            ended: 0,
            last_end: schedule.start,
            failures: 0,
            failures_in_a_row: 0,
            first_failure: None,
            observer,
        };
        Self { schedule, counts: Mutex::new(counts) }
    }

    /// A call that was due at `arrival` is done now.
    pub(super) fn done(&self, arrival: Instant) {
        let now = Instant::now();
        let mut counts = self.counts();
        counts.failures_in_a_row = 0;
        if now >= self.schedule.measure_from && self.schedule.until.is_none_or(|until| now < until)
        {
            counts.ended += 1;
        }
        let latency = now.duration_since(arrival);
        if arrival >= self.schedule.measure_from {
            record(&mut counts.latencies, latency);
            counts.last_end = now;
        }
        if let Some(observe) = &mut counts.observer {
            observe(latency);
        }
    }

    /// A call failed.
    ///
    /// # Errors
    /// When so many failed in a row that it makes no sense to go on.
    pub(super) fn failed(&self, message: &str) -> anyhow::Result<()> {
        let mut counts = self.counts();
        counts.failures += 1;
        counts.failures_in_a_row += 1;
        counts.first_failure.get_or_insert_with(|| message.to_owned());
        anyhow::ensure!(
            counts.failures_in_a_row < FAILURES_IN_A_ROW_MAX,
            "{FAILURES_IN_A_ROW_MAX} calls failed in a row, the last with: {message}"
        );
        Ok(())
    }

    /// How many calls were measured until now.
    pub(super) fn measured(&self) -> u64 {
        self.counts().latencies.len()
    }

    /// What the run came to.
    pub(super) fn figures(&self) -> Figures {
        let counts = self.counts();
        // A run of a given duration is counted by what ended within it; a run of a given number of
        // calls by those, and ends with the last.
        let (count, end) = match self.schedule.until {
            Some(until) => (counts.ended, until),
            None => (counts.latencies.len(), counts.last_end),
        };
        let elapsed = end.saturating_duration_since(self.schedule.measure_from);
        let figures = Figures::new(count, elapsed, counts.latencies.clone());
        Figures {
            failures: counts.failures,
            first_failure: counts.first_failure.clone(),
            ..figures
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_two_runs_are_those_of_one() {
        let fast = Figures::of_durations(&[Duration::from_millis(1); 99], 1);
        let slow = Figures::of_durations(&[Duration::from_millis(901)], 1);
        let both = fast.and(&slow);
        assert_eq!(both.count, 100);
        assert!((both.per_second - 100.0).abs() < 1e-6, "{both:?}");
        let latency = both.latency.expect("latencies");
        assert!((latency.p50_ms - 1.0).abs() < 0.01, "{latency:?}");
        assert!((latency.max_ms - 901.0).abs() < 1.0, "{latency:?}");
    }

    #[test]
    fn nothing_done_has_no_latency() {
        let figures = Figures::of_count(0, Duration::ZERO);
        assert!(figures.latency.is_none());
        assert!(figures.per_second.abs() < f64::EPSILON);
    }
}
