//! What the keys mean.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::editor::Edit;

/// What a person at the keyboard wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Edit(Edit),
    Send,
    Newline,
    PageUp,
    PageDown,
    LineUp,
    LineDown,
    Newest,
    Leave,
    /// Ctrl-D: leaves at an empty line, as shells do, and deletes a character otherwise.
    EndOfInput,
    Suspend,
    Redraw,
}

/// The wish that a key stands for, as in shells and editors; `None` for a key without a meaning.
pub(super) fn wish(key: KeyEvent) -> Option<Wish> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let modifiers = key.modifiers;
    if modifiers.contains(KeyModifiers::CONTROL) {
        return with_control(key.code);
    }
    if modifiers.contains(KeyModifiers::ALT) {
        return with_alt(key.code);
    }
    let is_shifted = modifiers.contains(KeyModifiers::SHIFT);
    Some(match key.code {
        KeyCode::Char(c) => Wish::Edit(Edit::Insert(c)),
        KeyCode::Tab => Wish::Edit(Edit::Insert('\t')),
        KeyCode::Enter if is_shifted => Wish::Newline,
        KeyCode::Enter => Wish::Send,
        KeyCode::Up if is_shifted => Wish::LineUp,
        KeyCode::Down if is_shifted => Wish::LineDown,
        KeyCode::Up => Wish::Edit(Edit::Up),
        KeyCode::Down => Wish::Edit(Edit::Down),
        KeyCode::Left => Wish::Edit(Edit::Left),
        KeyCode::Right => Wish::Edit(Edit::Right),
        KeyCode::Home => Wish::Edit(Edit::LineBegin),
        KeyCode::End => Wish::Edit(Edit::LineEnd),
        KeyCode::Backspace => Wish::Edit(Edit::DeleteBefore),
        KeyCode::Delete => Wish::Edit(Edit::DeleteAfter),
        KeyCode::PageUp => Wish::PageUp,
        KeyCode::PageDown => Wish::PageDown,
        KeyCode::Esc => Wish::Newest,
        _ => return None,
    })
}

fn with_control(code: KeyCode) -> Option<Wish> {
    Some(match code {
        KeyCode::Char('a') => Wish::Edit(Edit::LineBegin),
        KeyCode::Char('e') => Wish::Edit(Edit::LineEnd),
        KeyCode::Char('b') => Wish::Edit(Edit::Left),
        KeyCode::Char('f') => Wish::Edit(Edit::Right),
        KeyCode::Char('p') => Wish::Edit(Edit::Up),
        KeyCode::Char('n') => Wish::Edit(Edit::Down),
        KeyCode::Char('u') => Wish::Edit(Edit::CutToLineBegin),
        KeyCode::Char('k') => Wish::Edit(Edit::CutToLineEnd),
        KeyCode::Char('w') | KeyCode::Backspace => Wish::Edit(Edit::CutWordBefore),
        KeyCode::Char('y') => Wish::Edit(Edit::Yank),
        KeyCode::Char('h') => Wish::Edit(Edit::DeleteBefore),
        KeyCode::Left => Wish::Edit(Edit::WordLeft),
        KeyCode::Right => Wish::Edit(Edit::WordRight),
        KeyCode::Up => Wish::LineUp,
        KeyCode::Down => Wish::LineDown,
        KeyCode::End => Wish::Newest,
        KeyCode::Char('j') | KeyCode::Enter => Wish::Newline,
        KeyCode::Char('c') => Wish::Leave,
        KeyCode::Char('d') => Wish::EndOfInput,
        KeyCode::Char('z') => Wish::Suspend,
        KeyCode::Char('l') => Wish::Redraw,
        _ => return None,
    })
}

fn with_alt(code: KeyCode) -> Option<Wish> {
    Some(match code {
        KeyCode::Char('b') | KeyCode::Left => Wish::Edit(Edit::WordLeft),
        KeyCode::Char('f') | KeyCode::Right => Wish::Edit(Edit::WordRight),
        KeyCode::Backspace => Wish::Edit(Edit::CutWordBefore),
        KeyCode::Enter => Wish::Newline,
        _ => return None,
    })
}
