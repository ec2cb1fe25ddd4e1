//! Text of others, made safe to show: a message must not drive somebody's terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The text on one line, with each character that a terminal would act upon, or that would reorder
/// what stands around it, written as an escape.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let shown = text.chars().fold(String::with_capacity(text.len() + 16), |mut shown, c| {
        if is_unsafe(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
        shown
    });
    Cow::Owned(shown)
}

/// JSON with the same characters as `\uXXXX`, which means the same to whoever parses it: in valid
/// JSON on one line they stand in strings alone, and JSON itself escapes only some.
pub(super) fn printable_json(json: &str) -> Cow<'_, str> {
    if !json.contains(is_unsafe) {
        return Cow::Borrowed(json);
    }
    let shown = json.chars().fold(String::with_capacity(json.len() + 16), |mut shown, c| {
        if is_unsafe(c) {
            // Writing to a String does not fail; all of these are below U+10000.
            let _ = write!(shown, "\\u{:04x}", u32::from(c));
        } else {
            shown.push(c);
        }
        shown
    });
    Cow::Owned(shown)
}

/// Control characters (C0, DEL, C1), line separators, and those that turn the direction of text.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_upon_is_escaped() {
        let shown = [
            ("hello, wörld 👋", "hello, wörld 👋"),
            ("two\nlines\tand\r", r"two\nlines\tand\r"),
            ("\u{1b}[2J", r"\u{1b}[2J"),
            ("\u{1b}]0;title\u{7}", r"\u{1b}]0;title\u{7}"),
            ("\u{9b}31m\u{7f}", r"\u{9b}31m\u{7f}"),
            ("\u{202e}desrever", r"\u{202e}desrever"),
        ];
        for (text, expected) in shown {
            assert_eq!(printable(text), expected);
        }
    }

    #[test]
    fn json_keeps_its_meaning() {
        let text = "\u{1b}[2J \u{9b}31m \u{7f} \u{202e} ö 👋";
        let json = serde_json::to_string(text).expect("a string");
        let shown = printable_json(&json);
        assert!(!shown.contains(is_unsafe), "{shown}");
        assert_eq!(serde_json::from_str::<String>(&shown).expect("still JSON"), text);
    }
}
