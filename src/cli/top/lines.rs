//! The figures as lines of text, the same on a screen and in a pipe.

use std::time::Duration;

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::figures::{Figures, Method, Share, Timed};
use super::page::Quantile;
use crate::cli::bench::report;
use crate::cli::escape::printable;

pub(super) const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const TITLE: Style = Style::new().add_modifier(Modifier::BOLD);
pub(super) const GOOD: Style = Style::new().fg(Color::Green);
pub(super) const WARNING: Style = Style::new().fg(Color::Yellow);
pub(super) const BAD: Style = Style::new().fg(Color::Red);

/// What stands where there is no figure.
const NONE: &str = "–";

/// From which share of a limit on it is worth a look.
const SHARE_HIGH: f64 = 0.8;

/// As the alerts of docs/monitoring have them.
const DISK_FREE_LOW_BYTES: f64 = 2e9;
const CERTIFICATE_SOON_SECONDS: f64 = 14.0 * 24.0 * 3600.0;

/// The calls by their methods, with a title.
pub(super) fn calls(figures: &Figures) -> Vec<Line<'static>> {
    let title =
        format!("{:<16}{:>10}{:>10}{:>10}{:>11}", "calls", "per s", "p50 ms", "p99 ms", "errors/s");
    let mut lines = vec![Line::styled(title, TITLE)];
    lines.extend(figures.methods.iter().map(method));
    if figures.methods.is_empty() {
        lines.push(Line::styled("none yet", DIM));
    }
    lines
}

fn method(method: &Method) -> Line<'static> {
    let Timed { per_second, p50, p99 } = method.calls;
    // A stream lasts as long as its client wants.
    let [p50, p99] =
        [p50, p99].map(|it| if method.is_stream { NONE.to_owned() } else { milliseconds(it) });
    let name = printable(&method.name).into_owned();
    let errors = format!("{:>11}", report::number(method.errors_per_second));
    let style = if method.errors_per_second > 0.0 { BAD } else { Style::new() };
    Line::from(vec![
        Span::raw(format!("{name:<16.16}{:>10}{p50:>10}{p99:>10}", report::number(per_second))),
        Span::styled(errors, style),
    ])
}

/// What is stored, and where it goes.
pub(super) fn storage(figures: &Figures) -> Vec<Line<'static>> {
    let Figures { commits, .. } = figures;
    let free_is_low = figures.disk_free_bytes.is_some_and(|free| free < DISK_FREE_LOW_BYTES);
    vec![
        Line::styled("storage", TITLE),
        entry("stored", &[rate(figures.stored_per_second), whole(figures.stored) + " in all"]),
        entry("users", &[whole(figures.users)]),
        entry(
            "commits",
            &[
                rate(Some(commits.per_second)),
                format!("p50 {}, p99 {} ms", milliseconds(commits.p50), milliseconds(commits.p99)),
            ],
        ),
        entry("a commit", &[or_none(figures.group_writes, report::number) + " writes"]),
        share("queue", figures.queue, bytes, &[waiting(figures.writes_waiting)]),
        entry("readers", &[whole(figures.readers_busy) + " busy", waiting(figures.reads_waiting)]),
        share("unmerged", figures.tail, |count| whole(Some(count)), &[]),
        entry("database", &[or_none(figures.database_bytes, bytes), wal(figures)]),
        entry("disk free", &[or_none(figures.disk_free_bytes, bytes)]).style(when(free_is_low)),
    ]
}

fn wal(figures: &Figures) -> String {
    format!("WAL {}", or_none(figures.wal_bytes, bytes))
}

/// Who is connected and follows.
pub(super) fn delivery(figures: &Figures) -> Vec<Line<'static>> {
    let followed = format!("on {} mailboxes", whole(figures.mailboxes_followed));
    let failures = figures.failures.unwrap_or_default();
    let mut lines = vec![
        Line::styled("callers", TITLE),
        entry("followers", &[whole(figures.subscribers), followed]),
        entry("lags", &[rate(figures.lags_per_second)]),
        entry("replays", &[or_none(figures.replay_pages_per_second, report::number) + " pages/s"]),
        share("connected", figures.connections, |count| whole(Some(count)), &[]),
        entry(
            "new",
            &[rate(figures.connections_per_second), whole(figures.connections_cut) + " cut"],
        ),
        share("in transit", figures.held, bytes, &[]),
        entry("tokens", &[or_none(figures.token_hits, percent) + " from memory"]),
        entry("memory", &[or_none(figures.resident_bytes, bytes)]),
    ];
    if failures > 0.0 {
        lines.push(
            entry("storage", &[format!("failed {} times", whole(figures.failures))]).style(WARNING),
        );
    }
    if let Some(seconds) = figures.certificate_seconds {
        let text = match Duration::try_from_secs_f64(seconds) {
            Ok(left) => format!("ends in {}", span(left)),
            Err(_) => "has ended".to_owned(),
        };
        lines.push(entry("certificate", &[text]).style(when(seconds < CERTIFICATE_SOON_SECONDS)));
    }
    lines
}

