//! The command line: data to stdout, everything else to stderr.
//!
//! Exit codes: 0 for success, 1 for a failure, 2 for a command line that is not understood.

mod admin;
mod advice;
mod bench;
mod chat;
mod completions;
mod connection;
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
mod signals;
mod since;
mod style;
#[cfg(feature = "testing")]
mod torture;
mod users;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::EnvFilter;

use connection::ConnectionArgs;

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
#[command(name = "peerpost", version, about = ABOUT, after_help = EXAMPLES, arg_required_else_help = true)]
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
    Serve(serve::Args),
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
    /// Ask whether a server takes calls: exit code 0 if it does, else 1. For supervisors.
    #[command(after_help = health::EXAMPLES)]
    Health,
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

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    // Ends the process by itself for --help and --version, and for a usage error with exit code 2.
    let matches = Cli::command().get_matches();
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    cli.connection.note_sources(&matches);
    style::choose(cli.color);
    match run(&cli) {
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
        Command::Serve(args) => init_logging("info", args.log_format)?,
        Command::BenchNoopServer(_) => init_logging("info", LogFormat::Text)?,
        // A log would be written over its screen; `2> file` has it elsewhere.
        Command::Chat(_) if std::io::stderr().is_terminal() => {}
        // The other commands say what matters themselves.
        _ => init_logging("warn", LogFormat::Text)?,
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
            Command::Health => health::run(&cli.connection).await,
            Command::Admin(args) => admin::run(args).await,
            Command::ImportFlask(args) => import_flask::run(&cli.connection, args).await,
            Command::Profile(args) => profile::run(&cli.connection, args),
            Command::Completions(args) => completions::run(args),
            Command::Man(args) => man::run(args),
            #[cfg(feature = "testing")]
            Command::Torture(args) => torture::run(args).await,
            // Ran above.
            Command::Bench(_) => Ok(()),
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

fn init_logging(default: &str, format: LogFormat) -> anyhow::Result<()> {
    const VARIABLE: &str = "PEERPOST_LOG";
    let filter = match std::env::var(VARIABLE) {
        Ok(directives) if !directives.is_empty() => EnvFilter::try_new(&directives)
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
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
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
