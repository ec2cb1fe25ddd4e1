//! What the chat knows and does, without a terminal and without a network: things happen, and the
//! answer is what to do about them.

use std::time::Duration;

use crossterm::event::KeyEvent;
use jiff::tz::TimeZone;
use tokio::time::Instant;

use super::conversation::{Conversation, UNSENT_MAX};
use super::editor::Editor;
use super::keys::{self, Wish};
use super::scroll::Scroll;
use crate::cli::advice;
use crate::client::{self, Error, Event, Message, OutgoingMessage, Page, User};

/// How often the server is asked whether the peer is there.
const PRESENCE_INTERVAL: Duration = Duration::from_secs(5);

/// The waits between attempts to send, and to open the conversation: doubling from the first to the
/// last.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(500);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);

/// Something that happened.
#[derive(Debug)]
pub(super) enum Input {
    Key(KeyEvent),
    Paste(String),
    Resize {
        width: u16,
        height: u16,
    },
    /// Time has passed.
    Tick,
    /// The peer and the newest page of the conversation, or why they cannot be had.
    Opened(Result<(User, Page), Error>),
    /// What the followed mailbox brought.
    Followed(Result<Event, Error>),
    /// A page of older messages.
    Older(Result<Page, Error>),
    /// What became of the attempt to send the message with this request id.
    Sent {
        request_id: String,
        outcome: Box<Result<Message, Error>>,
    },
    LookedUp(Result<User, Error>),
}

/// Something to do.
#[derive(Debug, PartialEq)]
pub(super) enum Effect {
    /// Look up the peer and read the newest page.
    Open,
    /// Follow the mailbox after this sequence of this epoch.
    Follow {
        after: i64,
        epoch: String,
    },
    /// Read the page before this sequence.
    ReadOlder {
        before: i64,
        epoch: String,
    },
    Send(OutgoingMessage),
    LookUp,
    Redraw,
    Suspend,
    Leave,
    /// Leave, since connecting again does not mend this.
    Fail(Failure),
}

/// Why the chat cannot go on.
#[derive(Debug)]
pub(super) struct Failure(pub(super) Error);

impl PartialEq for Failure {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_string() == other.0.to_string()
    }
}

/// How it stands with the server.
#[derive(Debug, PartialEq)]
pub(super) enum Link {
    Connecting,
    /// Delivering what came since.
    CatchingUp,
    Live,
    /// Away; tried again at this time.
    Away {
        why: String,
        again_at: Instant,
    },
}

/// Something that is under way, or is to be tried again.
#[derive(Debug, PartialEq)]
pub(super) enum Attempt {
    None,
    UnderWay,
    At(Instant),
}

#[derive(Debug)]
pub(super) struct Chat {
    pub(super) peer: String,
    pub(super) server: String,
    pub(super) zone: TimeZone,
    pub(super) size: (u16, u16),
    pub(super) link: Link,
    /// The peer as last looked up; `None` while that is not known.
    pub(super) presence: Option<User>,
    pub(super) conversation: Conversation,
    pub(super) editor: Editor,
    pub(super) scroll: Scroll,
    /// A word to the person at the keyboard, until the next key.
    pub(super) note: Option<String>,
    /// What others than the peer wrote since the start.
    pub(super) from_others: u64,
    pub(super) older: Attempt,
    /// Who types here, as far as that is known: the token says it to the server alone.
    own_name: Option<String>,
    epoch: String,
    is_open: bool,
    opening: Attempt,
    sending: Attempt,
    looking_up: Attempt,
    retry_delay: Duration,
    is_leaving: bool,
}

impl Chat {
    pub(super) fn new(peer: &str, server: &str, zone: TimeZone, size: (u16, u16)) -> Self {
        Self {
            peer: peer.to_owned(),
            server: server.to_owned(),
            zone,
            size,
            link: Link::Connecting,
            presence: None,
            conversation: Conversation::default(),
            editor: Editor::default(),
            scroll: Scroll::default(),
            note: None,
            from_others: 0,
            older: Attempt::None,
            own_name: None,
            epoch: String::new(),
            is_open: false,
            opening: Attempt::UnderWay,
            sending: Attempt::None,
            looking_up: Attempt::None,
            retry_delay: RETRY_DELAY_MIN,
            is_leaving: false,
        }
    }

