use std::mem::replace;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep_until, timeout};

use super::connection::ConnectionArgs;
use super::signals::StopSignals;
use super::{advice, output, render};
use crate::client::{Client, Error, Event, FollowOptions, Start};

/// What was printed is acknowledged when so many messages have gathered, or so much time has passed.
const ACKNOWLEDGE_MESSAGES: u32 = 100;
const ACKNOWLEDGE_INTERVAL: Duration = Duration::from_secs(1);

/// How long a reader that does not read may keep a command that was asked to stop.
const LAST_PRINT_DEADLINE: Duration = Duration::from_secs(1);

/// How long the last acknowledgement may keep a command that was asked to stop.
const LAST_ACKNOWLEDGE_DEADLINE: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peerpost follow --ack                     what was not yet acknowledged, then what comes
  peerpost follow --after 0 --json          everything from the beginning, a JSON object a line
  peerpost follow --from-now | while read -r line; do notify-send \"$line\"; done

Reconnects for as long as it takes, and goes on where it ended. Ctrl-C ends it.

A JSON object has these fields, each on one line that is flushed at once; more may come later:
  sequence      the entry's number in the mailbox: 1, 2, 3, …
  message_id    a UUID, the same for both participants
  from_user, to_user
  send_time     RFC 3339 in UTC, by the server's clock
  text          the body when it is text; else
  data_base64   the body when it is data
  content_type  when the sender said one
  request_id    of one's own messages that have one")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Args {
    /// Start after this sequence [default: after what was acknowledged]; 0: from the beginning.
    #[arg(long, value_name = "SEQUENCE", value_parser = clap::value_parser!(i64).range(0..))]
    after: Option<i64>,

    /// Start with what comes from now on.
    #[arg(long, conflicts_with = "after")]
    from_now: bool,

    /// Only what was received, not what was sent.
    #[arg(long)]
    received_only: bool,

    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,

    /// Acknowledge what was printed, so that the next `follow` starts after it. Acknowledging covers
    /// everything before: with --after or --from-now also what they skip, and with --received-only
    /// what was sent.
    #[arg(long)]
    ack: bool,
}

pub(super) async fn run(connection: &ConnectionArgs, args: &Args) -> anyhow::Result<()> {
    let client = connection.authenticated()?;
    let mut stop = StopSignals::listen().context("cannot listen for signals")?;
    let mut reader_gone = pin!(output::reader_gone());
    let options = FollowOptions::default().received_only(args.received_only);
    let mut events = client.follow(start(args), options);
    let mut printer = Printer::new(args.json);
    loop {
        let due = printer.progress.due().filter(|_| args.ack);
        tokio::select! {
            () = stop.next() => break,
            () = &mut reader_gone => return Err(output::ReaderGone.into()),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                // A server that is away must not keep the command from stopping.
                tokio::select! {
                    () = stop.next() => break,
                    acknowledged = printer.progress.acknowledge(&client) => acknowledged?,
                }
            }
            event = events.next_event() => match event {
                Some(event) => {
                    let mut printing = pin!(printer.print(event?));
                    tokio::select! {
                        biased;
                        outcome = &mut printing => outcome?,
                        () = stop.next() => {
                            // Almost always done at once, and then acknowledged below.
                            if let Ok(outcome) = timeout(LAST_PRINT_DEADLINE, printing).await {
                                outcome?;
                            }
                            break;
                        }
                    }
                }
                None => break,
            },
        }
    }
    // Stops delivery first: what comes from here on is for the next `follow`.
    drop(events);
    if args.ack && printer.progress.due().is_some() {
        let last = printer.progress.acknowledge(&client);
        let _ = timeout(LAST_ACKNOWLEDGE_DEADLINE, last).await;
    }
    Ok(())
}

fn start(args: &Args) -> Start {
    match (args.after, args.from_now) {
        (Some(sequence), _) => Start::After(sequence),
        (None, true) => Start::FromNow,
        (None, false) => Start::Acknowledged,
    }
}

/// Prints what is delivered, and keeps account of it.
#[expect(clippy::struct_excessive_bools, reason = "each is something said once")]
struct Printer {
    json: bool,
    progress: Progress,
    is_connected_before: bool,
    is_caught_up_before: bool,
    /// Whether it was said, since the server went away, what to do about it.
    is_hinted: bool,
}

impl Printer {
    fn new(json: bool) -> Self {
        Self {
            json,
            progress: Progress::default(),
            is_connected_before: false,
            is_caught_up_before: false,
            is_hinted: false,
        }
    }

    async fn print(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Started { epoch, after_sequence, .. } => {
                self.progress.epoch = epoch;
                self.is_hinted = false;
                if replace(&mut self.is_connected_before, true) {
                    output::note(&format!("connected again, going on after #{after_sequence}"));
                } else {
                    self.progress.start(after_sequence);
                    output::note(&format!("following after #{after_sequence}"));
                }
            }
            Event::Message(message) => {
                output::line_unblocked(render::message(&message, self.json)?).await?;
                self.progress.messages += 1;
                self.progress.advance(message.sequence);
            }
            Event::CaughtUp { through_sequence } => {
                self.progress.advance(through_sequence);
                if !replace(&mut self.is_caught_up_before, true) {
                    output::note(&format!("caught up with #{through_sequence}, now live"));
                }
            }
            Event::Heartbeat { through_sequence } => self.progress.advance(through_sequence),
            Event::Reconnecting { error, delay } => self.reconnecting(&error, delay),
        }
        Ok(())
    }

    fn reconnecting(&mut self, error: &Error, delay: Duration) {
        output::note(&format!("{error} (next attempt in {:.1} s)", delay.as_secs_f64()));
        if matches!(error, Error::Connect { .. })
            && !replace(&mut self.is_hinted, true)
            && let Some(hint) = advice::for_client_error(error)
        {
            output::note(&format!("hint: {hint}"));
        }
    }
}

/// What was printed, and what of it is acknowledged.
#[derive(Default)]
struct Progress {
    epoch: String,
    /// Everything up to here was printed, or skipped as asked.
    through: i64,
    acknowledged: i64,
    /// Messages printed since the last acknowledgement.
    messages: u32,
    /// When the oldest progress that is not acknowledged was made.
    since: Option<Instant>,
}

impl Progress {
    fn start(&mut self, after_sequence: i64) {
        self.through = after_sequence;
        self.acknowledged = after_sequence;
    }

    fn advance(&mut self, through: i64) {
        self.through = self.through.max(through);
        if self.through > self.acknowledged {
            self.since.get_or_insert_with(Instant::now);
        }
    }

    /// When to acknowledge; `None` while there is nothing new.
    fn due(&self) -> Option<Instant> {
        match self.since? {
            since if self.messages >= ACKNOWLEDGE_MESSAGES => Some(since),
            since => Some(since + ACKNOWLEDGE_INTERVAL),
        }
    }

    /// Acknowledges what was printed. A server that is away for a while is tried again later: until
    /// then the next `follow` would print more than it had to, and lose nothing.
    async fn acknowledge(&mut self, client: &Client) -> anyhow::Result<()> {
        let outcome = client.acknowledge(self.through, Some(&self.epoch)).await;
        self.messages = 0;
        self.since = None;
        match outcome {
            Ok(_) => self.acknowledged = self.through,
            Err(error) if error.is_retriable() => {
                self.since = Some(Instant::now());
                output::note(&format!("not acknowledged yet: {error}"));
            }
            Err(error) => return Err(error).context("cannot acknowledge"),
        }
        Ok(())
    }
}
