//! The real binary under a clock that jumps by years, back and forth, between its starts and while it
//! runs (libfaketime): times are what the clock says, and nothing else depends on them.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use peerpost::proto::{Message, SendMessageRequest, SubscribeRequest};
use peerpost::testing::{ServerProcess, TestUser, text_to};
use tempfile::TempDir;

use crate::shutdown::stalled_subscription;
use crate::support::{
    assert_dense_from, assert_same_view, binary, micros, now_micros, seconds, subscribe_after,
    with_id,
};

/// Where Debian has it; the loader puts in the machine's folder of libraries.
const LIBRARY: &str = "/usr/$LIB/faketime/libfaketimeMT.so.1";

const YEAR_SECONDS: i64 = 365 * 24 * 3600;

/// How far the server's clock is from this machine's, one after the other.
const OFFSETS_SECONDS: [i64; 7] =
    [0, 10 * YEAR_SECONDS, -20 * YEAR_SECONDS, -1, 3600, -3600, YEAR_SECONDS];

/// How exactly a clock is set: the offset goes through floating-point numbers.
const EXACT_MICROS: i64 = 1_000;

/// A clock for servers, which can be set while they run.
struct Clock {
    folder: TempDir,
    offset_seconds: i64,
}

impl Clock {
    /// `None` where there is no libfaketime, which is said on the terminal.
    fn new(test: &str) -> Option<Self> {
        let mut clock = Self { folder: tempfile::tempdir().expect("a folder"), offset_seconds: 0 };
        clock.jump(-40 * YEAR_SECONDS);
        let words = clock.wrapper();
        let date = Command::new(&words[0]).args(&words[1..]).args(["date", "+%s"]).output();
        let told = date.ok().and_then(|it| String::from_utf8(it.stdout).ok()?.trim().parse().ok());
        clock.jump(0);
        if told.is_some_and(|told: i64| told < now_micros() / 1_000_000 - 39 * YEAR_SECONDS) {
            return Some(clock);
        }
        // Not `eprintln`, which the test harness would keep to itself.
        let _ = writeln!(
            std::io::stderr(),
            "\n\nSKIPPED clocks::{test}: there is no {LIBRARY} (package faketime); \
             NOTHING OF CLOCKS THAT JUMP WAS TESTED\n"
        );
        None
    }

    /// Sets the clock of all servers that run with it.
    fn jump(&mut self, offset_seconds: i64) {
        self.offset_seconds = offset_seconds;
        // In one step, so that nobody reads half of it.
        let next = self.folder.path().join("next");
        fs::write(&next, format!("{offset_seconds:+}")).expect("it can be written");
        fs::rename(next, self.setting()).expect("it can be renamed");
    }

    fn setting(&self) -> PathBuf {
        self.folder.path().join("offset")
    }

