use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The bytes that one connection passes on at a time, each way.
const CHUNK_BYTES: usize = 64 * 1024;

/// A TCP proxy in front of a server: the network as it is on a bad day, on command.
///
/// Its address stays the same while the server behind it is replaced, so that a client which
/// reconnects finds the new one. It ends with the value, and its connections with it.
///
/// ```
/// # #[tokio::main]
/// # async fn main() {
/// use peerpost::testing::{Loss, Proxy, TestServer};
///
/// let mut server = TestServer::start().await;
/// let proxy = Proxy::start(server.addr()).await;
/// proxy.lose_answers(1, Loss::Whole); // the server does the next call, its client never knows
/// proxy.stall(); // from now on nothing passes, and nobody is told
/// proxy.cut(); // open connections break; new ones are taken, and stall too
/// server.restart().await;
/// proxy.retarget(server.addr());
/// proxy.resume();
/// # }
/// ```
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    state: Arc<State>,
    /// The accepting task, which owns those of the connections: dropping the set ends them all.
    _accepting: JoinSet<()>,
}

/// How much of an answer is lost together with its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// All of it.
    Whole,
    /// What comes after its headers: the message and the status.
    AfterHeaders,
}

#[derive(Debug)]
struct State {
    control: watch::Sender<Control>,
    connections: AtomicUsize,
    losses: Mutex<Losses>,
}

/// What the connections obey.
#[derive(Debug, Clone, Copy)]
struct Control {
    server: SocketAddr,
    is_stalled: bool,
    /// How often the connections were cut: each ends when this is no longer what it began with.
    cuts: u64,
}

#[derive(Debug)]
struct Losses {
    due: usize,
    done: usize,
    loss: Loss,
}

impl Proxy {
    /// Listens on a free port and passes what comes there on to `server`.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port can be listened on");
        let addr = listener.local_addr().expect("a listener has an address");
        let control = Control { server, is_stalled: false, cuts: 0 };
        let state = Arc::new(State {
            control: watch::Sender::new(control),
            connections: AtomicUsize::new(0),
            losses: Mutex::new(Losses { due: 0, done: 0, loss: Loss::Whole }),
        });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&state)));
        Self { addr, state, _accepting: accepting }
    }

    /// Where clients connect to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address as a URI, for clients.
    pub fn uri(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// New connections are passed on to this server from now on; those that are open stay.
    pub fn retarget(&self, server: SocketAddr) {
        self.state.control.send_modify(|control| control.server = server);
    }

    /// Breaks all open connections. New ones are taken.
    pub fn cut(&self) {
        self.state.control.send_modify(|control| control.cuts += 1);
    }

    /// Holds back everything, both ways, on all connections: open ones, and those to come, which
    /// are taken all the same. Neither side can tell that from a silent other side.
    pub fn stall(&self) {
        self.state.control.send_modify(|control| control.is_stalled = true);
    }

    /// Passes on what was held back, and what comes.
    pub fn resume(&self) {
        self.state.control.send_modify(|control| control.is_stalled = false);
    }

    /// The next `count` answers of the server are lost, and their connections cut: the call has
    /// been done, and its caller cannot know. Replaces what was asked for before.
    pub fn lose_answers(&self, count: usize, loss: Loss) {
        let mut losses = self.state.losses();
        (losses.due, losses.loss) = (count, loss);
    }

    /// How many answers were lost until now.
    pub fn answers_lost(&self) -> usize {
        self.state.losses().done
    }

    /// How many connections were taken until now.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }
}

impl State {
    fn losses(&self) -> MutexGuard<'_, Losses> {
        self.losses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while the proxy is stalled.
    async fn passing(&self) {
        // Fails only when the sender is gone, which is in this very value.
        let _ = self.control.subscribe().wait_for(|control| !control.is_stalled).await;
    }

