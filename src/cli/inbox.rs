use std::collections::VecDeque;

use jiff::Timestamp;

use super::connection::ConnectionArgs;
use super::{output, render, since};
use crate::client::{Client, Message, PageRequest};

/// The most messages that one command reads: what it holds in memory is bounded by it.
const LIMIT_MAX: i64 = 1000;

/// The most messages unless the command line says otherwise.
const LIMIT_DEFAULT: u16 = 100;

/// The messages that are read at a time while the first since a time is looked for.
const SEARCH_PAGE_MESSAGES: u16 = 1000;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peerpost inbox                            the newest messages
  peerpost inbox --before 120               older ones
  peerpost inbox --after 0 --limit 1000     from the beginning
  peerpost inbox --peer bob --json          the conversation with bob, a JSON object a line
  peerpost inbox --since yesterday          all since then; also 2h, 3d, 14:00, 2026-11-20,
                                            2026-11-20T14:00:00Z

With --since everything since then is printed, unless --limit says how many of the newest. The search
goes back from the newest message to the first that is older. Times without an offset are this
machine's.")]
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

    /// Only what was sent since a time, or for so long: 2h, 3d, yesterday, 14:00, 2026-11-20,
    /// 2026-11-20T14:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = since::parse, conflicts_with = "after")]
    since: Option<Timestamp>,

    /// Only what was received, not what was sent.
    #[arg(long)]
    received_only: bool,

    /// The most messages to print, 1 to 1000 [default: 100; with --since all].
    #[arg(
        long,
        value_name = "MESSAGES",
        value_parser = clap::value_parser!(u16).range(1..=LIMIT_MAX)
    )]
    limit: Option<u16>,

    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(connection: &ConnectionArgs, args: &Args) -> anyhow::Result<()> {
    let client = connection.authenticated()?;
    match (args.since, args.limit) {
        (Some(since), None) => print_since(&client, args, since).await,
        _ => print_limited(&client, args).await,
    }
}

impl Args {
    /// The request, kept to what was asked for.
    fn page(&self, request: PageRequest, messages: u16, epoch: &str) -> PageRequest {
        request.peer(&self.peer).received_only(self.received_only).page_size(messages).epoch(epoch)
    }

    fn is_too_old(&self, message: &Message) -> bool {
        // A time that is out of bounds is older than any that can be asked for.
        let is_older = |since| Timestamp::try_from(message.send_time).is_ok_and(|it| it < since);
        self.since.is_some_and(is_older)
    }

    fn print(&self, message: &Message) -> anyhow::Result<()> {
        output::line(&render::message(message, self.json)?)
    }
}

async fn print_limited(client: &Client, args: &Args) -> anyhow::Result<()> {
    let (messages, has_more) = read(client, args).await?;
    for message in &messages {
        args.print(message)?;
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

/// All messages since a time, a page in memory at a time: goes back until one is older, and prints
/// from there.
async fn print_since(client: &Client, args: &Args, since: Timestamp) -> anyhow::Result<()> {
    let end = args.before.unwrap_or_default();
    let (mut before, mut epoch) = (end, String::new());
    let mut after = loop {
        let request = args.page(PageRequest::before(before), SEARCH_PAGE_MESSAGES, &epoch);
        let page = client.messages(request).await?;
        epoch = page.epoch;
        if let Some(older) = page.messages.iter().rev().find(|message| args.is_too_old(message)) {
            break older.sequence;
        }
        match page.messages.first() {
            Some(first) if page.has_more => before = first.sequence,
            _ => break page.first_sequence - 1,
        }
    };
    tracing::debug!(%since, after, "the last message before it");
    let mut is_empty = true;
    loop {
        let request = args.page(PageRequest::after(after), SEARCH_PAGE_MESSAGES, &epoch);
        let page = client.messages(request).await?;
        for message in &page.messages {
            if end > 0 && message.sequence >= end {
                return Ok(());
            }
            args.print(message)?;
            is_empty = false;
        }
        match page.messages.last() {
            Some(last) if page.has_more => after = last.sequence,
            _ => break,
        }
    }
    if is_empty {
        output::note("no messages");
    }
    Ok(())
}

/// Up to `limit` messages in ascending order, and whether there are more. A page can end before it
/// is full, so that it may take several.
async fn read(client: &Client, args: &Args) -> anyhow::Result<(VecDeque<Message>, bool)> {
    let limit = usize::from(args.limit.unwrap_or(LIMIT_DEFAULT));
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
        let page = client.messages(args.page(request, missing, &epoch)).await?;
        epoch = page.epoch;
        let is_last = !page.has_more || page.messages.is_empty();
        if args.after.is_some() {
            messages.extend(page.messages);
        } else {
            for message in page.messages.into_iter().rev() {
                if args.is_too_old(&message) {
                    return Ok((messages, false));
                }
                messages.push_front(message);
            }
        }
        if is_last || messages.len() >= limit {
            return Ok((messages, page.has_more));
        }
    }
}

fn sequence(message: &Message) -> i64 {
    message.sequence
}
