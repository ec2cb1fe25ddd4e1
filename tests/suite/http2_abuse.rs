//! HTTP/2 as an attacker speaks it: floods, too much of everything, too slow, never to the end. The
//! server's memory stays under a ceiling, a well-behaved client is served throughout, and when the
//! attackers are gone so is what they held.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use peerpost::testing::{TestServer, text_to, within_patience};
use prost::Message as _;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;

use crate::h2_frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, PING, PREFACE,
    PRIORITY, REFUSED_STREAM, RST_STREAM, SETTINGS, WINDOW_UPDATE, Wire, frame, head, literal,
    settings,
};
use crate::raw;
use crate::support::{WITH_MANY_FILES, raise_file_limit};
use crate::victim::{Attack, Victim};

/// What the server may grow by under a flood, however much comes.
const FLOOD_GROWTH_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// What all attackers of a flood together have sent when it counts as one.
const FLOOD_BYTES_MIN: u64 = 512 * 1024;

const FLOODERS: usize = 2;

/// Frames of one kind, without an end. It begins with the first bytes, after the preface and the
/// settings unless it is not HTTP/2 at all; then come batch after batch.
#[derive(Clone)]
struct Flood {
    what: &'static str,
    is_http2: bool,
    begin: Vec<u8>,
    batch: Arc<dyn Fn(u32) -> Vec<u8> + Send + Sync>,
}

fn flood(
    what: &'static str,
    begin: Vec<u8>,
    batch: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static,
) -> Flood {
    Flood { what, is_http2: true, begin, batch: Arc::new(batch) }
}

fn noise(what: &'static str, bytes: &[u8]) -> Flood {
    let batch = bytes.to_owned();
    Flood { is_http2: false, ..flood(what, Vec::new(), move |_| batch.clone()) }
}

/// The ids of a batch's streams, which are a client's: odd, each only once.
fn streams(batch: u32) -> impl Iterator<Item = u32> {
    (0..100).map(move |i| (batch * 100 + i) * 2 + 1)
}

