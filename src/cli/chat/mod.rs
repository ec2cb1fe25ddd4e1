//! `peerpost chat`: a conversation in the terminal.
//!
//! [`state`] decides everything and knows neither terminal nor network: it is told what happened and
//! says what to do. This file does it, in one loop: keys, the followed mailbox, calls, time, signals.

mod conversation;
mod editor;
mod keys;
mod lines;
mod screen;
mod scroll;
mod state;
#[cfg(test)]
mod state_tests;
mod text;

use std::future::pending;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use crossterm::event::{Event as TerminalEvent, EventStream};
use jiff::tz::TimeZone;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_stream::StreamExt as _;

use super::advice::advise;
use super::connection::ConnectionArgs;
use super::signals::StopSignals;
use super::terminal::{self, Screen};
use super::{output, style};
use crate::client::{Client, Error, Follow, FollowOptions, PageRequest, Start};
use state::{Chat, Effect, Failure, Input};

/// How often what only time changes is looked at: the seconds until the next attempt.
const TICK_INTERVAL: Duration = Duration::from_millis(250);

/// How often the server shows that it is there: a connection that died silently is noticed after 2.5
/// times as long.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

/// The messages that are read at a time.
const PAGE_MESSAGES: u16 = 100;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peerpost chat bob
  peerpost --as alice --server chat.example.org:50051 chat bob

Keys:
  Enter               sends; Alt-Enter or Ctrl-J begins another line; pasted lines stay one message
  PgUp, PgDn          scroll; Shift-Up and Shift-Down by a line; Esc goes to the newest
  Up, Down            bring back what was typed before
  Ctrl-A E B F U K W Y, Alt-B F
                      edit as in a shell
  Ctrl-L, Ctrl-Z      draw anew; suspend
  Ctrl-C, Ctrl-D      leave

What is typed is shown with … until the server has it on disk, and is sent again for as long as it
takes: a server that restarts in between loses nothing and stores nothing twice. Leaving with messages
that are not sent yet prints them. Nothing is acknowledged: `peerpost follow --ack` goes on where it was.")]
pub(super) struct Args {
    /// Whom to talk to.
    peer: String,
}

pub(super) async fn run(connection: &ConnectionArgs, args: &Args) -> anyhow::Result<()> {
    if !terminal::is_there() {
        return Err(advise(
            anyhow!("`chat` needs a terminal to type at and to draw on"),
            format!(
                "in scripts and pipes `peerpost send {}` sends what it reads, and `peerpost follow \
                 --json` prints what comes",
                args.peer
            ),
        ));
    }
    let (client, own_name) = connection.identified()?;
    crossterm::style::force_color_output(style::on_stdout());
    let screen = Screen::take().context("cannot use the terminal")?;
    let size = screen.size().context("cannot use the terminal")?;
    let chat = Chat::new(&args.peer, client.server(), TimeZone::system(), size).of(own_name);
    let mut session = Session { client, screen, chat, calls: JoinSet::new(), follow: None };
    let outcome = session.run().await;
    let Session { screen, chat, .. } = session;
    // Before anything is said: on the chat's own screen it would be lost.
    drop(screen);
    let unsent = say_what_is_not_sent(&chat);
    outcome?;
    match unsent {
        0 => Ok(()),
        unsent => Err(anyhow!("left with {unsent} messages not known to be sent")),
    }
}

/// What is under way.
struct Session {
    client: Client,
    screen: Screen,
    chat: Chat,
    /// The calls: at most one of each kind, as the chat asks for them.
    calls: JoinSet<Input>,
    follow: Option<Follow>,
}

/// Whether the chat goes on.
enum Next {
    GoOn,
    Leave,
}

