//! The command line: data to stdout, everything else to stderr.
//!
//! Exit codes: 0 for success, 1 for a failure, 2 for a command line, or a file of settings, that is not
//! understood.

mod admin;
mod advice;
mod bench;
mod chat;
mod completions;
mod config;
mod connection;
mod delete_user;
mod duration;
mod escape;
mod follow;
mod health;
mod identity;
mod import_flask;
mod inbox;
mod man;
mod output;
mod profile;
mod profiles;
mod register;
mod render;
mod send;
mod serve;
mod serve_limits;
mod signals;
mod since;
mod start_advice;
mod style;
mod terminal;
mod token;
mod top;
#[cfg(feature = "testing")]
mod torture;
mod traces;
mod users;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::EnvFilter;

use connection::ConnectionArgs;

use crate::version::VERSION_AND_COMMIT;

const ABOUT: &str = "Messages between peers: one server, one mailbox for each user, one command.";

const EXAMPLES: &str = "\
Examples:
  peerpost serve                            run a server on this machine
  peerpost register alice                   take a name; its token is kept for this machine
  peerpost chat bob                         talk to bob in the terminal
  peerpost send bob 'hello, bob'            send a message; without a text what stdin has
  peerpost inbox --since yesterday          read messages
  peerpost follow --ack                     print messages as they come, and remember how far
  peerpost --as bob users --prefix al       look for other users

Environment:
  PEERPOST_SERVER      as --server            PEERPOST_TOKEN       the token to use instead of a kept one
  PEERPOST_USER        as --as                PEERPOST_CONFIG_DIR  where tokens and profiles are kept
  PEERPOST_PROFILE     as --profile           NO_COLOR             if set: no colours
  PEERPOST_LOG         what is logged to stderr, such as `debug` or `peerpost=debug`";

/// How long blocked threads may take to end when the command is done.
const THREADS_STOP_DEADLINE: Duration = Duration::from_secs(1);

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "peerpost",
    version = VERSION_AND_COMMIT,
    about = ABOUT,
    after_help = EXAMPLES,
    arg_required_else_help = true
)]
struct Cli {
    /// When to use colours: on a terminal, unless `NO_COLOR` is set; always; never.
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        value_enum,
        default_value = "auto",
        hide_possible_values = true
    )]
    color: style::When,

    #[command(flatten)]
    connection: ConnectionArgs,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server.
    Serve(Box<serve::Args>),
    /// Register a name and keep its token, or update the address of a name of one's own.
    Register(register::Args),
    /// Talk to somebody in the terminal: history, live messages, and a line to type in.
    Chat(chat::Args),
    /// Send a message.
    Send(send::Args),
    /// Read the mailbox: the newest messages, or those since a time, after or before a sequence.
    Inbox(inbox::Args),
    /// Follow the mailbox: print messages as they come, across restarts of the server.
    Follow(follow::Args),
    /// List the registered users.
    Users(users::Args),
    /// Make, list and revoke one's own tokens.
    Token(token::Args),
    /// Delete oneself at a server, for ever.
    DeleteUser(delete_user::Args),
    /// Ask whether a server takes calls: exit code 0 if it does, else 1. For supervisors.
    #[command(after_help = health::EXAMPLES)]
    Health,
    /// Show the settings that a server would use and where they are from, or check them.
    // In a box, since it has the flags of `serve` as well.
    Config(Box<config::Args>),
    /// Watch a running server: its figures live in the terminal, or once as text.
    Top(top::Args),
    /// Administer a server on this machine: look at it, back up, restore and check its data.
    Admin(admin::Args),
    /// Take over the users and messages of the Flask app that peerpost descends from.
    ImportFlask(import_flask::Args),
    /// Keep servers and users under names, and choose among them.
    Profile(profile::Args),
    /// Print what a shell needs to complete this command's words.
    Completions(completions::Args),
    /// Print or install the man pages.
    Man(man::Args),
    /// Measure how fast a server is, beside what this machine can do at most.
    Bench(bench::Args),
    /// Attack servers from seeds, and check what their clients were told against every promise.
    // Only where the harness is compiled in: what serves people has no use for a command that kills.
    #[cfg(feature = "testing")]
    Torture(torture::Args),
    /// What `bench` compares with.
    #[command(name = bench::noop::COMMAND, hide = true)]
    BenchNoopServer(bench::noop::Args),
}

/// The exit code for what is not understood, clap's own.
const USAGE: u8 = 2;

