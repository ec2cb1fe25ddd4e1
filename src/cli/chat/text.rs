//! Text as a terminal shows it: characters as a person counts them, the columns they take, lines that
//! fit. What a terminal would act upon is escaped before.

use std::borrow::Cow;

use unicode_segmentation::{GraphemeCursor, UnicodeSegmentation as _};
use unicode_width::UnicodeWidthStr as _;

use crate::cli::escape::printable;

/// The most code points of one character on the screen. The longest emoji have fewer; what piles up
/// more, such as hundreds of accents on one letter, would be drawn over the lines around it.
const CHARACTER_CODE_POINTS_MAX: usize = 16;

/// The columns of a tab.
const TAB: &str = "    ";

/// The characters of a text as a person counts them, each with the byte at which it begins.
pub(super) fn characters(text: &str) -> impl DoubleEndedIterator<Item = (usize, &str)> {
    text.grapheme_indices(true)
}

/// Whether a character begins or the text ends at this byte.
pub(super) fn is_boundary(text: &str, at: usize) -> bool {
    // It asks for other pieces of a text only when it has not all of it.
    GraphemeCursor::new(at, text.len(), true).is_boundary(text, 0).unwrap_or(true)
}

/// The columns that a text takes on one line.
pub(super) fn columns(text: &str) -> usize {
    text.width()
}

/// A text of one line as it can be shown: nothing in it drives a terminal, or is drawn elsewhere.
pub(super) fn shown(line: &str) -> String {
    let expanded =
        if line.contains('\t') { Cow::Owned(line.replace('\t', TAB)) } else { line.into() };
    let safe = printable(&expanded);
    let too_long = |(_, character): (usize, &str)| {
        character.len() > CHARACTER_CODE_POINTS_MAX
            && character.chars().count() > CHARACTER_CODE_POINTS_MAX
    };
    if !characters(&safe).any(too_long) {
        return safe.into_owned();
    }
    characters(&safe)
        .flat_map(|(_, character)| character.chars().take(CHARACTER_CODE_POINTS_MAX))
        .collect()
}

/// A text as lines of at most `width` columns: its own lines, broken at spaces and between wide
/// characters where that is possible. The first line has `before` columns less, for what stands before
/// it. Never empty.
pub(super) fn wrap(text: &str, width: usize, before: usize) -> Vec<String> {
    let mut wrapping = Wrapping { lines: Vec::new(), line: String::new(), columns: before };
    for line in text.split('\n') {
        wrapping.add(&shown(line.strip_suffix('\r').unwrap_or(line)), width.max(1));
    }
    wrapping.lines
}

struct Wrapping {
    lines: Vec<String>,
    line: String,
    /// What the line takes, with what stands before it.
    columns: usize,
}

impl Wrapping {
    fn add(&mut self, line: &str, width: usize) {
        // Where the line can be broken: before its last word. A first word can go to the next line.
        let mut word = (self.columns > 0).then_some(0);
        for (_, character) in characters(line) {
            let wide = columns(character);
            if self.columns > 0 && self.columns + wide > width {
                // The space at which a line is broken is shown by the break.
                let is_space = character == " ";
                let begin = if is_space { None } else { word };
                word = None;
                let rest = begin.map_or_else(String::new, |at| self.line.split_off(at));
                if begin.is_some() && self.line.ends_with(' ') {
                    self.line.pop();
                }
                self.end_line();
                if columns(&rest) + wide <= width {
                    self.columns = columns(&rest);
                    self.line = rest;
                } else {
                    self.lines.push(rest);
                }
                if is_space {
                    continue;
                }
            }
            if wide > 1 && !self.line.is_empty() {
                word = Some(self.line.len());
            }
            self.line.push_str(character);
            self.columns += wide;
            if wide > 1 || character == " " {
                word = Some(self.line.len());
            }
        }
        self.end_line();
    }

    fn end_line(&mut self) {
        self.lines.push(std::mem::take(&mut self.line));
        self.columns = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_at_spaces_and_words_only_where_they_must() {
        assert_eq!(wrap("one two three", 8, 0), ["one two", "three"]);
        assert_eq!(wrap("one two three", 7, 0), ["one two", "three"]);
        assert_eq!(wrap("one two", 100, 0), ["one two"]);
        assert_eq!(wrap("abcdefghij k", 4, 0), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrap("", 4, 0), [""]);
        assert_eq!(wrap("a\n\nb\r\n", 4, 0), ["a", "", "b", ""]);
        assert_eq!(wrap("  indented", 20, 0), ["  indented"]);
    }

    #[test]
    fn the_first_line_leaves_room_for_what_stands_before_it() {
        assert_eq!(wrap("one two three", 8, 4), ["one", "two", "three"]);
        assert_eq!(wrap("three one", 6, 4), ["", "three", "one"]);
    }

    #[test]
    fn wide_and_composed_characters_are_kept_whole() {
        assert_eq!(wrap("你好世界", 5, 0), ["你好", "世界"]);
        assert_eq!(wrap("你好世界", 7, 2), ["你好", "世界"]);
        assert_eq!(wrap("a你", 2, 0), ["a", "你"]);
        // On a screen of one column it is too wide, and is there all the same.
        assert_eq!(wrap("你a", 1, 0), ["你", "a"]);
        let family = "👨\u{200d}👩\u{200d}👧";
        assert_eq!(wrap(&format!("{family}{family}"), 3, 0), [family, family]);
        assert_eq!(wrap("e\u{301}e\u{301}", 1, 0), ["e\u{301}", "e\u{301}"]);
    }

    #[test]
    fn no_line_is_wider_than_the_screen_and_nothing_is_lost() {
        let text =
            "The quick 狐 jumps over the lazy 🐶, again and againandagainandagain 再び再び再び.";
        for width in 2..90 {
            for before in 0..width {
                let lines = wrap(text, width, before);
                assert!(columns(&lines[0]) + before <= width, "{width} {before} {lines:?}");
                assert!(lines.iter().all(|line| columns(line) <= width), "{width} {lines:?}");
                let is_ink = |c: &char| *c != ' ';
                let ink: String = lines.concat().chars().filter(is_ink).collect();
                assert_eq!(ink, text.chars().filter(is_ink).collect::<String>());
            }
        }
    }

    #[test]
    fn nothing_drives_the_terminal() {
        assert_eq!(wrap("\u{1b}[2J\tx\ry", 40, 0), [r"\u{1b}[2J    x\ry"]);
        let piled = format!("a{}b", "\u{301}".repeat(500));
        assert_eq!(shown(&piled).chars().count(), CHARACTER_CODE_POINTS_MAX + 1);
    }
}