/// How the server is, in a word, and what goes wrong.
pub(super) fn state(figures: &Figures) -> Line<'static> {
    let (state, style) = match figures.is_storage_up {
        Some(false) => ("STORAGE FAILING", BAD),
        Some(true) => ("serving", GOOD),
        None => ("no server's metrics", WARNING),
    };
    let mut spans = vec![Span::styled(state, style)];
    if let Some((status, rate)) = &figures.worst_error {
        let all = report::number(figures.errors_per_second);
        let (status, rate) = (printable(status).into_owned(), report::number(*rate));
        spans.push(Span::styled(format!(" · {all} errors/s, {rate} of them {status}"), BAD));
    }
    Line::from(spans)
}

/// Since when the server runs.
pub(super) fn uptime(figures: &Figures) -> String {
    figures.uptime.map_or_else(String::new, |uptime| format!("up {}", span(uptime)))
}

/// What runs.
pub(super) fn version(figures: &Figures) -> String {
    figures.version.as_deref().map_or_else(|| NONE.to_owned(), |it| printable(it).into_owned())
}

fn entry(name: &str, parts: &[String]) -> Line<'static> {
    let parts: Vec<_> = parts.iter().filter(|part| !part.is_empty()).map(String::as_str).collect();
    Line::from(vec![Span::styled(format!("{name:<12}"), DIM), Span::raw(parts.join(", "))])
}

fn share(
    name: &str,
    share: Share,
    shown: impl Fn(f64) -> String,
    more: &[String],
) -> Line<'static> {
    let of = format!("{} of {}", or_none(share.taken, &shown), or_none(share.limit, &shown));
    let is_high = share.ratio().is_some_and(|ratio| ratio >= SHARE_HIGH) && name != "unmerged";
    entry(name, &[&[of], more].concat()).style(when(is_high))
}

fn when(is_worth_a_look: bool) -> Style {
    if is_worth_a_look { WARNING } else { Style::new() }
}

fn or_none(value: Option<f64>, shown: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| NONE.to_owned(), shown)
}

fn rate(value: Option<f64>) -> String {
    or_none(value, report::per_second)
}

fn whole(value: Option<f64>) -> String {
    or_none(value, |value| match format!("{:.0}", value.trunc()).parse() {
        Ok(count) => report::count(count),
        // Larger than any count, or below 0: as it is.
        Err(_) => value.to_string(),
    })
}

fn waiting(value: Option<f64>) -> String {
    value.map_or_else(String::new, |_| whole(value) + " waiting")
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn milliseconds(quantile: Quantile) -> String {
    let shown = |seconds: f64| {
        let milliseconds = seconds * 1e3;
        if milliseconds < 10.0 {
            format!("{milliseconds:.1}")
        } else {
            format!("{milliseconds:.0}")
        }
    };
    match quantile {
        Quantile::Unknown => NONE.to_owned(),
        Quantile::Below(bound) => format!("<{}", shown(bound)),
        Quantile::At(value) => shown(value),
        Quantile::Above(bound) => format!(">{}", shown(bound)),
    }
}

fn bytes(count: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (count, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 100.0);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A time, in its two largest units.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_for_people() {
        let sizes = [0.0, 1023.0, 1024.0, 102_400.0, 67_108_864.0, 1e18].map(bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "100 KiB", "64.0 MiB", "909495 TiB"]);
        let spans = [5, 65, 3_700, 90_000].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(spans, ["5 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"]);
        let quantiles = [
            Quantile::Unknown,
            Quantile::Below(0.0005),
            Quantile::At(0.0123),
            Quantile::Above(10.0),
        ];
        assert_eq!(quantiles.map(milliseconds), ["–", "<0.5", "12", ">10000"]);
        assert_eq!(whole(Some(1234.0)), "1,234");
        assert_eq!(whole(Some(f64::INFINITY)), "inf");
    }
}
