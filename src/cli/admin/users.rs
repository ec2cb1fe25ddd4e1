use serde::Serialize;

use super::{Place, output, render};
use crate::cli::escape::printable;
use crate::domain::Username;
use crate::proto::admin::{
    Account, AccountStanding, BanAccountRequest, DeleteAccountRequest, GetAccountRequest,
    ListAccountsRequest, UnbanAccountRequest,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peerpost admin users list --prefix al
  peerpost admin users show alice --json
  peerpost admin users ban mallory --reason 'sends junk'
  peerpost admin users unban mallory
  peerpost admin users delete mallory --yes")]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the users, also those who are banned or deleted.
    List {
        /// Only names that begin with this, in any case.
        #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
        prefix: String,
        /// Print a JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Show what is known of a user.
    Show {
        #[command(flatten)]
        user: Name,
        /// Print a JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Let a user do nothing any more: calls are refused, and streams end at once. Others can still write
    /// to them.
    Ban {
        #[command(flatten)]
        user: Name,
        /// Why, for operators: at most 256 characters.
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Lift a ban: the user's tokens are good again.
    Unban {
        #[command(flatten)]
        user: Name,
    },
    /// Delete a user for ever. Their name stays taken.
    Delete {
        #[command(flatten)]
        user: Name,
        /// Confirms it: there is no way back.
        #[arg(long, required = true)]
        yes: bool,
    },
}

/// Whose account it is.
#[derive(Debug, clap::Args)]
pub(super) struct Name {
    /// The user's name, in any case.
    #[arg(value_parser = Username::parse)]
    name: Username,
}

impl Name {
    pub(super) fn text(&self) -> String {
        self.name.as_str().to_owned()
    }
}

#[derive(Serialize)]
struct AccountJson<'a> {
    username: &'a str,
    standing: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    standing_time: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    ip_address: &'a str,
    register_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_time: Option<String>,
    online: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<i32>,
}

pub(super) async fn run(place: &Place, args: &Args) -> anyhow::Result<()> {
    let admin = place.connect().await?;
    match &args.action {
        Action::List { prefix, json } => {
            let mut request = ListAccountsRequest { prefix: prefix.clone(), ..Default::default() };
            loop {
                let asked = request.clone();
                let page =
                    admin.call(|mut grpc| async move { grpc.list_accounts(asked).await }).await?;
                for account in &page.accounts {
                    output::line(&shown(account, None, *json)?)?;
                }
                request.page_token = page.next_page_token;
                if request.page_token.is_empty() {
                    return Ok(());
                }
            }
        }
        Action::Show { user, json } => {
            let request = GetAccountRequest { username: user.text() };
            let found =
                admin.call(|mut grpc| async move { grpc.get_account(request).await }).await?;
            let account = found.account.unwrap_or_default();
            output::line(&shown(&account, Some(found.tokens), *json)?)
        }
        Action::Ban { user, reason } => {
            let request = BanAccountRequest { username: user.text(), reason: reason.clone() };
            let done =
                admin.call(|mut grpc| async move { grpc.ban_account(request).await }).await?;
            output::line(&shown(&done.account.unwrap_or_default(), None, false)?)
        }
        Action::Unban { user } => {
            let request = UnbanAccountRequest { username: user.text() };
            let done =
                admin.call(|mut grpc| async move { grpc.unban_account(request).await }).await?;
            output::line(&shown(&done.account.unwrap_or_default(), None, false)?)
        }
        Action::Delete { user, yes: _ } => {
            let request = DeleteAccountRequest { username: user.text() };
            admin.call(|mut grpc| async move { grpc.delete_account(request).await }).await?;
            output::note(&format!("{} is deleted", user.name));
            Ok(())
        }
    }
}

fn shown(account: &Account, tokens: Option<i32>, json: bool) -> anyhow::Result<String> {
    let standing = match account.standing() {
        AccountStanding::Active => "active",
        AccountStanding::Banned => "banned",
        AccountStanding::Deleted => "deleted",
        AccountStanding::Unspecified => "unknown",
    };
    let time = |time: &Option<_>| time.as_ref().map(|it| render::proto_time(Some(it))).transpose();
    if json {
        return render::to_json(&AccountJson {
            username: &account.username,
            standing,
            standing_time: time(&account.standing_time)?,
            reason: &account.reason,
            ip_address: &account.ip_address,
            register_time: render::proto_time(account.register_time.as_ref())?,
            last_seen_time: time(&account.last_seen_time)?,
            online: account.online,
            tokens,
        });
    }
    let (name, address) = (printable(&account.username), printable(&account.ip_address));
    let tokens = tokens.map(|tokens| format!("  {tokens} tokens")).unwrap_or_default();
    let reason = match account.reason.as_str() {
        "" => String::new(),
        reason => format!("  ({})", printable(reason)),
    };
    let line = format!("{name:<16}  {standing:<8}  {address:<21}{tokens}{reason}");
    Ok(line.trim_end().to_owned())
}
