//! What is printed at the end: tables for people, JSON for programs.

use serde::Serialize;

use super::mailboxes::IdleMemory;
use super::merge::Slice;
use super::meter::Figures;
use super::options::{Load, Sweep, TargetId, Workload};
use crate::version::VERSION_AND_COMMIT;

/// Where it was measured.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    pub(super) version: &'static str,
    pub(super) cores: usize,
    pub(super) operating_system: &'static str,
    pub(super) architecture: &'static str,
    /// Of the temporary folder, when there is one.
    pub(super) file_system: Option<String>,
    /// An unoptimised build measures nothing of interest.
    pub(super) is_optimised: bool,
}

impl Machine {
    pub(super) fn this(file_system: Option<String>) -> Self {
        Self {
            version: VERSION_AND_COMMIT,
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            operating_system: std::env::consts::OS,
            architecture: std::env::consts::ARCH,
            file_system,
            is_optimised: !cfg!(debug_assertions),
        }
    }

    fn line(&self) -> String {
        let Self { version, cores, operating_system, architecture, .. } = self;
        let disk = self.file_system.as_deref().unwrap_or("unknown");
        let warning = if self.is_optimised { "" } else { "; NOT OPTIMISED, build with --release" };
        format!(
            "peerpost {version}, {cores} cores shared by all, {operating_system} {architecture}, \
             file system {disk}{warning}"
        )
    }
}

/// One thing that was measured.
#[derive(Debug, Serialize)]
pub(super) struct Measurement {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) figures: Figures,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory: Option<IdleMemory>,
}

impl Measurement {
    pub(super) fn new(name: impl Into<String>, figures: Figures) -> Self {
        Self { name: name.into(), figures, memory: None }
    }
}

/// A limit, and the result as a ratio of it.
#[derive(Debug, Serialize)]
pub(super) struct Ceiling {
    #[serde(flatten)]
    pub(super) measurement: Measurement,
    /// The result's rate by the limit's; at a given rate its median latency by the limit's; for
    /// memory its bytes by the limit's.
    pub(super) ratio: Option<f64>,
}

/// A run of one workload.
#[derive(Debug, Serialize)]
pub(super) struct Single {
    pub(super) machine: Machine,
    pub(super) workload: Workload,
    pub(super) load: Load,
    pub(super) result: Measurement,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) ceilings: Vec<Ceiling>,
}

/// A run of everything.
#[derive(Debug, Serialize)]
pub(super) struct Suite {
    pub(super) machine: Machine,
    pub(super) seconds: f64,
    #[serde(flatten)]
    pub(super) findings: Findings,
}

/// What was found out.
#[derive(Debug, Default, Serialize)]
pub(super) struct Findings {
    pub(super) targets: Vec<Target>,
    pub(super) measurements: Vec<Measurement>,
    pub(super) notes: Vec<String>,
}

/// One thing measured again and again while another grew.
#[derive(Debug, Serialize)]
pub(super) struct Swept {
    pub(super) machine: Machine,
    pub(super) seconds: f64,
    pub(super) sweep: Sweep,
    pub(super) points: Vec<Point>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) slices: Vec<Slice>,
}

/// A point of a line in a plot.
#[derive(Debug, Serialize)]
pub(super) struct Point {
    /// What had grown, as a number.
    pub(super) x: f64,
    #[serde(flatten)]
    pub(super) measurement: Measurement,
}

/// What a target asks of a ratio or a number.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// More than nothing, and at most this.
    SomeAtMost(f64),
}

/// A row of the table of targets.
#[derive(Debug, Serialize)]
pub(super) struct Target {
    pub(super) id: TargetId,
    pub(super) what: String,
    /// `None`: could not be measured.
    pub(super) measured: Option<String>,
    pub(super) ceiling: Option<String>,
    /// What the bound is held against.
    pub(super) value: Option<f64>,
    pub(super) bound: Bound,
    pub(super) met: Option<bool>,
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
            Self::SomeAtMost(most) => value > 0.0 && value <= most,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(least) => format!("≥ {least}"),
            Self::AtMost(most) => format!("≤ {most}"),
            Self::SomeAtMost(most) => format!("> 0, ≤ {most}"),
        }
    }
}

