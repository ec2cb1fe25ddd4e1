//! The chat as a person sees it, without a terminal and without a server.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use jiff::tz::TimeZone;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use tokio::time::Instant;

use super::conversation::tests::message;
use super::state::{Chat, Effect, Input};
use crate::client::{Error, Event, Message, OutgoingMessage, Page, User};

const SERVER: &str = "http://127.0.0.1:50051";

/// A chat with bob, of alice, and the time in it.
struct Scene {
    chat: Chat,
    now: Instant,
}

impl Scene {
    /// One that is not connected yet.
    fn new(width: u16, height: u16) -> Self {
        let chat = Chat::new("BOB", SERVER, TimeZone::UTC, (width, height));
        Self { chat, now: Instant::now() }
    }

    /// One that shows these messages, with older ones in the mailbox or not, and is live.
    fn live(width: u16, height: u16, messages: Vec<Message>, has_more: bool) -> Self {
        let mut scene = Self::new(width, height);
        scene.happens(Input::Opened(Ok((bob(true), page(messages, has_more)))));
        scene.goes_live();
        scene
    }

    fn happens(&mut self, input: Input) -> Vec<Effect> {
        self.chat.handle(input, self.now)
    }

    fn passes(&mut self, time: Duration) -> Vec<Effect> {
        self.now += time;
        self.happens(Input::Tick)
    }

    fn goes_live(&mut self) -> Vec<Effect> {
        let started = Event::Started {
            epoch: "e1".into(),
            after_sequence: 0,
            first_sequence: 1,
            last_sequence: 9,
            acknowledged_through: 0,
        };
        let mut effects = self.happens(Input::Followed(Ok(started)));
        effects.extend(self.happens(Input::Followed(Ok(Event::CaughtUp { through_sequence: 9 }))));
        effects
    }

    fn goes_away(&mut self) {
        let delay = Duration::from_secs(3);
        let reconnecting = Event::Reconnecting { error: refused_connection(), delay };
        self.happens(Input::Followed(Ok(reconnecting)));
    }

    fn receives(&mut self, message: Message) {
        self.happens(Input::Followed(Ok(Event::Message(message))));
    }

    fn presses(&mut self, code: KeyCode, modifiers: KeyModifiers) -> Vec<Effect> {
        self.happens(Input::Key(KeyEvent::new(code, modifiers)))
    }

    /// Types a line and Enter.
    fn types(&mut self, line: &str) -> Vec<Effect> {
        let mut effects = Vec::new();
        for c in line.chars() {
            effects.extend(self.presses(KeyCode::Char(c), KeyModifiers::NONE));
        }
        effects.extend(self.presses(KeyCode::Enter, KeyModifiers::NONE));
        effects
    }

    fn sent(&mut self, request_id: &str, outcome: Result<Message, Error>) -> Vec<Effect> {
        let request_id = request_id.to_owned();
        self.happens(Input::Sent { request_id, outcome: Box::new(outcome) })
    }

    /// The screen's rows, without the spaces at their ends.
    fn screen(&self) -> Vec<String> {
        self.screen_of(self.chat.size)
    }

    /// The same on a terminal of this size, whether the chat was told of it or not.
    fn screen_of(&self, (width, height): (u16, u16)) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a screen");
        terminal.draw(|frame| self.chat.draw(frame, self.now)).expect("drawn");
        let buffer = terminal.backend().buffer().clone();
        let rows = buffer.content.chunks(usize::from(width.max(1)));
        rows.map(|row| {
            let row: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
            row.trim_end().to_owned()
        })
        .collect()
    }

    /// The rows between the header and the status that are not empty.
    fn messages(&self) -> Vec<String> {
        let screen = self.screen();
        screen[1..screen.len() - 2].iter().filter(|row| !row.is_empty()).cloned().collect()
    }

    fn status(&self) -> String {
        let screen = self.screen();
        screen[screen.len() - 2].clone()
    }
}

fn bob(online: bool) -> User {
    let time = message(1, "bob", "x").send_time;
    User {
        username: "bob".into(),
        ip_address: "127.0.0.1".into(),
        register_time: time,
        online,
        last_seen_time: Some(time),
    }
}

fn page(messages: Vec<Message>, has_more: bool) -> Page {
    let last_sequence = messages.last().map_or(0, |message| message.sequence);
    Page { messages, has_more, epoch: "e1".into(), first_sequence: 1, last_sequence }
}

fn history(sequences: impl IntoIterator<Item = i64>) -> Vec<Message> {
    sequences.into_iter().map(|it| message(it, "bob", &format!("m{it}"))).collect()
}

