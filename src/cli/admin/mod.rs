//! `peerpost admin`: what an operator does with a data folder on this machine, and with the server that
//! runs on it.
//!
//! One file for each group of commands. What needs a running server goes over its admin socket:
//! [`Place::connect`], and a method of `AdminService` for each.

mod audit;
mod files;
mod invites;
mod limits;
mod rebuild;
mod retention;
mod stats;
mod tokens;
mod users;

use std::path::PathBuf;

use super::advice::advise;
use super::{output, render};
use crate::client::AdminClient;
use crate::server::ADMIN_SOCKET_FILE;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peerpost admin stats                                  what a running server holds
  peerpost admin users ban mallory --reason junk        and her streams end at once
  peerpost admin tokens create alice --revoke-others    for one who lost her token
  peerpost admin invites create --uses 10 --ttl 7d
  peerpost admin audit --since yesterday
  peerpost admin limits set alice --send-rate 100/s     how fast one user may send
  peerpost admin backup /var/backups/peerpost-1.db      a copy of a running server's data
  peerpost admin check                                  everything stored, held against what must be so
  peerpost admin restore /var/backups/peerpost-1.db --data-dir restored")]
pub(super) struct Args {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

/// Where the data and the server on it are.
#[derive(Debug, clap::Args)]
struct Place {
    /// The server's file of settings, which says where its data folder is.
    #[arg(id = "config", long, global = true, env = "PEERPOST_CONFIG", value_name = "FILE")]
    _file: Option<PathBuf>,

    /// The server's data folder.
    #[arg(
        long,
        global = true,
        env = "PEERPOST_DATA_DIR",
        value_name = "FOLDER",
        default_value = "peerpost-data"
    )]
    data_dir: PathBuf,

    /// The Unix socket of the server that runs on it [default: admin.sock in the data folder].
    #[arg(long, global = true, env = "PEERPOST_ADMIN_SOCKET", value_name = "PATH")]
    admin_socket: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    #[command(flatten)]
    Files(files::Command),
    /// Show or set what a user may do: how fast they may send, how many subscriptions they may have.
    Limits(limits::Args),
    /// Make the indexes again from the log, when they are damaged; while no server runs.
    RebuildIndex(rebuild::Args),
    /// Show what a running server holds, and what is connected to it.
    Stats(stats::Args),
    /// Look at users, ban and unban them, delete them.
    Users(users::Args),
    /// List, make and revoke users' tokens: also for one who lost theirs.
    Tokens(tokens::Args),
    /// Make, list and revoke invites, with which new names can be registered.
    #[command(alias = "invite")]
    Invites(invites::Args),
    /// List who did what to whose access.
    Audit(audit::Args),
    /// Show or set what is kept of a user's mailbox.
    Retention(retention::Args),
}

pub(super) async fn run(args: &Args) -> anyhow::Result<()> {
    let place = &args.place;
    match &args.command {
        Command::Files(command) => files::run(&place.data_dir, command),
        Command::Limits(args) => limits::run(place, args).await,
        Command::RebuildIndex(args) => rebuild::run(&place.data_dir, args),
        Command::Stats(args) => stats::run(place, args).await,
        Command::Users(args) => users::run(place, args).await,
        Command::Tokens(args) => tokens::run(place, args).await,
        Command::Invites(args) => invites::run(place, args).await,
        Command::Audit(args) => audit::run(place, args).await,
        Command::Retention(args) => retention::run(place, args).await,
    }
}

impl Place {
    /// The server that runs on the data folder.
    async fn connect(&self) -> anyhow::Result<AdminClient> {
        let socket = match &self.admin_socket {
            Some(socket) => socket.clone(),
            None => self.data_dir.join(ADMIN_SOCKET_FILE),
        };
        AdminClient::connect(&socket).await.map_err(|error| {
            advise(
                error,
                format!(
                    "this needs the server that runs on {folder}: `peerpost serve --data-dir {folder}` \
                     starts one; if its admin socket is elsewhere, name it with --admin-socket; only its \
                     own user and root may connect",
                    folder = self.data_dir.display()
                ),
            )
        })
    }
}
