//! The line that is being typed: a text with a cursor, and those that were typed before.

use std::collections::VecDeque;

use super::text::{characters, columns, is_boundary, shown};
use crate::domain::limits::BODY_BYTES_CEILING;

/// The texts that `up` brings back.
const HISTORY_TEXTS_MAX: usize = 100;

/// What is done to the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edit {
    Insert(char),
    Left,
    Right,
    WordLeft,
    WordRight,
    LineBegin,
    LineEnd,
    Up,
    Down,
    DeleteBefore,
    DeleteAfter,
    CutWordBefore,
    CutToLineBegin,
    CutToLineEnd,
    Yank,
}

#[derive(Debug, Default)]
pub(super) struct Editor {
    text: String,
    /// A byte of the text, at the beginning of a character or at the end.
    cursor: usize,
    history: VecDeque<String>,
    /// Which text of the history is shown, counted from the newest.
    recalled: Option<usize>,
    /// What was being typed before the history was looked at.
    draft: String,
    cut: String,
}

/// The text as it stands on the screen.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) lines: Vec<String>,
    /// The cursor's line, and its column in it.
    pub(super) cursor: (usize, usize),
}

impl Editor {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Takes the text out, and keeps it in the history.
    pub(super) fn take(&mut self) -> String {
        let text = std::mem::take(&mut self.text);
        self.cursor = 0;
        self.recalled = None;
        self.draft.clear();
        if self.history.front() != Some(&text) {
            self.history.push_front(text.clone());
            self.history.truncate(HISTORY_TEXTS_MAX);
        }
        text
    }

    /// Inserts a pasted text, its line ends as one character each; false when that would be more than
    /// any server takes.
    pub(super) fn paste(&mut self, text: &str) -> bool {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        if self.text.len() + text.len() > BODY_BYTES_CEILING {
            return false;
        }
        self.insert(&text);
        true
    }

    pub(super) fn edit(&mut self, edit: Edit) {
        match edit {
            Edit::Insert(c) if self.text.len() < BODY_BYTES_CEILING => {
                self.insert(c.encode_utf8(&mut [0; 4]));
            }
            Edit::Insert(_) => {}
            Edit::Left => self.cursor = self.before(),
            Edit::Right => self.cursor = self.after(),
            Edit::WordLeft => self.cursor = self.word_begin(),
            Edit::WordRight => self.cursor = self.word_end(),
            Edit::LineBegin => self.cursor = self.line_begin(self.cursor),
            Edit::LineEnd => self.cursor = self.line_end(self.cursor),
            Edit::Up => self.up(),
            Edit::Down => self.down(),
            Edit::DeleteBefore => {
                self.remove(self.before(), self.cursor);
            }
            Edit::DeleteAfter => {
                self.remove(self.cursor, self.after());
            }
            Edit::CutWordBefore => self.cut = self.remove(self.word_begin(), self.cursor),
            Edit::CutToLineBegin => {
                self.cut = self.remove(self.line_begin(self.cursor), self.cursor);
            }
            Edit::CutToLineEnd => self.cut = self.remove(self.cursor, self.line_end(self.cursor)),
            Edit::Yank => self.insert(&self.cut.clone()),
        }
    }

    /// The text in lines of `width` columns, broken where they are full: as it is typed, so that the
    /// cursor never jumps.
    pub(super) fn layout(&self, width: usize) -> Layout {
        let width = width.max(2);
        let (mut lines, mut column, mut cursor) = (vec![String::new()], 0, None);
        for (at, character) in characters(&self.text) {
            let ends_line = matches!(character, "\n" | "\r\n");
            let character = if ends_line { String::new() } else { shown(character) };
            let wide = columns(&character);
            if column > 0 && column + wide > width {
                lines.push(String::new());
                column = 0;
            }
            if at == self.cursor {
                cursor = Some((lines.len() - 1, column));
            }
            if ends_line {
                lines.push(String::new());
                column = 0;
            } else if let Some(line) = lines.last_mut() {
                line.push_str(&character);
                column += wide;
            }
        }
        let cursor = cursor.unwrap_or_else(|| {
            // At the end; behind a full line it stands in the next.
            if column >= width {
                lines.push(String::new());
                column = 0;
            }
            (lines.len() - 1, column)
        });
        // A full line leaves no column for a cursor at a line end within the text.
        Layout { cursor: (cursor.0, cursor.1.min(width - 1)), lines }
    }

