//! The writer: messages on disk, by how many are in flight and so share a commit.

use criterion::{BenchmarkId, Criterion, Throughput};

use crate::support::{OpenStore, append, draft};

pub(crate) fn by_messages_in_flight(criterion: &mut Criterion) {
    let open = OpenStore::new();
    let ((alice, _), (bob, _)) = (open.user("alice"), open.user("bob"));
    let mut group = criterion.benchmark_group("writer");
    group.sample_size(20);
    for in_flight in [1, 8, 64, 512_usize] {
        group.throughput(Throughput::Elements(in_flight as u64));
        group.bench_function(BenchmarkId::new("in flight", in_flight), |bencher| {
            bencher
                .to_async(&open.runtime)
                .iter(|| append(&open.store, (0..in_flight).map(|_| draft(&alice, &bob))));
        });
    }
    group.finish();
}
