//! Where the server's settings come from: one TOML file, then the environment, then flags.
//!
//! What the file sets is put on the command line, unless the environment or the command line has it. So
//! clap's parsers and rules hold for all three, and know nothing of files.

mod effective;
mod example;
mod file;
#[cfg(test)]
mod reference;
mod setting;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use self::setting::Setting;
use super::{output, serve};

pub(super) use self::setting::settable;

/// The flag that names the file.
const FILE_FLAG: &str = "config";

/// Where the file is: for the commands that take the server's settings.
#[derive(Debug, clap::Args)]
pub(super) struct FileArgs {
    /// A file with settings, in TOML: each flag without its dashes is a key. The environment goes before
    /// the file, and flags before both.
    #[arg(long, env = "PEERPOST_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
// Its group would have the name of that of `serve`.
#[group(skip)]
#[command(after_help = "\
Examples:
  peerpost config                                       what `peerpost serve` would use, and why
  peerpost config --config /etc/peerpost.toml --check   whether a server could start with this file
  peerpost config --example > peerpost.toml             every setting, to choose from

Takes the flags of `serve`. What it prints can be used as a file. Exit code 2 when something in the
file, the environment or the flags is not understood, 1 when a server would not start with it.")]
pub(super) struct Args {
    #[command(flatten)]
    serve: serve::Args,

    /// Print nothing but what would keep a server from starting: combinations that are refused, and
    /// certificates that cannot be used.
    #[arg(long)]
    check: bool,

    /// Print a file with every setting, its default, its unit and its bounds, each as a comment.
    #[arg(long, conflicts_with = "check")]
    example: bool,
}

/// What a file set.
#[derive(Debug)]
pub(super) struct Origins {
    path: PathBuf,
    /// The lines of what counts, by the setting's id.
    lines: HashMap<String, usize>,
}

/// Adds to the words of the command line what the file sets that they name, if they name one.
pub(super) fn with_file(
    command: &Command,
    mut words: Vec<OsString>,
) -> anyhow::Result<(Vec<OsString>, Option<Origins>)> {
    // What is wrong with the words is said when they are parsed with the file's.
    let probe = command.clone().ignore_errors(true).try_get_matches_from(&words);
    let Ok(probe) = probe else { return Ok((words, None)) };
    let Some((name, given)) = probe.subcommand() else { return Ok((words, None)) };
    // `admin` has commands of its own, which know all that it knows.
    let given = given.subcommand().map_or(given, |(_, given)| given);
    let path = given.try_get_one::<PathBuf>(FILE_FLAG).ok().flatten();
    let Some(path) = path else { return Ok((words, None)) };
    let settings = Setting::all();
    let mut lines = HashMap::new();
    let mut added = Vec::new();
    for file::Entry { setting, values, line } in file::read(path, &settings)? {
        if setting.is_for(name) && !is_given(given, setting) {
            lines.insert(setting.id().to_owned(), line);
            added.extend(values.iter().map(|value| setting.word(value)));
        }
    }
    // Behind `--` nothing is a flag.
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    words.splice(end..end, added);
    Ok((words, Some(Origins { path: path.clone(), lines })))
}

/// Whether the environment or the command line has it.
fn is_given(matches: &ArgMatches, setting: &Setting) -> bool {
    let source = matches.value_source(setting.id());
    matches!(source, Some(ValueSource::EnvVariable | ValueSource::CommandLine))
}

/// Says what is wrong with a command line that is not understood, as clap does, and which file is part of
/// it; or prints the help that was asked for. The exit code for it.
pub(super) fn refuse(error: &clap::Error, origins: Option<&Origins>) -> ExitCode {
    // Should stderr be closed, there is nobody to tell.
    let _ = error.print();
    if let Some(Origins { path, .. }) = origins.filter(|_| error.use_stderr()) {
        output::note(&format!("(some of the flags are from {})", path.display()));
    }
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

pub(super) fn run(
    args: &Args,
    matches: &ArgMatches,
    origins: Option<&Origins>,
) -> anyhow::Result<()> {
    if args.example {
        return output::bytes(example::file().as_bytes());
    }
    if args.check {
        return serve::check(&args.serve);
    }
    let matches = matches.subcommand_matches("config");
    output::bytes(matches.map_or_else(String::new, |it| effective::file(it, origins)).as_bytes())
}
