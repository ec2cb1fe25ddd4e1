use anyhow::Context as _;

use super::connection::{ConnectionArgs, token_from_environment};
use super::identity::Identities;
use super::output;
use crate::domain::Username;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peerpost delete-user alice

It cannot be undone. The tokens are good no more, nobody finds the user or reads their mailbox, and what they
sent stays with those who received it. The name stays taken for ever.")]
pub(super) struct Args {
    /// The own name, which confirms it.
    #[arg(value_parser = Username::parse)]
    name: Username,
}

pub(super) async fn run(connection: &ConnectionArgs, args: &Args) -> anyhow::Result<()> {
    let name = &args.name;
    let (client, _) = connection.identified()?;
    client.delete_user(name.as_str()).await?;
    output::note(&format!("{name} is deleted"));
    if token_from_environment()?.is_none() {
        Identities::of_server(client.server())?
            .forget(name)
            .context("deleted, but the kept token, which is good no more, cannot be removed")?;
    }
    Ok(())
}
