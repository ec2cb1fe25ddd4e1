//! What a server counts of itself, and the text in which Prometheus reads it.
//!
//! Counts are relaxed atomics in plain structs, and each part of the server owns its own: to count costs
//! a few nanoseconds, takes no lock and looks up no name, and servers in one process do not mix (the
//! crate `metrics` has one registry a process, and hashes a name and labels to find a counter). A page is
//! read count by count, so it is not of one moment.

use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

const NANOS_PER_SECOND: f64 = 1e9;

/// The upper bounds of the buckets of durations, in nanoseconds: half a millisecond to 10 seconds.
pub static DURATION_BOUNDS: [u64; 14] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number of things that come and go.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// One came.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One went.
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many there are.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often values lay within which bounds.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    /// Ascending; a value equal to a bound is within it.
    bounds: &'static [u64; N],
    counts: [AtomicU64; N],
    /// Of values above the last bound.
    beyond: AtomicU64,
    sum: AtomicU64,
    /// What one of the unit in which it is shown comes to.
    scale: f64,
}

/// A histogram of durations, shown in seconds.
pub type Durations = Histogram<14>;

impl Durations {
    /// Of durations, within [`DURATION_BOUNDS`].
    pub const fn of_durations() -> Self {
        Self::with(&DURATION_BOUNDS, NANOS_PER_SECOND)
    }

    /// Counts a duration.
    pub fn record_duration(&self, duration: Duration) {
        self.record(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }
}

impl<const N: usize> Histogram<N> {
    /// Of plain numbers, within these bounds.
    pub const fn of_numbers(bounds: &'static [u64; N]) -> Self {
        Self::with(bounds, 1.0)
    }

    const fn with(bounds: &'static [u64; N], scale: f64) -> Self {
        let counts = [const { AtomicU64::new(0) }; N];
        Self { bounds, counts, beyond: AtomicU64::new(0), sum: AtomicU64::new(0), scale }
    }

    /// Counts a value.
    pub fn record(&self, value: u64) {
        let within = self.bounds.iter().position(|bound| value <= *bound);
        let count = within.map_or(&self.beyond, |at| &self.counts[at]);
        count.fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().chain([&self.beyond]).map(|it| it.load(Ordering::Relaxed)).sum()
    }

    #[expect(clippy::cast_precision_loss, reason = "shown to people, to 15 digits")]
    fn shown(&self, value: u64) -> f64 {
        value as f64 / self.scale
    }
}

/// What a family of metrics shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Numbers that only grow.
    Counter,
    /// Numbers that go up and down.
    Gauge,
    /// Histograms.
    Histogram,
}

/// The names and values of labels.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// A page of metrics in Prometheus's text format, version 0.0.4.
#[derive(Debug, Default)]
pub struct Page(String);

/// A metric by its name, of which samples are being written.
pub struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Page {
    /// The media type of the text.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// Begins a family. `help` is one line of plain text; a name is used once a page.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        write(&mut self.0, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Family { text: &mut self.0, name }
    }

    /// A family of one counter.
    pub fn counter(&mut self, name: &'static str, help: &str, value: impl Display) {
        self.family(name, Kind::Counter, help).sample(&[], value);
    }

    /// A family of one gauge.
    pub fn gauge(&mut self, name: &'static str, help: &str, value: impl Display) {
        self.family(name, Kind::Gauge, help).sample(&[], value);
    }

    /// A family of one histogram.
    pub fn histogram<const N: usize>(
        &mut self,
        name: &'static str,
        help: &str,
        histogram: &Histogram<N>,
    ) {
        self.family(name, Kind::Histogram, help).histogram(&[], histogram);
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// Adds a sample with these labels.
    pub fn sample(&mut self, labels: Labels<'_>, value: impl Display) -> &mut Self {
        self.line("", labels, None, value);
        self
    }

    /// Adds a histogram with these labels.
    pub fn histogram<const N: usize>(
        &mut self,
        labels: Labels<'_>,
        histogram: &Histogram<N>,
    ) -> &mut Self {
        let mut total = 0;
        for (bound, count) in histogram.bounds.iter().zip(&histogram.counts) {
            total += count.load(Ordering::Relaxed);
            self.line("_bucket", labels, Some(&histogram.shown(*bound).to_string()), total);
        }
        // Not read again: the buckets of a page have to fit its count.
        total += histogram.beyond.load(Ordering::Relaxed);
        let sum = histogram.shown(histogram.sum.load(Ordering::Relaxed));
        self.line("_bucket", labels, Some("+Inf"), total);
        self.line("_sum", labels, None, sum);
        self.line("_count", labels, None, total);
        self
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, bound: Option<&str>, value: impl Display) {
        write(self.text, format_args!("{}{suffix}", self.name));
        let mut before = '{';
        for (name, value) in labels.iter().copied().chain(bound.map(|bound| ("le", bound))) {
            write(self.text, format_args!("{before}{name}=\"{}\"", escaped(value)));
            before = ',';
        }
        let end = if before == ',' { "}" } else { "" };
        write(self.text, format_args!("{end} {value}\n"));
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn write(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // A String takes everything.
    let _ = text.write_fmt(arguments);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_as_prometheus_reads_it() {
        static BOUNDS: [u64; 2] = [1, 10];
        let (counter, gauge, sizes) =
            (Counter::default(), Gauge::default(), Histogram::of_numbers(&BOUNDS));
        counter.add(2);
        gauge.increment();
        gauge.decrement();
        gauge.decrement();
        for size in [1, 2, 10, 11] {
            sizes.record(size);
        }
        let mut page = Page::default();
        page.counter("sent_total", "What was sent.", counter.get());
        page.gauge("there", "Who is there.", gauge.get());
        page.family("sizes", Kind::Histogram, "Sizes.").histogram(&[("of", "a\"\\\n")], &sizes);
        let expected = r#"# HELP sent_total What was sent.
# TYPE sent_total counter
sent_total 2
# HELP there Who is there.
# TYPE there gauge
there -1
# HELP sizes Sizes.
# TYPE sizes histogram
sizes_bucket{of="a\"\\\n",le="1"} 1
sizes_bucket{of="a\"\\\n",le="10"} 3
sizes_bucket{of="a\"\\\n",le="+Inf"} 4
sizes_sum{of="a\"\\\n"} 24
sizes_count{of="a\"\\\n"} 4
"#;
        assert_eq!(page.into_text(), expected);
    }

    #[test]
    fn durations_are_shown_in_seconds() {
        let durations = Durations::of_durations();
        durations.record_duration(Duration::from_micros(500));
        durations.record_duration(Duration::from_millis(1_500));
        let mut page = Page::default();
        page.histogram("took_seconds", "How long it took.", &durations);
        let text = page.into_text();
        for line in [
            "took_seconds_bucket{le=\"0.0005\"} 1",
            "took_seconds_bucket{le=\"1\"} 1",
            "took_seconds_bucket{le=\"2.5\"} 2",
            "took_seconds_sum 1.5005",
            "took_seconds_count 2",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
        }
        assert_eq!(durations.count(), 2);
    }
}
