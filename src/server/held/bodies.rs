//! The bodies of requests and answers, as they are counted.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tonic::codegen::StdError;

use super::Share;
use crate::grpc;

/// The length of what stands before each message (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX_BYTES: usize = 5;

impl Share {
    /// A request's body as it is received.
    pub(in crate::server) fn request<B>(self: &Arc<Self>, body: B) -> RequestBody<B> {
        RequestBody { body, latest: Held::new(Arc::clone(self)), message: Some(Message::default()) }
    }

    /// An answer's body as it is sent.
    pub(in crate::server) fn answer<B>(self: &Arc<Self>, body: B) -> Answer<B> {
        Answer { body, share: Arc::clone(self) }
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
    pub(in crate::server) fn without_messages(self) -> Self {
        Self { message: None, ..self }
    }

    /// Counts what `decode` makes of the body, instead of what comes.
    pub(in crate::server) fn decoded<C>(self, decode: impl FnOnce(B) -> C) -> RequestBody<C> {
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

impl<B> Body for RequestBody<B>
where
    B: Body<Data = Bytes, Error: Into<StdError>> + Unpin,
{
    type Data = Bytes;
    /// A status, where the request is refused.
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(bytes) = frame.data_ref()
        {
            self.count(bytes);
            if let Err(held_bytes_max) = self.latest.share.has_room() {
                return Poll::Ready(Some(Err(grpc::over_held_bytes(held_bytes_max).into())));
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body. Its bytes count until the socket has taken them.
pub(in crate::server) struct Answer<B> {
    body: B,
    share: Arc<Share>,
}

/// Bytes of an answer.
pub(in crate::server) struct Piece {
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
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::server::held::Holdings;

    fn share(of: &Arc<Holdings>) -> Arc<Share> {
        of.share(CancellationToken::new())
    }

    #[test]
    fn what_is_dropped_is_held_no_more() {
        let holdings = Holdings::new(100);
        let share = share(&holdings);
        let mut held = Held::new(Arc::clone(&share));
        held.grow(70);
        let mut piece = Piece { bytes: Bytes::from_static(&[0; 70]), held };
        piece.advance(30);
        assert_eq!(holdings.held_bytes(), 40);
        drop(piece);
        assert_eq!(holdings.held_bytes(), 0);
        drop(share);
        assert_eq!(holdings.connections_open(), 0);
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
            let mut request = share(&holdings).request(());
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
        let mut request = share(&holdings).request(()).without_messages();
        request.count(&[0; 5]);
        request.count(&[0; 70]);
        assert_eq!(holdings.held_bytes(), 75);
        drop(request);
        assert_eq!(holdings.held_bytes(), 0);
    }
}
