//! The settings: the flags of `serve`, each with a variable of the environment and a key of the file.
//!
//! They are taken from clap's definitions, so that a new flag is a setting without being named here.

use std::any::TypeId;
use std::ffi::OsString;
use std::num::NonZero;
use std::path::PathBuf;

use clap::builder::{BoolishValueParser, ValueParser};
use clap::{Arg, ArgAction, Args as _, Command};

use super::FILE_FLAG;
use crate::cli::serve;

/// The commands that take the settings.
const COMMANDS: [&str; 2] = ["serve", "config"];

/// What the commands on a server's data take of them: where that is. Whatever else they have under a
/// setting's name means something else.
const ADMIN: &str = "admin";
const ADMIN_SETTINGS: [&str; 2] = ["data-dir", "admin-socket"];

/// In help texts, what holds where nothing is set and clap does not know it.
const DEFAULT_MARK: &str = "[default: ";

/// One setting.
#[derive(Debug, Clone)]
pub(super) struct Setting(Arg);

/// What a setting's values are in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Switch,
    WholeNumber,
    Number,
    Text,
    /// What its parser takes: a text, or a number.
    TextOrNumber,
}

impl Setting {
    /// Every setting, in the order of `serve --help`.
    pub(super) fn all() -> Vec<Self> {
        let defined = serve::Args::augment_args(Command::new("serve"));
        let settings = defined.get_arguments().filter(|arg| is_setting(arg)).cloned();
        settings.map(|arg| Self(from_everywhere(arg))).collect()
    }

    /// What clap knows it by.
    pub(super) fn id(&self) -> &str {
        self.0.get_id().as_str()
    }

    /// Its key in the file, which is its flag without the dashes.
    pub(super) fn key(&self) -> &str {
        self.0.get_long().unwrap_or_default()
    }

    /// Whether the command of this name takes it.
    pub(super) fn is_for(&self, command: &str) -> bool {
        COMMANDS.contains(&command) || command == ADMIN && ADMIN_SETTINGS.contains(&self.key())
    }

    /// Its variable in the environment.
    pub(super) fn variable(&self) -> String {
        self.0.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// What its values are.
    pub(super) fn kind(&self) -> Kind {
        if is_switch(&self.0) { Kind::Switch } else { kind_of(self.0.get_value_parser()) }
    }

    /// Whether it has any number of values.
    pub(super) fn is_list(&self) -> bool {
        matches!(self.0.get_action(), ArgAction::Append)
    }

    /// What stands for its value in help, such as `FILE`.
    pub(super) fn value_name(&self) -> String {
        let names = self.0.get_value_names().unwrap_or_default();
        names.first().map(ToString::to_string).unwrap_or_default()
    }

    /// The words that it takes, if it takes only some.
    pub(super) fn possible_values(&self) -> Vec<String> {
        let values = self.0.get_value_parser().possible_values();
        let values = values.filter(|_| self.kind() != Kind::Switch).into_iter().flatten();
        values.map(|value| value.get_name().to_owned()).collect()
    }

    /// The values that hold when nothing is set, where clap knows them.
    pub(super) fn default_values(&self) -> Vec<String> {
        let values = self.0.get_default_values().iter();
        values.map(|value| value.to_string_lossy().into_owned()).collect()
    }

    /// What holds when nothing is set, as its help tells it.
    pub(super) fn told_default(&self) -> Option<String> {
        let help = self.whole_help();
        let (_, told) = help.split_once(DEFAULT_MARK)?;
        Some(told.split_once(']')?.0.to_owned())
    }

    /// That, where it is a value and not a description of one.
    pub(super) fn told_value(&self) -> Option<String> {
        let told = self.told_default().filter(|_| self.kind() != Kind::Text)?;
        self.complaint(&told).is_none().then_some(told)
    }

    /// What it is for, without its default.
    pub(super) fn help(&self) -> String {
        let mut help = self.whole_help();
        if let Some((before, told)) = help.split_once(DEFAULT_MARK) {
            let after = told.split_once(']').map_or("", |(_, after)| after);
            help = format!("{}{after}", before.trim_end());
        }
        // clap takes the full stop off a single paragraph.
        if !help.ends_with('.') {
            help.push('.');
        }
        help
    }

    fn whole_help(&self) -> String {
        let help = self.0.get_long_help().or_else(|| self.0.get_help());
        help.map(ToString::to_string).unwrap_or_default()
    }

    /// Says what is wrong with a value of the file, by the flag's own parser; whatever else is set.
    pub(super) fn complaint(&self, value: &str) -> Option<String> {
        let alone = Arg::new("value")
            .long("value")
            .action(ArgAction::Set)
            .value_parser(self.0.get_value_parser().clone());
        let command = Command::new("").no_binary_name(true).disable_help_flag(true).arg(alone);
        let error = command.try_get_matches_from([format!("--value={value}")]).err()?;
        let possible = self.possible_values();
        if !possible.is_empty() {
            return Some(format!("must be one of {}", possible.join(", ")));
        }
        Some(match std::error::Error::source(&error) {
            Some(reason) => reason.to_string(),
            None => "a value is required".to_owned(),
        })
    }

    /// The word with which the command line sets it to this.
    pub(super) fn word(&self, value: &str) -> OsString {
        format!("--{}={value}", self.key()).into()
    }
}

/// The command line with the settings made so that each can come from everywhere.
pub(in crate::cli) fn settable(command: Command) -> Command {
    let settings = Setting::all();
    let is_one = |arg: &Arg| settings.iter().any(|setting| setting.id() == arg.get_id().as_str());
    COMMANDS.into_iter().fold(command, |command, name| {
        command.mut_subcommand(name, |it| {
            it.mut_args(|arg| if is_one(&arg) { from_everywhere(arg) } else { arg })
        })
    })
}

fn is_setting(arg: &Arg) -> bool {
    arg.get_long().is_some_and(|long| long != FILE_FLAG) && !arg.is_hide_set()
}

/// A switch becomes one that can be turned off too, since one of the file may be on; and what has no
/// variable gets the one of its name.
fn from_everywhere(arg: Arg) -> Arg {
    let arg = match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .value_name("true|false")
            .default_missing_value("true")
            .default_value("false")
            .hide_default_value(true)
            .hide_possible_values(true)
            .value_parser(BoolishValueParser::new()),
        _ => arg,
    };
    if arg.get_env().is_some() {
        return arg;
    }
    let name = arg.get_long().unwrap_or_default().to_uppercase().replace('-', "_");
    arg.env(format!("PEERPOST_{name}"))
}

fn is_switch(arg: &Arg) -> bool {
    arg.get_value_parser().type_id() == TypeId::of::<bool>()
}

fn kind_of(parser: &ValueParser) -> Kind {
    let is_one_of = |types: &[TypeId]| types.iter().any(|it| parser.type_id() == *it);
    if is_one_of(&[
        TypeId::of::<u16>(),
        TypeId::of::<u32>(),
        TypeId::of::<u64>(),
        TypeId::of::<i64>(),
        TypeId::of::<usize>(),
        TypeId::of::<NonZero<u32>>(),
        TypeId::of::<NonZero<u64>>(),
        TypeId::of::<NonZero<usize>>(),
    ]) {
        Kind::WholeNumber
    } else if is_one_of(&[TypeId::of::<f64>()]) {
        Kind::Number
    } else if is_one_of(&[TypeId::of::<String>(), TypeId::of::<PathBuf>()])
        || parser.possible_values().is_some()
    {
        Kind::Text
    } else {
        Kind::TextOrNumber
    }
}
