//! Reading a stored mailbox, by the size of a page.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use peerpost::domain::Sequence;
use peerpost::domain::limits::PAGE_BYTES_MAX;
use peerpost::store::{PageQuery, PageStart};

use crate::support::OpenStore;

const STORED: usize = 20_000;

pub(crate) fn by_page(criterion: &mut Criterion) {
    let open = OpenStore::new();
    let ((alice, _), (bob, _)) = (open.user("alice"), open.user("bob"));
    open.fill(&alice, &bob, STORED);
    let mut group = criterion.benchmark_group("replay");
    group.sample_size(50);
    for messages in [16, 256, 1000_usize] {
        // Each page begins elsewhere, as a follower's does.
        let mut after = 0;
        group.throughput(Throughput::Elements(messages as u64));
        group.bench_function(BenchmarkId::new("page", messages), |bencher| {
            bencher.to_async(&open.runtime).iter(|| {
                after = (after + messages) % (STORED - messages);
                let after = Sequence::parse(i64::try_from(after).expect("small"));
                let query = PageQuery {
                    owner: bob.id,
                    start: PageStart::After(after.expect("a sequence")),
                    peer: None,
                    received_only: false,
                    messages_max: messages,
                    bytes_max: PAGE_BYTES_MAX,
                };
                let page = open.store.page(query);
                async move {
                    let page = page.await.expect("it can be read");
                    assert_eq!(page.messages.len(), messages);
                    black_box(page)
                }
            });
        });
    }
    group.finish();
}
