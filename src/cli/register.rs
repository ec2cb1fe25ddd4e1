use std::io;

use super::advice::advise;
use super::connection::{ConnectionArgs, token_from_environment};
use super::identity::{Identities, PendingToken};
use super::{output, render};
use crate::client::{self, Client, ErrorReason, Token};
use crate::domain::Username;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peerpost register alice
  peerpost register alice --ip-address 192.0.2.7:9000
  peerpost register alice --invite pi_3PgNHMlVuvRcWkvbwDF2xw

For a new name the server gives out a token, once. It is kept in the configuration folder, readable
by this user alone. Registering a name of one's own again updates its address.")]
pub(super) struct Args {
    /// The name: 1 to 64 characters out of A-Z a-z 0-9 . _ -, beginning with a letter or a digit.
    #[arg(value_parser = Username::parse)]
    name: Username,

    /// Where peers can reach this user, such as 192.0.2.7:9000 [default: as the server sees it].
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
    ip_address: String,

    /// An invite, for a server where a new name needs one; its operator gives them out.
    #[arg(long, env = "PEERPOST_INVITE", value_name = "INVITE", hide_env_values = true)]
    invite: Option<String>,
}

pub(super) async fn run(connection: &ConnectionArgs, args: &Args) -> anyhow::Result<()> {
    let client = connection.anonymous()?;
    let identities = Identities::of_server(client.server())?;
    let own_token = match token_from_environment()? {
        Some(token) => Some(token),
        None => identities.token(&args.name)?,
    };
    // First the place, then the token that goes there: it is shown only once.
    let place = identities.prepare(&args.name)?;
    let caller = match &own_token {
        Some(token) => client.with_token(token),
        None => client.clone(),
    };
    let invite = args.invite.as_deref().unwrap_or_default();
    let (user, token) = caller
        .register_invited(args.name.as_str(), &args.ip_address, invite)
        .await
        .map_err(|error| explain(error, &identities, &args.name, own_token.is_some()))?;
    match token {
        Some(token) => keep(place, &token, &client, &args.name)?,
        None => output::note(&format!("the address of {} is updated", user.username)),
    }
    output::line(&render::user_line(&user))
}

fn keep(
    place: PendingToken,
    token: &Token,
    client: &Client,
    name: &Username,
) -> anyhow::Result<()> {
    let rescue = |error: io::Error| {
        advise(
            anyhow::Error::new(error).context("registered, but the token cannot be kept"),
            format!(
                "this is the token, shown only now: {}\n\
                 keep it, and use {} as {name} with PEERPOST_TOKEN set to it",
                token.reveal(),
                client.server(),
            ),
        )
    };
    let path = place.keep(token).map_err(rescue)?;
    output::note(&format!("the token of {name} is kept in {}", path.display()));
    Ok(())
}

fn explain(
    error: client::Error,
    identities: &Identities,
    name: &Username,
    has_token: bool,
) -> anyhow::Error {
    let path = identities.path(name);
    match error.reason() {
        Some(ErrorReason::UsernameTaken) if !has_token => advise(
            error,
            format!("choose another name; if it is yours, put its token into {}", path.display()),
        ),
        Some(ErrorReason::UsernameTaken | ErrorReason::TokenUnknown) => advise(
            error,
            format!(
                "the token in PEERPOST_TOKEN or {} is not that of {name} at this server; without \
                 it, `register` asks for the name as a new one",
                path.display()
            ),
        ),
        // Nothing came back, and something may have happened: its token would be lost.
        None if !has_token && !matches!(error, client::Error::Connect { .. }) => advise(
            error,
            format!(
                "it is unknown whether {name} was registered; if the name is taken now, its token \
                 is lost: choose another name"
            ),
        ),
        _ => error.into(),
    }
}
