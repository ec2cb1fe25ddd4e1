//! What the chat looks like.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use tokio::time::Instant;

use super::lines::{DIM, Layout, fitting};
use super::scroll::Scroll;
use super::state::{Chat, Link};
use super::text::{columns, shown};

const BAR: Style = Style::new().add_modifier(Modifier::REVERSED);
const GOOD: Style = Style::new().fg(Color::Green);
const WARNING: Style = Style::new().fg(Color::Yellow);
const PROMPT: &str = "> ";

/// The rows of the parts of the screen.
#[derive(Debug, PartialEq, Eq)]
struct Rows {
    header: u16,
    messages: u16,
    status: u16,
    input: u16,
}

impl Chat {
    /// The rows of the messages: at least one, so that scrolling always moves.
    pub(super) fn messages_height(&self) -> usize {
        usize::from(self.rows().messages).max(1)
    }

    /// What a page key moves by: all but one row, which stays as a bearing.
    pub(super) fn page_lines(&self) -> usize {
        self.messages_height().saturating_sub(1).max(1)
    }

    /// The input has what it needs up to a third of the screen, and goes before all else on a small one.
    fn rows(&self) -> Rows {
        let (_, height) = self.size;
        let typed = self.editor.layout(self.input_width()).lines.len();
        let input = u16::try_from(typed).unwrap_or(u16::MAX).min((height / 3).max(1)).min(height);
        let status = u16::from(height > input);
        let header = u16::from(height > input + status + 1);
        Rows { header, messages: height - input - status - header, status, input }
    }

    fn input_width(&self) -> usize {
        usize::from(self.size.0).saturating_sub(PROMPT.len()).max(2)
    }

    pub(super) fn draw(&self, frame: &mut Frame, now: Instant) {
        let (width, height) = self.size;
        let rows = self.rows();
        let area = frame.area();
        let row = |y: u16, height: u16| Rect { x: 0, y, width, height }.intersection(area);
        let header = row(0, rows.header);
        let messages = row(rows.header, rows.messages);
        let status = row(height - rows.input - rows.status, rows.status);
        let input = row(height - rows.input, rows.input);

        frame.render_widget(self.header(), header);
        let lines = self.lines_on_screen(usize::from(rows.messages));
        // The newest stand above the input, however few there are.
        let above = rows.messages.saturating_sub(u16::try_from(lines.len()).unwrap_or(u16::MAX));
        for (y, line) in (messages.y + above..).zip(lines) {
            frame.render_widget(line, row(y, 1));
        }
        frame.render_widget(self.status(now), status);
        self.draw_input(frame, input);
    }

    fn lines_on_screen(&self, height: usize) -> Vec<Line<'static>> {
        let mut lines = self.visible(height);
        if lines.len() < height {
            lines.insert(0, self.above_the_first());
        }
        lines
    }

    fn above_the_first(&self) -> Line<'static> {
        let width = usize::from(self.size.0);
        let text = match self.conversation.first_sequence() {
            Some(before) if self.conversation.has_older && self.conversation.is_full() => {
                format!("older: peerpost inbox --peer {} --before {before}", shown(&self.peer))
            }
            Some(_) if self.conversation.has_older => "older messages are being read…".into(),
            Some(_) => "── the beginning ──".into(),
            None if matches!(self.link, Link::Live) => "no messages yet".into(),
            None => String::new(),
        };
        Line::styled(fitting(&text, width), DIM)
    }

    fn header(&self) -> Line<'static> {
        let width = usize::from(self.size.0);
        let peer = shown(&self.peer);
        let presence = match &self.presence {
            None => String::new(),
            Some(user) if user.online => " ● online".into(),
            Some(user) => match user.last_seen_time.and_then(|time| self.layout().local(time)) {
                Some(time) => format!(" ○ last seen {}", time.strftime("%-d %b %H:%M")),
                None => " ○ never seen".into(),
            },
        };
        let left = fitting(&format!(" {peer}{presence}"), width);
        let server = self.server.split_once("://").map_or(self.server.as_str(), |(_, rest)| rest);
        let right = format!("{} ", shown(server));
        let gap = width.saturating_sub(columns(&left) + columns(&right));
        let right = if gap > 0 { right } else { String::new() };
        let gap = width.saturating_sub(columns(&left) + columns(&right));
        Line::styled(format!("{left}{}{right}", " ".repeat(gap)), BAR)
    }

    fn layout(&self) -> Layout<'_> {
        Layout { peer: &self.peer, zone: &self.zone, width: usize::from(self.size.0) }
    }

    /// How it stands with the server; then what else there is to say, while there is room.
    fn status(&self, now: Instant) -> Line<'static> {
        let (state, style) = match &self.link {
            Link::Connecting => ("connecting…".to_owned(), WARNING),
            Link::CatchingUp => ("catching up…".to_owned(), WARNING),
            Link::Live => ("live".to_owned(), GOOD),
            Link::Away { why, again_at } => {
                let left = again_at.saturating_duration_since(now) + Duration::from_millis(999);
                (format!("reconnecting in {} s: {}", left.as_secs(), shown(why)), WARNING)
            }
        };
        let mut more = vec![String::new()];
        more.extend(self.note.clone());
        match self.conversation.unsent_count() {
            0 => {}
            unsent => more.push(format!("{unsent} not sent yet")),
        }
        if self.scroll != Scroll::Newest {
            more.push("scrolled back, Esc to the newest".into());
        }
        if self.from_others > 0 {
            more.push(format!("{} from others", self.from_others));
        }
        if more.len() == 1 {
            more.push("Enter sends, PgUp scrolls back, Ctrl-C leaves".into());
        }
        let more = more.join(" · ");
        let state = fitting(&state, usize::from(self.size.0));
        let room = usize::from(self.size.0).saturating_sub(columns(&state));
        Line::from(vec![Span::styled(state, style), Span::styled(fitting(&more, room), DIM)])
    }

    fn draw_input(&self, frame: &mut Frame, area: Rect) {
        // A terminal that has just become smaller is drawn on before the chat is told.
        if area.is_empty() {
            return;
        }
        let layout = self.editor.layout(self.input_width());
        let height = usize::from(area.height);
        // The cursor's line is always on the screen.
        let first = (layout.cursor.0 + 1).saturating_sub(height);
        for (y, (at, line)) in
            (area.y..area.bottom()).zip(layout.lines.into_iter().enumerate().skip(first))
        {
            let prompt = if at == 0 { PROMPT } else { "  " };
            let line = Line::from(vec![Span::styled(prompt, DIM), Span::raw(line)]);
            frame.render_widget(line, Rect { y, height: 1, ..area });
        }
        let x = u16::try_from(PROMPT.len() + layout.cursor.1).unwrap_or(u16::MAX);
        let y = u16::try_from(layout.cursor.0 - first).unwrap_or(u16::MAX);
        let x = area.x.saturating_add(x).min(area.right() - 1);
        frame.set_cursor_position((x, area.y.saturating_add(y).min(area.bottom() - 1)));
    }
}