fn floods(token: &str) -> Vec<Flood> {
    let call = |method| head(method, token);
    let (send, follow, get) = (call("SendMessages"), call("Subscribe"), call("GetMessages"));
    let unfinished = frame(HEADERS, END_HEADERS, 1, &send);
    let begun = frame(HEADERS, 0, 1, &send);
    let field = literal("x-field", &"y".repeat(100));
    let page = field.repeat(140);
    vec![
        flood("pings", vec![], |_| frame(PING, 0, 0, &[7; 8]).repeat(500)),
        flood("acknowledged pings", vec![], |_| frame(PING, ACK, 0, &[7; 8]).repeat(500)),
        flood("settings", vec![], |batch| {
            settings(&[(INITIAL_WINDOW_SIZE, 65_535 - batch % 2)]).repeat(500)
        }),
        flood("window updates", vec![], |_| {
            frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()).repeat(500)
        }),
        flood("priorities", vec![], |batch| {
            streams(batch).flat_map(|id| frame(PRIORITY, 0, id, &[0, 0, 0, 0, 16])).collect()
        }),
        flood("unknown frames", vec![], |_| frame(0xfa, 0xff, 0, &[0; 1024]).repeat(16)),
        flood("resets", vec![], move |batch| {
            let reset = |id| [frame(HEADERS, END_HEADERS, id, &follow), cancel(id)].concat();
            streams(batch).flat_map(reset).collect()
        }),
        flood("resets of finished calls", vec![], move |batch| {
            let ends = END_HEADERS | END_STREAM;
            let reset = |id| [frame(HEADERS, ends, id, &get), cancel(id)].concat();
            streams(batch).flat_map(reset).collect()
        }),
        flood("calls without a request", vec![], move |batch| {
            let ends = END_HEADERS | END_STREAM;
            streams(batch).flat_map(|id| frame(HEADERS, ends, id, &call_to_nothing())).collect()
        }),
        flood("calls without a path", vec![], |batch| {
            let head = literal(":method", "POST");
            streams(batch).flat_map(|id| frame(HEADERS, END_HEADERS, id, &head)).collect()
        }),
        flood("empty data", unfinished.clone(), |_| frame(DATA, 0, 1, &[]).repeat(500)),
        flood("data over every window", unfinished, |_| frame(DATA, 0, 1, &[0; 16_000])),
        flood("continuations", begun.clone(), move |_| frame(CONTINUATION, 0, 1, &page)),
        flood("empty continuations", begun, |_| frame(CONTINUATION, 0, 1, &[]).repeat(500)),
        flood("heads over the limit", vec![], move |batch| {
            let head = field.repeat(140);
            let begins = move |id| frame(HEADERS, 0, id, &head);
            let ends = |id| frame(CONTINUATION, END_HEADERS, id, &literal("x", "y"));
            streams(batch).flat_map(move |id| [begins(id), ends(id)].concat()).collect()
        }),
        flood("heads that unpack to 64 MB", vec![], |batch| {
            streams(batch).flat_map(|id| frame(HEADERS, END_HEADERS, id, &bomb(id))).collect()
        }),
        flood("heads that are none", vec![], |_| frame(HEADERS, END_HEADERS, 1, &[0xff; 64])),
        noise("another protocol", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"),
        noise("an upgrade", b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"),
        noise("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        noise("zeros", &[0; 4096]),
        noise("prefaces", PREFACE),
    ]
}

fn cancel(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

fn call_to_nothing() -> Vec<u8> {
    head("Nothing", "pp_none")
}

/// A field of 4,000 bytes goes into the table, and then is named 12,000 times with a byte each.
fn bomb(stream: u32) -> Vec<u8> {
    let mut block = Vec::new();
    if stream == 1 {
        block.extend(b"\x40\x01x\x7f\xa1\x1e");
        block.extend([b'y'; 4_000]);
    }
    block.extend([0xbe; 12_000]);
    block
}

/// One attacker's flood, until the server hangs up. It reads what comes back, or nothing of it.
async fn run(
    addr: SocketAddr,
    flood: Flood,
    reads: bool,
    sent_bytes: Arc<AtomicU64>,
) -> io::Result<()> {
    let wire =
        if flood.is_http2 { Wire::open(addr, &[]).await? } else { Wire::connect(addr).await? };
    let (mut reading, mut writing) = wire.stream.into_split();
    let read = async {
        if reads {
            tokio::io::copy(&mut reading, &mut tokio::io::sink()).await?;
        }
        std::future::pending::<io::Result<()>>().await
    };
    let write = async {
        writing.write_all(&flood.begin).await?;
        for batch in 0.. {
            let bytes = (flood.batch)(batch);
            // In pieces, so that what came before the server hung up is counted.
            for piece in bytes.chunks(4096) {
                writing.write_all(piece).await?;
                sent_bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
        }
        Ok(())
    };
    tokio::select! {
        end = read => end,
        end = write => end,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_every_kind_cost_a_bounded_amount_of_memory_and_delay_nobody() {
    let mut victim = Victim::start().await;
    let mallory = victim.server.user("mallory").await;
    let addr = victim.addr();
    for flood in floods(&mallory.token) {
        // Every second one reads what comes back, the others nothing of it.
        let attack =
            Attack::by(FLOODERS, |number, sent| run(addr, flood.clone(), number % 2 == 0, sent));
        victim.withstands(flood.what, attack, FLOOD_BYTES_MIN, FLOOD_GROWTH_MAX_BYTES).await;
    }
}

/// What 10,000 connections may cost, each with its settings exchanged.
const CONNECTION_BYTES_MAX: u64 = 32 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_connections_are_held_and_let_go() {
    const WANTED: usize = 10_000;
    /// What the server and this process open beside them, tests that run meanwhile included.
    const OTHER_FILES: u64 = 2_000;
    let files_max = raise_file_limit();
    let room = usize::try_from(files_max.saturating_sub(OTHER_FILES)).unwrap_or(WANTED);
    let count = WANTED.min(room);
    if count < WANTED {
        println!("ONLY {count} CONNECTIONS: a process here may open {files_max} files");
    }
    let mut victim = Victim::start_through(&WITH_MANY_FILES).await;
    let mut open = Vec::with_capacity(count);
    for _ in 0..count {
        open.push(Wire::open(victim.addr(), &[]).await.expect("a place"));
        if open.len() % 500 == 0 {
            victim.is_serving().await;
        }
    }
    victim.is_serving().await;
    let growth = victim.growth_bytes();
    println!("{count} connections: {} bytes each", growth / count as u64);
    assert!(growth < count as u64 * CONNECTION_BYTES_MAX, "{growth} bytes more");
    drop(open);
    victim.recovers("ten thousand connections").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_over_a_connections_limit_are_refused_and_the_others_go_on() {
    const CALLS_MAX: usize = 256;
    const OVER: usize = 500;
    let victim = Victim::start().await;
    let mut wire = Wire::open(victim.addr(), &[]).await.expect("a connection");
    let head = head("SendMessage", &victim.client.token);
    let ids: Vec<u32> =
        (0..CALLS_MAX + OVER).map(|i| u32::try_from(i).expect("few") * 2 + 1).collect();
    let heads: Vec<_> = ids.iter().flat_map(|id| frame(HEADERS, END_HEADERS, *id, &head)).collect();
    wire.send(&heads).await.expect("taken");
    let mut refused = Vec::new();
    while refused.len() < OVER {
        let frame = wire.next().await.expect("the connection goes on");
        if frame.kind == RST_STREAM {
            assert_eq!(frame.payload, REFUSED_STREAM.to_be_bytes());
            refused.push(frame.stream);
        }
    }
    assert_eq!(refused, ids[CALLS_MAX..]);
    // Those before the limit are still there.
    let request = raw::frame(&text_to("client", "late").encode_to_vec());
    for id in &ids[..CALLS_MAX] {
        wire.send(&frame(DATA, END_STREAM, *id, &request)).await.expect("taken");
    }
    let mut answered = 0;
    while answered < CALLS_MAX {
        let frame = wire.next().await.expect("the connection goes on");
        assert_ne!(frame.kind, RST_STREAM);
        answered += usize::from(frame.kind == HEADERS && frame.flags & END_STREAM != 0);
    }
    assert_eq!(victim.client.mailbox().await.len(), 1 + CALLS_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_comes_byte_by_byte_is_answered() {
    let victim = Victim::start().await;
    let request = raw::frame(&text_to("client", "slowly").encode_to_vec());
    let bytes = [
        PREFACE,
        &settings(&[]),
        &frame(HEADERS, END_HEADERS, 1, &head("SendMessage", &victim.client.token)),
        &frame(DATA, END_STREAM, 1, &request),
    ];
    let mut wire = Wire::connect(victim.addr()).await.expect("a connection");
    for byte in bytes.concat() {
        wire.send(&[byte]).await.expect("taken");
    }
    loop {
        let frame = wire.next().await.expect("an answer");
        if frame.kind == HEADERS && frame.flags & END_STREAM != 0 {
            break;
        }
    }
    assert_eq!(victim.client.mailbox().await.len(), 2);
}

/// Clients that begin and do not go on. They hold a connection, and no more than that.
#[tokio::test(flavor = "multi_thread")]
async fn who_stops_in_the_middle_holds_little_and_who_never_begins_is_cut() {
    const EACH: usize = 200;
    const GROWTH_MAX_BYTES: u64 = 6 * 200 * 32 * 1024;
    let mut victim = Victim::start().await;
    let whole = frame(HEADERS, END_HEADERS, 1, &head("Subscribe", &victim.client.token));
    let opened = [PREFACE, &settings(&[]), &frame(SETTINGS, ACK, 0, &[])].concat();
    let half_a_frame = [&opened, &whole[..whole.len() / 2]].concat();
    let half_a_call = [&opened[..], &whole, &frame(DATA, 0, 1, &[0, 0])].concat();
    let mut held = Vec::new();
    let mut never_begun = JoinSet::new();
    for _ in 0..EACH {
        for beginning in [&b""[..], &PREFACE[..23], &PREFACE[..1]] {
            let mut wire = Wire::connect(victim.addr()).await.expect("a connection");
            wire.send(beginning).await.expect("taken");
            never_begun.spawn(wire.end());
        }
        for (bytes, closes) in [(&half_a_frame, false), (&half_a_call, false), (&half_a_call, true)]
        {
            let mut wire = Wire::connect(victim.addr()).await.expect("a connection");
            wire.send(bytes).await.expect("taken");
            if closes {
                wire.stream.shutdown().await.expect("half closed");
            }
            held.push(wire);
        }
        victim.is_serving().await;
    }
    let growth = victim.growth_bytes();
    println!("{} clients that stopped: {} KiB more", 6 * EACH, growth / 1024);
    assert!(growth < GROWTH_MAX_BYTES, "{growth} bytes more");
    let cut = async { while never_begun.join_next().await.is_some() {} };
    within_patience("the end of those who never began", cut).await;
    victim.is_serving().await;
    drop(held);
    victim.recovers("clients that stopped").await;
}

/// What the server may grow by with the unread answers and unfinished requests of all connections:
/// what it is to hold of them, and as much again for what it is made of and what is read meanwhile.
const HELD_GROWTH_MAX_BYTES: u64 = 512 * 1024 * 1024;

const CALLS_EACH: u32 = 250;

/// Answers of 1 MiB that nobody takes: each connection has asked for 250 of them.
#[tokio::test(flavor = "multi_thread")]
async fn unread_answers_of_all_connections_together_are_bounded() {
    let mut victim = Victim::start().await;
    let mallory = victim.user_with_a_full_page("mallory").await;
    let (addr, head) = (victim.addr(), head("GetMessages", &mallory.token));
    let attack = Attack::by(8, |_, asked| {
        let head = head.clone();
        async move {
            let mut wire = Wire::open(addr, &[(INITIAL_WINDOW_SIZE, 1)]).await?;
            for call in 0..CALLS_EACH {
                let id = call * 2 + 1;
                let request = frame(DATA, END_STREAM, id, &raw::frame(b""));
                wire.send(&[frame(HEADERS, END_HEADERS, id, &head), request].concat()).await?;
                asked.fetch_add(1, Ordering::Relaxed);
            }
            // Until the server has had enough.
            wire.end().await;
            Ok(())
        }
    });
    // Asked for by all of them: 1.5 GiB and more.
    victim.withstands("unread answers", attack, 1_500, HELD_GROWTH_MAX_BYTES).await;
}

/// Requests of 120 KB whose last byte never comes: each connection has 250 of them.
#[tokio::test(flavor = "multi_thread")]
async fn unfinished_requests_of_all_connections_together_are_bounded() {
    const BYTES_EACH: usize = 120_000;
    const PIECE_BYTES: usize = 16_000;
    let mut victim = Victim::start().await;
    let mallory = victim.server.user("mallory").await;
    let (addr, head) = (victim.addr(), head("SendMessage", &mallory.token));
    let request = raw::frame(&vec![0; BYTES_EACH]).slice(..BYTES_EACH);
    let attack = Attack::by(32, |_, sent_bytes| {
        let (head, request) = (head.clone(), request.clone());
        async move {
            let mut wire = Wire::open(addr, &[]).await?;
            for id in (0..CALLS_EACH).map(|call| call * 2 + 1) {
                wire.send(&frame(HEADERS, END_HEADERS, id, &head)).await?;
                for piece in request.chunks(PIECE_BYTES) {
                    while wire.window_bytes < piece.len() {
                        wire.next().await?;
                    }
                    wire.window_bytes -= piece.len();
                    wire.send(&frame(DATA, 0, id, piece)).await?;
                    sent_bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
                }
            }
            // Until the server has had enough.
            wire.end().await;
            Ok(())
        }
    });
    let enough = 900 * 1024 * 1024;
    victim.withstands("unfinished requests", attack, enough, HELD_GROWTH_MAX_BYTES).await;
}

/// Too many to be refused one by one, since each holds little: who asked for the answers is cut, and nobody
/// else.
#[tokio::test]
async fn those_who_hold_more_than_the_operator_allows_are_cut_and_nobody_else() {
    const KIB: usize = 1024;
    const CONNECTIONS: usize = 64;
    let server = TestServer::start_with(|options| {
        options.limits.held_bytes_max = 8 * KIB * KIB;
        options.body_bytes_max = 200 * KIB;
    })
    .await;
    let (mallory, bob) = (server.user("mallory").await, server.user("bob").await);
    mallory.send("mallory", &"x".repeat(200 * KIB)).await;
    let mut reader = bob.follow(0).await;
    let head = head("GetMessages", &mallory.token);
    let request = frame(DATA, END_STREAM, 1, &raw::frame(b""));
    let mut wires = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let opened = Wire::open(server.addr(), &[(INITIAL_WINDOW_SIZE, 1)]).await;
        let mut wire = opened.expect("connects");
        wire.send(&[frame(HEADERS, END_HEADERS, 1, &head), request.clone()].concat())
            .await
            .expect("taken");
        wires.spawn(wire.end());
    }
    within_patience("the cut", wires.join_next()).await.expect("one of them").expect("no panic");
    let sent = bob.send("bob", "all the same").await;
    assert_eq!(reader.messages(1).await, [sent]);
}