    /// The same, of somebody whose name is known.
    pub(super) fn of(mut self, own_name: Option<String>) -> Self {
        self.own_name = own_name;
        self
    }

    /// What to do at the start.
    pub(super) fn start() -> Vec<Effect> {
        vec![Effect::Open]
    }

    /// Takes in what happened, and says what to do.
    pub(super) fn handle(&mut self, input: Input, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Key(key) => self.key(key, &mut effects),
            Input::Paste(text) => {
                self.note = None;
                if !self.editor.paste(&text) {
                    self.note = Some("what was pasted is more than a message can hold".into());
                }
            }
            Input::Resize { width, height } => self.size = (width, height),
            Input::Tick => {}
            Input::Opened(outcome) => self.opened(outcome, now, &mut effects),
            Input::Followed(outcome) => self.followed(outcome, now, &mut effects),
            Input::Older(outcome) => match outcome {
                Ok(page) => {
                    self.older = Attempt::None;
                    self.conversation.add_page(page);
                }
                Err(_) => self.older = Attempt::At(now + RETRY_DELAY_MAX),
            },
            Input::Sent { request_id, outcome } => {
                self.sent(&request_id, *outcome, now, &mut effects);
            }
            Input::LookedUp(outcome) => {
                self.looking_up = Attempt::At(now + PRESENCE_INTERVAL);
                self.presence = outcome.ok();
            }
        }
        self.go_on(now, &mut effects);
        effects
    }

    fn key(&mut self, key: KeyEvent, effects: &mut Vec<Effect>) {
        let Some(wish) = keys::wish(key) else { return };
        self.note = None;
        let was_leaving = std::mem::take(&mut self.is_leaving);
        match wish {
            Wish::Edit(edit) => self.editor.edit(edit),
            Wish::Newline => self.editor.edit(super::editor::Edit::Insert('\n')),
            Wish::Send => self.submit(),
            Wish::PageUp => self.scroll_up(self.page_lines()),
            Wish::PageDown => self.scroll_down(self.page_lines()),
            Wish::LineUp => self.scroll_up(1),
            Wish::LineDown => self.scroll_down(1),
            Wish::Newest => self.scroll = Scroll::default(),
            Wish::EndOfInput if !self.editor.text().is_empty() => {
                self.editor.edit(super::editor::Edit::DeleteAfter);
            }
            Wish::Leave | Wish::EndOfInput => match self.conversation.unsent_count() {
                unsent if unsent > 0 && !was_leaving => {
                    self.is_leaving = true;
                    self.note =
                        Some(format!("{unsent} not sent yet; Ctrl-C again leaves without them"));
                }
                _ => effects.push(Effect::Leave),
            },
            Wish::Suspend => effects.push(Effect::Suspend),
            Wish::Redraw => effects.push(Effect::Redraw),
        }
    }

    fn submit(&mut self) {
        if self.editor.text().is_empty() {
            return;
        }
        let text = self.editor.text().to_owned();
        if self.conversation.add_unsent(&self.peer, text) {
            self.editor.take();
            self.scroll = Scroll::default();
        } else {
            self.note = Some(format!("{UNSENT_MAX} messages wait to be sent: try again later"));
        }
    }

    fn opened(
        &mut self,
        outcome: Result<(User, Page), Error>,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        match outcome {
            Ok((peer, page)) => {
                self.opening = Attempt::None;
                self.is_open = true;
                self.retry_delay = RETRY_DELAY_MIN;
                self.peer.clone_from(&peer.username);
                self.presence = Some(peer);
                self.looking_up = Attempt::At(now + PRESENCE_INTERVAL);
                self.epoch.clone_from(&page.epoch);
                effects
                    .push(Effect::Follow { after: page.last_sequence, epoch: page.epoch.clone() });
                self.conversation.add_page(page);
            }
            Err(error) if error.is_retriable() => {
                let again_at = now + self.next_delay(&error);
                self.opening = Attempt::At(again_at);
                self.link = Link::Away { why: reason(&error), again_at };
            }
            Err(error) => effects.push(Effect::Fail(Failure(error))),
        }
    }

    fn followed(&mut self, outcome: Result<Event, Error>, now: Instant, effects: &mut Vec<Effect>) {
        match outcome {
            Ok(Event::Started { .. }) => {
                self.link = Link::CatchingUp;
                self.retry_delay = RETRY_DELAY_MIN;
                // The server is there: what waits for it need not wait longer.
                let mut waiting = vec![&mut self.sending, &mut self.older];
                if self.presence.is_none() {
                    waiting.push(&mut self.looking_up);
                }
                for attempt in waiting {
                    if matches!(attempt, Attempt::At(_)) {
                        *attempt = Attempt::At(now);
                    }
                }
            }
            Ok(Event::CaughtUp { .. } | Event::Heartbeat { .. }) => self.link = Link::Live,
            Ok(Event::Message(message)) => self.received(message, now),
            Ok(Event::Reconnecting { error, delay }) => {
                self.presence = None;
                self.link = Link::Away { why: reason(&error), again_at: now + delay };
            }
            Err(error) => effects.push(Effect::Fail(Failure(error))),
        }
    }

    fn received(&mut self, message: Message, now: Instant) {
        if message.request_id.is_some() {
            self.own_name = Some(message.from_user.clone());
        }
        let is = |name: &str| name.eq_ignore_ascii_case(&self.peer);
        let is_to_oneself = message.from_user.eq_ignore_ascii_case(&message.to_user);
        let is_chat_with_oneself = self.own_name.as_deref().is_some_and(is);
        let is_of_it = (is(&message.from_user) || is(&message.to_user))
            && (is_to_oneself || !is_chat_with_oneself);
        if is_of_it {
            // Who writes is there, or was.
            if is(&message.from_user) && self.looking_up != Attempt::UnderWay {
                self.looking_up = Attempt::At(now);
            }
            self.conversation.add(message);
        } else if message.request_id.is_none() && !is_to_oneself {
            self.from_others += 1;
        }
    }

    fn sent(
        &mut self,
        request_id: &str,
        outcome: Result<Message, Error>,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        self.sending = Attempt::None;
        match outcome {
            Ok(message) => {
                self.retry_delay = RETRY_DELAY_MIN;
                self.conversation.add(message);
            }
            Err(error) if error.is_retriable() => {
                self.sending = Attempt::At(now + self.next_delay(&error));
            }
            Err(error) => {
                use client::ErrorReason as R;
                if matches!(
                    error.reason(),
                    Some(R::TokenMissing | R::TokenMalformed | R::TokenUnknown)
                ) {
                    effects.push(Effect::Fail(Failure(error)));
                } else {
                    let reason = advice::in_a_sentence(&error);
                    self.conversation.refuse(request_id, reason);
                    self.note = Some("a message was refused; up brings its text back".into());
                }
            }
        }
    }

    fn next_delay(&mut self, error: &Error) -> Duration {
        let delay = self.retry_delay;
        self.retry_delay = (delay * 2).min(RETRY_DELAY_MAX);
        error.retry_delay().map_or(delay, |asked| asked.max(delay))
    }

    /// Begins what is due: one attempt of each kind at a time.
    fn go_on(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let is_due = |attempt: &Attempt| matches!(attempt, Attempt::At(at) if *at <= now);
        if is_due(&self.opening) {
            self.opening = Attempt::UnderWay;
            self.link = Link::Connecting;
            effects.push(Effect::Open);
        }
        if matches!(&self.link, Link::Away { again_at, .. } if self.is_open && *again_at <= now) {
            self.link = Link::Connecting;
        }
        if !self.is_open {
            return;
        }
        if (self.sending == Attempt::None || is_due(&self.sending))
            && let Some(message) = self.conversation.next_unsent()
        {
            effects.push(Effect::Send(message.clone()));
            self.sending = Attempt::UnderWay;
        }
        if is_due(&self.looking_up) {
            self.looking_up = Attempt::UnderWay;
            effects.push(Effect::LookUp);
        }
        if (self.older == Attempt::None || is_due(&self.older))
            && self.wants_older()
            && let Some(before) = self.conversation.first_sequence()
        {
            self.older = Attempt::UnderWay;
            effects.push(Effect::ReadOlder { before, epoch: self.epoch.clone() });
        }
    }

    /// Whether what is older may soon be looked at, and may be kept.
    fn wants_older(&self) -> bool {
        self.conversation.has_older
            && !self.conversation.is_full()
            && self.lines_above_end(self.messages_height() * 3) < self.messages_height() * 3
    }
}

/// Why the server cannot be reached, without its name, which stands above.
fn reason(error: &Error) -> String {
    match error {
        Error::Connect { problem, .. } => problem.clone(),
        other => other.to_string(),
    }
}
