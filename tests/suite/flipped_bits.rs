//! Single bits that turn over anywhere in the files of a killed server: what is served after that is
//! what was acknowledged, or it is refused.
//!
//! `PEERPOST_FLIPS` sets how many flips are tried, `PEERPOST_FLIPS_SEED` where they are.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use peerpost::proto::{Message, SendMessageRequest};
use peerpost::testing::{ServerProcess, TestServer, TestUser, data_to, text_to};
use proptest::prelude::RngExt as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::flipped_bits_reading::{Allowed, Gap, Owner, Reading, read_everything};
use crate::support::{binary, with_id};

const FLIPS_DEFAULT: u64 = 120;

const NAMES: [&str; 5] = ["alice", "bob", "carol", "dave", "erin"];

/// Several merges are done when the server is killed, and one is under way.
const MERGE_MESSAGES: usize = 200;

const ROUNDS: usize = 45;

/// Messages that a user sends in a round, on one stream: few commits.
const BATCH: usize = 6;

/// As SQLite's file format has them (sqlite.org/fileformat2.html).
const PAGE_BYTES: usize = 4096;
const LOG_HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;

const FILES: [&str; 2] = ["peerpost.db", "peerpost.db-wal"];
const DATABASE: usize = 0;
const LOG: usize = 1;

/// The files of a killed server, and what it had acknowledged.
struct Original {
    owners: Vec<Owner>,
    /// As the kill left them; with all of the log written to the database as well, as a checkpoint
    /// just before the kill leaves them; and with the log emptied after that.
    states: [State; 3],
}

/// Where `docs/GUARANTEES.md` says that nothing is checked, and what comes of it.
const GAPS: [(&str, Gap); 3] = [
    ("database, users", Gap::Names),
    ("database, mailbox_runs", Gap::Peers),
    ("database, request_keys", Gap::Requests),
];

/// The state in which everything is read from the database.
const EMPTIED: usize = 2;

struct State {
    name: &'static str,
    /// The database and its log.
    files: [Vec<u8>; 2],
    /// Which table or index each page is of.
    pages: HashMap<u32, String>,
}

/// One bit of one file of one state.
#[derive(Debug, Clone, Copy)]
struct Flip {
    state: usize,
    file: usize,
    byte: usize,
    bit: u8,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_never_served() {
    let original = Arc::new(Original::make().await);
    let (count, seed) = (number("PEERPOST_FLIPS", FLIPS_DEFAULT), number("PEERPOST_FLIPS_SEED", 1));
    let mut random = random(seed);
    let mut flips: Vec<_> = (0..count).map(|_| original.any_flip(&mut random)).collect();
    let mut tasks = JoinSet::new();
    for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
        start_next(&original, &mut flips, &mut tasks);
    }
    let mut tally = BTreeMap::<(String, &str), usize>::new();
    let mut wrong = Vec::new();
    while let Some(outcome) = tasks.join_next().await {
        start_next(&original, &mut flips, &mut tasks);
        let (flip, outcome) = outcome.expect("a flip's task does not panic");
        *tally.entry((original.place(flip).0, name_of(outcome.as_ref()))).or_default() += 1;
        if let Some(Reading { wrong: what, .. }) = outcome.filter(|it| !it.wrong.is_empty()) {
            let what: Vec<_> =
                what.iter().map(|it| it.chars().take(700).collect::<String>()).collect();
            let rest = what.len().saturating_sub(3);
            let what = what[..what.len().min(3)].join("\n  ");
            wrong.push(format!(
                "{flip:?} in {:?}:\n  {what}\n  and {rest} more",
                original.place(flip)
            ));
        }
    }
    for ((place, outcome), times) in &tally {
        println!("{place}: {outcome} {times} times");
    }
    assert!(wrong.is_empty(), "seed {seed}:\n{}", wrong.join("\n"));
    for outcome in [WHOLE, REFUSED, GONE] {
        assert!(tally.keys().any(|(_, it)| *it == outcome), "of {count} flips none was {outcome}");
    }
}

fn start_next(
    original: &Arc<Original>,
    flips: &mut Vec<Flip>,
    tasks: &mut JoinSet<(Flip, Option<Reading>)>,
) {
    if let Some(flip) = flips.pop() {
        let original = Arc::clone(original);
        tasks.spawn(async move { (flip, original.outcome(flip).await) });
    }
}

const WHOLE: &str = "all served as it was";
const REFUSED: &str = "reads refused";
const GONE: &str = "last commits gone";

