//! What this machine can do at most: syncs of its disk, and rows into the store without gRPC.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;

use super::meter::Figures;
use super::options::Load;
use super::progress;
use super::random::Random;
use crate::domain::limits::BODY_BYTES_CEILING;
use crate::domain::{
    Body, Content, ContentType, Message, PeerAddress, RequestId, Token, User, Username,
};
use crate::store::{self, CommitListener, Draft, Store};

/// What is written before each sync: a page.
const PAGE_BYTES: usize = 4096;

/// Messages handed to the store and not yet on disk: more than a group, so that groups are full.
const ROWS_IN_FLIGHT: usize = 2048;

const SENDERS: usize = 16;

/// The two ways to have data on disk.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sync {
    /// With all of the file's metadata.
    Fsync,
    /// With what is needed to read the data again.
    Fdatasync,
}

/// Appends a page and syncs it, again and again; how long each took.
pub(super) async fn syncs(file: &Path, how: Sync, duration: Duration) -> anyhow::Result<Figures> {
    let path = file.to_owned();
    let measure = tokio::task::spawn_blocking(move || {
        let mut file = File::create(&path)?;
        let page = [0x5a; PAGE_BYTES];
        let (begin, mut durations) = (Instant::now(), Vec::new());
        while begin.elapsed() < duration {
            let one = Instant::now();
            file.write_all(&page)?;
            match how {
                Sync::Fsync => file.sync_all()?,
                Sync::Fdatasync => file.sync_data()?,
            }
            durations.push(one.elapsed());
        }
        std::fs::remove_file(&path)?;
        std::io::Result::Ok(Figures::of_durations(&durations, 1))
    });
    let label = format!("{how:?} of 4 KiB");
    progress::waited(&label, measure)
        .await?
        .with_context(|| format!("cannot sync in {}", file.display()))
}

/// Nobody is told.
struct Unannounced;

impl CommitListener for Unannounced {
    fn committed(&self, _messages: &[Arc<Message>]) {}

    fn reset(&self) {}
}

/// The rows of a load's messages into a store of their own, in full groups, without gRPC.
pub(super) async fn rows(
    folder: &Path,
    load: &Load,
    duration: Duration,
) -> anyhow::Result<Figures> {
    let options = store::Options::new(folder);
    let opening = move || store::open(&options, Box::new(Unannounced));
    let (store, guard) = tokio::task::spawn_blocking(opening).await??;
    let figures = progress::waited("rows without gRPC", append(&store, load, duration)).await;
    guard.close().await;
    figures
}

async fn append(store: &Store, load: &Load, duration: Duration) -> anyhow::Result<Figures> {
    let senders = register(store, "s", SENDERS).await?;
    let receivers = register(store, "r", load.users).await?;
    let body = Bytes::from(vec![b'x'; load.body_bytes]);
    let body = Body::data(body, BODY_BYTES_CEILING)?;
    let mut random = Random::seeded()?;
    let mut in_flight = VecDeque::with_capacity(ROWS_IN_FLIGHT);
    let (begin, mut count) = (Instant::now(), 0_u64);
    loop {
        let is_over = begin.elapsed() >= duration;
        if !is_over && in_flight.len() < ROWS_IN_FLIGHT {
            let content = Content { body: body.clone(), content_type: ContentType::default() };
            let draft = Draft {
                sender: senders[random.below(senders.len())].clone(),
                receiver: receivers[random.below(receivers.len())].clone(),
                content,
                request_id: RequestId::parse(random.request_id())?,
            };
            in_flight.push_back(store.append(draft).await?);
        } else if let Some(first) = in_flight.pop_front() {
            first.committed().await?;
            count += 1;
        } else {
            return Ok(Figures::of_count(count, begin.elapsed()));
        }
    }
}

async fn register(store: &Store, prefix: &str, count: usize) -> anyhow::Result<Vec<User>> {
    let address = PeerAddress::parse("127.0.0.1")?;
    let mut users = Vec::with_capacity(count);
    for number in 0..count {
        let name = Username::parse(&format!("{prefix}{number}"))?;
        let registered = store.register(name, address, Token::mint().hash(), None).await?;
        users.push(registered.profile.user);
    }
    Ok(users)
}
