//! Announcing committed messages, by who follows. None of the followers reads meanwhile, so that
//! what is measured is what the writer's thread pays.

use std::hint::black_box;
use std::num::NonZero;

use criterion::{BenchmarkId, Criterion, Throughput};
use peerpost::hub::Hub;

use crate::support::{message, user};

/// More subscriptions than are opened.
const MOST: NonZero<usize> = NonZero::<usize>::MAX;

/// As many as a commit holds at most.
const GROUP: i64 = 512;

const MANY_USERS: i64 = 10_000;

pub(crate) fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hub");
    group.throughput(Throughput::Elements(1));
    let announced = [message(user(1), user(2))];
    for followers in [0, 1, 16, 256_usize] {
        let hub = Hub::default();
        let _followers: Vec<_> =
            (0..followers).map(|_| hub.register(user(2).id, MOST).expect("room")).collect();
        group.bench_function(BenchmarkId::new("followers of one user", followers), |bencher| {
            bencher.iter(|| hub.publish(black_box(&announced)));
        });
    }

    let hub = Hub::default();
    let _followers: Vec<_> =
        (0..MANY_USERS).map(|id| hub.register(user(id).id, MOST).expect("room")).collect();
    // Their users stand far from each other in the map, as those of a commit do.
    let place = |n: i64, step: i64| user(n * step % MANY_USERS);
    let announced: Vec<_> = (0..GROUP).map(|n| message(place(n, 7919), place(n, 6007))).collect();
    group.throughput(Throughput::Elements(GROUP.unsigned_abs()));
    group.bench_function("512 messages, 10,000 users followed", |bencher| {
        bencher.iter(|| hub.publish(black_box(&announced)));
    });
    group.finish();
}
