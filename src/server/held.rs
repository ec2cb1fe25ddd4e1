//! What connections hold of the server's memory for clients that do not finish or do not read, and
//! who has to go when it is too much.
//!
//! Each call has its bounds, but a connection has 256 calls and there are many connections. So the
//! bytes are counted over all of them: those of each call's latest request, while it is received and
//! until it is taken (of a request that is not gRPC: all that came), and those of answers on their way to
//! the socket. When they are more than [`HELD_BYTES_DEFAULT`](super::HELD_BYTES_DEFAULT) or what the operator
//! set (`held_bytes_max`), the connection on which nothing has moved for the longest time is cut: to its client
//! the network has failed, which every client has to bear. Whoever reads is not that one, and neither is who
//! holds little beside the others: a small call that waits for its commit moves less than a flood does.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::limits::Bounds;
use crate::metrics::{Counter, Page};

/// The length of what stands before each message (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX_BYTES: usize = 5;

/// What all connections of a server hold.
pub(super) struct Holdings {
    held_bytes: AtomicUsize,
    held_bytes_max: usize,
    started: Instant,
    connections: Mutex<Connections>,
    /// Connections that were cut.
    cuts: Counter,
}

#[derive(Default)]
struct Connections {
    shares: HashMap<u64, Weak<Share>>,
    next: u64,
}

/// What one connection holds.
pub(super) struct Share {
    of: Arc<Holdings>,
    number: u64,
    held_bytes: AtomicUsize,
    /// When a byte last came or went, in microseconds since the server started.
    moved_micros: AtomicU64,
    /// Cancelled: it ends now.
    cut: CancellationToken,
}

impl Holdings {
    pub(super) fn new(held_bytes_max: usize) -> Arc<Self> {
        let connections = Mutex::default();
        let held_bytes = AtomicUsize::new(0);
        let (started, cuts) = (Instant::now(), Counter::default());
        Arc::new(Self { held_bytes, held_bytes_max, started, connections, cuts })
    }

