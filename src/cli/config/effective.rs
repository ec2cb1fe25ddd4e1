//! The settings as they are in effect, as a file that says where each is from.

use std::fmt::Write as _;

use clap::ArgMatches;
use clap::parser::ValueSource;
use toml::Value;

use super::Origins;
use super::setting::{Kind, Setting};

/// The column in which the origins begin, where the values leave room for it.
const ORIGIN_COLUMN: usize = 48;

/// The file.
pub(super) fn file(matches: &ArgMatches, origins: Option<&Origins>) -> String {
    let mut text = String::from("# What `peerpost serve` uses, and where it is from.\n");
    if let Some(origins) = origins {
        let _ = writeln!(text, "# File: {}", origins.path.display());
    }
    text.push('\n');
    for setting in Setting::all() {
        let line = match value(matches, &setting) {
            Some(value) => format!("{} = {value}", setting.key()),
            None => format!("# {} is not set", setting.key()),
        };
        let origin = origin(matches, &setting, origins);
        let _ = writeln!(text, "{line:ORIGIN_COLUMN$}  # {origin}");
    }
    text
}

fn origin(matches: &ArgMatches, setting: &Setting, origins: Option<&Origins>) -> String {
    match matches.value_source(setting.id()) {
        Some(ValueSource::CommandLine) => {
            let line = origins.and_then(|it| Some((it, it.lines.get(setting.id())?)));
            match line {
                Some((origins, line)) => format!("{}:{line}", origins.path.display()),
                None => format!("--{}", setting.key()),
            }
        }
        Some(ValueSource::EnvVariable) => setting.variable(),
        _ => match setting.told_default() {
            Some(told) if setting.told_value().is_none() => format!("default: {told}"),
            _ => "default".to_owned(),
        },
    }
}

/// The value in TOML; `None` when there is none.
fn value(matches: &ArgMatches, setting: &Setting) -> Option<Value> {
    if setting.kind() == Kind::Switch {
        return matches.get_one::<bool>(setting.id()).copied().map(Value::Boolean);
    }
    let Some(raw) = matches.get_raw(setting.id()) else {
        return setting.told_value().map(|told| typed(setting, &told));
    };
    let mut values = raw.map(|value| typed(setting, &value.to_string_lossy()));
    if setting.is_list() { Some(Value::Array(values.collect())) } else { values.next() }
}

/// A value as it stands in a file.
pub(super) fn typed(setting: &Setting, text: &str) -> Value {
    let number = match setting.kind() {
        Kind::WholeNumber => text.parse().ok().map(Value::Integer),
        Kind::Number => text.parse().ok().map(Value::Float),
        Kind::Switch => text.parse().ok().map(Value::Boolean),
        Kind::Text | Kind::TextOrNumber => None,
    };
    number.unwrap_or_else(|| Value::String(text.to_owned()))
}
