//! What `top` shows and what that looks like. No network, no terminal, no clock.

use std::collections::VecDeque;
use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::Sparkline;

use super::figures::Figures;
use super::lines::{self, DIM, WARNING};
use crate::cli::bench::report;
use crate::cli::escape::printable;

const BAR: Style = Style::new().add_modifier(Modifier::REVERSED);

/// The most moments that the chart remembers; a screen has fewer columns.
const MOMENTS_MAX: usize = 1024;

/// The rows that a chart needs, its title among them; it takes more where there are.
const CHART_ROWS_MIN: u16 = 4;
const CHART_ROWS_MAX: u16 = 12;

/// The columns from which on storage and callers stand beside each other.
const SIDE_BY_SIDE_COLUMNS: u16 = 76;

/// What is shown.
pub(super) struct Top {
    source: String,
    interval: Duration,
    figures: Option<Figures>,
    /// Why there are none, or no newer ones.
    trouble: Option<String>,
    /// Messages stored a second, the newest first.
    stored: VecDeque<u64>,
}

impl Top {
    pub(super) fn new(source: &str, interval: Duration) -> Self {
        let stored = VecDeque::new();
        Self {
            source: printable(source).into_owned(),
            interval,
            figures: None,
            trouble: None,
            stored,
        }
    }

    /// There are new figures.
    pub(super) fn show(&mut self, figures: Figures) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "for a chart")]
        let stored = figures.stored_per_second.unwrap_or_default() as u64;
        self.stored.truncate(MOMENTS_MAX - 1);
        self.stored.push_front(stored);
        self.figures = Some(figures);
        self.trouble = None;
    }

    /// There are none.
    pub(super) fn fail(&mut self, why: &str) {
        self.trouble = Some(printable(why).into_owned());
    }

    pub(super) fn draw(&self, frame: &mut Frame) {
        let area = frame.area();
        let mut rest = area;
        frame.render_widget(self.header(area.width), top(&mut rest, 1));
        frame.render_widget(self.state(), top(&mut rest, 1));
        let footer = format!("every {:?} · q leaves", self.interval);
        frame.render_widget(Line::styled(footer, DIM), bottom(&mut rest, 1));
        let Some(figures) = &self.figures else { return };

        top(&mut rest, 1);
        draw_lines(frame, &mut rest, &lines::calls(figures));
        top(&mut rest, 1);
        let (storage, delivery) = (lines::storage(figures), lines::delivery(figures));
        if area.width >= SIDE_BY_SIDE_COLUMNS {
            let rows = u16::try_from(storage.len().max(delivery.len())).unwrap_or(u16::MAX);
            let both = top(&mut rest, rows);
            let width = both.width * 11 / 20;
            let mut left = Rect { width, ..both };
            let mut right = Rect { x: both.x + width, width: both.width - width, ..both };
            // A column stays between the two.
            left.width = left.width.saturating_sub(1);
            draw_lines(frame, &mut left, &storage);
            draw_lines(frame, &mut right, &delivery);
        } else {
            draw_lines(frame, &mut rest, &storage);
            draw_lines(frame, &mut rest, &delivery);
        }
        if rest.height > CHART_ROWS_MIN {
            top(&mut rest, 1);
            self.draw_chart(frame, Rect { height: rest.height.min(CHART_ROWS_MAX), ..rest });
        }
    }

    fn draw_chart(&self, frame: &mut Frame, mut area: Rect) {
        let shown = self.stored.iter().copied().take(usize::from(area.width));
        let most = shown.clone().max().unwrap_or_default();
        let title = format!("messages stored a second, at most {}", report::count(most));
        frame.render_widget(Line::styled(title, DIM), top(&mut area, 1));
        // The newest to the right.
        let mut values: Vec<_> = shown.collect();
        values.resize(usize::from(area.width), 0);
        values.reverse();
        frame.render_widget(Sparkline::default().data(values).max(most.max(1)), area);
    }

    fn header(&self, width: u16) -> Line<'static> {
        let (version, uptime) = self.figures.as_ref().map_or_else(Default::default, |figures| {
            (lines::version(figures), lines::uptime(figures))
        });
        let left = format!(" peerpost {version} · {}", self.source);
        let room = usize::from(width).saturating_sub(left.chars().count() + 1);
        let right = if uptime.chars().count() < room { uptime } else { String::new() };
        Line::styled(format!("{left}{right:>room$} "), BAR)
    }

    fn state(&self) -> Line<'static> {
        match (&self.trouble, &self.figures) {
            (Some(why), None) => Line::styled(format!("no answer: {why}"), WARNING),
            (Some(why), Some(_)) => {
                Line::styled(format!("no answer, the figures are of before: {why}"), WARNING)
            }
            (None, Some(figures)) => lines::state(figures),
            (None, None) => Line::styled("asking…", DIM),
        }
    }

    /// The same as plain text.
    pub(super) fn text(source: &str, figures: &Figures) -> String {
        let first = format!(
            "peerpost {} · {} · {}",
            lines::version(figures),
            printable(source),
            lines::uptime(figures)
        );
        let mut text = vec![first, lines::state(figures).to_string()];
        for part in [lines::calls(figures), lines::storage(figures), lines::delivery(figures)] {
            text.push(String::new());
            text.extend(part.iter().map(|line| line.to_string().trim_end().to_owned()));
        }
        text.join("\n")
    }
}