    /// A new connection, which ends when `cut` is cancelled.
    pub(super) fn share(self: &Arc<Self>, cut: CancellationToken) -> Arc<Share> {
        let mut connections = self.connections();
        let number = connections.next;
        connections.next += 1;
        let share = Arc::new(Share {
            of: Arc::clone(self),
            number,
            held_bytes: AtomicUsize::new(0),
            moved_micros: AtomicU64::new(0),
            cut,
        });
        connections.shares.insert(number, Arc::downgrade(&share));
        share
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// The connections that are open.
    pub(super) fn connections_open(&self) -> usize {
        self.connections().shares.len()
    }

    /// Writes what is counted here.
    pub(super) fn write_metrics(&self, page: &mut Page) {
        let (open, accepted) = {
            let connections = self.connections();
            (connections.shares.len(), connections.next)
        };
        page.gauge("peerpost_connections", "Connections that are open.", open);
        page.counter("peerpost_connections_total", "Connections that were accepted.", accepted);
        let help = "What requests and answers in transit hold of the memory.";
        page.gauge("peerpost_held_bytes", help, self.held_bytes());
        let help = "What they may hold, before connections are cut for it.";
        page.gauge("peerpost_held_limit_bytes", help, self.held_bytes_max);
        let help = "Connections that were cut to free memory.";
        page.counter("peerpost_connections_cut_total", help, self.cuts.get());
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Cuts connections until those that are left hold no more than they may.
    fn relieve(&self) {
        let shares: Vec<_> = self.connections().shares.values().filter_map(Weak::upgrade).collect();
        let held = |share: &Arc<Share>| share.held_bytes.load(Ordering::Relaxed);
        let is_left = |share: &&Arc<Share>| !share.cut.is_cancelled() && held(share) > 0;
        let mut left: Vec<_> = shares.iter().filter(is_left).collect();
        let mut left_bytes: usize = left.iter().map(|share| held(share)).sum();
        // The one that moved least lately stands last.
        left.sort_by_key(|share| std::cmp::Reverse(share.moved_micros.load(Ordering::Relaxed)));
        while left_bytes > self.held_bytes_max {
            let mean_bytes = left_bytes / left.len().max(1);
            let holds_much = |share: &&Arc<Share>| held(share) >= mean_bytes / 2;
            let Some(place) = left.iter().rposition(holds_much) else { break };
            let share = left.remove(place);
            let bytes = held(share);
            left_bytes = left_bytes.saturating_sub(bytes);
            share.cut.cancel();
            self.cuts.increment();
            let (limit, value) = (Bounds::HELD_BYTES_MAX.name, self.held_bytes_max);
            warn!(
                limit,
                value, bytes, "cut the connection that stood still for the longest, to free memory"
            );
        }
    }
}

impl Share {
    /// A request's body as it is received.
    pub(super) fn request<B>(self: &Arc<Self>, body: B) -> RequestBody<B> {
        RequestBody { body, latest: Held::new(Arc::clone(self)), message: Some(Message::default()) }
    }

    /// An answer's body as it is sent.
    pub(super) fn answer<B>(self: &Arc<Self>, body: B) -> Answer<B> {
        Answer { body, share: Arc::clone(self) }
    }

    fn add(&self, bytes: usize) {
        self.moved_micros.store(self.of.micros(), Ordering::Relaxed);
        self.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        let before = self.of.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > self.of.held_bytes_max {
            self.of.relieve();
        }
    }

    fn remove(&self, bytes: usize) {
        self.moved_micros.store(self.of.micros(), Ordering::Relaxed);
        self.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.of.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.connections().shares.remove(&self.number);
    }
}

/// Bytes that are held until it is dropped.
struct Held {
    share: Arc<Share>,
    bytes: usize,
}

impl Held {
    fn new(share: Arc<Share>) -> Self {
        Self { share, bytes: 0 }
    }

    fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.share.add(bytes);
    }

    fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        if bytes > 0 {
            self.bytes -= bytes;
            self.share.remove(bytes);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

/// A request's body. What it has of its latest message counts until the next one begins or the body
/// is dropped, since until then whoever reads it may hold that message.
pub struct RequestBody<B> {
    body: B,
    latest: Held,
    /// `None`: there are no messages in it, and all of it counts until it is dropped.
    message: Option<Message>,
}

/// How far the latest message has come.
#[derive(Default)]
struct Message {
    prefix: [u8; PREFIX_BYTES],
    /// With its prefix.
    received_bytes: usize,
}

impl Message {
    /// Takes bytes of its prefix, or else of what follows, from the beginning of these. Says how many:
    /// more than none, unless it is whole.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let received = self.received_bytes;
        let taken = if received < PREFIX_BYTES {
            let taken = bytes.len().min(PREFIX_BYTES - received);
            self.prefix[received..received + taken].copy_from_slice(&bytes[..taken]);
            taken
        } else {
            bytes.len().min(self.whole_bytes() - received)
        };
        self.received_bytes += taken;
        taken
    }

    /// Its length with its prefix, once that is there.
    fn whole_bytes(&self) -> usize {
        let [_, length @ ..] = self.prefix;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        length.saturating_add(PREFIX_BYTES)
    }

    fn is_whole(&self) -> bool {
        self.received_bytes >= PREFIX_BYTES && self.received_bytes == self.whole_bytes()
    }
}

impl<B> RequestBody<B> {
    /// The body of a request that is not gRPC.
    pub(super) fn without_messages(self) -> Self {
        Self { message: None, ..self }
    }

    /// Counts what `decode` makes of the body, instead of what comes.
    pub(super) fn decoded<C>(self, decode: impl FnOnce(B) -> C) -> RequestBody<C> {
        let Self { body, latest, message } = self;
        RequestBody { body: decode(body), latest, message }
    }

    fn count(&mut self, mut bytes: &[u8]) {
        let Some(message) = &mut self.message else {
            self.latest.grow(bytes.len());
            return;
        };
        while !bytes.is_empty() {
            if message.is_whole() {
                *message = Message::default();
                self.latest.shrink(self.latest.bytes);
            }
            let taken = message.take(bytes);
            self.latest.grow(taken);
            bytes = &bytes[taken..];
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(bytes) = frame.data_ref()
        {
            self.count(bytes);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body. Its bytes count until the socket has taken them.
pub(super) struct Answer<B> {
    body: B,
    share: Arc<Share>,
}

/// Bytes of an answer.
pub(super) struct Piece {
    bytes: Bytes,
    held: Held,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.held.shrink(count);
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Piece;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let counted = |bytes: Bytes| {
            let mut held = Held::new(Arc::clone(&self.share));
            held.grow(bytes.len());
            Piece { bytes, held }
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(counted))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(of: &Arc<Holdings>) -> (Arc<Share>, CancellationToken) {
        let cut = CancellationToken::new();
        (of.share(cut.clone()), cut)
    }

    #[test]
    fn who_stood_still_for_the_longest_goes_first_and_who_holds_nothing_stays() {
        let holdings = Holdings::new(100);
        let [(idle, idle_cut), (stalled, stalled_cut), (slow, slow_cut)] =
            [share(&holdings), share(&holdings), share(&holdings)];
        idle.add(10);
        idle.remove(10);
        slow.add(40);
        stalled.add(50);
        slow.moved_micros.store(u64::MAX, Ordering::Relaxed);
        assert!(!stalled_cut.is_cancelled(), "90 of 100");
        idle.moved_micros.store(0, Ordering::Relaxed);
        let (new, new_cut) = share(&holdings);
        new.add(11);
        assert!(stalled_cut.is_cancelled());
        new.add(49);
        assert!(!slow_cut.is_cancelled(), "100 of 100 without the one that was cut");
        slow.moved_micros.store(1, Ordering::Relaxed);
        new.add(1);
        assert!(slow_cut.is_cancelled() && !new_cut.is_cancelled() && !idle_cut.is_cancelled());
    }

    #[test]
    fn who_holds_little_stays_however_still_and_the_next_one_goes() {
        let holdings = Holdings::new(100);
        let [(small, small_cut), (large, large_cut), (other, other_cut)] =
            [share(&holdings), share(&holdings), share(&holdings)];
        small.add(5);
        large.add(50);
        other.add(45);
        for (share, moved) in [(&small, 0), (&large, 1), (&other, 2)] {
            share.moved_micros.store(moved, Ordering::Relaxed);
        }
        let (new, new_cut) = share(&holdings);
        new.add(40);
        assert!(large_cut.is_cancelled());
        assert!(!small_cut.is_cancelled() && !other_cut.is_cancelled() && !new_cut.is_cancelled());
    }

    #[test]
    fn what_is_dropped_is_held_no_more() {
        let holdings = Holdings::new(100);
        let (share, _) = share(&holdings);
        let mut held = Held::new(Arc::clone(&share));
        held.grow(70);
        let mut piece = Piece { bytes: Bytes::from_static(&[0; 70]), held };
        piece.advance(30);
        assert_eq!(holdings.held_bytes(), 40);
        drop(piece);
        assert_eq!(holdings.held_bytes(), 0);
        drop(share);
        assert!(holdings.connections().shares.is_empty());
    }

    #[test]
    fn the_latest_message_counts_however_it_is_cut_into_frames() {
        let prefixed = |length: usize| {
            let prefix = u32::try_from(length).expect("small").to_be_bytes();
            [&[0], &prefix[..], &vec![7; length]].concat()
        };
        let messages = [3, 0, 300, 1].map(prefixed);
        // What is to be held after each byte: the message that it belongs to, up to there.
        let held: Vec<_> = messages.iter().flat_map(|message| 1..=message.len()).collect();
        let all = messages.concat();
        for size in [1, 2, 4, 5, 6, 7, 100, all.len()] {
            let holdings = Holdings::new(usize::MAX);
            let mut request = share(&holdings).0.request(());
            let mut received = 0;
            for bytes in all.chunks(size) {
                request.count(bytes);
                received += bytes.len();
                assert_eq!(holdings.held_bytes(), held[received - 1]);
            }
        }
    }

    #[test]
    fn without_messages_all_of_a_request_counts() {
        let holdings = Holdings::new(usize::MAX);
        let mut request = share(&holdings).0.request(()).without_messages();
        request.count(&[0; 5]);
        request.count(&[0; 70]);
        assert_eq!(holdings.held_bytes(), 75);
        drop(request);
        assert_eq!(holdings.held_bytes(), 0);
    }
}