fn stored(sequence: i64, text: &str, request_id: &str) -> Message {
    let request_id = Some(request_id.to_owned());
    Message { request_id, ..message(sequence, "alice", text) }
}

fn refused_connection() -> Error {
    Error::Connect { server: SERVER.into(), problem: "connection refused".into() }
}

/// The message that is to be sent, and that there is no other.
#[track_caller]
fn the_send(effects: &[Effect]) -> OutgoingMessage {
    let sends: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send(message) => Some(message.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(sends.len(), 1, "{effects:?}");
    sends[0].clone()
}

#[test]
fn it_opens_with_the_newest_page_and_follows_right_behind_it() {
    let mut scene = Scene::new(40, 10);
    assert_eq!(Chat::start(), [Effect::Open]);
    assert!(scene.status().starts_with("connecting…"));
    let effects = scene.happens(Input::Opened(Ok((bob(true), page(history(1..=2), false)))));
    assert_eq!(effects, [Effect::Follow { after: 2, epoch: "e1".into() }]);
    scene.goes_live();
    assert_eq!(scene.screen()[0], " bob ● online           127.0.0.1:50051");
    let expected =
        ["── the beginning ──", "── Sunday, 22 November 2026 ──", "00:01 bob: m1", "00:02 bob: m2"];
    assert_eq!(scene.messages(), expected);
    assert!(scene.status().starts_with("live"));
}

#[test]
fn a_server_that_is_away_at_the_start_is_waited_for() {
    let mut scene = Scene::new(60, 10);
    assert_eq!(scene.happens(Input::Opened(Err(refused_connection()))), []);
    assert!(scene.status().starts_with("reconnecting in 1 s: connection refused"));
    assert_eq!(scene.types("typed meanwhile"), [], "to whom is not known yet");
    assert_eq!(scene.passes(Duration::from_secs(1)), [Effect::Open]);
    assert_eq!(scene.passes(Duration::from_secs(1)), [], "one attempt at a time");
    let effects = scene.happens(Input::Opened(Ok((bob(true), page(vec![], false)))));
    the_send(&effects);
    assert!(matches!(effects[0], Effect::Follow { after: 0, .. }));

    let mut scene = Scene::new(60, 10);
    let effects = scene.happens(Input::Opened(Err(Error::Malformed("nonsense"))));
    assert!(matches!(effects[..], [Effect::Fail(_)]));
}

#[test]
fn what_is_typed_is_sent_one_at_a_time_and_shown_once() {
    let mut scene = Scene::live(40, 12, history(1..=1), false);
    let first = the_send(&scene.types("one"));
    assert_eq!(scene.types("two"), [], "in order: the first has to be answered");
    assert_eq!(scene.messages()[3..], ["  …   you: one", "  …   you: two"]);
    assert!(scene.status().contains("2 not sent yet"));
    // Live delivery is faster than the answer, or the other way round.
    scene.receives(stored(2, "one", first.request_id()));
    assert_eq!(scene.messages()[3..], ["00:02 you: one", "  …   you: two"]);
    let second =
        the_send(&scene.sent(first.request_id(), Ok(stored(2, "one", first.request_id()))));
    assert_ne!(second.request_id(), first.request_id());
    scene.sent(second.request_id(), Ok(stored(3, "two", second.request_id())));
    scene.receives(stored(3, "two", second.request_id()));
    assert_eq!(scene.messages()[2..], ["00:01 bob: m1", "00:02 you: one", "00:03 you: two"]);
}

#[test]
fn it_is_sent_again_with_the_same_request_id_until_it_is_answered() {
    let mut scene = Scene::live(60, 12, vec![], false);
    let message = the_send(&scene.types("hi"));
    let broken = || Error::Disconnected { problem: "reset".into() };
    for _attempt in 0..5 {
        assert_eq!(scene.sent(message.request_id(), Err(broken())), []);
        assert_eq!(the_send(&scene.passes(Duration::from_secs(5))), message);
    }
    scene.goes_away();
    assert_eq!(scene.sent(message.request_id(), Err(refused_connection())), []);
    assert!(scene.status().starts_with("reconnecting in 3 s: connection refused · 1 not sent yet"));
    assert_eq!(scene.screen()[0].split_whitespace().nth(1), Some("127.0.0.1:50051"));
    // As soon as the server is there again, whatever the wait was.
    assert_eq!(the_send(&scene.goes_live()), message);
    assert_eq!(scene.messages().last().expect("a row"), "  …   you: hi");
    scene.sent(message.request_id(), Ok(stored(1, "hi", message.request_id())));
    assert_eq!(scene.messages().last().expect("a row"), "00:01 you: hi");
    assert!(!scene.status().contains("not sent"));
}

#[test]
fn a_refusal_stands_beside_its_text_which_comes_back() {
    let mut scene = Scene::live(100, 12, vec![], false);
    let bad = the_send(&scene.types("bad"));
    scene.types("good");
    let refusal = Error::Malformed("it is too large");
    let good = the_send(&scene.sent(bad.request_id(), Err(refusal)));
    scene.sent(good.request_id(), Ok(stored(1, "good", good.request_id())));
    let rows = scene.messages();
    let at = rows.iter().position(|row| row == "  ✗   you: bad").expect("it is there");
    assert!(rows[at + 1].starts_with("      not sent: ") && rows[at + 1].ends_with("too large"));
    assert_eq!(rows.last().expect("a row"), "00:01 you: good");
    scene.presses(KeyCode::Up, KeyModifiers::NONE);
    scene.presses(KeyCode::Up, KeyModifiers::NONE);
    assert_eq!(scene.screen().last().expect("a row"), "> bad");
}

#[test]
fn older_messages_are_read_before_one_comes_to_them() {
    let mut scene = Scene::new(40, 13);
    let effects = scene.happens(Input::Opened(Ok((bob(true), page(history(101..=200), true)))));
    assert_eq!(effects.len(), 1, "there are plenty: {effects:?}");
    let mut asked = Vec::new();
    for _page in 0..12 {
        asked.extend(scene.presses(KeyCode::PageUp, KeyModifiers::NONE));
    }
    assert_eq!(asked, [Effect::ReadOlder { before: 101, epoch: "e1".into() }], "asked for once");
    let before = scene.messages();
    scene.happens(Input::Older(Ok(page(history(1..=100), false))));
    assert_eq!(scene.messages()[1..], before[1..], "it stays where it was");
    for _page in 0..20 {
        scene.presses(KeyCode::PageUp, KeyModifiers::NONE);
    }
    assert_eq!(scene.messages()[..2], ["── Sunday, 22 November 2026 ──", "00:01 bob: m1"]);
    scene.presses(KeyCode::Esc, KeyModifiers::NONE);
    assert_eq!(scene.messages().last().expect("a row"), "03:20 bob: m200");
}

#[test]
fn scrolled_back_the_screen_stays_where_it_is() {
    let mut scene = Scene::live(40, 13, history(1..=50), false);
    scene.presses(KeyCode::PageUp, KeyModifiers::NONE);
    let seen = scene.messages();
    assert_eq!(seen.last().expect("a row"), "00:41 bob: m41");
    scene.receives(message(51, "bob", "news"));
    assert_eq!(scene.messages(), seen);
    assert!(scene.status().contains("Esc to the newest"));
    for (width, height) in [(20, 13), (100, 30), (40, 13)] {
        scene.happens(Input::Resize { width, height });
        assert_eq!(scene.messages().last().expect("a row"), "00:41 bob: m41");
    }
    // There and back by lines and by pages.
    for _line in 0..3 {
        scene.presses(KeyCode::Up, KeyModifiers::SHIFT);
    }
    assert_eq!(scene.messages().last().expect("a row"), "00:38 bob: m38");
    for _page in 0..2 {
        scene.presses(KeyCode::PageDown, KeyModifiers::NONE);
    }
    assert_eq!(scene.messages().last().expect("a row"), "00:51 bob: news");
    assert!(!scene.status().contains("Esc"));
    // Who sends wants to see it.
    scene.presses(KeyCode::PageUp, KeyModifiers::NONE);
    scene.types("mine");
    assert_eq!(scene.messages().last().expect("a row"), "  …   you: mine");
}

#[test]
fn messages_longer_than_the_screen_are_scrolled_through() {
    let long = (0..100).map(|line| format!("line {line}")).collect::<Vec<_>>().join("\n");
    let mut scene = Scene::live(40, 13, vec![message(1, "bob", &long)], false);
    assert_eq!(scene.messages().last().expect("a row"), "      line 99");
    let mut seen = Vec::new();
    for _line in 0..200 {
        seen.push(scene.messages().last().expect("a row").trim_start().to_owned());
        scene.presses(KeyCode::Up, KeyModifiers::CONTROL);
    }
    seen.dedup();
    assert_eq!(seen.len(), 100 - 8, "each line once, up to a screen full");
    for _page in 0..20 {
        scene.presses(KeyCode::PageDown, KeyModifiers::NONE);
    }
    assert_eq!(scene.messages().last().expect("a row"), "      line 99");
}

#[test]
fn leaving_with_unsent_messages_is_asked_about_once() {
    let mut scene = Scene::live(60, 12, vec![], false);
    let leave = |scene: &mut Scene| scene.presses(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(leave(&mut scene), [Effect::Leave]);
    scene.types("hi");
    assert_eq!(leave(&mut scene), []);
    assert!(scene.status().contains("1 not sent yet; Ctrl-C again leaves"), "{}", scene.status());
    assert_eq!(leave(&mut scene), [Effect::Leave]);
    assert_eq!(leave(&mut scene), [], "asked again");
    scene.presses(KeyCode::Char('x'), KeyModifiers::NONE);
    assert_eq!(leave(&mut scene), [], "another key takes it back");
    assert_eq!(scene.chat.conversation.unsent().map(|(_, text)| text).collect::<Vec<_>>(), ["hi"]);
    // Ctrl-D deletes while there is something to delete.
    scene.presses(KeyCode::Char('a'), KeyModifiers::CONTROL);
    scene.presses(KeyCode::Char('d'), KeyModifiers::CONTROL);
    assert_eq!(scene.screen().last().expect("a row"), ">");
}

#[test]
fn only_the_conversation_is_shown() {
    let mut scene = Scene::live(60, 12, vec![], false);
    let mut from_carol = message(1, "carol", "psst");
    from_carol.to_user = "alice".into();
    scene.receives(from_carol);
    let mut to_carol = stored(2, "psst", "r1");
    to_carol.to_user = "carol".into();
    scene.receives(to_carol);
    let mut to_oneself = message(3, "alice", "note");
    to_oneself.to_user = "alice".into();
    scene.receives(to_oneself.clone());
    assert_eq!(scene.messages(), ["no messages yet"]);
    assert!(scene.status().contains("1 from others"));

    let mut scene = Scene::new(60, 12);
    let oneself = User { username: "alice".into(), ..bob(true) };
    scene.happens(Input::Opened(Ok((oneself, page(vec![], false)))));
    scene.receives(to_oneself);
    // Only what is one's own shows its request id, and so who one is.
    scene.receives(stored(4, "to bob", "r1"));
    scene.receives(message(5, "alice", "to bob"));
    assert_eq!(scene.messages()[2..], ["00:03 you: note"]);
}

#[test]
fn whether_the_peer_is_there_is_asked_now_and_then() {
    let mut scene = Scene::live(60, 12, vec![], false);
    assert_eq!(scene.passes(Duration::from_secs(5)), [Effect::LookUp]);
    assert_eq!(scene.passes(Duration::from_secs(5)), [], "one at a time");
    scene.happens(Input::LookedUp(Ok(bob(false))));
    assert!(scene.screen()[0].starts_with(" bob ○ last seen 22 Nov 00:01"));
    // Somebody who writes is there.
    scene.receives(message(1, "bob", "hi"));
    assert_eq!(scene.passes(Duration::ZERO), []);
    scene.happens(Input::LookedUp(Ok(bob(true))));
    assert!(scene.screen()[0].starts_with(" bob ● online"));
    scene.goes_away();
    assert!(!scene.screen()[0].contains("online"), "that is not known now");
}

#[test]
fn many_lines_are_pasted_into_one_message() {
    let mut scene = Scene::live(80, 12, vec![], false);
    assert_eq!(scene.happens(Input::Paste("one\r\ntwo\r\nthree".into())), []);
    let screen = scene.screen();
    assert_eq!(screen[9..], ["> one", "  two", "  three"]);
    scene.presses(KeyCode::Enter, KeyModifiers::ALT);
    assert_eq!(scene.screen()[8..], ["> one", "  two", "  three", ""]);
    let sent = the_send(&scene.types("four"));
    let sent = format!("{:?}", crate::proto::SendMessageRequest::from(sent));
    assert!(sent.contains(r"one\ntwo\nthree\nfour"), "{sent}");
    scene.happens(Input::Paste("x".repeat(2 * 1024 * 1024)));
    assert!(scene.status().contains("more than a message can hold"));
}

#[test]
fn every_size_of_screen_can_be_drawn() {
    let nasty = "\u{1b}[2J wide 你好 👋 a\u{301}\n\tanother \u{202e} line\r\u{7}";
    let mut scene = Scene::live(80, 24, vec![message(1, "bob", nasty)], true);
    scene.types("unsent 你好");
    scene.happens(Input::Paste(nasty.into()));
    scene.goes_away();
    for width in 1..30 {
        for height in 1..12 {
            scene.happens(Input::Resize { width, height });
            scene.presses(KeyCode::PageUp, KeyModifiers::NONE);
            let screen = scene.screen().concat();
            assert!(!screen.contains(|c: char| c.is_control() || c == '\u{202e}'), "{screen:?}");
            for size in [(1, 1), (40, 3), (3, 40)] {
                scene.screen_of(size);
            }
        }
    }
}