impl Session {
    async fn run(&mut self) -> anyhow::Result<()> {
        let mut stop = StopSignals::listen().context("cannot listen for signals")?;
        let mut hangup = signal(SignalKind::hangup()).context("cannot listen for signals")?;
        let mut keyboard = EventStream::new();
        let mut tick = interval(TICK_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut effects = Chat::start();
        loop {
            for effect in std::mem::take(&mut effects) {
                if let Next::Leave = self.carry_out(effect)? {
                    return Ok(());
                }
            }
            let now = Instant::now();
            let chat = &self.chat;
            self.screen.draw(|frame| chat.draw(frame, now)).context("cannot draw")?;
            let input = tokio::select! {
                () = stop.next() => return Ok(()),
                _ = hangup.recv() => return Ok(()),
                event = keyboard.next() => match event {
                    Some(Ok(event)) => from_terminal(event),
                    Some(Err(error)) => return Err(error).context("cannot read the keyboard"),
                    None => return Ok(()),
                },
                Some(ended) = self.calls.join_next() => Some(ended.context("a call failed")?),
                followed = next_followed(&mut self.follow) => Some(Input::Followed(followed)),
                _ = tick.tick() => Some(Input::Tick),
            };
            if let Some(input) = input {
                effects = self.chat.handle(input, Instant::now());
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) -> anyhow::Result<Next> {
        let client = self.client.clone();
        let peer = self.chat.peer.clone();
        match effect {
            Effect::Open => {
                self.calls.spawn(async move {
                    let open = async {
                        let user = client.user(&peer).await?;
                        let newest = PageRequest::newest().peer(&peer).page_size(PAGE_MESSAGES);
                        Ok((user, client.messages(newest).await?))
                    };
                    Input::Opened(open.await)
                });
            }
            Effect::Follow { after, epoch } => {
                let options =
                    FollowOptions::default().epoch(epoch).heartbeat_interval(HEARTBEAT_INTERVAL);
                self.follow = Some(client.follow(Start::After(after), options));
            }
            Effect::ReadOlder { before, epoch } => {
                let page =
                    PageRequest::before(before).peer(peer).page_size(PAGE_MESSAGES).epoch(epoch);
                self.calls.spawn(async move { Input::Older(client.messages(page).await) });
            }
            Effect::Send(message) => {
                self.calls.spawn(async move {
                    let request_id = message.request_id().to_owned();
                    let outcome = Box::new(client.send_message(message).await);
                    Input::Sent { request_id, outcome }
                });
            }
            Effect::LookUp => {
                self.calls.spawn(async move { Input::LookedUp(client.user(&peer).await) });
            }
            Effect::Redraw => self.screen.redraw().context("cannot draw")?,
            Effect::Suspend => self.screen.suspend().context("cannot suspend")?,
            Effect::Leave => return Ok(Next::Leave),
            Effect::Fail(Failure(error)) => return Err(explain(error)),
        }
        Ok(Next::GoOn)
    }
}

async fn next_followed(follow: &mut Option<Follow>) -> Result<crate::client::Event, Error> {
    if let Some(events) = follow
        && let Some(event) = events.next_event().await
    {
        return event;
    }
    // Nothing is followed yet; after its last error the chat ends.
    pending().await
}

fn from_terminal(event: TerminalEvent) -> Option<Input> {
    match event {
        TerminalEvent::Key(key) => Some(Input::Key(key)),
        TerminalEvent::Paste(text) => Some(Input::Paste(text)),
        TerminalEvent::Resize(width, height) => Some(Input::Resize { width, height }),
        _ => None,
    }
}

fn explain(error: Error) -> anyhow::Error {
    use crate::client::ErrorReason as R;
    match error.reason() {
        Some(R::EpochMismatch | R::SequenceOutOfRange) => advise(
            error,
            "the server's data was replaced or restored since; the same command opens the \
             conversation as it is there now",
        ),
        _ => error.into(),
    }
}

/// Prints what was typed and may not have reached the server, so that it is not lost; says how many.
fn say_what_is_not_sent(chat: &Chat) -> usize {
    let mut count = 0;
    for (request_id, text) in chat.conversation.unsent() {
        if count == 0 {
            output::note(
                "not known to be sent (with its --request-id a text is stored only once):",
            );
        }
        count += 1;
        output::note(&format!(
            "  peerpost send {} --request-id {request_id} -- {}",
            chat.peer,
            quoted(text)
        ));
    }
    count
}

/// The text as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