    fn insert(&mut self, text: &str) {
        self.text.insert_str(self.cursor, text);
        self.cursor += text.len();
        self.settle();
    }

    fn remove(&mut self, begin: usize, end: usize) -> String {
        let removed = self.text.drain(begin..end).collect();
        self.cursor = begin;
        self.settle();
        removed
    }

    /// What was inserted can have become one character with what stands behind it.
    fn settle(&mut self) {
        while !is_boundary(&self.text, self.cursor) {
            self.cursor += 1;
        }
    }

    fn before(&self) -> usize {
        characters(&self.text[..self.cursor]).next_back().map_or(0, |(at, _)| at)
    }

    fn after(&self) -> usize {
        let next = characters(&self.text[self.cursor..]).next();
        next.map_or(self.cursor, |(_, character)| self.cursor + character.len())
    }

    fn word_begin(&self) -> usize {
        let before = self.text[..self.cursor].trim_end();
        before
            .rfind(char::is_whitespace)
            .map_or(0, |at| at + before[at..].chars().next().map_or(0, char::len_utf8))
    }

    fn word_end(&self) -> usize {
        let rest = &self.text[self.cursor..];
        let spaces = rest.len() - rest.trim_start().len();
        let word = rest[spaces..].find(char::is_whitespace).unwrap_or(rest.len() - spaces);
        self.cursor + spaces + word
    }

    fn line_begin(&self, at: usize) -> usize {
        self.text[..at].rfind('\n').map_or(0, |newline| newline + 1)
    }

    fn line_end(&self, at: usize) -> usize {
        self.text[at..].find('\n').map_or(self.text.len(), |offset| at + offset)
    }

    /// To the line above, or from the first to the text before in the history.
    fn up(&mut self) {
        let begin = self.line_begin(self.cursor);
        if begin > 0 {
            self.move_to_line(self.line_begin(begin - 1));
        } else {
            self.recall(self.recalled.map_or(0, |shown| shown + 1));
        }
    }

    fn down(&mut self) {
        let end = self.line_end(self.cursor);
        if end < self.text.len() {
            self.move_to_line(end + 1);
        } else if let Some(shown) = self.recalled {
            if let Some(newer) = shown.checked_sub(1) {
                self.recall(newer);
            } else {
                self.recalled = None;
                self.text = std::mem::take(&mut self.draft);
                self.cursor = self.text.len();
            }
        }
    }

    /// To the line that begins there, as many characters into it as before.
    fn move_to_line(&mut self, begin: usize) {
        let into = characters(&self.text[self.line_begin(self.cursor)..self.cursor]).count();
        let line = &self.text[begin..self.line_end(begin)];
        self.cursor = begin + characters(line).nth(into).map_or(line.len(), |(at, _)| at);
    }

