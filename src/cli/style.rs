//! Colours, where somebody sees them.

use std::borrow::Cow;
use std::io::{IsTerminal as _, stderr, stdout};
use std::sync::OnceLock;

use clap::ValueEnum;

/// When the output has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum When {
    /// On a terminal, unless `NO_COLOR` is set or the terminal is dumb.
    Auto,
    Always,
    Never,
}

const RESET: &str = "\u{1b}[0m";
const BOLD: &str = "\u{1b}[1m";
const DIM: &str = "\u{1b}[2m";
const ERROR: &str = "\u{1b}[1;31m";
const HINT: &str = "\u{1b}[36m";

static CHOICE: OnceLock<When> = OnceLock::new();

/// Settles it for the process: the first to call decides.
pub(super) fn choose(when: When) {
    let _ = CHOICE.set(when);
}

/// Whether what goes to stdout has colours.
pub(super) fn on_stdout() -> bool {
    has_colours(stdout().is_terminal())
}

/// Whether what goes to stderr has colours.
pub(super) fn on_stderr() -> bool {
    has_colours(stderr().is_terminal())
}

fn has_colours(is_terminal: bool) -> bool {
    match CHOICE.get().unwrap_or(&When::Auto) {
        When::Always => true,
        When::Never => false,
        When::Auto => {
            let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
            let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
            is_terminal && !is_set("NO_COLOR") && !is_dumb
        }
    }
}

/// A name on stdout.
pub(super) fn name(text: &str) -> Cow<'_, str> {
    paint(text, BOLD, on_stdout())
}

/// What stands around the message on stdout.
pub(super) fn aside(text: &str) -> Cow<'_, str> {
    paint(text, DIM, on_stdout())
}

/// A line on stderr, with its first word in the colour of what it is.
pub(super) fn note(line: &str) -> Cow<'_, str> {
    let is_coloured = on_stderr();
    for (word, style) in [("error:", ERROR), ("hint:", HINT)] {
        if let Some(rest) = line.strip_prefix(word).filter(|_| is_coloured) {
            return Cow::Owned(format!("{}{rest}", paint(word, style, true)));
        }
    }
    Cow::Borrowed(line)
}

fn paint<'a>(text: &'a str, style: &str, is_coloured: bool) -> Cow<'a, str> {
    if is_coloured { Cow::Owned(format!("{style}{text}{RESET}")) } else { Cow::Borrowed(text) }
}
