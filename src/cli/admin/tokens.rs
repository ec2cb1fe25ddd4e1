use std::time::Duration;

use serde::Serialize;

use super::users::Name;
use super::{Place, output, render};
use crate::cli::duration;
use crate::cli::escape::printable;
use crate::proto::admin::revoke_account_tokens_request::Which;
use crate::proto::admin::{
    AccountToken, CreateAccountTokenRequest, ListAccountTokensRequest, RevokeAccountTokensRequest,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peerpost admin tokens list alice
  peerpost admin tokens create alice --revoke-others      for one who lost theirs, perhaps to others
  peerpost admin tokens revoke alice 0190a1b2-…
  peerpost admin tokens revoke alice --all

A token is printed once, on stdout, when it is made.")]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List a user's tokens, without what gives them away.
    List {
        #[command(flatten)]
        user: Name,
        /// Print a JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Make a token for a user: for one who lost theirs.
    Create {
        #[command(flatten)]
        user: Name,
        /// What it is for, to be shown in lists: at most 64 characters.
        #[arg(long = "name", value_name = "TEXT", default_value = "", hide_default_value = true)]
        display_name: String,
        /// How long it is good, such as 12h or 30d, up to a hundred years [default: until it is revoked].
        #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
        ttl: Option<Duration>,
        /// Revoke all others along with it.
        #[arg(long)]
        revoke_others: bool,
    },
    /// End a user's tokens: their calls are refused, and their streams end.
    Revoke {
        #[command(flatten)]
        user: Name,
        #[command(flatten)]
        which: Chosen,
    },
}

/// Which tokens to end.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Chosen {
    /// The token's id, as it is listed.
    token_id: Option<String>,
    /// All of them.
    #[arg(long)]
    all: bool,
}

#[derive(Serialize)]
struct TokenJson<'a> {
    token_id: &'a str,
    display_name: &'a str,
    create_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expire_time: Option<String>,
}

pub(super) async fn run(place: &Place, args: &Args) -> anyhow::Result<()> {
    let admin = place.connect().await?;
    match &args.action {
        Action::List { user, json } => {
            let request = ListAccountTokensRequest { username: user.text() };
            let listing =
                admin.call(|mut grpc| async move { grpc.list_account_tokens(request).await });
            for token in &listing.await?.tokens {
                output::line(&shown(token, *json)?)?;
            }
            Ok(())
        }
        Action::Create { user, display_name, ttl, revoke_others } => {
            let request = CreateAccountTokenRequest {
                username: user.text(),
                display_name: display_name.clone(),
                ttl: ttl.map(prost_types::Duration::try_from).transpose()?,
                revoke_others: *revoke_others,
            };
            let creating =
                admin.call(|mut grpc| async move { grpc.create_account_token(request).await });
            let made = creating.await?;
            let id = made.token.unwrap_or_default().token_id;
            output::note(&format!("token {id} of {}, shown only now:", user.text()));
            output::line(&made.secret)
        }
        Action::Revoke { user, which: Chosen { token_id, all } } => {
            let which = token_id.clone().map_or(Which::All(*all), Which::TokenId);
            let request = RevokeAccountTokensRequest { username: user.text(), which: Some(which) };
            let revoking =
                admin.call(|mut grpc| async move { grpc.revoke_account_tokens(request).await });
            output::note(&format!("{} revoked", revoking.await?.revoked));
            Ok(())
        }
    }
}

fn shown(token: &AccountToken, json: bool) -> anyhow::Result<String> {
    let create_time = render::proto_time(token.create_time.as_ref())?;
    let expire_time = token.expire_time.as_ref().map(|time| render::proto_time(Some(time)));
    let expire_time = expire_time.transpose()?;
    let (token_id, display_name) = (&token.token_id, &token.display_name);
    if json {
        return render::to_json(&TokenJson { token_id, display_name, create_time, expire_time });
    }
    let expires = expire_time.map(|time| format!("  until {time}")).unwrap_or_default();
    let line = format!("{token_id}  {create_time}{expires}  {}", printable(display_name));
    Ok(line.trim_end().to_owned())
}
