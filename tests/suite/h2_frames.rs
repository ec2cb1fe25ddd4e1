//! HTTP/2 written frame by frame, for what no client library would send (RFC 9113).

use std::io;
use std::net::SocketAddr;

use peerpost::testing::within_patience;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// `SETTINGS_INITIAL_WINDOW_SIZE`: how much of an answer may be sent before the client asks for more.
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;

/// The code of a stream that was refused before anything was done for it.
pub(crate) const REFUSED_STREAM: u32 = 7;

/// A frame with a payload of at most 16 KiB, which is what everyone has to take.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small payload").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The frame of settings.
pub(crate) fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let pair = |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, &values.iter().flat_map(pair).collect::<Vec<_>>())
}

/// The header block of a call: literals that go into no table, plainly written (RFC 7541, 6.2.2).
pub(crate) fn head(method: &str, token: &str) -> Vec<u8> {
    let path = format!("/peerpost.v1.MessagingService/{method}");
    let authorization = format!("Bearer {token}");
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", &path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("authorization", &authorization),
    ];
    fields.iter().flat_map(|(name, value)| literal(name, value)).collect()
}

/// One field of a header block, of less than 127 bytes each.
pub(crate) fn literal(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| {
        u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text")
    };
    [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

/// A connection to a server, on which anything can be written.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    /// How many bytes of data the server takes from all calls together, by what it said until now.
    pub(crate) window_bytes: usize,
}

/// What a connection's window begins with.
const WINDOW_BYTES: usize = 65_535;

/// A frame that the server sent.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Wire {
    /// A connection on which nothing was said.
    pub(crate) async fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, window_bytes: WINDOW_BYTES })
    }

    /// A connection that has begun as it should, with these settings: the server takes calls.
    pub(crate) async fn open(addr: SocketAddr, values: &[(u16, u32)]) -> io::Result<Self> {
        let mut wire = Self::connect(addr).await?;
        wire.send(&[PREFACE, &settings(values), &frame(SETTINGS, ACK, 0, &[])].concat()).await?;
        // The server's settings, and that it took these.
        let mut awaited = 2;
        while awaited > 0 {
            if wire.next().await?.kind == SETTINGS {
                awaited -= 1;
            }
        }
        Ok(wire)
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next frame. An error when there is none any more.
    pub(crate) async fn next(&mut self) -> io::Result<Frame> {
        let read = async {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await?;
            let [a, b, c, kind, flags, stream @ ..] = head;
            let length = u32::from_be_bytes([0, a, b, c]);
            let mut payload = vec![0; usize::try_from(length).expect("24 bits")];
            self.stream.read_exact(&mut payload).await?;
            Ok(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
        };
        let frame: io::Result<Frame> = within_patience("a frame", read).await;
        let frame = frame?;
        if let (WINDOW_UPDATE, 0, [a, b, c, d]) = (frame.kind, frame.stream, &frame.payload[..]) {
            let more = u32::from_be_bytes([*a, *b, *c, *d]);
            self.window_bytes += usize::try_from(more).expect("31 bits");
        }
        Ok(frame)
    }

    /// Reads on until the server hangs up.
    pub(crate) async fn end(mut self) {
        let mut unread = [0; 4096];
        let end =
            async { while self.stream.read(&mut unread).await.is_ok_and(|count| count > 0) {} };
        within_patience("the server's hanging up", end).await;
    }
}
