use serde::Serialize;

use super::{Place, output, render};
use crate::client::AdminClient;
use crate::proto::admin::{GetUserLimitsRequest, SetUserLimitsRequest, UserLimits};

/// What stands for: as for everybody.
const DEFAULT: &str = "default";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peerpost admin limits show alice
  peerpost admin limits set alice --send-rate 100/s --send-burst 500
  peerpost admin limits set alice --send-rate unlimited --subscriptions default
  peerpost admin limits clear alice

What is set holds at once and for good, in place of what `peerpost serve --send-rate-per-user`,
--send-burst-per-user and --subscriptions-per-user set for everybody.")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show the limits that hold for a user, and which of them are their own.
    Show {
        /// The user's name.
        #[arg(value_name = "USER")]
        of: String,
        /// Print a JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Set limits for a user alone. What is not named stays.
    #[command(group = clap::ArgGroup::new("limit").required(true).multiple(true))]
    Set {
        /// The user's name.
        #[arg(value_name = "USER")]
        of: String,
        /// How fast they may send: a count of 1 to 1000000 per s, m, h or d, `unlimited`, or `default`.
        #[arg(long, value_name = "COUNT/UNIT", group = "limit")]
        send_rate: Option<String>,
        /// How many messages they may send at once, 1 to 1000000, or `default`: the count of a rate of
        /// their own, else as for everybody.
        #[arg(long, value_name = "MESSAGES", group = "limit", value_parser = count)]
        send_burst: Option<i32>,
        /// How many subscriptions they may have open, 1 to 65536, or `default`. Those that are open stay.
        #[arg(long, value_name = "N", group = "limit", value_parser = count)]
        subscriptions: Option<i32>,
    },
    /// Have a user be as everybody.
    Clear {
        /// The user's name.
        #[arg(value_name = "USER")]
        of: String,
    },
}

/// A number, or 0 for the default.
fn count(text: &str) -> Result<i32, String> {
    let number = text.parse::<i32>().ok().filter(|number| *number > 0);
    let number = number.or_else(|| (text == DEFAULT).then_some(0));
    number.ok_or_else(|| format!("must be a number from 1 on, or {DEFAULT}"))
}

#[derive(Serialize)]
struct LimitsJson<'a> {
    username: &'a str,
    send_rate: &'a str,
    send_burst: i32,
    subscriptions: i32,
    own: OwnJson<'a>,
}

#[derive(Serialize)]
struct OwnJson<'a> {
    send_rate: Option<&'a str>,
    send_burst: Option<i32>,
    subscriptions: Option<i32>,
}

pub(super) async fn run(place: &Place, args: &Args) -> anyhow::Result<()> {
    let admin = place.connect().await?;
    let is_json = matches!(args.command, Command::Show { json: true, .. });
    let (own, effective) = match &args.command {
        Command::Show { of, .. } => get(&admin, of).await?,
        Command::Set { of, send_rate, send_burst, subscriptions } => {
            let (mut limits, _) = get(&admin, of).await?;
            if let Some(rate) = send_rate {
                let is_default = rate == DEFAULT;
                limits.send_rate = if is_default { String::new() } else { rate.clone() };
            }
            limits.send_burst = send_burst.unwrap_or(limits.send_burst);
            limits.subscriptions = subscriptions.unwrap_or(limits.subscriptions);
            set(&admin, limits).await?
        }
        Command::Clear { of } => {
            set(&admin, UserLimits { username: of.clone(), ..UserLimits::default() }).await?
        }
    };
    if is_json { tell_json(&own, &effective) } else { tell(&own, &effective) }
}

async fn get(admin: &AdminClient, user: &str) -> anyhow::Result<(UserLimits, UserLimits)> {
    let request = GetUserLimitsRequest { username: user.to_owned() };
    let answer = admin.call(|mut grpc| async move { grpc.get_user_limits(request).await }).await?;
    Ok((answer.own.unwrap_or_default(), answer.effective.unwrap_or_default()))
}

async fn set(admin: &AdminClient, limits: UserLimits) -> anyhow::Result<(UserLimits, UserLimits)> {
    let request = SetUserLimitsRequest { limits: Some(limits) };
    let answer = admin.call(|mut grpc| async move { grpc.set_user_limits(request).await }).await?;
    Ok((answer.own.unwrap_or_default(), answer.effective.unwrap_or_default()))
}

fn tell(own: &UserLimits, effective: &UserLimits) -> anyhow::Result<()> {
    let burst = match effective.send_burst {
        0 => "unlimited".to_owned(),
        burst => burst.to_string(),
    };
    let subscriptions = effective.subscriptions.to_string();
    for (name, value, is_own) in [
        ("send rate", &effective.send_rate, !own.send_rate.is_empty()),
        ("send burst", &burst, own.send_burst != 0),
        ("subscriptions", &subscriptions, own.subscriptions != 0),
    ] {
        let whose = if is_own { "their own" } else { "as for everybody" };
        output::line(&format!("{name:<16}{value:<16}{whose}"))?;
    }
    Ok(())
}

fn tell_json(own: &UserLimits, effective: &UserLimits) -> anyhow::Result<()> {
    let some = |number: i32| Some(number).filter(|it| *it != 0);
    output::line(&render::to_json(&LimitsJson {
        username: &effective.username,
        send_rate: &effective.send_rate,
        send_burst: effective.send_burst,
        subscriptions: effective.subscriptions,
        own: OwnJson {
            send_rate: Some(own.send_rate.as_str()).filter(|it| !it.is_empty()),
            send_burst: some(own.send_burst),
            subscriptions: some(own.subscriptions),
        },
    })?)
}
