use std::num::NonZero;
use std::time::Duration;

use super::{Place, output};
use crate::cli::{duration, escape};
use crate::proto::admin::{
    GetUserRetentionRequest, GetUserRetentionResponse, Retention, SetUserRetentionRequest,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peerpost admin retention show bob
  peerpost admin retention set bob --age 30d --count 1000
  peerpost admin retention set bob                        keep everything of bob's
  peerpost admin retention clear bob                      as the server keeps it")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show what is kept of a user's mailbox, and what it holds.
    Show {
        /// The user.
        user: String,
    },
    /// Set what is kept of a user's mailbox, in place of all that the server keeps; without a flag
    /// everything.
    Set {
        /// The user.
        user: String,
        /// Remove messages this long after they were sent, such as 30d.
        #[arg(long, value_name = "DURATION", value_parser = duration::parse_some)]
        age: Option<Duration>,
        /// Keep the newest so many, 1 or more.
        #[arg(long, value_name = "MESSAGES")]
        count: Option<NonZero<u32>>,
        /// Remove what the user acknowledged, this long after it was sent; 0s: at once.
        #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
        after_acknowledgement: Option<Duration>,
    },
    /// Let the user's mailbox be kept as the server keeps all.
    Clear {
        /// The user.
        user: String,
    },
}

pub(super) async fn run(place: &Place, args: &Args) -> anyhow::Result<()> {
    let admin = place.connect().await?;
    let (user, retention) = match &args.command {
        Command::Show { user } => {
            let request = GetUserRetentionRequest { username: user.clone() };
            let call = admin.call(|mut grpc| async move { grpc.get_user_retention(request).await });
            return show(&call.await?);
        }
        Command::Set { user, age, count, after_acknowledgement } => {
            let time = |time: Duration| prost_types::Duration::try_from(time).ok();
            let retention = Retention {
                age: age.and_then(time),
                messages_max: count.map_or(0, |count| count.get().into()),
                after_acknowledgement: after_acknowledgement.and_then(time),
            };
            (user, Some(retention))
        }
        Command::Clear { user } => (user, None),
    };
    let request = SetUserRetentionRequest { username: user.clone(), retention };
    admin.call(|mut grpc| async move { grpc.set_user_retention(request).await }).await?;
    output::line(&format!("set for {}; it holds from the next pass on", escape::printable(user)))
}

fn show(response: &GetUserRetentionResponse) -> anyhow::Result<()> {
    let keep = response.retention.unwrap_or_default();
    let time = |time: Option<prost_types::Duration>| {
        time.map_or_else(|| "never".to_owned(), |time| format!("after {} s", time.seconds))
    };
    let count = match keep.messages_max {
        0 => "all".to_owned(),
        count => format!("the newest {count}"),
    };
    let by = if response.is_own { "set for this user" } else { "as the server keeps it" };
    for (name, value) in [
        ("retention", by.to_owned()),
        ("by age", time(keep.age)),
        ("by count", count),
        ("acknowledged", time(keep.after_acknowledgement)),
        ("first sequence", response.first_sequence.to_string()),
        ("last sequence", response.last_sequence.to_string()),
    ] {
        output::line(&format!("{name:<16}{value}"))?;
    }
    Ok(())
}