    fn recall(&mut self, which: usize) {
        if let Some(text) = self.history.get(which) {
            if self.recalled.is_none() {
                self.draft = std::mem::take(&mut self.text);
            }
            self.text.clone_from(text);
            self.cursor = self.text.len();
            self.recalled = Some(which);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str, edits: &[Edit]) -> Editor {
        let mut editor = Editor::default();
        for edit in text.chars().map(Edit::Insert).chain(edits.iter().copied()) {
            editor.edit(edit);
        }
        editor
    }

    /// The text with the cursor as `|`.
    #[track_caller]
    fn becomes(text: &str, edits: &[Edit], expected: &str) {
        let mut editor = typed(text, edits);
        editor.edit(Edit::Insert('|'));
        assert_eq!(editor.text(), expected);
    }

    #[test]
    fn the_cursor_moves_by_characters_words_and_lines() {
        use Edit as E;
        becomes("abc", &[E::Left], "ab|c");
        becomes("abc", &[E::Left, E::Left, E::Right, E::Right, E::Right], "abc|");
        becomes("ab cd", &[E::LineBegin], "|ab cd");
        becomes("ab cd", &[E::WordLeft], "ab |cd");
        becomes("ab cd  ", &[E::WordLeft, E::WordLeft], "|ab cd  ");
        becomes("ab cd", &[E::LineBegin, E::WordRight], "ab| cd");
        becomes("ab cd", &[E::LineBegin, E::WordRight, E::WordRight], "ab cd|");
        becomes("ab\ncd", &[E::LineBegin], "ab\n|cd");
        becomes("ab\ncd", &[E::Up], "ab|\ncd");
        becomes("abc\nd", &[E::Up], "a|bc\nd");
        becomes("ab\ncd", &[E::Up, E::LineBegin, E::Down, E::LineEnd], "ab\ncd|");
    }

    #[test]
    fn characters_of_many_code_points_are_one() {
        use Edit as E;
        for character in ["e\u{301}", "👨\u{200d}👩\u{200d}👧", "🇩🇪", "你"] {
            let text = format!("a{character}b");
            becomes(&text, &[E::Left, E::Left], &format!("a|{character}b"));
            becomes(&text, &[E::Left, E::DeleteBefore], "a|b");
            becomes(&text, &[E::LineBegin, E::Right, E::DeleteAfter], "a|b");
        }
        // An accent that is typed before another character joins the one before it.
        let mut editor = typed("eb", &[E::Left, E::Insert('\u{301}')]);
        editor.edit(E::DeleteBefore);
        assert_eq!(editor.text(), "b");
    }

    #[test]
    fn what_is_cut_can_be_put_back() {
        use Edit as E;
        becomes("one two", &[E::CutWordBefore], "one |");
        becomes("one two ", &[E::CutWordBefore], "one |");
        becomes("one two", &[E::CutToLineBegin], "|");
        becomes("one two", &[E::LineBegin, E::CutToLineEnd], "|");
        becomes("one two", &[E::CutWordBefore, E::LineBegin, E::Yank], "two|one ");
        becomes("a\nb", &[E::CutToLineBegin], "a\n|");
        becomes("", &[E::DeleteBefore, E::DeleteAfter, E::CutWordBefore, E::Left, E::Yank], "|");
    }

    #[test]
    fn what_was_typed_before_comes_back_and_the_draft_with_it() {
        use Edit as E;
        let mut editor = typed("one", &[]);
        assert_eq!(editor.take(), "one");
        "two".chars().for_each(|c| editor.edit(E::Insert(c)));
        assert_eq!((editor.take().as_str(), editor.text()), ("two", ""));
        editor.edit(E::Insert('x'));
        let mut shows = |edit, text: &str| {
            editor.edit(edit);
            assert_eq!(editor.text(), text);
        };
        shows(E::Up, "two");
        shows(E::Up, "one");
        shows(E::Up, "one");
        shows(E::Down, "two");
        shows(E::Down, "x");
        shows(E::Down, "x");
    }

    #[test]
    fn many_lines_are_pasted_as_one_text_and_too_many_are_refused() {
        let mut editor = typed("<>", &[Edit::Left]);
        assert!(editor.paste("a\r\nb\rc\n"));
        assert_eq!(editor.text(), "<a\nb\nc\n>");
        assert!(!editor.paste(&"x".repeat(BODY_BYTES_CEILING)));
        assert_eq!(editor.text(), "<a\nb\nc\n>");
    }

    #[test]
    fn the_cursor_stands_where_the_next_character_will() {
        let layout = |text: &str, edits: &[Edit], width| typed(text, edits).layout(width);
        let expect = |lines: &[&str], cursor| Layout {
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
            cursor,
        };
        assert_eq!(layout("", &[], 5), expect(&[""], (0, 0)));
        assert_eq!(layout("abc", &[], 5), expect(&["abc"], (0, 3)));
        assert_eq!(layout("abcde", &[], 5), expect(&["abcde", ""], (1, 0)));
        assert_eq!(layout("abcdef", &[Edit::Left], 5), expect(&["abcde", "f"], (1, 0)));
        assert_eq!(layout("a\nb", &[Edit::Up], 5), expect(&["a", "b"], (0, 1)));
        assert_eq!(layout("你好世", &[], 5), expect(&["你好", "世"], (1, 2)));
        assert_eq!(layout("a\n", &[], 5), expect(&["a", ""], (1, 0)));
    }
}
