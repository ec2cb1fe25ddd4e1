//! Which part of the conversation is on the screen.
//!
//! The place is remembered as an item and a line of it, not as a number of lines: it stays where it is
//! when messages come, when older ones are read, and when the screen changes its size.

use ratatui::text::Line;

use super::conversation::Place;
use super::lines::Layout;
use super::state::Chat;

/// What stands at the lower end of the screen.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scroll {
    /// The newest.
    #[default]
    Newest,
    /// This item, with so many of its last lines below the screen.
    At { place: Place, hidden: usize },
}

impl Chat {
    /// The lines on the screen, at most `height`.
    pub(super) fn visible(&self, height: usize) -> Vec<Line<'static>> {
        let mut lines = self.lines_upwards().take(height).collect::<Vec<_>>();
        lines.reverse();
        lines
    }

    /// How many lines there are from the lower end of the screen upwards, counted to `most`.
    pub(super) fn lines_above_end(&self, most: usize) -> usize {
        self.lines_upwards().take(most).count()
    }

    pub(super) fn scroll_up(&mut self, lines: usize) {
        let height = self.messages_height();
        // Not beyond where the oldest line stands at the upper end.
        let above = self.lines_above_end(height + lines).saturating_sub(height);
        self.move_up(lines.min(above));
    }

    pub(super) fn scroll_down(&mut self, lines: usize) {
        let Scroll::At { mut place, mut hidden } = self.scroll else { return };
        let mut lines = lines;
        while lines > hidden {
            lines -= hidden;
            let Some(next) = self.conversation.after(place) else {
                self.scroll = Scroll::Newest;
                return;
            };
            place = next;
            hidden = self.lines_of(place).len();
        }
        self.scroll = Scroll::At { place, hidden: hidden - lines };
        if hidden == lines && self.conversation.after(place).is_none() {
            self.scroll = Scroll::Newest;
        }
    }

    fn move_up(&mut self, lines: usize) {
        let from = self.end();
        let mut hidden = from.1 + lines;
        for (place, _) in self.conversation.backwards(from.0) {
            let count = self.lines_of(place).len();
            if hidden < count {
                if lines > 0 {
                    self.scroll = Scroll::At { place, hidden };
                }
                return;
            }
            hidden -= count;
        }
    }

    fn end(&self) -> (Option<Place>, usize) {
        match self.scroll {
            Scroll::Newest => (None, 0),
            Scroll::At { place, hidden } => (Some(place), hidden),
        }
    }

    /// The lines from the lower end of the screen up to the first.
    fn lines_upwards(&self) -> impl Iterator<Item = Line<'static>> {
        let (from, hidden) = self.end();
        self.conversation.backwards(from).enumerate().flat_map(move |(at, (place, _))| {
            let mut lines = self.lines_of(place);
            // The item can have become shorter, or another one in its place.
            if at == 0 {
                lines.truncate(lines.len().saturating_sub(hidden).max(1));
            }
            lines.into_iter().rev()
        })
    }

    fn lines_of(&self, place: Place) -> Vec<Line<'static>> {
        let layout =
            Layout { peer: &self.peer, zone: &self.zone, width: usize::from(self.size.0).max(1) };
        let item = self.conversation.backwards(Some(place)).next();
        let previous = self.conversation.stored_before(place);
        item.map_or_else(Vec::new, |(_, item)| layout.lines(item, previous))
    }
}
