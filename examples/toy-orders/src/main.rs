//! `toy-orders SERVER TOKEN-FILE CURSOR-FILE`: opens the desk until Ctrl-C.

use anyhow::{Context as _, bail};
use peerpost::client::{Client, Token};
use toy_orders::{CursorFile, Desk, Prices};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, token_file, cursor_file] = arguments.as_slice() else {
        bail!("usage: toy-orders SERVER TOKEN-FILE CURSOR-FILE");
    };
    let text = std::fs::read_to_string(token_file).with_context(|| token_file.clone())?;
    let token = Token::parse(&text).with_context(|| token_file.clone())?;
    let client = Client::connect(server)?.with_token(&token);
    let prices = Prices::from([("teapot".to_owned(), 1995), ("cup".to_owned(), 450)]);
    let desk = Desk::new(client, prices, CursorFile::at(cursor_file));
    tokio::select! {
        closed = desk.run() => Ok(closed?),
        stop = tokio::signal::ctrl_c() => stop.context("cannot listen for Ctrl-C"),
    }
}