    /// Where in this piece of an answer it shall be cut.
    fn loses(&self, frames: &mut Frames, chunk: &[u8]) -> Option<usize> {
        let mut losses = self.losses();
        let wanted = match losses.loss {
            Loss::Whole => HEADERS,
            Loss::AfterHeaders => DATA,
        };
        // Also read through while there is nothing to lose, to know where frames begin.
        let at = frames.find(wanted, chunk).filter(|_| losses.due > 0)?;
        losses.due -= 1;
        losses.done += 1;
        Some(at)
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted.expect("the proxy can accept connections");
                state.connections.fetch_add(1, Ordering::SeqCst);
                connections.spawn(serve(client, Arc::clone(&state)));
            }
            Some(ended) = connections.join_next() => ended.expect("the proxy does not panic"),
        }
    }
}

/// One connection, until a side closes it, an answer is lost, or it is cut.
async fn serve(client: TcpStream, state: Arc<State>) {
    let mut control = state.control.subscribe();
    let cuts = control.borrow().cuts;
    tokio::select! {
        // A broken connection is broken on the other side too, when both are dropped here.
        _ = relay(client, &state) => {}
        _ = control.wait_for(|control| control.cuts != cuts) => {}
    }
}

async fn relay(mut client: TcpStream, state: &State) -> io::Result<()> {
    state.passing().await;
    let addr = state.control.borrow().server;
    let mut server = TcpStream::connect(addr).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let mut frames = Frames::default();
    tokio::select! {
        ended = pass(state, from_client, to_server, |_| None) => ended,
        ended = pass(state, from_server, to_client, |chunk| state.loses(&mut frames, chunk)) => ended,
    }
}

/// Passes bytes on to their end, or to where `cut_at` says.
async fn pass(
    state: &State,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut cut_at: impl FnMut(&[u8]) -> Option<usize>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let chunk = &buffer[..count];
        state.passing().await;
        if let Some(at) = cut_at(chunk) {
            return to.write_all(&chunk[..at]).await;
        }
        to.write_all(chunk).await?;
    }
}

/// The types of HTTP/2 frames that an answer is made of.
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;

/// The length of the payload, the type, the flags, the stream: what a frame begins with.
const FRAME_HEADER_BYTES: usize = 9;

/// Follows what a server writes from frame to frame.
#[derive(Debug, Default)]
struct Frames {
    header: Vec<u8>,
    payload_left: usize,
}

impl Frames {
    /// Where the first frame of this type begins in the next piece; 0 for one that began before.
    fn find(&mut self, wanted: u8, chunk: &[u8]) -> Option<usize> {
        let mut found = None;
        let mut at = 0;
        while at < chunk.len() {
            let skipped = self.payload_left.min(chunk.len() - at);
            self.payload_left -= skipped;
            at += skipped;
            let missing = (FRAME_HEADER_BYTES - self.header.len()).min(chunk.len() - at);
            let begin = at.saturating_sub(self.header.len());
            self.header.extend_from_slice(&chunk[at..at + missing]);
            at += missing;
            if let &[high, middle, low, kind, ..] = self.header.as_slice()
                && self.header.len() == FRAME_HEADER_BYTES
            {
                self.header.clear();
                self.payload_left = u32::from_be_bytes([0, high, middle, low]) as usize;
                if kind == wanted && found.is_none() {
                    found = Some(begin);
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).expect("a small one");
        [&[0, 0, length, kind, 0, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn frames_are_found_however_they_are_cut() {
        const SETTINGS: u8 = 0x4;
        // The payloads look like headers of frames.
        let bytes = [
            frame(SETTINGS, &[0, 0, 0, 1, 0, 0, 0, 0, 1]),
            frame(HEADERS, &[]),
            frame(DATA, &[0, 0, 9, 1, 0, 0, 0, 0, 1, 7]),
            frame(HEADERS, &[1]),
        ]
        .concat();
        for (wanted, position) in [(HEADERS, 18), (DATA, 27)] {
            for size in 1..=bytes.len() {
                let mut frames = Frames::default();
                let found = bytes
                    .chunks(size)
                    .enumerate()
                    .find_map(|(i, chunk)| frames.find(wanted, chunk).map(|at| i * size + at));
                let found = found.expect("it is there");
                // The beginning of a header may have passed with the piece before.
                assert!((position..position + FRAME_HEADER_BYTES).contains(&found), "{found}");
                assert!(found == position || found % size == 0, "{found} in pieces of {size}");
            }
        }
    }
}