fn name_of(outcome: Option<&Reading>) -> &'static str {
    match outcome {
        None => "start refused",
        Some(reading) if !reading.wrong.is_empty() => "WRONG",
        Some(reading) if reading.through_gap > 0 => "A GAP, known: no checksum",
        Some(reading) if reading.gone > 0 => GONE,
        Some(reading) if reading.refused > 0 => REFUSED,
        Some(_) => WHOLE,
    }
}

impl Original {
    async fn make() -> Self {
        let folder = in_memory();
        let data_dir = folder.path().join("data");
        let merge = MERGE_MESSAGES.to_string();
        let flags = ["--merge-messages", merge.as_str()];
        let server = ServerProcess::start_with(&[], binary(), &data_dir, &flags).await;
        let mut users = Vec::new();
        for name in NAMES {
            users.push(server.user(name).await);
        }
        let mut sent = Vec::new();
        for round in 0..ROUNDS {
            if round == ROUNDS / 2 {
                // From here on the log begins anew, over what it held.
                checkpoint(&mut open(&data_dir), "PASSIVE");
            }
            for (number, user) in users.iter().enumerate() {
                // The last one is quiet after a while: all of their mailbox is in the tables.
                if number < NAMES.len() - 1 || round < 10 {
                    sent.extend(send_a_batch(user, number, round).await);
                }
            }
        }
        let mut owners = Vec::new();
        for user in users {
            owners.push(owner(user, &sent).await);
        }
        server.kill();
        Self { owners, states: State::all(&data_dir) }
    }

    /// Where a flip is: the table or index that the page is of, or the part of the log.
    fn place(&self, flip: Flip) -> (String, String) {
        let Flip { state, file, byte, .. } = flip;
        let state = &self.states[state];
        let page = if file == DATABASE {
            u32::try_from(byte / PAGE_BYTES).expect("a small file") + 1
        } else {
            let Some(after) = byte.checked_sub(LOG_HEADER_BYTES) else {
                return ("log's header".to_owned(), state.name.to_owned());
            };
            let frame_bytes = FRAME_HEADER_BYTES + PAGE_BYTES;
            let frame = &state.files[LOG][LOG_HEADER_BYTES + after / frame_bytes * frame_bytes..];
            if after % frame_bytes < FRAME_HEADER_BYTES {
                return ("log's frame header".to_owned(), state.name.to_owned());
            }
            u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]])
        };
        let owner = state.pages.get(&page).map_or("free", String::as_str);
        let file = ["database", "log"][file];
        (format!("{file}, {owner}"), format!("{}, page {page}", state.name))
    }

    fn any_flip(&self, random: &mut TestRng) -> Flip {
        let bit = random.random_range(0..8);
        let mut below = |bound: usize| random.random_range(0..bound);
        let (state, file) = match below(8) {
            state @ (0 | 1) => (state, DATABASE),
            choice @ 2..=4 => (choice % 2, LOG),
            _ => (EMPTIED, DATABASE),
        };
        let files = &self.states[state].files;
        let byte = if file == DATABASE {
            // Each table and index is as likely, however small it is.
            let in_file = |page: &u32| {
                usize::try_from(*page).is_ok_and(|it| it * PAGE_BYTES <= files[DATABASE].len())
            };
            let pages = self.states[state].pages.iter();
            let mut pages: Vec<_> = pages.filter(|(page, _)| in_file(page)).collect();
            pages.sort();
            let mut names: Vec<_> = pages.iter().map(|(_, name)| *name).collect();
            names.sort();
            names.dedup();
            let name = names[below(names.len())];
            pages.retain(|(_, it)| *it == name);
            let page = *pages[below(pages.len())].0 as usize - 1;
            let page = page * PAGE_BYTES..(page + 1) * PAGE_BYTES;
            something(&files[DATABASE][page.clone()], &mut below) + page.start
        } else {
            let frame_bytes = FRAME_HEADER_BYTES + PAGE_BYTES;
            let frames = (files[LOG].len() - LOG_HEADER_BYTES) / frame_bytes;
            let frame = LOG_HEADER_BYTES + below(frames) * frame_bytes;
            match below(8) {
                0 => below(LOG_HEADER_BYTES),
                1 | 2 => frame + below(FRAME_HEADER_BYTES),
                _ => frame + something(&files[LOG][frame..frame + frame_bytes], &mut below),
            }
        };
        Flip { state, file, byte, bit }
    }

    /// Serves the damaged files; `None` when the start is refused.
    async fn outcome(&self, flip: Flip) -> Option<Reading> {
        let folder = in_memory();
        let Flip { state, file, byte, bit } = flip;
        for (number, name) in FILES.iter().enumerate() {
            let mut bytes = self.states[state].files[number].clone();
            if number == file {
                bytes[byte] ^= 1 << bit;
            }
            fs::write(folder.path().join(name), bytes).expect("a copy can be written");
        }
        let server = TestServer::try_start_with(|options| {
            folder.path().clone_into(&mut options.data_dir);
            options.merge_messages = MERGE_MESSAGES;
        });
        let mut server = server.await.ok()?;
        let place = self.place(flip).0;
        let gap = GAPS.iter().find(|(table, _)| place.ends_with(table)).map(|(_, gap)| *gap);
        let allowed = Allowed { prefix: file == LOG, gap };
        let reading = read_everything(&self.owners, server.addr(), allowed).await;
        server.stop().await;
        Some(reading)
    }
}