/// Takes rows off the top of what is left.
fn top(rest: &mut Rect, rows: u16) -> Rect {
    let taken = Rect { height: rows.min(rest.height), ..*rest };
    rest.y += taken.height;
    rest.height -= taken.height;
    taken
}

/// Takes rows off the bottom of what is left.
fn bottom(rest: &mut Rect, rows: u16) -> Rect {
    let rows = rows.min(rest.height);
    rest.height -= rows;
    Rect { y: rest.y + rest.height, height: rows, ..*rest }
}

fn draw_lines(frame: &mut Frame, rest: &mut Rect, lines: &[Line<'static>]) {
    for line in lines {
        let row = top(rest, 1);
        frame.render_widget(line, row);
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::cli::top::figures::tests::figures;

    fn rows(top: &Top, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal.draw(|frame| top.draw(frame)).expect("drawn");
        let buffer = terminal.backend().buffer();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| row(y).trim_end().to_owned()).collect()
    }

    fn shown() -> Top {
        let mut top = Top::new("127.0.0.1:9464", Duration::from_secs(2));
        for _ in 0..30 {
            top.show(figures());
        }
        top
    }

    #[test]
    fn everything_fits_on_a_small_terminal() {
        let rows = rows(&shown(), 80, 24);
        let text = rows.join("\n");
        for expected in [
            "peerpost 0.1.0 (abcdef123456 2026-11-22) · 127.0.0.1:9464",
            "up 1 d 1 h",
            "serving · 8.0 errors/s, 8.0 of them RESOURCE_EXHAUSTED",
            "SendMessage          1,008       1.8       2.5        8.0",
            "stored      1,000/s, 5,003,000 in all",
            "commits     100/s, p50 1.8, p99 2.5 ms",
            "queue       512 KiB of 64.0 MiB, 0 waiting",
            "database    309 MiB, WAL 3.9 MiB",
            "followers   34, on 30 mailboxes",
            "tokens      99.9 % from memory",
            "certificate ends in 22 d 2 h",
            "every 2s · q leaves",
        ] {
            assert!(text.contains(expected), "no {expected:?} on:\n{text}");
        }
        // Nothing is drawn over its neighbour.
        assert!(
            rows.iter().any(|row| row.contains("waiting  ") && row.contains("new  ")),
            "{text}"
        );
    }

    #[test]
    fn a_large_one_has_a_chart_and_a_tiny_one_does_not_panic() {
        let top = shown();
        let large = rows(&top, 120, 40).join("\n");
        assert!(large.contains("messages stored a second, at most 1,000"), "{large}");
        assert!(large.contains('█'), "{large}");
        for (width, height) in [(1, 1), (10, 3), (40, 50), (79, 2)] {
            rows(&top, width, height);
        }
    }

    #[test]
    fn trouble_is_told_and_the_last_figures_stay() {
        let mut top = Top::new("nowhere", Duration::from_secs(2));
        assert!(rows(&top, 80, 24)[1].contains("asking"));
        top.fail("refused\u{1b}[2J");
        assert_eq!(rows(&top, 80, 24)[1], "no answer: refused\\u{1b}[2J");
        top.show(figures());
        top.fail("refused");
        let rows = rows(&top, 80, 24);
        assert_eq!(rows[1], "no answer, the figures are of before: refused");
        assert!(rows.join("\n").contains("5,003,000 in all"));
    }
}
