use std::time::Duration;

use super::connection::ConnectionArgs;
use super::{duration, output, render};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peerpost token create --name laptop
  peerpost token create --name report --ttl 30d
  peerpost token list
  peerpost token revoke 0190a1b2-…

A token is printed once, on stdout, when it is made: PEERPOST_TOKEN uses it elsewhere.")]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make one more token for oneself, for another device or program.
    Create {
        /// What it is for, to be shown in lists: at most 64 characters.
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        name: String,
        /// How long it is good, such as 12h or 30d, up to a hundred years [default: until it is revoked].
        #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
        ttl: Option<Duration>,
    },
    /// List one's tokens, without what gives them away.
    List {
        /// Print a JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// End one of one's tokens: its calls are refused, and its streams end.
    Revoke {
        /// Its id, as it is listed.
        token_id: String,
    },
}

pub(super) async fn run(connection: &ConnectionArgs, args: &Args) -> anyhow::Result<()> {
    let client = connection.authenticated()?;
    match &args.action {
        Action::Create { name, ttl } => {
            let (info, secret) = client.create_token(name, *ttl).await?;
            output::note(&format!("token {}, shown only now:", info.token_id));
            output::line(secret.reveal())
        }
        Action::List { json } => {
            for token in client.tokens().await? {
                output::line(&render::token(&token, *json)?)?;
            }
            Ok(())
        }
        Action::Revoke { token_id } => {
            client.revoke_token(token_id).await?;
            output::note(&format!("token {token_id} is good no more"));
            Ok(())
        }
    }
}