/// The command line, with the settings of a server as they can be given.
fn command() -> clap::Command {
    config::settable(Cli::command())
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let command = command();
    let (words, origins) = match config::with_file(&command, std::env::args_os().collect()) {
        Ok(words) => words,
        Err(error) => {
            advice::report(&error);
            return ExitCode::from(USAGE);
        }
    };
    let matches = match command.try_get_matches_from(words) {
        Ok(matches) => matches,
        // Or for --help and --version.
        Err(error) => return config::refuse(&error, origins.as_ref()),
    };
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    cli.connection.note_sources(&matches);
    style::choose(cli.color);
    let outcome = match &cli.command {
        Command::Config(args) => config::run(args, &matches, origins.as_ref()),
        _ => run(&cli),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough: `peerpost follow | head -1` is no failure.
        Err(error) if error.is::<output::ReaderGone>() => ExitCode::SUCCESS,
        Err(error) => {
            advice::report(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    match &cli.command {
        Command::Serve(args) => init_logging(Some(&args.log), "info", args.log_format)?,
        Command::BenchNoopServer(_) => init_logging(None, "info", LogFormat::Text)?,
        // A log would be written over its screen; `2> file` has it elsewhere.
        Command::Chat(_) | Command::Top(_) if std::io::stderr().is_terminal() => {}
        // The other commands say what matters themselves.
        _ => init_logging(None, "warn", LogFormat::Text)?,
    }
    if let Command::Bench(args) = &cli.command {
        // A runtime of its own kind. The environment's server is for messages: load is put only on
        // one that the command line names.
        return bench::run(cli.connection.server_on_command_line(), args);
    }
    // One thread is enough for a command's own doings; a server has its own for its connections.
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the threads of the runtime")?;
    let outcome = runtime.block_on(async {
        match &cli.command {
            Command::Serve(args) => serve::run(args).await,
            Command::Register(args) => register::run(&cli.connection, args).await,
            Command::Chat(args) => chat::run(&cli.connection, args).await,
            Command::Send(args) => send::run(&cli.connection, args).await,
            Command::Inbox(args) => inbox::run(&cli.connection, args).await,
            Command::Follow(args) => follow::run(&cli.connection, args).await,
            Command::Users(args) => users::run(&cli.connection, args).await,
            Command::Token(args) => token::run(&cli.connection, args).await,
            Command::DeleteUser(args) => delete_user::run(&cli.connection, args).await,
            Command::Health => health::run(&cli.connection).await,
            Command::Top(args) => top::run(args).await,
            Command::Admin(args) => admin::run(args).await,
            Command::ImportFlask(args) => import_flask::run(&cli.connection, args).await,
            Command::Profile(args) => profile::run(&cli.connection, args),
            Command::Completions(args) => completions::run(args),
            Command::Man(args) => man::run(args),
            #[cfg(feature = "testing")]
            Command::Torture(args) => torture::run(args).await,
            // Ran above.
            Command::Bench(_) | Command::Config(_) => Ok(()),
            Command::BenchNoopServer(args) => bench::noop::run(args).await,
        }
    });
    stop(runtime);
    outcome
}

/// Ends the runtime's threads. One that hangs, in a disk that does not answer or a pipe that nobody
/// reads, does not keep the process: the command is done, and had its own deadlines.
fn stop(runtime: Runtime) {
    runtime.shutdown_timeout(THREADS_STOP_DEADLINE);
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    /// A line an event, for people.
    Text,
    /// A JSON object an event, for programs.
    Json,
}

/// What is logged, if it is understood.
fn log_filter(directives: &str) -> Result<String, String> {
    EnvFilter::try_new(directives).map_err(|error| error.to_string())?;
    Ok(directives.to_owned())
}

/// With `directives`, else those of the environment, else `default`.
fn init_logging(directives: Option<&str>, default: &str, format: LogFormat) -> anyhow::Result<()> {
    const VARIABLE: &str = "PEERPOST_LOG";
    let directives = directives.map(str::to_owned).or_else(|| std::env::var(VARIABLE).ok());
    let filter = match directives {
        Some(directives) if !directives.is_empty() => EnvFilter::try_new(&directives)
            .with_context(|| format!("{VARIABLE} is {directives:?}, which is not a log filter"))
            .map_err(|error| advice::advise(error, "such as `debug` or `peerpost=debug`"))?,
        _ => EnvFilter::new(default),
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(style::on_stderr()).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn a_thread_that_hangs_does_not_keep_the_process() {
        let runtime = Builder::new_multi_thread().build().expect("a runtime");
        let (release, hangs) = std::sync::mpsc::sync_channel::<()>(0);
        runtime.spawn_blocking(move || hangs.recv());
        stop(runtime);
        // Only now, after `stop` came back without it.
        drop(release);
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for line in ["peerpost --as alice users", "peerpost users --as alice"] {
            let cli = Cli::try_parse_from(line.split(' ')).expect(line);
            assert_eq!(cli.connection.user.expect("a name").as_str(), "alice");
        }
    }
}