    /// What comes before a command, so that it sees this clock.
    fn wrapper(&self) -> Vec<String> {
        vec![
            "env".to_owned(),
            format!("LD_PRELOAD={LIBRARY}"),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.setting().display()),
            "FAKETIME_NO_CACHE=1".to_owned(),
            // As a machine's clock is set: what measures durations goes on.
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        ]
    }

    async fn server(&self, flags: &[&str]) -> ServerProcess {
        let words = self.wrapper();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let data_dir = self.folder.path().join("data");
        ServerProcess::start_with(&words, binary(), &data_dir, flags).await
    }

    fn now_micros(&self) -> i64 {
        now_micros() + self.offset_seconds * 1_000_000
    }

    /// Sends, and asserts that the message bears this clock's time.
    async fn send(&self, user: &TestUser, request: SendMessageRequest) -> Message {
        let before = self.now_micros();
        let message = user.try_send(request).await.expect("accepted");
        let times = before - EXACT_MICROS..=self.now_micros() + EXACT_MICROS;
        let time = micros(message.send_time.as_ref());
        assert!(times.contains(&time), "{time} is not in {times:?}");
        message
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_changes_nothing_but_times() {
    let Some(mut clock) = Clock::new("a_clock_that_jumps_changes_nothing_but_times") else {
        return;
    };
    let mut server = clock.server(&[]).await;
    let (mut alice, mut bob) = (server.user("alice").await, server.user("bob").await);
    let mut sent: Vec<(SendMessageRequest, Message)> = Vec::new();
    let mut last_subscribed = 0;
    for (round, offset) in OFFSETS_SECONDS.into_iter().enumerate() {
        // Once while the server runs and bob follows, once while there is none.
        for is_running in [true, false] {
            if is_running {
                clock.jump(offset);
            } else {
                server.kill();
                clock.jump(-offset);
                server = clock.server(&[]).await;
                (alice, bob) = (alice.at(server.addr()), bob.at(server.addr()));
            }
            last_subscribed = last_subscribed.max(clock.now_micros());
            let mut live = bob.follow(i64::try_from(sent.len()).expect("few")).await;
            for number in 0..5 {
                let id = format!("{round}-{is_running}-{number}");
                let request = with_id(text_to("bob", id.clone()), &id);
                let message = clock.send(&alice, request.clone()).await;
                let delivered = live.next_message().await;
                assert_eq!(delivered.message_id, message.message_id);
                sent.push((request, message));
            }
            for (request, first) in &sent {
                let again = alice.try_send(request.clone()).await.expect("it is known");
                assert_eq!(&again, first, "stored once, with its first time");
            }
            let name = format!("new-{round}-{is_running}");
            assert_eq!(server.user(&name).await.send(&name, "note").await.sequence, 1);
            let seen = alice.get_user("bob").await.expect("found");
            let seen = micros(seen.last_seen_time.as_ref());
            assert!(
                seen >= last_subscribed - EXACT_MICROS,
                "seen {seen}, {last_subscribed} before"
            );
        }
    }
    let messages: Vec<_> = sent.into_iter().map(|(_, message)| message).collect();
    let mailbox = alice.mailbox().await;
    assert_dense_from(1, &mailbox);
    assert_same_view(&mailbox, &messages);
    let (followed, _) = bob.follow(0).await.history().await;
    assert_same_view(&followed, &bob.mailbox().await);
    assert_dense_from(1, &followed);
    assert_eq!(followed.len(), messages.len());
}

/// The clock that timers go by is not the one that is set.
#[tokio::test(flavor = "multi_thread")]
async fn timers_do_not_follow_a_clock_that_jumps() {
    const HEARTBEATS: u32 = 4;
    const DRAIN_DEADLINE: Duration = Duration::from_secs(1);
    let Some(mut clock) = Clock::new("timers_do_not_follow_a_clock_that_jumps") else { return };
    for jump in [10 * YEAR_SECONDS, -10 * YEAR_SECONDS] {
        let deadline_ms = DRAIN_DEADLINE.as_millis().to_string();
        let server = clock.server(&["--drain-deadline-ms", &deadline_ms]).await;
        let alice = server.user(&format!("alice{}", jump > 0)).await;
        let begun = Instant::now();
        let request =
            SubscribeRequest { heartbeat_interval: Some(seconds(1)), ..subscribe_after(0) };
        let mut quiet = alice.subscribe(request).await.expect("accepted");
        assert_eq!(quiet.history().await.1, 0);
        for number in 1..=HEARTBEATS {
            clock.jump(jump * i64::from(number % 2));
            assert_eq!(quiet.heartbeat().await, 0);
        }
        // As a rule they come later, never earlier.
        let took = begun.elapsed();
        assert!(took >= Duration::from_secs(1) * HEARTBEATS, "{HEARTBEATS} within {took:?}");
        drop(quiet);

        let name = alice.name.clone();
        let bodies = (0..200).map(|_| text_to(&name, "x".repeat(1_000)));
        alice.send_all(bodies).await.expect("OK");
        let mut stalled = stalled_subscription(&alice).await;
        stalled.next_message().await;
        let begun = Instant::now();
        server.terminate();
        if std::env::var_os("NOJUMP").is_none() {
            clock.jump(jump);
        }
        let exit = server.exit().await;
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
        let took = begun.elapsed();
        // Unless it ended before the server had filled the stalled client's window.
        let was_cut_off = exit.stderr.contains("left at the drain deadline");
        assert!(!was_cut_off || took >= DRAIN_DEADLINE, "cut off after {took:?}");
        clock.jump(0);
    }
}