impl State {
    /// The three states.
    fn all(data_dir: &Path) -> [Self; 3] {
        let read = || FILES.map(|name| fs::read(data_dir.join(name)).expect("it can be read"));
        let killed = read();
        let mut connection = open(data_dir);
        checkpoint(&mut connection, "PASSIVE");
        let pages = pages(&mut connection);
        let checkpointed = read();
        checkpoint(&mut connection, "TRUNCATE");
        let states = [("killed", killed), ("checkpointed", checkpointed), ("emptied", read())];
        states.map(|(name, files)| Self { name, files, pages: pages.clone() })
    }
}

#[derive(QueryableByName)]
struct PageOwner {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = BigInt)]
    pageno: i64,
}

fn pages(connection: &mut SqliteConnection) -> HashMap<u32, String> {
    let pages = diesel::sql_query("SELECT name, pageno FROM dbstat").load::<PageOwner>(connection);
    let pages = pages.expect("SQLite knows its pages").into_iter();
    pages.map(|it| (u32::try_from(it.pageno).expect("a page number"), it.name)).collect()
}

/// Writes what the log holds to the database.
fn checkpoint(connection: &mut SqliteConnection, mode: &str) {
    let pragma = format!("PRAGMA wal_checkpoint({mode})");
    connection.batch_execute(&pragma).expect("a checkpoint");
}

fn open(data_dir: &Path) -> SqliteConnection {
    let path = data_dir.join(FILES[DATABASE]);
    SqliteConnection::establish(path.to_str().expect("a path in UTF-8")).expect("it opens")
}

/// The place of a byte that is not 0, if a few tries find one: most of a page may be empty.
fn something(bytes: &[u8], below: &mut impl FnMut(usize) -> usize) -> usize {
    let mut tries = (0..32).map(|_| below(bytes.len()));
    tries.find(|place| bytes[*place] != 0).unwrap_or(0)
}

/// What is tested is not the disk; in memory, where there is such a place, it is quick.
fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary folder")
}

fn random(seed: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

async fn send_a_batch(
    user: &TestUser,
    number: usize,
    round: usize,
) -> Vec<(SendMessageRequest, Message)> {
    let request = |i: usize| {
        let to = NAMES[(number + round + i) % NAMES.len()];
        let id = format!("{}-{round}-{i}", user.name);
        let request = match (round + i) % 16 {
            // Longer than a page.
            3 => data_to(to, id.repeat(900)),
            _ => text_to(to, format!("text of {id}")),
        };
        with_id(request, &id)
    };
    let requests: Vec<_> = (0..BATCH).map(request).collect();
    let answers = user.send_all(requests.clone()).await.expect("the stream ends with OK");
    let answers = answers.into_iter().map(|answer| answer.expect("accepted"));
    requests.into_iter().zip(answers).collect()
}

async fn owner(user: TestUser, sent: &[(SendMessageRequest, Message)]) -> Owner {
    let mailbox = user.mailbox().await;
    let place = |it: &Message| sent.iter().position(|(_, sent)| sent.message_id == it.message_id);
    let places = mailbox.iter().map(|it| place(it).expect("it was acknowledged")).collect();
    let own: Vec<_> = sent.iter().filter(|(_, it)| it.from_user == user.name).cloned().collect();
    for (_, message) in &own {
        let at = usize::try_from(message.sequence).expect("a sequence") - 1;
        assert_eq!(&mailbox[at], message);
    }
    let requests = own.iter().step_by(own.len() / 6).chain(own.last()).cloned().collect();
    Owner { user, mailbox, places, requests }
}
