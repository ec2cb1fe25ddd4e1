//! Whether a user may send: what every send pays, without a limit and with one.

use std::hint::black_box;
use std::num::NonZero;

use criterion::Criterion;
use peerpost::domain::{UserId, UserLimits};
use peerpost::limiter::{Limiter, Options};

const MANY_USERS: i64 = 100_000;

/// So many that nobody is refused while it is measured.
const RATE: &str = "1000000/s";

pub(crate) fn admit_send(criterion: &mut Criterion) {
    let limited = || {
        let send_rate_per_user = RATE.parse().expect("a rate");
        let send_burst_per_user = NonZero::new(1_000_000);
        Limiter::new(Options { send_rate_per_user, send_burst_per_user, ..Options::default() })
    };
    let mut group = criterion.benchmark_group("limiter");
    let unlimited = Limiter::default();
    group.bench_function("no limit", |bencher| {
        bencher.iter(|| unlimited.admit_send(black_box(UserId(1))));
    });
    let one = limited();
    group.bench_function("one user", |bencher| {
        bencher.iter(|| one.admit_send(black_box(UserId(1))));
    });
    let many = limited();
    for user in 0..MANY_USERS / 10 {
        let own =
            UserLimits { send_rate: Some(RATE.parse().expect("a rate")), ..Default::default() };
        many.set(UserId(user), own);
    }
    let mut user = 0;
    group.bench_function("100,000 users, each tenth with a rate of their own", |bencher| {
        bencher.iter(|| {
            // Far apart, so that what is remembered of them is not at hand.
            user = (user + 61_803) % MANY_USERS;
            many.admit_send(black_box(UserId(user)))
        });
    });
    group.finish();
}
