//! When calls are made: as fast as answers come, or at a rate that waits for nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::Semaphore;

use super::meter::float;
use super::options::{Extent, Load};

/// How late the timer may fire before its lateness counts as the system's and not as its own.
const TIMER_SLACK: Duration = Duration::from_millis(1);

/// Hands out the moments at which calls are to be made. Shared by all workers.
pub(super) struct Schedule {
    /// When the run began.
    pub(super) start: Instant,
    /// When the warm-up ended.
    pub(super) measure_from: Instant,
    /// When no more calls are made, unless a count ends the run.
    pub(super) until: Option<Instant>,
    /// How many calls to make after the warm-up.
    count: u64,
    tickets: AtomicU64,
    pacer: Option<Pacer>,
}

impl Schedule {
    /// The schedule of a run that begins now.
    pub(super) fn begin(load: &Load) -> anyhow::Result<Self> {
        let start = Instant::now();
        let measure_from = start + load.warm_up;
        let (until, count) = match load.extent {
            Extent::Duration(duration) => (Some(measure_from + duration), u64::MAX),
            Extent::Count(count) => (None, count),
        };
        let pacer = load.rate.map(|rate| Pacer::start(start, rate)).transpose()?;
        Ok(Self { start, measure_from, until, count, tickets: AtomicU64::new(0), pacer })
    }

    /// Waits until the next call is due: the moment from which its latency counts. `None`: the run
    /// is over.
    pub(super) async fn next(&self) -> Option<Instant> {
        match &self.pacer {
            None => self.next_at_once(),
            Some(pacer) => self.next_paced(pacer).await,
        }
    }

    fn next_at_once(&self) -> Option<Instant> {
        let now = Instant::now();
        let is_over = match self.until {
            Some(until) => now >= until,
            None if now < self.measure_from => false,
            None => self.tickets.fetch_add(1, Ordering::Relaxed) >= self.count,
        };
        (!is_over).then_some(now)
    }

    /// The n-th call is due at its place in the rate, whether or not a worker is free then. A worker
    /// that comes late counts from the intended moment: what waited for an answer of the server
    /// waited, and leaving it out would be coordinated omission.
    async fn next_paced(&self, pacer: &Pacer) -> Option<Instant> {
        let intended = pacer.moment(self.tickets.fetch_add(1, Ordering::Relaxed));
        let last = self.until.unwrap_or_else(|| {
            self.measure_from + Duration::from_secs_f64(float(self.count) / pacer.rate)
        });
        if intended >= last {
            return None;
        }
        let is_free_in_time = Instant::now() < intended;
        pacer.due.acquire().await.ok()?.forget();
        let now = Instant::now();
        // The timer's own lateness is not the server's.
        let punctual = is_free_in_time && now.duration_since(intended) <= TIMER_SLACK;
        Some(if punctual { now.max(intended) } else { intended })
    }
}

/// Releases calls at a rate. A thread of its own, since the runtime's timer counts in milliseconds
/// and its thread may be busy.
struct Pacer {
    start: Instant,
    rate: f64,
    due: Arc<Semaphore>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pacer {
    fn start(start: Instant, rate: f64) -> anyhow::Result<Self> {
        let (due, stop) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicBool::new(false)));
        let release = {
            let (due, stop) = (Arc::clone(&due), Arc::clone(&stop));
            move || {
                let mut released = 0;
                while !stop.load(Ordering::Relaxed) {
                    let next = moment(start, rate, released);
                    let now = Instant::now();
                    if next <= now {
                        due.add_permits(1);
                        released += 1;
                    } else {
                        std::thread::park_timeout(next - now);
                    }
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("bench-pacer".into())
            .spawn(release)
            .context("cannot start the thread that keeps the rate")?;
        Ok(Self { start, rate, due, stop, thread: Some(thread) })
    }

    fn moment(&self, ticket: u64) -> Instant {
        moment(self.start, self.rate, ticket)
    }
}

fn moment(start: Instant, rate: f64, ticket: u64) -> Instant {
    start + Duration::from_secs_f64(float(ticket) / rate)
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It cannot panic.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::meter::Meter;

    fn paced(rate: f64, count: u64) -> Load {
        let extent = Extent::Count(count);
        Load { extent, rate: Some(rate), warm_up: Duration::ZERO, ..Load::default() }
    }

    /// A server that hangs once for 200 ms, called by one worker at 1,000 calls a second: 200 calls
    /// were due meanwhile and waited 100 ms on average. Counted from when it could at last be made,
    /// each but the first would seem to have taken no time.
    #[tokio::test]
    async fn what_waits_for_a_hanging_server_counts_as_waiting() {
        let schedule = Arc::new(Schedule::begin(&paced(1_000.0, 400)).expect("begins"));
        let meter = Meter::new(Arc::clone(&schedule));
        let mut calls = 0;
        while let Some(arrival) = schedule.next().await {
            if calls == 100 {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            calls += 1;
            meter.done(arrival);
        }
        let figures = meter.figures();
        assert_eq!((calls, figures.count), (400, 400));
        let latency = figures.latency.expect("latencies");
        assert!(latency.max_ms >= 190.0, "{latency:?}");
        assert!(latency.p90_ms >= 80.0, "{latency:?}");
        assert!(latency.p50_ms < latency.p90_ms, "{latency:?}");
    }

    #[tokio::test]
    async fn a_rate_is_kept() {
        let schedule = Schedule::begin(&paced(2_000.0, 400)).expect("begins");
        let mut calls = 0;
        while schedule.next().await.is_some() {
            calls += 1;
        }
        assert_eq!(calls, 400);
        let elapsed = schedule.start.elapsed();
        assert!(elapsed >= Duration::from_millis(190), "{elapsed:?}");
    }

    #[tokio::test]
    async fn a_count_is_kept_without_a_rate() {
        let load = Load { rate: None, ..paced(1.0, 25) };
        let schedule = Schedule::begin(&load).expect("begins");
        let mut calls = 0;
        while schedule.next().await.is_some() {
            calls += 1;
        }
        assert_eq!(calls, 25);
    }
}
