//! A file with every setting, for people to choose from.

use std::fmt::Write as _;

use toml::Value;

use super::effective::typed;
use super::setting::{Kind, Setting};

const HEADER: &str = "\
# Settings of `peerpost serve`: `peerpost serve --config FILE`, or PEERPOST_CONFIG.
#
# Each is a flag without its dashes. The environment (PEERPOST_…) goes before this file, and flags
# before both; `peerpost config` shows what counts in the end. Read when the server starts.
";

/// The columns of a comment.
const WIDTH: usize = 100;

/// The file. Every line of it is a comment.
pub(super) fn file() -> String {
    let mut text = HEADER.to_owned();
    for setting in Setting::all() {
        text.push('\n');
        comment(&mut text, &setting.help());
        let possible = setting.possible_values();
        if !possible.is_empty() {
            comment(&mut text, &format!("One of: {}.", possible.join(", ")));
        }
        comment(&mut text, &format!("Default: {}.", default(&setting)));
        let _ = writeln!(text, "#{} = {}", setting.key(), sample(&setting));
    }
    text
}

/// What holds when nothing is set.
pub(super) fn default(setting: &Setting) -> String {
    let values = setting.default_values();
    match setting.told_default() {
        Some(told) => told,
        None if values.is_empty() => "none".to_owned(),
        None => values.join(", "),
    }
}

/// A value of the right kind: the default, where that is one.
fn sample(setting: &Setting) -> String {
    let mut values = setting.default_values();
    values.extend(setting.told_value());
    let mut values: Vec<_> = values.iter().map(|value| typed(setting, value)).collect();
    if values.is_empty() {
        values.push(match setting.kind() {
            Kind::WholeNumber | Kind::Number => Value::Integer(1),
            Kind::Switch => Value::Boolean(false),
            Kind::Text | Kind::TextOrNumber => Value::String(setting.value_name()),
        });
    }
    match values.as_slice() {
        [value] if !setting.is_list() => value.to_string(),
        _ => Value::Array(values).to_string(),
    }
}

/// Adds a comment, broken into lines.
fn comment(text: &mut String, comment: &str) {
    for paragraph in comment.lines() {
        let mut line = String::from("#");
        for word in paragraph.split_whitespace() {
            if line.chars().count() + 1 + word.chars().count() > WIDTH {
                let _ = writeln!(text, "{line}");
                line = String::from("#");
            }
            line.push(' ');
            line.push_str(word);
        }
        let _ = writeln!(text, "{line}");
    }
}
