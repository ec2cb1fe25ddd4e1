use tokio_stream::StreamExt as _;

use super::connection::ConnectionArgs;
use super::{output, render};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peerpost users
  peerpost users --prefix al --json")]
pub(super) struct Args {
    /// Only names that begin with this, in any case.
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    prefix: String,

    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(connection: &ConnectionArgs, args: &Args) -> anyhow::Result<()> {
    let mut users = connection.authenticated()?.users(&args.prefix);
    while let Some(user) = users.next().await {
        let user = user?;
        if args.json {
            output::line(&render::user_json(&user)?)?;
        } else {
            output::line(&render::user_line(&user))?;
        }
    }
    Ok(())
}