impl Target {
    /// A target for the ratio of two numbers.
    pub(super) fn ratio(
        id: TargetId,
        what: impl Into<String>,
        (measured, ceiling): (Option<f64>, Option<f64>),
        show: impl Fn(f64) -> String,
        bound: Bound,
    ) -> Self {
        let value = measured.zip(ceiling).and_then(|(measured, ceiling)| ratio(measured, ceiling));
        let row = Self::number(id, what, value, &show, bound);
        Self { measured: measured.map(&show), ceiling: ceiling.map(&show), ..row }
    }

    /// A target for a number by itself.
    pub(in crate::cli) fn number(
        id: TargetId,
        what: impl Into<String>,
        value: Option<f64>,
        show: impl Fn(f64) -> String,
        bound: Bound,
    ) -> Self {
        Self {
            id,
            what: what.into(),
            measured: value.map(show),
            ceiling: None,
            value,
            bound,
            met: value.map(|value| bound.holds(value)),
        }
    }
}

/// `measured` by `ceiling`; `None` where there is nothing to divide by.
pub(super) fn ratio(measured: f64, ceiling: f64) -> Option<f64> {
    (ceiling > 0.0).then(|| measured / ceiling)
}

impl Single {
    pub(super) fn text(&self) -> String {
        let mut lines = vec![self.machine.line(), String::new()];
        let mut rows = vec![heading(&self.result)];
        rows.push(row(&self.result, None));
        rows.extend(self.ceilings.iter().map(|c| row(&c.measurement, c.ratio)));
        lines.push(table(&rows));
        lines.extend(failures(std::iter::once(&self.result)));
        lines.join("\n")
    }
}

impl Swept {
    pub(super) fn text(&self) -> String {
        let mut rows = vec![latency_heading()];
        rows.extend(self.points.iter().map(|point| {
            let mut row = latency_row(&point.measurement);
            row[0] = format!("{}: {}", row[0], number(point.x));
            row
        }));
        let mut lines = vec![self.machine.line(), String::new(), table(&rows), String::new()];
        lines.extend(failures(self.points.iter().map(|point| &point.measurement)));
        lines.push(format!("- took {:.0} s", self.seconds));
        lines.join("\n")
    }
}

impl Suite {
    pub(super) fn text(&self) -> String {
        let findings = &self.findings;
        let mut lines = vec![self.machine.line(), String::new()];
        let mut rows = vec![cells(["", "what", "measured", "ceiling", "ratio", "target", "met"])];
        rows.extend(findings.targets.iter().map(|target| {
            let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| NONE.into());
            let shown = target.value.map(|value| format!("{value:.3}"));
            let shown = shown.filter(|_| target.ceiling.is_some());
            vec![
                format!("{:?}", target.id),
                target.what.clone(),
                target.measured.clone().unwrap_or_else(|| "not measured".into()),
                or_none(&target.ceiling),
                or_none(&shown),
                target.bound.text(),
                match target.met {
                    Some(true) => "yes".into(),
                    Some(false) => "no".into(),
                    None => "?".into(),
                },
            ]
        }));
        lines.extend([table(&rows), String::new()]);
        let mut rows = vec![latency_heading()];
        rows.extend(findings.measurements.iter().map(latency_row));
        lines.extend([table(&rows), String::new()]);
        lines.extend(failures(findings.measurements.iter()));
        lines.extend(findings.notes.iter().map(|note| format!("- {note}")));
        lines.push(format!("- took {:.0} s", self.seconds));
        lines.join("\n")
    }
}

/// What stands where there is nothing to say.
const NONE: &str = "–";

fn cells<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).into()
}

