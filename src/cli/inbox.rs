use std::collections::VecDeque;

use super::connection::ConnectionArgs;
use super::{output, render};
use crate::client::{Client, Message, PageRequest};

/// The most messages that one command reads: what it holds in memory is bounded by it.
const LIMIT_MAX: i64 = 1000;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peerpost inbox                            the newest messages
  peerpost inbox --before 120               older ones
  peerpost inbox --after 0 --limit 1000     from the beginning
  peerpost inbox --peer bob --json          the conversation with bob, a JSON object a line")]
pub(super) struct Args {
    /// Only the conversation with this user.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    peer: String,

    /// The oldest messages after this sequence; 0: from the beginning.
    #[arg(long, value_name = "SEQUENCE", value_parser = clap::value_parser!(i64).range(0..))]
    after: Option<i64>,

    /// The newest messages before this sequence; 0: of all.
    #[arg(
        long,
        value_name = "SEQUENCE",
        value_parser = clap::value_parser!(i64).range(0..),
        conflicts_with = "after"
    )]
    before: Option<i64>,

    /// Only what was received, not what was sent.
    #[arg(long)]
    received_only: bool,

    /// The most messages to print, 1 to 1000.
    #[arg(
        long,
        value_name = "MESSAGES",
        default_value_t = 100,
        value_parser = clap::value_parser!(u16).range(1..=LIMIT_MAX)
    )]
    limit: u16,

    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(connection: &ConnectionArgs, args: &Args) -> anyhow::Result<()> {
    let client = connection.authenticated()?;
    let (messages, has_more) = read(&client, args).await?;
    for message in &messages {
        output::line(&render::message(message, args.json)?)?;
    }
    match (messages.front(), messages.back()) {
        (Some(_), Some(last)) if has_more && args.after.is_some() => {
            output::note(&format!("there are newer ones: --after {}", last.sequence));
        }
        (Some(first), Some(_)) if has_more => {
            output::note(&format!("there are older ones: --before {}", first.sequence));
        }
        (None, _) => output::note("no messages"),
        _ => {}
    }
    Ok(())
}

/// Up to `limit` messages in ascending order, and whether there are more. A page can end before it
/// is full, so that it may take several.
async fn read(client: &Client, args: &Args) -> anyhow::Result<(VecDeque<Message>, bool)> {
    let limit = usize::from(args.limit);
    let mut messages = VecDeque::new();
    let mut epoch = String::new();
    loop {
        let request = if let Some(after) = args.after {
            PageRequest::after(messages.back().map_or(after, sequence))
        } else {
            // 0 is the end of the mailbox.
            let before = args.before.unwrap_or_default();
            PageRequest::before(messages.front().map_or(before, sequence))
        };
        let missing = u16::try_from(limit - messages.len())?;
        let page = client
            .messages(
                request
                    .peer(&args.peer)
                    .received_only(args.received_only)
                    .page_size(missing)
                    .epoch(epoch),
            )
            .await?;
        epoch = page.epoch;
        let is_last = !page.has_more || page.messages.is_empty();
        if args.after.is_some() {
            messages.extend(page.messages);
        } else {
            page.messages.into_iter().rev().for_each(|message| messages.push_front(message));
        }
        if is_last || messages.len() >= limit {
            return Ok((messages, page.has_more));
        }
    }
}

fn sequence(message: &Message) -> i64 {
    message.sequence
}
