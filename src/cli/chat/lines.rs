//! An item of the conversation as lines for a screen of a given width.

use std::time::SystemTime;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::conversation::Item;
use super::text::{characters, columns, shown, wrap};
use crate::cli::render;
use crate::client::Message;

pub(super) const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const OWN: Style = Style::new().fg(Color::Green).add_modifier(Modifier::BOLD);
const PEERS: Style = Style::new().fg(Color::Cyan).add_modifier(Modifier::BOLD);
const REFUSED: Style = Style::new().fg(Color::Red);

/// What stands before a text: a time or a mark, each of so many columns.
const MARK_COLUMNS: usize = 6;
const WAITS: &str = "  …   ";
const IS_REFUSED: &str = "  ✗   ";

/// The columns that are left for a text at least, beside the name before it: else it begins below.
const TEXT_COLUMNS_MIN: usize = 8;

/// How items are shown.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    pub(super) peer: &'a str,
    pub(super) zone: &'a TimeZone,
    pub(super) width: usize,
}

impl Layout<'_> {
    /// The lines of an item, with the day above it when it is the first of that day.
    pub(super) fn lines(&self, item: &Item, previous: Option<&Message>) -> Vec<Line<'static>> {
        match item {
            Item::Stored(message) => {
                let mut lines = self.day_above(message, previous);
                let is_peers = message.from_user.eq_ignore_ascii_case(self.peer)
                    && !message.to_user.eq_ignore_ascii_case(self.peer);
                let (name, style) =
                    if is_peers { (message.from_user.as_str(), PEERS) } else { ("you", OWN) };
                let time = self.local(message.send_time);
                let time =
                    time.map_or_else(|| "--:--".into(), |it| it.strftime("%H:%M").to_string());
                let mark = Span::styled(format!("{time} "), DIM);
                if let Some(text) = message.body.as_text() {
                    self.add(&mut lines, mark, name, style, text, Style::new());
                } else {
                    let summary = format!("({})", render::data_summary(message));
                    self.add(&mut lines, mark, name, style, &summary, DIM);
                }
                lines
            }
            Item::Unsent(text) => {
                let mut lines = Vec::new();
                self.add(&mut lines, Span::styled(WAITS, DIM), "you", DIM, text, DIM);
                lines
            }
            Item::Refused { text, reason } => {
                let mut lines = Vec::new();
                let mark = Span::styled(IS_REFUSED, REFUSED);
                self.add(&mut lines, mark, "you", OWN, text, DIM);
                let indent = self.indent();
                for line in wrap(&format!("not sent: {reason}"), self.width - indent, 0) {
                    lines.push(Line::from(vec![
                        Span::raw(" ".repeat(indent)),
                        Span::styled(line, REFUSED),
                    ]));
                }
                lines
            }
        }
    }

    /// When it was, on this machine's clock and calendar.
    pub(super) fn local(&self, time: SystemTime) -> Option<Zoned> {
        Timestamp::try_from(time).ok().map(|time| time.to_zoned(self.zone.clone()))
    }

    fn add(
        &self,
        lines: &mut Vec<Line<'static>>,
        mark: Span<'static>,
        name: &str,
        name_style: Style,
        text: &str,
        text_style: Style,
    ) {
        let indent = self.indent();
        let width = self.width - indent;
        let name = fitting(&shown(name), self.width.saturating_sub(MARK_COLUMNS + 2));
        let before = MARK_COLUMNS + columns(&name) + 2;
        let is_beside = before + TEXT_COLUMNS_MIN <= self.width;
        let mut first = vec![mark, Span::styled(name, name_style), Span::raw(": ")];
        let mut wrapped =
            wrap(text, width, if is_beside { before - indent } else { 0 }).into_iter();
        if is_beside {
            first.extend(wrapped.next().map(|line| Span::styled(line, text_style)));
        }
        lines.push(Line::from(first));
        lines.extend(wrapped.map(|line| {
            Line::from(vec![Span::raw(" ".repeat(indent)), Span::styled(line, text_style)])
        }));
    }

    /// Lines below the first are set in, so that no text can pass for another message.
    fn indent(&self) -> usize {
        if self.width < 4 * MARK_COLUMNS { 1.min(self.width - 1) } else { MARK_COLUMNS }
    }

    fn day_above(&self, message: &Message, previous: Option<&Message>) -> Vec<Line<'static>> {
        let day = |message: &Message| self.local(message.send_time).map(|time| time.date());
        if previous.map(day) == Some(day(message)) {
            return Vec::new();
        }
        let Some(time) = self.local(message.send_time) else { return Vec::new() };
        let day = time.strftime("── %A, %-d %B %Y ──").to_string();
        vec![Line::styled(fitting(&day, self.width), DIM)]
    }
}