fn latency_heading() -> Vec<String> {
    cells(["", "per second", "count", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms"])
}

fn heading(result: &Measurement) -> Vec<String> {
    let mut row = latency_heading();
    if result.memory.is_some() {
        row.push("KiB each".into());
    }
    row.push("ratio".into());
    row
}

fn latency_row(measurement: &Measurement) -> Vec<String> {
    let figures = &measurement.figures;
    let mut row =
        vec![measurement.name.clone(), number(figures.per_second), figures.count.to_string()];
    match figures.latency {
        Some(latency) => {
            let all =
                [latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.p999_ms, latency.max_ms];
            row.extend(all.map(|milliseconds| format!("{milliseconds:.3}")));
        }
        None => row.extend([NONE; 5].map(str::to_owned)),
    }
    row
}

fn row(measurement: &Measurement, ratio: Option<f64>) -> Vec<String> {
    let mut row = latency_row(measurement);
    if let Some(memory) = measurement.memory {
        row.push(format!("{:.1}", memory.bytes_each / 1024.0));
    }
    row.push(ratio.map_or_else(|| NONE.into(), |ratio| format!("{ratio:.3}")));
    row
}

fn failures<'a>(measurements: impl Iterator<Item = &'a Measurement>) -> Vec<String> {
    let failed = measurements.filter(|measurement| measurement.figures.failures > 0);
    failed
        .map(|Measurement { name, figures, .. }| {
            let first = figures.first_failure.as_deref().unwrap_or("unknown");
            format!("- {name}: {} calls failed, the first with: {first}", figures.failures)
        })
        .collect()
}

/// A rate, with its unit.
pub(in crate::cli) fn per_second(rate: f64) -> String {
    format!("{}/s", number(rate))
}

/// A time, with its unit.
pub(super) fn milliseconds(value: f64) -> String {
    format!("{value:.2} ms")
}

/// A rate for people: no digits that mean nothing, thousands apart.
pub(in crate::cli) fn number(value: f64) -> String {
    let digits = if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") };
    match digits.split_once('.') {
        Some((whole, rest)) => format!("{}.{rest}", grouped(whole)),
        None => grouped(&digits),
    }
}

/// How many there are, for people.
pub(in crate::cli) fn count(number: u64) -> String {
    grouped(&number.to_string())
}

fn grouped(digits: &str) -> String {
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Columns as wide as they need to be; the first ones of texts to the left, numbers to the right.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let is_text = |column: usize| {
        rows.iter().skip(1).filter_map(|row| row.get(column)).any(|cell| is_words(cell))
    };
    let texts: Vec<bool> = (0..columns).map(is_text).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = widths[column];
            if texts[column] { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn is_words(cell: &str) -> bool {
    cell.chars().next().is_some_and(char::is_alphabetic) && cell != "not measured"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_held_against_the_ratio() {
        let target = |measured, ceiling, bound| {
            Target::ratio(TargetId::T1, "x", (measured, ceiling), number, bound)
        };
        let met = target(Some(60.0), Some(100.0), Bound::AtLeast(0.6));
        assert_eq!((met.value, met.met), (Some(0.6), Some(true)));
        assert_eq!(target(Some(59.0), Some(100.0), Bound::AtLeast(0.6)).met, Some(false));
        assert_eq!(target(Some(116.0), Some(100.0), Bound::AtMost(1.15)).met, Some(false));
    }

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        let target =
            Target::ratio(TargetId::T1, "x", (None, Some(1.0)), number, Bound::AtLeast(0.6));
        assert_eq!((target.value, target.met), (None, None));
        let none =
            Target::ratio(TargetId::T1, "x", (Some(1.0), Some(0.0)), number, Bound::AtMost(2.0));
        assert_eq!((none.value, none.met), (None, None));
        let zero = Target::number(TargetId::T9, "x", Some(0.0), number, Bound::SomeAtMost(50.0));
        assert_eq!(zero.met, Some(false));
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(number(0.25), "0.2");
        assert_eq!(number(999.4), "999");
        assert_eq!(number(44_123.7), "44,124");
        assert_eq!(number(1_234_567.0), "1,234,567");
        assert_eq!((count(50), count(100_000)), ("50".into(), "100,000".into()));
    }

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [cells(["", "per second"]), cells(["send", "12,000"]), cells(["no-op", "9"])];
        assert_eq!(table(&rows), "       per second\nsend       12,000\nno-op           9");
    }
}
