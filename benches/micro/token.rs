//! Recognising a caller: what every call pays.

use std::hint::black_box;

use criterion::Criterion;
use peerpost::auth::Authenticator;
use peerpost::domain::Token;

use crate::support::OpenStore;

pub(crate) fn check(criterion: &mut Criterion) {
    let open = OpenStore::new();
    let (_, token) = open.user("alice");
    let text = token.reveal();
    let authenticator = Authenticator::alone(open.store.clone());
    let mut group = criterion.benchmark_group("token");
    group.bench_function("parse and hash", |bencher| {
        bencher.iter(|| Token::parse(black_box(&text)).expect("a token").hash());
    });
    group.bench_function("known", |bencher| {
        bencher.to_async(&open.runtime).iter(|| authenticator.authenticate(black_box(&token)));
    });
    group.bench_function("looked up", |bencher| {
        bencher.to_async(&open.runtime).iter(|| open.store.find_by_token(token.hash()));
    });
    group.finish();
}