/// As much of a line as fits into so many columns, with a mark where it was cut.
pub(super) fn fitting(line: &str, width: usize) -> String {
    if columns(line) <= width {
        return line.to_owned();
    }
    let mut fitting = String::new();
    for (_, character) in characters(line) {
        if columns(&fitting) + columns(character) + 1 > width {
            break;
        }
        fitting.push_str(character);
    }
    if width > 0 {
        fitting.push('…');
    }
    fitting
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::chat::conversation::tests::message;

    fn lines(width: usize, item: &Item, previous: Option<&Message>) -> Vec<String> {
        let layout = Layout { peer: "bob", zone: &TimeZone::UTC, width };
        let lines = layout.lines(item, previous);
        lines
            .iter()
            .map(ToString::to_string)
            .inspect(|line| assert!(columns(line) <= width))
            .collect()
    }

    fn stored(from: &str, text: &str) -> Item {
        Item::Stored(message(3, from, text))
    }

    #[test]
    fn a_text_goes_on_below_its_beginning() {
        let before = message(2, "bob", "x");
        let item = stored("bob", "one two three four");
        assert_eq!(lines(24, &item, Some(&before)), ["00:03 bob: one two three", "      four"]);
        assert_eq!(lines(40, &item, None)[0], "── Sunday, 22 November 2026 ──");
        let item = stored("alice", "a\n00:04 bob: I owe you\n");
        let expected = ["00:03 you: a", "      00:04 bob: I owe you", "      "];
        assert_eq!(lines(40, &item, Some(&before)), expected);
    }

    #[test]
    fn a_long_name_and_a_small_screen_leave_room_for_the_text() {
        let long = "b".repeat(64);
        let mut long_name = message(3, "bob", "hello");
        (long_name.from_user, long_name.to_user) = (long.clone(), "alice".into());
        let layout = Layout { peer: &long, zone: &TimeZone::UTC, width: 30 };
        let before = message(2, "bob", "x");
        let shown = layout.lines(&Item::Stored(long_name), Some(&before));
        let shown: Vec<_> = shown.iter().map(ToString::to_string).collect();
        assert_eq!(shown, [format!("00:03 {}…: ", "b".repeat(21)), "      hello".into()]);
        for width in 10..40 {
            lines(width, &stored("bob", "one two three 你好 internationalization"), None);
        }
    }

    #[test]
    fn what_is_not_sent_says_so() {
        assert_eq!(lines(40, &Item::Unsent("hi".into()), None), ["  …   you: hi"]);
        let item = Item::Refused { text: "hi".into(), reason: "too large".into() };
        assert_eq!(lines(40, &item, None), ["  ✗   you: hi", "      not sent: too large"]);
    }

    #[test]
    fn what_does_not_fit_is_cut_with_a_mark() {
        assert_eq!(fitting("abcdef", 6), "abcdef");
        assert_eq!(fitting("abcdef", 4), "abc…");
        assert_eq!(fitting("你好吗", 4), "你…");
        assert_eq!(fitting("abc", 0), "");
    }
}
