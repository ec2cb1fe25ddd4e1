//! Micro-benchmarks of the parts of a message's path, through the same interfaces as the server's.
//!
//! `cargo bench` measures all, `cargo bench -- writer` a part, `cargo bench -- --test` runs each once.
//! For what a server does as a whole, and beside its ceilings, there is `peerpost bench`.

#![allow(clippy::unwrap_used, missing_docs)]

mod calls;
mod codec;
mod hub;
mod limiter;
mod replay;
mod support;
mod token;
mod writer;

criterion::criterion_group!(
    benches,
    writer::by_messages_in_flight,
    hub::publish,
    limiter::admit_send,
    replay::by_page,
    token::check,
    codec::decode_and_encode,
    calls::without_a_socket,
);
criterion::criterion_main!(benches);
